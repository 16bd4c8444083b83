"""The objects of a propagation canary, as the API takes them."""

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from upstream_guard.core.canary import Absence, CanaryPlan, Endpoint
from upstream_guard.core.names import (
    CANARY,
    COMPONENT_LABEL,
    GROUP,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    PART_OF,
    PART_OF_LABEL,
    SERVICE_NAME_LABEL,
)
from upstream_guard.core.tuning import GatewayKind

Json = dict[str, Any]

LABELS: Final[Mapping[str, str]] = {PART_OF_LABEL: PART_OF, COMPONENT_LABEL: CANARY}
"""On every object of a canary; what bears both is ours to delete."""
PORT: Final = 80
PORT_NAME: Final = "http"
"""The same in Service and slices, for some controllers match by it."""
_EXTERNAL_DNS: Final = {"external-dns.alpha.kubernetes.io/controller": "none"}
"""The host name shall not get a DNS record: nobody is to find it."""


def canary_service(plan: CanaryPlan, namespace: str) -> Json:
    """The Service: without selector, so that nobody but us writes its slices."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": plan.service,
            "namespace": namespace,
            "labels": dict(LABELS),
            "annotations": {f"{GROUP}/measures": f"{plan.kind.value} {plan.gateway}"[:300]},
        },
        "spec": {
            "type": "ClusterIP",
            "ports": [{"name": PORT_NAME, "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def canary_slice(
    service: Mapping[str, Any], endpoint: Endpoint, address: str, port: int, state: Absence | None
) -> Json:
    """The EndpointSlice of one endpoint: one each, for a slice has one set of ports.

    Its name begins with the Service's (ingress-nginx), `ready` is explicit (F5, haproxytech and Traefik
    drop nil) and the port has its name (Traefik, Envoy Gateway, haproxytech).

    Args:
        service: The Service as the API server has it: it owns the slice.
        endpoint: Which endpoint.
        address: Of the operator, as gateways reach it.
        port: On which the endpoint listens.
        state: How it is absent; None lists it.
    """
    metadata = service["metadata"]
    version = ipaddress.ip_address(address).version
    found = {"addresses": [address], "conditions": _conditions(state)}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{metadata['name']}-{endpoint.value}",
            "namespace": metadata["namespace"],
            "labels": {
                **LABELS,
                SERVICE_NAME_LABEL: metadata["name"],
                MANAGED_BY_LABEL: MANAGED_BY,
            },
            "ownerReferences": [_owner(service)],
        },
        "addressType": f"IPv{version}",
        "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP"}],
        "endpoints": [] if state is Absence.ABSENT else [found],
    }


def canary_route(plan: CanaryPlan, service: Mapping[str, Any]) -> Json | None:
    """The route of the gateway's own kind; None where an admin, or nobody, has to make one."""
    if plan.kind is GatewayKind.INGRESS_CLASS:
        return _ingress(plan, service)
    if plan.kind is GatewayKind.GATEWAY:
        return _httproute(plan, service)
    return None


def _conditions(state: Absence | None) -> Json:
    return {
        "ready": state is None,
        "serving": state is not Absence.NOT_READY,
        "terminating": state is Absence.TERMINATING,
    }


def _ingress(plan: CanaryPlan, service: Mapping[str, Any]) -> Json:
    backend = {"service": {"name": plan.service, "port": {"name": PORT_NAME}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _route_metadata(plan, service),
        "spec": {
            "ingressClassName": plan.gateway,
            "rules": [{"host": plan.host, "http": {"paths": [path]}}],
        },
    }


def _httproute(plan: CanaryPlan, service: Mapping[str, Any]) -> Json:
    namespace, _, name = plan.gateway.partition("/")
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _route_metadata(plan, service),
        "spec": {
            "parentRefs": [{"name": name, "namespace": namespace}],
            "hostnames": [plan.host],
            "rules": [{"backendRefs": [{"name": plan.service, "port": PORT}]}],
        },
    }


def _route_metadata(plan: CanaryPlan, service: Mapping[str, Any]) -> Json:
    return {
        "name": plan.service,
        "namespace": service["metadata"]["namespace"],
        "labels": dict(LABELS),
        "annotations": dict(_EXTERNAL_DNS),
        "ownerReferences": [_owner(service)],
    }


def _owner(service: Mapping[str, Any]) -> Json:
    metadata = service["metadata"]
    return {"apiVersion": "v1", "kind": "Service", "name": metadata["name"], "uid": metadata["uid"]}
