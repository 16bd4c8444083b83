"""What an admin of the lab would write of its gateways: the GatewayProfile of each. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from upstream_guard.core import names
from upstream_guard.core.canary import canary_name
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.lab.gateways import VIA_CLUSTER_IP, contour, envoy_gateway
from upstream_guard.lab.gateways.model import RunningGateway, ServiceTarget

Json = dict[str, Any]

_MATCHES: Final[dict[str, Json]] = {
    contour.ADDON.name: {"ingressClasses": [contour.INGRESS_CLASS]},
    envoy_gateway.ADDON.name: {"gateways": [f"{envoy_gateway.NAMESPACE}/{envoy_gateway.GATEWAY}"]},
}
"""What leads users through a gateway that reads routes; plain ones are told by the Services behind them."""


def gateway_profile(
    gateway: RunningGateway, services: Sequence[str], *, canary: bool = False
) -> Json:
    """The GatewayProfile of a gateway of the lab.

    Args:
        gateway: As it runs.
        services: Services behind it, as `namespace/name`; of interest for plain gateways only.
        canary: Whether a plain gateway is led to `canary_target`, and so measured.
    """
    spec: Json = {
        "match": _MATCHES.get(gateway.name) or {"services": list(services)},
        "controller": gateway.name,
        "address": f"http://{gateway.address}:{gateway.port}",
    }
    if gateway.metrics_url:
        spec["metrics"] = {"url": gateway.metrics_url}
    if gateway.admin_url:
        spec["admin"] = {"url": gateway.admin_url}
    if canary and gateway.name in VIA_CLUSTER_IP:
        spec["canary"] = {"host": canary_target(gateway.name).host}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.PROFILE_KIND,
        "metadata": {"name": _name(gateway.name)},
        "spec": spec,
    }


def canary_target(gateway: str) -> ServiceTarget:
    """The canary's Service to which a plain gateway has to be led; it is there once the operator has made it."""
    service = canary_name(GatewayKind.PROFILE, _name(gateway))
    return ServiceTarget(names.OPERATOR_NAMESPACE, service)


def gateway_key(gateway: str) -> tuple[GatewayKind, str]:
    """By what the operator knows a gateway of the lab."""
    if gateway == contour.ADDON.name:
        return GatewayKind.INGRESS_CLASS, contour.INGRESS_CLASS
    if gateway == envoy_gateway.ADDON.name:
        return GatewayKind.GATEWAY, f"{envoy_gateway.NAMESPACE}/{envoy_gateway.GATEWAY}"
    return GatewayKind.PROFILE, _name(gateway)


def _name(gateway: str) -> str:
    return f"lab-{gateway}"
