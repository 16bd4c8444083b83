"""Gateways: one file per product, a table of them, and how those in front of a Service are found."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from upstream_guard.core.model import ObjectRef, Route
from upstream_guard.core.tuning import (
    MEASURED_MARGIN,
    NO_CLASS,
    Evidence,
    GatewayFacts,
    GatewayKind,
    GatewayProfile,
)
from upstream_guard.gateways import (
    aws_alb,
    caddy,
    cluster_ip,
    contour,
    envoy,
    envoy_gateway,
    f5_nginx,
    gce,
    haproxy,
    haproxy_ingress,
    haproxytech,
    httpd,
    ingress_nginx,
    istio,
    nginx,
    skipper,
    traefik,
)
from upstream_guard.gateways.profile import Profile, unknown

Value = TypeVar("Value")

PROFILES: Final[Mapping[str, Profile]] = {
    module.PROFILE.controller: module.PROFILE
    for module in (
        aws_alb,
        caddy,
        cluster_ip,
        contour,
        envoy,
        envoy_gateway,
        f5_nginx,
        gce,
        haproxy,
        haproxy_ingress,
        haproxytech,
        httpd,
        ingress_nginx,
        istio,
        nginx,
        skipper,
        traefik,
    )
}
"""Every built-in profile, by the name of its controller."""


def discover(
    service: ObjectRef,
    routes: Iterable[Route],
    ingress_classes: Mapping[str, str],
    gateway_controllers: Mapping[str, str],
    profiles: Iterable[GatewayProfile] = (),
) -> tuple[GatewayFacts, ...]:
    """The gateways in front of a Service, each once, ordered by kind and name.

    Args:
        service: The Service.
        routes: Ingresses and HTTPRoutes; those that do not lead to the Service are passed over.
        ingress_classes: `IngressClass.spec.controller` by class name.
        gateway_controllers: `GatewayClass.spec.controllerName` by Gateway (`namespace/name`).
        profiles: The cluster's GatewayProfiles; what they say goes before what is built in.
    """
    known = sorted(profiles, key=lambda p: p.name)
    found: dict[tuple[GatewayKind, str], GatewayFacts] = {}
    for route in routes:
        if service not in route.services:
            continue
        for facts in _of_route(route, ingress_classes, gateway_controllers, known):
            found[facts.kind, facts.name] = facts
    for profile in known:
        if service in profile.services:
            base = profile_of(profile.controller or "cluster-ip")
            facts = base.facts(profile.name, GatewayKind.PROFILE)
            found[facts.kind, facts.name] = _override(facts, profile)
    return tuple(found[key] for key in sorted(found))


def _of_route(
    route: Route,
    ingress_classes: Mapping[str, str],
    gateway_controllers: Mapping[str, str],
    profiles: Iterable[GatewayProfile],
) -> Iterator[GatewayFacts]:
    if route.kind != "Ingress":
        for gateway in filter(None, route.gateway_class.split(",")):
            controller = gateway_controllers.get(gateway, "")
            facts = _by_gateway_controller(controller).facts(gateway, GatewayKind.GATEWAY)
            yield _first_override(facts, (p for p in profiles if gateway in p.gateways))
        return
    class_ = route.gateway_class
    profile = _by_class(class_, ingress_classes.get(class_))
    facts = profile.facts(class_ or NO_CLASS, GatewayKind.INGRESS_CLASS)
    yield _first_override(facts, (p for p in profiles if class_ in p.ingress_classes))


def _by_class(class_: str, controller: str | None) -> Profile:
    """By the controller that the class names; by the class's own name where no such object exists."""
    for profile in PROFILES.values():
        if controller is None and class_ in profile.ingress_classes:
            return profile
        if controller is not None and profile.is_ingress_controller(controller):
            return profile
    return _not_built_in(controller or class_)


def _by_gateway_controller(controller: str) -> Profile:
    for profile in PROFILES.values():
        if profile.is_gateway_controller(controller):
            return profile
    return _not_built_in(controller)


def _not_built_in(name: str) -> Profile:
    """A class may be called `caddy`; that does not make its gateway the plain proxy of that name."""
    return unknown("" if name in PROFILES else name)


def profile_of(controller: str) -> Profile:
    """The built-in profile of that name; of a name that is not known, one that assumes slowness."""
    return PROFILES.get(controller) or unknown(controller)


def profile_for(facts: GatewayFacts, profiles: Iterable[GatewayProfile]) -> GatewayProfile | None:
    """The GatewayProfile that speaks of a gateway; the first by name where several do."""

    def speaks(profile: GatewayProfile) -> bool:
        if facts.kind is GatewayKind.PROFILE:
            return profile.name == facts.name
        if facts.kind is GatewayKind.GATEWAY:
            return facts.name in profile.gateways
        return facts.name in profile.ingress_classes

    return min((p for p in profiles if speaks(p)), key=lambda p: p.name, default=None)


def _first_override(facts: GatewayFacts, profiles: Iterable[GatewayProfile]) -> GatewayFacts:
    profile = next(iter(profiles), None)
    if profile is None:
        return facts
    if profile.controller:
        facts = profile_of(profile.controller).facts(facts.name, facts.kind)
    return _override(facts, profile)


def _override(facts: GatewayFacts, profile: GatewayProfile) -> GatewayFacts:
    """What the profile says, over what is built in."""
    changed = replace(
        facts,
        controller=profile.controller or facts.controller,
        via_cluster_ip=_either(profile.via_cluster_ip, facts.via_cluster_ip),
        attach_seconds=_either(profile.attach_seconds, facts.attach_seconds),
        bad_statuses=_either(profile.bad_statuses, facts.bad_statuses),
        connect_timeout=profile.connect_timeout,
        read_timeout=profile.read_timeout,
        keepalive_idle=profile.keepalive_idle,
        retries=profile.retries,
    )
    if profile.detach_seconds is None:
        return changed
    return replace(
        changed,
        detach_seconds=profile.detach_seconds,
        evidence=Evidence.PROFILE,
        source=f"GatewayProfile {profile.name}",
        margin_seconds=MEASURED_MARGIN,
    )


def _either(said: Value | None, otherwise: Value) -> Value:
    return otherwise if said is None else said
