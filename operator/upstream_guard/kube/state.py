"""What the cluster looks like now: the parsed objects, indexed the way decisions ask for them."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from upstream_guard.core.model import (
    EndpointSlice,
    GatewayObject,
    Node,
    ObjectRef,
    Pod,
    Route,
    Service,
)
from upstream_guard.core.predict.live import WorkloadSight
from upstream_guard.kube.client import Json, KubeClient
from upstream_guard.kube.reflector import Reflector
from upstream_guard.kube.surroundings import (
    GATEWAY_API,
    SeenRoute,
    SeenService,
    Surroundings,
    parse_seen_httproute,
    parse_seen_ingress,
    parse_seen_service,
)
from upstream_guard.resources.kube_objects import (
    DEFAULT_CLASS,
    DEFAULT_CLASS_ANNOTATION,
    parse_gateway,
    parse_node,
    parse_pod,
    parse_slice,
)

T = TypeVar("T")
K = TypeVar("K")
Outer = TypeVar("Outer")


@dataclass(frozen=True, slots=True)
class Named:
    """An object of which only one text matters."""

    ref: ObjectRef
    text: str
    default: bool = False
    """Marked as the cluster's default class."""


class Touch(Protocol):
    """Who wants to know that something changed."""

    def pod(self, pod: Pod) -> None:
        """A pod changed (or, with its old labels, left its Services)."""

    def service(self, ref: ObjectRef) -> None:
        """A Service, its EndpointSlices or a route to it changed."""

    def slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """An EndpointSlice changed; for whoever times how long a verdict takes to get there."""

    def cluster(self) -> None:
        """Something changed that may concern every guard."""

    def selected(self, namespace: str, labels: Mapping[str, str]) -> None:
        """Something changed that concerns the Services which select these labels."""

    def namespace(self, name: str) -> None:
        """Something changed that may concern every guard of a namespace."""

    def node(self, name: str) -> None:
        """A node was cordoned or uncordoned, fell silent or came back."""


class ClusterState:
    """Reflectors and indexes."""

    def __init__(self, client: KubeClient, touch: Touch, namespace: str | None = None) -> None:
        self._touch = touch
        self.pods: dict[str, dict[str, Pod]] = {}
        """By namespace, then UID."""
        self.services: dict[str, dict[str, Service]] = {}
        """By namespace, then name."""
        self._slices: dict[ObjectRef, dict[str, EndpointSlice]] = {}
        self._routes: dict[ObjectRef, dict[tuple[str, ObjectRef], Route]] = {}
        self.nodes: dict[str, Node] = {}
        self.leaving: dict[str, str] = {}
        """The taint that says that a node goes soon, by node; of those that have one."""
        self.ingress_classes: dict[str, str] = {}
        """Controller by class name."""
        self.gateway_controllers: dict[str, str] = {}
        """GatewayClass controller by Gateway `namespace/name`."""
        self._gateway_classes: dict[str, str] = {}
        self.gateways: dict[str, GatewayObject] = {}
        """Gateways of the Gateway API by `namespace/name`."""
        self.owners: dict[ObjectRef, str] = {}
        """Deployment (or other owner) `kind/name` by ReplicaSet."""
        self._service_ranges: dict[str, str] = {}
        self.surroundings = Surroundings(self)
        self._whole = namespace is None
        self._reflectors = list(self._build(client, namespace))

    def _build(self, client: KubeClient, namespace: str | None) -> Iterable[Reflector[Any]]:
        def path(group: str, plural: str, *, cluster: bool = False) -> str:
            root = f"/apis/{group}" if "/" in group else f"/api/{group}"
            scope = "" if namespace is None or cluster else f"/namespaces/{namespace}"
            return f"{root}{scope}/{plural}"

        gateway_api = GATEWAY_API
        make = Reflector[Any]
        networking = "networking.k8s.io/v1"
        yield make(client, path("v1", "pods"), parse_pod, self._pod)
        yield make(client, path("v1", "services"), parse_seen_service, self._seen_service)
        yield make(client, path("discovery.k8s.io/v1", "endpointslices"), parse_slice, self._slice)
        yield make(client, path(networking, "ingresses"), parse_seen_ingress, self._seen_route)
        yield make(
            client,
            path("apps/v1", "replicasets"),
            _parse_owner,
            self._owner,
            metadata_only=True,
        )
        yield make(
            client,
            path(gateway_api, "httproutes"),
            parse_seen_httproute,
            self._seen_route,
            optional=True,
        )
        for watched in self.surroundings.watched():
            where = path(watched.group, watched.plural)
            yield make(client, where, watched.parse, watched.on_change, optional=True)
        yield make(
            client, path(gateway_api, "gateways"), parse_gateway, self._gateway, optional=True
        )
        if namespace is not None:
            return
        yield make(client, path("v1", "nodes", cluster=True), parse_node, self._node)
        yield make(
            client,
            path(networking, "servicecidrs", cluster=True),
            _parse_service_range,
            self._service_range,
            optional=True,
        )
        yield make(
            client,
            path(networking, "ingressclasses", cluster=True),
            _parse_class,
            self._ingress_class,
        )
        yield make(
            client,
            path(gateway_api, "gatewayclasses", cluster=True),
            _parse_class,
            self._gateway_class,
            optional=True,
        )

    async def run(self) -> None:
        """Follow everything until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())

    async def wait_synced(self) -> None:
        """Return once every first list is in."""
        for reflector in self._reflectors:
            await reflector.synced.wait()

    @property
    def synced(self) -> bool:
        """Every first list is in."""
        return all(reflector.synced.is_set() for reflector in self._reflectors)

    @property
    def complete(self) -> bool:
        """What is not seen is not there: nothing is out of our sight, and nothing was forbidden."""
        return self._whole and self.synced and not any(r.denied for r in self._reflectors)

    def ages(self) -> dict[str, float]:
        """Seconds since the API server last said something, by resource."""
        ages: dict[str, float] = {}
        for reflector in self._reflectors:
            ages[reflector.resource] = max(reflector.age, ages.get(reflector.resource, 0.0))
        return ages

    @property
    def sees_nodes(self) -> bool:
        """Nodes, and pods and Services of every namespace, are in our sight."""
        return self._whole

    @property
    def service_ranges(self) -> tuple[str, ...]:
        """Ranges that the cluster takes addresses of Services from; none before Kubernetes 1.33."""
        return tuple(r for text in self._service_ranges.values() for r in text.split(",") if r)

    def workload_changed(self, sight: WorkloadSight) -> None:
        """A workload, or its controller's progress, changed."""
        self._touch.selected(sight.workload.ref.namespace, sight.workload.template.labels)

    def rules_changed(self, namespace: str) -> None:
        """Something changed that may concern every Service of a namespace."""
        self._touch.namespace(namespace)

    def pods_of(self, service: Service) -> tuple[Pod, ...]:
        """Pods that the Service's selector matches; none where it has no selector."""
        if not service.selector:
            return ()
        pods = self.pods.get(service.ref.namespace, {}).values()
        return tuple(p for p in pods if not p.finished and matches(service.selector, p.labels))

    def services_of(self, pod: Pod) -> tuple[Service, ...]:
        """Services whose selector matches the pod."""
        return self.services_for(pod.ref.namespace, pod.labels)

    def services_for(self, namespace: str, labels: Mapping[str, str]) -> tuple[Service, ...]:
        """Services of the namespace whose selector matches the labels."""
        return tuple(
            s
            for s in self.services.get(namespace, {}).values()
            if s.selector and matches(s.selector, labels)
        )

    def service(self, ref: ObjectRef) -> Service | None:
        """The Service of that name."""
        return self.services.get(ref.namespace, {}).get(ref.name)

    def slices_of(self, service: ObjectRef) -> tuple[EndpointSlice, ...]:
        """The Service's EndpointSlices."""
        return tuple(self._slices.get(service, {}).values())

    def all_slices(self) -> tuple[EndpointSlice, ...]:
        """Every EndpointSlice."""
        return tuple(s for slices in self._slices.values() for s in slices.values())

    def routes_to(self, service: ObjectRef) -> tuple[Route, ...]:
        """Ingresses and HTTPRoutes that lead to the Service, in a stable order."""
        return tuple(
            route for _, route in sorted(self._routes.get(service, {}).items(), key=lambda i: i[0])
        )

    def listed(self, service: ObjectRef) -> frozenset[str]:
        """UIDs of the pods that the Service's EndpointSlices list as ready."""
        return frozenset(
            endpoint.pod_uid
            for slice_ in self.slices_of(service)
            for endpoint in slice_.endpoints
            if endpoint.ready
        )

    def workload_of(self, pod: Pod) -> str:
        """`kind/name` to hand to kubectl, e.g. `deployment/shop`; empty for a bare pod."""
        if pod.owner is None:
            return ""
        kind, name = pod.owner
        if kind == "ReplicaSet":
            return self.owners.get(ObjectRef(pod.ref.namespace, name), f"replicaset/{name}")
        return f"{kind.lower()}/{name}"

    def _pod(self, old: Pod | None, new: Pod | None) -> None:
        pod = _either(old, new)
        _store_under(self.pods, pod.ref.namespace, pod.uid, new)
        if old is not None and new is not None and old.labels != new.labels:
            self._touch.pod(old)
        self._touch.pod(pod)

    def _seen_service(self, old: SeenService | None, new: SeenService | None) -> None:
        ref = _either(old, new).service.ref
        self.surroundings.put_service(ref, new.state if new else None)
        self._service(old.service if old else None, new.service if new else None)

    def _seen_route(self, old: SeenRoute | None, new: SeenRoute | None) -> None:
        self.surroundings.put_route(old, new)
        self._route(old.route if old else None, new.route if new else None)

    def _service(self, old: Service | None, new: Service | None) -> None:
        service = _either(old, new)
        _store_under(self.services, service.ref.namespace, service.ref.name, new)
        self._touch.service(service.ref)
        if old is None or new is None or old.selector != new.selector:
            self._touch_selected(old, new)

    def _touch_selected(self, old: Service | None, new: Service | None) -> None:
        """Pods that came or went with a selector: their gates and their other guards are concerned."""
        for service in (old, new):
            for pod in self.pods_of(service) if service else ():
                self._touch.pod(pod)

    def _slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        value = _either(old, new)
        service = ObjectRef(value.ref.namespace, value.service)
        _store_under(self._slices, service, value.ref.name, new)
        self._touch.slice(old, new)
        self._touch.service(service)

    def _route(self, old: Route | None, new: Route | None) -> None:
        if old is not None:
            for service in old.services:
                _store_under(self._routes, service, (old.kind, old.ref), None)
        if new is not None:
            for service in new.services:
                self._routes.setdefault(service, {})[new.kind, new.ref] = new
        for service in (old.services if old else frozenset()) | (
            new.services if new else frozenset()
        ):
            self._touch.service(service)

    def _node(self, old: Node | None, new: Node | None) -> None:
        node = _either(old, new)
        _store(self.nodes, node.name, new)
        _store(self.leaving, node.name, new.leaving or None if new else None)
        if old is None or new is None or old.zone != new.zone:
            self._touch.cluster()
        else:
            self._touch.node(node.name)

    def _owner(self, old: Named | None, new: Named | None) -> None:
        _store(self.owners, _either(old, new).ref, new.text if new else None)

    def _service_range(self, old: Named | None, new: Named | None) -> None:
        _store(self._service_ranges, _either(old, new).ref.name, new.text if new else None)

    def _ingress_class(self, old: Named | None, new: Named | None) -> None:
        if old is not None:
            self.ingress_classes.pop(old.ref.name, None)
            if old.default:
                self.ingress_classes.pop(DEFAULT_CLASS, None)
        if new is not None:
            self.ingress_classes[new.ref.name] = new.text
            if new.default:
                self.ingress_classes[DEFAULT_CLASS] = new.text
        self._touch.cluster()

    def _gateway_class(self, old: Named | None, new: Named | None) -> None:
        _store(self._gateway_classes, _either(old, new).ref.name, new.text if new else None)
        self._link_gateways()

    def _gateway(self, old: GatewayObject | None, new: GatewayObject | None) -> None:
        _store(self.gateways, str(_either(old, new).ref), new)
        self._link_gateways()

    def _link_gateways(self) -> None:
        self.gateway_controllers = {
            name: self._gateway_classes.get(gateway.gateway_class, "")
            for name, gateway in self.gateways.items()
        }
        self._touch.cluster()


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Equality-based selection, as a Service does it."""
    return all(labels.get(key) == value for key, value in selector.items())


def _either(old: T | None, new: T | None) -> T:
    """The new object, or the old one where it is gone; a change always has one of them."""
    value = old if new is None else new
    if value is None:
        raise ValueError("a change has an old or a new object")
    return value


def _store(index: dict[K, T], key: K, value: T | None) -> None:
    if value is None:
        index.pop(key, None)
    else:
        index[key] = value


def _store_under(index: dict[Outer, dict[K, T]], outer: Outer, key: K, value: T | None) -> None:
    """Store one level down, and keep no empty level: namespaces and Services come and go."""
    _store(index.setdefault(outer, {}), key, value)
    if not index[outer]:
        del index[outer]


def _ref(obj: Json) -> ObjectRef:
    metadata = obj["metadata"]
    return ObjectRef(str(metadata.get("namespace") or ""), str(metadata["name"]))


def _parse_owner(obj: Json) -> Named:
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return Named(_ref(obj), f"{owner['kind'].lower()}/{owner['name']}")
    return Named(_ref(obj), f"replicaset/{obj['metadata']['name']}")


def _parse_service_range(obj: Json) -> Named:
    return Named(_ref(obj), ",".join((obj.get("spec") or {}).get("cidrs") or ()))


def _parse_class(obj: Json) -> Named:
    spec = obj.get("spec") or {}
    annotations = obj["metadata"].get("annotations") or {}
    return Named(
        _ref(obj),
        str(spec.get("controller") or spec.get("controllerName") or ""),
        annotations.get(DEFAULT_CLASS_ANNOTATION) == "true",
    )
