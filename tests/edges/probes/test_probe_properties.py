"""Properties that hold for any bytes, any times."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.model import ProbeProtocol, ProbeSpec
from upstream_guard.probes import Histogram, ProbeTarget
from upstream_guard.probes.exchange import Exchange, Verdict
from upstream_guard.probes.schedule import JITTER, Deadlines, Schedule
from upstream_guard.probes.scheduler import PROBERS

PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"x" * 20_000,
        b"\0\0\0\x04\0\0\0\0\0",
        b"\0\0\x01\x01\x05\0\0\0\x01\x88",
        b"\0\0\x07\0\x01\0\0\0\x01\0\0\0\0\x02\x08\x01",
        b"\x16\x03\x03\0\x05hello",
        b"\x15\x03\x03\0\x02\x02\x28",
    ]
)
TRAFFIC = st.lists(st.one_of(st.binary(min_size=1, max_size=200), PIECES), max_size=12)


def hold(exchange: Exchange, traffic: list[bytes], end: str) -> Verdict:
    """What a connection does with an exchange."""
    verdict = exchange.start(lambda data: None)
    for data in traffic:
        if verdict is not None:
            return verdict
        verdict = exchange.receive(data)
    if verdict is not None:
        return verdict
    match end:
        case "closed":
            return exchange.closed()
        case "timed out":
            return exchange.timed_out()
        case _:
            return exchange.reset("connection reset by peer")


@pytest.mark.parametrize("protocol", list(ProbeProtocol))
@given(traffic=TRAFFIC, end=st.sampled_from(["closed", "timed out", "reset"]))
def test_any_bytes_end_in_one_verdict(
    protocol: ProbeProtocol, traffic: list[bytes], end: str
) -> None:
    make = PROBERS[protocol](ProbeTarget("127.0.0.1", ProbeSpec(protocol, 80)))
    verdict = hold(make(), traffic, end)
    assert verdict.ok == (verdict.cause is None)
    assert len(verdict.detail) <= 200
    assert verdict.detail.isprintable()
    assert 0 <= verdict.status <= 999


@given(cuts=st.lists(st.integers(0, 70), max_size=8))
def test_how_an_answer_is_cut_changes_nothing(cuts: list[int]) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    edges = [0, *sorted(cuts), len(answer)]
    traffic = [answer[a:b] for a, b in pairwise(edges) if answer[a:b]]
    make = PROBERS[ProbeProtocol.HTTP](ProbeTarget("127.0.0.1", ProbeSpec(ProbeProtocol.HTTP, 80)))
    assert hold(make(), traffic, "closed").ok


@given(interval=st.floats(0.1, 1000), now=st.floats(0, 1e9), seed=st.integers())
def test_phases_and_jitter(interval: float, now: float, seed: int) -> None:
    schedule = Schedule(random.Random(seed))
    schedule.add("a", interval, now)
    first = schedule.next_due()
    assert first is not None
    assert now <= first <= now + interval
    assert schedule.pop(first) == ("a", first)
    assert schedule.pop(first + interval) is None  # taken until `again`
    schedule.again("a", interval, first, first)
    second = schedule.next_due()
    assert second is not None
    slack = 1e-6
    assert interval * (1 - JITTER) - slack <= second - first <= interval + slack


def test_never_in_the_past() -> None:
    schedule = Schedule(random.Random(1))
    schedule.again("a", 1.0, 10.0, 50.0)
    assert schedule.next_due() == 50.0


def test_order_and_moves() -> None:
    schedule = Schedule(random.Random(1))
    for due, key in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
        schedule.advance(key, due)
    schedule.advance("c", 0.5)
    schedule.advance("a", 9.0)  # later than it is due already: no effect
    schedule.discard("b")
    assert schedule.pop(0.4) is None
    assert [schedule.pop(5.0) for _ in range(3)] == [("c", 0.5), ("a", 1.0), None]
    assert len(schedule) == 0


def test_moves_do_not_pile_up() -> None:
    schedule = Schedule(random.Random(1))
    for number in range(100_000):
        schedule.advance(str(number % 10), 1e6 - number)
    assert len(schedule._heap) < 200


@given(
    deadlines=st.lists(st.floats(0, 100), max_size=50),
    steps=st.lists(st.floats(0, 10), max_size=30),
    grain=st.sampled_from([0.01, 0.1, 1.0]),
)
def test_deadlines_expire_once_and_in_time(
    deadlines: list[float], steps: list[float], grain: float
) -> None:
    sweep: Deadlines[tuple[int, float]] = Deadlines(grain)
    waiting = list(enumerate(sorted(deadlines)))
    added: list[tuple[int, float]] = []
    expired: list[tuple[int, float]] = []
    now = 0.0
    for step in [*steps, 200.0]:
        if waiting:
            added.append(waiting.pop())
            sweep.add(added[-1], added[-1][1])
        now += step
        batch = sweep.pop_expired(now)
        assert all(when <= now for _, when in batch)
        expired += batch
    assert len(sweep) == 0
    assert sorted(expired) == sorted(added)


def test_deadlines_are_at_most_a_grain_late() -> None:
    sweep: Deadlines[str] = Deadlines(0.01)
    sweep.add("a", 1.0001)
    assert sweep.pop_expired(1.0001) == []
    assert sweep.pop_expired(1.0102) == ["a"]
    sweep.add("b", 1.0)  # in the past: at the next sweep
    assert sweep.pop_expired(1.0103) == ["b"]


def test_histogram() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) == 0
    for value in [0.0004] * 98 + [0.02, 60.0]:
        histogram.observe(value)
    assert histogram.quantile(0.5) == 0.0005
    assert histogram.quantile(0.99) == 0.025
    assert histogram.quantile(1.0) == 60.0
    assert (histogram.count, histogram.last, histogram.maximum) == (100, 60.0, 60.0)
