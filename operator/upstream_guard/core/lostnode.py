"""Which nodes are lost: everything on them fell silent at once, and other nodes answer.

Kubernetes notices a dead node after some 50 s (`node-monitor-grace-period`), and until then its kubelet
cannot follow a gate. Two witnesses of one node that fall silent together tell it in about a second. A
witness is an endpoint there, or the kubelet's own port, which is only asked when something is silent.

Silence is a SYN that nobody answers. A refusal, a wrong answer and even a request without an answer come
from a node that lives.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from upstream_guard.core.causes import Cause

SILENT_CAUSES: Final = frozenset({Cause.CONNECT_TIMEOUT, Cause.UNREACHABLE})
"""What a probe meets at a node that is gone. `blocked` is not among them: a router answered it."""

WITNESSES: Final = 2
"""So many have to be silent: one may have a trouble of its own."""

JOINT_SECONDS: Final = 3.0
"""They fell silent within so long of each other. One that has been silent for longer tells nothing new."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A witness that answered before, and does not answer now.

    Attributes:
        witness: Its name; any text that is its own.
        node: Where it is.
        began: When its first probe without an answer ended, Unix seconds.
        asked: When its latest probe without an answer was sent, Unix seconds.
    """

    witness: str
    node: str
    began: float
    asked: float


def find_lost(
    silences: Iterable[Silence], answered: Mapping[str, float], before: frozenset[str]
) -> frozenset[str]:
    """The nodes that are lost.

    A node found lost stays so until something on it answers; the caller takes it out of `before` then.

    Args:
        silences: Every witness that is silent now.
        answered: When something on each node answered last, Unix seconds, by node; of every node that is
            watched.
        before: Nodes found lost earlier, on which nothing has answered since.
    """
    by_node: dict[str, list[Silence]] = {}
    for silence in silences:
        # Something on the node answered later than this was asked: then the silence is its own.
        if silence.asked > answered.get(silence.node, 0.0):
            by_node.setdefault(silence.node, []).append(silence)
    found = {
        node
        for node, there in by_node.items()
        if node not in before and _is_lost(node, there, answered)
    }
    # With most of the nodes silent it is rather the operator that is cut off.
    if 2 * len(found | before) > len(answered):
        return before
    return before | found


def _is_lost(node: str, there: list[Silence], answered: Mapping[str, float]) -> bool:
    latest = max(s.began for s in there)
    joint = [s for s in there if latest - s.began <= JOINT_SECONDS]
    if len({s.witness for s in joint}) < WITNESSES:
        return False
    since = min(s.asked for s in joint)
    return any(at > since for other, at in answered.items() if other != node)
