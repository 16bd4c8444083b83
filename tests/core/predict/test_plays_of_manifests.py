"""What a play assumes where manifests say less than a cluster does."""

from dataclasses import replace

import pytest
from tests.core.predict.factories import (
    CONTOUR,
    KUBE_PROXY,
    NGINX,
    autoscaler,
    bare_container,
    container,
    facts,
    port,
    run_before_stop,
    service,
    sleep,
    state,
    workload,
)

from upstream_guard.core.predict.engine import predict
from upstream_guard.core.predict.hooks import serves_for
from upstream_guard.core.predict.play import UNKNOWN_NODES, make_play, pods_before
from upstream_guard.core.predict.review import review
from upstream_guard.core.predict.state import Change, ChangeKind, State, Strategy, Workload
from upstream_guard.core.predict.window import Scope, Severity

ROLLOUT = Change(ChangeKind.ROLLOUT)


@pytest.mark.parametrize(
    ("pods", "least", "expected"),
    [
        (workload(replicas=3), 1, 3),
        (workload(replicas=1, replicas_given=False), 2, 2),
        (workload(kind="DaemonSet", replicas=1, replicas_given=False), 1, UNKNOWN_NODES),
        (workload(kind="DaemonSet", replicas=1), 1, 1),
    ],
    ids=["its own number", "the autoscaler's minimum", "nodes unknown", "one node"],
)
def test_how_many_pods_there_are(pods: Workload, least: int, expected: int) -> None:
    assert pods_before(state(pods, autoscalers=(autoscaler(least, 9),)), pods) == expected


def hooked(*command: str) -> State:
    return state(workload(container(pre_stop=run_before_stop(*command))))


def test_a_hook_that_cannot_be_read_is_believed() -> None:
    play = make_play(hooked("/wait-shutdown"), NGINX, ROLLOUT, facts())
    assert play is not None
    assert play.stopping.hook == pytest.approx(NGINX.facts.needed_seconds)
    assert predict(hooked("/wait-shutdown"), KUBE_PROXY, ROLLOUT, facts(), 0.0) == ()


def test_a_hook_that_stops_the_server_is_none() -> None:
    stopping = hooked("nginx", "-s", "quit")
    risks = {window.risk for window in predict(stopping, KUBE_PROXY, ROLLOUT, facts(), 0.0)}
    assert risks == {"pre-stop-too-short"}


@pytest.mark.parametrize(
    ("command", "seconds", "expected"),
    [
        (("nginx", "-s", "stop"), None, 0.0),
        (("sh", "-c", "kill -QUIT 1"), None, 0.0),
        (("sh", "-c", "/wait && kill 1"), None, None),
        (("sh", "-c", "sleep 5; nginx -s quit"), 5.0, 5.0),
        (("/shutdown",), None, None),
    ],
)
def test_how_long_a_hook_serves(
    command: tuple[str, ...], seconds: float | None, expected: float | None
) -> None:
    assert serves_for(run_before_stop(*command, seconds=seconds)) == expected


@pytest.mark.parametrize("ports", [(), (port(protocol="UDP"),)])
def test_services_that_take_no_requests_lose_none(ports: tuple) -> None:  # type: ignore[type-arg]
    spoilt = state(workload(bare_container()))
    plain = replace(spoilt.service.service, ports=ports)
    silent = replace(spoilt, service=replace(spoilt.service, service=plain))
    assert make_play(silent, CONTOUR, ROLLOUT, facts()) is None


def test_a_single_pod_that_is_taken_away_first_is_the_strategys_fault() -> None:
    taking = Strategy(max_surge=1, max_unavailable=1)
    alone = state(workload(container(pre_stop=sleep(10)), replicas=1, strategy=taking))
    risks = {window.risk for window in predict(alone, CONTOUR, ROLLOUT, facts(), 0.0)}
    assert risks == {"max-unavailable"}


def test_windows_of_headless_services_are_only_worth_knowing() -> None:
    spoilt = workload(bare_container(), replicas=1)
    found = review(state(spoilt, service=service(headless=True)), [NGINX], facts(), 0.0)
    assert found
    assert {problem.finding.severity for problem in found} == {Severity.INFO}


def test_pods_of_another_workload_serve_on() -> None:
    alone = workload(replicas=1, strategy=Strategy(max_surge=0, max_unavailable=1))
    empty = predict(state(alone), CONTOUR, ROLLOUT, facts(), 0.0)
    assert {window.scope for window in empty} == {Scope.SERVICE}
    assert predict(state(alone, workload(name="stable")), CONTOUR, ROLLOUT, facts(), 0.0) == ()


def test_a_daemon_set_that_goes_all_at_once() -> None:
    strategy = Strategy(max_surge=0, max_unavailable="100%")
    pods = workload(kind="DaemonSet", replicas=1, replicas_given=False, strategy=strategy)
    risks = {window.risk for window in predict(state(pods), CONTOUR, ROLLOUT, facts(), 0.0)}
    assert risks == {"max-unavailable"}
