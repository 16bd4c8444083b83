"""Which change begins, and when it is over: from two looks at one Service of a running cluster.

A change is seen where it is decided (a workload's new template, fewer replicas, a cordon), before the
first pod goes, so that its windows can be told before they open.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.state import (
    Change,
    ChangeKind,
    NodeState,
    PodTemplate,
    StrategyKind,
    Workload,
)

JOIN_SECONDS: Final = 5.0
"""Pods of one workload that are deleted one after the other within so long are one change."""
LONGEST: Final = 600.0
"""Seconds after which a change counts as over, whatever is seen of it."""
BACKOFF_MEMORY: Final = 600.0
"""Seconds that a container must have run for its next restart to come at once (kubelet: twice the
longest back-off)."""
LONGEST_DRAIN: Final = 120.0
"""As `LONGEST`, for a cordon: not every one is followed by a drain. Evictions after that begin anew."""


@dataclass(frozen=True, slots=True)
class WorkloadSight:
    """A workload as the cluster has it.

    Attributes:
        workload: As it is declared; of a DaemonSet, replicas are the nodes that it wants pods on.
        uid: Of the object.
        template: A fingerprint of the whole pod template, also of what `workload` leaves out.
        paused: A Deployment whose template may change without a rollout.
        generation: `metadata.generation`.
        observed: `status.observedGeneration`.
        total: Pods that are not terminating, as the controller counts them.
        updated: Of those, with the latest template.
        available: Of those, ready for `minReadySeconds`.
        stalled: A Deployment whose rollout has made no progress for `progressDeadlineSeconds`.
    """

    workload: Workload
    uid: str = ""
    template: str = ""
    paused: bool = False
    generation: int = 0
    observed: int = 0
    total: int = 0
    updated: int = 0
    available: int = 0
    stalled: bool = False

    @property
    def text(self) -> str:
        """`deployment/shop`."""
        return self.workload.text

    @property
    def replaces(self) -> bool:
        """Its controller replaces pods when the template changes."""
        return self.workload.strategy.kind is not StrategyKind.ON_DELETE

    @property
    def rolling(self) -> bool:
        """By its own status, pods of an older template are being replaced."""
        acting = self.replaces and not self.paused
        return acting and (self.observed < self.generation or self.updated < self.total)

    @property
    def settled(self) -> bool:
        """Its controller has done what the spec says."""
        wanted = self.workload.replicas
        return (
            self.observed >= self.generation
            and self.total == wanted
            and self.available >= wanted
            and (self.updated == wanted or not self.replaces)
        )


@dataclass(frozen=True, slots=True)
class PodSight:
    """A pod of the Service.

    Attributes:
        workload: `kind/name` of the workload that made it; empty for a bare pod.
        node: Where it runs; empty before it is scheduled.
        ends: How often a container of it has ended; those that run again included.
        since: When its containers last started, Unix seconds; 0 where that is not known.
    """

    uid: str
    workload: str
    node: str
    ready: bool
    terminating: bool
    ends: int = 0
    since: float = 0.0

    @property
    def evictable(self) -> bool:
        """A drain takes it away; pods of DaemonSets stay."""
        return not self.workload.startswith("daemonset/")


@dataclass(frozen=True, slots=True)
class Sight:
    """One Service and what is behind it, as it is seen at one moment.

    Attributes:
        service: The Service.
        workloads: That it selects.
        pods: That it selects, terminating ones included.
        nodes: That those pods run on, by name; empty where nodes may not be read.
        elsewhere: UIDs of pods that it selected at the last look, and that live on without it.
        written: Everything that people write and that may be wrong at once: the Service, its routes,
            templates, NetworkPolicies. Compared only.
    """

    service: ObjectRef
    workloads: tuple[WorkloadSight, ...] = ()
    pods: tuple[PodSight, ...] = ()
    nodes: Mapping[str, NodeState] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    written: tuple[object, ...] = ()

    def workload(self, text: str) -> WorkloadSight | None:
        """The workload of that `kind/name`."""
        return next((w for w in self.workloads if w.text == text), None)

    def on_node(self, node: str) -> tuple[PodSight, ...]:
        """Pods on a node."""
        return tuple(p for p in self.pods if p.node == node)

    def of_workload(self, text: str) -> tuple[PodSight, ...]:
        """Pods of a workload."""
        return tuple(p for p in self.pods if p.workload == text)


@dataclass(frozen=True, slots=True)
class Begun:
    """A change that has begun.

    Attributes:
        change: What it is.
        subject: What it happens to: `deployment/shop`, `node/node-1`, `service/shop`.
        at: Unix seconds at which it was seen.
        before: The workload as it was until then, where the change is one of its spec.
    """

    change: Change
    subject: str
    at: float
    before: Workload | None = None

    @property
    def key(self) -> tuple[ChangeKind, str]:
        """What makes a later change the same one again."""
        return self.change.kind, self.subject


def begin(
    before: Sight | None, after: Sight, ongoing: Iterable[Begun], now: float
) -> tuple[Begun, ...]:
    """The changes that have begun since the last look.

    Pods that go because of a change that has begun (a rollout's own deletions, a drain's evictions)
    are no changes of their own.

    Args:
        before: The last look; None for the first, which shows no change.
        after: The present look.
        ongoing: Changes that began earlier and are not over.
        now: Unix seconds.
    """
    if before is None:
        return ()
    found = [*_of_specs(before, after, now), *_of_nodes(before, after, now)]
    known = (*ongoing, *found)
    going = [
        pod
        for pod in _going(before, after)
        if not _explained(pod, known, after, now) and pod.uid not in after.elsewhere
    ]
    found += _drains(going, after, now)
    found += _deletions((p for p in going if not _on_cordoned(p, after)), now)
    found += _crashes(before, after, known, now)
    if before.written != after.written:
        found.append(Begun(Change(ChangeKind.EDIT), f"service/{after.service.name}", now))
    return tuple(found)


def under_way(sight: Sight, known: Iterable[Begun], now: float) -> tuple[Begun, ...]:
    """The rollouts that are seen by a first look: they began while nobody looked.

    That is so after a controller was lost: its successor tells of them late rather than never. Those that
    it had told of are in the status; one that has stalled is a state, and no change that begins.

    Args:
        sight: The first look.
        known: Changes that an earlier controller told of.
        now: Unix seconds.
    """
    told = {begun.key for begun in known}
    found = (
        Begun(Change(ChangeKind.ROLLOUT), workload.text, now)
        for workload in sight.workloads
        if workload.rolling and not workload.stalled and workload.updated < workload.total
    )
    return tuple(begun for begun in found if begun.key not in told)


def is_over(begun: Begun, sight: Sight, now: float) -> bool:
    """Whether a change has run its course, by what is seen or after its longest time.

    Args:
        begun: The change.
        sight: A look that is later than the one in which it was seen to begin.
        now: Unix seconds.
    """
    if now >= deadline(begun):
        return True
    match begun.change.kind:
        case ChangeKind.ROLLOUT | ChangeKind.SCALE_IN | ChangeKind.POD_DELETION:
            return _settled(begun.subject, sight)
        case ChangeKind.CRASH:
            pods = sight.of_workload(begun.subject)
            return all(pod.ready or pod.terminating for pod in pods)
        case ChangeKind.NODE_DRAIN | ChangeKind.NODE_LOSS:
            return _node_is_done(begun, sight)
    return False


def deadline(begun: Begun) -> float:
    """Unix seconds at which a change counts as over at the latest."""
    if begun.change.kind is ChangeKind.NODE_DRAIN:
        return begun.at + LONGEST_DRAIN
    return begun.at + LONGEST


def _of_specs(before: Sight, after: Sight, now: float) -> Iterator[Begun]:
    """Rollouts and scale-ins: what the spec of a workload says now that it did not say."""
    for workload in after.workloads:
        old = before.workload(workload.text)
        if old is None or old.uid != workload.uid:
            continue
        if _rolls_out(old, workload):
            replaces = _replaced(old.workload, workload.workload)
            change = Change(ChangeKind.ROLLOUT, replaces=replaces)
            yield Begun(change, workload.text, now, old.workload)
        left = workload.workload.replicas
        # Of a DaemonSet, a node is gone: nobody scaled it.
        if left < old.workload.replicas and workload.workload.kind != "DaemonSet":
            change = Change(ChangeKind.SCALE_IN, to_replicas=left)
            yield Begun(change, workload.text, now, old.workload)


def _replaced(old: Workload, new: Workload) -> PodTemplate | None:
    """The old template, where the two differ in more than their labels and annotations."""
    alike = replace(old.template, labels=new.template.labels, annotations=new.template.annotations)
    return None if alike == new.template else old.template


def _rolls_out(old: WorkloadSight, new: WorkloadSight) -> bool:
    if new.paused or not new.replaces or new.workload.replicas <= 0:
        return False
    return new.template != old.template or (old.paused and new.updated < new.total)


def _of_nodes(before: Sight, after: Sight, now: float) -> Iterator[Begun]:
    """Nodes with pods of the Service that were cordoned, or fell silent."""
    for name, node in after.nodes.items():
        old = before.nodes.get(name)
        staying = [p for p in before.on_node(name) if not p.terminating]
        evictable = sum(p.evictable for p in staying)
        if old is None:
            continue
        if old.schedulable and not node.schedulable and evictable:
            change = Change(ChangeKind.NODE_DRAIN, node=name, pods=evictable)
            yield Begun(change, f"node/{name}", now)
        if old.ready and not node.ready and staying:
            change = Change(ChangeKind.NODE_LOSS, node=name, pods=len(staying))
            yield Begun(change, f"node/{name}", now)


def _going(before: Sight, after: Sight) -> Iterator[PodSight]:
    """Pods that were to stay at the last look, and are terminating or gone."""
    now = {p.uid: p for p in after.pods}
    for pod in before.pods:
        seen = now.get(pod.uid)
        if not pod.terminating and (seen is None or seen.terminating):
            yield pod


def _explained(pod: PodSight, changes: Iterable[Begun], sight: Sight, now: float) -> bool:
    """It goes because of a change that is known."""
    workload = sight.workload(pod.workload)
    if workload is not None and workload.rolling:
        return True
    for begun in changes:
        match begun.change.kind:
            case ChangeKind.ROLLOUT | ChangeKind.SCALE_IN:
                found = begun.subject == pod.workload
            case ChangeKind.NODE_DRAIN | ChangeKind.NODE_LOSS:
                found = _node_of(begun) == pod.node
            case ChangeKind.POD_DELETION:
                found = begun.subject == pod.workload and now - begun.at < JOIN_SECONDS
            case _:
                found = False
        if found:
            return True
    return False


def _on_cordoned(pod: PodSight, sight: Sight) -> bool:
    node = sight.nodes.get(pod.node)
    return node is not None and not node.schedulable


def _drains(going: Iterable[PodSight], after: Sight, now: float) -> Iterator[Begun]:
    """Nodes that were cordoned some time ago, and whose pods go now."""
    for name in sorted({p.node for p in going if _on_cordoned(p, after)}):
        staying = sum(p.evictable and not p.terminating for p in after.on_node(name))
        leaving = sum(p.node == name for p in going)
        change = Change(ChangeKind.NODE_DRAIN, node=name, pods=staying + leaving)
        yield Begun(change, f"node/{name}", now)


def _deletions(going: Iterable[PodSight], now: float) -> Iterator[Begun]:
    counts: dict[str, int] = defaultdict(int)
    for pod in going:
        counts[pod.workload] += 1
    for workload, pods in sorted(counts.items()):
        yield Begun(Change(ChangeKind.POD_DELETION, pods=pods), workload, now)


def _crashes(before: Sight, after: Sight, known: Iterable[Begun], now: float) -> Iterator[Begun]:
    """Containers that ended in pods that were ready and are to stay.

    One that ends in a pod on a lost node is the node's story.
    """
    lost = {_node_of(b) for b in known if b.change.kind is ChangeKind.NODE_LOSS}
    old = {p.uid: p for p in before.pods}
    ended: dict[str, list[PodSight]] = defaultdict(list)
    for pod in after.pods:
        was = old.get(pod.uid)
        if was is None or not was.ready or pod.terminating or pod.node in lost:
            continue
        if pod.ends > was.ends:
            ended[pod.workload].append(was)
    for workload, pods in sorted(ended.items()):
        earlier = max(p.ends if now - p.since < BACKOFF_MEMORY else 0 for p in pods)
        yield Begun(Change(ChangeKind.CRASH, pods=len(pods), restarts=earlier), workload, now)


def _settled(subject: str, sight: Sight) -> bool:
    """Its controller is done, and the last pod that had to go is gone."""
    workload = sight.workload(subject)
    if any(pod.terminating for pod in sight.of_workload(subject)):
        return False
    return workload is None or workload.settled


def _node_is_done(begun: Begun, sight: Sight) -> bool:
    """The node is back in service, or has no pod left that the change takes away."""
    node = sight.nodes.get(_node_of(begun))
    if node is None:
        return True
    pods = sight.on_node(node.name)
    if begun.change.kind is ChangeKind.NODE_LOSS:
        return node.ready or not pods
    return node.schedulable or not any(pod.evictable for pod in pods)


def _node_of(begun: Begun) -> str:
    return begun.subject.removeprefix("node/")
