"""Skipper: polls the API every 3 s; ready and not terminating endpoints."""

from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.profile import Profile

PROFILE = Profile(
    controller="skipper",
    detach_seconds=3.0,
    attach_seconds=3.0,
    evidence=Evidence.BUILTIN,
    source="Skipper's code: polls every 3 s; not measured",
    # Broken responses may be 500 (inferred); an empty list is 502.
    bad_statuses=(500, 502, 503, 504),
    ingress_classes=("skipper",),
)
