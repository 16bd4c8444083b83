"""What the situation of a guard with external upstreams amounts to: its status. Pure, and stable in peace."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from upstream_guard.core.admission import Absence
from upstream_guard.core.external import Choice, Refusal, Slot
from upstream_guard.core.health import NEVER_PROBED, Health, Verdict
from upstream_guard.core.model import Guard, ListMode, Service
from upstream_guard.core.observed import ObservedWindow
from upstream_guard.core.reasons import REASONS, ConditionType, Reason
from upstream_guard.core.resolution import UpstreamState
from upstream_guard.core.status import (
    Condition,
    ConditionStatus,
    EndpointState,
    EndpointStatus,
    GuardStatus,
    RouteStatus,
    UpstreamStatus,
    with_open_window,
)
from upstream_guard.core.tuning import GatewayFacts

_BAD = frozenset({EndpointState.FAILING, EndpointState.EJECTED, EndpointState.KEPT_OUT})

BLIND: Final = (
    "No address at all is seen serving, so the operator distrusts its own probes and ejects nothing: check "
    "whether it may connect, and protocol, port and path of the probe."
)
_NEVER_SEEN: Final = (
    "the probe has never succeeded on any address, so nothing is ejected: correct spec.probe, or let the "
    "operator through the firewall"
)


@dataclass(frozen=True, slots=True)
class ExternalSituation:
    """One guard in force with external upstreams, and everything that its status tells of.

    Attributes:
        guard: The guard.
        service: Its Service.
        choice: Who is listed, as just decided.
        healths: By key of the address.
        listed: Keys of the addresses that the EndpointSlices show as ready.
        upstreams: How each upstream's resolution stands, by its key, with what DNS said.
        refusals: Names and addresses that are not possible.
        gateways: The gateways in front.
        routes: The ways through them that the operator asks.
        certificates: The earliest end of the certificates, by upstream, Unix seconds.
        unresolved: Why some address cannot be probed; empty where all can.
        service_served: Some address was once seen serving.
        windows: As they were last told, newest first.
    """

    guard: Guard
    service: Service
    choice: Choice
    healths: Mapping[str, Health]
    listed: frozenset[str]
    upstreams: Mapping[str, tuple[UpstreamState, str]]
    refusals: tuple[Refusal, ...] = ()
    gateways: tuple[GatewayFacts, ...] = ()
    routes: tuple[RouteStatus, ...] = ()
    certificates: Mapping[str, float] = field(default_factory=dict)
    unresolved: str = ""
    service_served: bool = False
    windows: tuple[ObservedWindow, ...] = ()


def assess_external(situation: ExternalSituation, now: float) -> GuardStatus:
    """The status of a guard in force with external upstreams."""
    guard = situation.guard
    absences = {a.uid: a for a in situation.choice.outcome.absences}
    endpoints = tuple(
        _endpoint(slot, situation, absences.get(key))
        for key, slot in sorted(situation.choice.slots.items())
    )
    upstreams = tuple(_upstream(upstream.key, situation) for upstream in guard.upstreams)
    section = "" if guard.section is None else f":{guard.section}"
    return GuardStatus(
        guard.generation,
        f"{guard.service}{section}",
        (
            _condition(
                guard,
                ConditionType.ACCEPTED,
                ConditionStatus.TRUE,
                Reason.ACCEPTED,
                f"publishes external upstreams as Service {guard.service_ref}",
            ),
            _programmed(situation),
            _healthy(situation, endpoints),
            _at_risk(situation, upstreams, now),
        ),
        endpoints,
        situation.gateways,
        routes=situation.routes,
        upstreams=upstreams,
        windows=situation.windows,
    )


def _condition(
    guard: Guard, kind: ConditionType, status: ConditionStatus, reason: Reason, message: str
) -> Condition:
    return Condition(kind, status, reason, message or REASONS[reason].note, guard.generation)


def _endpoint(slot: Slot, situation: ExternalSituation, absence: Absence | None) -> EndpointStatus:
    key = slot.wanted.key
    health = situation.healths.get(key, NEVER_PROBED)
    state = _state(slot, health, absence, situation.choice.active)
    failing = health.cause is not None and health.verdict is not Verdict.SERVING
    return EndpointStatus(
        pod="",
        address=key,
        state=state,
        listed=key in situation.listed,
        gated=True,
        cause=health.cause if failing else None,
        detail=health.detail if failing else "",
    )


def _state(slot: Slot, health: Health, absence: Absence | None, active: int) -> EndpointState:
    if slot.left_at:
        return EndpointState.DRAINING
    if slot.wanted.priority != active and health.verdict is not Verdict.FAILING:
        return EndpointState.STANDBY
    if absence is not None:
        if absence.reason is Reason.ENDPOINT_EJECTED:
            return EndpointState.EJECTED
        return EndpointState.KEPT_OUT if absence.overdue else EndpointState.PENDING
    if health.verdict is Verdict.FAILING:
        return EndpointState.FAILING if slot.listed else EndpointState.EJECTED
    return EndpointState.SERVING if health.verdict is Verdict.SERVING else EndpointState.UNKNOWN


def _upstream(key: str, situation: ExternalSituation) -> UpstreamStatus:
    state, said = situation.upstreams.get(key, (UpstreamState.PENDING, ""))
    current = [s for s in situation.choice.slots.values() if not s.left_at]
    number = sum(slot.wanted.upstream == key for slot in current)
    refused = [refusal for refusal in situation.refusals if refusal.upstream == key]
    if refused:
        said = describe_refusals(refused)
        state = state if number else UpstreamState.REFUSED
    return UpstreamStatus(key, state, number, said, situation.certificates.get(key, 0.0))


def describe_refusals(refusals: list[Refusal] | tuple[Refusal, ...]) -> str:
    """Refusals in one sentence: the first, and how many more there are; at least one is given."""
    others = len(refusals) - 1
    return refusals[0].why + (f"; and {others} more" if others else "")


def _programmed(situation: ExternalSituation) -> Condition:
    reason, message = _programmed_reason(situation)
    status = ConditionStatus.TRUE if reason is Reason.PROGRAMMED else ConditionStatus.FALSE
    return _condition(situation.guard, ConditionType.PROGRAMMED, status, reason, message)


def _programmed_reason(situation: ExternalSituation) -> tuple[Reason, str]:
    if situation.guard.upstream_list.mode is ListMode.OBSERVE:
        return Reason.OBSERVING, ""
    if situation.refusals:
        return Reason.NOT_ALLOWED, describe_refusals(situation.refusals)
    if situation.choice.outcome.blind:
        return Reason.BLIND, BLIND
    return Reason.PROGRAMMED, ""


def _healthy(situation: ExternalSituation, endpoints: tuple[EndpointStatus, ...]) -> Condition:
    status, reason, message = with_open_window(
        _health_reason(situation, endpoints), situation.windows
    )
    return _condition(situation.guard, ConditionType.HEALTHY, status, reason, message)


def _health_reason(
    situation: ExternalSituation, endpoints: tuple[EndpointStatus, ...]
) -> tuple[ConditionStatus, Reason, str]:
    states = [e.state for e in endpoints]
    if not states:
        words = "no address of spec.upstreams is known and allowed; see status.upstreams"
        return ConditionStatus.FALSE, Reason.NO_ENDPOINTS, words
    if situation.unresolved:
        return ConditionStatus.UNKNOWN, Reason.PROBE_UNRESOLVED, situation.unresolved
    failing = sorted(e.address for e in endpoints if e.state in _BAD)
    if failing:
        reason, words = _failing_reason(situation, failing, len(states))
        return ConditionStatus.FALSE, reason, words
    if EndpointState.SERVING in states:
        return ConditionStatus.TRUE, Reason.ALL_SERVING, ""
    return ConditionStatus.UNKNOWN, Reason.PENDING, "Not every address has been probed yet."


def _failing_reason(
    situation: ExternalSituation, failing: list[str], total: int
) -> tuple[Reason, str]:
    words = f"{len(failing)} of {total} addresses do not serve: {', '.join(failing[:5])}"
    if not situation.service_served:
        return Reason.PROBE_NEVER_SUCCEEDED, f"{words}; {_NEVER_SEEN}"
    if situation.choice.outcome.floors_reached:
        return Reason.FLOOR_REACHED, f"{words}; the floor of minHealthyPercent is reached"
    return Reason.ENDPOINTS_FAILING, words


def _at_risk(
    situation: ExternalSituation, upstreams: tuple[UpstreamStatus, ...], now: float
) -> Condition:
    reason, message = _risk(situation, upstreams, now)
    status = ConditionStatus.FALSE if reason is Reason.NO_RISK else ConditionStatus.TRUE
    return _condition(situation.guard, ConditionType.AT_RISK, status, reason, message)


def _risk(
    situation: ExternalSituation, upstreams: tuple[UpstreamStatus, ...], now: float
) -> tuple[Reason, str]:
    ending = describe_certificates(situation, now)
    held = [u for u in upstreams if u.state is UpstreamState.LAST_KNOWN_GOOD]
    told = [describe_unresolved(u) for u in held]
    if ending:
        return Reason.CERTIFICATE_EXPIRES, "; ".join([*ending, *told])
    if told:
        return Reason.LAST_KNOWN_GOOD, "; ".join(told)
    return Reason.NO_RISK, ""


def describe_unresolved(upstream: UpstreamStatus) -> str:
    """What is to be said of an upstream that DNS does not answer for."""
    said = f": {upstream.message}" if upstream.message else ""
    if upstream.addresses:
        kept = f"its {upstream.addresses} last known good addresses stay"
        return f"{upstream.upstream} does not resolve{said}; {kept}"
    return f"{upstream.upstream} does not resolve{said}; no address of it is known"


def describe_certificates(situation: ExternalSituation, now: float) -> tuple[str, ...]:
    """What is to be said of certificates that end within `tls.warnBefore`, or have ended."""
    return tuple(
        _describe_end(key, end, now)
        for key, end, warn_before in _certificates(situation)
        if end - now <= warn_before
    )


def describe_ended(situation: ExternalSituation, now: float) -> tuple[str, ...]:
    """The same of certificates that have ended."""
    return tuple(
        _describe_end(key, end, now) for key, end, _ in _certificates(situation) if end <= now
    )


def _certificates(situation: ExternalSituation) -> Iterator[tuple[str, float, float]]:
    """Upstream, end of its certificate, and how long before that it is spoken of."""
    for upstream in situation.guard.upstreams:
        end = situation.certificates.get(upstream.key, 0.0)
        if upstream.tls is not None and end:
            yield upstream.key, end, upstream.tls.warn_before


def _describe_end(key: str, end: float, now: float) -> str:
    when = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"the certificate of {key} {'ends' if end > now else 'ended'} on {when}"
