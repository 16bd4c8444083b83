"""F5 NGINX Ingress Controller: reloads nginx; only endpoints whose `ready` is true."""

from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.families import NGINX
from upstream_guard.gateways.profile import Profile

BEHAVIOUR = Behaviour(
    answers=NGINX,
    keepalive_idle=60.0,
    # proxy-connect-timeout and proxy-read-timeout of its ConfigMap (documentation).
    connect_timeout=60.0,
    read_timeout=60.0,
    # nginx tries every upstream once; two more are there with three replicas.
    refused_retries=2,
)

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
    behaviour=BEHAVIOUR,
    no_canary="it wants the port of a slice to be the Service's targetPort, and a canary has two",
)
