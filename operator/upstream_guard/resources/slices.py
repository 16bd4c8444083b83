"""EndpointSlices of external upstreams: from the core's value to the API's dict."""

from typing import Any

from upstream_guard.core.model import EndpointSlice
from upstream_guard.core.names import (
    ANNOTATION_UPSTREAMS,
    API_VERSION,
    GUARD_KIND,
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
)
from upstream_guard.core.slices import app_protocol_of


def build_slice(slice_: EndpointSlice, guard: str) -> dict[str, Any]:
    """The body to apply.

    Args:
        slice_: What should be there.
        guard: Name of the guard that owns it. The garbage collector removes the slice with it; without
            `blockOwnerDeletion`, so that no right on guards' finalizers is needed.
    """
    metadata: dict[str, Any] = {
        "name": slice_.ref.name,
        "namespace": slice_.ref.namespace,
        "labels": {
            MANAGED_BY_LABEL: slice_.managed_by,
            SERVICE_NAME_LABEL: slice_.service,
        },
        "annotations": {ANNOTATION_UPSTREAMS: slice_.record},
    }
    if slice_.owner:
        metadata["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": GUARD_KIND,
                "name": guard,
                "uid": slice_.owner,
                "controller": True,
            }
        ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": slice_.address_type,
        "ports": [_port(name, number, app_protocol_of(slice_)) for name, number in slice_.ports],
        "endpoints": build_endpoints(slice_),
    }


def build_endpoints(slice_: EndpointSlice) -> list[dict[str, Any]]:
    """The endpoints of the body; conditions are always explicit, since some controllers drop nil."""
    return [
        {
            "addresses": list(endpoint.addresses),
            "conditions": {
                "ready": endpoint.ready,
                "serving": endpoint.serving,
                "terminating": endpoint.terminating,
            },
        }
        for endpoint in slice_.endpoints
    ]


def _port(name: str, number: int, app_protocol: str) -> dict[str, Any]:
    body: dict[str, Any] = {"name": name, "port": number, "protocol": "TCP"}
    return body | ({"appProtocol": app_protocol} if app_protocol else {})
