"""What annotations of an Ingress or Service tell a gateway about its connections to pods.

The names are those of each controller's documentation: ingress-nginx and F5 (nginx), haproxy-ingress
and haproxytech (HAProxy), Traefik, Contour, the AWS Load Balancer Controller.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from upstream_guard.resources.manifests.reading import seconds

_PROTOCOLS: Final = (
    "nginx.ingress.kubernetes.io/backend-protocol",
    "haproxy-ingress.github.io/backend-protocol",
    "ingress.kubernetes.io/backend-protocol",
    "ingress.kubernetes.io/protocol",
    "alb.ingress.kubernetes.io/backend-protocol",
    "alb.ingress.kubernetes.io/backend-protocol-version",
    "traefik.ingress.kubernetes.io/service.serversscheme",
)
_TLS_PROTOCOLS: Final = frozenset({"HTTPS", "GRPCS", "H1-SSL", "H2-SSL"})
_GRPC_PROTOCOLS: Final = frozenset({"GRPC", "GRPCS"})
_TLS_SWITCHES: Final = (
    "haproxy.org/server-ssl",
    "haproxy-ingress.github.io/secure-backends",
    "ingress.kubernetes.io/secure-backends",
)
_STICKY_SWITCHES: Final = (
    "traefik.ingress.kubernetes.io/service.sticky.cookie",
    "traefik.ingress.kubernetes.io/affinity",
)
_STICKY_TYPES: Final = (
    "nginx.ingress.kubernetes.io/affinity",
    "haproxy-ingress.github.io/affinity",
    "ingress.kubernetes.io/affinity",
)
_STICKY_NAMES: Final = ("haproxy.org/cookie-persistence", "nginx.com/sticky-cookie-services")
_ALB_ATTRIBUTES: Final = "alb.ingress.kubernetes.io/target-group-attributes"
_F5_GRPC: Final = "nginx.org/grpc-services"
_F5_TLS: Final = "nginx.org/ssl-services"

_SECOND: Final = 1.0
_MILLISECOND: Final = 0.001
_TIMEOUTS: Final = (
    ("nginx.ingress.kubernetes.io/proxy-read-timeout", _SECOND),
    ("nginx.org/proxy-read-timeout", _SECOND),
    ("haproxy-ingress.github.io/timeout-server", _MILLISECOND),
    ("ingress.kubernetes.io/timeout-server", _MILLISECOND),
    ("haproxy.org/timeout-server", _MILLISECOND),
    ("projectcontour.io/response-timeout", _SECOND),
)
"""With what a number without a unit counts: nginx's seconds, HAProxy's milliseconds."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What the annotations say.

    Attributes:
        grpc: The backends speak gRPC.
        tls: The backends speak TLS.
        sticky: A client stays with one pod.
        timeout: Seconds to wait for a response; None where not said.
    """

    grpc: bool = False
    tls: bool = False
    sticky: bool = False
    timeout: float | None = None


NO_HINTS: Final = Hints()


def hints_of(annotations: Mapping[str, str]) -> Hints:
    """Read the annotations of one object."""
    if not annotations:
        return NO_HINTS
    protocols = {annotations.get(name, "").upper() for name in _PROTOCOLS}
    timeouts = (seconds(annotations.get(name), bare) for name, bare in _TIMEOUTS)
    return Hints(
        grpc=bool(protocols & _GRPC_PROTOCOLS) or bool(annotations.get(_F5_GRPC)),
        tls=bool(protocols & _TLS_PROTOCOLS)
        or bool(annotations.get(_F5_TLS))
        or any(_is_on(annotations, _TLS_SWITCHES)),
        sticky=any(_sticky(annotations)),
        timeout=next((timeout for timeout in timeouts if timeout), None),
    )


def _is_on(annotations: Mapping[str, str], names: tuple[str, ...]) -> Iterator[bool]:
    return (annotations.get(name, "").lower() == "true" for name in names)


def _sticky(annotations: Mapping[str, str]) -> Iterator[bool]:
    yield from _is_on(annotations, _STICKY_SWITCHES)
    yield from (annotations.get(name) == "cookie" for name in _STICKY_TYPES)
    yield from (bool(annotations.get(name)) for name in _STICKY_NAMES)
    yield "stickiness.enabled=true" in annotations.get(_ALB_ATTRIBUTES, "").replace(" ", "")
