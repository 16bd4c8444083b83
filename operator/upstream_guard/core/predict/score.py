"""How good predictions were: matched with what happened, and added up beside a naive rule. Pure."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.state import ChangeKind, State
from upstream_guard.core.predict.window import Window

LIKELY: Final = 0.5
"""From this probability on a prediction says "a window opens"."""
FEW: Final = 10
"""Fewer lost requests than this are compared by chance's own spread, not by a factor."""
FACTOR: Final = 2.0
"""Lost requests are predicted right within this factor, where they are not few."""
DURATION_SHARE: Final = 0.3
"""A duration is predicted right within this share of the observed one,"""
DURATION_SECONDS: Final = 0.3
"""or within so many seconds, whichever is kinder."""
CONFIDENCE: Final = 0.95
SLACK: Final = 0.5
"""Seconds that a window may open before the change was seen to begin: clocks and watches are late."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said of one change of one Service behind one gateway.

    Attributes:
        service: Whose requests, e.g. `shop/web`.
        gateway: Its name.
        change: What kind of change.
        made_at: Unix seconds at which the prediction was there.
        began: Unix seconds at which the change began; the windows' starts count from here.
        until: Unix seconds up to which failed requests are put down to this change.
        windows: As predicted; empty where none was.
    """

    service: str
    gateway: str
    change: ChangeKind
    made_at: float
    began: float
    windows: tuple[Window, ...]
    until: float = math.inf

    @property
    def probability(self) -> float:
        """That at least one request fails: that of the likeliest window, for they share one future."""
        return max((window.probability for window in self.windows), default=0.0)

    @property
    def likely(self) -> tuple[Window, ...]:
        """The windows that it announces."""
        return tuple(window for window in self.windows if window.probability >= LIKELY)

    @property
    def span(self) -> tuple[float, float] | None:
        """Unix seconds of the first and the last failed request announced; None where none is.

        A window that stays open is cut at `until`.
        """
        likely = self.likely
        if not likely:
            return None
        start = min(window.start.value for window in likely)
        end = max(window.start.value + window.duration.value for window in likely)
        return self.began + start, min(self.began + end, max(self.until, self.began + start))

    @property
    def lost(self) -> float:
        """Failed requests announced."""
        return sum(window.lost.value for window in self.likely)


@dataclass(frozen=True, slots=True)
class Observation:
    """One window that was seen.

    Attributes:
        service: Whose requests.
        gateway: Its name.
        start: Unix seconds of the first failed request.
        duration: Seconds from the first to the last.
        lost: Failed requests, at least 1.
        cause: Where it was found out.
    """

    service: str
    gateway: str
    start: float
    duration: float
    lost: int
    cause: Cause | None = None

    @property
    def end(self) -> float:
        """Unix seconds of the last failed request."""
        return self.start + self.duration


@dataclass(frozen=True, slots=True)
class Trial:
    """One change: what was predicted and what happened.

    Attributes:
        prediction: None where windows opened that no prediction covers.
        observed: The windows that opened, by time.
        naive: What the naive rule said; None where it was not asked.
    """

    prediction: Prediction | None
    observed: tuple[Observation, ...]
    naive: bool | None = None

    @property
    def announced(self) -> bool:
        """Whether a window was predicted."""
        return self.prediction is not None and self.prediction.probability >= LIKELY

    @property
    def opened(self) -> bool:
        """Whether one opened."""
        return self.lost > 0

    @property
    def lost(self) -> int:
        """Requests that failed."""
        return sum(window.lost for window in self.observed)

    @property
    def lost_predicted(self) -> float:
        """Requests that were predicted to fail."""
        return self.prediction.lost if self.prediction else 0.0

    @property
    def duration(self) -> float:
        """Seconds from the first failed request to the last, calm in between included."""
        if not self.observed:
            return 0.0
        return max(w.end for w in self.observed) - min(w.start for w in self.observed)

    @property
    def duration_predicted(self) -> float:
        """Seconds from the first failed request predicted to the last."""
        span = self.prediction.span if self.prediction else None
        return span[1] - span[0] if span else 0.0

    @property
    def duration_error(self) -> float:
        """Predicted minus observed, seconds."""
        return self.duration_predicted - self.duration

    @property
    def duration_share(self) -> float:
        """The error as a share of the observed duration, never negative; infinite for 0 s."""
        error = abs(self.duration_error)
        if self.duration > 0:
            return error / self.duration
        return 0.0 if error == 0 else math.inf

    @property
    def duration_right(self) -> bool:
        """Within 30 % or 0.3 s."""
        close = abs(self.duration_error) <= DURATION_SECONDS
        return close or self.duration_share <= DURATION_SHARE

    @property
    def lost_right(self) -> bool:
        """Within a factor of two, or inside the Poisson interval where fewer than ten were lost."""
        if self.lost < FEW:
            low, high = poisson_interval(self.lost)
            return low <= self.lost_predicted <= high
        return self.lost / FACTOR <= self.lost_predicted <= self.lost * FACTOR

    @property
    def lead(self) -> float | None:
        """Seconds from the prediction to the first failed request; None where there was not both."""
        if self.prediction is None or not self.announced or not self.observed:
            return None
        return min(window.start for window in self.observed) - self.prediction.made_at


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often "a window opens" was said, and how often it was so.

    Attributes:
        hits: Said, and it opened.
        false_alarms: Said, and none opened.
        misses: Not said, and one opened.
        rests: Not said, and none opened.
    """

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0
    rests: int = 0

    @property
    def precision(self) -> float | None:
        """Share of what was said that came true; None where nothing was said."""
        said = self.hits + self.false_alarms
        return self.hits / said if said else None

    @property
    def recall(self) -> float | None:
        """Share of what opened that had been said; None where nothing opened."""
        opened = self.hits + self.misses
        return self.hits / opened if opened else None


@dataclass(frozen=True, slots=True)
class Scorecard:
    """How good the predictions of many changes were. Medians and shares are None without data.

    Attributes:
        trials: Changes.
        engine: Of the predictions.
        naive: Of the rule "no readiness probe or no preStop", on the changes where it was asked.
        lead: Median seconds from the prediction to the first failed request.
        duration_error: Median absolute error of the duration where a window opened, seconds; a
            window that nobody announced counts as predicted with 0 s.
        duration_share: The same as a share of the observed duration; None also where most windows
            lasted 0 s, of which there is no share.
        duration_right: Share of the windows that opened with a duration within 30 % or 0.3 s.
        lost_right: Share with lost requests within a factor of two, or inside the Poisson interval
            where fewer than ten were lost; of the changes with a window predicted or opened.
    """

    trials: int
    engine: Confusion
    naive: Confusion
    lead: float | None
    duration_error: float | None
    duration_share: float | None
    duration_right: float | None
    lost_right: float | None


def match(
    predictions: Iterable[Prediction], observations: Iterable[Observation]
) -> tuple[Trial, ...]:
    """Give each observed window to the prediction that covers it.

    That is the latest one of its Service and gateway whose change had begun (give or take half a
    second) and was not over. A window without one makes a trial of its own: a miss.

    Returns:
        One trial for each prediction, in their order, then the misses, by time.
    """
    known = tuple(predictions)
    covered: dict[int, list[Observation]] = {index: [] for index in range(len(known))}
    alone: list[Observation] = []
    for window in sorted(observations, key=lambda w: w.start):
        fitting = [index for index, p in enumerate(known) if _covers(p, window)]
        if fitting:
            covered[max(fitting, key=lambda index: known[index].began)].append(window)
        else:
            alone.append(window)
    matched = [Trial(known[index], tuple(windows)) for index, windows in covered.items()]
    return (*matched, *(Trial(None, (window,)) for window in alone))


def _covers(prediction: Prediction, window: Observation) -> bool:
    same = (prediction.service, prediction.gateway) == (window.service, window.gateway)
    return same and prediction.began - SLACK <= window.start <= prediction.until


def score(trials: Iterable[Trial]) -> Scorecard:
    """Add trials up."""
    known = tuple(trials)
    asked = [trial for trial in known if trial.naive is not None]
    opened = [trial for trial in known if trial.opened]
    either = [trial for trial in known if trial.opened or trial.announced]
    return Scorecard(
        trials=len(known),
        engine=_confusion(known, lambda trial: trial.announced),
        naive=_confusion(asked, lambda trial: bool(trial.naive)),
        lead=_median([trial.lead for trial in known if trial.lead is not None]),
        duration_error=_median([abs(trial.duration_error) for trial in opened]),
        duration_share=_finite(_median([trial.duration_share for trial in opened])),
        duration_right=_share([trial.duration_right for trial in opened]),
        lost_right=_share([trial.lost_right for trial in either]),
    )


def naive_rule(state: State) -> bool:
    """What a linter would say: a window opens where there is no readiness probe or no preStop."""
    return any(
        container.readiness is None or container.pre_stop is None
        for workload in state.workloads
        for container in workload.template.containers
        if not container.sidecar
    )


def poisson_interval(count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval (Garwood 1936) for the mean of which `count` was one draw.

    Args:
        count: What was counted, 0 or more.
        confidence: Between 0 and 1.

    Raises:
        ValueError: `count` is negative.
    """
    if count < 0:
        raise ValueError(f"a count cannot be negative, and this one is {count}")
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else _mean_where(lambda mean: 1 - _up_to(count - 1, mean) < tail)
    return low, _mean_where(lambda mean: _up_to(count, mean) > tail)


def _up_to(count: int, mean: float) -> float:
    """The probability of `count` or fewer at this mean."""
    if mean <= 0:
        return 1.0
    logs = (k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(count + 1))
    return math.fsum(map(math.exp, logs))


def _mean_where(below: Callable[[float], bool]) -> float:
    """The mean at which `below` turns from true to false, by bisection."""
    low, high = 0.0, 1.0
    while below(high):
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def _confusion(trials: Sequence[Trial], said: Callable[[Trial], bool]) -> Confusion:
    pairs = [(said(trial), trial.opened) for trial in trials]
    return Confusion(
        hits=pairs.count((True, True)),
        false_alarms=pairs.count((True, False)),
        misses=pairs.count((False, True)),
        rests=pairs.count((False, False)),
    )


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
