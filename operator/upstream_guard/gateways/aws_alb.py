"""AWS load balancers in IP mode: the AWS Load Balancer Controller (de)registers pods as targets."""

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.families import complete, documented, noted
from upstream_guard.gateways.profile import Profile

_ANSWERS = {
    Cause.REFUSED: documented(502),
    Cause.RESET: documented(502),
    Cause.EARLY_CLOSE: documented(502),
    Cause.KEEPALIVE_RACE: noted(502),
    Cause.MALFORMED: documented(502),
    Cause.OVERSIZED_HEADER: documented(502),
    Cause.TLS: documented(502),
    Cause.PROTOCOL_MISMATCH: documented(505),
    Cause.CONNECT_TIMEOUT: documented(504),
    Cause.READ_TIMEOUT: documented(504),
    Cause.NO_ENDPOINTS: documented(503),
}

BEHAVIOUR = Behaviour(
    answers=complete(_ANSWERS),
    # Its idle time-out, from memory; it also ends requests that wait longer for their response.
    keepalive_idle=60.0,
    read_timeout=60.0,
)

PROFILE = Profile(
    controller="aws-alb",
    detach_seconds=70.0,
    attach_seconds=30.0,
    evidence=Evidence.ASSUMED,
    source=(
        "users reported: 40 s of preStop rarely failed, 70 s never "
        "(aws-load-balancer-controller#2106); not measured, and it depends on the deregistration delay"
    ),
    bad_statuses=(502, 503, 504),
    ingress_controllers=("ingress.k8s.aws/*",),
    ingress_classes=("alb",),
    gateway_controllers=("gateway.k8s.aws/*",),
    behaviour=BEHAVIOUR,
    no_canary=(
        "a route of the canary's own could order, and bill, another load balancer, and only pods can be its "
        "targets"
    ),
)
