"""An old pod whose preStop hook is too short leaves the upstream list before its successor enters it.

A pod keeps the hook with which it was made. Where its gateways have become slower since, a rollout would
stop pods that are still asked when their hooks end. But the rollout waits for the guard: the Deployment
controller deletes no old pod for a new one before that is ready, and it deletes old pods that are not
ready first (kubernetes 1.35, pkg/controller/deployment/rolling.go `cleanupUnhealthyReplicas`;
pkg/controller/controller_utils.go `ActivePodsWithRanks`). So a new pod that was seen to serve is held for
the seconds that an old one's hook lacks, while that old one is out of the list; then it is the old
one that is deleted, and nobody asks it any more. See docs/decisions/0028-handover.md.

One pod of a Deployment at a time, none that a floor needs, and no new pod is held for longer than its
`admitTimeout`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from upstream_guard.core.model import Pod
from upstream_guard.core.reasons import Reason

LEAVE_SECONDS: Final = 0.5
"""From the decision that a pod leaves to the EndpointSlice without it: 0.04 to 0.2 s (docs/benchmarks.md)."""

STAY_OUT_SECONDS: Final = 30.0
"""How long a pod whose successor is listed waits for its deletion, which may be as late as `minReadySeconds`."""

_HASH_LABEL: Final = "pod-template-hash"


@dataclass(frozen=True, slots=True)
class Standing:
    """One pod, as far as a handover goes by it.

    Attributes:
        pod: The pod, not terminating.
        serves: Every guard of it sees it serve, and none only observes.
        changed_at: When its gate was last changed, Unix seconds.
        short_by: Seconds that its hook lacks; 0 where it lacks none.
        admit_by: When it is admitted at the latest, Unix seconds.
        spare: Every floor holds without it.
    """

    pod: Pod
    serves: bool
    changed_at: float
    short_by: float = 0.0
    admit_by: float = math.inf
    spare: bool = False

    @property
    def waits(self) -> bool:
        """New, and to be admitted but for a handover."""
        return self.pod.gate is None and self.pod.containers_ready and self.serves

    @property
    def aside(self) -> bool:
        """It has stepped aside."""
        stepped = self.pod.gate_reason == Reason.ENDPOINT_STEPPED_ASIDE
        return self.pod.gate is False and stepped and self.serves

    def succeeds(self, old: Pod) -> bool:
        """Whether this one was made to replace pods such as the old one."""
        return self.pod.template != old.template and self.pod.created > old.created


@dataclass(frozen=True, slots=True)
class Handover:
    """Who is out of the list for a handover.

    Attributes:
        aside: Old pods that leave, or stay out.
        held: New pods, and until when at the latest, Unix seconds.
        revisit_at: When time alone changes it for the old pods, Unix seconds; what is past has changed it.
    """

    aside: frozenset[str] = frozenset()
    held: Mapping[str, float] = field(default_factory=dict)
    revisit_at: float = math.inf


def may_hand_over(pod: Pod) -> bool:
    """Whether there may be a handover because of a pod as it is now: it may be new, or has stepped aside."""
    new = pod.gate is None and pod.containers_ready
    return pod.gated and (new or pod.gate_reason == Reason.ENDPOINT_STEPPED_ASIDE)


def hand_over(standings: Iterable[Standing], now: float) -> Handover:
    """Who leaves and who waits for it, of any number of Deployments.

    Args:
        standings: The gated pods.
        now: Unix seconds.
    """
    deployments: dict[tuple[str, str], list[Standing]] = {}
    for standing in standings:
        name = _deployment(standing.pod)
        if name:
            deployments.setdefault((standing.pod.ref.namespace, name), []).append(standing)
    parts = [_of_one(pods, now) for pods in deployments.values()]
    return Handover(
        frozenset().union(*(part.aside for part in parts)),
        {uid: until for part in parts for uid, until in part.held.items()},
        min((part.revisit_at for part in parts), default=math.inf),
    )


def _deployment(pod: Pod) -> str:
    """Name of the Deployment, from that of its ReplicaSet; empty where it has none."""
    kind, name = pod.owner or ("", "")
    suffix = f"-{pod.labels.get(_HASH_LABEL, '')}"
    return name.removesuffix(suffix) if kind == "ReplicaSet" and name.endswith(suffix) else ""


def _of_one(pods: list[Standing], now: float) -> Handover:
    gone = min((s for s in pods if s.aside), key=lambda s: (s.changed_at, s.pod.ref), default=None)
    if gone is None:
        return _begin(pods, now)
    waiting = _successors(pods, gone)
    arrived = max(
        (s.changed_at for s in pods if s.pod.gate and s.succeeds(gone.pod)), default=-math.inf
    )
    if arrived >= gone.changed_at:
        until = arrived + STAY_OUT_SECONDS
        return _hold(gone, waiting, until, now) if now < until else Handover()
    if not waiting:
        return Handover()
    first, *others = waiting
    done = min(gone.changed_at + gone.short_by + LEAVE_SECONDS, first.admit_by)
    return _hold(gone, waiting if now < done else others, done, now)


def _begin(pods: list[Standing], now: float) -> Handover:
    """An old pod may leave for a new one that is still in time."""
    may_leave = (
        s for s in pods if s.pod.gate and s.pod.ready and s.serves and s.spare and s.short_by > 0
    )
    for old in sorted(may_leave, key=lambda s: s.pod.ref):
        waiting = [s for s in _successors(pods, old) if now < s.admit_by]
        if waiting:
            return _hold(old, waiting, now + old.short_by + LEAVE_SECONDS, now)
    return Handover()


def _successors(pods: Iterable[Standing], old: Standing) -> list[Standing]:
    """The new pods that wait to be admitted in the place of an old one, the first to come first."""
    waiting = (s for s in pods if s.waits and s.succeeds(old.pod))
    return sorted(waiting, key=lambda s: (s.pod.containers_ready_since, s.pod.ref))


def _hold(old: Standing, waiting: Iterable[Standing], until: float, now: float) -> Handover:
    """The old pod is out, and who is still in time waits."""
    held = {s.pod.uid: min(until, s.admit_by) for s in waiting if now < s.admit_by}
    return Handover(frozenset({old.pod.uid}), held, until)
