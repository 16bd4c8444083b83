"""Nodes that are about to go away, by their taints, and what must keep serving elsewhere meanwhile."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from upstream_guard.core.model import Pod
from upstream_guard.core.predict.play import disruptions_allowed
from upstream_guard.core.predict.state import Budget

LEAVING_TAINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # kubernetes.io/docs/reference/labels-annotations-taints
        "node.kubernetes.io/out-of-service": "an admin: the node is shut down for good",
        "node.cloudprovider.kubernetes.io/shutdown": "the cloud provider: the node is shut down",
        # kubernetes/autoscaler: set just before a node is drained and deleted
        "ToBeDeletedByClusterAutoscaler": "the Cluster Autoscaler",
        # aws/aws-node-termination-handler, README: TAINT_NODE
        "aws-node-termination-handler/spot-itn": "AWS: a spot interruption in two minutes",
        "aws-node-termination-handler/asg-lifecycle-termination": "AWS: the scaling group ends it",
        # the argument of GKE's maintenance handler
        "cloud.google.com/impending-node-termination": "GKE: a preemption or maintenance",
        # learn.microsoft.com/azure/aks/node-auto-drain
        "remediator.kubernetes.azure.com/unschedulable": "AKS: a preemption or redeployment",
        # karpenter.sh/docs/concepts/disruption; the second before its v1
        "karpenter.sh/disrupted": "Karpenter",
        "karpenter.sh/disruption": "Karpenter",
    }
)
"""Taints that say that a node goes soon, and who sets them.

A mere cordon is none: people cordon for many reasons. Nor are forecasts, such as
`aws-node-termination-handler/rebalance-recommendation`, maintenance planned for some day, or the
autoscaler's `DeletionCandidateOfClusterAutoscaler`.
"""


def leaving_by(taints: Iterable[str]) -> str:
    """The first of these taints' keys that says that the node goes soon; empty where none does."""
    return next((key for key in taints if key in LEAVING_TAINTS), "")


@dataclass(frozen=True, slots=True)
class Reserve:
    """Pods of which so many must serve on nodes that stay, before any on a node that goes is let go."""

    pods: frozenset[str]
    need: int


def reserve_of(budget: Budget, pods: Iterable[Pod]) -> Reserve:
    """What a PodDisruptionBudget asks for.

    A pod that is out of the list counts as disrupted. Below the budget the API server would refuse to
    evict even that one (`unhealthyPodEvictionPolicy: IfHealthyBudget`), and the drain would wait for it.
    """
    found = frozenset(
        p.uid for p in pods if budget.selector.matches(p.labels) and not p.terminating
    )
    return Reserve(found, len(found) - disruptions_allowed((budget,), len(found)))
