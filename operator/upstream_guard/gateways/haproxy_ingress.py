"""jcmoraisjr's HAProxy Ingress: 200 ms of quiet, and 2 s between updates."""

from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.profile import Profile

PROFILE = Profile(
    controller="haproxy-ingress",
    detach_seconds=2.2,
    attach_seconds=2.2,
    evidence=Evidence.BUILTIN,
    source="HAProxy Ingress's code: waits 200 ms, and 2 s between updates; not measured",
    bad_statuses=(502, 503, 504),
    ingress_controllers=("haproxy-ingress.github.io/*",),
    gateway_controllers=("haproxy-ingress.github.io/*",),
)
