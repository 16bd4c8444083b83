"""Traefik: at most one configuration in 2 s (`providersThrottleDuration`)."""

import math

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.families import complete, documented, inferred, known, noted, retrying
from upstream_guard.gateways.profile import Profile
from upstream_guard.gateways.traefik_view import ADAPTER

_ANSWERS = {
    Cause.REFUSED: known(502),
    Cause.RESET: known(502),
    Cause.EARLY_CLOSE: known(502),
    Cause.KEEPALIVE_RACE: documented(502, "unless Go's transport replays it, as it does for GET"),
    Cause.MALFORMED: inferred(500),
    Cause.OVERSIZED_HEADER: inferred(500),
    Cause.TLS: known(500),
    Cause.PROTOCOL_MISMATCH: inferred(500),
    Cause.DNS: inferred(502, "504 on a time-out"),
    Cause.CONNECT_TIMEOUT: known(504),
    Cause.READ_TIMEOUT: known(504),
    Cause.NO_ENDPOINTS: noted(404, "503 with the Gateway API"),
}

BEHAVIOUR = Behaviour(
    answers=retrying(complete(_ANSWERS), {Cause.KEEPALIVE_RACE}),
    keepalive_idle=90.0,
    connect_timeout=30.0,
    # Documentation: `responseHeaderTimeout` is 0 by default.
    read_timeout=math.inf,
)

PROFILE = Profile(
    controller="traefik",
    detach_seconds=2.0,
    attach_seconds=2.0,
    evidence=Evidence.BUILTIN,
    source="Traefik's code: providersThrottleDuration 2 s; not measured",
    # TLS failures are 500, an empty list 503 (Gateway API) or 404 (Ingress); 404 is left out, for it is also
    # the answer to a wrong path.
    bad_statuses=(500, 502, 503, 504),
    ingress_controllers=("traefik.io/*",),
    ingress_classes=("traefik",),
    gateway_controllers=("traefik.io/*",),
    behaviour=BEHAVIOUR,
    adapter=ADAPTER,
)
