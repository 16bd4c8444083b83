"""Drain settings of guards, and what the webhook adds to a new pod because of them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from upstream_guard.controller.guards import GuardBook
from upstream_guard.controller.measurements import Key, Measurements
from upstream_guard.controller.stops import StopBook
from upstream_guard.core.acceptance import in_force
from upstream_guard.core.attach import old_pods_cover_attach
from upstream_guard.core.canary import Candidate
from upstream_guard.core.injection import Injection, InjectionRequest, inject
from upstream_guard.core.model import DrainMode, Guard, ListMode, Service
from upstream_guard.core.names import OPERATOR_NAMESPACE
from upstream_guard.core.tuning import (
    CLUSTER_IP,
    DrainAdvice,
    Evidence,
    GatewayFacts,
    advise_drain,
)
from upstream_guard.gateways import discover
from upstream_guard.gateways.canary import plan_canary
from upstream_guard.kube.state import ClusterState


@dataclass(frozen=True, slots=True)
class Claim:
    """A guard in force that selects a pod, with its advice."""

    guard: Guard
    service: Service
    advice: DrainAdvice


PAUSE_EVERY = 50
"""Guards that are looked through at a time, so that probes are not late."""


class DrainAdvisor:
    """Finds the gateways of guards and turns them into settings."""

    def __init__(
        self,
        state: ClusterState,
        book: GuardBook,
        controlled: Callable[[], bool],
        minor: int,
        measurements: Measurements | None = None,
    ) -> None:
        """Wire it.

        Args:
            state: The cluster.
            book: The guards.
            controlled: Whether somebody holds the Lease now.
            minor: Minor version of the API server; the `sleep` hook needs 30.
            measurements: What is known of gateways by measurement.
        """
        self._state = state
        self._book = book
        self._controlled = controlled
        self.stops = StopBook()
        self._measurements = measurements or Measurements()
        self.sleep_supported = minor >= 30

    def gateways(self, service: Service) -> tuple[GatewayFacts, ...]:
        """The gateways that lead to a Service, with what was measured of them."""
        return tuple(self._measurements.apply(facts) for facts in self._discover(service))

    def kube_proxy(self, service: Service) -> GatewayFacts | None:
        """The way through the Service's ClusterIP, where something is told of it by the canary."""
        facts = self._measurements.apply(CLUSTER_IP)
        told = facts.measured is not None or facts.canary
        return facts if told and _has_cluster_ip(service) else None

    async def canaries(self, namespace: str = OPERATOR_NAMESPACE) -> dict[Key, Candidate]:
        """Every gateway that leads to a guarded Service: how it is measured, or why not.

        Args:
            namespace: Where the canaries' objects are.
        """
        found: dict[Key, Candidate] = {}
        profiles = tuple(self._book.profiles.values())
        for number, entry in enumerate(self._book):
            if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                await asyncio.sleep(0)
            service = self._state.service(entry.guard.service_ref) if entry.guard else None
            if service is None or in_force(service, self._book.of_service(service.ref)) is None:
                continue
            gateways = self._discover(service)
            through = _has_cluster_ip(service) or not gateways
            pods = self._pods_behind(service)
            for facts in (*gateways, *((CLUSTER_IP,) if through else ())):
                key = (facts.kind, facts.name)
                known = found.get(key) or Candidate(plan_canary(facts, profiles, namespace))
                found[key] = replace(known, pods=known.pods + pods)
        return found

    def _pods_behind(self, service: Service) -> int:
        """A number that changes with the set of a Service's endpoints, whatever state they are in."""
        slices = self._state.slices_of(service.ref)
        there = frozenset(e.addresses for slice_ in slices for e in slice_.endpoints)
        return hash((service.ref, there))

    def _discover(self, service: Service) -> tuple[GatewayFacts, ...]:
        return discover(
            service.ref,
            self._state.routes_to(service.ref),
            self._state.ingress_classes,
            self._state.gateway_controllers,
            tuple(self._book.profiles.values()),
        )

    def advice(
        self, guard: Guard, service: Service, gateways: tuple[GatewayFacts, ...]
    ) -> DrainAdvice:
        """The drain settings of a guard's pods, from the Service's `gateways`."""
        # Clients inside the cluster need not be known to anybody, and kube-proxy is slower than some
        # gateways: a second more of sleep is cheaper than their errors.
        covering = old_pods_cover_attach(guard.upstream_list, gateways)
        advice = advise_drain(
            guard.drain,
            covering,
            cluster_ip_clients=_has_cluster_ip(service),
            kube_proxy=self._measurements.apply(CLUSTER_IP),
            before=self._before(guard),
        )
        return replace(advice, app=self.stops.found(guard.ref))

    def _before(self, guard: Guard) -> int | None:
        """The measured preStop that the guard's status says is in force."""
        entry = self._book.get(guard.ref)
        drain = (entry.status.get("drain") if entry else None) or {}
        seconds = drain.get("preStopSeconds")
        measured = drain.get("evidence") == Evidence.MEASURED
        return seconds if measured and isinstance(seconds, int) else None

    def inject(self, namespace: str, pod: Mapping[str, Any]) -> Injection:
        """What a new pod gets, from all guards in force that select it."""
        labels = (pod.get("metadata") or {}).get("labels") or {}
        claims = [
            Claim(guard, service, self.advice(guard, service, self.gateways(service)))
            for service in self._state.services_for(namespace, labels)
            if (guard := in_force(service, self._book.of_service(service.ref))) is not None
        ]
        if not claims:
            return Injection()
        return inject(pod, self._request(claims))

    def _request(self, claims: list[Claim]) -> InjectionRequest:
        gate = self._controlled() and any(
            c.guard.upstream_list.mode is ListMode.ENFORCE and not c.service.publish_not_ready
            for c in claims
        )
        drains = [c for c in claims if c.guard.drain.mode is not DrainMode.OFF]
        enforced = [c for c in drains if c.guard.drain.mode is DrainMode.ENFORCE]
        chosen = max(enforced or drains, key=lambda c: c.advice.pre_stop, default=None)
        if chosen is None:
            return InjectionRequest(gate=gate, sleep_supported=self.sleep_supported)
        return InjectionRequest(
            pre_stop=chosen.advice.pre_stop,
            gate=gate,
            reason=f"{chosen.guard.ref}: {chosen.advice.reason}",
            drain_enforced=bool(enforced),
            sleep_supported=self.sleep_supported,
            grace_period=chosen.advice.grace_period,
            app=chosen.advice.app,
        )


def _has_cluster_ip(service: Service) -> bool:
    return service.cluster_ip not in {"", "None"}
