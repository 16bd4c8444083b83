"""The canary's decisions, against gateways that are played."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core import canary
from upstream_guard.core.canary import (
    Absence,
    Act,
    Arrival,
    CanaryPlan,
    Connections,
    Endpoint,
    Pace,
    Sample,
    Toggle,
    arrived,
    ask_period,
    canary_host,
    canary_name,
    measured,
    next_act,
    next_kind,
    sample_of,
)
from upstream_guard.core.latency import Latencies, Measured
from upstream_guard.core.tuning import GatewayKind

START = 1000.0
Step = tuple[Act, float]


@dataclass
class Gateway:
    """Sends each request to the listed endpoint that it knows last, `delay` after the write.

    A kept connection stays until `ends` seconds after the detach, or until the endpoint ends it.
    """

    delay: float
    keeps: bool = False
    ends: float = float("inf")
    reachable: bool = True
    writes: list[Step] = field(default_factory=list)

    def pick(self, toggle: Toggle, now: float) -> Arrival | None:
        if not self.reachable:
            return None
        gone = toggle.detach_at and now >= toggle.detach_at + self.delay
        if not gone:
            return Arrival(now, toggle.outgoing, self.keeps and toggle.warmed > 0)
        ended = toggle.ended_at or now >= toggle.detach_at + self.ends
        if self.keeps and not ended:
            return Arrival(now, toggle.outgoing, reused=True)
        return Arrival(now, toggle.incoming)


def play(gateway: Gateway, connections: Connections = Connections.NEW) -> tuple[Toggle, Act, int]:
    """One toggle from start to end; the toggle, how it ended, and the requests that it took."""
    now, asked = START, 0
    toggle = Toggle(now, Endpoint.A, Absence.ABSENT, connections, expected=1.0)
    while now < START + 500:
        act = next_act(toggle, now)
        if act in {Act.DONE, Act.FAIL}:
            return toggle, act, asked
        if act is Act.ATTACH:
            gateway.writes.append((act, now))
            toggle = replace(toggle, attach_at=now)
            now += canary.PAIR_SECONDS
        elif act is Act.DETACH:
            gateway.writes.append((act, now))
            toggle = replace(toggle, detach_at=now)
        elif act is Act.END_KEPT:
            toggle = replace(toggle, ended_at=now)
        else:
            asked += 1
            arrival = gateway.pick(toggle, now)
            toggle = toggle if arrival is None else arrived(toggle, arrival)
            now += ask_period(toggle, now)
    pytest.fail("the toggle never ended")


@pytest.mark.parametrize("delay", [0.0, 0.03, 1.0, 1.15, 5.0, 30.0])
def test_measures_the_delay_to_within_the_time_between_two_requests(delay: float) -> None:
    toggle, end, _ = play(Gateway(delay))
    sample = sample_of(toggle, 5.0)
    assert end is Act.DONE
    assert sample.detach == pytest.approx(delay, abs=canary.SLOW_PERIOD + 1e-6)
    assert sample.detach <= delay
    assert sample.attach == pytest.approx(
        delay + canary.PAIR_SECONDS, abs=canary.SLOW_PERIOD + 1e-6
    )
    assert (sample.kept, sample.sticks, sample.at) == (None, None, 5.0)


def test_the_detach_follows_the_attach_as_in_a_rollout() -> None:
    gateway = Gateway(1.0)
    play(gateway)
    (first, attached), (second, detached) = gateway.writes
    assert (first, second) == (Act.ATTACH, Act.DETACH)
    assert detached - attached == pytest.approx(canary.PAIR_SECONDS)


def test_no_way_through_means_no_write() -> None:
    gateway = Gateway(0.0, reachable=False)
    _, end, asked = play(gateway)
    assert end is Act.FAIL
    assert gateway.writes == []
    assert asked <= canary.REACH_SECONDS / canary.SEARCH_PERIOD + 1


def test_a_way_that_is_lost_on_the_way_teaches_nothing() -> None:
    @dataclass
    class Vanishing(Gateway):
        def pick(self, toggle: Toggle, now: float) -> Arrival | None:
            return None if toggle.detach_at else super().pick(toggle, now)

    for connections in Connections:
        _, end, _ = play(Vanishing(1.0), connections)
        assert end is Act.FAIL


def test_an_endpoint_that_is_never_forgotten_ends_the_toggle_all_the_same() -> None:
    toggle, end, _ = play(Gateway(10_000.0))
    assert end is Act.DONE
    detach = sample_of(toggle, 0.0).detach
    assert detach is not None
    assert detach >= canary.GIVE_UP_SECONDS - 1


def test_requests_of_a_toggle_are_few() -> None:
    assert play(Gateway(0.005))[2] < 70
    assert play(Gateway(1.1))[2] < 130


def test_kept_connections_that_end_with_the_list_are_measured_apart() -> None:
    toggle, end, _ = play(Gateway(0.0, keeps=True, ends=0.2), Connections.KEPT)
    sample = sample_of(toggle, 0.0)
    assert end is Act.DONE
    assert sample.detach is None
    assert sample.kept == pytest.approx(0.2, abs=canary.FAST_PERIOD + 1e-6)
    assert sample.sticks is False


def test_kept_connections_that_stay_are_ended_by_the_canary_and_reported() -> None:
    toggle, end, _ = play(Gateway(0.0, keeps=True), Connections.KEPT)
    assert end is Act.DONE
    assert sample_of(toggle, 0.0) == Sample(0.0, sample_of(toggle, 0.0).attach, sticks=True)
    assert toggle.ended_at - toggle.detach_at == pytest.approx(
        1.0 + canary.KEPT_SECONDS, abs=canary.SLOW_PERIOD
    )


def test_a_gateway_that_keeps_none_says_nothing_of_kept_connections() -> None:
    toggle, end, _ = play(Gateway(0.0), Connections.KEPT)
    assert end is Act.DONE
    assert toggle.warmed >= canary.WARM_UP
    assert sample_of(toggle, 7.0) == Sample(7.0)


def test_requests_between_attach_and_detach_are_no_delay() -> None:
    toggle = replace(Toggle(START, Endpoint.A, Absence.ABSENT), attach_at=START + 1)
    assert arrived(toggle, Arrival(START + 1.01, Endpoint.A)) == toggle


def test_a_request_to_the_other_one_before_it_is_listed_is_no_attach() -> None:
    toggle = Toggle(START, Endpoint.A, Absence.ABSENT)
    assert arrived(toggle, Arrival(START, Endpoint.B)) == toggle


# Names.


def test_a_profile_with_a_short_name_has_a_canary_that_people_can_tell() -> None:
    assert canary_name(GatewayKind.PROFILE, "edge-nginx") == "canary-gatewayprofile-edge-nginx"
    assert canary_host(GatewayKind.PROFILE, "edge") == (
        "canary-gatewayprofile-edge.upstream-guard.invalid"
    )


@given(
    st.sampled_from(GatewayKind),
    st.text(st.sampled_from("abcXYZ019-./ ()"), max_size=330),
    st.text(st.sampled_from("abcXYZ019-./ ()"), max_size=330),
)
def test_names_are_labels_and_tell_gateways_apart(kind: GatewayKind, one: str, two: str) -> None:
    for name in (canary_name(kind, one), canary_name(kind, two)):
        assert len(name) <= 63
        assert name.strip("abcdefghijklmnopqrstuvwxyz0123456789-") == ""
        assert name[-1] != "-"
    assert (one == two) == (canary_name(kind, one) == canary_name(kind, two))
    for other in GatewayKind:
        if other is not kind:
            assert canary_name(other, one) != canary_name(kind, one)


def test_a_plan_is_known_by_its_gateway() -> None:
    plan = CanaryPlan(GatewayKind.GATEWAY, "prod/public", "x.invalid")
    assert plan.key == (GatewayKind.GATEWAY, "prod/public")
    assert plan.service.startswith("canary-gateway-prod-public-")


# When.


def run(pace: Pace, seconds: float, requests: int = 60) -> list[float]:
    """When toggles of two seconds each end, in so many seconds."""
    now, ends = 0.0, []
    while True:
        now = max(now, pace.next_at) + 2.0
        if now > seconds:
            return ends
        ends.append(now)
        pace = canary.after_toggle(pace, now, requests, 2.0, 1200, 0.5)


def test_a_burst_then_slower_and_slower() -> None:
    ends = run(Pace(), 24 * 3600)
    gaps = [b - a for a, b in itertools.pairwise(ends)]
    burst = gaps[: canary.FIRST_BURST - 1]
    assert all(gap < 4 for gap in burst)
    later = gaps[canary.FIRST_BURST - 1 :]
    assert later[0] < 20
    assert max(gaps) <= canary.MAX_INTERVAL + 2.0
    assert later == sorted(later), "exponential, up to its ceiling"
    assert later[-1] > 3000
    assert sum(end <= 3600 for end in ends) <= canary.FIRST_BURST + 8
    assert sum(end > 7200 for end in ends) <= 23, "at most one an hour"


GATEWAYS = {
    "follows at once": Gateway(0.005, keeps=True, ends=0.01),
    "kube-proxy": Gateway(1.1),
    "keeps connections": Gateway(1.1, keeps=True),
}


def live(
    gateway: Gateway, hours: int, from_hour: int, *, busy: bool = False
) -> tuple[int, int, float]:
    """Toggles and requests from an hour on, and the longest time between two toggles."""
    pace, now, ended = Pace(), 0.0, 0.0
    toggles, requests, longest = 0, 0, 0.0
    while now < hours * 3600:
        if now < pace.next_at:
            now = min(pace.next_at, now + 10.0)
            pace = canary.stirred(pace, now) if busy else pace
            continue
        _, connections = next_kind(pace, keeps=gateway.keeps)
        played = replace(gateway, keeps=connections is Connections.KEPT, writes=[])
        toggle, _, asked = play(played, connections)
        assert len(played.writes) == 2
        took = toggle.last_out - toggle.started + canary.QUIET_SECONDS
        now += took
        if now >= from_hour * 3600:
            toggles, requests = toggles + 1, requests + asked
            longest = max(longest, now - ended)
        ended = now
        pace = canary.after_toggle(pace, now, asked, took, 1200, 0.5)
    return toggles, requests, longest


@pytest.mark.parametrize(
    ("gateway", "most"),
    list(zip(GATEWAYS.values(), (60, 120, 170), strict=True)),
    ids=GATEWAYS,
)
def test_an_hour_of_peace_costs_nearly_nothing(gateway: Gateway, most: int) -> None:
    toggles, requests, _ = live(gateway, hours=25, from_hour=5)
    assert 19 <= toggles <= 22, "one an hour, of two writes"
    assert requests <= 20 * most


@pytest.mark.parametrize("gateway", GATEWAYS.values(), ids=GATEWAYS)
def test_where_pods_come_and_go_a_slow_gateway_is_noticed_within_five_minutes(
    gateway: Gateway,
) -> None:
    toggles, _, longest = live(gateway, hours=6, from_hour=2, busy=True)
    assert longest <= 300
    assert toggles <= 4 * 17


def test_the_first_pod_after_hours_of_peace_has_the_gateway_measured_at_once() -> None:
    calm = Pace(next_at=9000.0, burst=0, interval=3600.0, toggles=60, measured_at=5000.0)
    first = canary.stirred(calm, 8000.0)
    assert (first.next_at, first.burst) == (8000.0, 0)
    measured_again = canary.after_toggle(first, 8003.0, 60, 3.0, 1200, 1.0)
    assert measured_again.next_at == pytest.approx(8003.0 + canary.BUSY_INTERVAL)
    again = canary.stirred(measured_again, 8010.0)
    assert again.next_at == measured_again.next_at, "not for each pod"
    assert again.interval == canary.BUSY_INTERVAL


@pytest.mark.parametrize(
    "pace", [Pace(next_at=50.0, burst=3), Pace(next_at=50.0, burst=0, failures=2)]
)
def test_pods_hurry_neither_a_burst_nor_a_closed_way(pace: Pace) -> None:
    assert canary.stirred(pace, 20.0) == pace


def test_the_budget_stretches_a_burst() -> None:
    pace = canary.after_toggle(Pace(), 100.0, requests=600, seconds=2.0, per_minute=600, jitter=0)
    assert pace.next_at == pytest.approx(158.0)


def test_a_changed_gateway_is_measured_at_once() -> None:
    calm = Pace(next_at=900.0, burst=0, interval=240.0, toggles=60)
    changed = canary.at_once(calm, 100.0)
    assert (changed.next_at, changed.burst) == (100.0, canary.CHANGE_BURST)
    assert changed.interval == canary.FIRST_INTERVAL
    busy = Pace(next_at=101.0, burst=30)
    assert canary.at_once(busy, 100.0) == busy


def test_a_closed_way_is_tried_less_and_less_often() -> None:
    pace, now, waits = Pace(), 0.0, []
    for _ in range(12):
        pace = canary.after_failure(pace, now, 1.0)
        waits.append(pace.next_at - now)
        now = pace.next_at
    assert waits == sorted(waits)
    assert waits[0] == canary.FIRST_RETRY
    assert waits[-1] == canary.MAX_RETRY
    assert canary.after_toggle(pace, now, 1, 1.0, 1200, 0).failures == 0


def test_every_kind_of_toggle_has_its_turn() -> None:
    kinds = [next_kind(Pace(toggles=n), keeps=True) for n in range(36)]
    assert {kind for kind, connections in kinds if connections is Connections.NEW} == set(Absence)
    assert {kind for kind, connections in kinds if connections is Connections.KEPT} == set(Absence)
    assert sum(c is Connections.KEPT for _, c in kinds) == 9
    assert all(next_kind(Pace(toggles=n), keeps=False)[1] is Connections.NEW for n in range(36))


# What is made of it.


def samples(count: int, detach: float = 1.0, **changes: object) -> tuple[Sample, ...]:
    return tuple(
        replace(Sample(float(n), 0.1, detach + n / 1000), **changes)  # type: ignore[arg-type]
        for n in range(count)
    )


def test_samples_amount_to_quantiles_apart() -> None:
    found = measured((*samples(10), Sample(11.0, kept=3.0, sticks=False), Sample(12.0)))
    assert found is not None
    assert found.detach == Latencies(10, 1.004, 1.008, 1.009, 1.009)
    assert found.attach is not None
    assert found.attach.samples == 10
    assert found.kept == Latencies(1, 3.0, 3.0, 3.0, 3.0)
    assert (found.sticks, found.last) == (False, 12.0)
    assert measured((Sample(1.0, kept=1.0),)) is None


def test_one_kept_connection_that_stays_is_enough() -> None:
    assert getattr(measured((*samples(3), Sample(9.0, sticks=True))), "sticks", None) is True


def test_surprises() -> None:
    calm = measured(samples(30))
    assert not canary.is_surprise(Sample(0.0, detach=1.2), calm)
    assert canary.is_surprise(Sample(0.0, detach=2.0), calm)
    assert not canary.is_surprise(Sample(0.0, detach=2.0), None)
    assert not canary.is_surprise(Sample(0.0), calm)


def test_one_slow_toggle_of_long_ago_hides_no_gateway_that_became_slow() -> None:
    before = measured((Sample(0.0, 0.1, 60.0), *samples(canary.MAX_SAMPLES - 1)))
    assert canary.is_surprise(Sample(0.0, detach=3.0), before)


def test_a_burst_after_a_surprise_is_enough_to_raise_what_is_told() -> None:
    """Of 300 samples the 99th percentile passes over three: a surprise and its burst are more."""
    slow = []
    pace = Pace(burst=0, toggles=400)
    for _ in range(canary.SURPRISE_BURST):
        _, connections = next_kind(pace, keeps=True)
        slow += [Sample(0.0, 9.0, 8.0)] if connections is Connections.NEW else [Sample(0.0)]
        pace = replace(pace, toggles=pace.toggles + 1)
    known = (*samples(canary.MAX_SAMPLES), Sample(0.0, 9.0, 8.0), *slow)[-canary.MAX_SAMPLES :]
    found = measured(known)
    assert found is not None
    assert found.detach.p99 == 8.0


def test_a_steady_gateway_is_hardly_ever_news() -> None:
    told, news, window = None, 0, []
    for number in range(1200):
        at = 240.0 * number
        window = [*window, Sample(at, 0.1, 1.0 + (number * 7919 % 50) / 1000)][
            -canary.MAX_SAMPLES :
        ]
        found = measured(tuple(window))
        assert found is not None
        if canary.is_news(told, found, at):
            told, news = found, news + 1
    assert news <= len(canary.MILESTONES) + 5, "three days: the start, and once a day"


def test_more_samples_are_news_where_they_ask_for_another_pre_stop() -> None:
    """The margin shrinks with each of them: what asked for 1.2 s to be left alone asks for 0.9 s."""
    few = measured(samples(20, 0.281))
    assert few is not None
    surer, sure = (replace(few, detach=replace(few.detach, samples=n)) for n in (30, 200))
    assert not canary.is_news(few, surer, few.last)
    assert canary.is_news(few, sure, few.last)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: replace(m, sticks=True),
        lambda m: replace(m, kept=m.detach),
        lambda m: replace(m, detach=replace(m.detach, p99=1.5)),
        lambda m: replace(m, attach=replace(m.attach, p99=0.5)),
    ],
)
def test_what_matters_is_news_at_once(change: Callable[[Measured], Measured]) -> None:
    told = measured(samples(40))
    assert told is not None
    assert not canary.is_news(told, told, told.last + 60)
    assert canary.is_news(told, change(told), told.last + 60)
