"""What a built-in profile says of one gateway product."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.gateway import UNKNOWN_BEHAVIOUR, Behaviour
from upstream_guard.core.tuning import (
    CLUSTER_IP,
    UNMEASURED_MARGIN,
    Evidence,
    GatewayFacts,
    GatewayKind,
)
from upstream_guard.gateways.adapter import Adapter


@dataclass(frozen=True, slots=True)
class Profile:
    """One gateway product: how it is recognised, and how fast it follows EndpointSlices.

    Attributes:
        controller: Our name for it, as users write it in `GatewayProfile.spec.controller`.
        detach_seconds: As in `GatewayFacts`.
        attach_seconds: As in `GatewayFacts`.
        evidence: What the two rest on.
        source: Where they come from, with their doubts.
        bad_statuses: Statuses by which it says that its upstream failed.
        ingress_controllers: Patterns of `IngressClass.spec.controller`.
        ingress_classes: Class names that it goes by where no IngressClass object exists.
        gateway_controllers: Patterns of `GatewayClass.spec.controllerName`.
        via_cluster_ip: Whether it sends to the ClusterIP, so that kube-proxy picks the pod.
        margin_seconds: As in `GatewayFacts`.
        behaviour: How it treats its upstreams by default.
        detach: The distribution behind `detach_seconds`, where it was measured.
        attach: The distribution behind `attach_seconds`, where it was measured.
        adapter: How its own view is read; None where it shows none.
        no_canary: Why it cannot be measured by a propagation canary; empty where it can.
    """

    controller: str
    detach_seconds: float
    attach_seconds: float
    evidence: Evidence
    source: str
    bad_statuses: tuple[int, ...]
    ingress_controllers: tuple[str, ...] = ()
    ingress_classes: tuple[str, ...] = ()
    gateway_controllers: tuple[str, ...] = ()
    via_cluster_ip: bool = False
    margin_seconds: float = UNMEASURED_MARGIN
    behaviour: Behaviour = UNKNOWN_BEHAVIOUR
    detach: Estimate | None = None
    attach: Estimate | None = None
    adapter: Adapter | None = None
    no_canary: str = ""

    def is_ingress_controller(self, controller: str) -> bool:
        """Whether an IngressClass of that controller is served by this product."""
        return any(fnmatchcase(controller, pattern) for pattern in self.ingress_controllers)

    def is_gateway_controller(self, controller: str) -> bool:
        """Whether a GatewayClass of that controllerName is served by this product."""
        return any(fnmatchcase(controller, pattern) for pattern in self.gateway_controllers)

    def facts(self, name: str, kind: GatewayKind) -> GatewayFacts:
        """The facts for a gateway of this product that goes by `name`."""
        return GatewayFacts(
            name=name,
            controller=self.controller,
            detach_seconds=self.detach_seconds,
            attach_seconds=self.attach_seconds,
            via_cluster_ip=self.via_cluster_ip,
            evidence=self.evidence,
            source=self.source,
            bad_statuses=self.bad_statuses,
            kind=kind,
            margin_seconds=self.margin_seconds,
        )


def through_cluster_ip(
    controller: str,
    behaviour: Behaviour = UNKNOWN_BEHAVIOUR,
    adapter: Adapter | None = None,
) -> Profile:
    """The profile of a proxy that sends to the Service's ClusterIP: as fast as kube-proxy.

    No route names such a proxy, so a GatewayProfile, or who asks, has to.
    """
    return Profile(
        controller=controller,
        detach_seconds=CLUSTER_IP.detach_seconds,
        attach_seconds=CLUSTER_IP.attach_seconds,
        evidence=CLUSTER_IP.evidence,
        source=CLUSTER_IP.source,
        bad_statuses=CLUSTER_IP.bad_statuses,
        via_cluster_ip=True,
        margin_seconds=CLUSTER_IP.margin_seconds,
        behaviour=behaviour,
        adapter=adapter,
    )


def unknown(controller: str) -> Profile:
    """The profile of a gateway that is not built in: as slow as the slowest that polls.

    Args:
        controller: What the cluster calls its controller; empty where it says nothing.
    """
    shown = controller[:100] or "unknown"
    return replace(_UNKNOWN, controller=shown)


_UNKNOWN = Profile(
    controller="unknown",
    detach_seconds=5.0,
    attach_seconds=5.0,
    evidence=Evidence.ASSUMED,
    source=(
        "no built-in profile; as slow as the slowest ingress controller that polls (5 s) is assumed; "
        "a GatewayProfile can say better"
    ),
    bad_statuses=(502, 503, 504),
)
