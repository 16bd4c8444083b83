"""Tells users what is so (status, conditions, gauges) and what happened (events)."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from upstream_guard.controller.gate_writer import Order
from upstream_guard.controller.guards import GuardEntry
from upstream_guard.controller.predictions import Foretold
from upstream_guard.controller.statuses import StatusWriter
from upstream_guard.core.acceptance import Acceptance
from upstream_guard.core.admission import Decision
from upstream_guard.core.assessment import (
    Situation,
    assess,
    assess_rejected,
    describe_risks,
    recommendation,
    short_hooks,
    ungated_pods,
)
from upstream_guard.core.detect import Hidden, Kind, News
from upstream_guard.core.model import ObjectRef, Pod
from upstream_guard.core.names import API_VERSION, GUARD_KIND
from upstream_guard.core.observed import tell_closed, tell_opened
from upstream_guard.core.reasons import LEFT_AHEAD, REASONS, ConditionType, Reason
from upstream_guard.core.shutdown import AppShutdown, Ending, describe
from upstream_guard.core.status import ConditionStatus, EndpointCounts, EndpointState, GuardStatus
from upstream_guard.kube.events import Event, EventRecorder, Subject
from upstream_guard.metrics import Metrics
from upstream_guard.resources.status import build_status, parse_conditions

ACTIONS = {
    Reason.ENDPOINT_ADMITTED: "Admit",
    Reason.ADMITTED_UNSEEN: "Admit",
    Reason.ENDPOINT_KEPT_OUT: "KeepOut",
    Reason.ENDPOINT_EJECTED: "Eject",
    Reason.ENDPOINT_RESTORED: "Restore",
    Reason.EJECTION_FLOOR_REACHED: "Hold",
    Reason.OPERATOR_BLIND: "Hold",
    Reason.NODE_LOST: "Eject",
    Reason.NODE_LEAVING: "Eject",
    Reason.ENDPOINT_STEPPED_ASIDE: "Eject",
    Reason.GUARD_RELEASED: "Release",
    Reason.GUARD_ACCEPTED: "Accept",
    Reason.GUARD_NOT_ACCEPTED: "Reject",
    Reason.PODS_WITHOUT_GATE: "Observe",
    Reason.DRAIN_RECOMMENDED: "Recommend",
    Reason.PRE_STOP_TOO_SHORT: "Observe",
    Reason.SLEEP_NOT_SUPPORTED: "Observe",
    Reason.RISKS_FOUND: "Review",
    Reason.REPLICA_ADDED: "Scale",
    Reason.REPLICA_PUT_BACK: "Scale",
    Reason.SURGE_SKIPPED: "Observe",
    Reason.APP_IGNORES_SIGTERM: "Observe",
    Reason.APP_ENDS_AT_ONCE: "Observe",
    Reason.APP_DRAINS: "Observe",
    Reason.UPSTREAM_UNRESOLVED: "Hold",
    Reason.UPSTREAM_RESOLVED: "Resolve",
    Reason.UPSTREAM_REFUSED: "Reject",
    Reason.CERTIFICATE_EXPIRING: "Observe",
    Reason.FAILURES_HIDDEN: "Observe",
}
"""The `action` of each event: what was done."""

AFTER_THE_LIST = frozenset(
    {Reason.ENDPOINT_ADMITTED, Reason.ENDPOINT_EJECTED, Reason.ENDPOINT_RESTORED}
)
"""Told when a pod's gate was written, while kubelet and EndpointSlice controller are still at work on it."""

ENDINGS = {
    Ending.IGNORES: Reason.APP_IGNORES_SIGTERM,
    Ending.AT_ONCE: Reason.APP_ENDS_AT_ONCE,
    Ending.DRAINS: Reason.APP_DRAINS,
}
"""The reason of the event that tells how an app ends."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What was said of a guard last, so that it is said once."""

    floors: frozenset[str] = frozenset()
    blind: bool = False
    overdue: frozenset[str] = frozenset()
    ungated: bool = False
    recommended: str = ""
    short: bool = False
    sleepless: bool = False
    ending: Ending | None = None
    """What the app does on SIGTERM."""
    risks: frozenset[str] | None = None
    """None before the first evaluation, which only takes over what an earlier controller told."""


class Narrator:
    """Turns evaluations into statuses, gauges and events."""

    def __init__(
        self,
        recorder: EventRecorder,
        statuses: StatusWriter,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._recorder = recorder
        self._statuses = statuses
        self._metrics = metrics
        self._clock = clock
        self._told: dict[ObjectRef, _Told] = {}
        self._accepted: dict[ObjectRef, tuple[ConditionStatus, Reason, str]] = {}
        """What was last told of its acceptance: the status that says so takes a moment to arrive."""
        self._conditions: dict[ObjectRef, frozenset[tuple[str, str, str]]] = {}
        """Type, status and reason, as the gauges have them."""

    def decided(self, entry: GuardEntry, situation: Situation) -> None:
        """A guard in force was evaluated."""
        status = assess(situation)
        self._publish(entry, status)
        self._gauges(entry.ref, status, situation)
        self._news(entry, situation)

    def not_accepted(self, entry: GuardEntry, acceptance: Acceptance) -> None:
        """A guard was evaluated that is not in force."""
        status = assess_rejected(entry.ref, entry.generation, entry.guard, acceptance)
        self._publish(entry, status)
        self._told.pop(entry.ref, None)
        self._forget_gauges(entry.ref)

    def foretold(self, foretold: Foretold) -> None:
        """A change has begun that will open a window."""
        begun, workload = foretold.begun, foretold.workload
        related = None
        if workload is not None:
            ref = workload.workload.ref
            kind = workload.workload.kind
            related = Subject("apps/v1", kind, ref.namespace, ref.name, workload.uid)
        # Each kind of change is a story of its own: a series is written late, and this must be early.
        action = "Predict" + "".join(part.capitalize() for part in begun.change.kind.split("-"))
        self._tell(
            _guard_subject(foretold.entry),
            Reason.WINDOW_PREDICTED,
            foretold.note,
            related,
            action,
            worded=True,
        )

    def window(self, entry: GuardEntry, news: News | Hidden) -> None:
        """A window has opened or closed, or a gateway hides failures."""
        if isinstance(news, Hidden):
            self._tell(_guard_subject(entry), Reason.FAILURES_HIDDEN, news.note)
            return
        # Each window is a story of its own: in a series the second one would come late.
        window = news.window
        if news.kind is Kind.OPENED:
            action, note = f"Open-{window.id}", tell_opened(window)
            self._tell(_guard_subject(entry), Reason.WINDOW_OPENED, note, action=action)
        elif news.kind is Kind.CLOSED:
            action, note = f"Close-{window.id}", tell_closed(window)
            self._tell(_guard_subject(entry), Reason.WINDOW_CLOSED, note, action=action)

    def written(self, order: Order, entries: Iterable[GuardEntry]) -> None:
        """A gate was written on a pod of these guards."""
        decision, pod = order.decision, order.pod
        reason = Reason.NODE_LOST if decision.force_not_ready else decision.reason
        # Admissions are routine: one story a guard, counted, not one Event for each of 500 pods.
        routine = reason is Reason.ENDPOINT_ADMITTED
        related = None if routine else _pod_subject(pod)
        for entry in entries:
            labels = (entry.ref.namespace, entry.ref.name)
            self._metrics.gate_changes.labels(*labels, reason.value).inc()
            failed = reason not in LEFT_AHEAD
            if failed and pod.gate and not decision.gate:
                cause = decision.cause.value if decision.cause else "unknown"
                self._metrics.ejections.labels(*labels, cause).inc()
            note = f"{pod.ref.name} ({pod.ip}): {decision.message}"
            self._tell(_guard_subject(entry), reason, note, related)

    def external(self, entry: GuardEntry, status: GuardStatus) -> None:
        """A guard in force with external upstreams was evaluated."""
        self._publish(entry, status)
        self._endpoint_gauges(entry.ref, status)

    def address_written(self, entry: GuardEntry, decision: Decision) -> None:
        """The list of external upstreams shows a decision; its `uid` is the address."""
        labels = (entry.ref.namespace, entry.ref.name)
        self._metrics.gate_changes.labels(*labels, decision.reason.value).inc()
        if decision.reason is Reason.ENDPOINT_EJECTED:
            cause = decision.cause.value if decision.cause else "unknown"
            self._metrics.ejections.labels(*labels, cause).inc()
        self.tell_of(entry, decision.reason, f"{decision.uid}: {decision.message}")

    def tell_of(self, entry: GuardEntry, reason: Reason, note: str) -> None:
        """Tell an event about a guard."""
        self._tell(_guard_subject(entry), reason, note)

    def forget(self, entry: GuardEntry) -> None:
        """A guard is gone."""
        ref = entry.ref
        self._told.pop(ref, None)
        self._accepted.pop(ref, None)
        self._gauge_conditions(ref, frozenset())
        self._conditions.pop(ref, None)
        self._statuses.forget(ref)
        for metric in (
            self._metrics.probe_results,
            self._metrics.gate_changes,
            self._metrics.ejections,
            self._metrics.windows_predicted,
            self._metrics.gateway_requests,
            self._metrics.gateway_stale_endpoints,
            self._metrics.predictions_scored,
            self._metrics.windows,
            self._metrics.window_seconds,
            self._metrics.window_lost,
            self._metrics.failing_seconds,
            self._metrics.change_window_seconds,
            self._metrics.change_lost,
        ):
            metric.remove_by_labels({"namespace": ref.namespace, "guard": ref.name})
        self._forget_gauges(ref)

    def _forget_gauges(self, ref: ObjectRef) -> None:
        for state in (*_GAUGED, "listed", "ungated"):
            self._forget_gauge(self._metrics.endpoints, ref, state)
        self._forget_gauge(self._metrics.drain_pre_stop, ref)

    def count_conditions(self) -> None:
        """Bring the gauge of guards by condition up to date."""
        self._metrics.guards.clear()
        counts = Counter(c[:2] for conditions in self._conditions.values() for c in conditions)
        for (kind, status), number in counts.items():
            self._metrics.guards.labels(kind, status).set(number)

    def _publish(self, entry: GuardEntry, status: GuardStatus) -> None:
        old = self._statuses.current(entry.ref)
        self._statuses.want(entry.ref, build_status(status, old, self._clock()))
        told = ((c.type.value, c.status.value, c.reason.value) for c in status.conditions)
        self._gauge_conditions(entry.ref, frozenset(told))
        before = next((c for c in parse_conditions(old) if c.type is ConditionType.ACCEPTED), None)
        after = status.conditions[0]
        now = (after.status, after.reason, after.message)
        written = before and (before.status, before.reason, before.message)
        known = self._accepted.get(entry.ref, written)
        self._accepted[entry.ref] = now
        if now == known:
            return
        accepted = after.reason is Reason.ACCEPTED
        reason = Reason.GUARD_ACCEPTED if accepted else Reason.GUARD_NOT_ACCEPTED
        self._tell(_guard_subject(entry), reason, f"{after.reason.value}: {after.message}")

    def _gauge_conditions(self, ref: ObjectRef, now: frozenset[tuple[str, str, str]]) -> None:
        before, self._conditions[ref] = self._conditions.get(ref, frozenset()), now
        for gone in before - now:
            self._forget_gauge(self._metrics.conditions, ref, *gone)
        for known in now - before:
            self._metrics.conditions.labels(ref.namespace, ref.name, *known).set(1)

    def _gauges(self, ref: ObjectRef, status: GuardStatus, situation: Situation) -> None:
        self._endpoint_gauges(ref, status)
        self._metrics.drain_pre_stop.labels(ref.namespace, ref.name).set(situation.advice.pre_stop)

    def _endpoint_gauges(self, ref: ObjectRef, status: GuardStatus) -> None:
        states = Counter(_gauge_state(e.state) for e in status.endpoints)
        counts: EndpointCounts = status.counts
        gauge = self._metrics.endpoints
        for state in _GAUGED:
            gauge.labels(ref.namespace, ref.name, state).set(states[state])
        gauge.labels(ref.namespace, ref.name, "listed").set(counts.listed)
        gauge.labels(ref.namespace, ref.name, "ungated").set(counts.ungated)

    def _forget_gauge(self, gauge: object, ref: ObjectRef, *labels: str) -> None:
        try:
            gauge.remove(ref.namespace, ref.name, *labels)  # type: ignore[attr-defined]  # a Gauge
        except KeyError:
            return

    def _news(self, entry: GuardEntry, situation: Situation) -> None:
        told = self._told.get(entry.ref, _Told())
        outcome = situation.outcome
        overdue = frozenset(a.uid for a in outcome.absences if a.overdue and _kept_out(a.reason))
        now = _Told(
            frozenset(outcome.floors_reached),
            outcome.blind,
            overdue,
            bool(situation.ungated),
            recommendation(situation),
            bool(situation.short),
            situation.sleepless,
            situation.advice.app.ending if situation.advice.app else None,
            frozenset(risk.risk for risk in situation.risks),
        )
        self._told[entry.ref] = now
        self._tell_risks(entry, situation, told.risks)
        self._tell_ending(entry, situation.advice.app, told)
        guard = _guard_subject(entry)
        for floor in sorted(now.floors - told.floors):
            note = f"failing endpoints stay listed: {floor} is at its minHealthyPercent"
            self._tell(guard, Reason.EJECTION_FLOOR_REACHED, note)
        if now.blind and not told.blind:
            self._tell(guard, Reason.OPERATOR_BLIND, REASONS[Reason.OPERATOR_BLIND].note)
        pods = {p.uid: p for p in situation.pods}
        for absence in outcome.absences:
            if absence.uid in overdue - told.overdue and absence.uid in pods:
                pod = pods[absence.uid]
                self._tell(
                    guard, absence.reason, f"{pod.ref.name}: {absence.message}", _pod_subject(pod)
                )
        if now.ungated and not told.ungated:
            self._tell(guard, Reason.PODS_WITHOUT_GATE, ungated_pods(situation))
        if now.short and not told.short:
            self._tell(guard, Reason.PRE_STOP_TOO_SHORT, short_hooks(situation))
        if now.sleepless and not told.sleepless:
            note = f"{REASONS[Reason.SLEEP_NOT_SUPPORTED].note} {situation.advice.reason}"
            self._tell(guard, Reason.SLEEP_NOT_SUPPORTED, note)
        if now.recommended and now.recommended != told.recommended:
            note = (
                f"{situation.advice.reason}; kubectl -n {entry.ref.namespace} patch "
                f"{situation.workload or '<workload>'} --type strategic -p '{now.recommended}'"
            )
            self._tell(guard, Reason.DRAIN_RECOMMENDED, note)

    def _tell_risks(
        self, entry: GuardEntry, situation: Situation, told: frozenset[str] | None
    ) -> None:
        """Only of risks that were not there before: they wait, and need no stream."""
        new = [risk for risk in situation.risks if told is not None and risk.risk not in told]
        if new:
            note = f"{describe_risks(new)}; to mend it: {new[0].remedy}"
            self._tell(_guard_subject(entry), Reason.RISKS_FOUND, note, worded=True)

    def _tell_ending(self, entry: GuardEntry, app: AppShutdown | None, told: _Told) -> None:
        """Not on the first evaluation: then it is what an earlier controller saw, and told."""
        if app is not None and told.risks is not None and app.ending is not told.ending:
            self._tell(_guard_subject(entry), ENDINGS[app.ending], describe(app))

    def _tell(
        self,
        regarding: Subject,
        reason: Reason,
        note: str,
        related: Subject | None = None,
        action: str = "",
        *,
        worded: bool = False,
    ) -> None:
        kind = REASONS[reason].type.value
        done = action or ACTIONS.get(reason, "Decide")
        patient = reason in AFTER_THE_LIST
        self._recorder.tell(
            Event(regarding, kind, reason.value, done, note, related, worded, patient)
        )


_GAUGED = ("serving", "failing", "ejected", "draining", "pending", "unknown")


def _gauge_state(state: EndpointState) -> str:
    if state is EndpointState.KEPT_OUT:
        return "ejected"
    return state.value.lower()


def _kept_out(reason: Reason) -> bool:
    return reason is Reason.ENDPOINT_KEPT_OUT


def _guard_subject(entry: GuardEntry) -> Subject:
    ref = entry.ref
    return Subject(API_VERSION, GUARD_KIND, ref.namespace, ref.name, entry.uid)


def _pod_subject(pod: Pod) -> Subject:
    return Subject("v1", "Pod", pod.ref.namespace, pod.ref.name, pod.uid)
