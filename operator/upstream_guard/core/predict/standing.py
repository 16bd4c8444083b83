"""Windows that need no play-through: what is wrong from the moment it is applied, or at a known hour."""

import math
from collections.abc import Sequence
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.sentences import tell
from upstream_guard.core.predict.state import Change, ChangeKind, State
from upstream_guard.core.predict.traffic import HORIZON
from upstream_guard.core.predict.window import Finding, Scope, Severity, Window
from upstream_guard.core.tuning import Evidence

GATEWAY_OUTAGE: Final = Estimate(
    0.5, 3.0, 10.0, Evidence.ASSUMED, "a proxy that starts again within 0.5 to 10 s is assumed"
)


def standing(
    state: State, gateway: Gateway, change: Change, facts: Facts, findings: Sequence[Finding]
) -> tuple[Window, ...] | None:
    """The windows of a change that moves no pod; None for those that have to be played through."""
    match change.kind:
        case ChangeKind.EDIT:
            return tuple(
                _endless(gateway, change, facts, finding, gateway.attach)
                for finding in findings
                if finding.severity is Severity.ERROR and not finding.changes
            )
        case ChangeKind.CERTIFICATE_EXPIRY:
            return _expiry(state, gateway, change, facts)
        case ChangeKind.GATEWAY_RESTART:
            return (_restart(gateway, change, facts),)
    return None


def _endless(
    gateway: Gateway, change: Change, facts: Facts, finding: Finding, start: Estimate
) -> Window:
    """Open until somebody acts; the requests of the first hour are counted."""
    answer = gateway.answer(finding.cause)
    lost = Estimate.exactly(facts.rate * HORIZON, facts.rate_evidence)
    window = Window(
        change=change.kind,
        cause=finding.cause,
        risk=finding.risk,
        start=start,
        duration=Estimate(math.inf, math.inf, math.inf),
        share=1.0,
        lost=lost,
        probability=1.0,
        status=answer.status,
        status_note=answer.note,
        scope=Scope.SERVICE,
        evidence=answer.evidence,
        basis="the objects as they are written",
        gateway=gateway.text,
        message="",
        remedy=finding.remedy,
        no_remedy=finding.no_remedy,
    )
    return tell(window, facts)


def _expiry(state: State, gateway: Gateway, change: Change, facts: Facts) -> tuple[Window, ...]:
    """Only where the gateway speaks TLS to the pods, and only at a known hour."""
    if change.expires_in is None or not any(route.backend_tls for route in state.routes):
        return ()
    workload = state.workload
    kind, ref = (workload.kind, workload.ref) if workload else ("Service", state.service.ref)
    finding = Finding(
        risk="certificate-expiry",
        severity=Severity.ERROR,
        kind=kind,
        ref=ref,
        path="",
        message="the certificate that the pods show the gateway expires",
        cause=Cause.TLS,
        no_remedy="renew the certificate: a patch cannot",
    )
    start = Estimate.exactly(max(0.0, change.expires_in), Evidence.MEASURED)
    return (_endless(gateway, change, facts, finding, start),)


def _restart(gateway: Gateway, change: Change, facts: Facts) -> Window:
    """A single gateway that is down refuses everybody; how many replicas it has is not known."""
    lost = GATEWAY_OUTAGE
    window = Window(
        change=change.kind,
        cause=Cause.REFUSED,
        risk="gateway-restart",
        start=Estimate.exactly(0.0, Evidence.ASSUMED),
        duration=GATEWAY_OUTAGE,
        share=1.0,
        lost=Estimate(lost.low * facts.rate, lost.value * facts.rate, lost.high * facts.rate),
        probability=0.5,
        status=0,
        status_note="connection refused by the gateway itself",
        scope=Scope.SERVICE,
        evidence=Evidence.ASSUMED,
        basis=GATEWAY_OUTAGE.source,
        gateway=gateway.text,
        message="",
        no_remedy="run the gateway with two replicas and a preStop hook of its own",
    )
    return tell(window, facts)
