"""A plain Caddy that sends to the Service's ClusterIP."""

import math

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.gateways.caddy_view import ADAPTER
from upstream_guard.gateways.families import (
    APP_ERROR,
    complete,
    known,
    retrying,
    to_cluster_ip,
)
from upstream_guard.gateways.profile import through_cluster_ip

ANSWERS = complete(
    {
        Cause.REFUSED: known(502, "`connection refused`"),
        Cause.RESET: known(502, "`connection reset by peer`"),
        Cause.EARLY_CLOSE: known(502, "`EOF`"),
        Cause.KEEPALIVE_RACE: known(502, "`EOF`; a GET is sent again"),
        Cause.MALFORMED: known(502, "`malformed MIME header line`"),
        Cause.OVERSIZED_HEADER: known(502, "`server response headers exceeded`"),
        Cause.TLS: known(502, "`tls: …`"),
        Cause.PROTOCOL_MISMATCH: known(502, "`malformed HTTP response`"),
        Cause.DNS: known(502, "`lookup …`"),
        Cause.CONNECT_TIMEOUT: known(502, "`i/o timeout`"),
        Cause.READ_TIMEOUT: known(504, "`timeout awaiting response headers`, where one is set"),
        Cause.NO_ENDPOINTS: known(503, "`no upstreams available`"),
        Cause.APP_ERROR: APP_ERROR,
    }
)

PROFILE = through_cluster_ip(
    "caddy",
    Behaviour(
        answers=to_cluster_ip(retrying(ANSWERS, {Cause.KEEPALIVE_RACE})),
        keepalive_idle=120.0,
        reuses=True,
        replays=True,
        # Measured: 3 s to connect, no limit for a response.
        connect_timeout=3.0,
        read_timeout=math.inf,
    ),
    adapter=ADAPTER,
)
