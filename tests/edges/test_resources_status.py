"""Status in, YAML out; and nothing changes while nothing changes."""

from dataclasses import replace
from pathlib import Path

import yaml

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import DrainMode, DrainPolicy
from upstream_guard.core.reasons import ConditionType, Reason
from upstream_guard.core.status import (
    Condition,
    ConditionStatus,
    DrainStatus,
    EndpointState,
    EndpointStatus,
    GuardStatus,
    merge_conditions,
)
from upstream_guard.core.tuning import CLUSTER_IP, advise_drain, recommended_patch
from upstream_guard.resources.status import (
    build_status,
    format_seconds,
    format_time,
    parse_conditions,
)

GOLDEN = Path(__file__).parents[1] / "data/resources/status.yaml"
NOW = 1_767_323_045.7

HEALTHY = Condition(
    ConditionType.HEALTHY,
    ConditionStatus.FALSE,
    Reason.ENDPOINTS_FAILING,
    "1 of 3 does not serve",
    4,
)
ACCEPTED = Condition(ConditionType.ACCEPTED, ConditionStatus.TRUE, Reason.ACCEPTED, "in force", 4)
ENDPOINTS = (
    EndpointStatus("shop-a", "198.18.1.2:8080", EndpointState.SERVING, True, True, "node-a"),
    EndpointStatus("shop-b", "198.18.1.3:8080", EndpointState.SERVING, True, False),
    EndpointStatus(
        "shop-c",
        "198.18.1.4:8080",
        EndpointState.EJECTED,
        False,
        True,
        "node-b",
        Cause.REFUSED,
        "connection refused",
    ),
    EndpointStatus("shop-d", "198.18.1.5:8080", EndpointState.DRAINING, True, True),
)
ADVICE = advise_drain(DrainPolicy(), [CLUSTER_IP])
STATUS = GuardStatus(
    observed_generation=4,
    service="shop:http",
    conditions=(ACCEPTED, HEALTHY),
    endpoints=ENDPOINTS,
    gateways=(CLUSTER_IP,),
    drain=DrainStatus(DrainMode.RECOMMEND, ADVICE, 30, recommended_patch(ADVICE, ["app"])),
)


def test_golden() -> None:
    assert build_status(STATUS, None, NOW) == yaml.safe_load(GOLDEN.read_text())


def test_an_unchanged_situation_gives_an_unchanged_status() -> None:
    first = build_status(STATUS, None, NOW)
    later = build_status(replace(STATUS, endpoints=ENDPOINTS[::-1]), first, NOW + 3600)
    assert later == first


def test_the_time_moves_only_where_the_status_does() -> None:
    first = build_status(STATUS, None, NOW)
    healed = replace(HEALTHY, status=ConditionStatus.TRUE, reason=Reason.ALL_SERVING)
    reworded = replace(ACCEPTED, message="in force, still")
    second = build_status(replace(STATUS, conditions=(reworded, healed)), first, NOW + 60)
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert times == {"Accepted": "2026-01-02T03:04:05Z", "Healthy": "2026-01-02T03:05:05Z"}


def test_merge_drops_conditions_that_are_gone() -> None:
    assert merge_conditions([ACCEPTED, HEALTHY], [ACCEPTED], NOW) == (
        replace(ACCEPTED, last_transition=NOW),
    )


def test_failing_endpoints_come_first_and_the_list_is_bounded() -> None:
    many = tuple(
        EndpointStatus(f"shop-{n:03}", "198.18.1.2:80", EndpointState.SERVING, True, True)
        for n in range(200)
    )
    body = build_status(replace(STATUS, endpoints=(*many, ENDPOINTS[2])), None, NOW)
    assert len(body["endpointList"]) == 50
    assert [e["pod"] for e in body["endpointList"][:2]] == ["shop-c", "shop-000"]
    assert body["endpoints"]["total"] == 201


def test_a_strange_old_status_is_passed_over() -> None:
    for old in (None, "x", {"conditions": "x"}, {"conditions": [1, {"type": "Other"}, {}]}):
        assert parse_conditions(old) == ()
    unknown = {"type": "Accepted", "status": "True", "reason": "FromAnotherVersion"}
    assert parse_conditions({"conditions": [unknown]}) == ()


def test_formats() -> None:
    assert format_time(NOW) == "2026-01-02T03:04:05Z"
    texts = [format_seconds(s) for s in (0, 0.03, 1.19, 2, 70.0)]
    assert texts == ["0s", "30ms", "1.19s", "2s", "70s"]
