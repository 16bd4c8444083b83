"""What ends is started again: after pauses that grow, and no longer than somebody wants it."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from upstream_guard.lab import process
from upstream_guard.lab.model import LabError
from upstream_guard.lab.supervising import (
    GOOD_SECONDS,
    LONGEST_PAUSE,
    Course,
    ended,
    pause_before,
    restarted,
    supervised,
)


class TestPauses:
    def test_grow_and_end_somewhere(self) -> None:
        pauses = [pause_before(restarts) for restarts in range(8)]
        assert pauses == [0, 1, 2, 4, 8, 16, 30, 30]
        assert pause_before(10_000) == LONGEST_PAUSE

    def test_the_first_restart_comes_at_once(self) -> None:
        assert ended(Course(started=0.0), 5.0).due == 5.0

    def test_what_ends_again_and_again_waits_longer(self) -> None:
        course, now, waits = Course(started=0.0), 0.0, []
        for _ in range(4):
            now += 3.0
            course = ended(course, now)
            waits.append(course.due - now)
            now = course.due
            course = restarted(course, now)
            assert course.due == math.inf
        assert waits == [0, 1, 2, 4]

    def test_what_ran_well_begins_anew(self) -> None:
        course = Course(started=100.0, restarts=5)
        assert ended(course, 100.0 + GOOD_SECONDS).due == 100.0 + GOOD_SECONDS
        assert ended(course, 99.0 + GOOD_SECONDS).due == 99.0 + GOOD_SECONDS + 16

    def test_looking_again_does_not_put_it_off(self) -> None:
        course = ended(Course(started=0.0, restarts=3), 10.0)
        assert ended(course, 12.0) == course


@dataclass(frozen=True)
class Sleeper:
    pid: int
    number: int = 1


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    process.kill_all([p for p in process.marked() if p.state_dir == tmp_path])


def start(state: Path, seconds: int) -> int:
    return process.start(state, "sleeper", ["sleep", str(seconds)])


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_that_is_killed_comes_back_in_its_place(state: Path) -> None:
    crew = [Sleeper(start(state, 60)), Sleeper(start(state, 60))]
    first, other = crew

    def again(old: Sleeper) -> Sleeper:
        return replace(old, pid=start(state, 60), number=old.number + 1)

    with supervised(crew, again):
        process.kill_pids([first.pid])
        until(lambda: crew[0].number == 2)
        assert process.alive(crew[0].pid)
        assert crew[1] == other
    process.kill_pids([crew[0].pid])
    assert not process.alive(crew[0].pid), "nobody looks any more"


def test_one_that_cannot_be_started_is_tried_again(state: Path) -> None:
    crew = [Sleeper(start(state, 0))]
    tries: list[float] = []

    def again(old: Sleeper) -> Sleeper:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise LabError("no such program")
        return replace(old, pid=start(state, 60), number=2)

    with supervised(crew, again):
        until(lambda: crew[0].number == 2)
    assert tries[1] - tries[0] >= 0.9
