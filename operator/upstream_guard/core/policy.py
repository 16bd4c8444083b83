"""How the pods of a guard are probed: the user's word, else the readinessProbe, else an inference."""

from dataclasses import dataclass, replace
from typing import Final

from upstream_guard.core.model import (
    ContainerReadiness,
    Guard,
    Pod,
    ProbeOverrides,
    ProbeProtocol,
    ProbeSpec,
    Readiness,
    Service,
    ServicePort,
)
from upstream_guard.core.resolution import Wanted

KUBELET_STATUS_MAX: Final = 399
"""The kubelet counts 200-399 as ready."""

ANSWER_STATUS_MAX: Final = 499
"""Where nobody named a path, 404 or 401 on `/` shows as well as 200 that the app serves; 5xx does not."""

_HTTP_NAMES: Final = frozenset({"http", "ws", "web"})
_HTTPS_NAMES: Final = frozenset({"https", "wss"})
_H2_NAMES: Final = frozenset({"grpc", "h2c", "http2"})
"""HTTP/2 without TLS. An HTTP/1 GET would be refused as nonsense, and a gRPC server need not have the
health service, so these are only connected to, unless the guard says GRPC."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a pod cannot be probed, and what to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Manner:
    """Protocol and details, before the user's own word is laid over them."""

    protocol: ProbeProtocol
    port: int | str
    path: str = "/"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    service: str = ""
    status_max: int = KUBELET_STATUS_MAX


def guarded_port(guard: Guard, service: Service) -> ServicePort | Unresolved:
    """The Service port that the guard speaks of: `sectionName`, else the first TCP port."""
    if guard.section is not None:
        for port in service.ports:
            if guard.section in {port.name, str(port.number)}:
                return _tcp_only(port, service)
        known = ", ".join(port.name or str(port.number) for port in service.ports[:10])
        return Unresolved(
            f"Service {service.ref} has no port {guard.section[:63]}; it has {known or 'none'}"
        )
    for port in service.ports:
        if port.protocol == "TCP":
            return port
    return Unresolved(f"Service {service.ref} has no TCP port")


def resolve_probe(
    guard: Guard, service: Service, pod: Pod, *, routed_by_http: bool
) -> ProbeSpec | Unresolved:
    """Settle how one pod is probed.

    The guard's own fields win. What it leaves out comes from the readinessProbe of the container that
    owns the target port; an exec probe, or none, is replaced by what Service port and routes tell.

    Args:
        guard: The guard.
        service: Its Service.
        pod: The pod.
        routed_by_http: Whether an Ingress or HTTPRoute leads to the Service.

    Returns:
        How to probe, or why the pod cannot be probed.
    """
    port = guarded_port(guard, service)
    if isinstance(port, Unresolved):
        return port
    target = _number(port.target, pod)
    readiness = _readiness_of(pod, target)
    manner = _copied(readiness) if readiness else _inferred(port, routed_by_http=routed_by_http)
    manner = _overridden(manner, guard.probe)
    number = _number(manner.port, pod)
    if number is None:
        return Unresolved(
            f"no container of pod {pod.ref} has a port named {manner.port!r}: name it in the "
            "container, or set spec.probe.port"
        )
    return _spec(manner, guard.probe, number)


def resolve_upstream_probe(
    guard: Guard, service: Service, wanted: Wanted, *, routed_by_http: bool
) -> ProbeSpec | Unresolved:
    """Settle how one address of an external upstream is probed.

    The guard's own fields win. What it leaves out comes from the upstream: TLS where it has `tls`, and its
    name as Host header and for SNI, since what is outside a cluster is mostly found by name.

    Args:
        guard: The guard.
        service: Its Service.
        wanted: The address, and what it is of.
        routed_by_http: Whether an Ingress or HTTPRoute leads to the Service.
    """
    port = guarded_port(guard, service)
    if isinstance(port, Unresolved):
        return port
    tls = next((u.tls for u in guard.upstreams if u.key == wanted.upstream), None)
    name = (tls.server_name if tls else "") or wanted.name
    manner = _inferred(replace(port, target=wanted.port), routed_by_http=routed_by_http)
    if tls is not None:
        manner = replace(manner, protocol=ProbeProtocol.HTTPS)
    if manner.protocol is not ProbeProtocol.TCP:
        manner = replace(manner, host=name)
    manner = _overridden(manner, guard.probe)
    number = manner.port if isinstance(manner.port, int) else wanted.port
    return _spec(manner, guard.probe, number)


def _spec(manner: _Manner, probe: ProbeOverrides, number: int) -> ProbeSpec:
    return ProbeSpec(
        protocol=manner.protocol,
        port=number,
        path=manner.path,
        host=manner.host,
        headers=manner.headers,
        service=manner.service,
        interval=probe.interval,
        timeout=probe.timeout,
        failure_threshold=probe.failure_threshold,
        success_threshold=probe.success_threshold,
        status_max=manner.status_max,
    )


def _tcp_only(port: ServicePort, service: Service) -> ServicePort | Unresolved:
    if port.protocol == "TCP":
        return port
    shown = port.name or str(port.number)
    return Unresolved(
        f"port {shown} of Service {service.ref} is {port.protocol}; only TCP is probed"
    )


def _number(port: int | str, pod: Pod) -> int | None:
    if isinstance(port, int):
        return port
    named = next((p.number for p in pod.ports if p.name == port), None)
    if named is None and port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535:
        return int(port)
    return named


def _readiness_of(pod: Pod, target: int | None) -> Readiness | None:
    """The readinessProbe that speaks for the target port; a sidecar's must not be taken for it."""
    owner = _owner(pod.containers, target)
    if owner is not None:
        return owner.readiness
    if len(pod.containers) > 1:
        probes = [c.readiness for c in pod.containers if c.readiness]
        return next((r for r in probes if _number(r.port, pod) == target), None)
    return pod.readiness


def _owner(
    containers: tuple[ContainerReadiness, ...], target: int | None
) -> ContainerReadiness | None:
    for container in containers:
        if any(port.number == target for port in container.ports):
            return container
    return None


def _copied(readiness: Readiness) -> _Manner:
    return _Manner(
        readiness.protocol,
        readiness.port,
        readiness.path,
        readiness.host,
        readiness.headers,
        readiness.service,
    )


def _inferred(port: ServicePort, *, routed_by_http: bool) -> _Manner:
    protocol = _spoken(port, routed_by_http=routed_by_http)
    return _Manner(protocol, port.target, status_max=ANSWER_STATUS_MAX)


def _spoken(port: ServicePort, *, routed_by_http: bool) -> ProbeProtocol:
    """What the port speaks: appProtocol says it, the port's name hints at it, a route implies it."""
    app = port.app_protocol.lower().removeprefix("kubernetes.io/")
    for hint in (app, port.name.lower()):
        protocol = _by_name(hint)
        if protocol is not None:
            return protocol
    if app:
        return ProbeProtocol.TCP
    return ProbeProtocol.HTTP if routed_by_http else ProbeProtocol.TCP


def _by_name(hint: str) -> ProbeProtocol | None:
    """By a name such as `http`, or with a suffix as `http-admin`."""
    head = hint.partition("-")[0]
    if head in _HTTPS_NAMES:
        return ProbeProtocol.HTTPS
    if head in _HTTP_NAMES:
        return ProbeProtocol.HTTP
    return ProbeProtocol.TCP if head in _H2_NAMES else None


def _overridden(manner: _Manner, user: ProbeOverrides) -> _Manner:
    protocol = user.protocol or _implied(manner.protocol, user)
    same = _family(protocol) is _family(manner.protocol)
    # What was copied for one protocol means nothing to another.
    base = manner if same else _Manner(protocol, manner.port, status_max=ANSWER_STATUS_MAX)
    return _Manner(
        protocol=protocol,
        port=base.port if user.port is None else user.port,
        path=base.path if user.path is None else user.path,
        host=base.host if user.host is None else user.host,
        headers=user.headers or base.headers,
        service=base.service if user.service is None else user.service,
        status_max=base.status_max if user.path is None else KUBELET_STATUS_MAX,
    )


def _implied(found: ProbeProtocol, user: ProbeOverrides) -> ProbeProtocol:
    """A path means HTTP (or HTTPS where that was found), a service name means gRPC."""
    if user.service is not None:
        return ProbeProtocol.GRPC
    if user.path is not None or user.headers:
        return found if _family(found) is ProbeProtocol.HTTP else ProbeProtocol.HTTP
    return found


def _family(protocol: ProbeProtocol) -> ProbeProtocol:
    return ProbeProtocol.HTTP if protocol is ProbeProtocol.HTTPS else protocol
