"""Routes: whether they lead to a Service and port that exist, may, and wait long enough."""

import difflib
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from upstream_guard.core.model import ObjectRef, ServicePort
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.rules.reporting import (
    Mend,
    create,
    edit,
    in_object,
    merge,
    pointer,
    report,
)
from upstream_guard.core.predict.rules.serving import called, seconds
from upstream_guard.core.predict.state import Backend, Grant, RouteState, State, World
from upstream_guard.core.predict.window import Finding, Severity

GATEWAY_API: Final = "gateway.networking.k8s.io"


def missing_services(world: World) -> Iterator[Finding]:
    """Backends whose Service is not there."""
    peopled = peopled_namespaces(world)
    for route in world.routes:
        for backend in route.backends:
            target = ObjectRef(backend.namespace, backend.service)
            if backend.kind == "Service" and target not in world.services:
                yield _missing(world, route, backend, known=backend.namespace in peopled)


def peopled_namespaces(world: World) -> frozenset[str]:
    """Namespaces of which Services or workloads are given: what they lack is hardly elsewhere."""
    return frozenset(ref.namespace for ref in world.services) | {
        workload.ref.namespace for workload in world.workloads
    }


def _missing(world: World, route: RouteState, backend: Backend, *, known: bool) -> Finding:
    severity = Severity.WARNING if known else Severity.INFO
    names = [ref.name for ref in world.services if ref.namespace == backend.namespace]
    near = difflib.get_close_matches(backend.service, names, 1, 0.8)
    hint = f" (there is `{near[0]}`)" if near else ""
    absent = "does not exist" if world.complete else "is not among the given objects"
    return report(
        "route-to-nowhere",
        in_object(route.kind, route.ref, backend.path),
        f"it leads to Service `{backend.namespace}/{backend.service}`, which {absent}{hint}",
        "which Service is meant cannot be told from here",
        severity=Severity.ERROR if world.complete else severity,
    )


def _toward(state: State) -> Iterator[tuple[RouteState, Backend]]:
    """Each place where a route leads to this Service."""
    ref = state.service.ref
    for route in state.routes:
        for backend in route.backends:
            here = (backend.namespace, backend.service) == (ref.namespace, ref.name)
            if here and backend.kind == "Service":
                yield route, backend


def port_of(state: State, backend: Backend) -> ServicePort | None:
    """The Service's port that a route means."""
    return next(
        (p for p in state.service.service.ports if backend.port in {p.number, p.name}), None
    )


def route_to_nowhere(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A route to a port that the Service does not have."""
    ports = state.service.service.ports
    if not ports or state.service.external_name:
        return
    for route, backend in _toward(state):
        if backend.port is not None and port_of(state, backend) is None:
            has = ", ".join(f"{p.number}" + (f" `{p.name}`" * bool(p.name)) for p in ports[:6])
            yield report(
                "route-to-nowhere",
                in_object(route.kind, route.ref, f"{backend.path}.port"),
                f"it leads to port `{backend.port}` of Service `{backend.service}`, which has only {has}",
                _to_only_port(route, backend, ports),
                severity=None if backend.weight > 0 else Severity.INFO,
            )


def _to_only_port(route: RouteState, backend: Backend, ports: tuple[ServicePort, ...]) -> Mend:
    if len(ports) != 1:
        return "which of the Service's ports is meant cannot be told"
    number = ports[0].number
    reason = f"port {number} is the Service's only one"
    where = in_object(route.kind, route.ref, backend.path)
    if route.kind != "Ingress":
        return edit(where, [_put(f"{backend.path}.port", number)], reason)
    if backend.path.endswith(".service"):
        return edit(where, [_put(f"{backend.path}.port", {"number": number})], reason)
    return edit(where, [_put(f"{backend.path}.servicePort", number)], reason)


def _put(path: str, value: object) -> dict[str, Any]:
    return {"op": "add", "path": pointer(path), "value": value}


def missing_reference_grant(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A route from another namespace that nothing here allows to lead to this Service."""
    for route, backend in _toward(state):
        if route.kind == "Ingress" or route.ref.namespace == backend.namespace:
            continue
        if any(_allows(grant, route, backend) for grant in state.grants):
            continue
        yield report(
            "missing-reference-grant",
            in_object(route.kind, route.ref, backend.path),
            f"it leads to Service `{backend.namespace}/{backend.service}` in another namespace, and no "
            f"ReferenceGrant there allows a {route.kind} of `{route.ref.namespace}`: gateways answer "
            "500",
            _grant(route, backend),
            severity=Severity.ERROR if state.complete else Severity.WARNING,
        )


def _allows(grant: Grant, route: RouteState, backend: Backend) -> bool:
    return (
        grant.ref.namespace == backend.namespace
        and (route.kind, route.ref.namespace) in grant.sources
        and any(kind == "Service" and name in {"", backend.service} for kind, name in grant.targets)
    )


def _grant(route: RouteState, backend: Backend) -> Mend:
    ref = ObjectRef(backend.namespace, f"{route.kind.lower()}-{route.ref.namespace}"[:63])
    source = {"group": GATEWAY_API, "kind": route.kind, "namespace": route.ref.namespace}
    target = {"group": "", "kind": "Service", "name": backend.service}
    return create(
        "ReferenceGrant",
        ref,
        f"{GATEWAY_API}/v1beta1",
        {"from": [source], "to": [target]},
        f"routes of namespace {route.ref.namespace} may lead to this Service",
    )


def gateway_timeout(state: State, gateways: tuple[Gateway, ...], facts: Facts) -> Iterator[Finding]:
    """A gateway that waits for a shorter time than the app's slow requests take."""
    slow = facts.app.slow_response
    if slow.value <= 0:
        return
    routed = {id(gateway) for _, gateway in _ways(state, gateways)}
    for route, gateway in _ways(state, gateways):
        limit = route.request_timeout or gateway.behaviour.read_timeout
        if limit is not None and slow.value > limit:
            yield _gives_up(state, gateway, limit, slow.high, route)
    for gateway in gateways:
        limit = gateway.behaviour.read_timeout
        if id(gateway) not in routed and limit is not None and slow.value > limit:
            yield _gives_up(state, gateway, limit, slow.high, None)


def _ways(state: State, gateways: tuple[Gateway, ...]) -> Iterator[tuple[RouteState, Gateway]]:
    """Each route with each gateway that serves it."""
    for route in state.routes:
        for gateway in gateways:
            if serves(gateway, route):
                yield route, gateway


def serves(gateway: Gateway, route: RouteState) -> bool:
    """Whether the route names the gateway."""
    if route.kind == "Ingress":
        return gateway.facts.name == (route.gateway or "(no class)")
    return gateway.facts.name in route.gateway.split(",")


def _gives_up(
    state: State, gateway: Gateway, limit: float, slowest: float, route: RouteState | None
) -> Finding:
    where = (
        in_object("Service", state.service.ref, "spec")
        if route is None
        else in_object(route.kind, route.ref, "spec.rules")
    )
    wanted = math.ceil(slowest) + 5
    return report(
        "gateway-timeout",
        where,
        f"{called(gateway.facts)} waits {seconds(limit)} for a response, and the app's slow requests "
        f"take up to {seconds(slowest)}",
        _patience(state, gateway, route, wanted),
    )


_TIMEOUT_ANNOTATIONS: Final = {
    "ingress-nginx": ("nginx.ingress.kubernetes.io/proxy-read-timeout", "{}"),
    "f5-nginx": ("nginx.org/proxy-read-timeout", "{}s"),
    "haproxy-ingress": ("haproxy-ingress.github.io/timeout-server", "{}s"),
    "haproxytech": ("haproxy.org/timeout-server", "{}s"),
    "contour": ("projectcontour.io/response-timeout", "{}s"),
}
"""By controller: the Ingress annotation for the time to wait for a response, and how it is written."""
_RULE: Final = re.compile(r"spec\.rules\[\d+\]")


def _patience(state: State, gateway: Gateway, route: RouteState | None, wanted: int) -> Mend:
    reason = f"the gateway waits {wanted} s, longer than the app's slow requests take"
    if route is not None and route.kind == "Ingress":
        annotation = _TIMEOUT_ANNOTATIONS.get(gateway.facts.controller)
        if annotation is not None:
            name, form = annotation
            where = in_object(route.kind, route.ref, "metadata.annotations")
            return merge(where, {"metadata": {"annotations": {name: form.format(wanted)}}}, reason)
    if route is not None and route.kind in {"HTTPRoute", "GRPCRoute"}:
        puts = [
            _put(f"{rule}.timeouts", {"request": f"{wanted}s"}) for rule in _rules(state, route)
        ]
        if puts:
            return edit(in_object(route.kind, route.ref, "spec.rules"), puts, reason)
    return (
        f"raise the response time-out of {called(gateway.facts)} to {wanted} s in its own settings"
    )


def _rules(state: State, route: RouteState) -> tuple[str, ...]:
    """The paths of a route's rules that lead to this Service, each once."""
    found = (_RULE.match(backend.path) for of, backend in _toward(state) if of is route)
    return tuple(dict.fromkeys(match[0] for match in found if match))
