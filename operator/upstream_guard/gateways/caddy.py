"""A plain Caddy that sends to the Service's ClusterIP."""

import math

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.gateways.caddy_view import ADAPTER
from upstream_guard.gateways.families import (
    complete,
    documented,
    inferred,
    known,
    retrying,
    to_cluster_ip,
)
from upstream_guard.gateways.profile import through_cluster_ip

_ANSWERS = {
    Cause.REFUSED: known(502),
    Cause.RESET: known(502),
    Cause.EARLY_CLOSE: known(502),
    Cause.KEEPALIVE_RACE: documented(502, "unless Go's transport replays it, as it does for GET"),
    Cause.MALFORMED: inferred(502),
    Cause.OVERSIZED_HEADER: inferred(502),
    Cause.TLS: inferred(502),
    Cause.PROTOCOL_MISMATCH: inferred(502),
    Cause.DNS: inferred(502),
    Cause.CONNECT_TIMEOUT: inferred(502),
    Cause.READ_TIMEOUT: known(504),
    Cause.NO_ENDPOINTS: known(503),
}

PROFILE = through_cluster_ip(
    "caddy",
    Behaviour(
        answers=to_cluster_ip(retrying(complete(_ANSWERS), {Cause.KEEPALIVE_RACE})),
        keepalive_idle=120.0,
        reuses=True,
        replays=True,
        # Documentation: 3 s to connect, no limit for a response.
        connect_timeout=3.0,
        read_timeout=math.inf,
    ),
    adapter=ADAPTER,
)
