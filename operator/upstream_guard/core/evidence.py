"""What the three eyes saw, as values: what windows and their causes are made from. All frozen.

The eyes are direct probes of each endpoint (`model.ProbeResult`), probes of the route through the
gateway (`RouteSample`), and the gateway's own metrics (`GatewayDelta`); what the gateway says of its
upstream list (`UpstreamView`) tells a stale list from a bad endpoint. Times are Unix seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ObjectRef


class Eye(StrEnum):
    """Who saw it."""

    DIRECT = "direct"
    """The operator, at the endpoint itself."""
    ROUTE = "route"
    """The operator, through the gateway."""
    METRICS = "metrics"
    """The gateway, of its users' requests."""


@dataclass(frozen=True, slots=True, order=True)
class RouteKey:
    """One way from users to a guarded Service that can be asked.

    Attributes:
        gateway: `GatewayFacts.name` of the gateway that serves it.
        route: The object that makes it, e.g. `Ingress prod/shop`; empty for a plain gateway.
        host: Host header, and SNI where it is TLS.
        path: Begins with a slash.
        tls: Whether it is asked over TLS.
    """

    gateway: str
    route: str
    host: str
    path: str = "/"
    tls: bool = False


@dataclass(frozen=True, slots=True)
class RouteSample:
    """One request of the operator's through a gateway.

    Attributes:
        sent: When it was sent.
        done: When it ended.
        key: Which way.
        status: What the gateway answered; 0 where no answer came.
        cause: How the connection to the gateway itself failed; None where it answered.
        detail: The gateway's own marker where it sends one (Envoy's `x-envoy-response-flags` or its
            body, say), or what went wrong, at most 200 characters.
        reused: Whether the connection to the gateway had carried a request before.
        server: The `Server` header of the answer, which tells the gateway's own pages from the app's.
    """

    sent: float
    done: float
    key: RouteKey
    status: int
    cause: Cause | None = None
    detail: str = ""
    reused: bool = False
    server: str = ""


@dataclass(frozen=True, slots=True)
class CloserLook:
    """One request of the operator's to an endpoint itself, with host and path as users come through a gateway.

    It tells an app that fails users and not its health check from what stands between gateway and app.

    Attributes:
        at: When it ended.
        address: The endpoint, `10.0.0.7:8080`.
        path: What was asked.
        status: What the app answered; 0 where no answer came.
        cause: How it failed; None where the app answered.
        detail: What went wrong, in words.
    """

    at: float
    address: str
    path: str
    status: int
    cause: Cause | None = None
    detail: str = ""

    @property
    def fault(self) -> Cause | None:
        """Why a user in its place would not have been served; None where he would."""
        if self.cause is not None:
            return self.cause
        return Cause.APP_ERROR if self.status >= 500 else None


@dataclass(frozen=True, slots=True)
class NameLook:
    """One question of the operator's to the cluster's DNS for the Service's name.

    Plain gateways mostly go by it, and where it does not resolve every endpoint is well and none is reached.

    Attributes:
        at: When it ended.
        name: What was asked for, `shop.prod.svc.cluster.local`.
        fault: Why there was no address, in words; empty where there was one.
    """

    at: float
    name: str
    fault: str = ""


class Failure(StrEnum):
    """What a gateway counts of its own attempts at an upstream, whatever its metrics call it."""

    CONNECT = "connect"
    """Refused, unreachable, or a TLS handshake that failed: no connection came about."""
    CONNECT_TIMEOUT = "connect-timeout"
    RESPONSE = "response"
    """The connection broke, or ended, before a whole response."""
    PROTOCOL = "protocol"
    """What came back was not the protocol."""
    TIMEOUT = "timeout"
    """No response in time."""
    EMPTY = "empty"
    """No endpoint to choose from."""
    OVERFLOW = "overflow"
    """A limit of connections or of waiting requests was hit."""
    RETRY = "retry"
    """It tried again: a failure that users may not have seen."""


@dataclass(frozen=True, slots=True)
class GatewayDelta:
    """What a gateway counted of one Service between two looks at its metrics.

    Attributes:
        gateway: `GatewayFacts.name`.
        service: The Service that its upstream stands for.
        since: When it was looked at before.
        until: When it was looked at.
        statuses: Answers by status; where the product tells classes only, under 500, 400 and so on.
        classes_only: Whether `statuses` has classes only.
        failures: Attempts at upstreams that failed, by kind; empty where it counts none.
        endpoint: The endpoint that it is about, `10.0.0.7:8080`; empty for all of them together.
        healthy: Endpoints that it holds usable; None where it does not tell.
        tells_failures: It counts failed attempts, so that none in `failures` means that none failed.
        replica: Address of the gateway's replica that counted; empty for all of them together. What
            replicas counted in the same time adds up.
    """

    gateway: str
    service: ObjectRef
    since: float
    until: float
    statuses: Mapping[int, int]
    classes_only: bool = False
    failures: Mapping[Failure, int] = field(default_factory=dict)
    endpoint: str = ""
    healthy: int | None = None
    replica: str = ""
    tells_failures: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamView:
    """The upstream list that one replica of a gateway holds for one Service.

    Attributes:
        at: When it was read.
        gateway: `GatewayFacts.name`.
        replica: Address of the gateway's replica that was asked.
        service: The Service that it is for.
        usable: Endpoints that it may pick now, `10.0.0.7:8080`.
        unusable: Endpoints that it knows and does not pick (draining, unhealthy).
    """

    at: float
    gateway: str
    replica: str
    service: ObjectRef
    usable: frozenset[str]
    unusable: frozenset[str] = frozenset()
