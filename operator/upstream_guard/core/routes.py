"""Which requests of the operator's own go through the gateways to a guarded Service. Pure.

Asked is one path for each host of each route, by GET (or HEAD where only that is routed), at the
address that the gateway's own status or a GatewayProfile names. What cannot be asked with certainty
is said, never guessed: a path that is a regular expression, a rule for POST alone, a gateway whose
address nobody knows.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from upstream_guard.core.evidence import RouteKey
from upstream_guard.core.model import (
    GatewayAddress,
    GatewayObject,
    Guard,
    Listener,
    ParentRef,
    PathMatch,
    Route,
    RouteProbeMode,
    RouteWay,
    Service,
)
from upstream_guard.core.tuning import NO_CLASS, GatewayProfile

MAX_ASKS: Final = 8
"""Ways that are asked for one guard."""
MAX_ADDRESSES: Final = 8
"""Addresses of one gateway that are asked in turn."""
LABEL: Final = "upstream-guard"
"""Stands for the star of a wildcard host."""

_SAFE_METHODS: Final = ("GET", "HEAD")
_TELLING: Final = re.compile(
    r"(?<![a-z])(apply|approve|callback|cancel|cleanup|clear|create|delete|deploy|destroy|disable|drop|enable|"
    r"execute|flush|invoke|kill|logoff|logout|migrate|pause|purge|quit|rebuild|refresh|reload|remove|reset|"
    r"restart|resume|revoke|run|shutdown|signoff|signout|start|stop|sync|terminate|trigger|unsubscribe|update|"
    r"webhook)(?![a-z])",
    re.IGNORECASE,
)
"""Words of a path that may change something even by GET, though it should not."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that can be made, again and again.

    Attributes:
        key: Which way it goes; `key.host` is its Host header and SNI, and where that is empty, the
            address itself.
        addresses: IP addresses or names of the gateway, asked in turn.
        port: TCP port of the gateway.
        method: `GET` or `HEAD`.
        users_path: The route's own path where that of the probes is asked instead, and GET surely changes
            nothing there; else empty.
    """

    key: RouteKey
    addresses: tuple[str, ...]
    port: int
    method: str = "GET"
    users_path: str = ""

    @property
    def url(self) -> str:
        """For people; a host that is not named shows as a star."""
        return f"{'https' if self.key.tls else 'http'}://{self.key.host or '*'}{self.key.path}"


@dataclass(frozen=True, slots=True)
class Unasked:
    """A way that cannot be asked.

    Attributes:
        gateway: As in `RouteKey`.
        route: As in `RouteKey`.
        reason: What is in the way, and what to do.
    """

    gateway: str
    route: str
    reason: str


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """What is asked for one guard, and what is not."""

    asks: tuple[Ask, ...] = ()
    unasked: tuple[Unasked, ...] = ()


@dataclass(frozen=True, slots=True)
class Landscape:
    """What is in front of a Service.

    Attributes:
        routes: Ingresses and HTTPRoutes that lead to it.
        gateways: Gateways of the Gateway API by `namespace/name`.
        profiles: The cluster's GatewayProfiles.
    """

    routes: tuple[Route, ...] = ()
    gateways: Mapping[str, GatewayObject] = field(default_factory=dict)
    profiles: tuple[GatewayProfile, ...] = ()


@dataclass(frozen=True, slots=True)
class _Door:
    """Where one host of one route is asked."""

    addresses: tuple[str, ...]
    port: int
    tls: bool
    host: str
    """May begin with `*.`, or be empty."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What bears on the choice of the path."""

    guard: Guard
    service: Service
    probe_path: str


def plan_routes(
    guard: Guard, service: Service, landscape: Landscape, probe_path: str = ""
) -> RoutePlan:
    """The requests that show whether users get through to a guarded Service.

    Args:
        guard: The guard.
        service: Its Service.
        landscape: What is in front of it.
        probe_path: Path by which the pods are probed, which changes nothing and costs little; empty
            where they are not probed by HTTP.
    """
    if guard.detection.route_probe.mode is RouteProbeMode.OFF:
        return RoutePlan()
    wish = _Wish(guard, service, probe_path)
    profiles = sorted(landscape.profiles, key=lambda p: p.name)
    found: list[Ask | Unasked] = []
    for route in landscape.routes:
        found += _of_route(route, wish, landscape.gateways, profiles)
    found += _of_plain(wish, profiles)
    asks = tuple(dict.fromkeys(f for f in found if isinstance(f, Ask)))
    unasked = [f for f in found if isinstance(f, Unasked)]
    for left in asks[MAX_ASKS : MAX_ASKS + 1]:
        more = len(asks) - MAX_ASKS
        reason = f"{MAX_ASKS} ways are asked for one guard; {left.url} and {more - 1} more are not"
        unasked.append(Unasked(left.key.gateway, left.key.route, reason))
    return RoutePlan(asks[:MAX_ASKS], tuple(dict.fromkeys(unasked)))


# Routes.


def _of_route(
    route: Route,
    wish: _Wish,
    gateways: Mapping[str, GatewayObject],
    profiles: Iterable[GatewayProfile],
) -> Iterator[Ask | Unasked]:
    for gateway in _gateways(route):
        name, found = f"{route.kind} {route.ref}", False
        for host in _hosts(route, wish):
            door = _door(route, gateway, host, gateways, profiles)
            if isinstance(door, str):
                found = True
                yield Unasked(gateway, name, door)
                continue
            concrete = _concrete(door.host, wish.guard.detection.route_probe.host)
            if concrete is not None:
                found = True
                yield _ask(gateway, name, door, concrete, _on_host(route, host), wish)
        if not found:
            yield Unasked(gateway, name, _no_host(wish))


def _no_host(wish: _Wish) -> str:
    wanted = wish.guard.detection.route_probe.host
    if wanted:
        return f"spec.detection.routeProbe.host {wanted} leads to the guarded port nowhere in it"
    return f"none of its rules leads to port {wish.guard.section} of the Service"


def _gateways(route: Route) -> tuple[str, ...]:
    if route.kind == "Ingress":
        return (route.gateway_class or NO_CLASS,)
    return tuple(filter(None, route.gateway_class.split(",")))


def _hosts(route: Route, wish: _Wish) -> tuple[str, ...]:
    """Hosts under which some rule leads to the guarded port; an empty one is any host."""
    ours = (way.hosts or ("",) for way in route.ways if _is_ours(way, wish))
    return tuple(dict.fromkeys(host for hosts in ours for host in hosts))


def _on_host(route: Route, host: str) -> tuple[RouteWay, ...]:
    return tuple(way for way in route.ways if host in (way.hosts or ("",)))


def _is_ours(way: RouteWay, wish: _Wish) -> bool:
    if way.service != wish.service.ref:
        return False
    section = wish.guard.section
    if section is None or way.port == "":
        return True
    return any(
        section in {port.name, str(port.number)} and way.port in {port.name, port.number}
        for port in wish.service.ports
    )


def _ask(
    gateway: str, name: str, door: _Door, host: str, ways: tuple[RouteWay, ...], wish: _Wish
) -> Ask | Unasked:
    choice = _choose(ways, wish)
    if isinstance(choice, str):
        return Unasked(gateway, name, f"{host or 'any host'}: {choice}")
    method, path = choice
    key = RouteKey(gateway, name, host, path, door.tls)
    return Ask(key, door.addresses, door.port, method, _users_path(ways, path, wish))


def _concrete(pattern: str, wanted: str) -> str | None:
    """A host to ask for; None where the wanted one is not meant."""
    if wanted:
        return wanted if _covers(pattern, wanted) else None
    return f"{LABEL}{pattern[1:]}" if pattern.startswith("*.") else pattern


def _covers(pattern: str, host: str) -> bool:
    """Whether a pattern holds for a host; an Ingress's star stands for one label, which is enough."""
    if not pattern or pattern == host:
        return True
    return pattern.startswith("*.") and host.endswith(pattern[1:]) and host != pattern[1:]


# Paths.


def _choose(ways: tuple[RouteWay, ...], wish: _Wish) -> tuple[str, str] | str:
    """Method and path, or why there is none."""
    said = wish.guard.detection.route_probe.path
    if said:
        method = _method(ways, said, wish)
        return (
            (method, said) if method else f"it does not lead {said} to the Service by GET or HEAD"
        )
    dangerous = ""
    for path in (wish.probe_path, *_own(ways, wish)):
        method = _method(ways, path, wish) if path else ""
        if method and path != wish.probe_path and (word := _TELLING.search(path)):
            dangerous = dangerous or f"{path} may change something ({word[0]})"
        elif method:
            return method, path
    ours = [way for way in ways if _is_ours(way, wish)]
    return f"{dangerous or _obstacle(ours)}; set spec.detection.routeProbe.path"


def _own(ways: tuple[RouteWay, ...], wish: _Wish) -> list[str]:
    """Paths that the route itself names, the shortest first."""
    ours = (way for way in ways if _is_ours(way, wish))
    paths = {way.path for way in ours if way.match is not PathMatch.PATTERN}
    return sorted(paths, key=lambda path: (len(path), path))


def _users_path(ways: tuple[RouteWay, ...], asked: str, wish: _Wish) -> str:
    if wish.guard.detection.route_probe.path:
        return ""
    harmless = (p for p in _own(ways, wish) if not _TELLING.search(p))
    return next((p for p in harmless if p != asked and _method(ways, p, wish) == "GET"), "")


def _method(ways: tuple[RouteWay, ...], path: str, wish: _Wish) -> str:
    """The method by which this path leads to the guarded port; empty where none does."""
    bare = path.partition("?")[0]
    for method in _SAFE_METHODS:
        takers = [way for way in ways if _takes(way, bare, method)]
        best = max(takers, key=_rank, default=None)
        if best is not None and any(
            _is_ours(way, wish) for way in takers if _rank(way) == _rank(best)
        ):
            return method
    return ""


def _takes(way: RouteWay, path: str, method: str) -> bool:
    if way.conditional or (way.methods and method not in way.methods):
        return False
    if way.match is PathMatch.EXACT:
        return way.path == path
    prefix = way.path.rstrip("/")
    under = path == prefix or path.startswith(f"{prefix}/")
    return way.match is PathMatch.PREFIX and under


def _rank(way: RouteWay) -> tuple[bool, int]:
    return way.match is PathMatch.EXACT, len(way.path.rstrip("/"))


def _obstacle(ours: Iterable[RouteWay]) -> str:
    """Why none of these rules can be asked, by the first of them."""
    first = next(iter(ours))
    if first.match is PathMatch.PATTERN:
        return f"{first.path} is a pattern"
    if first.conditional:
        return f"{first.path} wants a header or query parameter"
    if first.methods and first.methods.isdisjoint(_SAFE_METHODS):
        return f"{first.path} takes {', '.join(sorted(first.methods))} only"
    return f"{first.path} leads to another Service"


# Doors.


def _door(
    route: Route,
    gateway: str,
    host: str,
    gateways: Mapping[str, GatewayObject],
    profiles: Iterable[GatewayProfile],
) -> _Door | str:
    """Where a host is asked, or why that is not known."""
    profile = next((p for p in profiles if p.address and _speaks_of(p, route, gateway)), None)
    if route.kind == "Ingress":
        door = _ingress_door(route, host)
    else:
        parents = [p for p in route.parents if p.gateway == gateway]
        door = _gateway_door(gateways.get(gateway), parents, host)
    if profile is None:
        return door
    at = _profile_door(profile)
    # The profile says where, the route which host.
    named = host if isinstance(door, str) else door.host
    return at if isinstance(at, str) else replace(at, host=named)


def _speaks_of(profile: GatewayProfile, route: Route, gateway: str) -> bool:
    if route.kind == "Ingress":
        return route.gateway_class in profile.ingress_classes
    return gateway in profile.gateways


def _ingress_door(route: Route, host: str) -> _Door | str:
    tls = any(_covers(pattern, host) for pattern in route.tls_hosts if host or not pattern)
    if not route.addresses:
        return (
            "where it is served is not known, for its status names no address; name one in a "
            "GatewayProfile (spec.address)"
        )
    port = 443 if tls else 80
    known = route.addresses[0].ports
    if known and port not in known:
        port = known[0]
    return _Door(_names(route.addresses), port, tls, host)


def _gateway_door(
    gateway: GatewayObject | None, parents: Iterable[ParentRef], host: str
) -> _Door | str:
    if gateway is None:
        return "the Gateway does not exist, or may not be read"
    if not gateway.addresses:
        return (
            "where the Gateway is served is not known, for its status names no address; name one in "
            "a GatewayProfile (spec.address)"
        )
    doors = [
        (listener, met)
        for parent in parents
        for listener in gateway.listeners
        if _hangs_on(parent, listener) and (met := _meet(host, listener.hostname)) is not None
    ]
    if not doors:
        return f"no HTTP listener of the Gateway serves {host or 'it'}"
    # Users of a host that is served over TLS come that way.
    listener, met = max(doors, key=lambda door: door[0].tls)
    return _Door(_names(gateway.addresses), listener.port, listener.tls, met)


def _hangs_on(parent: ParentRef, listener: Listener) -> bool:
    named = parent.section in {"", listener.name}
    return named and parent.port in {None, listener.port}


def _meet(host: str, listener: str) -> str | None:
    """The narrower of two host patterns that overlap; None where they do not."""
    if _covers(host, listener) and listener:
        return listener
    return host if _covers(listener, host) or not listener else None


def _names(addresses: Iterable[GatewayAddress]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(a.host for a in addresses))[:MAX_ADDRESSES]


def _profile_door(profile: GatewayProfile) -> _Door | str:
    """The address that an admin gave; `resources.profile` let any URL pass."""
    try:
        parts = urlsplit(profile.address)
        port = parts.port
    except ValueError:
        return f"spec.address of GatewayProfile {profile.name} is no URL"
    if not parts.hostname:
        return f"spec.address of GatewayProfile {profile.name} names no host"
    tls = parts.scheme == "https"
    return _Door((parts.hostname,), port or (443 if tls else 80), tls, "")


# Plain gateways, of which only a GatewayProfile tells.


def _of_plain(wish: _Wish, profiles: Iterable[GatewayProfile]) -> Iterator[Ask | Unasked]:
    policy = wish.guard.detection.route_probe
    for profile in profiles:
        if wish.service.ref not in profile.services:
            continue
        if not profile.address:
            yield Unasked(profile.name, "", "its GatewayProfile names no address (spec.address)")
            continue
        door = _profile_door(profile)
        if isinstance(door, str):
            yield Unasked(profile.name, "", door)
            continue
        own = policy.path or urlsplit(profile.address).path.rstrip("/")
        path = own or wish.probe_path or "/"
        key = RouteKey(profile.name, "", policy.host, path, door.tls)
        yield Ask(key, door.addresses, door.port, users_path="" if own or path == "/" else "/")
