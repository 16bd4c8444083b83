"""The tables of the classifier: what each piece of evidence weighs for each cause, and where that is from.

Weights are natural logarithms of likelihood ratios (see `classify`): 4 is some fifty times likelier than
under a cause that says nothing of it, -2 about a seventh. A cause that is not in a row has 0 there.
Unless a row says otherwise, weights are judgements, held to the right order of size, and checked by the
cases in tests/core/test_classify.py and by the fault matrix on real gateways.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import Failure

Row = Mapping[Cause, float]

PRIORS: Final[Row] = dict.fromkeys(Cause, 0.0) | {
    Cause.RESET: -0.2,
    Cause.MALFORMED: -0.7,
    Cause.OVERSIZED_HEADER: -1.0,
    Cause.PROTOCOL_MISMATCH: -1.0,
    Cause.TLS: -0.7,
    Cause.DNS: -1.2,
    Cause.UNREACHABLE: -1.0,
    Cause.BLOCKED: -0.7,
    Cause.STALE_UPSTREAM: -0.5,
    Cause.OVERLOAD: -0.7,
    Cause.KEEPALIVE_RACE: -1.5,
    Cause.GATEWAY_DOWN: -0.5,
    Cause.APP_ERROR: -0.3,
}
"""How common causes are before anything is seen: published reports (FACTS section 7) are mostly of pods
that stop, start or crash; the rest is rarer by a factor of two to four."""

_CONNECTED: Final[Row] = {
    Cause.REFUSED: -1.5,
    Cause.CONNECT_TIMEOUT: -1.5,
    Cause.UNREACHABLE: -1.5,
    Cause.STALE_UPSTREAM: -1.0,
}
"""The operator's own connection to a listed endpoint came about, and it failed later: a gateway that counts failed
connections to it means a handshake."""

DIRECT: Final[Mapping[Cause, Row]] = {
    Cause.REFUSED: {Cause.REFUSED: 6.0, Cause.BLOCKED: 0.5},
    Cause.RESET: {Cause.RESET: 6.0, Cause.EARLY_CLOSE: 2.0, Cause.OVERLOAD: 0.5},
    Cause.EARLY_CLOSE: {Cause.EARLY_CLOSE: 6.0, Cause.RESET: 2.0, Cause.PROTOCOL_MISMATCH: 0.5},
    Cause.KEEPALIVE_RACE: {Cause.KEEPALIVE_RACE: 6.0, Cause.EARLY_CLOSE: 1.5},
    Cause.MALFORMED: {Cause.MALFORMED: 6.0, Cause.PROTOCOL_MISMATCH: 1.5},
    Cause.OVERSIZED_HEADER: {Cause.OVERSIZED_HEADER: 6.0, Cause.MALFORMED: 0.5},
    Cause.CONNECT_TIMEOUT: {
        Cause.CONNECT_TIMEOUT: 6.0, Cause.BLOCKED: 2.5, Cause.UNREACHABLE: 2.5, Cause.OVERLOAD: 1.5,
    },
    Cause.READ_TIMEOUT: {Cause.READ_TIMEOUT: 6.0, Cause.OVERLOAD: 2.0, Cause.BLOCKED: 0.5},
    Cause.UNREACHABLE: {
        Cause.UNREACHABLE: 6.0, Cause.CONNECT_TIMEOUT: 2.0, Cause.BLOCKED: 2.0,
    },
    Cause.DNS: {Cause.DNS: 6.0},
    Cause.TLS: {**_CONNECTED, Cause.TLS: 6.0, Cause.PROTOCOL_MISMATCH: 1.0},
    Cause.PROTOCOL_MISMATCH: {
        **_CONNECTED, Cause.PROTOCOL_MISMATCH: 6.0, Cause.TLS: 1.0, Cause.MALFORMED: 1.0,
    },
    Cause.BLOCKED: {Cause.BLOCKED: 6.0, Cause.UNREACHABLE: 1.0},
    Cause.APP_ERROR: {Cause.APP_ERROR: 6.0, Cause.OVERLOAD: 1.0},
}  # fmt: skip
"""By how a listed endpoint failed when the operator asked it itself.

The probe tells causes apart on the wire (probes/), so the diagonal dominates: a hundred
answers at the gateway that its profile does not expect weigh less (at most 5.6). The rest: the same accident
may be met a packet earlier or later (reset or close, SYN or request unanswered), a firewall may drop or
refuse, and a full backlog drops SYNs (Linux, `tcp_abort_on_overflow` off)."""

TOLD: Final[Row] = {Cause.DNS: 6.0}
"""By what the operator knows of a cause without having met a failed request: of DNS it has asked itself."""
ASIDE: Final = 4.0
"""The same of any other cause: a certificate's end, an edit that was predicted to fail."""

COUNTED: Final[Mapping[Failure, Row]] = {
    Failure.CONNECT: {
        Cause.REFUSED: 2.0, Cause.STALE_UPSTREAM: 1.5, Cause.UNREACHABLE: 1.5, Cause.TLS: 1.0,
        Cause.PROTOCOL_MISMATCH: 1.0, Cause.BLOCKED: 0.5, Cause.CONNECT_TIMEOUT: 0.5, Cause.DNS: 0.5,
    },
    Failure.CONNECT_TIMEOUT: {
        Cause.CONNECT_TIMEOUT: 2.5, Cause.BLOCKED: 2.5, Cause.UNREACHABLE: 1.5,
        Cause.STALE_UPSTREAM: 1.0,
    },
    Failure.RESPONSE: {
        Cause.EARLY_CLOSE: 2.0, Cause.RESET: 2.0, Cause.KEEPALIVE_RACE: 2.0, Cause.READ_TIMEOUT: 1.0,
        Cause.MALFORMED: 0.5, Cause.OVERSIZED_HEADER: 0.5,
    },
    Failure.PROTOCOL: {
        Cause.MALFORMED: 2.5, Cause.PROTOCOL_MISMATCH: 2.0, Cause.OVERSIZED_HEADER: 2.0,
    },
    Failure.TIMEOUT: {Cause.READ_TIMEOUT: 3.0, Cause.OVERLOAD: 1.0, Cause.BLOCKED: 0.5},
    Failure.EMPTY: {Cause.NO_ENDPOINTS: 3.5, Cause.DNS: 1.5},
    Failure.OVERFLOW: {Cause.OVERLOAD: 4.0},
}  # fmt: skip
"""By what the gateway counts of its own attempts. Envoy's documentation: a failed TLS handshake counts as a
failed connection; HAProxy's `response_errors` hold both broken and unreadable responses. What a hanging app still
held breaks when it is ended. A retry says that
something failed, not what."""

PHRASES: Final[tuple[tuple[str, Row], ...]] = (
    ("connection refused", {Cause.REFUSED: 3.0, Cause.STALE_UPSTREAM: 2.5}),
    ("delayed connect error", {Cause.REFUSED: 1.0, Cause.STALE_UPSTREAM: 1.0}),
    ("connection reset by peer", {Cause.RESET: 2.5, Cause.KEEPALIVE_RACE: 1.0}),
    ("remote connection failure", {
        Cause.REFUSED: 1.5, Cause.STALE_UPSTREAM: 1.5, Cause.UNREACHABLE: 1.5, Cause.TLS: 1.0,
        Cause.PROTOCOL_MISMATCH: 1.0,
    }),
    ("tls_error", {Cause.TLS: 4.0, Cause.PROTOCOL_MISMATCH: 1.5}),
    ("tls error", {Cause.TLS: 4.0, Cause.PROTOCOL_MISMATCH: 1.5}),
    ("wrong_version_number", {Cause.PROTOCOL_MISMATCH: 4.0}),
    ("certificate", {Cause.TLS: 3.0}),
    ("no route to host", {Cause.UNREACHABLE: 3.0, Cause.STALE_UPSTREAM: 2.0}),
    ("connection timeout", {
        Cause.CONNECT_TIMEOUT: 3.0, Cause.BLOCKED: 3.0, Cause.UNREACHABLE: 1.0,
        Cause.STALE_UPSTREAM: 1.5,
    }),
    ("connection termination", {
        Cause.EARLY_CLOSE: 2.5, Cause.RESET: 2.3, Cause.KEEPALIVE_RACE: 2.3, Cause.READ_TIMEOUT: 1.0,
    }),
    ("remote reset", {Cause.RESET: 2.5, Cause.EARLY_CLOSE: 1.5}),
    ("protocol error", {
        Cause.MALFORMED: 3.0, Cause.PROTOCOL_MISMATCH: 2.5, Cause.OVERSIZED_HEADER: 2.5,
    }),
    ("reset reason: overflow", {Cause.OVERLOAD: 5.0}),
    ("no healthy upstream", {Cause.NO_ENDPOINTS: 4.0, Cause.DNS: 2.0}),
    ("upstream request timeout", {Cause.READ_TIMEOUT: 4.0, Cause.OVERLOAD: 1.0}),
    ("no available server", {Cause.NO_ENDPOINTS: 3.0}),
    ("could not be resolved", {Cause.DNS: 4.0}),
    ("no server is available", {
        Cause.REFUSED: 1.0, Cause.CONNECT_TIMEOUT: 1.0, Cause.NO_ENDPOINTS: 1.0, Cause.BLOCKED: 1.0,
        Cause.STALE_UPSTREAM: 1.0, Cause.OVERLOAD: 0.5, Cause.APP_ERROR: -2.0,
    }),
    ("invalid or incomplete response", {
        Cause.RESET: 1.0, Cause.EARLY_CLOSE: 1.0, Cause.MALFORMED: 1.0,
        Cause.OVERSIZED_HEADER: 1.0, Cause.PROTOCOL_MISMATCH: 1.0, Cause.READ_TIMEOUT: 0.5,
        Cause.APP_ERROR: -2.0,
    }),
    ("didn't respond in time", {Cause.READ_TIMEOUT: 2.0, Cause.APP_ERROR: -2.0}),
)  # fmt: skip
"""By what a gateway writes into the body of its own error page, in lower case.

Envoy: `Http::Utility::resetReasonToString` and the router's local replies; the transport's own reason
follows (`delayed connect error: Connection refused`, `TLS_error:|…:CERTIFICATE_VERIFY_FAILED`). HAProxy: its
built-in error files for 502, 503, 504. Traefik: `no available server`."""

BY_RFC: Final[Mapping[Cause, Mapping[int, float]]] = {
    Cause.REFUSED: {502: 0.5, 503: 0.4},
    Cause.RESET: {502: 0.7, 503: 0.2},
    Cause.EARLY_CLOSE: {502: 0.7, 503: 0.2},
    Cause.KEEPALIVE_RACE: {502: 0.6, 503: 0.2},
    Cause.MALFORMED: {502: 0.8, 500: 0.1},
    Cause.OVERSIZED_HEADER: {502: 0.8, 500: 0.1},
    Cause.CONNECT_TIMEOUT: {504: 0.5, 503: 0.3, 502: 0.2},
    Cause.READ_TIMEOUT: {504: 0.9},
    Cause.UNREACHABLE: {502: 0.4, 503: 0.4, 504: 0.1},
    Cause.DNS: {502: 0.4, 503: 0.4},
    Cause.TLS: {502: 0.5, 503: 0.3, 500: 0.1},
    Cause.PROTOCOL_MISMATCH: {502: 0.7, 505: 0.1},
    Cause.BLOCKED: {504: 0.5, 503: 0.3, 502: 0.2},
    Cause.NO_ENDPOINTS: {503: 0.7, 502: 0.2},
    Cause.STALE_UPSTREAM: {502: 0.5, 503: 0.4, 504: 0.1},
    Cause.OVERLOAD: {503: 0.7, 504: 0.2, 502: 0.1},
}
"""Probabilities of a status at a gateway that is not known: RFC 9110 15.6.3 to 15.6.5, and how the known
products (FACTS section 2) divide."""


class Circumstance(StrEnum):
    """Something around the failures that speaks for or against causes."""

    DIRECT_GOOD = "direct-good"
    """Every listed endpoint serves the operator: what stands between gateway and endpoint is left."""
    SAME_PATH_GOOD = "same-path-good"
    """And was asked for the very path that fails at the gateway, or as users ask."""
    JUST_LEFT = "just-left"
    """A pod that served stops."""
    PODS_GO = "pods-go"
    """A change is under way that takes pods away."""
    STALE_SEEN = "stale-seen"
    """The gateway's own list, or its own count, names an address that is not in the list."""
    LIST_EMPTY = "list-empty"
    EMPTY_FOLLOWS = "empty-follows"
    """The list is empty because every endpoint fails: how they fail is why, and the gateway's words are what follows."""
    GATEWAY_EMPTY = "gateway-empty"
    NEIGHBOURS_FAIL = "neighbours-fail"
    """Every other guarded Service behind the gateway fails as well."""
    APP_IDLE_SHORTER = "app-idle-shorter"
    INTERMITTENT = "intermittent"
    """Most requests on the failing route are answered, and no endpoint fails by itself."""
    REUSED_ONLY = "reused-only"
    OTHER_ROUTE_GOOD = "other-route-good"
    """Another route to the same Service is good."""
    APP_HEADER = "app-header"
    """The answer carries a `Server` header that is not the gateway's."""
    FOREIGN_PAGE = "foreign-page"
    """Its body is no error page of the gateway's: the app's, or one that somebody has configured."""


_ENDPOINT_ITSELF: Final[Row] = {
    Cause.REFUSED: -2.5,
    Cause.RESET: -1.5,
    Cause.EARLY_CLOSE: -1.5,
    Cause.MALFORMED: -1.5,
    Cause.OVERSIZED_HEADER: -1.5,
    Cause.CONNECT_TIMEOUT: -2.5,
    Cause.UNREACHABLE: -2.0,
    Cause.READ_TIMEOUT: -1.0,
    Cause.PROTOCOL_MISMATCH: -1.0,
    Cause.TLS: -1.0,
    Cause.NO_ENDPOINTS: -3.0,
    Cause.APP_ERROR: -1.0,
}

CIRCUMSTANCES: Final[Mapping[Circumstance, Row]] = {
    Circumstance.DIRECT_GOOD: {
        **_ENDPOINT_ITSELF, Cause.BLOCKED: 1.0, Cause.STALE_UPSTREAM: 0.5, Cause.KEEPALIVE_RACE: 1.0,
        Cause.OVERLOAD: 0.5,
    },
    Circumstance.SAME_PATH_GOOD: {
        Cause.READ_TIMEOUT: -1.0, Cause.RESET: -1.0, Cause.EARLY_CLOSE: -1.0, Cause.MALFORMED: -1.0,
        Cause.OVERSIZED_HEADER: -1.0, Cause.APP_ERROR: -1.5,
    },
    # FACTS section 8: a plain rollout loses dozens of requests at pods that have stopped.
    Circumstance.JUST_LEFT: {Cause.STALE_UPSTREAM: 2.5},
    Circumstance.PODS_GO: {Cause.STALE_UPSTREAM: 1.0},
    Circumstance.STALE_SEEN: {Cause.STALE_UPSTREAM: 4.0},
    # What the gateway still uses of an empty list is not why users fail: nothing else could serve them.
    Circumstance.LIST_EMPTY: {Cause.NO_ENDPOINTS: 5.0, Cause.STALE_UPSTREAM: -2.5},
    Circumstance.EMPTY_FOLLOWS: {Cause.NO_ENDPOINTS: -20.0, Cause.DNS: -6.0},
    Circumstance.GATEWAY_EMPTY: {Cause.NO_ENDPOINTS: 3.0, Cause.DNS: 1.5},
    Circumstance.NEIGHBOURS_FAIL: {
        Cause.GATEWAY_DOWN: 2.0, Cause.BLOCKED: 1.0, Cause.DNS: 1.0, Cause.OVERLOAD: 0.5,
    },
    # FACTS section 6; RFC 9112 section 9.3 on closing idle connections while a request is sent.
    Circumstance.APP_IDLE_SHORTER: {Cause.KEEPALIVE_RACE: 2.0},
    Circumstance.INTERMITTENT: {
        Cause.KEEPALIVE_RACE: 1.5, Cause.OVERLOAD: 0.5, Cause.STALE_UPSTREAM: 0.5, Cause.BLOCKED: -1.0,
        Cause.DNS: -1.5, Cause.TLS: -1.5, Cause.PROTOCOL_MISMATCH: -1.5, Cause.NO_ENDPOINTS: -2.0,
        Cause.GATEWAY_DOWN: -1.0,
    },
    Circumstance.REUSED_ONLY: {Cause.KEEPALIVE_RACE: 1.0},
    Circumstance.OTHER_ROUTE_GOOD: {
        Cause.BLOCKED: -2.0, Cause.GATEWAY_DOWN: -3.0, Cause.DNS: -1.5, Cause.NO_ENDPOINTS: -3.0,
        Cause.READ_TIMEOUT: 0.5, Cause.APP_ERROR: 0.5,
    },
    Circumstance.APP_HEADER: {Cause.APP_ERROR: 3.0},
    Circumstance.FOREIGN_PAGE: {Cause.APP_ERROR: 2.5},
}  # fmt: skip
