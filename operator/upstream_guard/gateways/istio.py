"""Istio's gateways: istiod waits for 100 ms of quiet, for 10 s at most, and drops terminating endpoints."""

from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.profile import Profile

PROFILE = Profile(
    controller="istio",
    detach_seconds=10.0,
    attach_seconds=10.0,
    evidence=Evidence.BUILTIN,
    source=(
        "istiod's code: pushes after 100 ms of quiet and after 10 s at the latest, which a large "
        "rollout reaches; not measured"
    ),
    bad_statuses=(502, 503, 504),
    ingress_controllers=("istio.io/ingress-controller",),
    ingress_classes=("istio",),
    gateway_controllers=("istio.io/*",),
)
