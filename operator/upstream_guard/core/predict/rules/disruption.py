"""Disruptions: what PodDisruptionBudgets, autoscalers and nodes do to the number of pods."""

from collections.abc import Iterator

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.play import disruptions_allowed, resolve
from upstream_guard.core.predict.rules.reporting import (
    Mend,
    create,
    in_object,
    in_workload,
    merge,
    pod_patch,
    report,
    strategic,
)
from upstream_guard.core.predict.rules.serving import autoscaler, replicas
from upstream_guard.core.predict.rules.stores import store_behind
from upstream_guard.core.predict.state import Autoscaler, Budget, ChangeKind, State, Workload
from upstream_guard.core.predict.window import Finding, Remedy, Severity

_DRAIN = frozenset({ChangeKind.NODE_DRAIN})
_MANAGED = frozenset({"Deployment", "StatefulSet", "ReplicaSet"})
"""Kinds that a drain evicts and whose controller replaces what is evicted, on another node."""


def _managed(state: State) -> Iterator[tuple[Workload, int]]:
    """The workloads of several pods that drains move, with their least number of pods."""
    for workload in state.workloads:
        count = replicas(state, workload)
        if workload.kind in _MANAGED and count > 1:
            yield workload, count


def _budgets(state: State, workload: Workload) -> tuple[Budget, ...]:
    labels = workload.template.labels
    return tuple(budget for budget in state.budgets if budget.selector.matches(labels))


def no_disruption_budget(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """Several pods, of which a drain may evict all at the same time."""
    for workload, count in _managed(state):
        if not _budgets(state, workload):
            yield report(
                "no-disruption-budget",
                in_workload(workload, "spec"),
                f"no PodDisruptionBudget selects the pods of `{workload.text}`: a drain may evict all "
                f"of its {count} pods that are on a node at once",
                _new_budget(state, workload),
                _DRAIN,
            )


def _new_budget(state: State, workload: Workload) -> Remedy:
    labels = workload.match_labels or state.service.service.selector
    ref = ObjectRef(workload.ref.namespace, workload.ref.name)
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": dict(labels)}}
    reason = "a drain waits until an evicted pod is replaced before it takes the next"
    return create("PodDisruptionBudget", ref, "policy/v1", spec, reason)


def disruption_budget_blocks(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A budget that allows no eviction: drains hang until somebody uses force."""
    for workload in state.workloads:
        budgets = _budgets(state, workload)
        count = _most(state, workload)
        if workload.kind not in _MANAGED or count <= 0:
            continue
        if len(budgets) > 1:
            yield _two_budgets(workload, budgets)
        for budget in budgets:
            if disruptions_allowed((budget,), count) == 0:
                yield _blocking(state, workload, budget, count)


def _most(state: State, workload: Workload) -> int:
    """The most pods there may be: a budget that allows nothing then never allows anything."""
    scaler = autoscaler(state, workload)
    if scaler is None or workload.replicas == 0:
        return workload.replicas
    return max(scaler.max_replicas, scaler.min_replicas, 1)


def _two_budgets(workload: Workload, budgets: tuple[Budget, ...]) -> Finding:
    names = " and ".join(f"`{budget.ref.name}`" for budget in budgets[:2])
    return report(
        "disruption-budget-blocks",
        in_object("PodDisruptionBudget", budgets[1].ref, "spec.selector"),
        f"PodDisruptionBudgets {names} select the same pods of `{workload.text}`: the eviction API "
        "refuses every eviction then",
        "which of the budgets is meant cannot be told: delete the other, or narrow its selector",
        _DRAIN,
    )


def _blocking(state: State, workload: Workload, budget: Budget, count: int) -> Finding:
    pods = "pod" if count == 1 else "pods"
    return report(
        "disruption-budget-blocks",
        in_object("PodDisruptionBudget", budget.ref, _field(budget)),
        f"{_demand(budget)} allows no eviction of the {count} {pods} of `{workload.text}`: a drain "
        "hangs until somebody uses force",
        _unblocked(state, workload, budget, count),
        _DRAIN,
    )


def _field(budget: Budget) -> str:
    return "spec.maxUnavailable" if budget.max_unavailable is not None else "spec.minAvailable"


def _demand(budget: Budget) -> str:
    if budget.max_unavailable is not None:
        return f"maxUnavailable `{budget.max_unavailable}`"
    return f"minAvailable `{budget.min_available}`"


def _unblocked(state: State, workload: Workload, budget: Budget, count: int) -> Mend:
    """One eviction at a time; a single pod gets company first, where two may share the work."""
    wanted = budget.min_available
    is_alone = count == 1 and workload.kind == "Deployment" and wanted is not None
    keeps_data = bool(workload.template.claims or store_behind(state, workload))
    if is_alone and not keeps_data and resolve(wanted, 2, up=True) < 2:
        where = in_workload(workload, "spec.replicas")
        reason = "with a second pod the budget allows one to move"
        return strategic(where, {"spec": {"replicas": 2}}, reason)
    return _one_at_a_time(budget, "drains take one pod at a time instead of hanging")


def _one_at_a_time(budget: Budget, reason: str) -> Remedy:
    where = in_object("PodDisruptionBudget", budget.ref, "spec")
    return merge(where, {"spec": {"minAvailable": None, "maxUnavailable": 1}}, reason)


def disruption_budget_useless(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A budget that allows all pods to be evicted at once."""
    for workload, count in _managed(state):
        for budget in _budgets(state, workload):
            if disruptions_allowed((budget,), count) >= count:
                yield report(
                    "disruption-budget-useless",
                    in_object("PodDisruptionBudget", budget.ref, _field(budget)),
                    f"{_demand(budget)} allows all {count} pods of `{workload.text}` to be evicted at "
                    "once",
                    _one_at_a_time(budget, "drains take one pod at a time"),
                    _DRAIN,
                )


def autoscaler_below_budget(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A minimum of the autoscaler at which the budget allows no eviction."""
    for workload in state.workloads:
        scaler = autoscaler(state, workload)
        if scaler is None or workload.replicas == 0:
            continue
        for budget in _budgets(state, workload):
            at_least = disruptions_allowed((budget,), scaler.min_replicas)
            at_most = disruptions_allowed((budget,), _most(state, workload))
            if at_least == 0 and at_most > 0:
                yield report(
                    "autoscaler-below-budget",
                    in_object("HorizontalPodAutoscaler", scaler.ref, "spec.minReplicas"),
                    f"autoscaler `{scaler.ref.name}` may go down to {scaler.min_replicas}, where "
                    f"{_demand(budget)} of PodDisruptionBudget `{budget.ref.name}` allows no eviction",
                    _reconciled(scaler, budget),
                    _DRAIN,
                )


def _reconciled(scaler: Autoscaler, budget: Budget) -> Remedy:
    """A minimum that leaves one pod to evict, where the maximum has room for it."""
    enough = next(
        (
            count
            for count in range(scaler.min_replicas + 1, min(scaler.max_replicas, 1000) + 1)
            if disruptions_allowed((budget,), count) > 0
        ),
        None,
    )
    reason = "at its minimum one pod may still be evicted"
    if enough is None:
        return _one_at_a_time(budget, reason)
    where = in_object("HorizontalPodAutoscaler", scaler.ref, "spec.minReplicas")
    return merge(where, {"spec": {"minReplicas": enough}}, reason)


def one_node(state: State, _gateways: tuple[Gateway, ...], _facts: Facts) -> Iterator[Finding]:
    """Replicas that are, or may be, all on one node."""
    for workload, count in _managed(state):
        if workload.template.node_bound:
            yield _on_one_node(
                workload,
                f"all {count} pods of `{workload.text}` are bound to one node by their template",
                "remove the node name from the template, or run a workload of one pod per node",
                Severity.WARNING,
            )
            continue
        together = _together(state)
        if together:
            yield _on_one_node(
                workload,
                f"all pods of `{workload.text}` run on node `{together}`",
                _spread(state, workload),
                Severity.WARNING,
            )
        elif not workload.template.spread and not state.pods:
            yield _on_one_node(
                workload,
                f"nothing keeps the {count} pods of `{workload.text}` on different nodes",
                _spread(state, workload),
                Severity.INFO,
            )


def _on_one_node(workload: Workload, told: str, mend: Mend, severity: Severity) -> Finding:
    return report(
        "one-node",
        in_workload(workload, f"{workload.template.path}.topologySpreadConstraints"),
        told,
        mend,
        _DRAIN | {ChangeKind.NODE_LOSS},
        severity,
    )


def _together(state: State) -> str:
    """The node on which all running pods are, though there are others; empty where there is none."""
    nodes = {pod.node for pod in state.pods if not pod.terminating}
    usable = [node for node in state.nodes if node.ready and node.schedulable]
    if len(nodes) != 1 or len(usable) < 2 or len(state.pods) < 2:
        return ""
    return next(iter(nodes))


def _spread(state: State, workload: Workload) -> Remedy:
    labels = workload.match_labels or state.service.service.selector
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": dict(labels)},
    }
    return pod_patch(
        workload,
        {"topologySpreadConstraints": [constraint]},
        "the scheduler puts pods on different nodes where it can",
    )


def node_shutdown(state: State, _gateways: tuple[Gateway, ...], _facts: Facts) -> Iterator[Finding]:
    """Nodes whose kubelet ends pods without asking them when the machine shuts down."""
    workload = state.workload
    if state.kubelet_shutdown_grace != 0 or workload is None:
        return
    yield report(
        "node-shutdown",
        in_workload(workload, workload.template.path),
        "the kubelets' `shutdownGracePeriod` is 0: when a node shuts down, its pods of "
        f"`{workload.text}` end without their preStop hook",
        "a setting of the nodes: set `shutdownGracePeriod` in the kubelet's configuration, or drain "
        "nodes before they shut down",
        {ChangeKind.NODE_LOSS},
    )
