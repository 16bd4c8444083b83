"""Status in, YAML out; and nothing changes while nothing changes."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import Eye
from upstream_guard.core.model import DrainMode, DrainPolicy
from upstream_guard.core.observed import Counted, Extent, ObservedWindow
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.predict.window import Severity
from upstream_guard.core.reasons import ConditionType, Reason
from upstream_guard.core.status import (
    Condition,
    ConditionStatus,
    DrainStatus,
    EndpointState,
    EndpointStatus,
    GuardStatus,
    PredictionStatus,
    RiskStatus,
    RouteStatus,
    merge_conditions,
)
from upstream_guard.core.tuning import CLUSTER_IP, Evidence, advise_drain, recommended_patch
from upstream_guard.resources.status import (
    build_status,
    format_seconds,
    format_time,
    parse_conditions,
    parse_predictions,
    parse_risks,
    parse_windows,
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


WINDOW = ObservedWindow(
    id="w-20260102-030405-7",
    gateway="prod/public",
    routes=("HTTPRoute prod/shop",),
    cause=Cause.STALE_UPSTREAM,
    confidence=81,
    others=((Cause.REFUSED, 12),),
    extent=Extent.ENDPOINT,
    endpoints=("198.18.1.4:8080",),
    opened=NOW,
    detected=NOW + 0.25,
    closed=NOW + 1.5,
    lost=37,
    counted=Counted.EXACT,
    statuses={0: 2, 503: 35},
    eyes=(Eye.METRICS, Eye.ROUTE),
    evidence="the gateway uses 198.18.1.4:8080, which left the list",
    predicted=True,
    change="rollout of deployment/shop",
)
BARE = ObservedWindow(
    "w-20260102-030405-8", "", (), Cause.REFUSED, 99, (), Extent.SERVICE, (), NOW, NOW, 0.0, 0,
    Counted.ESTIMATED,
)  # fmt: skip


def test_windows_are_read_back_as_they_were_written() -> None:
    body = build_status(replace(STATUS, windows=(WINDOW, BARE)), None, NOW)
    assert parse_windows(body) == (WINDOW, BARE)
    first, second = body["windows"]
    assert (first["duration"], first["closed"]) == ("1.5s", "2026-01-02T03:04:07.200Z")
    assert "closed" not in second
    assert "duration" not in second


def test_windows_of_other_versions_are_passed_over() -> None:
    body = build_status(replace(STATUS, windows=(WINDOW,)), None, NOW)
    (raw,) = body["windows"]
    odd = [
        raw | {"cause": "gremlins"},
        raw | {"eyes": ["third"]},
        raw | {"statuses": "many"},
        7,
        None,
    ]
    found = parse_windows({"windows": odd})
    assert found == (replace(WINDOW, statuses={}),)
    assert parse_windows({"windows": {}}) == parse_windows(None) == ()


def test_no_more_windows_than_the_schema_allows() -> None:
    body = build_status(replace(STATUS, windows=(WINDOW,) * 30), None, NOW)
    assert len(body["windows"]) == 20


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


PREDICTION = PredictionStatus(
    change=ChangeKind.ROLLOUT,
    subject="deployment/shop",
    began=NOW,
    made_at=1_767_323_045.712,
    until=1_767_323_645.7,
    opens_at=1_767_323_047.8,
    duration="1.2s",
    duration_range="0.9s-1.4s",
    lost=40,
    lost_range="25-60",
    share=33,
    probability=98,
    cause=Cause.STALE_UPSTREAM,
    risk="no-pre-stop",
    gateway="contour (prod/public)",
    answer=503,
    evidence=Evidence.BUILTIN,
    message="rollout: about 40 requests fail",
    remedy="kubectl -n prod patch deployment shop",
)
RISK = RiskStatus(
    "no-pre-stop", Severity.WARNING, "deployment/shop", "spec.template.spec", "no hook", "kubectl"
)


def test_predictions_and_risks_are_read_back_as_they_were_written() -> None:
    endless = replace(PREDICTION, duration="", duration_range="", change=ChangeKind.EDIT)
    full = replace(STATUS, predictions=(PREDICTION, endless), risks=(RISK, replace(RISK, path="")))
    body = build_status(full, None, NOW)
    assert parse_predictions(body) == full.predictions
    assert parse_risks(body) == full.risks
    assert build_status(full, body, NOW + 60) == body
    assert body["predictions"][0]["madeAt"] == "2026-01-02T03:04:05.712Z"
    assert body["summary"]["predicted"] == "rollout: 40 lost"


def test_predictions_and_risks_are_bounded_and_absent_in_peace() -> None:
    full = replace(STATUS, predictions=(PREDICTION,) * 40, risks=(RISK,) * 40)
    body = build_status(full, None, NOW)
    assert (len(body["predictions"]), len(body["risks"])) == (10, 20)
    assert {"predictions", "risks"}.isdisjoint(build_status(STATUS, body, NOW))


def test_routes_are_told_and_bounded() -> None:
    asked = RouteStatus("contour", "Ingress prod/shop", "https://shop.example/", "192.0.2.7:443")
    unasked = RouteStatus("edge", "", problem="p" * 600)
    body = build_status(replace(STATUS, routes=(asked, unasked, *[asked] * 40)), None, NOW)
    assert len(body["routes"]) == 16
    assert body["routes"][0] == {
        "gateway": "contour",
        "route": "Ingress prod/shop",
        "url": "https://shop.example/",
        "via": "192.0.2.7:443",
    }
    assert body["routes"][1] == {"gateway": "edge", "problem": "p" * 511 + "…"}
    assert "routes" not in build_status(STATUS, body, NOW)


def test_a_command_is_shown_whole_or_not_at_all() -> None:
    long = replace(RISK, remedy="x" * 5000, message="y" * 5000)
    (found,) = build_status(replace(STATUS, risks=(long,)), None, NOW)["risks"]
    assert found["remedy"] == "too long for the status: `upstream-guard check`"
    assert len(found["message"]) == 1024


@pytest.mark.parametrize(
    "strange",
    [None, "x", {}, {"predictions": "x", "risks": 1}, {"predictions": [1, {}], "risks": [{}, "x"]}],
)
def test_strange_predictions_are_passed_over(strange) -> None:
    assert parse_predictions(strange) == ()
    assert parse_risks(strange) == ()


def test_formats() -> None:
    assert format_time(NOW) == "2026-01-02T03:04:05Z"
    texts = [format_seconds(s) for s in (0, 0.03, 1.19, 2, 70.0)]
    assert texts == ["0s", "30ms", "1.19s", "2s", "70s"]
