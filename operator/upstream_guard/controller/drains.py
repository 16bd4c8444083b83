"""Drain settings of guards, and what the webhook adds to a new pod because of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from upstream_guard.controller.guards import GuardBook
from upstream_guard.controller.stops import StopBook
from upstream_guard.core.acceptance import in_force
from upstream_guard.core.attach import old_pods_cover_attach
from upstream_guard.core.injection import Injection, InjectionRequest, inject
from upstream_guard.core.model import DrainMode, Guard, ListMode, Service
from upstream_guard.core.tuning import DrainAdvice, GatewayFacts, advise_drain
from upstream_guard.gateways import discover
from upstream_guard.kube.state import ClusterState


@dataclass(frozen=True, slots=True)
class Claim:
    """A guard in force that selects a pod, with its advice."""

    guard: Guard
    service: Service
    advice: DrainAdvice


class DrainAdvisor:
    """Finds the gateways of guards and turns them into settings."""

    def __init__(
        self, state: ClusterState, book: GuardBook, controlled: Callable[[], bool], minor: int
    ) -> None:
        """Wire it.

        Args:
            state: The cluster.
            book: The guards.
            controlled: Whether somebody holds the Lease now.
            minor: Minor version of the API server; the `sleep` hook needs 30.
        """
        self._state = state
        self._book = book
        self._controlled = controlled
        self.stops = StopBook()
        self.sleep_supported = minor >= 30

    def gateways(self, service: Service) -> tuple[GatewayFacts, ...]:
        """The gateways that lead to a Service."""
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
        clusterable = service.cluster_ip not in {"", "None"}
        covering = old_pods_cover_attach(guard.upstream_list, gateways)
        advice = advise_drain(guard.drain, covering, cluster_ip_clients=clusterable)
        return replace(advice, app=self.stops.found(guard.ref))

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
