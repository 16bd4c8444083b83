"""Tells users of external upstreams: status and gauges by the narrator, and events of what changed."""

from collections.abc import Iterable
from dataclasses import dataclass

from upstream_guard.controller.guards import GuardEntry
from upstream_guard.controller.narrator import Narrator
from upstream_guard.core.admission import Absence, Decision
from upstream_guard.core.external_assessment import (
    BLIND,
    ExternalSituation,
    describe_certificates,
    describe_refusals,
    describe_unresolved,
)
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.reasons import ConditionType, Reason
from upstream_guard.core.resolution import UpstreamState
from upstream_guard.core.status import GuardStatus
from upstream_guard.metrics import Metrics
from upstream_guard.resources.status import parse_conditions, parse_upstream_states

_UNWELL = frozenset({UpstreamState.LAST_KNOWN_GOOD, UpstreamState.UNRESOLVED})


@dataclass(frozen=True, slots=True)
class _Told:
    """What was said of a guard last, so that it is said once; an earlier controller's words count."""

    states: dict[str, UpstreamState]
    refused: str
    certificates: frozenset[str]
    earlier: str = ""
    """What the status said of risks before this controller."""
    floors: frozenset[str] = frozenset()
    blind: bool = False
    overdue: frozenset[str] = frozenset()


class ExternalNews:
    """Turns evaluations of guards with external upstreams into statuses, gauges and events."""

    def __init__(self, narrator: Narrator, metrics: Metrics) -> None:
        self._narrator = narrator
        self._metrics = metrics
        self._told: dict[ObjectRef, _Told] = {}

    def decided(
        self, entry: GuardEntry, situation: ExternalSituation, status: GuardStatus, now: float
    ) -> None:
        """A guard in force with external upstreams was evaluated."""
        told = self._told.get(entry.ref) or _told_before(entry)
        self._narrator.external(entry, status)
        self._gauges(entry.ref, situation, status)
        states = self._tell_states(entry, status, told)
        refused = describe_refusals(situation.refusals) if situation.refusals else ""
        if refused and refused != told.refused:
            self._narrator.tell_of(entry, Reason.UPSTREAM_REFUSED, refused)
        ending = frozenset(describe_certificates(situation, now))
        for sentence in sorted(ending - told.certificates):
            if sentence not in told.earlier:
                self._narrator.tell_of(entry, Reason.CERTIFICATE_EXPIRING, sentence)
        outcome = situation.choice.outcome
        overdue = {a.uid: a for a in outcome.absences if a.overdue and _kept_out(a)}
        self._told[entry.ref] = _Told(
            states,
            refused,
            ending | told.certificates,
            told.earlier,
            frozenset(outcome.floors_reached),
            outcome.blind,
            frozenset(overdue),
        )
        if outcome.floors_reached and not told.floors:
            note = "failing addresses stay listed: the Service is at its minHealthyPercent"
            self._narrator.tell_of(entry, Reason.EJECTION_FLOOR_REACHED, note)
        if outcome.blind and not told.blind:
            self._narrator.tell_of(entry, Reason.OPERATOR_BLIND, BLIND)
        for uid in sorted(overdue.keys() - told.overdue):
            self._narrator.tell_of(
                entry, Reason.ENDPOINT_KEPT_OUT, f"{uid}: {overdue[uid].message}"
            )

    def written(self, entry: GuardEntry, decisions: Iterable[Decision]) -> None:
        """The slices of a guard show these decisions now."""
        for decision in decisions:
            self._narrator.address_written(entry, decision)

    def forget(self, ref: ObjectRef) -> None:
        """A guard is gone, or no longer in force."""
        self._told.pop(ref, None)
        labels = {"namespace": ref.namespace, "guard": ref.name}
        self._metrics.dns_last_known_good.remove_by_labels(labels)
        self._metrics.certificate_expiry.remove_by_labels(labels)

    def _tell_states(
        self, entry: GuardEntry, status: GuardStatus, told: _Told
    ) -> dict[str, UpstreamState]:
        states: dict[str, UpstreamState] = {}
        for upstream in status.upstreams:
            before = told.states.get(upstream.upstream)
            # What is not yet known is no news.
            pending = upstream.state is UpstreamState.PENDING and before is not None
            after = before if pending and before is not None else upstream.state
            states[upstream.upstream] = after
            if after in _UNWELL and before not in _UNWELL:
                note = describe_unresolved(upstream)
                self._narrator.tell_of(entry, Reason.UPSTREAM_UNRESOLVED, note)
            if after is UpstreamState.RESOLVED and before in _UNWELL:
                note = f"{upstream.upstream} resolves again: {upstream.addresses} addresses"
                self._narrator.tell_of(entry, Reason.UPSTREAM_RESOLVED, note)
        return states

    def _gauges(self, ref: ObjectRef, situation: ExternalSituation, status: GuardStatus) -> None:
        held = sum(u.state is UpstreamState.LAST_KNOWN_GOOD for u in status.upstreams)
        self._metrics.dns_last_known_good.labels(ref.namespace, ref.name).set(held)
        for upstream, end in situation.certificates.items():
            self._metrics.certificate_expiry.labels(ref.namespace, ref.name, upstream).set(end)


def _kept_out(absence: Absence) -> bool:
    return absence.reason is Reason.ENDPOINT_KEPT_OUT


def _told_before(entry: GuardEntry) -> _Told:
    """What an earlier controller said, by the status that it left."""
    conditions = {c.type: c for c in parse_conditions(entry.status)}
    programmed = conditions.get(ConditionType.PROGRAMMED)
    risk = conditions.get(ConditionType.AT_RISK)
    refused = programmed is not None and programmed.reason is Reason.NOT_ALLOWED
    return _Told(
        parse_upstream_states(entry.status),
        programmed.message if programmed and refused else "",
        frozenset(),
        risk.message if risk else "",
    )
