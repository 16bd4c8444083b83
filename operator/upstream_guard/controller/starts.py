"""How long apps take to start, as seen from outside: from the container's start to the first answer."""

from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Final

from upstream_guard.core.model import ObjectRef, Pod
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import ASSUMED_START
from upstream_guard.core.tuning import Evidence

KEPT: Final = 8
"""Starts remembered for each guard."""
GRAIN: Final = 1.0
"""The API tells a container's start to the whole second, rounded down."""
MAX_UNSEEN: Final = 3.0
"""Seconds. A pod that answered the first probe had started by then, and nobody knows how long before:
that says something only of one that had just been started."""


class StartBook:
    """Measures start-ups, for each guard the last few."""

    def __init__(self) -> None:
        self._answers: dict[ObjectRef, dict[str, tuple[float, float]]] = {}
        self._starts: dict[ObjectRef, deque[tuple[float, float]]] = {}

    def answered(self, guard: ObjectRef, uid: str, failed_at: float, answered_at: float) -> None:
        """A new endpoint answered for the first time.

        Args:
            guard: The guard.
            uid: Of the pod.
            failed_at: Unix seconds of the last probe that failed before; 0 where none did.
            answered_at: Unix seconds of the first that succeeded.
        """
        self._answers.setdefault(guard, {})[uid] = (failed_at, answered_at)

    def match(self, guard: ObjectRef, pods: Iterable[Pod]) -> None:
        """Put answers together with the starts of their containers, which may be seen later."""
        waiting = self._answers.get(guard)
        if not waiting:
            return
        known = {pod.uid: pod.started for pod in pods}
        for uid in list(waiting):
            started = known.get(uid)
            if started is None:
                del waiting[uid]
            elif started > 0:
                self._take(guard, started, *waiting.pop(uid))
        if not waiting:
            del self._answers[guard]

    def estimate(self, guard: ObjectRef) -> Estimate:
        """The start-up of this guard's app: measured, or assumed where none was seen."""
        seen = self._starts.get(guard)
        if not seen:
            return ASSUMED_START
        low, high = min(start[0] for start in seen), max(start[1] for start in seen)
        middle = median(sum(start) / 2 for start in seen)
        source = (
            f"start-up of {middle:.1f} s ({low:.1f} to {high:.1f} s), measured {len(seen)} times"
        )
        return Estimate(low, middle, high, Evidence.MEASURED, source)

    def forget(self, guard: ObjectRef) -> None:
        """The guard is gone, or guards another Service now."""
        self._answers.pop(guard, None)
        self._starts.pop(guard, None)

    def _take(self, guard: ObjectRef, started: float, failed: float, answered: float) -> None:
        high = answered - started
        low = max(0.0, failed - started - GRAIN)
        if high < 0 or (failed < started and high > MAX_UNSEEN):
            return
        self._starts.setdefault(guard, deque(maxlen=KEPT)).append((low, high))
