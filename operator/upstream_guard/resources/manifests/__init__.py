"""Manifests and API objects to what predictions are made from.

Nothing here raises, whatever the objects look like: what has the wrong type counts as absent
(`mistakes_of` tells what that is), and what cannot be understood at all is passed over. Kubernetes'
defaults are filled in. Kinds that run no Service's pods (Job, CronJob) and kinds of other groups (a
Knative Service, an Istio Gateway) are not read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from upstream_guard.core.names import GROUP, GUARD_KIND, PROFILE_KIND
from upstream_guard.core.predict.state import Workload, World
from upstream_guard.resources.manifests.assembly import Inventory, assemble, assemble_world
from upstream_guard.resources.manifests.cluster import (
    NODE,
    POD,
    parse_known_pod,
    parse_node_state,
)
from upstream_guard.resources.manifests.guards import (
    guard_facts,
    parse_guard_or_why,
    parse_profile_or_why,
    settle_drain,
)
from upstream_guard.resources.manifests.limits import (
    AUTOSCALER,
    BUDGET,
    POLICY,
    QUOTA,
    parse_autoscaler,
    parse_budget,
    parse_network_policy,
    parse_quota,
)
from upstream_guard.resources.manifests.reading import Reader, mistakes_in
from upstream_guard.resources.manifests.traffic import (
    BACKEND_TLS,
    CLASS,
    GATEWAY,
    GRANT,
    INGRESS,
    ROUTE,
    SERVICE,
    parse_backend_tls,
    parse_gateway,
    parse_gateway_class,
    parse_grant,
    parse_grpcroute_state,
    parse_httproute_state,
    parse_ingress_class,
    parse_ingress_state,
    parse_service_state,
    parse_tcproute_state,
    parse_tlsroute_state,
)
from upstream_guard.resources.manifests.values import (
    BackendTls,
    ControllerClass,
    GatewayRef,
    KnownPod,
    Parsed,
)
from upstream_guard.resources.manifests.workloads import (
    DAEMONSET,
    DEPLOYMENT,
    REPLICASET,
    REPLICATION_CONTROLLER,
    ROLLOUT,
    STATEFULSET,
    parse_daemonset,
    parse_deployment,
    parse_replicaset,
    parse_replication_controller,
    parse_rollout,
    parse_statefulset,
)

__all__ = [
    "PARSERS",
    "READERS",
    "BackendTls",
    "ControllerClass",
    "GatewayRef",
    "Inventory",
    "KnownPod",
    "Parsed",
    "assemble",
    "assemble_world",
    "guard_facts",
    "mistakes_of",
    "parse",
    "parse_autoscaler",
    "parse_backend_tls",
    "parse_budget",
    "parse_daemonset",
    "parse_deployment",
    "parse_gateway",
    "parse_gateway_class",
    "parse_grant",
    "parse_grpcroute_state",
    "parse_guard_or_why",
    "parse_httproute_state",
    "parse_ingress_class",
    "parse_ingress_state",
    "parse_known_pod",
    "parse_network_policy",
    "parse_node_state",
    "parse_profile_or_why",
    "parse_quota",
    "parse_replicaset",
    "parse_replication_controller",
    "parse_rollout",
    "parse_service_state",
    "parse_statefulset",
    "parse_tcproute_state",
    "parse_tlsroute_state",
    "parse_workload",
    "read_world",
    "settle_drain",
]

Parser = Callable[[object], Parsed | None]

_GATEWAY_API: Final = "gateway.networking.k8s.io"

PARSERS: Final[Mapping[tuple[str, str], Parser]] = MappingProxyType(
    {
        ("apps", "Deployment"): parse_deployment,
        ("extensions", "Deployment"): parse_deployment,
        ("apps", "StatefulSet"): parse_statefulset,
        ("apps", "DaemonSet"): parse_daemonset,
        ("extensions", "DaemonSet"): parse_daemonset,
        ("apps", "ReplicaSet"): parse_replicaset,
        ("extensions", "ReplicaSet"): parse_replicaset,
        ("", "ReplicationController"): parse_replication_controller,
        ("argoproj.io", "Rollout"): parse_rollout,
        ("", "Pod"): parse_known_pod,
        ("", "Node"): parse_node_state,
        ("", "Service"): parse_service_state,
        ("networking.k8s.io", "Ingress"): parse_ingress_state,
        ("extensions", "Ingress"): parse_ingress_state,
        ("networking.k8s.io", "IngressClass"): parse_ingress_class,
        (_GATEWAY_API, "HTTPRoute"): parse_httproute_state,
        (_GATEWAY_API, "GRPCRoute"): parse_grpcroute_state,
        (_GATEWAY_API, "TLSRoute"): parse_tlsroute_state,
        (_GATEWAY_API, "TCPRoute"): parse_tcproute_state,
        (_GATEWAY_API, "Gateway"): parse_gateway,
        (_GATEWAY_API, "GatewayClass"): parse_gateway_class,
        (_GATEWAY_API, "ReferenceGrant"): parse_grant,
        (_GATEWAY_API, "BackendTLSPolicy"): parse_backend_tls,
        ("policy", "PodDisruptionBudget"): parse_budget,
        ("autoscaling", "HorizontalPodAutoscaler"): parse_autoscaler,
        ("networking.k8s.io", "NetworkPolicy"): parse_network_policy,
        ("extensions", "NetworkPolicy"): parse_network_policy,
        ("", "ResourceQuota"): parse_quota,
        (GROUP, GUARD_KIND): parse_guard_or_why,
        (GROUP, PROFILE_KIND): parse_profile_or_why,
    }
)
"""The parser of each kind by API group (empty for the core) and kind; none of them looks at either.

Each gives None for an object that it cannot use, e.g. one without a name.
"""

READERS: Final[Mapping[tuple[str, str], Reader]] = MappingProxyType(
    {
        ("apps", "Deployment"): DEPLOYMENT,
        ("extensions", "Deployment"): DEPLOYMENT,
        ("apps", "StatefulSet"): STATEFULSET,
        ("apps", "DaemonSet"): DAEMONSET,
        ("extensions", "DaemonSet"): DAEMONSET,
        ("apps", "ReplicaSet"): REPLICASET,
        ("extensions", "ReplicaSet"): REPLICASET,
        ("", "ReplicationController"): REPLICATION_CONTROLLER,
        ("argoproj.io", "Rollout"): ROLLOUT,
        ("", "Pod"): POD,
        ("", "Node"): NODE,
        ("", "Service"): SERVICE,
        ("networking.k8s.io", "Ingress"): INGRESS,
        ("extensions", "Ingress"): INGRESS,
        ("networking.k8s.io", "IngressClass"): CLASS,
        (_GATEWAY_API, "HTTPRoute"): ROUTE,
        (_GATEWAY_API, "GRPCRoute"): ROUTE,
        (_GATEWAY_API, "TLSRoute"): ROUTE,
        (_GATEWAY_API, "TCPRoute"): ROUTE,
        (_GATEWAY_API, "Gateway"): GATEWAY,
        (_GATEWAY_API, "GatewayClass"): CLASS,
        (_GATEWAY_API, "ReferenceGrant"): GRANT,
        (_GATEWAY_API, "BackendTLSPolicy"): BACKEND_TLS,
        ("policy", "PodDisruptionBudget"): BUDGET,
        ("autoscaling", "HorizontalPodAutoscaler"): AUTOSCALER,
        ("networking.k8s.io", "NetworkPolicy"): POLICY,
        ("extensions", "NetworkPolicy"): POLICY,
        ("", "ResourceQuota"): QUOTA,
    }
)
"""The fields that are read of each kind, as in `PARSERS`; resources of ours tell their mistakes themselves."""

_LIST: Final = "List"


def read_world(objects: Iterable[Mapping[str, Any]], *, complete: bool = False) -> World:
    """Everything that the objects say.

    A guard's `Auto` preStop is left at 0, for the gateways are not known here; `settle_drain` adds it.

    Args:
        objects: Raw objects from files or from the API, Lists included, in any order; of two of one
            kind and name the later one counts. An object without a namespace is in `default`.
        complete: Whether these are all objects of a cluster, so that absent means absent.
    """
    found = (parse(obj) for obj in _flatten(objects))
    return assemble_world(Inventory(v for v in found if v is not None), complete=complete)


def parse(obj: object) -> Parsed | None:
    """Any one object, by its `apiVersion` and `kind`; None where it is of no use."""
    if not isinstance(obj, Mapping):
        return None
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        return None
    group = version.rpartition("/")[0]
    parser = PARSERS.get((group, kind))
    return None if parser is None else parser(obj)


def mistakes_of(obj: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What counts as absent in an object because it has the wrong type: field, and what is wrong with it."""
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if isinstance(version, str) and isinstance(kind, str):
        reader = READERS.get((version.rpartition("/")[0], kind))
        for path, what in mistakes_in(obj, reader) if reader is not None else ():
            yield path.removeprefix("."), what


def parse_workload(obj: object) -> Workload | None:
    """As `parse`, for an object that runs pods; a Pod that nothing controls is one of them."""
    found = parse(obj)
    if isinstance(found, KnownPod):
        return found.bare
    return found if isinstance(found, Workload) else None


def _flatten(objects: Iterable[object]) -> Iterator[object]:
    """The objects, and in place of a List its items."""
    for obj in objects:
        seen: set[int] = set()
        waiting = [obj]
        while waiting:
            current = waiting.pop()
            items = _items(current)
            if items is None:
                yield current
            elif id(current) not in seen:
                # A YAML alias may repeat a List many times over, or put it into itself.
                seen.add(id(current))
                waiting.extend(reversed(items))


def _items(obj: object) -> list[object] | None:
    """The items of a List, each with the kind that an API's `ServiceList` leaves out; None of others."""
    if not isinstance(obj, Mapping):
        return None
    kind, items = obj.get("kind"), obj.get("items")
    if not isinstance(kind, str) or not kind.endswith(_LIST) or not isinstance(items, list):
        return None
    if kind == _LIST:
        return items
    said = {"apiVersion": obj.get("apiVersion"), "kind": kind.removesuffix(_LIST)}
    return [{**said, **item} if isinstance(item, Mapping) else item for item in items]
