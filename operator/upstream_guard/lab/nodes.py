"""Accidents that happen to nodes, for tests and the demo. Local clusters only."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Final

from upstream_guard.lab import leftovers, plan
from upstream_guard.lab.gateways import support
from upstream_guard.lab.model import Cluster, LabError, LabNode

_NOTHING_FOUND = " 0 flow entries"
_GONE_MEANWHILE = "such conntrack doesn't exist"
"""conntrack counts both as a failure, and ends with the second before it has seen every entry."""
_TRIES = 5
_SOURCE: Final = re.compile(r"\bsrc=(\S+)")


def cut(node: LabNode) -> None:
    """Pull a node's network cable: its pods go on, and nobody hears of it.

    Raises:
        LabError: if there is no such node here.
    """
    _ip("-n", plan.EDGE, "link", "set", plan.link_name(node.name), "down")


def heal(node: LabNode) -> None:
    """Plug the cable in again.

    Raises:
        LabError: if there is no such node here.
    """
    _ip("-n", plan.EDGE, "link", "set", plan.link_name(node.name), "up")


@contextmanager
def lost(node: LabNode) -> Iterator[None]:
    """The node is cut off inside this context.

    Raises:
        LabError: if there is no such node here.
    """
    cut(node)
    try:
        yield
    finally:
        heal(node)


def flush_conntrack(cluster: Cluster) -> None:
    """Forget every connection that kube-proxy's NAT sends to a pod that is gone; call it between measurements.

    Such entries live for minutes. When a client's port is used again, one of them catches the new
    connection and sends it to the dead pod: failures of one run would be counted in the next. Entries of
    pods that are there stay, and those of the API server: Envoy Gateway, whose controller runs in a pod,
    would be blind for half a minute.

    Raises:
        LabError: if the pods cannot be listed, or the tables not be read or changed.
    """
    if not cluster.nodes:
        return
    query = "--output=jsonpath={.items[*].status.podIP}"
    living = frozenset(support.kubectl(cluster, "get", "pods", "--all-namespaces", query).split())
    for netns in _tracking(cluster):
        text = _conntrack(netns, "--dump", f"--orig-dst={plan.SERVICE_RANGE}")
        _forget(netns, (pod for pod in tracked_pods(text) if pod not in living))


def forget_pods(cluster: Cluster, addresses: Iterable[str]) -> None:
    """As `flush_conntrack`, of the connections to these pods only: others may be in use.

    Raises:
        LabError: if the tables cannot be changed.
    """
    found = tuple(addresses)
    for netns in _tracking(cluster):
        _forget(netns, found)


def tracked_pods(table: str) -> tuple[str, ...]:
    """The pods that answer to what went to a Service, in order.

    Args:
        table: As `conntrack --dump` prints it; the second `src=` of an entry is who answers.
    """
    pods = ip_network(plan.POD_RANGE)
    answering = (found[1] for line in table.splitlines() if len(found := _SOURCE.findall(line)) > 1)
    return tuple(sorted({address for address in answering if ip_address(address) in pods}))


def _tracking(cluster: Cluster) -> tuple[str, ...]:
    """Network namespaces that translate; none where the nodes are not the lab's own."""
    return (plan.EDGE, *(node.netns for node in cluster.nodes)) if cluster.nodes else ()


def _forget(netns: str, pods: Iterable[str]) -> None:
    for address in pods:
        _conntrack(netns, "--delete", f"--reply-src={address}")


def _conntrack(netns: str, *words: str) -> str:
    command = ["nsenter", f"--net=/run/netns/{netns}", "conntrack", *words]
    for _ in range(_TRIES):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if _GONE_MEANWHILE not in done.stderr:
            break
    if done.returncode and not _is_harmless(done.stderr):
        raise LabError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def _is_harmless(words: str) -> bool:
    return _NOTHING_FOUND in words or _GONE_MEANWHILE in words


def container_pids(container_id: str) -> tuple[int, ...]:
    """PIDs, as this machine counts them, of a container's processes, in ascending order.

    Args:
        container_id: As in a pod's status, with or without its `containerd://`.

    Returns:
        Empty if no such container runs here.
    """
    return leftovers.cgroup_pids(container_id.rpartition("//")[2])


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}")
