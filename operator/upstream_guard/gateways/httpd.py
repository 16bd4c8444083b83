"""A plain Apache httpd (mod_proxy) that sends to the Service's ClusterIP."""

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.gateways.families import complete, known
from upstream_guard.gateways.profile import through_cluster_ip

_NO_STATUS_LINE = known(502, "or a kept-alive client connection is closed without a status")

_ANSWERS = {
    # The only worker is the ClusterIP, so one refused connection fails every request for a minute.
    Cause.REFUSED: known(503, "the worker is skipped for `retry` seconds, 60 by default"),
    Cause.RESET: _NO_STATUS_LINE,
    Cause.EARLY_CLOSE: _NO_STATUS_LINE,
    Cause.KEEPALIVE_RACE: _NO_STATUS_LINE,
    Cause.DNS: known(500),
    Cause.OVERLOAD: known(503, "every worker is busy"),
}

PROFILE = through_cluster_ip(
    "httpd",
    Behaviour(
        answers=complete(_ANSWERS),
        # Documentation: `ProxyTimeout` is `Timeout`, 60 s, for both.
        connect_timeout=60.0,
        read_timeout=60.0,
    ),
)
