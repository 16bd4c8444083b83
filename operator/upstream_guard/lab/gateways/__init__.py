"""Gateways that the lab can put in front of Services. A new one is one file, and one row here."""

from collections.abc import Mapping
from typing import Final

from upstream_guard.lab.gateways import caddy, contour, envoy_gateway, haproxy, httpd, nginx
from upstream_guard.lab.gateways.model import (
    Exposure,
    GatewayAddon,
    GatewayStatus,
    RunningGateway,
    ServiceTarget,
)
from upstream_guard.lab.gateways.plain import PlainGateway

GATEWAYS: Final[Mapping[str, GatewayAddon]] = {
    addon.name: addon
    for addon in (
        nginx.ADDON,
        contour.ADDON,
        haproxy.ADDON,
        caddy.ADDON,
        httpd.ADDON,
        envoy_gateway.ADDON,
    )
}

VIA_CLUSTER_IP: Final = frozenset(
    name for name, addon in GATEWAYS.items() if isinstance(addon, PlainGateway)
)
"""Gateways that leave it to kube-proxy to pick a pod. No route names them, so a GatewayProfile has to."""

__all__ = [
    "GATEWAYS",
    "VIA_CLUSTER_IP",
    "Exposure",
    "GatewayAddon",
    "GatewayStatus",
    "RunningGateway",
    "ServiceTarget",
]
