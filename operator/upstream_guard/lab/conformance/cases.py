"""The failures that are measured: a new one is one row, and an upstream where none fits."""

from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.lab.conformance.model import Case, Source, Speaks

HEALTHY: Final = Case("healthy", "nothing fails", None, Source.HEALTHY)
HEALTHY_TLS: Final = Case(
    "healthy-tls", "nothing fails, over TLS", None, Source.TLS_GOOD, Speaks.TLS, verifies=True
)
"""Both must be 200: else a failure is one of our configuration."""

CASES: Final[tuple[Case, ...]] = (
    HEALTHY,
    HEALTHY_TLS,
    Case("refused", "connection refused", Cause.REFUSED, Source.REFUSE, typical=True, paired=True),
    Case(
        "reset",
        "reset before headers",
        Cause.RESET,
        Source.RESET,
        typical=True,
        paired=True,
    ),
    Case(
        "early-close",
        "closed before headers",
        Cause.EARLY_CLOSE,
        Source.EARLY_CLOSE,
        typical=True,
        paired=True,
    ),
    Case(
        "keepalive-race",
        "closed on a reused connection, GET",
        Cause.KEEPALIVE_RACE,
        Source.RACE,
        kept=True,
    ),
    Case(
        "keepalive-race-post",
        "closed on a reused connection, POST",
        Cause.KEEPALIVE_RACE,
        Source.RACE,
        kept=True,
        method="POST",
        typical=True,
    ),
    Case("reset-in-body", "reset after 16 bytes of the body", Cause.RESET, Source.RESET_IN_BODY),
    Case("cut-body", "closed after 64 KiB of the body", Cause.EARLY_CLOSE, Source.CUT_BODY),
    Case(
        "malformed",
        "NUL in a header",
        Cause.MALFORMED,
        Source.MALFORMED,
        typical=True,
        paired=True,
    ),
    Case("malformed-status", "not HTTP at all", Cause.MALFORMED, Source.MALFORMED_STATUS),
    Case(
        "oversized-header",
        "header of 11 MiB",
        Cause.OVERSIZED_HEADER,
        Source.OVERSIZED_HEADER,
        typical=True,
    ),
    Case(
        "tls-alert",
        "TLS handshake refused",
        Cause.TLS,
        Source.TLS_ALERT,
        Speaks.TLS,
        verifies=True,
        typical=True,
    ),
    Case(
        "tls-untrusted",
        "certificate of an unknown authority",
        Cause.TLS,
        Source.TLS_UNTRUSTED,
        Speaks.TLS,
        verifies=True,
    ),
    Case(
        "tls-expired",
        "certificate expired",
        Cause.TLS,
        Source.TLS_EXPIRED,
        Speaks.TLS,
        verifies=True,
    ),
    Case(
        "tls-name",
        "certificate for another name",
        Cause.TLS,
        Source.TLS_NAME,
        Speaks.TLS,
        verifies=True,
    ),
    Case(
        "tls-to-plain",
        "TLS spoken to a port without",
        Cause.PROTOCOL_MISMATCH,
        Source.HEALTHY,
        Speaks.TLS,
        verifies=True,
    ),
    Case("plain-to-tls", "HTTP spoken to a TLS port", Cause.PROTOCOL_MISMATCH, Source.TLS_GOOD),
    Case(
        "h1-to-h2c",
        "HTTP/1.1 spoken to an h2c port",
        Cause.PROTOCOL_MISMATCH,
        Source.H2_ONLY,
        typical=True,
    ),
    Case(
        "h2c-to-h1",
        "h2c spoken to an HTTP/1.1 port",
        Cause.PROTOCOL_MISMATCH,
        Source.HEALTHY,
        Speaks.H2C,
    ),
    Case("dns", "name does not exist", Cause.DNS, Source.UNKNOWN_NAME, typical=True),
    Case("dns-silent", "name server does not answer", Cause.DNS, Source.SILENT_DNS),
    Case(
        "connect-timeout",
        "connect time-out of 1 s",
        Cause.CONNECT_TIMEOUT,
        Source.DROPS,
        quick=True,
        typical=True,
        paired=True,
    ),
    Case("connect-default", "connect time-out by default", Cause.CONNECT_TIMEOUT, Source.DROPS),
    Case(
        "read-timeout",
        "read time-out of 1 s",
        Cause.READ_TIMEOUT,
        Source.HANG,
        quick=True,
        typical=True,
        paired=True,
    ),
    Case("read-default", "read time-out by default", Cause.READ_TIMEOUT, Source.HANG),
    Case("empty", "empty upstream list", Cause.NO_ENDPOINTS, Source.NOBODY, typical=True),
    Case("app-error", "the app's own 500", Cause.APP_ERROR, Source.ERROR, typical=True),
)

BY_NAME: Final = {case.name: case for case in CASES}
