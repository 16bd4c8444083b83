"""Google Cloud load balancers with container-native load balancing (NEG)."""

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Answer, Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.profile import Profile

BEHAVIOUR = Behaviour(
    answers={Cause.STALE_UPSTREAM: Answer(502, "users reported it in rollouts (ingress-gce#769)")},
    # Google's documentation: fixed at 600 s; a backend service waits 30 s for a response.
    keepalive_idle=600.0,
    read_timeout=30.0,
    # It takes what is not terminating (from memory).
    reads_ready=False,
)

PROFILE = Profile(
    controller="gce",
    detach_seconds=70.0,
    attach_seconds=60.0,
    evidence=Evidence.ASSUMED,
    source=(
        "as for AWS, where users reported 40-70 s; for GKE one reported failures even with 180 s of "
        "mitigations (ingress-gce#769); not measured"
    ),
    bad_statuses=(502, 503, 504),
    ingress_controllers=("k8s.io/ingress-gce*", "ingress.gke.io/*"),
    ingress_classes=("gce", "gce-internal"),
    gateway_controllers=("networking.gke.io/*",),
    behaviour=BEHAVIOUR,
    no_canary=(
        "a route of the canary's own could order, and bill, another load balancer, and only pods can be its "
        "targets"
    ),
)
