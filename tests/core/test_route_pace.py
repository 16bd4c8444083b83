"""How often each way is asked: seldom in peace, ten times a second in a change, never above the budget."""

import itertools
import random

import pytest

from upstream_guard.core.model import RouteProbePolicy
from upstream_guard.core.route_pace import (
    KEPT_SECONDS,
    Bucket,
    Turn,
    first_turn,
    hurry,
    next_turn,
)

POLICY = RouteProbePolicy()


def dues(policy: RouteProbePolicy, until: float, hurried=lambda now: False) -> list[Turn]:
    draws = random.Random(1)
    turn = first_turn(policy, 0.0, draws.random(), hurried=hurried(0.0))
    found = []
    while turn.due < until:
        found.append(turn)
        now = turn.due
        turn = next_turn(turn, policy, now, draws.random(), hurried=hurried(now))
    return found


def test_in_peace_a_way_is_asked_about_every_interval() -> None:
    turns = dues(POLICY, 3600.0)
    assert 3600 / 3 <= len(turns) <= 3600 / 2.7 + 1
    gaps = [b.due - a.due for a, b in itertools.pairwise(turns)]
    assert max(gaps) <= 3.0 + 1e-9, "what it missed is half a gap at most"


def test_every_other_request_may_reuse_a_connection_that_no_gateway_has_closed() -> None:
    for policy in (POLICY, RouteProbePolicy(interval=1.0), RouteProbePolicy(interval=8.0)):
        turns = dues(policy, 600.0)
        assert [t.reuse for t in turns] == [n % 2 == 1 for n in range(len(turns))]
        for before, turn in itertools.pairwise(turns):
            assert not turn.reuse or turn.due - before.due <= KEPT_SECONDS


def test_seldom_asked_ways_reuse_nothing_and_keep_their_interval() -> None:
    turns = dues(RouteProbePolicy(interval=60.0), 3600.0)
    assert not any(t.reuse for t in turns)
    assert 60 <= len(turns) <= 68


def test_while_hurried_ten_times_a_second() -> None:
    turns = dues(POLICY, 10.0, lambda now: True)
    assert 100 <= len(turns) <= 112
    assert sum(t.reuse for t in turns) == pytest.approx(len(turns) / 2, abs=1)


def test_calm_comes_back_little_by_little() -> None:
    turns = dues(POLICY, 120.0, lambda now: now < 10.0)
    after = [t.due for t in turns if t.due >= 10.0]
    assert sum(d < 11.0 for d in after) >= 4
    assert sum(d < 40.0 for d in after) <= 30
    assert turns[-1].gap == POLICY.interval


def test_hurry_brings_the_next_request_forward_never_back() -> None:
    assert hurry(Turn(100.0, 5.0), POLICY, 10.0, 0.5) == Turn(10.05, 0.1)
    assert hurry(Turn(10.01, 5.0, reuse=True), POLICY, 10.0, 0.5) == Turn(10.01, 0.1, reuse=True)


def test_what_was_missed_is_not_made_up_for() -> None:
    late = next_turn(Turn(1.0, 0.1), POLICY, 50.0, 0.0, hurried=True)
    assert late.due == 50.0
    assert next_turn(late, POLICY, 50.0, 0.0, hurried=True).due == pytest.approx(50.1)


def test_a_budget_bounds_every_second() -> None:
    draws = random.Random(2)
    bucket = Bucket.full(20.0, 0.0)
    taken: list[float] = []
    now = 0.0
    while now < 30.0:
        bucket = bucket.refilled(now)
        if bucket.wait == 0:
            bucket = bucket.taken()
            taken.append(now)
            now += draws.random() * 0.02
        else:
            now += bucket.wait + 1e-9
    # A second's worth at once, then the rate.
    assert 20 * 30 <= len(taken) <= 20 * 31 + 1
    for second in range(1, 29):
        assert sum(second <= t < second + 1 for t in taken) <= 21


def test_a_bucket_is_indifferent_to_a_clock_that_stands_still() -> None:
    bucket = Bucket.full(2.0, 10.0).taken().taken()
    assert bucket.refilled(9.0) == bucket
    assert bucket.wait == pytest.approx(0.5)
    assert bucket.refilled(10.5).wait == pytest.approx(0.0)
