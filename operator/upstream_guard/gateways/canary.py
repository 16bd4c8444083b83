"""Which gateways the canary measures, and how each is reached."""

from collections.abc import Iterable

from upstream_guard.core.canary import CanaryPlan, Unmeasured, canary_host, canary_name
from upstream_guard.core.tuning import NO_CLASS, GatewayFacts, GatewayKind, GatewayProfile
from upstream_guard.gateways import PROFILES, profile_of

DEFAULT_REQUESTS = 1200
"""Requests a minute that measuring one gateway may take, at most."""


def plan_canary(
    facts: GatewayFacts, profiles: Iterable[GatewayProfile], namespace: str
) -> CanaryPlan | Unmeasured:
    """How a gateway is measured, or why it is not.

    Args:
        facts: As discovered.
        profiles: The cluster's GatewayProfiles.
        namespace: Where the canary's objects are.
    """
    profile = profile_for(facts, profiles)
    reason = _obstacle(facts, profile, namespace)
    if reason:
        return Unmeasured(facts.kind, facts.name, reason)
    return CanaryPlan(
        kind=facts.kind,
        gateway=facts.name,
        host=_host(facts, profile),
        url=profile.address if profile else "",
        expected=facts.detach_seconds,
        keeps=facts.kind is not GatewayKind.CLUSTER_IP,
        requests_per_minute=(profile.canary_requests if profile else None) or DEFAULT_REQUESTS,
    )


def _host(facts: GatewayFacts, profile: GatewayProfile | None) -> str:
    """An admin leads a host of his own to the canary; a route of ours leads one that nobody has."""
    if facts.kind is GatewayKind.PROFILE and profile is not None:
        return profile.canary_host
    return "" if facts.kind is GatewayKind.CLUSTER_IP else canary_host(facts.kind, facts.name)


def profile_for(facts: GatewayFacts, profiles: Iterable[GatewayProfile]) -> GatewayProfile | None:
    """The GatewayProfile that speaks of a gateway; of several the one that `discover` takes."""
    ordered = sorted(profiles, key=lambda p: p.name)
    return next((profile for profile in ordered if _speaks_of(profile, facts)), None)


def _speaks_of(profile: GatewayProfile, facts: GatewayFacts) -> bool:
    if facts.kind is GatewayKind.PROFILE:
        return profile.name == facts.name
    if facts.kind is GatewayKind.GATEWAY:
        return facts.name in profile.gateways
    return facts.kind is GatewayKind.INGRESS_CLASS and facts.name in profile.ingress_classes


def _obstacle(facts: GatewayFacts, profile: GatewayProfile | None, namespace: str) -> str:
    """Why a gateway is not measured; empty where it is."""
    if profile is not None and not profile.canary:
        return f"not measured: GatewayProfile {profile.name} says canary.mode Off"
    if facts.kind is GatewayKind.CLUSTER_IP:
        return ""
    known = profile_of(facts.controller).no_canary
    if known:
        return f"not measured: {known}"
    if facts.kind is GatewayKind.PROFILE:
        return _unled(facts, profile, namespace)
    if facts.kind is GatewayKind.INGRESS_CLASS and profile is None:
        return _unknown(facts)
    return ""


def _unled(facts: GatewayFacts, profile: GatewayProfile | None, namespace: str) -> str:
    if profile is not None and profile.address and profile.canary_host:
        return ""
    service = canary_name(facts.kind, facts.name)
    return (
        f"not measured: lead a host of your choice to Service {namespace}/{service}, port 80, and give "
        f"GatewayProfile {facts.name} spec.address and that host in spec.canary.host"
    )


def _unknown(facts: GatewayFacts) -> str:
    if facts.name == NO_CLASS:
        return "not measured: its Ingresses name no class, so no canary can be led through it"
    if facts.controller not in PROFILES:
        return (
            "not measured: its controller is not known, and an Ingress could order a load balancer; a "
            "GatewayProfile for this class allows it"
        )
    return ""
