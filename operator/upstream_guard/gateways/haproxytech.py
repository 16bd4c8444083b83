"""HAProxy's own ingress controller: synchronises every 5 s."""

from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.profile import Profile

PROFILE = Profile(
    controller="haproxytech",
    detach_seconds=5.0,
    attach_seconds=5.0,
    evidence=Evidence.BUILTIN,
    source="haproxytech's code: sync period 5 s; not measured",
    # HAProxy says 503 for a refused connection.
    bad_statuses=(502, 503, 504),
    ingress_controllers=("haproxy.org/ingress-controller*",),
    ingress_classes=("haproxy",),
    gateway_controllers=("haproxy.org/*",),
)
