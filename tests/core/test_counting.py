"""Counters to deltas: restarts, new upstreams, and that no delta is ever negative."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.counting import (
    UPTIME_ERROR,
    Count,
    Reading,
    Subject,
    Succession,
    deltas,
    remembered,
    succession,
)
from upstream_guard.core.evidence import Failure, GatewayDelta
from upstream_guard.core.model import ObjectRef

SHOP = ObjectRef("prod", "shop")
CART = ObjectRef("prod", "cart")


def reading(at, started=None, asked=(SHOP,), endpoint="", **statuses):
    counts = {Subject(SHOP, endpoint): Count({int(k[1:]): v for k, v in statuses.items()})}
    return Reading(at, frozenset(asked), counts if statuses else {}, started)


def one(before, after) -> GatewayDelta:
    (delta,) = deltas("edge", "10.0.0.2", before, after)
    return delta


def test_what_was_added_between_two_looks():
    delta = one(reading(10, s200=5, s503=1), reading(15, s200=9, s503=1, s504=2))
    assert delta.statuses == {200: 4, 504: 2}
    assert (delta.since, delta.until, delta.replica, delta.service) == (10, 15, "10.0.0.2", SHOP)


def test_an_upstream_that_appears_began_at_zero():
    assert one(reading(10), reading(15, s502=3)).statuses == {502: 3}


def test_a_service_that_is_not_shown_for_a_while_does_not_begin_at_zero_again():
    seen, gone = reading(10, s200=500, s503=7), reading(15)
    assert one(remembered(seen, gone), reading(20, s200=500, s503=9)).statuses == {503: 2}
    assert one(remembered(None, gone), reading(20, s503=9)).statuses == {503: 9}
    elsewhere = remembered(seen, reading(15, asked=(CART,)))
    assert not list(deltas("edge", "r", elsewhere, reading(20, s503=9)))


def test_a_process_that_has_restarted_and_endpoints_keep_nothing():
    restarted = remembered(reading(10, started=1.0, s503=7), reading(15, started=12.0))
    assert restarted.counts == {}
    assert remembered(reading(10, endpoint="10.0.0.7:80", s503=7), reading(15)).counts == {}


def test_a_service_that_was_not_looked_for_has_no_delta_yet():
    assert not list(deltas("edge", "r", reading(10, asked=(CART,)), reading(15, s200=1000)))


def test_counters_that_went_down_began_anew():
    assert one(reading(10, s200=500, s503=7), reading(15, s200=3, s503=7)).statuses == {
        200: 3,
        503: 7,
    }


def test_answers_that_began_anew_do_not_make_old_failures_new():
    """Envoy, when a cluster gets other limits: thousands of failed attempts of last week were told as the cause."""
    before = Reading(
        10, frozenset((SHOP,)), {Subject(SHOP): Count({503: 90}, {Failure.CONNECT: 7000})}
    )
    after = Reading(
        15, frozenset((SHOP,)), {Subject(SHOP): Count({503: 3}, {Failure.CONNECT: 7001})}
    )
    assert one(before, after).statuses == {503: 3}
    assert one(before, after).failures == {Failure.CONNECT: 1}


def test_a_restart_is_seen_by_the_start_even_where_counters_have_caught_up():
    delta = one(reading(10, started=1.0, s200=5), reading(15, started=11.0, s200=8))
    assert delta.statuses == {200: 8}


@pytest.mark.parametrize("started", [3.0, 0.0])
def test_another_replica_at_the_same_address_tells_nothing(started):
    """It ran already when the first one was read: neither its counts nor a reset follow from that."""
    before, after = reading(10, started=7.0, s200=500), reading(15, started=started, s200=3)
    assert succession(before, after) is Succession.OTHER
    assert not list(deltas("edge", "r", before, after))


def test_a_start_that_is_told_in_whole_seconds_is_no_restart():
    delta = one(reading(10, started=1.0, s200=5), reading(15, started=1.9, s200=8))
    assert delta.statuses == {200: 3}


def test_an_uptime_that_is_renewed_now_and_then_is_no_restart():
    """Envoy's is up to five seconds old, so that its start seems to come later from look to look."""
    before = replace(reading(100, started=1.0, s200=5), start_error=UPTIME_ERROR)
    after = replace(reading(101, started=6.0, s200=8), start_error=UPTIME_ERROR)
    assert one(before, after).statuses == {200: 3}


def test_an_endpoint_without_news_is_left_out_and_a_service_is_not():
    same = {"endpoint": "10.0.0.7:80", "s200": 5}
    assert not list(deltas("edge", "r", reading(10, **same), reading(15, **same)))
    assert one(reading(10, s200=5), reading(15, s200=5)).statuses == {}


def test_failures_are_counted_as_statuses_are():
    before = Reading(1, frozenset({SHOP}), {Subject(SHOP): Count({}, {Failure.CONNECT: 2}, 3)})
    after = Reading(2, frozenset({SHOP}), {Subject(SHOP): Count({}, {Failure.CONNECT: 6}, 1)})
    delta = one(before, after)
    assert delta.failures == {Failure.CONNECT: 4}
    assert delta.healthy == 1


COUNTS = st.dictionaries(st.sampled_from([200, 404, 502, 503]), st.integers(0, 10**9))


@given(COUNTS, COUNTS, st.none() | st.floats(0, 100), st.none() | st.floats(0, 100))
def test_no_delta_is_negative_and_none_exceeds_what_is_shown(old, new, was, is_):
    before = Reading(10, frozenset({SHOP}), {Subject(SHOP): Count(old)}, was)
    after = Reading(20, frozenset({SHOP}), {Subject(SHOP): Count(new)}, is_)
    for delta in deltas("edge", "r", before, after):
        assert all(0 < n <= new[status] for status, n in delta.statuses.items())


@given(st.lists(st.tuples(COUNTS, st.booleans()), min_size=1, max_size=8))
def test_deltas_add_up_to_what_was_counted_between_looks_and_restarts(steps):
    """Whatever is counted before a look is told once, restarts or not."""
    shown: dict[int, int] = {}
    before = Reading(0, frozenset({SHOP}), {Subject(SHOP): Count({})}, 0.0)
    expected: dict[int, int] = {}
    told: dict[int, int] = {}
    started = 0.0
    for index, (added, restarts) in enumerate(steps):
        at = 100.0 * (index + 1)
        if restarts:
            shown, started = {}, at - 50
        for status, n in added.items():
            shown[status] = shown.get(status, 0) + n
            expected[status] = expected.get(status, 0) + n
        after = Reading(at, frozenset({SHOP}), {Subject(SHOP): Count(dict(shown))}, started)
        for delta in deltas("edge", "r", before, after):
            for status, n in delta.statuses.items():
                told[status] = told.get(status, 0) + n
        before = after
    assert told == {status: n for status, n in expected.items() if n}
