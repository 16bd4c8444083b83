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

__all__ = [
    "GATEWAYS",
    "Exposure",
    "GatewayAddon",
    "GatewayStatus",
    "RunningGateway",
    "ServiceTarget",
]
