"""What a run's requests add up to."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.lab.demo import tally
from upstream_guard.lab.demo.tally import Record


def request(sent: float, outcome: str = "200", took: float = 0.001, late: float = 0.0) -> Record:
    return Record(sent, sent + took, late, outcome)


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        ("200", False),
        ("302", False),
        ("404", False),
        ("499", False),
        ("500", True),
        ("502", True),
        ("503", True),
        (tally.TIMEOUT, True),
        (tally.TRUNCATED, True),
        (tally.REFUSED, True),
    ],
)
def test_a_failure_is_what_a_user_sees_as_one(outcome: str, failed: bool) -> None:
    assert request(0, outcome).failed is failed


def test_counts_by_outcome_most_frequent_first() -> None:
    summed = tally.tally([request(0, "502"), request(1), request(2), request(3, tally.TIMEOUT)])
    assert summed.requests == 4
    assert summed.failed == 2
    assert next(iter(summed.statuses.items())) == ("200", 2)
    assert summed.statuses == {"200": 2, "502": 1, "timeout": 1}


def test_windows_end_after_a_calm_second_and_add_up() -> None:
    failures = [10.0, 10.2, 10.9, 12.0, 12.5]
    summed = tally.tally([request(t, "502") for t in reversed(failures)])
    assert [(w.start, w.end, w.failed) for w in summed.windows] == [
        (10.0, 10.9, 3),
        (12.0, 12.5, 2),
    ]
    assert summed.window_seconds == pytest.approx(1.4)
    assert summed.span_seconds == pytest.approx(2.5)


def test_a_single_failure_is_a_window_of_no_length() -> None:
    summed = tally.tally([request(5, "502"), request(6)])
    assert (len(summed.windows), summed.window_seconds, summed.span_seconds) == (1, 0.0, 0.0)


def test_an_empty_run_is_all_zeros() -> None:
    summed = tally.tally([])
    assert (summed.requests, summed.failed, summed.statuses, summed.windows) == (0, 0, {}, ())
    assert (summed.late_p99, summed.slowest, summed.window_seconds) == (0.0, 0.0, 0.0)


def test_lateness_is_the_nearest_rank_percentile() -> None:
    records = [request(i, late=i / 1000) for i in range(1, 101)]
    assert tally.tally(records).late_p99 == pytest.approx(0.099)


def test_half_a_line_is_refused_with_what_it_was() -> None:
    with pytest.raises(ValueError, match=r"not a load record: '\[17000"):
        tally.decode("[17000")
    with pytest.raises(ValueError, match="not a load record"):
        tally.decode("[1, 2, 3]")


TIMES = st.floats(0, 4e9, allow_nan=False)
RECORDS = st.builds(
    Record, TIMES, TIMES, st.floats(0, 10), st.sampled_from(["200", "502", tally.TIMEOUT])
)


@given(RECORDS)
def test_a_record_survives_its_line(record: Record) -> None:
    back = tally.decode(tally.encode(record))
    assert back.outcome == record.outcome
    assert back.sent == pytest.approx(record.sent, abs=1e-4)
    assert back.done == pytest.approx(record.done, abs=1e-4)
    assert back.late == pytest.approx(record.late, abs=1e-5)


@given(st.lists(RECORDS, max_size=50))
def test_every_failure_lies_in_exactly_one_window(records: list[Record]) -> None:
    windows = tally.find_windows(records)
    assert sum(window.failed for window in windows) == sum(record.failed for record in records)
    assert all(b.start - a.end >= tally.WINDOW_GAP for a, b in pairwise(windows))
