"""What a guard's situation amounts to: endpoint states and conditions. Pure, and stable in peace."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from upstream_guard.core.acceptance import Acceptance
from upstream_guard.core.admission import Absence, Outcome
from upstream_guard.core.health import NEVER_PROBED, Health, Verdict
from upstream_guard.core.model import DrainMode, Guard, ListMode, ObjectRef, Pod, Service
from upstream_guard.core.names import ANNOTATION_INJECTED
from upstream_guard.core.observed import ObservedWindow
from upstream_guard.core.predict.window import Severity
from upstream_guard.core.reasons import LEFT_AHEAD, REASONS, ConditionType, Reason
from upstream_guard.core.status import (
    Condition,
    ConditionStatus,
    DrainStatus,
    EndpointState,
    EndpointStatus,
    GuardStatus,
    PredictionStatus,
    RiskStatus,
    RouteStatus,
    with_open_window,
)
from upstream_guard.core.surge import SurgeRecord
from upstream_guard.core.tuning import DrainAdvice, GatewayFacts, recommended_patch


@dataclass(frozen=True, slots=True)
class Situation:
    """One guard in force, and everything that its status tells of.

    Attributes:
        guard: The guard.
        service: Its Service.
        pods: The Service's pods, with gates as just decided.
        healths: By pod UID.
        outcome: The decision over the guard's group.
        listed: UIDs of pods that the EndpointSlices list as ready.
        gateways: The gateways in front.
        advice: The drain settings.
        unresolved: Why some pod cannot be probed; empty where all can.
        service_served: Some pod was once seen serving.
        workload: `kind/name` that owns the pods, for advice; empty where there is none.
        ports: The probed port, by pod UID.
        sleep_supported: The API server knows the `sleep` hook.
        predictions: Windows predicted of changes that are not over, or that may be open yet.
        risks: What waits for the next change, worst first.
        surge: A replica that was added for a drain.
        routes: What is asked through the gateways.
        kube_proxy: The way through the ClusterIP, where it counts and something is measured of it.
        windows: The last ones as they were told, newest first.
        zones: Of the nodes that the pods run on, by node.
    """

    guard: Guard
    service: Service
    pods: tuple[Pod, ...]
    healths: Mapping[str, Health]
    outcome: Outcome
    listed: frozenset[str]
    gateways: tuple[GatewayFacts, ...]
    advice: DrainAdvice
    unresolved: str = ""
    service_served: bool = False
    workload: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    sleep_supported: bool = True
    predictions: tuple[PredictionStatus, ...] = ()
    risks: tuple[RiskStatus, ...] = ()
    surge: SurgeRecord | None = None
    routes: tuple[RouteStatus, ...] = ()
    kube_proxy: GatewayFacts | None = None
    windows: tuple[ObservedWindow, ...] = ()
    zones: Mapping[str, str] = field(default_factory=dict)

    @property
    def live(self) -> tuple[Pod, ...]:
        """Pods that are not on their way out."""
        return tuple(p for p in self.pods if not p.terminating)

    @property
    def ungated(self) -> tuple[Pod, ...]:
        """Live pods without our gate: made before the guard, or while nobody controlled."""
        return tuple(p for p in self.live if not p.gated)

    @property
    def short(self) -> tuple[Pod, ...]:
        """Live pods that sleep for less than the gateways need, by a hook that their owner wrote."""
        return tuple(
            p
            for p in self.live
            if _sleeps(p) and min(_sleeps(p)) < self.advice.pre_stop and not _injected(p)
        )

    @property
    def sleepless(self) -> bool:
        """Pods lack the hook that the guard wants for them, because the cluster has none to give."""
        wanted = self.guard.drain.mode is DrainMode.ENFORCE and self.advice.pre_stop > 0
        return wanted and not self.sleep_supported and any(not p.pre_stop for p in self.live)

    @property
    def adopt(self) -> str:
        """The command that replaces pods by ones that the guard can act on."""
        target = self.workload or "<workload>"
        return f"kubectl -n {self.guard.ref.namespace} rollout restart {target}"


def assess(situation: Situation) -> GuardStatus:
    """The status of a guard in force."""
    guard = situation.guard
    absences = {a.uid: a for a in situation.outcome.absences}
    endpoints = tuple(_endpoint(pod, situation, absences.get(pod.uid)) for pod in situation.pods)
    accepted = Acceptance(True, Reason.ACCEPTED, f"guards Service {situation.service.ref}")
    return GuardStatus(
        guard.generation,
        _service_text(guard),
        (
            _accepted(accepted, guard.generation),
            _programmed(situation),
            _healthy(situation, endpoints),
            _at_risk(situation),
        ),
        endpoints,
        situation.gateways,
        _drain(situation),
        situation.predictions,
        situation.risks,
        situation.routes,
        kube_proxy=situation.kube_proxy,
        windows=situation.windows,
    )


def assess_rejected(
    ref: ObjectRef, generation: int, guard: Guard | None, acceptance: Acceptance
) -> GuardStatus:
    """The status of a guard that is not in force."""
    conditions = [_accepted(acceptance, generation)]
    conditions += [
        Condition(
            kind,
            ConditionStatus.FALSE if kind is ConditionType.PROGRAMMED else ConditionStatus.UNKNOWN,
            Reason.NOT_ACCEPTED,
            REASONS[Reason.NOT_ACCEPTED].note,
            generation,
        )
        for kind in (ConditionType.PROGRAMMED, ConditionType.HEALTHY, ConditionType.AT_RISK)
    ]
    return GuardStatus(generation, _service_text(guard) if guard else ref.name, tuple(conditions))


WEBHOOK_SECONDS: Final = 10.0
"""How long after a guard's creation its namespace may still be unknown to the webhook."""
_SLEEP: Final = re.compile(r"sleep (\d+)s")
_EJECTIONS = frozenset({Reason.ENDPOINT_EJECTED, Reason.NODE_LOST})
_BAD = frozenset({EndpointState.FAILING, EndpointState.EJECTED, EndpointState.KEPT_OUT})


def _service_text(guard: Guard) -> str:
    return guard.service if guard.section is None else f"{guard.service}:{guard.section}"


def _accepted(acceptance: Acceptance, generation: int) -> Condition:
    status = ConditionStatus.TRUE if acceptance.accepted else ConditionStatus.FALSE
    return Condition(
        ConditionType.ACCEPTED, status, acceptance.reason, acceptance.message, generation
    )


def _endpoint(pod: Pod, situation: Situation, absence: Absence | None) -> EndpointStatus:
    health = situation.healths.get(pod.uid, NEVER_PROBED)
    state = _state(pod, health, absence)
    failing = state is not EndpointState.SERVING and health.cause is not None
    return EndpointStatus(
        pod=pod.ref.name,
        address=_address(pod, situation.ports.get(pod.uid)),
        state=state,
        listed=pod.uid in situation.listed,
        gated=pod.gated,
        node=pod.node,
        cause=health.cause if failing else None,
        detail=health.detail if failing else "",
    )


def _address(pod: Pod, port: int | None) -> str:
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    return host if port is None else f"{host}:{port}"


def _state(pod: Pod, health: Health, absence: Absence | None) -> EndpointState:
    if pod.terminating:
        return EndpointState.DRAINING
    if absence is not None:
        if absence.reason in LEFT_AHEAD:
            return EndpointState.DRAINING
        if absence.reason in _EJECTIONS:
            return EndpointState.EJECTED
        return EndpointState.KEPT_OUT if absence.overdue else EndpointState.PENDING
    by_verdict = {
        Verdict.SERVING: EndpointState.SERVING,
        Verdict.FAILING: EndpointState.FAILING,
        Verdict.UNKNOWN: EndpointState.UNKNOWN,
    }
    return by_verdict[health.verdict]


def _condition(
    situation: Situation,
    kind: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: str,
) -> Condition:
    """A condition of a guard in force; without words of its own it says what the reason means."""
    words = message or REASONS[reason].note
    return Condition(kind, status, reason, words, situation.guard.generation)


def _programmed(situation: Situation) -> Condition:
    reason, message = _programmed_reason(situation)
    status = ConditionStatus.TRUE if reason is Reason.PROGRAMMED else ConditionStatus.FALSE
    return _condition(situation, ConditionType.PROGRAMMED, status, reason, message)


def _programmed_reason(situation: Situation) -> tuple[Reason, str]:
    if situation.service.publish_not_ready:
        return Reason.PUBLISH_NOT_READY_ADDRESSES, ""
    if situation.guard.upstream_list.mode is ListMode.OBSERVE:
        return Reason.OBSERVING, ""
    if situation.outcome.blind:
        return Reason.BLIND, ""
    if situation.ungated:
        return Reason.UNGATED_PODS, ungated_pods(situation)
    return Reason.PROGRAMMED, ""


def ungated_pods(situation: Situation) -> str:
    """How many pods lack the gate, and what to do: a restart helps only if the webhook is reached."""
    ungated, guard = situation.ungated, situation.guard
    words = f"{len(ungated)} of {len(situation.live)} pods have no gate and are only observed"
    younger = sum(p.created > guard.created + WEBHOOK_SECONDS for p in ungated)
    if younger:
        words += (
            f", {younger} of them younger than the guard: if this goes on, the API server does not "
            "reach the operator's webhook"
        )
    return f"{words}; to replace them: {situation.adopt}"


def _healthy(situation: Situation, endpoints: tuple[EndpointStatus, ...]) -> Condition:
    status, reason, message = with_open_window(
        _health_reason(situation, endpoints), situation.windows
    )
    return _condition(situation, ConditionType.HEALTHY, status, reason, message)


def _health_reason(
    situation: Situation, endpoints: tuple[EndpointStatus, ...]
) -> tuple[ConditionStatus, Reason, str]:
    live = [e for e in endpoints if e.state is not EndpointState.DRAINING]
    failing = sorted(e.pod for e in live if e.state in _BAD)
    if not live:
        return ConditionStatus.FALSE, Reason.NO_ENDPOINTS, ""
    if situation.unresolved:
        return ConditionStatus.UNKNOWN, Reason.PROBE_UNRESOLVED, situation.unresolved
    if failing:
        reason, words = _failing_reason(situation, failing, len(live))
        return ConditionStatus.FALSE, reason, words
    if any(e.state is EndpointState.SERVING for e in live):
        return ConditionStatus.TRUE, Reason.ALL_SERVING, ""
    return ConditionStatus.UNKNOWN, Reason.PENDING, ""


def _failing_reason(situation: Situation, failing: list[str], live: int) -> tuple[Reason, str]:
    if not situation.service_served:
        return Reason.PROBE_NEVER_SUCCEEDED, ""
    words = f"{len(failing)} of {live} endpoints do not serve: {', '.join(failing[:5])}"
    if situation.outcome.floors_reached:
        floors = ", ".join(situation.outcome.floors_reached[:3])
        return Reason.FLOOR_REACHED, f"{words}; floor of {floors} reached"
    return Reason.ENDPOINTS_FAILING, words


def _at_risk(situation: Situation) -> Condition:
    reason, message = _risk(situation)
    status = ConditionStatus.FALSE if reason is Reason.NO_RISK else ConditionStatus.TRUE
    return _condition(situation, ConditionType.AT_RISK, status, reason, message)


def _risk(situation: Situation) -> tuple[Reason, str]:
    """The worst: what is wrong already, how pods stop, then what else a change will meet."""
    broken = tuple(r for r in situation.risks if r.severity is Severity.ERROR)
    if broken:
        return Reason.WINDOWS_PREDICTED, describe_risks(broken)
    reason, message = _drain_risk(situation)
    # Nothing but a single pod: a reason of its own says that better.
    waiting = tuple(r for r in situation.risks if r.risk != "single-replica")
    if reason is Reason.NO_RISK and waiting:
        return Reason.WINDOWS_PREDICTED, describe_risks(waiting)
    if reason is Reason.NO_RISK and len(situation.live) == 1:
        return Reason.SINGLE_ENDPOINT, ""
    return reason, message


def describe_risks(risks: Sequence[RiskStatus]) -> str:
    """Standing risks in one sentence: the first, and how many more there are; at least one is given."""
    worst, others = risks[0], len(risks) - 1
    more = f"; and {others} more in status.risks" if others else ""
    return f"{worst.subject}: {worst.message}{more}"


def _drain_risk(situation: Situation) -> tuple[Reason, str]:
    advice, live = situation.advice, situation.live
    bare = [p for p in live if not p.pre_stop] if advice.pre_stop else []
    enforced = situation.guard.drain.mode is DrainMode.ENFORCE
    if advice.shortfall > 0:
        return Reason.DRAIN_TOO_SHORT, advice.reason
    if situation.short:
        return Reason.DRAIN_TOO_SHORT, short_hooks(situation)
    if bare and not enforced:
        return (
            Reason.DRAIN_NOT_ENFORCED,
            f"{len(bare)} of {len(live)} pods have no preStop hook; {advice.pre_stop} s are needed",
        )
    if bare:
        words = f"{len(bare)} of {len(live)} pods were made without a preStop hook"
        return Reason.PODS_WITHOUT_DRAIN, f"{words}; to replace them: {situation.adopt}"
    return Reason.NO_RISK, ""


def short_hooks(situation: Situation) -> str:
    """What is to be said of pods whose own preStop hook is too short; meaningless where none is."""
    least = min(s for p in situation.short for s in _sleeps(p))
    return (
        f"{len(situation.short)} of {len(situation.live)} pods have a preStop hook of their own that "
        f"sleeps only {least} s, and {situation.advice.pre_stop} s are needed: lengthen it"
    )


def _sleeps(pod: Pod) -> tuple[int, ...]:
    """Seconds of the pod's `sleep` hooks; how long other hooks last is not known."""
    found = (_SLEEP.fullmatch(part) for part in pod.pre_stop.split(", "))
    return tuple(int(match[1]) for match in found if match)


def missing_sleep(pod: Pod, advice: DrainAdvice) -> float:
    """Seconds that a pod's preStop hook lacks of what is advised; 0 where it lasts who knows how long."""
    sleeps = _sleeps(pod)
    if pod.pre_stop and not sleeps:
        return 0.0
    return advice.lacking(min(sleeps, default=0))


def injected_pre_stop(pods: Iterable[Pod]) -> float:
    """Seconds that every one of the pods sleeps by a hook of ours; 0 where one has none of ours."""
    sleeps = [min(_sleeps(pod), default=0) if _injected(pod) else 0 for pod in pods]
    return float(min(sleeps, default=0))


def _injected(pod: Pod) -> bool:
    """The webhook gave it a hook, by its own record."""
    return '"preStop"' in pod.annotations.get(ANNOTATION_INJECTED, "")


def _drain(situation: Situation) -> DrainStatus:
    mode = situation.guard.drain.mode
    # What the webhook did not lengthen is the pods' own; where they differ, nothing is said.
    own = {int(p.grace_period) for p in situation.live if not p.pre_stop}
    own_grace = own.pop() if len(own) == 1 else None
    patch = recommendation(situation)
    return DrainStatus(mode, situation.advice, own_grace, patch, situation.surge)


def recommendation(situation: Situation) -> str:
    """With `Recommend`, the patch for the workload where its pods lack the hook; else empty."""
    bare = [p for p in situation.live if not p.pre_stop]
    if situation.guard.drain.mode is not DrainMode.RECOMMEND or not bare:
        return ""
    if not situation.advice.pre_stop:
        return ""
    containers = [c.name for c in bare[0].containers]
    return recommended_patch(situation.advice, containers, int(bare[0].grace_period))
