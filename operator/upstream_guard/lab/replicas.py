"""The operator beside the cluster: processes of this machine, with exactly the rights of `deploy/`.

They use a token of the ServiceAccount that `deploy/` makes, so what RBAC or the admission policy
forbids in a cluster is forbidden here too.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

import upstream_guard
from upstream_guard.core import names
from upstream_guard.lab import process
from upstream_guard.lab.model import Cluster, LabError, Reporter
from upstream_guard.lab.ports import spare_ports
from upstream_guard.lab.supervising import supervised

Json = dict[str, Any]

LEFT_OUT: Final = frozenset({"Deployment", "PodDisruptionBudget"})
"""Kinds of `deploy/` that are the operator *in* the cluster."""
TOKEN_HOURS: Final = 24
READY_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Replica:
    """One running operator process."""

    name: str
    """Its log's name: `upstream-guard lab logs NAME`."""
    pid: int
    http_port: int
    """For /metrics, /healthz and /readyz."""
    log: Path
    command: tuple[str, ...] = ()
    """How it was started, and is started again."""


def manifests_folder() -> Path:
    """Where `deploy/` is: beside the sources in a checkout, inside the package when installed.

    Raises:
        LabError: neither is there.
    """
    package = Path(upstream_guard.__file__).parent
    for folder in (package.parent.parent / "deploy", package / "manifests" / "deploy"):
        if (folder / "kustomization.yaml").is_file():
            return folder
    raise LabError(f"the manifests of deploy/ are missing beside {package}; install the project")


def install(cluster: Cluster, say: Reporter) -> None:
    """Apply all of `deploy/` but the operator's own Deployment, and wait for the CRDs.

    Raises:
        LabError: the API server refused something.
    """
    with say.step("Installing CRDs, RBAC, policy and webhooks from deploy/"):
        rendered = _kubectl(cluster, "kustomize", str(manifests_folder()))
        kept = [item for item in yaml.safe_load_all(rendered) if item["kind"] not in LEFT_OUT]
        crds = [item for item in kept if item["kind"] == "CustomResourceDefinition"]
        _apply(cluster, crds)
        crd_names = [f"crd/{item['metadata']['name']}" for item in crds]
        _kubectl(cluster, "wait", "--for=condition=Established", "--timeout=30s", *crd_names)
        # An earlier operator may have left its URL there, beside which the Service of the manifest
        # would not be accepted.
        hooks = [f"{item['kind']}/{item['metadata']['name']}" for item in kept if is_hook(item)]
        _kubectl(cluster, "delete", "--ignore-not-found", *hooks)
        _apply(cluster, [item for item in kept if item not in crds])


def is_hook(item: Json) -> bool:
    """Whether a manifest is a webhook configuration."""
    return str(item["kind"]).endswith("WebhookConfiguration")


def uninstall(cluster: Cluster, say: Reporter) -> None:
    """Remove what `install` made, guards and all. Nothing there is no error."""
    with say.step("Removing what deploy/ installed"):
        _kubectl(
            cluster, "delete", "--ignore-not-found", "--wait=true", "--timeout=60s",
            f"--kustomize={manifests_folder()}",
        )  # fmt: skip


def running_elsewhere(cluster: Cluster) -> str:
    """Who holds the operator's Lease now, so that no second one is started; "" if nobody."""
    try:
        text = _kubectl(
            cluster, "--namespace", names.OPERATOR_NAMESPACE, "get", "lease", names.LEASE,
            "--ignore-not-found", "--output=json",
        )  # fmt: skip
    except LabError:
        return ""
    return lease_holder(json.loads(text), time.time()) if text.strip() else ""


def lease_holder(lease: Json, now: float) -> str:
    """The holder of a Lease that is fresh at the Unix time `now`; "" where it is not."""
    spec = lease.get("spec") or {}
    if not spec.get("holderIdentity") or not spec.get("renewTime"):
        return ""
    renewed = _unix(str(spec["renewTime"]))
    fresh = now - renewed <= float(spec.get("leaseDurationSeconds") or 0)
    return str(spec["holderIdentity"]) if fresh else ""


@contextmanager
def operator(
    cluster: Cluster,
    say: Reporter,
    *,
    replicas: int = 2,
    prefix: str = "operator",
    supervise: bool = True,
    extra: Sequence[str] = (),
) -> Iterator[list[Replica]]:
    """Run the operator while the context is open: one controls, the others stand by.

    Needs `install` first. The processes belong to the lab: `lab down` ends them whatever happens.

    Args:
        cluster: Where.
        say: Told of the start.
        replicas: How many.
        prefix: Of their names.
        supervise: Start one again that ends (it does where it loses its Lease), as the kubelet would;
            the list that is given then holds the new process.
        extra: Further flags of `upstream-guard run`.

    Raises:
        LabError: a replica did not become ready; the end of its log is in the message.
    """
    kubeconfig = account_kubeconfig(cluster)
    chosen = [f"{prefix}-{index}" for index in range(1, replicas + 1)]
    try:
        with say.step(f"Starting the operator ({replicas} replicas)"):
            started = [start(cluster, name, kubeconfig, *extra) for name in chosen]
            for replica in started:
                until_ready(cluster, replica)
        with ExitStack() as stack:
            if supervise:
                stack.enter_context(supervised(started, lambda ended: again(cluster, ended)))
            yield started
    finally:
        for name in chosen:
            process.stop(cluster.state_dir, name)


def controlling(cluster: Cluster, started: Sequence[Replica]) -> Replica | None:
    """The one of these replicas that holds the Lease; None while none of them does."""
    holder = running_elsewhere(cluster)
    return next((replica for replica in started if replica.name == holder), None)


def kill(*doomed: Replica) -> float:
    """SIGKILL these replicas, all at once, and see them off: they get no time to say good-bye.

    Returns:
        The Unix time of the signal.

    Raises:
        LabError: one of them is still there.
    """
    at = time.time()
    left = process.kill_pids([replica.pid for replica in doomed])
    if left:
        raise LabError(f"the processes {left} did not end on SIGKILL")
    return at


def start(cluster: Cluster, name: str, kubeconfig: Path, *extra: str) -> Replica:
    """Start one replica; it is not ready yet."""
    http_port, webhook_port = spare_ports(2)
    log = cluster.logs / f"{name}.log"
    log.unlink(missing_ok=True)
    command = (
        sys.executable, "-m", "upstream_guard.cli", "run",
        "--kubeconfig", str(kubeconfig),
        "--identity", name,
        "--http-port", str(http_port),
        "--webhook-port", str(webhook_port),
        "--webhook-host", cluster.host_address or "127.0.0.1",
        *extra,
    )  # fmt: skip
    return Replica(name, _launch(cluster, name, command), http_port, log, command)


def again(cluster: Cluster, ended: Replica) -> Replica:
    """Start a replica that has ended once more, with the same name and ports; its log goes on.

    Raises:
        LabError: it cannot be started.
    """
    return replace(ended, pid=_launch(cluster, ended.name, ended.command))


def _launch(cluster: Cluster, name: str, command: Sequence[str]) -> int:
    source = str(Path(upstream_guard.__file__).parent.parent)
    return process.start(cluster.state_dir, name, command, env={"PYTHONPATH": source})


def until_ready(cluster: Cluster, replica: Replica) -> None:
    """Wait until a replica says that it is ready.

    Raises:
        LabError: it ended, or did not say so in time.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{replica.http_port}/readyz"
            if httpx.get(url, timeout=1, trust_env=False).is_success:
                return
        if not process.alive(replica.pid):
            break
        time.sleep(POLL_SECONDS)
    tail = process.log_tail(cluster.state_dir, replica.name, lines=15)
    raise LabError(f"the operator {replica.name} did not become ready; its log ends:\n{tail}")


def account_kubeconfig(cluster: Cluster) -> Path:
    """Write a kubeconfig with a token of the operator's ServiceAccount.

    Raises:
        LabError: there is no such account; `install` makes it.
    """
    token = _kubectl(
        cluster, "--namespace", names.OPERATOR_NAMESPACE, "create", "token",
        names.SERVICE_ACCOUNT, f"--duration={TOKEN_HOURS}h",
    ).strip()  # fmt: skip
    text = _kubectl(cluster, "config", "view", "--raw", "--minify", "--flatten", "--output=json")
    path = cluster.state_dir / "operator.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(as_account(json.loads(text), token)), encoding="utf-8")
    return path


def as_account(config: Json, token: str) -> Json:
    """A kubeconfig of one context, with a token in place of its user's credentials."""
    user = names.SERVICE_ACCOUNT
    (context,) = config["contexts"]
    cluster = context["context"]["cluster"]
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": config["clusters"],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": user, "context": {"cluster": cluster, "user": user}}],
        "current-context": user,
    }


def _apply(cluster: Cluster, items: Sequence[Json]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)})
    _kubectl(cluster, "apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)


def _kubectl(cluster: Cluster, *args: str, stdin: str = "") -> str:
    done = subprocess.run(
        cluster.kubectl_command(*args),
        input=stdin, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode != 0:
        raise LabError(f"`kubectl {' '.join(args)}` failed: {done.stderr.strip()}")
    return done.stdout


def _unix(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
