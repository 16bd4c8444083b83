"""ingress-nginx (retired in March 2026): at most 0.3 syncs a second, then a poll of 1 s in Lua."""

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.families import NGINX, noted
from upstream_guard.gateways.profile import Profile

BEHAVIOUR = Behaviour(
    answers={**NGINX, Cause.NO_ENDPOINTS: noted(503)},
    keepalive_idle=60.0,
    # proxy-connect-timeout and proxy-read-timeout of its ConfigMap (documentation).
    connect_timeout=5.0,
    read_timeout=60.0,
    # proxy-next-upstream-tries is 3.
    refused_retries=2,
)

PROFILE = Profile(
    controller="ingress-nginx",
    detach_seconds=4.3,
    attach_seconds=4.3,
    evidence=Evidence.BUILTIN,
    source="ingress-nginx's code: 0.3 syncs a second (3.3 s) and a poll of 1 s in Lua; not measured",
    bad_statuses=(502, 503, 504),
    # Its Helm chart lets users choose the value; most keep `nginx` in it.
    ingress_controllers=("k8s.io/*nginx*",),
    ingress_classes=("nginx",),
    behaviour=BEHAVIOUR,
)
