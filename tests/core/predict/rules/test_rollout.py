"""Rollout rules."""

import pytest
from tests.core.predict.factories import (
    CONTOUR,
    autoscaler,
    budget,
    container,
    facts,
    gateway,
    ref,
    sleep,
    state,
    workload,
)
from tests.core.predict.rules.looking import only, patch_of, risks, severity

from upstream_guard.core.predict.state import ChangeKind, Quota, State, Strategy, StrategyKind
from upstream_guard.core.predict.window import PatchKind, Severity

RECREATE = Strategy(StrategyKind.RECREATE, 0, "100%")
IN_PLACE = Strategy(max_surge=0, max_unavailable=1)


def rolling(surge: int | str) -> dict[str, object]:
    update = {"maxSurge": surge, "maxUnavailable": 0}
    return {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": update}}}


def test_recreate_is_replaced_by_a_rolling_update() -> None:
    found = only("recreate-strategy", state(workload(strategy=RECREATE)))
    assert found.severity is Severity.WARNING
    assert patch_of(found) == rolling(1)


def test_recreate_with_a_volume_stays() -> None:
    bound = workload(strategy=RECREATE, template={"claims": frozenset({"data"})})
    assert "`data`" in only("recreate-strategy", state(bound)).no_remedy


def test_recreate_beside_other_pods_is_only_worth_knowing() -> None:
    both = state(workload(strategy=RECREATE), workload(name="shop-stable"))
    assert severity("recreate-strategy", both) is Severity.INFO


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (2, 0, 2, Severity.WARNING),
        (3, 0, "100%", Severity.WARNING),
        (1, 0, 1, Severity.WARNING),
        (1, 0, 0, Severity.WARNING),  # both 0: the controller takes one
        (4, 1, "50%", Severity.INFO),
        (4, "25%", "25%", None),
        (1, "25%", "25%", None),  # rounded up and down: one more, none less
        (3, 1, "50%", None),  # 1.5 is rounded down
    ],
)
def test_max_unavailable(
    replicas: int, surge: int | str, unavailable: int | str, expected: Severity | None
) -> None:
    strategy = Strategy(max_surge=surge, max_unavailable=unavailable)
    found = state(workload(replicas=replicas, strategy=strategy))
    assert severity("max-unavailable", found) is expected


def test_a_surge_of_the_users_own_is_kept() -> None:
    pods = workload(strategy=Strategy(max_surge="50%", max_unavailable="100%"))
    assert patch_of(only("max-unavailable", state(pods))) == rolling("50%")


@pytest.mark.parametrize(
    ("kind", "unavailable", "found"),
    [
        ("DaemonSet", "100%", True),
        ("DaemonSet", 1, False),
        ("StatefulSet", 2, True),
        ("StatefulSet", 1, False),
    ],
)
def test_pods_that_are_replaced_in_place(kind: str, unavailable: int | str, found: bool) -> None:
    strategy = Strategy(max_surge=0, max_unavailable=unavailable)
    pods = state(workload(kind=kind, strategy=strategy))
    assert ("max-unavailable" in risks(pods)) is found
    if found:
        patch = {"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}}}}
        assert patch_of(only("max-unavailable", pods)) == patch


def test_one_replica_gets_company() -> None:
    found = only("single-replica", state(workload(replicas=1), budgets=()))
    assert found.severity is Severity.WARNING
    assert ChangeKind.NODE_DRAIN in found.changes
    assert ChangeKind.ROLLOUT not in found.changes
    assert patch_of(found) == {"spec": {"replicas": 2}}


def test_the_autoscalers_minimum_decides() -> None:
    assert "single-replica" not in risks(
        state(workload(replicas=1, replicas_given=False), autoscalers=(autoscaler(2, 5),))
    )
    found = only("single-replica", state(workload(replicas=3), autoscalers=(autoscaler(1, 1),)))
    assert found.kind == "HorizontalPodAutoscaler"
    assert found.remedy is not None
    assert found.remedy.patch_kind is PatchKind.MERGE
    assert found.remedy.patch == {"spec": {"minReplicas": 2, "maxReplicas": 2}}


@pytest.mark.parametrize(
    "alone",
    [
        workload(kind="StatefulSet", replicas=1, strategy=IN_PLACE),
        workload(kind="Pod", replicas=1),
        workload(replicas=1, strategy=RECREATE),
        workload(replicas=1, template={"claims": frozenset({"data"})}),
    ],
    ids=["StatefulSet", "Pod", "Recreate", "volume"],
)
def test_what_may_not_be_doubled_is_left_alone(alone: object) -> None:
    found = only("single-replica", state(alone, budgets=()))  # type: ignore[arg-type]
    assert (found.severity, found.remedy) == (Severity.INFO, None)


def test_a_second_pod_of_a_data_store_is_no_reserve() -> None:
    redis = workload(container(port=6379), replicas=1)
    found = only("single-replica", state(redis, budgets=()))
    assert (found.severity, found.remedy) == (Severity.INFO, None)
    assert "Redis" in found.no_remedy
    replaced = workload(container(port=6379), strategy=RECREATE)
    assert "Redis" in only("recreate-strategy", state(replaced)).no_remedy
    blocking = state(redis, budgets=(budget(min_available=1),))
    patch = patch_of(only("disruption-budget-blocks", blocking))
    assert patch == {"spec": {"minAvailable": None, "maxUnavailable": 1}}


@pytest.mark.parametrize(
    "enough",
    [
        state(workload(kind="DaemonSet", replicas=1, strategy=IN_PLACE)),
        state(workload(replicas=1), workload(name="canary", replicas=1)),
    ],
    ids=["DaemonSet", "two workloads"],
)
def test_more_than_one_pod(enough: State) -> None:
    assert "single-replica" not in risks(enough)


def test_no_replicas() -> None:
    found = only("no-replicas", state(workload(replicas=0)))
    assert patch_of(found) == {"spec": {"replicas": 2}}
    assert "no-replicas" not in risks(state(workload(replicas=0), workload(name="blue")))


def test_a_rollout_faster_than_the_gateway() -> None:
    balancer = gateway("aws-alb", "alb", detach=5.0, attach=30.0)
    found = only("min-ready-seconds", state(), gateways=[balancer])
    assert patch_of(found) == {"spec": {"minReadySeconds": 30}}
    assert "min-ready-seconds" not in risks(state(workload(min_ready=30.0)), gateways=[balancer])
    assert "min-ready-seconds" not in risks(state(), gateways=[CONTOUR])


def test_slow_starts_and_hooks_give_the_gateway_time() -> None:
    balancer = gateway("aws-alb", "alb", detach=5.0, attach=30.0)
    assert "min-ready-seconds" not in risks(state(), facts(25.0), [balancer])
    patient = state(workload(container(pre_stop=sleep(40.0))))
    assert "min-ready-seconds" not in risks(patient, gateways=[balancer])


def test_pods_of_another_workload_serve_meanwhile() -> None:
    balancer = gateway("aws-alb", "alb", detach=5.0, attach=30.0)
    both = state(workload(), workload(name="canary"))
    assert "min-ready-seconds" not in risks(both, gateways=[balancer])


def test_the_progress_deadline_leaves_room() -> None:
    balancer = gateway("aws-alb", "alb", detach=5.0, attach=30.0)
    found = only("min-ready-seconds", state(workload(deadline=20.0)), gateways=[balancer])
    assert patch_of(found) == {"spec": {"minReadySeconds": 30, "progressDeadlineSeconds": 50}}


@pytest.mark.parametrize(
    ("hard", "used", "blocked"), [(2, 2, True), (3, 3, True), (3, 2, False), (2, 0, True)]
)
def test_quota(hard: float, used: float, blocked: bool) -> None:
    quota = Quota(ref("pods"), {"pods": hard}, {"pods": used})
    full = state(quotas=(quota,))
    assert ("quota-blocks-surge" in risks(full)) is blocked
    if blocked:
        wanted = {"spec": {"hard": {"pods": str(int(hard) + 1)}}}
        assert patch_of(only("quota-blocks-surge", full)) == wanted


def test_a_rollout_that_takes_first_needs_no_room() -> None:
    quota = Quota(ref("pods"), {"pods": 4}, {"pods": 4})
    taking = workload(replicas=4, strategy=Strategy(max_surge=1, max_unavailable=1))
    assert "quota-blocks-surge" not in risks(state(taking, quotas=(quota,), budgets=(budget(),)))
