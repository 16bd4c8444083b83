"""F5 NGINX Ingress Controller: reloads nginx; only endpoints whose `ready` is true."""

from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.profile import Profile

PROFILE = Profile(
    controller="f5-nginx",
    detach_seconds=2.0,
    attach_seconds=2.0,
    evidence=Evidence.ASSUMED,
    source="reloads nginx after each change; the time of a reload was not measured, 2 s assumed",
    # An empty list is 502 as well.
    bad_statuses=(502, 504),
    ingress_controllers=("nginx.org/ingress-controller*",),
    gateway_controllers=("gateway.nginx.org/*",),
)
