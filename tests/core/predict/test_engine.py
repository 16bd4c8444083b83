"""The engine against figures that were measured on a real cluster, and against what always holds."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import (
    ContainerPort,
    DrainMode,
    DrainPolicy,
    ObjectRef,
    Service,
    ServicePort,
)
from upstream_guard.core.predict import course, traffic
from upstream_guard.core.predict.draws import Draw
from upstream_guard.core.predict.engine import likely_changes, predict
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Behaviour, Gateway
from upstream_guard.core.predict.play import disruptions_allowed, make_play, resolve
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.predict.state import (
    AppFacts,
    Budget,
    Change,
    ChangeKind,
    Container,
    GuardFacts,
    HookKind,
    KubeProbe,
    LabelSelector,
    PodTemplate,
    PreStop,
    ServiceState,
    Shutdown,
    State,
    Strategy,
    StrategyKind,
    Workload,
)
from upstream_guard.core.predict.window import Window
from upstream_guard.core.tuning import CLUSTER_IP, Evidence

SHOP = ObjectRef("prod", "shop")
LABELS = {"app": "shop"}
ROLLOUT = Change(ChangeKind.ROLLOUT)
PROBE = KubeProbe(HookKind.HTTP, "http", period=1.0)
RATE = 200.0


def builtin(low: float, value: float, high: float) -> Estimate:
    return Estimate(low, value, high, Evidence.BUILTIN, "measured")


NGINX = Gateway(
    replace(CLUSTER_IP, name="public", controller="nginx"),
    Behaviour(serves_terminating=True),
    attach=builtin(0.02, 0.03, 0.06),
    detach=builtin(0.02, 0.03, 0.06),
    throttle=1.0,
)
CONTOUR = Gateway(
    replace(CLUSTER_IP, name="public", controller="contour", via_cluster_ip=False),
    Behaviour(),
    attach=builtin(0.017, 0.025, 0.075),
    detach=builtin(0.002, 0.005, 0.03),
)
GATEWAYS = {"nginx": NGINX, "contour": CONTOUR}


def state(
    replicas: int = 3,
    probe: KubeProbe | None = None,
    hook: float | None = None,
    grace: float = 30.0,
    strategy: Strategy | None = None,
    kind: str = "Deployment",
) -> State:
    service = Service(
        SHOP, "u", LABELS, "ClusterIP", "10.0.0.1", (ServicePort("http", 80, "http"),)
    )
    container = Container(
        "app",
        ports=(ContainerPort("http", 8080),),
        readiness=probe,
        pre_stop=None if hook is None else PreStop(HookKind.SLEEP, hook),
    )
    template = PodTemplate(LABELS, (container,), grace_period=grace)
    workload = Workload(kind, SHOP, template, replicas, strategy=strategy or Strategy())
    return State(ServiceState(service), (workload,))


def facts(start: float = 1.0, shutdown: Shutdown = Shutdown.EXITS, response: float = 0.0) -> Facts:
    app = AppFacts(
        start=Estimate(start, start + 0.05, start + 0.2, Evidence.MEASURED, "seen"),
        shutdown=shutdown,
        response=Estimate.exactly(response, Evidence.MEASURED),
    )
    return Facts(app=app, rate=RATE, rate_evidence=Evidence.SPEC)


def lost(windows: tuple[Window, ...]) -> float:
    """Requests expected to fail, over all windows."""
    return math.fsum(w.lost.value * w.probability for w in windows)


def risks(windows: tuple[Window, ...]) -> set[str]:
    return {w.risk for w in windows if w.probability >= 0.5}


@pytest.mark.parametrize(
    ("gateway", "change", "replicas", "start", "least", "most"),
    [
        ("nginx", ROLLOUT, 3, 1.0, 120, 260),  # measured 174-215 and 160-230
        ("contour", ROLLOUT, 3, 1.0, 60, 190),  # 90-123
        ("nginx", ROLLOUT, 3, 5.0, 750, 1200),  # 895-968
        ("contour", ROLLOUT, 3, 5.0, 750, 1200),  # 892-964
        ("nginx", Change(ChangeKind.SCALE_IN, to_replicas=2), 5, 1.0, 70, 200),  # 121-148
        ("contour", Change(ChangeKind.SCALE_IN, to_replicas=2), 5, 1.0, 0.5, 30),  # 1-21
    ],
)
def test_near_what_was_measured_without_probe_and_hook(
    gateway: str, change: Change, replicas: int, start: float, least: float, most: float
) -> None:
    windows = predict(state(replicas), GATEWAYS[gateway], change, facts(start), 0.0)
    assert least <= lost(windows) <= most


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_probe_and_two_seconds_of_sleep_open_no_window(gateway: str) -> None:
    safe = state(probe=PROBE, hook=2.0)
    for change in likely_changes(safe):
        assert risks(predict(safe, GATEWAYS[gateway], change, facts(), 0.0)) == set()


def test_what_each_gateway_needs_of_a_hook_differs() -> None:
    short = state(probe=PROBE, hook=0.3)
    assert risks(predict(short, NGINX, ROLLOUT, facts(), 0.0)) == {"pre-stop-too-short"}
    assert risks(predict(short, CONTOUR, ROLLOUT, facts(), 0.0)) == set()


def test_recreate_is_service_wide_until_new_pods_serve() -> None:
    recreate = state(probe=PROBE, hook=2.0, strategy=Strategy(StrategyKind.RECREATE))
    (window,) = predict(recreate, CONTOUR, ROLLOUT, facts(), 0.0)
    assert (window.risk, window.scope, window.share) == ("recreate-strategy", "service", 1.0)
    assert window.duration.value == pytest.approx(5, abs=1.5)


def test_a_hook_as_long_as_the_grace_period_is_named_so() -> None:
    cut = state(probe=PROBE, hook=1.0, grace=1.0)
    slow = facts(response=4.0, shutdown=Shutdown.DRAINS)
    assert "pre-stop-exceeds-grace" in risks(predict(cut, CONTOUR, ROLLOUT, slow, 0.0))


def test_requests_dropped_because_a_hook_is_cut_are_put_down_to_the_grace_period() -> None:
    """And so carry a remedy: the hook was long enough, had it been let."""
    exits = facts(shutdown=Shutdown.EXITS, response=3.0)
    cut = predict(state(probe=PROBE, hook=8.0, grace=2.0), CONTOUR, ROLLOUT, exits, 0.0)
    (window,) = [w for w in cut if w.probability >= 0.5]
    assert (window.risk, window.cause) == ("pre-stop-exceeds-grace", Cause.RESET)
    assert window.remedy is not None
    assert lost(predict(state(probe=PROBE, hook=8.0, grace=38.0), CONTOUR, ROLLOUT, exits, 0.0)) < 1


def test_an_app_that_exits_drops_what_is_in_flight() -> None:
    kept = state(probe=PROBE, hook=0.5)
    windows = predict(kept, CONTOUR, ROLLOUT, facts(response=1.0), 0.0)
    assert risks(windows) == {"sigterm-drops-requests"}
    # Each of three pods had a third of the requests of about half a second in flight.
    assert lost(windows) == pytest.approx(3 * RATE * 0.6 / 3.5, rel=0.4)
    drains = facts(response=1.0, shutdown=Shutdown.DRAINS)
    assert risks(predict(kept, CONTOUR, ROLLOUT, drains, 0.0)) == set()


def test_who_picks_again_later_finds_a_pod_that_serves() -> None:
    behaviour = replace(NGINX.behaviour, refused_retries=3, retry_pause=1.0)
    haproxy = replace(NGINX, behaviour=behaviour)
    short = state(probe=PROBE)
    assert lost(predict(short, haproxy, ROLLOUT, facts(), 0.0)) < 5
    assert lost(predict(short, NGINX, ROLLOUT, facts(), 0.0)) > 50


def test_a_reset_is_not_tried_again_where_a_refused_connection_is() -> None:
    lying = replace(
        facts(),
        app=replace(facts(4.0).app, readiness_lies=Estimate.exactly(3.0, Evidence.MEASURED)),
    )
    behaviour = replace(NGINX.behaviour, refused_retries=3, retry_pause=1.0)
    early = predict(
        state(probe=PROBE, hook=2.0), replace(NGINX, behaviour=behaviour), ROLLOUT, lying, 0.0
    )
    assert risks(early) == {"ready-before-serving"}
    assert lost(early) > 100


def test_reused_connections_meet_few_fresh_picks() -> None:
    caddy = replace(NGINX, behaviour=replace(NGINX.behaviour, reuses=True))
    for plain in (state(), state(probe=PROBE)):
        few = lost(predict(plain, caddy, ROLLOUT, facts(), 0.0))
        assert 0 < few < lost(predict(plain, NGINX, ROLLOUT, facts(), 0.0)) / 5


def test_an_empty_list_behind_a_cluster_ip_delays_before_it_fails() -> None:
    recreate = state(probe=PROBE, hook=2.0, strategy=Strategy(StrategyKind.RECREATE))
    hasty = replace(NGINX, behaviour=replace(NGINX.behaviour, connect_timeout=0.5))
    waited, failed = (predict(recreate, g, ROLLOUT, facts(), 0.0) for g in (NGINX, hasty))
    # What stays are the pods that have ended, asked until kube-proxy knows.
    assert {w.cause for w in waited} == {Cause.STALE_UPSTREAM}
    assert {w.risk for w in waited} == {w.risk for w in failed} == {"recreate-strategy"}
    assert lost(waited) < lost(failed) / 2
    # After seven seconds no SYN is left that would come in time.
    (slow,) = predict(recreate, NGINX, ROLLOUT, facts(12.0), 0.0)
    assert (slow.risk, slow.cause) == ("recreate-strategy", Cause.NO_ENDPOINTS)


@pytest.mark.parametrize(("timeout", "served"), [(0.5, 0.0), (3.0, 2.0), (5.0, 4.0), (9.0, 7.0)])
def test_a_gateway_waits_for_the_last_syn_before_its_time_out(
    timeout: float, served: float
) -> None:
    """Linux repeats one every second at first, five times."""

    def duration(seconds: float) -> float:
        one = replace(NGINX, behaviour=replace(NGINX.behaviour, connect_timeout=seconds))
        found = predict(recreate, one, ROLLOUT, facts(12.0), 0.0)
        (window,) = [w for w in found if w.risk == "recreate-strategy"]
        return window.duration.value

    recreate = state(probe=PROBE, hook=2.0, strategy=Strategy(StrategyKind.RECREATE))
    assert duration(0.5) - duration(timeout) == pytest.approx(served, abs=0.05)


def test_what_breaks_off_is_sent_again_where_the_gateway_replays() -> None:
    kept = state(probe=PROBE, hook=2.0)
    slow = facts(response=2.0)
    caddy = replace(NGINX, behaviour=replace(NGINX.behaviour, reuses=True, replays=True))
    assert "sigterm-drops-requests" in risks(predict(kept, NGINX, ROLLOUT, slow, 0.0))
    assert risks(predict(kept, caddy, ROLLOUT, slow, 0.0)) == set()


def test_a_busy_cluster_makes_every_change_wait() -> None:
    busy = facts()
    busy = replace(busy, platform=replace(busy.platform, other_changes=10.0))
    shrink = Change(ChangeKind.SCALE_IN, to_replicas=2)
    quiet = predict(state(3, PROBE, 0.5), NGINX, shrink, facts(), 0.0)
    assert lost(quiet) < 1 < lost(predict(state(3, PROBE, 0.5), NGINX, shrink, busy, 0.0))


def test_a_guard_prevents_what_plain_pods_suffer() -> None:
    guarded = replace(state(), guard=GuardFacts(gates=True, pre_stop=2.0))
    for gateway in GATEWAYS.values():
        assert risks(predict(guarded, gateway, ROLLOUT, facts(), 0.0)) == set()


def test_a_guard_hands_over_where_hooks_are_too_short() -> None:
    """An old pod leaves the list before it is deleted (docs/decisions/0028-handover.md); a drain waits for nobody."""

    def after(change: Change, replicas: int = 3, **guard: object) -> set[str]:
        some = replace(
            state(replicas), guard=GuardFacts(pre_stop=0.5, min_healthy_percent=50, **guard)
        )
        return risks(predict(some, NGINX, change, facts(), 0.0))

    assert after(ROLLOUT) == set()
    assert after(ROLLOUT, drain=DrainPolicy(mode=DrainMode.RECOMMEND)) != set()
    assert after(ROLLOUT, replicas=4) != set(), "one may go before any successor is there"
    assert after(Change(ChangeKind.NODE_DRAIN, pods=2)) != set()


def test_a_crash_loops_longer_each_time() -> None:
    crashes = [
        lost(predict(state(probe=PROBE, replicas=1), CONTOUR, Change(ChangeKind.CRASH, restarts=n), facts(), 0.0))
        for n in range(4)
    ]  # fmt: skip
    assert crashes == sorted(crashes)
    assert crashes[3] - crashes[1] == pytest.approx(RATE * 30, rel=0.1)


def test_a_lost_node_takes_its_share_until_it_is_noticed() -> None:
    loss = Change(ChangeKind.NODE_LOSS, pods=1)
    (window,) = predict(state(), CONTOUR, loss, facts(), 0.0)
    assert window.risk == "node-loss"
    assert window.share == pytest.approx(1 / 3)
    assert window.duration.value > 35
    guard = GuardFacts(eject=Estimate(1.0, 1.5, 2.0, Evidence.MEASURED))
    assert (
        lost(predict(replace(state(), guard=guard), CONTOUR, loss, facts(), 0.0))
        < lost((window,)) / 10
    )


def test_a_budget_spreads_a_drain_out() -> None:
    drain = Change(ChangeKind.NODE_DRAIN, pods=3)
    alone = state(probe=PROBE, hook=2.0)
    budget = Budget(SHOP, LabelSelector(LABELS), max_unavailable=1)
    assert risks(predict(alone, CONTOUR, drain, facts(5.0), 0.0)) == {"no-disruption-budget"}
    kept = replace(alone, budgets=(budget,))
    assert risks(predict(kept, CONTOUR, drain, facts(5.0), 0.0)) == set()


@pytest.mark.parametrize(
    ("value", "total", "up", "expected"),
    [
        ("25%", 3, True, 1),
        ("25%", 3, False, 0),
        ("50%", 4, True, 2),
        (2, 3, True, 2),
        (None, 3, True, 0),
        ("nan%", 3, True, 0),
        ("1e999%", 3, False, 0),
        ("many", 3, True, 0),
        (-1, 3, True, 0),
    ],
)  # fmt: skip
def test_percentages_round_as_kubernetes_rounds(
    value: int | str | None, total: int, up: bool, expected: int
) -> None:
    assert resolve(value, total, up=up) == expected


def test_the_strictest_budget_counts() -> None:
    some = LabelSelector(LABELS)
    budgets = (Budget(SHOP, some, min_available="50%"), Budget(SHOP, some, max_unavailable=1))
    assert disruptions_allowed(budgets, 5) == 1
    assert disruptions_allowed((Budget(SHOP, some, min_available=9),), 5) == 0
    assert disruptions_allowed((), 5) == 5


changes = st.builds(
    Change,
    kind=st.sampled_from(ChangeKind),
    to_replicas=st.integers(0, 3),
    pods=st.integers(0, 5),
    restarts=st.integers(0, 20),
)
probes = st.none() | st.builds(
    KubeProbe,
    kind=st.sampled_from([HookKind.HTTP, HookKind.TCP, HookKind.EXEC]),
    port=st.sampled_from([None, "http", 8080, 9090]),
    period=st.floats(0, 60),
    initial_delay=st.floats(0, 60),
    success_threshold=st.integers(0, 5),
)
strategies = st.builds(
    Strategy,
    kind=st.sampled_from(StrategyKind),
    max_surge=st.sampled_from([0, 1, 3, "25%", "100%", "x"]),
    max_unavailable=st.sampled_from([0, 1, 3, "25%", "100%", "x"]),
)
states = st.builds(
    state,
    replicas=st.integers(-1, 10) | st.just(10**12),
    probe=probes,
    hook=st.none() | st.floats(0, 60),
    grace=st.floats(0, 60),
    strategy=strategies,
    kind=st.sampled_from(["Deployment", "StatefulSet", "DaemonSet", "Pod"]),
)
shutdowns = st.sampled_from(Shutdown)


@given(states, st.sampled_from([NGINX, CONTOUR]), changes, shutdowns, st.floats(0, 5))
def test_every_prediction_is_one_that_can_be_told(
    some: State, gateway: Gateway, change: Change, shutdown: Shutdown, response: float
) -> None:
    known = replace(facts(shutdown=shutdown, response=response), samples=4)
    windows = predict(some, gateway, change, known, 0.0)
    assert windows == predict(some, gateway, change, known, 99.0)
    for window in windows:
        assert window.risk in RISKS
        assert 0 < window.probability <= 1
        assert 0 <= window.share <= 1
        assert 0 <= window.lost.low <= window.lost.value <= window.lost.high < math.inf
        assert 0 <= window.duration.low <= window.duration.value <= window.duration.high
        assert (window.remedy is None) != (window.no_remedy == "")
        assert window.gateway in window.message


@given(states, st.sampled_from([NGINX, CONTOUR]), changes, st.integers(0, 7))
def test_a_gateway_takes_up_changes_in_their_order(
    some: State, gateway: Gateway, change: Change, index: int
) -> None:
    play = make_play(some, gateway, change, facts())
    if play is None:
        return
    draw = Draw(index, 8)
    lives = course.run(play, draw)
    traffic.program(play, draw, lives)
    seen = sorted(
        [(x.listed, x.used_from) for x in lives if -math.inf < x.listed < x.delisted]
        + [
            (x.delisted, x.used_until)
            for x in lives
            if x.delisted < math.inf and x.listed < x.delisted
        ]
    )
    for (_, earlier), (_, later) in itertools.pairwise(seen):
        assert earlier <= later or math.isclose(earlier, later)


@given(st.floats(0, 5), st.floats(0, 5))
def test_a_longer_hook_never_costs_more(one: float, other: float) -> None:
    shorter, longer = sorted((one, other))
    few = replace(facts(), samples=8)
    costs = [
        lost(predict(state(probe=PROBE, hook=hook), NGINX, ROLLOUT, few, 0.0))
        for hook in (shorter, longer)
    ]
    assert costs[1] <= costs[0] + 1e-6
