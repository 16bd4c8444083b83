"""Skipper: polls the API every 3 s; ready and not terminating endpoints."""

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.families import CONNECT_FAILURES, complete, inferred, known, retrying
from upstream_guard.gateways.profile import Profile

_ANSWERS = {
    Cause.REFUSED: known(502),
    Cause.RESET: inferred(503, "or 500"),
    Cause.EARLY_CLOSE: inferred(503, "or 500"),
    Cause.KEEPALIVE_RACE: inferred(503, "or 500"),
    Cause.MALFORMED: inferred(500),
    Cause.OVERSIZED_HEADER: inferred(500),
    Cause.PROTOCOL_MISMATCH: inferred(500),
    Cause.DNS: known(502),
    Cause.CONNECT_TIMEOUT: inferred(502),
    Cause.READ_TIMEOUT: known(504),
    Cause.NO_ENDPOINTS: known(502),
}

BEHAVIOUR = Behaviour(
    # One retry, after a connection that could not be made.
    answers=retrying(complete(_ANSWERS), CONNECT_FAILURES),
    # It closes all idle connections every 20 s.
    keepalive_idle=20.0,
    refused_retries=1,
)

PROFILE = Profile(
    controller="skipper",
    detach_seconds=3.0,
    attach_seconds=3.0,
    evidence=Evidence.BUILTIN,
    source="Skipper's code: polls every 3 s; not measured",
    # Broken responses may be 500 (inferred); an empty list is 502.
    bad_statuses=(500, 502, 503, 504),
    ingress_classes=("skipper",),
    behaviour=BEHAVIOUR,
)
