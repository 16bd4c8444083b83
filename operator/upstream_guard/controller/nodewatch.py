"""Gathers what the probes tell of nodes: who answers, who fell silent, and which nodes are lost."""

from collections.abc import Callable
from typing import Final

from upstream_guard.core.causes import HARD_CAUSES
from upstream_guard.core.lostnode import SILENT_CAUSES, Silence, find_lost
from upstream_guard.core.model import Node, ProbeProtocol, ProbeResult, ProbeSpec
from upstream_guard.probes import ProbeScheduler, ProbeTarget

KUBELET_INTERVAL: Final = 600.0
KUBELET_TIMEOUT: Final = 0.25
"""A kubelet's port is connected to and no more, every ten minutes to know that it can be reached, and
when an endpoint of its node falls silent: each connection leaves a line in the kubelet's log. The kernel
answers a SYN in well under a millisecond however busy the kubelet is, so 0.25 s are ample."""

_KUBELET: Final = "kubelet of "


class NodeWatch:
    """What is known of the nodes that endpoints under probe are on."""

    def __init__(
        self,
        scheduler: ProbeScheduler,
        look: Callable[[str], Node | None],
        on_change: Callable[[frozenset[str]], None],
    ) -> None:
        """Wire it.

        Args:
            scheduler: Probes the kubelets' ports.
            look: Gives a node by its name; one that is not known has no kubelet to ask.
            on_change: Told of nodes that were found lost, or answer again.
        """
        self._scheduler = scheduler
        self._look = look
        self._on_change = on_change
        self._endpoints: dict[str, int] = {}
        """How many are under probe, by node."""
        self._answered: dict[str, float] = {}
        self._silences: dict[str, Silence] = {}
        self._kubelets: dict[str, ProbeTarget] = {}
        self._heard: set[str] = set()
        """Nodes whose kubelet's port has answered."""
        self.lost: frozenset[str] = frozenset()

    def enter(self, node: str) -> None:
        """An endpoint on this node is under probe from now on; an external one is on none."""
        if not node:
            return
        self._endpoints[node] = self._endpoints.get(node, 0) + 1
        if node not in self._answered:
            self._answered[node] = 0.0
            self.refresh(node)

    def leave(self, node: str, key: str) -> None:
        """An endpoint on this node is no longer under probe."""
        self._silences.pop(key, None)
        if not node:
            return
        self._endpoints[node] -= 1
        if not self._endpoints[node]:
            del self._endpoints[node], self._answered[node]
            self._ask_kubelet_at(node, None)
            self.lost -= {node}

    def refresh(self, node: str = "") -> None:
        """A node may have another address; without a name, any of them."""
        for name in [node] if node else list(self._answered):
            if name in self._answered:
                self._ask_kubelet_at(name, _target(self._look(name)))

    def result(self, key: str, node: str, result: ProbeResult, *, served: bool) -> None:
        """A probe ended; called for each of them, so it does little unless something is silent.

        A request that was accepted and not answered, or stopped by a policy, tells neither way.

        Args:
            key: Whose.
            node: On which node.
            result: How.
            served: The endpoint was seen to serve before.
        """
        if result.ok or result.cause in HARD_CAUSES:
            self._answer(key, node, result.at)
        elif served and result.cause in SILENT_CAUSES:
            self._silence(key, node, result)

    def kubelet_result(self, key: str, result: ProbeResult) -> None:
        """As `result`, of a kubelet's port; other keys are none of our business."""
        node = key.removeprefix(_KUBELET)
        if node != key and node in self._kubelets:
            if result.ok:
                self._heard.add(node)
            self.result(key, node, result, served=node in self._heard)

    def _answer(self, key: str, node: str, at: float) -> None:
        if node in self._answered:
            self._answered[node] = at
        if self._silences:
            self._silences.pop(key, None)
        if node in self.lost:
            self.lost -= {node}
            self._on_change(frozenset({node}))

    def _silence(self, key: str, node: str, result: ProbeResult) -> None:
        if node not in self._answered:
            return
        before, kubelet = self._silences.get(key), _KUBELET + node
        began = before.began if before else result.at
        self._silences[key] = Silence(key, node, began, result.at - result.latency)
        if before is None and key != kubelet and node in self._heard:
            self._silences.pop(kubelet, None)  # of an earlier suspicion
            self._scheduler.probe_soon(kubelet)
        found = find_lost(self._silences.values(), self._answered, self.lost)
        if found != self.lost:
            new, self.lost = found - self.lost, found
            self._on_change(new)

    def _ask_kubelet_at(self, node: str, target: ProbeTarget | None) -> None:
        if self._kubelets.get(node) == target:
            return
        key = _KUBELET + node
        self._heard.discard(node)
        self._silences.pop(key, None)
        if target is None:
            del self._kubelets[node]
            self._scheduler.discard(key)
            return
        self._kubelets[node] = target
        self._scheduler.set_target(key, target)
        self._scheduler.probe_soon(key)


def _target(node: Node | None) -> ProbeTarget | None:
    """Where the kubelet listens; None where the node does not say, or not by an address."""
    if node is None:
        return None
    spec = ProbeSpec(
        ProbeProtocol.TCP, node.kubelet_port, interval=KUBELET_INTERVAL, timeout=KUBELET_TIMEOUT
    )
    try:
        return ProbeTarget(node.address, spec)
    except ValueError:
        return None
