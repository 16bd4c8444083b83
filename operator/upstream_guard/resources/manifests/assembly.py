"""Parsed values to the state of each Service: indexes, and what belongs together."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from upstream_guard.core.acceptance import in_force
from upstream_guard.core.model import Guard, ObjectRef
from upstream_guard.core.predict.state import (
    Autoscaler,
    Backend,
    Budget,
    Grant,
    LabelSelector,
    NetworkPolicy,
    NodeState,
    Quota,
    Refused,
    RouteState,
    ServiceState,
    State,
    Workload,
    World,
)
from upstream_guard.core.tuning import GatewayProfile
from upstream_guard.resources.kube_objects import DEFAULT_CLASS
from upstream_guard.resources.manifests.annotations import hints_of
from upstream_guard.resources.manifests.guards import guard_facts
from upstream_guard.resources.manifests.traffic import shortest
from upstream_guard.resources.manifests.values import (
    BackendTls,
    ControllerClass,
    GatewayRef,
    KnownPod,
    Parsed,
)

Value = TypeVar("Value")
Limit = TypeVar("Limit", Budget, NetworkPolicy)
Key = tuple[str, ObjectRef]
"""A workload or route: its kind and name."""


class LabelIndex(Generic[Value]):
    """Labelled things, found by a selector without looking at each of them."""

    def __init__(self, entries: Iterable[tuple[str, Mapping[str, str], Value]]) -> None:
        """Index `(namespace, labels, value)`."""
        self._all: dict[str, list[tuple[Mapping[str, str], Value]]] = defaultdict(list)
        self._by_label: dict[tuple[str, str, str], list[tuple[Mapping[str, str], Value]]] = (
            defaultdict(list)
        )
        for namespace, labels, value in entries:
            entry = (labels, value)
            self._all[namespace].append(entry)
            for key, text in labels.items():
                self._by_label[namespace, key, text].append(entry)

    def select(self, namespace: str, selector: LabelSelector) -> Iterator[Value]:
        """What the selector matches, in the order of insertion; an empty one matches everything."""
        fewest = min(
            (self._by_label.get((namespace, k, v), []) for k, v in selector.labels.items()),
            key=len,
            default=self._all.get(namespace, []),
        )
        return (value for labels, value in fewest if selector.matches(labels))


class Inventory:
    """Parsed objects of some namespaces or of a cluster, indexed the way `assemble` asks for them.

    Of two objects of one kind and name the later one counts, as with `kubectl apply`.
    """

    def __init__(self, values: Iterable[Parsed]) -> None:
        self._values: dict[type, dict[Hashable, Any]] = defaultdict(dict)
        for value in values:
            self._store(value)
        self.services: Mapping[ObjectRef, ServiceState] = {
            service.ref: service for service in self.of(ServiceState)
        }
        self._workloads = LabelIndex(
            (w.ref.namespace, w.template.labels, w) for w in self.of(Workload)
        )
        self._neighbours = {
            namespace: tuple(found)
            for namespace, found in _grouped(
                (w.ref.namespace, w) for w in self.of(Workload)
            ).items()
        }
        self._pods = LabelIndex((p.ref.namespace, p.labels, p.state) for p in self.of(KnownPod))
        self._routes = _grouped(
            (target, route) for route in self.of(RouteState) for target in _targets(route)
        )
        self._budgets = self._by_workload(self.of(Budget))
        self._policies = self._by_workload(self.of(NetworkPolicy))
        self._autoscalers = _grouped(((a.ref.namespace, a.target), a) for a in self.of(Autoscaler))
        self._quotas = _grouped((q.ref.namespace, q) for q in self.of(Quota))
        self._grants = _grouped((g.ref.namespace, g) for g in self.of(Grant))
        self._guards = _grouped((g.service_ref, g) for g in self.of(Guard))
        self._tls = frozenset(s for policy in self.of(BackendTls) for s in policy.services)

    def _store(self, value: Parsed) -> None:
        self._values[type(value)][_identity(value)] = value
        if isinstance(value, KnownPod) and value.bare is not None:
            self._store(value.bare)

    def _by_workload(self, values: Iterable[Limit]) -> Mapping[Key, list[Limit]]:
        """Budgets or policies by the workloads whose pods they select."""
        return _grouped(
            ((workload.kind, workload.ref), value)
            for value in values
            for workload in self._workloads.select(value.ref.namespace, value.selector)
        )

    def of(self, kind: type[Value]) -> tuple[Value, ...]:
        """All values of one type, in the order in which they came."""
        return tuple(self._values.get(kind, {}).values())

    def workloads_of(self, service: ServiceState) -> tuple[Workload, ...]:
        """What the Service selects, most replicas first."""
        found = self._workloads.select(*_selected(service)) if service.service.selector else ()
        return tuple(sorted(found, key=lambda w: (-w.replicas, w.kind, w.ref)))

    def surroundings_of(
        self, service: ServiceState, workloads: tuple[Workload, ...]
    ) -> dict[str, Any]:
        """Of a Service and its workloads: the fields of `State` that hold everything else."""
        namespace = service.ref.namespace
        keys = [(w.kind, w.ref) for w in workloads]
        guard = in_force(service.service, self._guards.get(service.ref, ()))
        return {
            "routes": self._routes_to(service),
            "budgets": _each_once(b for key in keys for b in self._budgets.get(key, ())),
            "policies": _each_once(p for key in keys for p in self._policies.get(key, ())),
            "autoscalers": tuple(
                a for w in workloads for a in self._autoscalers.get((namespace, w.text), ())
            ),
            "quotas": tuple(self._quotas.get(namespace, ())),
            "grants": tuple(self._grants.get(namespace, ())),
            "neighbours": () if workloads else self._neighbours.get(namespace, ()),
            "guard": None if guard is None else guard_facts(guard),
        }

    def running(self, service: ServiceState) -> dict[str, Any]:
        """The fields of `State` that only a cluster knows."""
        selects = bool(service.service.selector)
        return {
            "pods": tuple(self._pods.select(*_selected(service))) if selects else (),
            "nodes": self.of(NodeState),
        }

    def _routes_to(self, service: ServiceState) -> tuple[RouteState, ...]:
        routes = _each_once(self._routes.get(service.ref, ()))
        return tuple(_toward(route, service, tls=service.ref in self._tls) for route in routes)

    def classes(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """`World.ingress_classes` and `World.gateway_controllers`."""
        ingress: dict[str, str] = {}
        gateway: dict[str, str] = {}
        for found in self.of(ControllerClass):
            known = ingress if found.kind == "IngressClass" else gateway
            known[found.ref.name] = found.controller
            if found.default and known is ingress:
                ingress[DEFAULT_CLASS] = found.controller
        controllers = {str(g.ref): gateway.get(g.class_name, "") for g in self.of(GatewayRef)}
        return ingress, controllers


def assemble(service: ServiceState, inventory: Inventory, *, complete: bool = False) -> State:
    """The state of one Service.

    Args:
        service: The Service.
        inventory: At least the parsed objects of its namespace and the routes that lead to it.
        complete: As in `State`. Pods and nodes count only where it is true.
    """
    workloads = inventory.workloads_of(service)
    return State(
        service=service,
        workloads=workloads,
        complete=complete,
        **inventory.surroundings_of(service, workloads),
        **(inventory.running(service) if complete else {}),
    )


def assemble_world(inventory: Inventory, *, complete: bool = False) -> World:
    """The state of every Service, with what `World` holds beside."""
    ingress_classes, gateway_controllers = inventory.classes()
    return World(
        states=tuple(
            assemble(service, inventory, complete=complete)
            for service in inventory.services.values()
        ),
        services=inventory.services,
        routes=inventory.of(RouteState),
        grants=inventory.of(Grant),
        workloads=inventory.of(Workload),
        guards=inventory.of(Guard),
        profiles=inventory.of(GatewayProfile),
        refused=inventory.of(Refused),
        ingress_classes=ingress_classes,
        gateway_controllers=gateway_controllers,
        complete=complete,
    )


def _identity(value: Parsed) -> Hashable:
    if isinstance(value, NodeState | GatewayProfile):
        return value.name
    if isinstance(value, Workload | RouteState | ControllerClass | Refused):
        return value.kind, value.ref
    return value.ref


def _grouped(pairs: Iterable[tuple[Hashable, Value]]) -> dict[Any, list[Value]]:
    groups: dict[Any, list[Value]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def _each_once(values: Iterable[Value]) -> tuple[Value, ...]:
    """By identity, in order: the values hold dicts, so they cannot be hashed."""
    return tuple({id(value): value for value in values}.values())


def _selected(service: ServiceState) -> tuple[str, LabelSelector]:
    return service.ref.namespace, LabelSelector(service.service.selector)


def _targets(route: RouteState) -> Iterator[ObjectRef]:
    return (ObjectRef(b.namespace, b.service) for b in route.backends if b.kind == "Service")


def _toward(route: RouteState, service: ServiceState, *, tls: bool) -> RouteState:
    """A route as this Service meets it: with what the Service's own annotations and policies say."""
    hints = hints_of(service.annotations)
    changes: dict[str, Any] = {}
    if route.kind == "Ingress":
        if hints.timeout is not None:
            changes["request_timeout"] = hints.timeout
        changes |= {
            "grpc": route.grpc or hints.grpc,
            "backend_tls": route.backend_tls or hints.tls,
            "sticky": route.sticky or hints.sticky,
        }
    else:
        here = (b for b in route.backends if _leads(b, service.ref))
        changes = {
            "request_timeout": shortest(here),
            "backend_tls": route.backend_tls or tls,
        }
    return replace(route, **changes)


def _leads(backend: Backend, ref: ObjectRef) -> bool:
    return backend.kind == "Service" and (backend.namespace, backend.service) == (
        ref.namespace,
        ref.name,
    )
