"""AWS load balancers in IP mode: the AWS Load Balancer Controller (de)registers pods as targets."""

from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.profile import Profile

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
)
