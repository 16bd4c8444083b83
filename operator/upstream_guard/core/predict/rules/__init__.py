"""What is wrong in the objects themselves, before anything changes: one pure generator per rule."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.rules import (
    disruption,
    guards,
    policy,
    probes,
    protocol,
    rollout,
    routes,
    service,
    serving,
    shutdown,
)
from upstream_guard.core.predict.state import State, World
from upstream_guard.core.predict.window import Finding, PatchKind, Severity

Rule = Callable[[State, tuple[Gateway, ...], Facts], Iterator[Finding]]
"""One rule: everything that it finds wrong with one Service and its surroundings."""

RULES: Final[tuple[Rule, ...]] = (
    service.selector_matches_nothing,
    service.selector_matches_two_apps,
    service.named_port_mismatch,
    service.target_port_unserved,
    service.external_name,
    routes.route_to_nowhere,
    routes.missing_reference_grant,
    protocol.protocol_mismatch,
    policy.policy_blocks_gateway,
    policy.policy_blocks_operator,
    probes.no_readiness_probe,
    probes.readiness_probe_elsewhere,
    probes.ready_before_serving,
    probes.readiness_equals_liveness,
    shutdown.no_pre_stop,
    shutdown.pre_stop_too_short,
    shutdown.pre_stop_exceeds_grace,
    shutdown.grace_shorter_than_drain,
    shutdown.sigterm_drops_requests,
    shutdown.sigterm_ignored,
    shutdown.sidecar_order,
    rollout.no_replicas,
    rollout.recreate_strategy,
    rollout.max_unavailable,
    rollout.single_replica,
    rollout.min_ready_seconds,
    rollout.quota_blocks_surge,
    disruption.no_disruption_budget,
    disruption.disruption_budget_blocks,
    disruption.disruption_budget_useless,
    disruption.autoscaler_below_budget,
    disruption.one_node,
    disruption.node_shutdown,
    protocol.keepalive_race,
    routes.gateway_timeout,
    service.session_affinity,
)
"""Every rule, in the order in which its findings are listed: what is wrong always comes first."""

MERGED: Final = frozenset(
    {
        "DaemonSet",
        "Deployment",
        "Pod",
        "ReplicaSet",
        "ReplicationController",
        "ResourceQuota",
        "Service",
        "StatefulSet",
    }
)
"""Kinds with strategic merge patches; the API server has none for custom resources."""


def inspect(state: State, gateways: Iterable[Gateway], facts: Facts) -> tuple[Finding, ...]:
    """Look for what is wrong with one Service, its workloads, routes and surroundings.

    Args:
        state: The Service and its surroundings.
        gateways: Those in front of it.
        facts: What is known of the app.
    """
    if _takes_no_tcp(state):
        return ()
    found = tuple(gateways)
    findings = (finding for rule in RULES for finding in rule(state, found, facts))
    soften = judges_mildly(state)
    return tuple(_possible(_softened(finding) if soften else finding) for finding in findings)


def judges_mildly(state: State) -> bool:
    """Whether a lost request weighs little here: no warning is more than worth knowing then.

    Clients of a headless Service pick pods themselves, and scrapers come again.
    """
    return state.service.headless or serving.is_only_monitored(state)


def _takes_no_tcp(state: State) -> bool:
    """A Service for UDP or SCTP alone: no gateway speaks HTTP to it."""
    ports = state.service.service.ports
    return bool(ports) and not serving.traffic_ports(state)


def _softened(finding: Finding) -> Finding:
    if finding.severity is Severity.WARNING:
        return replace(finding, severity=Severity.INFO)
    return finding


def _possible(finding: Finding) -> Finding:
    """A remedy that the API server can apply to this kind, or its reason in words."""
    remedy = finding.remedy
    if remedy is None or remedy.patch_kind is not PatchKind.STRATEGIC or remedy.kind in MERGED:
        return finding
    words = f"{remedy.reason}: edit the {remedy.kind} by hand, for its lists cannot be merged"
    return replace(finding, remedy=None, no_remedy=words)


def inspect_guards(world: World) -> tuple[Finding, ...]:
    """Look for guards and GatewayProfiles that would not take effect as they are written."""
    return (*guards.invalid(world), *guards.not_accepted(world))


def inspect_routes(world: World) -> tuple[Finding, ...]:
    """Look for routes to Services that do not exist, which no Service's own inspection meets."""
    return tuple(routes.missing_services(world))
