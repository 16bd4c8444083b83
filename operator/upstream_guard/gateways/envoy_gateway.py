"""Envoy Gateway: sends every endpoint to Envoy, terminating ones as DRAINING."""

from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.profile import Profile

PROFILE = Profile(
    controller="envoy-gateway",
    detach_seconds=0.5,
    attach_seconds=0.5,
    evidence=Evidence.ASSUMED,
    source=(
        "no delay found in its code, 0.5 s assumed and not measured; users reported 30-120 s while "
        "hundreds of pods restarted (envoyproxy/gateway#7366)"
    ),
    bad_statuses=(502, 503, 504),
    gateway_controllers=("gateway.envoyproxy.io/*",),
)
