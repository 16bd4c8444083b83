"""What proxies answer when an upstream fails, by the proxy that products are built on.

A status that was measured, or read in the product's code, is `BUILTIN`. Anything else is `ASSUMED`, and
its note says what it rests on. Those of nginx, HAProxy, Envoy, Caddy and httpd were measured by
`upstream-guard lab conformance` (docs/reference/conformance.md), and a test compares them with it.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Answer
from upstream_guard.core.tuning import Evidence

Answers = Mapping[Cause, Answer]


def known(status: int, words: str = "") -> Answer:
    """Measured, or read in the code."""
    return Answer(status, words, Evidence.BUILTIN)


def documented(status: int, words: str = "") -> Answer:
    """From the product's documentation."""
    return _doubted(status, words, "documented, not tested")


APP_ERROR: Final = known(500, "the app's own status, passed on")


def inferred(status: int, words: str = "") -> Answer:
    """Concluded from how it treats similar failures."""
    return _doubted(status, words, "inferred, not tested")


def remembered(status: int, words: str = "") -> Answer:
    """From experience, without a source at hand."""
    return _doubted(status, words, "from memory, not tested")


def noted(status: int, words: str = "") -> Answer:
    """Reported without saying how it was found out."""
    return _doubted(status, words, "not tested")


def _doubted(status: int, words: str, doubt: str) -> Answer:
    return Answer(status, "; ".join(filter(None, (words, doubt))), Evidence.ASSUMED)


_LIKE: Final[Mapping[Cause, tuple[Cause, str]]] = {
    Cause.UNREACHABLE: (Cause.REFUSED, "as a refused connection"),
    Cause.BLOCKED: (Cause.CONNECT_TIMEOUT, "as a connect time-out where packets are dropped"),
}


def complete(answers: Answers) -> Answers:
    """Add the causes that a proxy cannot tell from another one, and the app's own errors."""
    full = dict(answers)
    for cause, (like, words) in _LIKE.items():
        if like in full:
            full.setdefault(cause, inferred(full[like].status, words))
    if Cause.REFUSED in full:
        full.setdefault(Cause.STALE_UPSTREAM, full[Cause.REFUSED])
    full.setdefault(Cause.APP_ERROR, inferred(500, "the app's own status, passed on"))
    return MappingProxyType(full)


def retrying(answers: Answers, causes: Collection[Cause]) -> Answers:
    """The answers of a gateway that tries another endpoint after these causes by default."""
    return MappingProxyType(
        {cause: replace(a, retried=a.retried or cause in causes) for cause, a in answers.items()}
    )


def to_cluster_ip(answers: Answers) -> Answers:
    """The answers of a proxy whose only upstream address is a ClusterIP.

    Measured with kube-proxy on Kubernetes 1.35: of a Service without endpoints most connections hang,
    the others are refused.
    """
    full = dict(answers)
    full.pop(Cause.NO_ENDPOINTS, None)
    hangs = full.get(Cause.CONNECT_TIMEOUT)
    if hangs is not None:
        words = f"most requests hang until the connect time-out ({hangs.note})"
        refused = full.get(Cause.REFUSED)
        if refused is not None:
            words += f", others are refused: {refused.status}"
        full[Cause.NO_ENDPOINTS] = replace(hangs, note=words, retried=False)
    return MappingProxyType(full)


CONNECT_FAILURES: Final = frozenset(
    {Cause.REFUSED, Cause.UNREACHABLE, Cause.CONNECT_TIMEOUT, Cause.STALE_UPSTREAM}
)
"""No connection came about, so any request can be tried again."""

BROKEN_CONNECTIONS: Final = frozenset({Cause.RESET, Cause.EARLY_CLOSE, Cause.KEEPALIVE_RACE})
"""The request was sent, so only an idempotent one can be tried again."""

_NGINX: Final = complete(
    {
        Cause.REFUSED: known(502, "`connect() failed`"),
        Cause.RESET: known(502, "`recv() failed` or `prematurely closed`"),
        Cause.EARLY_CLOSE: known(502, "`prematurely closed`"),
        Cause.KEEPALIVE_RACE: known(502, "`prematurely closed`, if its one free retry fails too"),
        Cause.MALFORMED: known(502, "`invalid header`; a bad status line is relayed, logged `009`"),
        Cause.OVERSIZED_HEADER: known(502, "`too big header`"),
        Cause.TLS: known(502, "`SSL_do_handshake() failed`"),
        Cause.PROTOCOL_MISMATCH: known(0, "relayed as it came, logged `009`; 502 at a TLS port"),
        Cause.DNS: known(502, "`could not be resolved`"),
        Cause.CONNECT_TIMEOUT: known(504, "`timed out`"),
        Cause.READ_TIMEOUT: known(504, "`timed out`"),
        Cause.NO_ENDPOINTS: known(502, "`no live upstreams`"),
        Cause.APP_ERROR: APP_ERROR,
    }
)

NGINX: Final = retrying(_NGINX, CONNECT_FAILURES | BROKEN_CONNECTIONS)
"""With the pods' addresses as upstreams: `proxy_next_upstream error timeout`.

A read time-out is tried again as well, but the next pod is as slow. Requests that are not idempotent
(POST, PATCH, LOCK) are not tried again once they were sent.
"""

NGINX_TO_CLUSTER_IP: Final = to_cluster_ip(retrying(_NGINX, {Cause.KEEPALIVE_RACE}))
"""With one address there is no next upstream; only a cached connection that breaks is replaced."""

HAPROXY: Final = complete(
    {
        Cause.REFUSED: known(503, "`SC`"),
        Cause.RESET: known(502, "`SH`"),
        Cause.EARLY_CLOSE: known(502, "`SH`"),
        Cause.KEEPALIVE_RACE: known(0, "the client's connection is closed without a status"),
        Cause.MALFORMED: known(502, "`PH`"),
        Cause.OVERSIZED_HEADER: known(502, "`PH`"),
        Cause.TLS: known(503, "`SC`, hangs for its retries of the handshake"),
        Cause.PROTOCOL_MISMATCH: known(
            502,
            "`PH`; 503 `SC` where it speaks h2c to HTTP/1.1, or TLS to plain HTTP, and hangs for its retries",
        ),
        Cause.DNS: known(503, "`SC`"),
        Cause.CONNECT_TIMEOUT: known(503, "`sC`"),
        Cause.READ_TIMEOUT: known(504, "`sH`"),
        Cause.NO_ENDPOINTS: known(503, "`SC`"),
        Cause.APP_ERROR: APP_ERROR,
    }
)
"""Its three retries go to the same server, unless `option redispatch` is set."""

HAPROXY_TO_CLUSTER_IP: Final = to_cluster_ip(retrying(HAPROXY, CONNECT_FAILURES))
"""The same server is a ClusterIP here: each retry is a new connection, and kube-proxy picks again."""

ENVOY_PAGES: Final = ("upstream", "no healthy", "no cluster", "overflow", "timeout", "tls")
"""Its local replies are one line each (`upstream connect error or disconnect/reset before headers. …`, `no healthy
upstream`, `upstream request timeout`); Envoy's code, `Http::Utility::sendLocalReply` and the router."""

HAPROXY_PAGES: Final = ("server", "request", "client", "response")
"""Its built-in error files (`No server is available to handle this request.` and the like)."""

NGINX_PAGES: Final = ("<center>nginx", "nginx/", "openresty", "<h1>50")
"""`ngx_http_special_response.c`."""

ENVOY: Final = complete(
    {
        Cause.REFUSED: known(503, "`UF`"),
        Cause.RESET: known(503, "`UC`"),
        Cause.EARLY_CLOSE: known(503, "`UC`"),
        Cause.KEEPALIVE_RACE: known(503, "`UC`"),
        Cause.MALFORMED: known(502, "`UPE`"),
        Cause.OVERSIZED_HEADER: known(502, "`UPE`"),
        Cause.TLS: known(503, "`UF`"),
        Cause.PROTOCOL_MISMATCH: known(
            502, "`UPE`; 503 `UC` at a TLS port, `UF` where it speaks TLS to a plain one"
        ),
        Cause.DNS: known(503, "`UH`"),
        Cause.CONNECT_TIMEOUT: known(503, "`UF`"),
        Cause.READ_TIMEOUT: known(504, "`UT`"),
        Cause.NO_ENDPOINTS: known(503, "`UH`"),
        Cause.APP_ERROR: APP_ERROR,
        Cause.OVERLOAD: remembered(503, "`UO`"),
    }
)
"""No retries unless configured."""
