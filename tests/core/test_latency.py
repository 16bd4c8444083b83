"""Quantiles, and how sure a 99th percentile of few samples is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.latency import Latencies, Measured, latencies, p99_confidence


def test_nothing_measured_says_nothing() -> None:
    assert latencies([]) is None
    assert p99_confidence(0) == 0.0


def test_quantiles_by_nearest_rank() -> None:
    found = latencies(range(1, 101))
    assert found == Latencies(100, 50, 90, 99, 100)
    assert latencies([3.0, 1.0, 2.0]) == Latencies(3, 2.0, 3.0, 3.0, 3.0)


def test_ten_samples_have_a_ninetieth_percentile_that_is_the_ninth() -> None:
    found = latencies(range(1, 11))
    assert found is not None
    assert found.p90 == 9


@pytest.mark.parametrize(
    ("samples", "confidence"), [(1, 0.01), (30, 0.2603), (60, 0.4528), (99, 0.6303)]
)
def test_the_maximum_of_few_samples_is_above_the_true_p99_with(
    samples: int, confidence: float
) -> None:
    assert p99_confidence(samples) == pytest.approx(confidence, abs=1e-4)
    assert p99_confidence(samples) == pytest.approx(1 - 0.99**samples)


@pytest.mark.parametrize("samples", [60, 150, 300])
def test_confidence_is_what_a_simulation_finds(samples: int) -> None:
    chance = random.Random(samples)
    rounds = 1500
    covered = sum(
        found.p99 >= 0.99
        for _ in range(rounds)
        if (found := latencies(chance.random() for _ in range(samples)))
    )
    assert covered / rounds == pytest.approx(p99_confidence(samples), abs=0.04)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=400))
def test_quantiles_are_samples_in_order(seconds: list[float]) -> None:
    found = latencies(seconds)
    assert found is not None
    assert found.samples == len(seconds)
    assert found.p50 <= found.p90 <= found.p99 <= found.max == max(seconds)
    assert {found.p50, found.p90, found.p99} <= set(seconds)
    assert 0.0 <= found.confidence < 1.0


def test_kept_connections_count_where_the_gateway_ends_them() -> None:
    new, kept = Latencies(30, 1.0, 1.1, 1.2, 1.2), Latencies(10, 2.0, 3.0, 4.0, 4.0)
    assert Measured(new).decisive is new
    assert Measured(new, kept=kept).decisive is kept
    assert Measured(new, kept=kept, sticks=True).decisive is new
