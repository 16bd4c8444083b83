"""The kind provider: a cluster in containers, where an engine answers.

`kind` itself is taken from PATH, or built from its pinned Go module.
"""

import ipaddress
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from upstream_guard.lab import process, tools
from upstream_guard.lab.existing import cluster_nodes
from upstream_guard.lab.local import check_archive
from upstream_guard.lab.model import (
    CLUSTER_FILE,
    Availability,
    Cluster,
    LabError,
    LabSpec,
    LabStatus,
    Reporter,
    current_cluster,
)

NAME = "upstream-guard-lab"
ENGINES = ("docker", "podman", "nerdctl")
_CONFIG_FILE = "kind.yaml"

Runner = Callable[[Sequence[str], Mapping[str, str]], "subprocess.CompletedProcess[str]"]
"""Runs a command line with extra environment variables; never raises for an exit code."""


def run(argv: Sequence[str], env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """The real `Runner`. A program that is not there counts as exit code 127."""
    try:
        return subprocess.run(
            argv, env={**os.environ, **env}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(list(argv), 127, "", str(error))


def find_engine(run_command: Runner = run) -> str:
    """The first container engine that answers, "" where none does."""
    for engine in ENGINES:
        if shutil.which(engine) and run_command([engine, "info"], {}).returncode == 0:
            return engine
    return ""


def config(spec: LabSpec) -> str:
    """The kind configuration: the asked number of nodes, in zones a, b, c by turns.

    With more than one node the control plane takes no pods, so there is one more container.
    """
    patch = yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "maxPods": spec.max_pods,
        }
    )
    workers = spec.nodes if spec.nodes > 1 else 0
    nodes: list[dict[str, Any]] = [{"role": "control-plane"}]
    nodes += [
        {"role": "worker", "labels": {"topology.kubernetes.io/zone": f"zone-{'abc'[i % 3]}"}}
        for i in range(workers)
    ]
    return yaml.safe_dump(
        {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "name": NAME,
            "kubeadmConfigPatches": [patch],
            "nodes": nodes,
        },
        sort_keys=False,
    )


def create_command(kind: Path, config_file: Path, kubeconfig: Path) -> list[str]:
    """The command that creates the cluster."""
    return [
        *(str(kind), "create", "cluster", f"--name={NAME}", f"--config={config_file}"),
        *(f"--kubeconfig={kubeconfig}", "--wait=180s"),
    ]


def delete_command(kind: Path, kubeconfig: Path) -> list[str]:
    """The command that deletes the cluster; deleting one that is not there is no error."""
    return [str(kind), "delete", "cluster", f"--name={NAME}", f"--kubeconfig={kubeconfig}"]


def load_command(kind: Path, archive: Path) -> list[str]:
    """The command that loads an image archive into every node."""
    return [str(kind), "load", "image-archive", str(archive), f"--name={NAME}"]


def engine_environment(engine: str) -> dict[str, str]:
    """Tells kind which engine to use."""
    return {} if engine in {"", "docker"} else {"KIND_EXPERIMENTAL_PROVIDER": engine}


def gateway_address(network: str) -> str:
    """The machine's address in the engine's network, from `ENGINE network inspect kind`.

    Returns:
        An IPv4 address, "" where the answer holds none.
    """
    try:
        answer = json.loads(network)
    except ValueError:
        return ""
    entries = answer if isinstance(answer, list) else [answer]
    for entry in entries:
        ipam = entry.get("IPAM") or {}
        for subnet in [*(ipam.get("Config") or ()), *(entry.get("subnets") or ())]:
            address = str(subnet.get("Gateway") or subnet.get("gateway") or "")
            if address and ipaddress.ip_address(address).version == 4:
                return address
    return ""


class KindProvider:
    """A kind cluster."""

    name = "kind"

    def __init__(self, state_dir: Path, run_command: Runner = run) -> None:
        self._state_dir = state_dir
        self._run = run_command

    def detect(self) -> Availability:
        """A container engine has to answer."""
        engine = find_engine(self._run)
        if engine:
            return Availability(usable=True, reason=f"{engine} answers")
        return Availability(usable=False, reason=f"no engine answers ({', '.join(ENGINES)})")

    def up(self, spec: LabSpec, say: Reporter) -> Cluster:
        """Bring the cluster up, or return the one that is.

        Raises:
            LabError: what is missing or in the way, and what to do about it.
        """
        engine = find_engine(self._run)
        if not engine:
            raise LabError(
                f"kind needs a container engine, and none answers ({', '.join(ENGINES)}); "
                "start one, or use `--provider local`"
            )
        present = current_cluster(spec.state_dir)
        if present is not None and present.provider != self.name:
            raise LabError(
                f"a lab of the provider {present.provider} is up; `upstream-guard lab down` first"
            )
        if present is not None and self.status().up:
            say.note("The lab is up already.")
            return present
        kind = self._kind(say)
        state = spec.state_dir
        state.mkdir(parents=True, exist_ok=True)
        config_file, kubeconfig = state / _CONFIG_FILE, state / "kubeconfig"
        config_file.write_text(config(spec), encoding="utf-8")
        with say.step(f"Creating a kind cluster with {engine} (pulls an image the first time)"):
            self._must(delete_command(kind, kubeconfig), engine)
            self._must(create_command(kind, config_file, kubeconfig), engine)
        cluster = Cluster(
            name=NAME,
            provider=self.name,
            kubeconfig=kubeconfig,
            context=f"kind-{NAME}",
            state_dir=state,
            kubectl=Path(shutil.which("kubectl") or tools.tool_path("kubectl", say)),
            host_address=gateway_address(
                self._run([engine, "network", "inspect", "kind"], {}).stdout
            ),
            nodes=(),
            service_cidr="10.96.0.0/16",
        )
        (state / CLUSTER_FILE).write_text(cluster.to_json(), encoding="utf-8")
        return cluster

    def down(self, say: Reporter) -> None:
        """Delete the cluster and our processes. Nothing there is no error.

        Raises:
            LabError: if kind cannot delete it.
        """
        with say.step("Deleting the kind cluster"):
            process.kill_all([p for p in process.marked() if p.state_dir == self._state_dir])
            self._must(
                delete_command(self._kind(say), self._state_dir / "kubeconfig"),
                find_engine(self._run),
            )
            for name in (CLUSTER_FILE, "kubeconfig", _CONFIG_FILE):
                (self._state_dir / name).unlink(missing_ok=True)

    def present(self) -> bool:
        """Whether a kind cluster was made, or its making was begun."""
        return (self._state_dir / _CONFIG_FILE).exists()

    def status(self) -> LabStatus:
        """What is there now; changes nothing."""
        cluster = current_cluster(self._state_dir)
        if cluster is None or cluster.provider != self.name:
            return LabStatus(up=False, provider=self.name, detail="no lab")
        try:
            version, nodes = cluster_nodes(cluster)
        except LabError as error:
            return LabStatus(up=False, provider=self.name, detail=str(error))
        detail = f"{sum(n.ready for n in nodes)} of {len(nodes)} nodes ready"
        return LabStatus(up=True, provider=self.name, detail=detail, version=version, nodes=nodes)

    def load_image(self, cluster: Cluster, archive: Path, say: Reporter) -> None:
        """Import an archive into every node.

        Raises:
            LabError: if the archive is missing or no archive, or kind refuses it.
        """
        del cluster
        names = check_archive(archive)
        with say.step(f"Loading {', '.join(names)}"):
            self._must(load_command(self._kind(say), archive), find_engine(self._run))

    def _kind(self, say: Reporter) -> Path:
        found = shutil.which("kind")
        return Path(found) if found else tools.tool_path("kind", say)

    def _must(self, argv: Sequence[str], engine: str) -> None:
        done = self._run(argv, engine_environment(engine))
        if done.returncode:
            raise LabError(f"`{' '.join(argv)}` failed:\n{done.stderr.strip()[-1200:]}")
