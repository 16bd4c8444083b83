"""When what is due: a heap of due times, and the deadlines of what is under way. Pure: the time is an argument."""

import heapq
import math
import random
from typing import Generic, TypeVar

T = TypeVar("T")

JITTER = 0.05
"""Each interval is shortened by up to this share, so that endpoints do not fall into step. It is never lengthened:
the time to an ejection that is promised to users is made of whole intervals."""

_STALE_SLACK = 64


class Schedule:
    """Keys and when each is due next.

    A key is either waiting (in the heap) or taken (by `pop`, until `again`); so nothing is ever due twice at once.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._heap: list[tuple[float, int, str]] = []
        self._current: dict[str, tuple[float, int, str]] = {}
        self._turn = 0

    def __len__(self) -> int:
        """How many keys wait."""
        return len(self._current)

    def add(self, key: str, interval: float, now: float) -> None:
        """Let `key` be due at a random time within `interval` seconds, or earlier if it was so already."""
        self.advance(key, now + interval * self._rng.random())

    def again(self, key: str, interval: float, due: float, now: float) -> None:
        """Let `key`, which was due at `due`, be due one jittered interval later, but not in the past."""
        self._put(key, max(due + interval * (1.0 - JITTER * self._rng.random()), now))

    def advance(self, key: str, due: float) -> None:
        """Let `key` be due at `due`, unless it is due earlier."""
        waiting = self._current.get(key)
        if waiting is None or due < waiting[0]:
            self._put(key, due)

    def discard(self, key: str) -> None:
        """Forget `key`, if it waits."""
        self._current.pop(key, None)

    def next_due(self) -> float | None:
        """When the first key is due; None where nothing waits."""
        while self._heap:
            first = self._heap[0]
            if self._current.get(first[2]) is first:
                return first[0]
            heapq.heappop(self._heap)
        return None

    def pop(self, now: float) -> tuple[str, float] | None:
        """Take the first key that is due, with its due time; None where none is."""
        due = self.next_due()
        if due is None or due > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._current[key]
        return key, due

    def _put(self, key: str, due: float) -> None:
        self._turn += 1
        item = self._current[key] = (due, self._turn, key)
        heapq.heappush(self._heap, item)
        # Entries of keys that were moved or forgotten stay until they surface; rebuild before they are the majority.
        if len(self._heap) > 2 * len(self._current) + _STALE_SLACK:
            self._heap = list(self._current.values())
            heapq.heapify(self._heap)


class Deadlines(Generic[T]):
    """Items and when their time is up, in buckets of `grain` seconds: adding and sweeping cost the same at any number.

    An item expires at its deadline or up to one grain later, never before.
    """

    def __init__(self, grain: float) -> None:
        self._grain = grain
        self._buckets: dict[int, list[T]] = {}
        self._swept = 0

    def __len__(self) -> int:
        """How many items have not expired."""
        return sum(map(len, self._buckets.values()))

    def add(self, item: T, when: float) -> None:
        """Let `item` expire at `when`; there is no way to take it back, it may be ignored when it comes."""
        number = math.ceil(when / self._grain)
        bucket = self._buckets.get(number)
        if bucket is not None:
            bucket.append(item)
            return
        self._swept = min(self._swept, number - 1) if self._buckets else number - 1
        self._buckets[number] = [item]

    def pop_expired(self, now: float) -> list[T]:
        """Take every item whose time is up."""
        latest = math.floor(now / self._grain)
        expired: list[T] = []
        if self._buckets:
            for bucket in range(self._swept + 1, latest + 1):
                expired += self._buckets.pop(bucket, ())
            self._swept = max(self._swept, latest)
        return expired
