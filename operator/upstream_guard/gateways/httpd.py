"""A plain Apache httpd (mod_proxy) that sends to the Service's ClusterIP."""

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.gateways.families import APP_ERROR, complete, known, to_cluster_ip
from upstream_guard.gateways.profile import through_cluster_ip

_NO_STATUS_LINE = known(502, "`AH01102`")

ANSWERS = complete(
    {
        # A plain worker is tried anew with each request; only a balancer's is skipped for 60 s.
        Cause.REFUSED: known(503, "`AH01114`"),
        Cause.RESET: _NO_STATUS_LINE,
        Cause.EARLY_CLOSE: _NO_STATUS_LINE,
        Cause.KEEPALIVE_RACE: known(0, "`AH01102`; the client's connection is closed"),
        Cause.MALFORMED: known(502, "`AH01106`; what is no HTTP at all is passed on with 200"),
        Cause.OVERSIZED_HEADER: known(502, "`AH10124`"),
        Cause.TLS: known(500, "`AH00898`"),
        Cause.PROTOCOL_MISMATCH: known(502, "`AH01102`; 500 where it speaks TLS to a plain port"),
        Cause.DNS: known(500, "`AH00898`"),
        Cause.CONNECT_TIMEOUT: known(503, "`AH01114`"),
        Cause.READ_TIMEOUT: known(502, "`AH01102`"),
        Cause.NO_ENDPOINTS: known(503, "`AH01170`"),
        Cause.OVERLOAD: known(503, "every worker is busy"),
        Cause.APP_ERROR: APP_ERROR,
    }
)

PROFILE = through_cluster_ip(
    "httpd",
    Behaviour(
        answers=to_cluster_ip(ANSWERS),
        # Measured: `ProxyTimeout` is `Timeout`, 60 s, for both.
        connect_timeout=60.0,
        read_timeout=60.0,
    ),
)
