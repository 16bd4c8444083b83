"""Protocols: what the gateway speaks against what the pods answer, and who ends idle connections."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from upstream_guard.core.model import ServicePort
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.rules.reporting import (
    Mend,
    container_patch,
    in_container,
    in_object,
    in_service,
    merge,
    report,
    strategic,
)
from upstream_guard.core.predict.rules.routes import port_of, serves
from upstream_guard.core.predict.rules.runtimes import Runtime, runtime_of
from upstream_guard.core.predict.rules.serving import (
    called,
    probe_port,
    seconds,
    serving,
    targets,
)
from upstream_guard.core.predict.state import (
    Backend,
    Container,
    HookKind,
    RouteState,
    State,
    Workload,
)
from upstream_guard.core.predict.window import Finding, Severity


class Wire(StrEnum):
    """What is spoken on a connection."""

    HTTP = "HTTP/1.1 without TLS"
    TLS = "TLS"
    H2 = "HTTP/2 without TLS"


@dataclass(frozen=True, slots=True)
class _Sign:
    """What a port is said to speak, by whom, and whether that is proof."""

    wire: Wire
    told: str
    is_proof: bool


_OWN_RULES: Final = ("ssl-passthrough", "upstream-protocol", "app-protocols", "serversscheme")
"""Parts of annotations by which a gateway is told the protocol in a way that is not read here."""


def protocol_mismatch(
    state: State, gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A route that makes the gateway speak what the pods' port does not."""
    for route in state.routes:
        annotations = (*route.annotations, *state.service.annotations)
        if any(part in name for name in annotations for part in _OWN_RULES):
            continue
        seen: set[int] = set()
        for backend in route.backends:
            port = port_of(state, backend)
            if not _leads_here(state, backend) or port is None or port.number in seen:
                continue
            seen.add(port.number)
            sign = _sign(state, port)
            if sign is not None and _differs(route, port, sign.wire):
                yield _mismatch(state, route, port, sign, gateways)


def _leads_here(state: State, backend: Backend) -> bool:
    ref = state.service.ref
    here = (backend.kind, backend.namespace, backend.service)
    return here == ("Service", ref.namespace, ref.name)


def _sign(state: State, port: ServicePort) -> _Sign | None:
    """The strongest sign of what the port speaks: a probe of it, then appProtocol, then its name."""
    for workload in state.workloads:
        for target in targets(state, workload):
            if target.port == port and target.number is not None:
                found = _probed_wire(workload, target.number)
                if found is not None:
                    return found
    said = port.app_protocol.lower()
    if said in _APP_PROTOCOLS:
        return _Sign(_APP_PROTOCOLS[said], f"appProtocol `{port.app_protocol}`", is_proof=False)
    prefix = port.name.lower().split("-")[0]
    if prefix in _NAMES:
        return _Sign(_NAMES[prefix], f"its name `{port.name}`", is_proof=False)
    return None


_APP_PROTOCOLS: Final = {
    "kubernetes.io/h2c": Wire.H2,
    "h2c": Wire.H2,
    "grpc": Wire.H2,
    "https": Wire.TLS,
    "tls": Wire.TLS,
    "grpcs": Wire.TLS,
    "kubernetes.io/wss": Wire.TLS,
    "http": Wire.HTTP,
    "kubernetes.io/ws": Wire.HTTP,
}
_NAMES: Final = {"grpc": Wire.H2, "h2c": Wire.H2, "https": Wire.TLS}


def _probed_wire(workload: Workload, number: int) -> _Sign | None:
    for container in workload.template.containers:
        for probe in (container.readiness, container.liveness, container.startup):
            if probe is None or probe_port(probe, container) != number:
                continue
            if probe.kind is HookKind.HTTP:
                wire = Wire.TLS if probe.scheme == "HTTPS" else Wire.HTTP
                return _Sign(wire, f"a probe of container `{container.name}`", is_proof=True)
            if probe.kind is HookKind.GRPC:
                return _Sign(
                    Wire.H2, f"a gRPC probe of container `{container.name}`", is_proof=True
                )
    return None


def _spoken(route: RouteState) -> Wire:
    if route.backend_tls:
        return Wire.TLS
    return Wire.H2 if route.grpc else Wire.HTTP


def _differs(route: RouteState, port: ServicePort, wire: Wire) -> bool:
    """Whether the route's protocol cannot work on a port that speaks `wire`.

    Left out: a probe by HTTP/1.1 of a port that the route speaks HTTP/2 to, for many servers do
    both; routes that pass on bytes; and of the Gateway API an `appProtocol` of h2c, which gateways
    follow.
    """
    if route.kind in {"TLSRoute", "TCPRoute"}:
        return False
    if route.kind != "Ingress" and wire is Wire.H2 and port.app_protocol == "kubernetes.io/h2c":
        return False
    spoken = _spoken(route)
    return spoken is not wire and (spoken, wire) != (Wire.H2, Wire.HTTP)


def _mismatch(
    state: State,
    route: RouteState,
    port: ServicePort,
    sign: _Sign,
    gateways: tuple[Gateway, ...],
) -> Finding:
    spoken = _spoken(route)
    gateway = next((g for g in gateways if serves(g, route)), None)
    return report(
        "protocol-mismatch",
        in_object(route.kind, route.ref, "spec"),
        f"the gateway is to speak {spoken} to port {port.number} of Service "
        f"`{state.service.ref.name}`, which by {sign.told} speaks {sign.wire}",
        _respell(state, route, port, sign.wire, gateway),
        severity=_weight(state, port, sign),
    )


def _weight(state: State, port: ServicePort, sign: _Sign) -> Severity:
    """An error only on proof; some servers speak TLS and plain HTTP on one port."""
    if sign.is_proof and sign.wire is not Wire.HTTP:
        return Severity.ERROR if state.complete else Severity.WARNING
    return Severity.WARNING if sign.is_proof or port.app_protocol else Severity.INFO


_SPELLINGS: Final = {
    ("ingress-nginx", Wire.TLS): ("nginx.ingress.kubernetes.io/backend-protocol", "HTTPS"),
    ("ingress-nginx", Wire.H2): ("nginx.ingress.kubernetes.io/backend-protocol", "GRPC"),
    ("ingress-nginx", Wire.HTTP): ("nginx.ingress.kubernetes.io/backend-protocol", "HTTP"),
    ("haproxytech", Wire.TLS): ("haproxy.org/server-ssl", "true"),
    ("haproxytech", Wire.HTTP): ("haproxy.org/server-ssl", "false"),
    ("haproxytech", Wire.H2): ("haproxy.org/server-proto", "h2"),
    ("haproxy-ingress", Wire.TLS): ("haproxy-ingress.github.io/backend-protocol", "h1-ssl"),
    ("haproxy-ingress", Wire.H2): ("haproxy-ingress.github.io/backend-protocol", "grpc"),
    ("haproxy-ingress", Wire.HTTP): ("haproxy-ingress.github.io/backend-protocol", "h1"),
}
"""By controller: the annotation of an Ingress that says what the backend speaks."""


def _respell(
    state: State, route: RouteState, port: ServicePort, wire: Wire, gateway: Gateway | None
) -> Mend:
    reason = f"the gateway speaks {wire} to the pods"
    controller = gateway.facts.controller if gateway is not None else ""
    spelling = _SPELLINGS.get((controller, wire))
    if route.kind == "Ingress" and spelling is not None:
        where = in_object(route.kind, route.ref, "metadata.annotations")
        return merge(where, {"metadata": {"annotations": dict([spelling])}}, reason)
    if route.kind != "Ingress" and wire is Wire.H2:
        entry = {"port": port.number, "appProtocol": "kubernetes.io/h2c"}
        return strategic(in_service(state, "spec.ports"), {"spec": {"ports": [entry]}}, reason)
    if route.kind != "Ingress" and wire is Wire.TLS:
        return "a BackendTLSPolicy has to name the pods' host name and CA, which are not known here"
    return f"tell the gateway by its own settings that port {port.number} speaks {wire}"


def keepalive_race(state: State, gateways: tuple[Gateway, ...], facts: Facts) -> Iterator[Finding]:
    """An app that ends idle connections while a gateway still takes them for good."""
    patient = max(
        (g for g in gateways if g.behaviour.keepalive_idle),
        key=lambda g: g.behaviour.keepalive_idle or 0.0,
        default=None,
    )
    if patient is None:
        return
    kept = patient.behaviour.keepalive_idle or 0.0
    for workload in state.workloads:
        for container, _ in serving(state, workload):
            runtime = runtime_of(container)
            idle = facts.app.keepalive_idle
            if idle is None and runtime is not None:
                idle = runtime.idle
            if idle is not None and 0 < idle < kept:
                is_known = facts.app.keepalive_idle is not None
                yield _race(workload, container, runtime, patient, (idle, kept), is_known=is_known)


def _race(
    workload: Workload,
    container: Container,
    runtime: Runtime | None,
    gateway: Gateway,
    times: tuple[float, float],
    *,
    is_known: bool,
) -> Finding:
    idle, kept = times
    who = f"container `{container.name}`"
    is_certain = is_known or (runtime is not None and runtime.is_certain)
    if not is_certain and runtime is not None:
        who += f" looks like {runtime.name}, which"
        unless = " unless it is configured otherwise"
    else:
        unless = ""
    return report(
        "keepalive-race",
        in_container(workload, container, "env" if container.env else "image"),
        f"{who} ends idle connections after {seconds(idle)}{unless}, {called(gateway.facts)} keeps "
        f"them for {seconds(kept)}: a request on one that just ended fails",
        _longer_idle(workload, container, runtime, kept),
        severity=Severity.WARNING if is_certain else Severity.INFO,
    )


def _longer_idle(
    workload: Workload, container: Container, runtime: Runtime | None, kept: float
) -> Mend:
    wanted = math.ceil(kept) + 5
    if runtime is None or not runtime.variable:
        return f"let the app keep idle connections for {wanted} s, longer than the gateway does"
    value = runtime.value.format(wanted)
    old = container.env.get(runtime.variable, "")
    if old and runtime.appends:
        value = f"{re.sub(runtime.pattern, '', old).strip()} {value}".strip()
    return container_patch(
        workload,
        container,
        {"env": [{"name": runtime.variable, "value": value}]},
        f"the gateway, which ends idle connections after {seconds(kept)}, is always first",
    )
