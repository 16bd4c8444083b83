"""Traefik: at most one configuration in 2 s (`providersThrottleDuration`)."""

from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.profile import Profile

PROFILE = Profile(
    controller="traefik",
    detach_seconds=2.0,
    attach_seconds=2.0,
    evidence=Evidence.BUILTIN,
    source="Traefik's code: providersThrottleDuration 2 s; not measured",
    # TLS failures are 500, an empty list 503 (Gateway API) or 404 (Ingress); 404 is left out, for it is also
    # the answer to a wrong path.
    bad_statuses=(500, 502, 503, 504),
    ingress_controllers=("traefik.io/*",),
    ingress_classes=("traefik",),
    gateway_controllers=("traefik.io/*",),
)
