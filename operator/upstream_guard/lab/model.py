"""What a lab is: its cluster, its nodes, and what every provider of one must do.

A lab is a real Kubernetes cluster made for trying and testing Upstream Guard. Three providers make
one (`kind`, `local`, `existing`); everything else in the lab (gateways, samples, load, demo) works
on the `Cluster` value alone and does not ask which provider it came from.
"""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

STATE_DIR_ENV = "UPSTREAM_GUARD_LAB_DIR"
CLUSTER_FILE = "cluster.json"


class LabError(Exception):
    """Something a person must know or do; the message says what, without a traceback."""


@dataclass(frozen=True, slots=True)
class LabNode:
    """One node of a local cluster."""

    name: str
    address: str
    """The node's InternalIP, within 198.18.0.0/15."""
    netns: str
    """Name of its network namespace, as `ip netns` shows it."""
    containerd_socket: Path
    pod_cidr: str
    root: Path
    """Everything the node writes: containerd's and the kubelet's state, its logs."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is up."""

    name: str
    provider: str
    kubeconfig: Path
    context: str
    state_dir: Path
    kubectl: Path
    host_address: str
    """How pods and nodes reach this machine (198.18.0.1); "" where they cannot."""
    nodes: tuple[LabNode, ...]
    """Empty where the provider has no nodes that this machine can touch."""
    service_cidr: str

    @property
    def audit_log(self) -> Path:
        """The API server's audit log of writes, one JSON event a line (local provider only)."""
        return self.state_dir / "logs" / "audit.log"

    @property
    def logs(self) -> Path:
        """Folder with one log per process of the lab."""
        return self.state_dir / "logs"

    def kubectl_command(self, *args: str) -> list[str]:
        """The command line that runs kubectl on this cluster and no other."""
        return [
            str(self.kubectl),
            f"--kubeconfig={self.kubeconfig}",
            f"--context={self.context}",
            *args,
        ]

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps(asdict(self), default=str, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Cluster":
        """The inverse of `to_json`.

        Raises:
            LabError: if the text is not a cluster that this version wrote.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            nodes = tuple(
                LabNode(
                    **{
                        **node,
                        "containerd_socket": Path(node["containerd_socket"]),
                        "root": Path(node["root"]),
                    }
                )
                for node in raw.pop("nodes")
            )
            paths = {key: Path(raw[key]) for key in ("kubeconfig", "state_dir", "kubectl")}
            return cls(**{**raw, **paths, "nodes": nodes})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabError(
                f"the lab's state file cannot be read ({error}); run `upstream-guard lab down`"
            ) from error


@dataclass(frozen=True, slots=True)
class LabSpec:
    """What the user asked `lab up` for."""

    state_dir: Path
    nodes: int = 1
    max_pods: int = 250
    """The kubelet's limit per node."""
    context: str | None = None
    """kubeconfig context, for the `existing` provider."""


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a provider can work here, and if not, what would make it."""

    usable: bool
    reason: str
    """One line for people: what was found, or what is missing."""
    remedy: str = ""
    """A command that would make it usable; "" where there is none."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node, as the API server sees it."""

    name: str
    ready: bool
    address: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class LabStatus:
    """What is there now."""

    up: bool
    provider: str
    detail: str
    """One line for people."""
    version: str = ""
    nodes: tuple[NodeStatus, ...] = ()
    leftovers: tuple[str, ...] = ()
    """What a lab that is not up has left behind; `lab down` removes it."""
    processes: tuple[tuple[str, bool], ...] = ()
    """(name, runs) of each process group of the lab."""


class Step(Protocol):
    """A step under way."""

    def update(self, text: str) -> None:
        """Say what the step is at now, e.g. `3 of 9 binaries`."""


class Reporter(Protocol):
    """Tells a person what is happening."""

    def step(self, text: str) -> AbstractContextManager[Step]:
        """Announce a step; it ends, with its duration, when the context does."""

    def note(self, text: str) -> None:
        """Say something once."""


class Provider(Protocol):
    """A way to have a cluster."""

    @property
    def name(self) -> str:
        """`kind`, `local` or `existing`."""

    def detect(self) -> Availability:
        """Whether this provider can work on this machine; changes nothing."""

    def up(self, spec: LabSpec, say: Reporter) -> Cluster:
        """Bring the cluster up, or return the one that is.

        Raises:
            LabError: what is missing or in the way, and what to do about it.
        """

    def down(self, say: Reporter) -> None:
        """Remove all that `up` made, whole or half made. Nothing there is no error."""

    def present(self) -> bool:
        """Whether there is anything that `down` would remove, whole or half made."""

    def status(self) -> LabStatus:
        """What is there now; changes nothing."""

    def load_image(self, cluster: Cluster, archive: Path, say: Reporter) -> None:
        """Make the images of an OCI or Docker archive available to every node.

        Raises:
            LabError: if the archive is missing or no archive.
        """


ProviderFactory = Callable[[Path], Provider]
"""A provider of the lab whose state is in this folder."""


def default_state_dir() -> Path:
    """Where the lab keeps its state unless told otherwise.

    `$UPSTREAM_GUARD_LAB_DIR`, else /var/lib/upstream-guard-lab for root, else the user's state
    folder as the XDG specification has it.
    """
    if chosen := os.environ.get(STATE_DIR_ENV):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/upstream-guard-lab")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "upstream-guard-lab"


def current_cluster(state_dir: Path | None = None) -> Cluster | None:
    """The cluster of a lab that is up, or None.

    Only the state file is read: a cluster whose processes were killed is still returned, and
    `lab status` tells the difference.
    """
    path = (state_dir or default_state_dir()) / CLUSTER_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, PermissionError):
        return None
    return Cluster.from_json(text)


def readable_cluster(state_dir: Path) -> Cluster | None:
    """As `current_cluster`, but a broken state file counts as none: it must not hinder `down`."""
    try:
        return current_cluster(state_dir)
    except LabError:
        return None
