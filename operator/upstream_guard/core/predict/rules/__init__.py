"""What is wrong in the objects themselves, before anything changes: one pure generator per rule."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.rules import probes, routes
from upstream_guard.core.predict.state import State, World
from upstream_guard.core.predict.window import Finding

Rule = Callable[[State, tuple[Gateway, ...], Facts], Iterator[Finding]]
"""One rule: everything that it finds wrong with one Service and its surroundings."""

RULES: Final[tuple[Rule, ...]] = (probes.no_readiness_probe,)
"""Every rule, in the order in which its findings are listed."""


def inspect(state: State, gateways: Iterable[Gateway], facts: Facts) -> tuple[Finding, ...]:
    """Look for what is wrong with one Service, its workloads, routes and surroundings.

    Args:
        state: The Service and its surroundings.
        gateways: Those in front of it.
        facts: What is known of the app.
    """
    found = tuple(gateways)
    return tuple(finding for rule in RULES for finding in rule(state, found, facts))


def inspect_routes(world: World) -> tuple[Finding, ...]:
    """Look for routes to Services that do not exist, which no Service's own inspection meets."""
    return tuple(routes.missing_services(world))
