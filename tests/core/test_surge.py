"""One replica more before a drain takes the last pod: when, how it is undone, and when it is left."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.state import Autoscaler, Budget, LabelSelector
from upstream_guard.core.surge import (
    SurgeRecord,
    SurgeStep,
    SurgeView,
    gitops_manager,
    one_deployment,
    plan_surge,
)

NOW = 1000.5
SHOP = "deployment/shop"
RECORD = SurgeRecord(SHOP, "n1", 1, 1000.0)
ADDED = replace(RECORD, added=True)


def pod(node="n1", *, ready=True, terminating=False):
    return SimpleNamespace(node=node, ready=ready, terminating=terminating)


def budget(**demand):
    return Budget(ObjectRef("prod", "keep"), LabelSelector(), **demand)


ONE = budget(min_available=1)


def view(*pods, replicas=1, draining=("n1",), budgets=(ONE,), scaler=""):
    scalers = (Autoscaler(ObjectRef("prod", "hpa"), scaler),) if scaler else ()
    return SurgeView(SHOP, replicas, pods, frozenset(draining), tuple(budgets), scalers)


def step(seen, record=None, *, wanted=True):
    return plan_surge(seen, record, NOW, wanted=wanted).step


def test_the_last_serving_pod_on_a_node_that_is_drained_asks_for_one_more():
    plan = plan_surge(view(pod()), None, NOW, wanted=True)
    assert plan.step is SurgeStep.REMEMBER
    assert plan.record == RECORD
    assert "2 for 1" in plan.message
    assert "PodDisruptionBudget" not in plan.message


@pytest.mark.parametrize(
    "seen",
    [
        view(pod(), draining=()),
        view(pod("n2")),
        view(pod(), pod("n2"), replicas=2, budgets=()),
        view(pod(terminating=True)),
        view(replicas=0),
    ],
)
def test_nothing_is_done_where_nothing_is_in_danger(seen):
    assert step(seen) is SurgeStep.NONE
    assert step(view(pod()), wanted=False) is SurgeStep.NONE


def test_a_budget_that_blocks_asks_for_one_more_even_with_pods_elsewhere():
    blocked = view(pod(), pod("n2"), replicas=2, budgets=[budget(min_available=2)])
    assert step(blocked) is SurgeStep.REMEMBER


def test_without_a_budget_it_is_said_that_nothing_holds_the_eviction():
    plan = plan_surge(view(pod(), budgets=()), None, NOW, wanted=True)
    assert plan.step is SurgeStep.REMEMBER
    assert "may come first" in plan.message


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (view(pod(), scaler=SHOP), "minReplicas"),
        (view(pod(), budgets=[budget(max_unavailable=0)]), "maxUnavailable: 1"),
        (view(pod(), budgets=[budget(min_available="100%")]), "minAvailable: 1"),
    ],
)
def test_where_it_cannot_help_it_says_why(seen, words):
    plan = plan_surge(seen, None, NOW, wanted=True)
    assert plan.step is SurgeStep.SKIP
    assert words in plan.message


def test_another_workloads_autoscaler_is_nobodys_concern():
    assert step(view(pod(), scaler="deployment/other")) is SurgeStep.REMEMBER


def test_the_life_of_a_surge():
    assert step(view(pod()), RECORD) is SurgeStep.ADD
    assert step(view(pod(), replicas=2), RECORD) is SurgeStep.WAIT
    assert step(view(pod(), pod("n2"), replicas=2), ADDED) is SurgeStep.WAIT
    gone = view(pod(terminating=True), pod("n2"), replicas=2)
    assert step(gone, ADDED) is SurgeStep.PUT_BACK
    assert step(view(pod("n2")), ADDED) is SurgeStep.FORGET


def test_it_is_undone_when_the_node_stays_or_the_guard_no_longer_asks_for_it():
    assert step(view(pod(), replicas=2, draining=()), ADDED) is SurgeStep.PUT_BACK
    assert step(view(pod(), replicas=2), ADDED, wanted=False) is SurgeStep.PUT_BACK


@pytest.mark.parametrize("replicas", [0, 3, 5])
def test_a_number_that_somebody_else_wrote_is_left_alone(replicas):
    plan = plan_surge(view(pod(), replicas=replicas), ADDED, NOW, wanted=True)
    assert plan.step is SurgeStep.FORGET
    assert "somebody else" in plan.message


def test_a_replica_that_somebody_took_away_again_is_not_added_twice():
    plan = plan_surge(view(pod()), ADDED, NOW, wanted=True)
    assert plan.step is SurgeStep.FORGET
    assert "set it back" in plan.message


def test_another_workload_now_is_none_of_its_business():
    assert step(replace(view(pod()), workload="deployment/new"), ADDED) is SurgeStep.FORGET


@pytest.mark.parametrize(
    ("managers", "found"),
    [
        ([("argocd-controller", True)], "argocd-controller"),
        ([("kustomize-controller", True), ("kubectl", True)], "kustomize-controller"),
        ([("argocd-controller", False), ("kubectl-client-side-apply", True)], ""),
        ([], ""),
    ],
)
def test_who_would_put_the_replicas_back(managers, found):
    assert gitops_manager(managers) == found


def test_only_the_pods_of_a_single_deployment_can_be_surged():
    assert one_deployment([SHOP, SHOP]) == SHOP
    assert one_deployment([SHOP, "deployment/canary"]) == ""
    assert one_deployment(["statefulset/db"]) == ""
    assert one_deployment([]) == ""


PODS = st.lists(
    st.builds(pod, st.sampled_from(["n1", "n2"]), ready=st.booleans(), terminating=st.booleans()),
    max_size=5,
)


@given(PODS, st.integers(0, 4), st.sampled_from([None, RECORD, ADDED]), st.booleans())
def test_replicas_only_ever_move_between_the_number_before_and_one_more(
    pods, number, record, wanted
):
    plan = plan_surge(view(*pods, replicas=number), record, NOW, wanted=wanted)
    if plan.step is SurgeStep.ADD:
        assert number == record.base
        assert not record.added
    if plan.step is SurgeStep.PUT_BACK:
        assert number == record.base + 1
