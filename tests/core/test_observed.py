"""How windows add up to the time in which requests failed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.observed import failed_after

TIMES = st.integers(0, 50).map(float)
SPANS = st.lists(st.tuples(TIMES, TIMES).map(lambda pair: tuple(sorted(pair))), max_size=5)


@pytest.mark.parametrize(
    ("spans", "counted", "seconds", "until"),
    [
        ([], 7, 0, 7),
        ([(10, 14)], 7, 4, 14),
        ([(10, 14)], 12, 2, 14),
        ([(10, 14)], 20, 0, 20),
        ([(10, 10)], 7, 0, 10),
        ([(12, 20), (10, 14)], 7, 10, 20),
        ([(10, 20), (12, 14)], 7, 10, 20),
        ([(10, 12), (18, 20)], 7, 4, 20),
    ],
    ids=[
        "none", "one", "goes-on", "counted", "one-request", "overlap", "within", "gap",
    ],
)  # fmt: skip
def test_seconds_that_failed(spans, counted, seconds, until):
    assert failed_after(spans, counted) == (seconds, until)


@given(SPANS, st.lists(TIMES, min_size=1, max_size=4).map(sorted))
def test_counted_step_by_step_it_is_what_it_is_at_once(spans, moments):
    """Windows that go on: at each moment their spans reach up to it."""
    moments.append(100.0)
    total, counted = 0.0, 0.0
    for now in moments:
        seen = [(first, min(last, now)) for first, last in spans if first <= now]
        seconds, counted = failed_after(seen, counted)
        total += seconds
    assert total == failed_after(spans, 0.0)[0]
    assert total == sum(any(a <= s < b for a, b in spans) for s in range(51))
