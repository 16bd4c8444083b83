"""The closed list of causes of a 502 window, and what each allows the operator to do.

The names follow DESIGN's vocabulary and appear unchanged as metric labels, in events and in status.
"""

from enum import StrEnum


class Cause(StrEnum):
    """Why a request or a probe failed."""

    REFUSED = "refused"
    """The address answered the SYN with RST: nothing listens there."""
    RESET = "reset"
    """The connection was reset after it was established."""
    EARLY_CLOSE = "early-close"
    """The peer closed in an orderly way before a whole response head (or body) was sent."""
    KEEPALIVE_RACE = "keepalive-race"
    """A reused connection was closed by the app just as a request was sent on it."""
    MALFORMED = "malformed"
    """Bytes came back that are not the protocol spoken."""
    OVERSIZED_HEADER = "oversized-header"
    """The response head is larger than a gateway's usual buffer."""
    CONNECT_TIMEOUT = "connect-timeout"
    """No answer to the SYN within the time-out."""
    READ_TIMEOUT = "read-timeout"
    """Connected, but no whole response within the time-out."""
    UNREACHABLE = "unreachable"
    """The network said so: no route to host or network."""
    DNS = "dns"
    """The name did not resolve."""
    TLS = "tls"
    """The TLS handshake failed."""
    PROTOCOL_MISMATCH = "protocol-mismatch"
    """The peer speaks another protocol (TLS to plain, HTTP/1 to h2c)."""
    BLOCKED = "blocked"
    """A policy or firewall between prober and endpoint."""
    NO_ENDPOINTS = "no-endpoints"
    """The upstream list is empty."""
    STALE_UPSTREAM = "stale-upstream"
    """The gateway still uses an address that has left the list."""
    OVERLOAD = "overload"
    """A connection or pending-request limit was hit."""
    GATEWAY_DOWN = "gateway-down"
    """The gateway itself takes no connection: no upstream was asked at all."""
    APP_ERROR = "app-error"
    """The app itself answered, with a status that says it is not well."""


HARD_CAUSES = frozenset(
    {
        Cause.REFUSED,
        Cause.RESET,
        Cause.EARLY_CLOSE,
        Cause.MALFORMED,
        Cause.OVERSIZED_HEADER,
        Cause.TLS,
        Cause.PROTOCOL_MISMATCH,
        Cause.APP_ERROR,
    }
)
"""Failures that no amount of patience turns into an answer: the endpoint itself said no."""

SLOW_CAUSES = frozenset(
    {Cause.CONNECT_TIMEOUT, Cause.READ_TIMEOUT, Cause.UNREACHABLE, Cause.BLOCKED}
)
"""Silence. It may be the endpoint, the network, overload, or the operator's own blindness."""
