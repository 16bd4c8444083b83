"""Which taints say that a node goes, and what a disruption budget keeps for it."""

from types import SimpleNamespace

import pytest

from upstream_guard.core.leaving import LEAVING_TAINTS, leaving_by, reserve_of
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.state import Budget, LabelSelector


@pytest.mark.parametrize(
    "taint",
    [
        "node.kubernetes.io/unschedulable",
        "node.kubernetes.io/not-ready",
        "DeletionCandidateOfClusterAutoscaler",
        "aws-node-termination-handler/rebalance-recommendation",
        "kubernetes.azure.com/scalesetpriority",
    ],
)
def test_a_cordon_or_a_forecast_takes_nobody_away(taint):
    assert leaving_by([taint]) == ""


def test_the_first_taint_that_says_so_counts():
    first, second = list(LEAVING_TAINTS)[:2]
    assert leaving_by(["dedicated", second, first]) == second


def pods(number, *, terminating=0):
    return [
        SimpleNamespace(uid=str(n), labels={"app": "shop"}, terminating=n < terminating)
        for n in range(number)
    ]


@pytest.mark.parametrize(
    ("budget", "need"),
    [
        ({"min_available": 2}, 2),
        ({"min_available": "50%"}, 3),
        ({"max_unavailable": 1}, 4),
        ({"max_unavailable": "30%"}, 3),
        ({}, 0),
    ],
)
def test_what_a_budget_keeps(budget, need):
    made = Budget(ObjectRef("prod", "shop"), LabelSelector({"app": "shop"}), **budget)
    reserve = reserve_of(made, pods(5))
    assert (len(reserve.pods), reserve.need) == (5, need)


def test_a_budget_counts_neither_other_pods_nor_those_on_their_way_out():
    other = Budget(ObjectRef("prod", "other"), LabelSelector({"app": "other"}), 1)
    assert reserve_of(other, pods(3)).need == 0
    mine = Budget(ObjectRef("prod", "shop"), LabelSelector({"app": "shop"}), None, 1)
    assert reserve_of(mine, pods(3, terminating=1)).need == 1
