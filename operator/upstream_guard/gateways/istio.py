"""Istio's gateways: istiod waits for 100 ms of quiet, for 10 s at most, and drops terminating endpoints."""

import math

from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.families import CONNECT_FAILURES, ENVOY, retrying
from upstream_guard.gateways.profile import Profile

BEHAVIOUR = Behaviour(
    # Two retries by default, but not after a reset.
    answers=retrying(ENVOY, CONNECT_FAILURES),
    keepalive_idle=3600.0,
    # Documentation: 10 s to connect, no limit for a response.
    connect_timeout=10.0,
    read_timeout=math.inf,
    refused_retries=2,
)

PROFILE = Profile(
    controller="istio",
    detach_seconds=10.0,
    attach_seconds=10.0,
    evidence=Evidence.BUILTIN,
    source=(
        "istiod's code: pushes after 100 ms of quiet and after 10 s at the latest, which a large "
        "rollout reaches; not measured"
    ),
    bad_statuses=(502, 503, 504),
    ingress_controllers=("istio.io/ingress-controller",),
    ingress_classes=("istio",),
    gateway_controllers=("istio.io/*",),
    behaviour=BEHAVIOUR,
)
