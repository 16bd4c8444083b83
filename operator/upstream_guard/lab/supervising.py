"""Starts processes again that have ended, after pauses that grow, as the kubelet does with containers."""

import math
import threading
import time
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from upstream_guard.lab import process
from upstream_guard.lab.model import LabError

FIRST_PAUSE: Final = 1.0
"""Seconds before the second restart in a row; the first comes at once, as the kubelet's does."""
LONGEST_PAUSE: Final = 30.0
"""The kubelet's are 10 s to 5 min: too long for who watches a lab."""
GOOD_SECONDS: Final = 60.0
"""What has run for so long is well, and its next restart is a first one again."""
LOOK_SECONDS: Final = 0.1


class Running(Protocol):
    """Something that runs as a process of the lab."""

    @property
    def pid(self) -> int:
        """Its process."""


R = TypeVar("R", bound=Running)


@dataclass(frozen=True, slots=True)
class Course:
    """How one process has fared.

    Attributes:
        started: When it was started last, on a monotonic clock.
        restarts: Restarts in a row after which it did not run well.
        due: When it is to be started again; infinite while it runs.
    """

    started: float
    restarts: int = 0
    due: float = math.inf


def pause_before(restarts: int) -> float:
    """Seconds to wait before one more restart, after so many in a row."""
    if restarts == 0:
        return 0.0
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(restarts - 1, 16))


def ended(course: Course, now: float) -> Course:
    """It was found to have ended; when it is due again is fixed by the first look that finds it so."""
    if course.due < math.inf:
        return course
    restarts = 0 if now - course.started >= GOOD_SECONDS else course.restarts
    return replace(course, restarts=restarts, due=now + pause_before(restarts))


def restarted(course: Course, now: float) -> Course:
    """It was started again."""
    return Course(now, course.restarts + 1)


@contextmanager
def supervised(crew: MutableSequence[R], again: Callable[[R], R]) -> Iterator[None]:
    """Keep processes running while the context is open.

    Args:
        crew: Those that run; what is started again takes the place of the one that ended.
        again: Starts one anew. Where it raises a LabError it is tried again, later.
    """
    done = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(crew, again, done), name="supervisor", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _watch(crew: MutableSequence[R], again: Callable[[R], R], done: threading.Event) -> None:
    courses = [Course(time.monotonic()) for _ in crew]
    while not done.wait(LOOK_SECONDS):
        for place, course in enumerate(courses):
            if process.alive(crew[place].pid):
                continue
            now = time.monotonic()
            courses[place] = ended(course, now)
            if now >= courses[place].due:
                courses[place] = restarted(courses[place], now)
                with suppress(LabError):  # it is tried again, later
                    crew[place] = again(crew[place])
