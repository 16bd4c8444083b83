"""Who is in the upstream list: admit, eject, restore, within what is safe.

One pure function, `decide`. Its safeguards, in the order in which they apply:

1. A terminating pod is never touched, and a pod without the gate is only counted.
2. Only hard evidence ejects (refused, reset, nonsense), and only a pod whose template was once seen
   to serve: a probe that never worked says more about the probe.
3. Silence ejects an outlier among healthy peers, never a crowd: under overload, taking endpoints out
   makes it worse. A node whose endpoints are all silent while other nodes serve counts as one
   outlier; the endpoints of a lost node (`core.lostnode`) go at once and together.
4. When no endpoint at all is seen serving, the operator distrusts its own eyes: nothing is ejected
   and what was ejected goes back.
5. A new pod is kept out for longer than `admitTimeout` only on hard evidence from a Service on which
   some pod was seen serving.
6. A serving endpoint on a node that goes away soon (`core.leaving`) leaves ahead, but only where enough
   are listed and seen serving on nodes that stay, for every floor and disruption budget. So does one
   whose preStop hook is too short, before its successor is admitted (`core.handover`).
7. Floors (`minHealthyPercent` of what the containers' own readiness would list, at least one) hold
   for every Service that selects the pod, and per node or zone where traffic is routed that way. They
   also bring pods back: below a floor the least suspect of those kept out are listed.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

from upstream_guard.core.causes import SLOW_CAUSES, Cause
from upstream_guard.core.handover import Handover, Standing, hand_over
from upstream_guard.core.health import Health, Verdict
from upstream_guard.core.leaving import LEAVING_TAINTS, Reserve
from upstream_guard.core.model import ListMode, Pod, UpstreamListPolicy, kept_listed
from upstream_guard.core.reasons import Reason

LOST_NODE_PATIENCE = 1.0
"""Seconds that the kubelet gets to follow a gate with `Ready` before it counts as silent.

Measured on Kubernetes 1.35: it follows within 0.16 s, within 0.8 s where one pod is toggled faster
than once a second.
"""

FORCED_PATIENCE = 0.3
"""Seconds until `Ready=False` is written again for an endpoint of a lost node that is still ready."""

BUSY_NODE_PATIENCE = 3.0
"""The same where the endpoint answers, if only with a refusal: its node lives, and a kubelet that is
short of CPU must not be taken for a lost one."""

SLOW_CROWD_DIVISOR = 5
"""At most a fifth of the endpoints (and one at least) may be out for slowness at a time."""


@dataclass(frozen=True, slots=True)
class View:
    """What one guard knows of one pod."""

    guard: str
    policy: UpstreamListPolicy
    health: Health
    template_served: bool
    """Some pod of this template was once seen serving."""
    service_served: bool
    """Some pod of this Service was once seen serving."""


@dataclass(frozen=True, slots=True)
class Member:
    """One pod with the views of every guard that selects it."""

    pod: Pod
    views: tuple[View, ...]
    gate_changed_at: float = 0.0
    """When this process saw the gate change last; 0 where it did not."""


@dataclass(frozen=True, slots=True)
class Floor:
    """A set of pods of which a share must stay listed."""

    name: str
    """For people: `service prod/shop`, `service prod/shop on node a`."""
    pods: frozenset[str]
    percent: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that decides over a set of pods that share guards."""

    members: tuple[Member, ...]
    floors: tuple[Floor, ...]
    lost_nodes: frozenset[str] = frozenset()
    """Nodes of which nothing answers any more, by `core.lostnode`."""
    leaving: Mapping[str, str] = field(default_factory=dict)
    """The taint by which a node goes away soon, by node."""
    reserves: tuple[Reserve, ...] = ()
    """What disruption budgets ask for; needed only where a node is leaving."""
    short_hooks: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the preStop hook of a pod lacks, by UID; needed only where a pod may be new."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate of one pod should say, and why."""

    uid: str
    gate: bool
    reason: Reason
    message: str
    cause: Cause | None = None
    force_not_ready: bool = False
    """The kubelet does not, or will not, follow the gate: write `Ready=False` as well, as the node
    lifecycle controller does."""


@dataclass(frozen=True, slots=True)
class Absence:
    """A pod that is out of the list and stays out for now."""

    uid: str
    reason: Reason
    message: str
    cause: Cause | None
    overdue: bool
    """It was to be listed by now, were it not for hard evidence."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All decisions over a scene. Pods whose gate is right have none."""

    decisions: tuple[Decision, ...]
    absences: tuple[Absence, ...] = ()
    floors_reached: tuple[str, ...] = ()
    blind: bool = False
    revisit_at: float = math.inf
    """When time alone can change the outcome."""


class _Suspicion(IntEnum):
    """How much speaks against listing a pod; below a floor the least suspect is listed first."""

    NONE = 0
    WAITING = 1
    UNSEEN = 2
    SLOW = 3
    HARD = 4


@dataclass(frozen=True, slots=True)
class _Wish:
    listed: bool
    suspicion: _Suspicion
    reason: Reason
    message: str
    cause: Cause | None = None
    since: float = 0.0
    until: float = math.inf
    """When a wait ends."""


@dataclass(frozen=True, slots=True)
class _Crowd:
    """What the peers of a pod look like, for the outlier rule."""

    serving: int
    total: int
    slow_budget: int
    silent_nodes: frozenset[str]
    lost_nodes: frozenset[str]
    blind: bool
    leaving: Mapping[str, str] = field(default_factory=dict)
    """The taint of the node, by UID of each pod that may leave ahead of it."""
    handover: Handover = field(default_factory=Handover)


def decide(scene: Scene, now: float) -> Outcome:
    """Decide the gate of every gated pod of the scene that may be touched."""
    members = tuple(m for m in scene.members if not m.pod.terminating)
    handover = _handover(scene, members, now)
    crowd = replace(
        _crowd(members, scene.lost_nodes), leaving=_leaving(scene, members), handover=handover
    )
    wishes = {m.pod.uid: _combine(m, crowd, now) for m in members if m.pod.gated}
    held, floors_reached = _apply_floors(members, wishes, crowd, scene.floors)
    revisit = [handover.revisit_at]
    decisions: list[Decision] = []
    absences: list[Absence] = []
    for member in members:
        wish = held.get(member.pod.uid)
        if wish is None:
            continue
        revisit.append(wish.until)
        if not wish.listed:
            overdue = wish.suspicion is _Suspicion.HARD
            absences.append(Absence(member.pod.uid, wish.reason, wish.message, wish.cause, overdue))
        decision = _decision(member, wish, now)
        if decision is not None:
            decisions.append(decision)
        elif not wish.listed and member.pod.gate is False and member.pod.ready:
            revisit.append(member.gate_changed_at + _patience(wish))
    return Outcome(
        tuple(decisions),
        tuple(absences),
        floors_reached,
        crowd.blind,
        min((at for at in revisit if at > now), default=math.inf),
    )


def _crowd(members: tuple[Member, ...], lost_nodes: frozenset[str]) -> _Crowd:
    healths = [(m.pod, view.health) for m in members for view in m.views]
    # One on a lost node may not have been asked often enough for a verdict of its own.
    serving = sum(
        1 for pod, h in healths if h.verdict is Verdict.SERVING and pod.node not in lost_nodes
    )
    probed = [(pod, h) for pod, h in healths if h.verdict is not Verdict.UNKNOWN]
    listed = any(m.pod.gate for m in members)
    # A pod that is still starting (and may never start) is no reason to trust the probes of the others.
    unjudged = any(h.verdict is Verdict.UNKNOWN and pod.containers_ready for pod, h in healths)
    blind = listed and bool(probed) and serving == 0 and not unjudged
    eligible = {m.pod.uid for m in members if m.pod.containers_ready}
    return _Crowd(
        serving,
        len(healths),
        max(1, len(eligible) // SLOW_CROWD_DIVISOR),
        _silent_nodes(probed) | lost_nodes,
        lost_nodes,
        blind,
    )


def _leaving(scene: Scene, members: tuple[Member, ...]) -> dict[str, str]:
    """Pods on nodes that go, where what stays is enough without them."""
    going = {m.pod.uid: scene.leaving[m.pod.node] for m in members if m.pod.node in scene.leaving}
    if not going:
        return {}
    staying = {
        m.pod.uid
        for m in members
        if m.pod.uid not in going and m.pod.node not in scene.lost_nodes and _serves(m)
    }
    needs = _needs(scene.floors, members) + [(r.pods, r.need) for r in scene.reserves]
    short = [pods for pods, need in needs if len(staying & pods) < need]
    return {uid: taint for uid, taint in going.items() if not any(uid in pods for pods in short)}


def _handover(scene: Scene, members: tuple[Member, ...], now: float) -> Handover:
    """Old pods with hooks that are too short, and the new ones that wait for them to be forgotten."""
    if not scene.short_hooks:
        return Handover()
    serving = frozenset(m.pod.uid for m in members if _serves(m))
    needs = _needs(scene.floors, members)
    tight = [pods for pods, need in needs if len(serving & pods) <= need]
    return hand_over(
        (
            Standing(
                m.pod,
                _seen_serving(m) and all(v.policy.mode is ListMode.ENFORCE for v in m.views),
                # A change that this process did not make shows in `Ready`, a little later.
                m.gate_changed_at or m.pod.ready_since,
                scene.short_hooks.get(m.pod.uid, 0.0),
                m.pod.containers_ready_since + min(v.policy.admit_timeout for v in m.views),
                not any(m.pod.uid in pods for pods in tight),
            )
            for m in members
            if m.pod.gated and m.views
        ),
        now,
    )


def _serves(member: Member) -> bool:
    return _is_listed(member.pod) and _seen_serving(member)


def _seen_serving(member: Member) -> bool:
    return all(view.health.verdict is Verdict.SERVING for view in member.views)


def _needs(floors: Iterable[Floor], members: Iterable[Member]) -> list[tuple[frozenset[str], int]]:
    """The pods of each floor, and how many of them it keeps."""
    eligible = frozenset(m.pod.uid for m in members if m.pod.containers_ready)
    return [(f.pods, kept_listed(len(f.pods & eligible), f.percent)) for f in floors]


def _silent_nodes(probed: Iterable[tuple[Pod, Health]]) -> frozenset[str]:
    """Nodes of which every probed endpoint is silent, while another node serves."""
    by_node: dict[str, list[Health]] = {}
    for pod, health in probed:
        by_node.setdefault(pod.node, []).append(health)
    serving = {n for n, hs in by_node.items() if any(h.verdict is Verdict.SERVING for h in hs)}
    silent = {
        node
        for node, hs in by_node.items()
        if all(h.verdict is Verdict.FAILING and _is_silence(h) for h in hs)
    }
    return frozenset(silent) if serving else frozenset()


def _is_silence(health: Health) -> bool:
    return health.cause in {Cause.CONNECT_TIMEOUT, Cause.UNREACHABLE, Cause.BLOCKED}


def _combine(member: Member, crowd: _Crowd, now: float) -> _Wish:
    """The wishes of all guards of a pod: any one of them may keep it out."""
    wishes = [_wish(member.pod, view, crowd, now) for view in member.views]
    if not wishes:
        return _Wish(True, _Suspicion.NONE, Reason.GUARD_RELEASED, "no guard selects this pod")
    out = [w for w in wishes if not w.listed]
    return max(out or wishes, key=lambda w: w.suspicion)


def _wish(pod: Pod, view: View, crowd: _Crowd, now: float) -> _Wish:
    if view.policy.mode is ListMode.OBSERVE:
        return _Wish(
            True, _Suspicion.NONE, Reason.GUARD_RELEASED, f"guard {view.guard} observes only"
        )
    on_account_of_others = _wish_for_node(pod, view, crowd) or _wish_for_handover(pod, crowd)
    if on_account_of_others is not None:
        return on_account_of_others
    if view.health.verdict is Verdict.SERVING:
        reason = Reason.ENDPOINT_RESTORED if pod.gate is False else Reason.ENDPOINT_ADMITTED
        return _Wish(True, _Suspicion.NONE, reason, "seen to serve")
    if pod.gate:
        return _wish_for_listed(pod, view, crowd)
    if pod.gate is None:
        return _wish_for_new(pod, view, now)
    return _wish_for_ejected(view, crowd)


def _wish_for_node(pod: Pod, view: View, crowd: _Crowd) -> _Wish | None:
    """What the node asks for, whatever the endpoint's own probes say; None where it asks for nothing."""
    health = view.health
    if pod.gate is None or not view.template_served or crowd.blind:
        return None
    if pod.node in crowd.lost_nodes:
        cause = health.cause or Cause.CONNECT_TIMEOUT
        message = f"nothing on node {pod.node} answers any more, and other nodes do"
        return _Wish(False, _Suspicion.HARD, Reason.NODE_LOST, message, cause, health.since)
    taint = crowd.leaving.get(pod.uid)
    if taint and health.verdict is Verdict.SERVING:
        message = f"node {pod.node} goes away soon, by its taint {taint} ({LEAVING_TAINTS[taint]})"
        return _Wish(False, _Suspicion.NONE, Reason.NODE_LEAVING, message)
    return None


def _wish_for_handover(pod: Pod, crowd: _Crowd) -> _Wish | None:
    """What an old pod does for its successor, or a new one waits for; None where there is no handover."""
    if pod.uid in crowd.handover.aside:
        message = "its preStop hook is too short for the gateways: it leaves ahead of its deletion"
        return _Wish(False, _Suspicion.NONE, Reason.ENDPOINT_STEPPED_ASIDE, message)
    until = crowd.handover.held.get(pod.uid)
    if until is not None:
        message = "seen to serve; an old pod whose preStop hook is too short leaves first"
        return _Wish(False, _Suspicion.WAITING, Reason.ENDPOINT_WAITING, message, until=until)
    return None


def _wish_for_listed(pod: Pod, view: View, crowd: _Crowd) -> _Wish:
    health = view.health
    stay = _Wish(True, _Suspicion.NONE, Reason.ENDPOINT_ADMITTED, "no verdict against it")
    if health.verdict is not Verdict.FAILING or not view.template_served or crowd.blind:
        return stay
    if not health.hard and not _is_outlier(pod, health, crowd):
        return stay
    return _out(Reason.ENDPOINT_EJECTED, health)


def _wish_for_ejected(view: View, crowd: _Crowd) -> _Wish:
    if crowd.blind:
        return _Wish(
            True,
            _Suspicion.NONE,
            Reason.OPERATOR_BLIND,
            "no endpoint is seen serving, so the probes are distrusted",
        )
    return _out(Reason.ENDPOINT_EJECTED, view.health)


def _wish_for_new(pod: Pod, view: View, now: float) -> _Wish:
    health = view.health
    deadline = pod.containers_ready_since + view.policy.admit_timeout
    if not pod.containers_ready:
        deadline = math.inf
    if health.verdict is Verdict.FAILING and health.hard and view.service_served:
        wish = _out(Reason.ENDPOINT_KEPT_OUT, health)
        if now < deadline:
            return _Wish(
                False,
                _Suspicion.WAITING,
                wish.reason,
                wish.message,
                wish.cause,
                wish.since,
                deadline,
            )
        return wish
    if now >= deadline:
        return _Wish(
            True,
            _Suspicion.UNSEEN,
            Reason.ADMITTED_UNSEEN,
            f"not seen to serve within admitTimeout ({view.policy.admit_timeout:g} s): "
            f"{health.detail or 'no answer'}; admitted, since the operator may be the blind one",
            health.cause,
        )
    return _Wish(
        False,
        _Suspicion.WAITING,
        Reason.ENDPOINT_WAITING,
        "not yet seen to serve",
        health.cause,
        0.0,
        deadline,
    )


def _out(reason: Reason, health: Health) -> _Wish:
    suspicion = _Suspicion.HARD if health.hard else _Suspicion.SLOW
    cause = health.cause.value if health.cause else "unknown"
    message = f"{cause}: {health.detail}" if health.detail else cause
    return _Wish(False, suspicion, reason, message, health.cause, health.since)


def _is_outlier(pod: Pod, health: Health, crowd: _Crowd) -> bool:
    if pod.node in crowd.silent_nodes and _is_silence(health):
        return True
    peers = crowd.total - 1
    return peers > 0 and crowd.serving * 2 > peers


def _apply_floors(
    members: tuple[Member, ...],
    wishes: Mapping[str, _Wish],
    crowd: _Crowd,
    floors: tuple[Floor, ...],
) -> tuple[dict[str, _Wish], tuple[str, ...]]:
    """Turn wishes into what may be done: the least suspect first, as far as floors demand."""
    by_uid = {m.pod.uid: m for m in members}
    # Before the floors: what slowness may not eject counts as listed for them.
    held = {**wishes, **_over_slow_budget(members, wishes, crowd)}
    listed = {m.pod.uid for m in members if _would_be_listed(m, held.get(m.pod.uid))}
    reached: list[str] = []
    for floor in floors:
        eligible = [
            by_uid[uid] for uid in floor.pods if uid in by_uid and by_uid[uid].pod.containers_ready
        ]
        need = kept_listed(len(eligible), floor.percent)
        out = _least_suspect(eligible, held, listed)
        missing = need - sum(m.pod.uid in listed for m in eligible)
        kept = out[: max(0, missing)]
        # One that comes back is listed up to a second after the decision: until then it does not
        # make room for another one to go.
        here = [m for m in eligible if _is_listed(m.pod)]
        staying = sum(m.pod.uid in listed or m in kept for m in here)
        leaving = [m for m in out if m in here and m not in kept]
        kept += leaving[: max(0, min(need, len(here)) - staying)]
        for member in kept:
            uid = member.pod.uid
            held[uid] = _hold(held[uid], floor, need)
            listed.add(uid)
            if floor.name not in reached:
                reached.append(floor.name)
    return held, tuple(reached)


def _is_listed(pod: Pod) -> bool:
    """Listed now, and not about to leave by a gate that was just shut."""
    return pod.ready and pod.gate is not False


def _would_be_listed(member: Member, wish: _Wish | None) -> bool:
    return member.pod.ready if wish is None else wish.listed


def _least_suspect(
    eligible: list[Member], wishes: Mapping[str, _Wish], listed: set[str]
) -> list[Member]:
    """Those whom a floor may bring back, best first. Pods still within their wait are not forced."""
    out = [
        m
        for m in eligible
        if m.pod.uid not in listed
        and m.pod.uid in wishes
        and wishes[m.pod.uid].suspicion is not _Suspicion.WAITING
    ]
    return sorted(
        out,
        key=lambda m: (
            not m.pod.gate,
            wishes[m.pod.uid].suspicion,
            -wishes[m.pod.uid].since,
            m.pod.ref,
        ),
    )


def _hold(wish: _Wish, floor: Floor, need: int) -> _Wish:
    return _Wish(
        True,
        wish.suspicion,
        Reason.EJECTION_FLOOR_REACHED,
        f"{wish.message}; listed all the same: {floor.name} must keep {need} "
        f"({floor.percent} % of its endpoints)",
        wish.cause,
        wish.since,
    )


def _over_slow_budget(
    members: tuple[Member, ...], wishes: Mapping[str, _Wish], crowd: _Crowd
) -> dict[str, _Wish]:
    """Give back ejections for slowness beyond the budget; silent nodes are not slowness."""
    slow = [
        m
        for m in members
        if m.pod.uid in wishes
        and not wishes[m.pod.uid].listed
        and wishes[m.pod.uid].suspicion is _Suspicion.SLOW
        and m.pod.node not in crowd.silent_nodes
    ]
    slow.sort(key=lambda m: (bool(m.pod.gate), wishes[m.pod.uid].since, m.pod.ref))
    return {
        m.pod.uid: _Wish(
            True,
            _Suspicion.NONE,
            Reason.EJECTION_FLOOR_REACHED,
            f"{wishes[m.pod.uid].message}; too many endpoints are slow for slowness to be theirs",
            wishes[m.pod.uid].cause,
        )
        for m in slow[crowd.slow_budget :]
    }


def _patience(wish: _Wish) -> float:
    if wish.reason is Reason.NODE_LOST:
        return FORCED_PATIENCE
    return LOST_NODE_PATIENCE if wish.cause in SLOW_CAUSES else BUSY_NODE_PATIENCE


def _decision(member: Member, wish: _Wish, now: float) -> Decision | None:
    """None where the gate is right as it is (an absent condition keeps a new pod out as well)."""
    pod = member.pod
    if wish.listed:
        if pod.gate:
            return None
        return Decision(pod.uid, True, wish.reason, wish.message, wish.cause)
    if pod.gate is None:
        return None
    lost = wish.reason is Reason.NODE_LOST
    if pod.gate:
        forced = lost and pod.ready
        return Decision(pod.uid, False, wish.reason, wish.message, wish.cause, forced)
    # Who began to control a moment ago did not see the gate change, and waits for no kubelet that is lost.
    watched = lost or member.gate_changed_at > 0
    if pod.ready and watched and member.gate_changed_at <= now - _patience(wish):
        return Decision(pod.uid, False, wish.reason, wish.message, wish.cause, force_not_ready=True)
    return None
