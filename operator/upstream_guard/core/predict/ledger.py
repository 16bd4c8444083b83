"""What was predicted of a Service and what was seen, until the two can be put together. Pure.

A window may be reported long after the change that opened it is over, and a change may go on long after
its window: an entry waits until nothing can come any more that belongs to it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from upstream_guard.core.observed import ObservedWindow
from upstream_guard.core.predict.score import SLACK, Observation, Prediction, Trial, match

LATE: Final = 30.0
"""Seconds that an entry waits after its end: windows are reported when it is sure that they are closed."""
MAX_ENTRIES: Final = 64
"""Predictions, and windows, kept for one guard; the oldest go first."""


class Verdict(StrEnum):
    """What became of one change at one gateway."""

    HIT = "hit"
    """A window was announced, and one opened."""
    FALSE_ALARM = "false-alarm"
    """Announced, and none was seen at a gateway that is watched."""
    MISS = "miss"
    """One opened, and none was announced."""
    REST = "rest"
    """Neither, at a gateway that is watched."""
    UNWATCHED = "unwatched"
    """None was seen, and nobody looked: that says nothing about the prediction."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The entries of one guard that are not settled.

    Attributes:
        predictions: Of changes that are over.
        windows: That were seen and are closed.
        unclosed: When the windows opened that are not closed yet, by their IDs; Unix seconds.
        since: When the oldest change began that is not over, Unix seconds; infinite where none is.
    """

    predictions: tuple[Prediction, ...] = ()
    windows: tuple[Observation, ...] = ()
    unclosed: tuple[tuple[str, float], ...] = field(default=())
    since: float = math.inf


def observation(service: str, window: ObservedWindow) -> Observation:
    """A closed window as the score wants it.

    Args:
        service: Whose requests, e.g. `shop/web`.
        window: Closed.
    """
    duration = max(0.0, window.closed - window.opened)
    return Observation(
        service, window.gateway, window.opened, duration, max(1, window.lost), window.cause
    )


def add_predictions(ledger: Ledger, predictions: Iterable[Prediction]) -> Ledger:
    """Enter what was expected of a change that is over, one prediction for each gateway."""
    return replace(ledger, predictions=(*ledger.predictions, *predictions)[-MAX_ENTRIES:])


def add_window(ledger: Ledger, service: str, window: ObservedWindow) -> Ledger:
    """Enter a window, open or closed; one that is open holds back the predictions that it may fit."""
    others = tuple(known for known in ledger.unclosed if known[0] != window.id)
    if not window.closed:
        opened = (*others, (window.id, window.opened))
        return replace(ledger, unclosed=opened[-MAX_ENTRIES:])
    windows = (*ledger.windows, observation(service, window))
    return replace(ledger, unclosed=others, windows=windows[-MAX_ENTRIES:])


def settle(ledger: Ledger, now: float) -> tuple[Ledger, tuple[Trial, ...]]:
    """Put together what belongs together, and take out what is complete.

    Returns:
        What still waits, and a trial for each change, and for each window that no change explains.
    """
    windows = tuple(_placed(window, ledger.predictions) for window in ledger.windows)
    trials = match(ledger.predictions, windows)
    waiting = tuple(trial for trial in trials if _waits(trial, ledger, now))
    kept = replace(
        ledger,
        predictions=tuple(t.prediction for t in waiting if t.prediction is not None),
        windows=tuple(window for trial in waiting for window in trial.observed),
    )
    return kept, tuple(trial for trial in trials if trial not in waiting)


def due(ledger: Ledger, now: float) -> float:
    """Unix seconds at which something may be complete by time alone; infinite where nothing may."""
    ends = [p.until for p in ledger.predictions] + [w.end for w in ledger.windows]
    return min((end + LATE for end in ends if end + LATE > now), default=math.inf)


def verdict(trial: Trial, *, watched: bool) -> Verdict:
    """What a trial counts as.

    Args:
        trial: Complete.
        watched: Somebody would have seen a window at its gateway.
    """
    if trial.opened:
        return Verdict.HIT if trial.announced else Verdict.MISS
    if not watched:
        return Verdict.UNWATCHED
    return Verdict.FALSE_ALARM if trial.announced else Verdict.REST


def _placed(window: Observation, predictions: Iterable[Prediction]) -> Observation:
    """A window that was seen at no gateway in particular counts where one was expected."""
    if window.gateway:
        return window
    fitting = [p for p in predictions if p.began - SLACK <= window.start <= p.until]
    if not fitting:
        return window
    best = max(fitting, key=lambda p: (p.began, p.probability))
    return replace(window, gateway=best.gateway)


def _waits(trial: Trial, ledger: Ledger, now: float) -> bool:
    """Something may still come that belongs to it, or that it belongs to."""
    said = trial.prediction
    if said is None:
        window = trial.observed[0]
        return now < window.end + LATE or window.start >= ledger.since - SLACK
    if now < said.until + LATE or said.until >= ledger.since - SLACK:
        return True
    return any(said.began - SLACK <= opened <= said.until for _, opened in ledger.unclosed)
