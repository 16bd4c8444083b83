"""When each way through a gateway is asked: seldom in peace, often while something is under way. Pure.

Requests come in pairs, of which the second takes the first one's connection where it is still open:
HAProxy, for one, uses a kept connection to an app only for a later request of a client's connection, so
failures on reused connections alone tell a keep-alive race.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

from upstream_guard.core.model import RouteProbePolicy

KEPT_SECONDS: Final = 4.0
"""Longest time between the two requests of a pair.

Gateways close a client's idle connection after 5 s at the earliest (Apache httpd's default), and a
request that meets the close would look like a failure of the app.
"""
CALMING: Final = 1.25
"""By how much each gap is longer than the last one, once nothing is under way: back in peace (3 s) after
some 12 s."""
JITTER: Final = 0.1
"""Each gap is shortened by up to this share, so that ways do not fall into step."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A way's next request.

    Attributes:
        due: When, in seconds on the caller's clock.
        gap: Present time between requests, on average, seconds.
        reuse: Whether it takes the connection of the last one, if that is still open.
    """

    due: float
    gap: float
    reuse: bool = False


def first_turn(policy: RouteProbePolicy, now: float, draw: float, *, hurried: bool) -> Turn:
    """The first request of a way.

    Args:
        policy: How often.
        now: The time.
        draw: A random number in [0, 1), which spreads ways over the gap.
        hurried: Something is under way.
    """
    gap = policy.change_interval if hurried else policy.interval
    return Turn(now + gap * draw, gap)


def next_turn(
    turn: Turn, policy: RouteProbePolicy, now: float, draw: float, *, hurried: bool
) -> Turn:
    """The request after `turn`, which was due and is being made (or left out) `now`.

    What was missed is not made up for.
    """
    gap = policy.change_interval if hurried else min(policy.interval, turn.gap * CALMING)
    pause, pairs = gap, gap <= 2 * KEPT_SECONDS
    if pairs:
        soon = min(gap, KEPT_SECONDS)
        pause = 2 * gap - soon if turn.reuse else soon
    due = max(now, turn.due + pause * (1.0 - JITTER * draw))
    return Turn(due, gap, pairs and not turn.reuse)


def hurry(turn: Turn, policy: RouteProbePolicy, now: float, draw: float) -> Turn:
    """The same request, now that something has begun: soon, unless it is due sooner."""
    gap = policy.change_interval
    return replace(turn, due=min(turn.due, now + gap * draw), gap=gap)


def second(turn: Turn, now: float) -> Turn:
    """The same request now, on a connection of its own: one that is waited for has made a second witness welcome."""
    return replace(turn, due=min(turn.due, now), reuse=False)


@dataclass(frozen=True, slots=True)
class Bucket:
    """So many requests a second, and as many at once.

    Attributes:
        rate: Requests a second.
        tokens: Requests that may be made at `at`; below 0, so many are booked for later.
        at: When that was reckoned.
    """

    rate: float
    tokens: float
    at: float

    @classmethod
    def full(cls, rate: float, now: float) -> Self:
        """With a second's worth in it."""
        return cls(rate, rate, now)

    def refilled(self, now: float) -> Self:
        """As it is at `now`."""
        tokens = self.tokens + max(0.0, now - self.at) * self.rate
        return replace(self, tokens=min(self.rate, tokens), at=max(now, self.at))

    @property
    def wait(self) -> float:
        """Seconds after `at` until one more request may be made; 0 where it may be made at once."""
        return max(0.0, (1.0 - self.tokens) / self.rate)

    def taken(self) -> Self:
        """With one request less, which is to be made after `wait` seconds."""
        return replace(self, tokens=self.tokens - 1.0)
