"""The existing provider: a cluster that somebody else made, named explicitly.

It never creates or removes the cluster. `down` only ends the processes that the lab's add-ons run on
this machine and forgets the cluster.
"""

import json
import shutil
import subprocess
from pathlib import Path

from upstream_guard.lab import process, tools
from upstream_guard.lab.api import ZONE_LABEL
from upstream_guard.lab.model import (
    CLUSTER_FILE,
    Availability,
    Cluster,
    LabError,
    LabSpec,
    LabStatus,
    NodeStatus,
    Reporter,
    current_cluster,
    readable_cluster,
)

_TIMEOUT = "--request-timeout=10s"


class ExistingProvider:
    """A kubeconfig context."""

    name = "existing"

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def detect(self) -> Availability:
        """Never chosen by itself: a cluster that exists may be somebody's production."""
        return Availability(
            usable=False,
            reason="an existing cluster has to be named",
            remedy="upstream-guard lab up --provider existing --context NAME",
        )

    def up(self, spec: LabSpec, say: Reporter) -> Cluster:
        """Verify that the context answers.

        Raises:
            LabError: if no context was named, it is unknown, or its cluster does not answer.
        """
        if not spec.context:
            raise LabError(
                "an existing cluster is used only when it is named: "
                "upstream-guard lab up --provider existing --context NAME"
            )
        present = current_cluster(spec.state_dir)
        if present is not None and (present.provider, present.context) != (self.name, spec.context):
            raise LabError(f"the lab {present.name} is up; `upstream-guard lab down` first")
        found = shutil.which("kubectl")
        kubectl = Path(found) if found else tools.tool_path("kubectl", say)
        with say.step(f"Asking the cluster of context {spec.context}"):
            kubeconfig = self._export(kubectl, spec)
            cluster = Cluster(
                name=spec.context,
                provider=self.name,
                kubeconfig=kubeconfig,
                context=spec.context,
                state_dir=spec.state_dir,
                kubectl=kubectl,
                host_address="",
                nodes=(),
                service_cidr="",
            )
            _kubectl(cluster, "get", "--raw", "/readyz", _TIMEOUT)
        (spec.state_dir / CLUSTER_FILE).write_text(cluster.to_json(), encoding="utf-8")
        return cluster

    def down(self, say: Reporter) -> None:
        """End our own processes and forget the cluster, which itself is left as it is.

        Raises:
            LabError: if the lab in the state folder is another provider's: not ours to end.
        """
        other = readable_cluster(self._state_dir)
        if other is not None and other.provider != self.name:
            raise LabError(
                f"the lab {other.name} was made by the provider {other.provider}; "
                "`upstream-guard lab down` without --provider removes it"
            )
        with say.step("Stopping the lab's processes; the cluster itself is left as it is"):
            process.kill_all([p for p in process.marked() if p.state_dir == self._state_dir])
            for name in (CLUSTER_FILE, "kubeconfig"):
                (self._state_dir / name).unlink(missing_ok=True)

    def present(self) -> bool:
        """Whether the lab uses an existing cluster."""
        cluster = readable_cluster(self._state_dir)
        return cluster is not None and cluster.provider == self.name

    def status(self) -> LabStatus:
        """What is there now; changes nothing."""
        cluster = current_cluster(self._state_dir)
        if cluster is None:
            return LabStatus(up=False, provider=self.name, detail="no lab")
        try:
            version, nodes = cluster_nodes(cluster)
        except LabError as error:
            return LabStatus(up=False, provider=self.name, detail=str(error))
        detail = f"{sum(n.ready for n in nodes)} of {len(nodes)} nodes ready"
        return LabStatus(up=True, provider=self.name, detail=detail, version=version, nodes=nodes)

    def load_image(self, cluster: Cluster, archive: Path, say: Reporter) -> None:
        """Refused: how images get into somebody's cluster is theirs to say.

        Raises:
            LabError: always.
        """
        del cluster, say
        raise LabError(
            f"push {archive} to a registry that your cluster can reach; the lab does not touch "
            "the nodes of an existing cluster"
        )

    def _export(self, kubectl: Path, spec: LabSpec) -> Path:
        """A kubeconfig with this context only, so that nothing else can be reached by mistake."""
        command = [str(kubectl), "config", "view", "--raw", "--minify", "--flatten"]
        command.append(f"--context={spec.context}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"context {spec.context!r}: {done.stderr.strip()}")
        spec.state_dir.mkdir(parents=True, exist_ok=True)
        path = spec.state_dir / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(done.stdout, encoding="utf-8")
        return path


def cluster_nodes(cluster: Cluster) -> tuple[str, tuple[NodeStatus, ...]]:
    """The cluster's version and its nodes, asked through kubectl.

    Raises:
        LabError: if it does not answer, or refuses.
    """
    version = json.loads(_kubectl(cluster, "get", "--raw", "/version", _TIMEOUT))["gitVersion"]
    items = json.loads(_kubectl(cluster, "get", "nodes", "-o", "json", _TIMEOUT))["items"]
    nodes = []
    for item in items:
        conditions = {c["type"]: c["status"] for c in item["status"].get("conditions", ())}
        addresses = {a["type"]: a["address"] for a in item["status"].get("addresses", ())}
        nodes.append(
            NodeStatus(
                name=item["metadata"]["name"],
                ready=conditions.get("Ready") == "True",
                address=addresses.get("InternalIP", ""),
                zone=item["metadata"].get("labels", {}).get(ZONE_LABEL, ""),
            )
        )
    return str(version), tuple(nodes)


def _kubectl(cluster: Cluster, *args: str) -> str:
    done = subprocess.run(
        cluster.kubectl_command(*args), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LabError(f"the cluster of context {cluster.context!r}: {done.stderr.strip()}")
    return done.stdout
