"""Where the gateways in front of guarded Services can be read: each replica by itself."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from upstream_guard.controller.guards import GuardBook
from upstream_guard.core.holding import address_of, ready_endpoints
from upstream_guard.core.model import ObjectRef, Pod, Service
from upstream_guard.core.tuning import GatewayFacts, GatewayKind, GatewayProfile
from upstream_guard.gateways import profile_for, profile_of
from upstream_guard.gateways.adapter import Adapter, Known, PodSigns
from upstream_guard.gateways.client import replica_of
from upstream_guard.kube.state import ClusterState

SCRAPE: Final = "prometheus.io/scrape"
PORT: Final = "prometheus.io/port"
PATH: Final = "prometheus.io/path"
SCHEME: Final = "prometheus.io/scheme"
MAX_PATH: Final = 200


@dataclass(frozen=True, slots=True)
class Target:
    """One replica of a gateway, or a Prometheus that has the metrics of all of them.

    Attributes:
        gateway: `GatewayFacts.name`.
        controller: Its kind, as in the built-in profiles.
        metrics_url: Empty where its metrics cannot be read directly.
        admin_url: Empty where its upstream list cannot be read.
        address: IP address to connect to, for URLs whose host has several; empty takes any.
        prometheus_url: Empty where no Prometheus is asked.
        prometheus_token: Name of a token file.
        known: The guarded Services behind the gateway.
    """

    gateway: str
    controller: str
    metrics_url: str = ""
    admin_url: str = ""
    address: str = ""
    prometheus_url: str = ""
    prometheus_token: str = ""
    known: tuple[Known, ...] = field(default=(), hash=False)

    @property
    def key(self) -> tuple[str, ...]:
        """What makes it this target, whatever lies behind it."""
        return (
            self.gateway,
            self.controller,
            self.metrics_url,
            self.admin_url,
            self.address,
            self.prometheus_url,
            self.prometheus_token,
        )

    @property
    def replica(self) -> str:
        """`host:port` by which the replica goes."""
        return replica_of(self.metrics_url or self.admin_url or self.prometheus_url, self.address)

    @property
    def services(self) -> frozenset[ObjectRef]:
        """The guarded Services behind it."""
        return frozenset(known.service for known in self.known)


class GatewayFinder:
    """Finds targets in what is known of the cluster. Changes nothing."""

    def __init__(
        self,
        state: ClusterState,
        book: GuardBook,
        gateways: Callable[[Service], tuple[GatewayFacts, ...]],
        left: Callable[[ObjectRef], Iterable[str]],
    ) -> None:
        """Wire it.

        Args:
            state: The cluster.
            book: The guards and profiles.
            gateways: The gateways in front of a Service.
            left: Endpoints of a Service that have left lately: gateways may still hold them.
        """
        self._state = state
        self._book = book
        self._gateways = gateways
        self._left = left

    def targets(self) -> tuple[Target, ...]:
        """Every replica that can be read, in a stable order."""
        profiles = tuple(self._book.profiles.values())
        found: list[Target] = []
        for facts, known in self._behind():
            adapter = profile_of(facts.controller).adapter
            if adapter is not None:
                profile = profile_for(facts, profiles)
                found += self._of_gateway(facts, adapter, profile, known)
        return tuple(sorted(found, key=lambda target: target.key))

    def _behind(self) -> Iterator[tuple[GatewayFacts, tuple[Known, ...]]]:
        """Each gateway with the guarded Services behind it."""
        facts_of: dict[tuple[GatewayKind, str], GatewayFacts] = {}
        known: dict[tuple[GatewayKind, str], list[Known]] = {}
        for ref in sorted({e.guard.service_ref for e in self._book if e.guard is not None}):
            service = self._state.service(ref)
            if service is None:
                continue
            entry = self._known(service)
            for facts in self._gateways(service):
                facts_of[facts.kind, facts.name] = facts
                known.setdefault((facts.kind, facts.name), []).append(entry)
        for key in sorted(facts_of):
            yield facts_of[key], tuple(known[key])

    def _known(self, service: Service) -> Known:
        listed = ready_endpoints(self._state.slices_of(service.ref))
        routes = self._state.routes_to(service.ref)
        return Known(
            service=service.ref,
            cluster_ip="" if service.cluster_ip == "None" else service.cluster_ip,
            ports=service.ports,
            endpoints=listed | frozenset(self._left(service.ref)),
            rules=tuple(
                (route.ref, index, backends)
                for route in routes
                if route.kind == "HTTPRoute"
                for index, backends in enumerate(route.backends)
                if service.ref in backends
            ),
        )

    def _of_gateway(
        self,
        facts: GatewayFacts,
        adapter: Adapter,
        profile: GatewayProfile | None,
        known: tuple[Known, ...],
    ) -> Iterator[Target]:
        controller = facts.controller
        if profile and (profile.metrics_url or profile.admin_url or profile.prometheus_url):
            yield Target(
                gateway=facts.name,
                controller=controller,
                metrics_url=profile.metrics_url,
                admin_url=profile.admin_url if adapter.list_paths else "",
                prometheus_url=profile.prometheus_url,
                prometheus_token=profile.prometheus_token,
                known=known,
            )
        if adapter.pods is None or (profile and (profile.metrics_url or profile.prometheus_url)):
            return
        for pod in self._replicas(adapter.pods, facts.name):
            metrics_url = metrics_url_of(pod, adapter.pods)
            if metrics_url:
                admin_url = admin_url_of(pod, adapter.pods)
                yield Target(facts.name, controller, metrics_url, admin_url, known=known)

    def _replicas(self, signs: PodSigns, gateway: str) -> Iterator[Pod]:
        for pods in self._state.pods.values():
            for pod in pods.values():
                if pod.ip and not pod.finished and signs.owns(pod, gateway):
                    yield pod


def metrics_url_of(pod: Pod, signs: PodSigns) -> str:
    """Where a pod publishes metrics, by its annotations or its declared port; empty where it does not.

    Annotations are what Prometheus's well-known example configuration goes by.
    """
    notes = pod.annotations
    asked = notes.get(SCRAPE)
    declared = any(port.number == signs.port for port in pod.ports)
    if asked == "false" or (asked != "true" and not declared):
        return ""
    port = _port(notes.get(PORT, "")) or signs.port
    path = notes.get(PATH) or signs.path
    scheme = notes.get(SCHEME) or "http"
    if scheme not in {"http", "https"} or not _is_path(path):
        return ""
    return f"{scheme}://{address_of(pod.ip, port)}{path}"


def admin_url_of(pod: Pod, signs: PodSigns) -> str:
    """Where a pod tells its upstream list; empty where that is not reachable from outside."""
    if not signs.admin_port or all(port.number != signs.admin_port for port in pod.ports):
        return ""
    return f"http://{address_of(pod.ip, signs.admin_port)}/"


def _port(text: str) -> int:
    """0 where the text is no port."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if number <= 65535 else 0


def _is_path(text: str) -> bool:
    return (
        text.startswith("/")
        and len(text) <= MAX_PATH
        and text.isascii()
        and text.isprintable()
        and " " not in text
    )
