"""Who still holds an endpoint that has left the EndpointSlices, and how long gateways took to let go."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from upstream_guard.core.evidence import UpstreamView
from upstream_guard.core.model import EndpointSlice, ObjectRef


@dataclass(frozen=True, slots=True)
class Departure:
    """An endpoint that has left its Service's EndpointSlices: it is gone, or no longer ready.

    Attributes:
        service: The Service.
        endpoint: `10.0.0.7:8080`.
        at: When that was seen.
    """

    service: ObjectRef
    endpoint: str
    at: float


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Which replicas of a gateway still hold an endpoint, by their addresses.

    Attributes:
        gone: Replicas that were read since, and do not pick it any more.
        holding: Replicas that picked it when they were last read.
        unread: Replicas that have not been read since.
    """

    gone: tuple[str, ...]
    holding: tuple[str, ...]
    unread: tuple[str, ...]

    @property
    def left_everywhere(self) -> bool:
        """Every replica was read, and none picks it. False where there is no replica to read."""
        return bool(self.gone) and not self.holding and not self.unread


@dataclass(frozen=True, slots=True)
class Detach:
    """How long one replica took to let go of one endpoint.

    Attributes:
        gateway: `GatewayFacts.name`.
        replica: Address of the replica.
        service: The Service.
        endpoint: `10.0.0.7:8080`.
        left: When the endpoint left the EndpointSlices.
        seconds: From then to the first view without it: at most that long did it take.
        error: By how many seconds that may be too long: from the last view with it, or from `left`
            where there is none since, to the first view without it.
    """

    gateway: str
    replica: str
    service: ObjectRef
    endpoint: str
    left: float
    seconds: float
    error: float


def address_of(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ready_endpoints(slices: Iterable[EndpointSlice]) -> frozenset[str]:
    """The endpoints that a Service's EndpointSlices list as ready: its upstream list as it should be."""
    return frozenset(
        address_of(address, port)
        for slice_ in slices
        for _, port in slice_.ports
        for endpoint in slice_.endpoints
        if endpoint.ready
        for address in endpoint.addresses
    )


def departures(
    service: ObjectRef,
    before: frozenset[str],
    now: frozenset[str],
    known: Iterable[Departure],
    at: float,
) -> tuple[Departure, ...]:
    """What has left a Service and not come back, after its EndpointSlices have changed.

    Args:
        service: The Service.
        before: What was ready.
        now: What is ready.
        known: What had left.
        at: When the change was seen.
    """
    gone = {d.endpoint: d for d in known if d.endpoint not in now}
    gone.update({e: Departure(service, e, at) for e in before - now})
    return tuple(gone[endpoint] for endpoint in sorted(gone))


def stale(view: UpstreamView, gone: Iterable[Departure]) -> frozenset[str]:
    """Endpoints that the replica may still pick although they left before it was read."""
    return frozenset(
        d.endpoint
        for d in gone
        if d.service == view.service and d.at <= view.at and d.endpoint in view.usable
    )


def whereabouts(
    departure: Departure, replicas: Iterable[str], views: Mapping[str, UpstreamView]
) -> Whereabouts:
    """Whether an ejected or draining endpoint has left every replica of a gateway.

    Args:
        departure: The endpoint, and when it left.
        replicas: Addresses of all replicas of the gateway.
        views: The last view of each replica, of this Service.
    """
    gone, holding, unread = [], [], []
    for replica in sorted(replicas):
        view = views.get(replica)
        if view is None or view.service != departure.service or view.at < departure.at:
            unread.append(replica)
        elif departure.endpoint in view.usable:
            holding.append(replica)
        else:
            gone.append(replica)
    return Whereabouts(tuple(gone), tuple(holding), tuple(unread))


def detached(departure: Departure, before: UpstreamView | None, now: UpstreamView) -> Detach | None:
    """The detach that two views of one replica, one after the other, enclose.

    Args:
        departure: The endpoint, and when it left.
        before: The view before; None where there is none.
        now: The first view that might be without it.

    Returns:
        None where the replica still holds the endpoint, had let go of it before, or was not seen to
        hold it at all.
    """
    held = before is not None and departure.endpoint in before.usable
    if before is None or not held or now.at < departure.at or departure.endpoint in now.usable:
        return None
    return Detach(
        gateway=now.gateway,
        replica=now.replica,
        service=departure.service,
        endpoint=departure.endpoint,
        left=departure.at,
        seconds=now.at - departure.at,
        error=now.at - max(before.at, departure.at),
    )
