"""Disruption rules."""

import pytest
from tests.core.predict.factories import autoscaler, budget, ref, state, workload
from tests.core.predict.rules.looking import only, patch_of, risks, severity

from upstream_guard.core.predict.state import (
    Budget,
    LabelSelector,
    NodeState,
    PodState,
    Strategy,
)
from upstream_guard.core.predict.window import PatchKind, Severity

ONE_AT_A_TIME = {"spec": {"minAvailable": None, "maxUnavailable": 1}}


def test_a_missing_budget_is_made() -> None:
    found = only("no-disruption-budget", state(budgets=()))
    assert found.remedy is not None
    assert (found.remedy.patch_kind, found.remedy.kind) == (
        PatchKind.CREATE,
        "PodDisruptionBudget",
    )
    assert found.remedy.patch == {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "shop", "namespace": "prod"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "shop"}}},
    }


def test_budgets_for_other_pods_do_not_count() -> None:
    other = Budget(ref("other"), LabelSelector({"app": "other"}), max_unavailable=1)
    assert "no-disruption-budget" in risks(state(budgets=(other,)))


@pytest.mark.parametrize("kind", ["DaemonSet", "Pod"])
def test_what_drains_pass_over_needs_no_budget(kind: str) -> None:
    assert "no-disruption-budget" not in risks(state(workload(kind=kind), budgets=()))


@pytest.mark.parametrize(
    ("replicas", "limits", "risk"),
    [
        (2, {"max_unavailable": 0}, "disruption-budget-blocks"),
        (2, {"max_unavailable": "0%"}, "disruption-budget-blocks"),
        (2, {"min_available": 2}, "disruption-budget-blocks"),
        (3, {"min_available": "100%"}, "disruption-budget-blocks"),
        (3, {"min_available": "67%"}, "disruption-budget-blocks"),  # 2.01 is rounded up
        (3, {"min_available": "66%"}, None),
        (2, {"max_unavailable": "1%"}, None),  # rounded up to one
        (2, {"min_available": 1}, None),
        (2, {"min_available": 0}, "disruption-budget-useless"),
        (2, {"max_unavailable": 2}, "disruption-budget-useless"),
        (3, {"max_unavailable": "67%"}, "disruption-budget-useless"),
        (3, {"max_unavailable": "100%"}, "disruption-budget-useless"),
    ],
)
def test_budgets(replicas: int, limits: dict[str, int | str], risk: str | None) -> None:
    found = state(workload(replicas=replicas), budgets=(budget(**limits),))
    assert risks(found) == ({risk} if risk else set())
    if risk:
        assert patch_of(only(risk, found)) == ONE_AT_A_TIME


def test_a_single_pod_gets_company_to_be_moved() -> None:
    alone = state(workload(replicas=1), budgets=(budget(min_available=1),))
    assert patch_of(only("disruption-budget-blocks", alone)) == {"spec": {"replicas": 2}}


def test_two_budgets_for_the_same_pods_block_each_other() -> None:
    second = Budget(ref("second"), LabelSelector({}), max_unavailable=1)
    found = only("disruption-budget-blocks", state(budgets=(budget(), second)))
    assert "`shop` and `second`" in found.message


def test_an_autoscaler_that_goes_as_low_as_the_budget() -> None:
    found = only(
        "autoscaler-below-budget",
        state(budgets=(budget(min_available=2),), autoscalers=(autoscaler(2, 6),)),
    )
    assert found.kind == "HorizontalPodAutoscaler"
    assert patch_of(found) == {"spec": {"minReplicas": 3}}


@pytest.mark.parametrize(
    ("least", "most", "limits", "risk"),
    [
        (3, 6, {"min_available": 2}, None),
        (2, 2, {"min_available": 2}, "disruption-budget-blocks"),
        (2, 9, {"min_available": "100%"}, "disruption-budget-blocks"),
        (2, 9, {"max_unavailable": 0}, "disruption-budget-blocks"),
    ],
)
def test_autoscalers_and_budgets(
    least: int, most: int, limits: dict[str, int | str], risk: str | None
) -> None:
    found = state(budgets=(budget(**limits),), autoscalers=(autoscaler(least, most),))
    assert risks(found) == ({risk} if risk else set())


def test_pods_bound_to_one_node() -> None:
    found = only("one-node", state(workload(template={"node_bound": True})))
    assert (found.severity, found.remedy) == (Severity.WARNING, None)


def test_pods_that_nothing_keeps_apart() -> None:
    found = only("one-node", state(workload(template={"spread": False})))
    assert found.severity is Severity.INFO
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "shop"}},
    }
    fields = {"topologySpreadConstraints": [constraint]}
    assert patch_of(found) == {"spec": {"template": {"spec": fields}}}


@pytest.mark.parametrize(
    ("nodes", "expected"), [(("a", "a"), Severity.WARNING), (("a", "b"), None)]
)
def test_pods_that_run_together(nodes: tuple[str, ...], expected: Severity | None) -> None:
    pods = tuple(PodState(ref(f"p{i}"), f"{i}", n, True, False) for i, n in enumerate(nodes))
    known = (NodeState("a"), NodeState("b"))
    apart = workload(template={"spread": False})
    assert severity("one-node", state(apart, pods=pods, nodes=known)) is expected


def test_kubelets_without_a_shutdown_period() -> None:
    assert only("node-shutdown", state(kubelet_shutdown_grace=0.0)).severity is Severity.INFO
    assert "node-shutdown" not in risks(state(kubelet_shutdown_grace=30.0))
    assert "node-shutdown" not in risks(state())


def test_statefulsets_are_drained_too() -> None:
    ordered = workload(kind="StatefulSet", strategy=Strategy(max_surge=0, max_unavailable=1))
    assert risks(state(ordered, budgets=())) == {"no-disruption-budget"}
