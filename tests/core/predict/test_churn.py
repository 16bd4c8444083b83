"""How busy other Services keep kube-proxy."""

import math

import pytest

from upstream_guard.core.predict.churn import MOST_BUSY, WINDOW, other_changes

NOW = 1000.0


def test_nothing_that_changed_keeps_nobody_busy():
    assert other_changes([], NOW) == 0


@pytest.mark.parametrize("number", [1, 2, 50])
def test_a_burst_makes_one_wait(number):
    burst = [NOW - 60 + 0.001 * i for i in range(number)]
    assert other_changes(burst, NOW) == pytest.approx(1 / WINDOW, abs=0.05)


def test_steady_changes_keep_it_busy_for_their_share_of_the_time():
    times = [NOW - WINDOW + 2.0 * i for i in range(60)]
    assert other_changes(times, NOW) == pytest.approx(-math.log(1 - 0.5), abs=0.05)


def test_it_is_never_endless():
    times = [NOW - WINDOW + 0.1 * i for i in range(1200)]
    assert other_changes(times, NOW) == pytest.approx(-math.log(1 - MOST_BUSY), abs=0.05)


def test_what_is_long_ago_or_just_begun_counts_for_its_part():
    assert other_changes([NOW - WINDOW - 5, NOW - WINDOW - 0.5], NOW) == 0
    assert other_changes([NOW - 0.001], NOW) == 0
