"""What predictions need of a cluster beside pods: workloads, and what people write around Services."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from upstream_guard.core.model import ObjectRef, Route, Service
from upstream_guard.core.predict.live import WorkloadSight
from upstream_guard.core.predict.state import RouteState, ServiceState
from upstream_guard.kube.client import Json
from upstream_guard.resources.kube_objects import parse_httproute, parse_ingress, parse_service
from upstream_guard.resources.live import (
    parse_live_daemonset,
    parse_live_deployment,
    parse_live_statefulset,
)
from upstream_guard.resources.manifests import (
    Parsed,
    parse_autoscaler,
    parse_budget,
    parse_grant,
    parse_httproute_state,
    parse_ingress_state,
    parse_network_policy,
    parse_quota,
    parse_service_state,
)

GATEWAY_API: Final = "gateway.networking.k8s.io/v1"

Parser = Callable[[Json], Any]
OnChange = Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True)
class Watched:
    """One resource to follow.

    Attributes:
        group: As in paths: `v1`, `apps/v1`.
        plural: Its name in paths.
        parse: A raw object to a value; None for one that is of no use.
        on_change: Takes the old and the new value.
    """

    group: str
    plural: str
    parse: Parser
    on_change: OnChange


@dataclass(frozen=True, slots=True)
class SeenService:
    """A Service, for decisions and for predictions."""

    service: Service
    state: ServiceState | None


@dataclass(frozen=True, slots=True)
class SeenRoute:
    """An Ingress or HTTPRoute, for decisions and for predictions."""

    route: Route
    state: RouteState | None


def parse_seen_service(obj: Json) -> SeenService:
    """A v1 Service."""
    return SeenService(parse_service(obj), parse_service_state(obj))


def parse_seen_ingress(obj: Json) -> SeenRoute:
    """A networking.k8s.io/v1 Ingress."""
    return SeenRoute(parse_ingress(obj), parse_ingress_state(obj))


def parse_seen_httproute(obj: Json) -> SeenRoute:
    """A gateway.networking.k8s.io HTTPRoute."""
    return SeenRoute(parse_httproute(obj), parse_httproute_state(obj))


class Concern(Protocol):
    """Who wants to know what changed."""

    def workload_changed(self, sight: WorkloadSight) -> None:
        """A workload, or its controller's progress, changed."""

    def rules_changed(self, name: str) -> None:
        """Something changed that may concern every Service of a namespace."""


class Surroundings:
    """Workloads, budgets, autoscalers, policies, quotas and grants, by namespace."""

    def __init__(self, concern: Concern) -> None:
        self._concern = concern
        self._workloads: dict[str, dict[str, WorkloadSight]] = {}
        self._services: dict[ObjectRef, ServiceState] = {}
        self._routes: dict[ObjectRef, dict[tuple[str, ObjectRef], RouteState]] = {}
        self._rules: dict[str, dict[tuple[type, str], Parsed]] = {}

    def watched(self) -> Iterator[Watched]:
        """What is to be followed, every one of which may be forbidden or absent."""
        yield Watched("apps/v1", "deployments", parse_live_deployment, self._workload)
        yield Watched("apps/v1", "statefulsets", parse_live_statefulset, self._workload)
        yield Watched("apps/v1", "daemonsets", parse_live_daemonset, self._workload)
        yield Watched("policy/v1", "poddisruptionbudgets", parse_budget, self._rule)
        yield Watched("autoscaling/v2", "horizontalpodautoscalers", parse_autoscaler, self._rule)
        yield Watched("networking.k8s.io/v1", "networkpolicies", parse_network_policy, self._rule)
        # What is used of a quota changes with every pod: it is read when needed, and tells nobody.
        yield Watched("v1", "resourcequotas", parse_quota, self._quiet_rule)
        yield Watched(
            "gateway.networking.k8s.io/v1beta1", "referencegrants", parse_grant, self._rule
        )

    def service(self, ref: ObjectRef) -> ServiceState | None:
        """The Service as predictions see it."""
        return self._services.get(ref)

    def routes_to(self, service: ObjectRef) -> tuple[RouteState, ...]:
        """Routes that lead to the Service, in a stable order."""
        found = self._routes.get(service, {})
        return tuple(found[key] for key in sorted(found))

    def workloads(self, namespace: str) -> Iterable[WorkloadSight]:
        """Every workload of a namespace."""
        return self._workloads.get(namespace, {}).values()

    def rules(self, namespace: str) -> tuple[Parsed, ...]:
        """Budgets, autoscalers, policies, quotas and grants of a namespace."""
        return tuple(self._rules.get(namespace, {}).values())

    def put_service(self, ref: ObjectRef, state: ServiceState | None) -> None:
        """A Service changed; None where it is gone."""
        if state is None:
            self._services.pop(ref, None)
        else:
            self._services[ref] = state

    def put_route(self, old: SeenRoute | None, new: SeenRoute | None) -> None:
        """A route changed."""
        for seen, keep in ((old, False), (new, True)):
            if seen is None or seen.state is None:
                continue
            key = (seen.route.kind, seen.route.ref)
            for service in seen.route.services:
                known = self._routes.setdefault(service, {})
                known.pop(key, None)
                if keep:
                    known[key] = seen.state
                if not known:
                    del self._routes[service]

    def _workload(self, old: WorkloadSight | None, new: WorkloadSight | None) -> None:
        sight = new or old
        if sight is None:
            return
        namespace = sight.workload.ref.namespace
        known = self._workloads.setdefault(namespace, {})
        known.pop(sight.text, None)
        if new is not None:
            known[new.text] = new
        elif not known:
            del self._workloads[namespace]
        if old is not None and new is not None and _labels(old) != _labels(new):
            self._concern.workload_changed(old)
        self._concern.workload_changed(sight)

    def _rule(self, old: Any, new: Any) -> None:
        value = self._quiet_rule(old, new)
        if value is not None:
            self._concern.rules_changed(value.ref.namespace)

    def _quiet_rule(self, old: Any, new: Any) -> Any:
        value = new if new is not None else old
        if value is None:
            return None
        namespace, key = value.ref.namespace, (type(value), value.ref.name)
        known = self._rules.setdefault(namespace, {})
        if new is not None:
            known[key] = new
        else:
            known.pop(key, None)
            if not known:
                del self._rules[namespace]
        return value


def _labels(sight: WorkloadSight) -> object:
    return sight.workload.template.labels
