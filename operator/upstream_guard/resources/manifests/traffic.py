"""How requests reach pods: Services, routes of every kind, Gateways, their classes and grants."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.state import Backend, Grant, RouteState, ServiceState
from upstream_guard.resources.kube_objects import (
    CLASS_ANNOTATION,
    DEFAULT_CLASS_ANNOTATION,
    Json,
    parse_service,
    unique,
)
from upstream_guard.resources.manifests.annotations import hints_of
from upstream_guard.resources.manifests.reading import (
    EMPTY,
    annotations_of,
    flag,
    many,
    port,
    port_number,
    record,
    ref_of,
    resource,
    seconds,
    slots,
    text,
    texts,
    whole,
    words,
)
from upstream_guard.resources.manifests.values import BackendTls, ControllerClass, GatewayRef

SERVICE: Final = resource(
    spec=record(
        type=text,
        selector=texts,
        clusterIP=text,
        externalName=text,
        sessionAffinity=text,
        publishNotReadyAddresses=flag,
        internalTrafficPolicy=text,
        externalTrafficPolicy=text,
        trafficDistribution=text,
        ports=many(
            record(name=text, port=port_number, targetPort=port, protocol=text, appProtocol=text)
        ),
    )
)
_INGRESS_BACKEND: Final = record(
    service=record(name=text, port=record(name=text, number=port_number)),
    serviceName=text,
    servicePort=port,
)
INGRESS: Final = resource(
    spec=record(
        ingressClassName=text,
        defaultBackend=_INGRESS_BACKEND,
        backend=_INGRESS_BACKEND,
        rules=slots(
            record(host=text, http=record(paths=slots(record(backend=_INGRESS_BACKEND)))),
        ),
    )
)
_OBJECT: Final = record(group=text, kind=text, name=text, namespace=text)
ROUTE: Final = resource(
    spec=record(
        hostnames=words,
        parentRefs=many(_OBJECT),
        rules=slots(
            record(
                backendRefs=slots(
                    record(
                        group=text, kind=text, name=text, namespace=text, port=port, weight=whole
                    )
                ),
                timeouts=record(request=text, backendRequest=text),
                sessionPersistence=record(),
            )
        ),
    )
)
GATEWAY: Final = resource(spec=record(gatewayClassName=text))
CLASS: Final = resource(spec=record(controller=text, controllerName=text))
GRANT: Final = resource(
    spec=record(**{"from": many(_OBJECT)}, to=many(_OBJECT)),
)
BACKEND_TLS: Final = resource(spec=record(targetRef=_OBJECT, targetRefs=many(_OBJECT)))

_ALB_ACTION: Final = "use-annotation"
"""The AWS controller's port name for "no Service: what to do stands in an annotation"."""


def parse_service_state(raw: object) -> ServiceState | None:
    """A Service."""
    obj = SERVICE(raw)
    if obj is None:
        return None
    spec: Json = obj.get("spec", EMPTY)
    ports = [p for p in spec.get("ports", ()) if "port" in p]
    external = spec.get("type") == "ExternalName"
    return ServiceState(
        service=parse_service({**obj, "spec": {**spec, "ports": ports}}),
        external_name=spec.get("externalName", "") if external else "",
        client_ip_affinity=spec.get("sessionAffinity") == "ClientIP",
        annotations=annotations_of(obj),
        headless=spec.get("clusterIP") == "None",
    )


def parse_ingress_state(raw: object) -> RouteState | None:
    """An Ingress of networking.k8s.io/v1, or of its beta versions."""
    obj = INGRESS(raw)
    if obj is None:
        return None
    spec: Json = obj.get("spec", EMPTY)
    ref, annotations = ref_of(obj), annotations_of(obj)
    hints = hints_of(annotations)
    return RouteState(
        kind="Ingress",
        ref=ref,
        gateway=spec.get("ingressClassName") or annotations.get(CLASS_ANNOTATION, ""),
        backends=tuple(
            backend
            for path, found in _ingress_backends(spec)
            for backend in _ingress_backend(ref.namespace, path, found)
        ),
        hosts=unique(rule.get("host") for rule in spec.get("rules", ())),
        request_timeout=hints.timeout,
        grpc=hints.grpc,
        backend_tls=hints.tls,
        sticky=hints.sticky,
        annotations=annotations,
    )


def _ingress_backends(spec: Json) -> Iterator[tuple[str, Json]]:
    for name in ("defaultBackend", "backend"):
        yield f"spec.{name}", spec.get(name, EMPTY)
    for number, rule in enumerate(spec.get("rules", ())):
        for index, path in enumerate(rule.get("http", EMPTY).get("paths", ())):
            yield f"spec.rules[{number}].http.paths[{index}].backend", path.get("backend", EMPTY)


def _ingress_backend(namespace: str, path: str, raw: Json) -> Iterator[Backend]:
    if (service := raw.get("service")) is not None:
        written: Json = service.get("port", EMPTY)
        found = written.get("number") or written.get("name")
        name, path = service.get("name"), f"{path}.service"
    else:
        found, name = raw.get("servicePort"), raw.get("serviceName")
    if name and found != _ALB_ACTION:
        yield Backend(namespace, name, found, path)


def _parse_route(kind: str) -> Callable[[object], RouteState | None]:
    """The parser of one kind of Gateway API route."""

    def parse(raw: object) -> RouteState | None:
        obj = ROUTE(raw)
        if obj is None:
            return None
        spec: Json = obj.get("spec", EMPTY)
        rules: list[Json] = spec.get("rules", [])
        ref = ref_of(obj)
        backends = tuple(_backends(rules, ref.namespace))
        return RouteState(
            kind=kind,
            ref=ref,
            gateway=",".join(_parents(spec, ref.namespace)),
            backends=backends,
            hosts=unique(spec.get("hostnames", ())),
            request_timeout=shortest(backends),
            grpc=kind == "GRPCRoute",
            # What a client of a TLSRoute encrypts is passed on as it is.
            backend_tls=kind == "TLSRoute",
            sticky=any("sessionPersistence" in rule for rule in rules),
            annotations=annotations_of(obj),
        )

    parse.__doc__ = f"A {kind} of the Gateway API."
    return parse


parse_httproute_state: Final = _parse_route("HTTPRoute")
parse_grpcroute_state: Final = _parse_route("GRPCRoute")
parse_tlsroute_state: Final = _parse_route("TLSRoute")
parse_tcproute_state: Final = _parse_route("TCPRoute")


def shortest(backends: Iterable[Backend]) -> float | None:
    """The shortest request time-out of the rules that lead to these backends."""
    return min((b.request_timeout for b in backends if b.request_timeout is not None), default=None)


def _parents(spec: Json, namespace: str) -> tuple[str, ...]:
    return unique(
        f"{parent.get('namespace') or namespace}/{parent['name']}"
        for parent in spec.get("parentRefs", ())
        if parent.get("name") and parent.get("kind", "Gateway") == "Gateway"
    )


def _backends(rules: Iterable[Json], namespace: str) -> Iterator[Backend]:
    for number, rule in enumerate(rules):
        timeout = _timeout(rule.get("timeouts", EMPTY))
        for index, raw in enumerate(rule.get("backendRefs", ())):
            if raw.get("name"):
                yield Backend(
                    namespace=raw.get("namespace") or namespace,
                    service=raw["name"],
                    port=raw.get("port"),
                    path=f"spec.rules[{number}].backendRefs[{index}]",
                    weight=raw.get("weight", 1),
                    kind=_qualified(raw),
                    request_timeout=timeout,
                )


def _qualified(raw: Json) -> str:
    """The kind; with its group where that is not the core one, as kubectl writes it."""
    kind: str = raw.get("kind") or "Service"
    group: str = raw.get("group") or ""
    return f"{kind}.{group}" if group not in {"", "core"} else kind


def _timeout(raw: Json) -> float | None:
    """Zero stands for "never" in the Gateway API."""
    written = (seconds(raw.get(name)) for name in ("request", "backendRequest"))
    return min((math.inf if s == 0 else s for s in written if s is not None), default=None)


def parse_gateway(raw: object) -> GatewayRef | None:
    """A Gateway."""
    obj = GATEWAY(raw)
    if obj is None:
        return None
    return GatewayRef(ref_of(obj), obj.get("spec", EMPTY).get("gatewayClassName", ""))


def parse_ingress_class(raw: object) -> ControllerClass | None:
    """An IngressClass."""
    return _class("IngressClass", "controller", raw)


def parse_gateway_class(raw: object) -> ControllerClass | None:
    """A GatewayClass."""
    return _class("GatewayClass", "controllerName", raw)


def _class(kind: str, field: str, raw: object) -> ControllerClass | None:
    obj = CLASS(raw)
    if obj is None:
        return None
    return ControllerClass(
        kind=kind,
        ref=ObjectRef("", obj["metadata"]["name"]),
        controller=obj.get("spec", EMPTY).get(field, ""),
        default=annotations_of(obj).get(DEFAULT_CLASS_ANNOTATION) == "true",
    )


def parse_grant(raw: object) -> Grant | None:
    """A ReferenceGrant."""
    obj = GRANT(raw)
    if obj is None:
        return None
    spec: Json = obj.get("spec", EMPTY)
    return Grant(
        ref=ref_of(obj),
        sources=tuple(
            (source["kind"], source["namespace"])
            for source in spec.get("from", ())
            if "kind" in source and "namespace" in source
        ),
        targets=tuple(
            (_qualified(target), target.get("name", ""))
            for target in spec.get("to", ())
            if "kind" in target
        ),
    )


def parse_backend_tls(raw: object) -> BackendTls | None:
    """A BackendTLSPolicy."""
    obj = BACKEND_TLS(raw)
    if obj is None:
        return None
    spec: Json = obj.get("spec", EMPTY)
    targets = [*spec.get("targetRefs", ()), spec.get("targetRef", EMPTY)]
    namespace = ref_of(obj).namespace
    return BackendTls(
        ref_of(obj),
        tuple(
            ObjectRef(namespace, target["name"])
            for target in targets
            if target.get("name") and target.get("kind") == "Service"
        ),
    )
