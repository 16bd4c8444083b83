"""The cluster's own addresses, out of its state: what no external upstream may be."""

from collections.abc import Iterable

from upstream_guard.core.allowance import Premises, premises_of
from upstream_guard.core.model import ObjectRef
from upstream_guard.kube.state import ClusterState

_API_SERVER = ObjectRef("default", "kubernetes")


def gather_premises(state: ClusterState, given: Iterable[str] = ()) -> Premises:
    """Everything known to be the cluster's.

    Args:
        state: The cluster, as far as it can be seen.
        given: Ranges that an administrator names beside; with them an operator that sees one namespace
            only knows what it must not touch.
    """
    named = tuple(given)
    ranges = [(text, "a range of the cluster") for text in named]
    ranges += [(text, "the range of Services") for text in state.service_ranges]
    addresses: dict[str, str] = {}
    for node in state.nodes.values():
        ranges += [(text, "pods of a node") for text in node.pod_ranges]
        addresses.update(dict.fromkeys(node.addresses, "a node's address"))
    for pods in state.pods.values():
        for pod in pods.values():
            addresses.update(dict.fromkeys((pod.ip, *pod.other_ips), "a pod's address"))
    for services in state.services.values():
        for service in services.values():
            addresses.update(dict.fromkeys(service.addresses, "a Service's address"))
    for slice_ in state.slices_of(_API_SERVER):
        for endpoint in slice_.endpoints:
            addresses.update(dict.fromkeys(endpoint.addresses, "the API server's address"))
    addresses.pop("", None)
    return premises_of(ranges, addresses, known=state.sees_nodes or bool(named))
