"""The story of one window: what was predicted, what happened, what was done, in order. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from upstream_guard.cli.overview import Overview, lasted, lost
from upstream_guard.core.observed import ObservedWindow
from upstream_guard.core.reasons import Reason
from upstream_guard.core.status import PredictionStatus
from upstream_guard.resources.kube_objects import parse_time
from upstream_guard.resources.status import format_seconds

BEFORE: Final = 120.0
"""Seconds before a window in which what happened may belong to it."""
AFTER: Final = 60.0
"""Seconds after it in which what was done may."""

TOLD: Final = frozenset(
    {
        Reason.WINDOW_PREDICTED,
        Reason.ENDPOINT_ADMITTED,
        Reason.ADMITTED_UNSEEN,
        Reason.ENDPOINT_KEPT_OUT,
        Reason.ENDPOINT_EJECTED,
        Reason.ENDPOINT_RESTORED,
        Reason.EJECTION_FLOOR_REACHED,
        Reason.OPERATOR_BLIND,
        Reason.NODE_LOST,
        Reason.GUARD_RELEASED,
        Reason.STANDBY_RELEASED,
    }
)
"""Events that belong into the story of a window at their time."""


class Step(StrEnum):
    """What kind of thing happened."""

    PREDICTED = "predicted"
    CHANGE = "change"
    FAILED = "first failed"
    DETECTED = "detected"
    ACTION = "action"
    CLOSED = "last failed"
    OPEN = "still open"


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened; Unix seconds."""

    at: float
    step: Step
    text: str


@dataclass(frozen=True, slots=True)
class Story:
    """All of it, in order."""

    guard: str
    """`namespace/name`."""
    window: ObservedWindow
    moments: tuple[Moment, ...]


def tell(guard: Overview, window: ObservedWindow, events: Iterable[Mapping[str, Any]]) -> Story:
    """Put the story of a window together.

    Args:
        guard: Whose window it is.
        window: The window.
        events: Events of that guard (events.k8s.io/v1), in any order; others are passed over.
    """
    moments = [*_of_window(window), *_of_predictions(guard.predictions, window)]
    known = {(moment.at, moment.step) for moment in moments}
    told = [m for m in _of_events(guard, window, events) if (m.at, m.step) not in known]
    if any(m.step is Step.PREDICTED for m in told):  # the event says more than the status
        moments = [m for m in moments if m.step is not Step.PREDICTED]
    order = {step: number for number, step in enumerate(Step)}
    moments = sorted([*moments, *told], key=lambda m: (m.at, order[m.step]))
    return Story(f"{guard.namespace}/{guard.name}", window, tuple(moments))


def _of_window(window: ObservedWindow) -> Iterator[Moment]:
    where = f" at {window.gateway}" if window.gateway else ""
    routes = f" ({', '.join(window.routes[:3])})" if window.routes else ""
    yield Moment(window.opened, Step.FAILED, f"the first request fails{where}{routes}")
    eyes = ", ".join(eye.value for eye in window.eyes) or "unknown"
    took = format_seconds(max(0.0, window.detected - window.opened))
    yield Moment(
        window.detected,
        Step.DETECTED,
        f"known after {took}, by {eyes}: {window.cause} ({window.confidence} % sure)",
    )
    if window.closed:
        span = format_seconds(lasted(window))
        text = f"the last request fails, {span} after the first; {lost(window)} requests lost"
        yield Moment(window.closed, Step.CLOSED, f"{text} ({window.counted})")


def _of_predictions(
    predictions: Iterable[PredictionStatus], window: ObservedWindow
) -> Iterator[Moment]:
    """Those of the change in which the window opened, as the status still has them."""
    for prediction in predictions:
        change = f"{prediction.change.value} of {prediction.subject}"
        covers = prediction.began - 1 <= window.opened <= prediction.until
        if not covers or window.change not in {"", change}:
            continue
        yield Moment(prediction.began, Step.CHANGE, f"{change} begins")
        if prediction.gateway == window.gateway or not window.gateway:
            yield Moment(prediction.made_at, Step.PREDICTED, prediction.message)


def _of_events(
    guard: Overview, window: ObservedWindow, events: Iterable[Mapping[str, Any]]
) -> Iterator[Moment]:
    ends = (window.closed or float("inf")) + AFTER
    for event in events:
        about = _map(event.get("regarding"))
        mine = about.get("kind") == "UpstreamGuard" and about.get("name") == guard.name
        reason = event.get("reason")
        at = _time(event)
        if not mine or reason not in TOLD or not window.opened - BEFORE <= at <= ends:
            continue
        note = event.get("note")
        text = f"{reason}: {note if isinstance(note, str) else ''}"
        step = Step.PREDICTED if reason == Reason.WINDOW_PREDICTED else Step.ACTION
        yield Moment(at, step, text)


def _time(event: Mapping[str, Any]) -> float:
    """When it was first told: a series counts later tellings."""
    for key in ("eventTime", "deprecatedFirstTimestamp"):
        value = event.get(key)
        if isinstance(value, str) and (at := parse_time(value)):
            return at
    metadata = _map(event.get("metadata"))
    return parse_time(str(metadata.get("creationTimestamp") or ""))


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def lines(story: Story) -> Iterator[tuple[Step | None, str]]:
    """The story as lines of text, each with the kind of thing it tells; the head has none."""
    window = story.window
    yield None, f"Window {window.id} of {story.guard}"
    yield None, f"cause: {window.cause} ({window.confidence} % sure){_others(window)}"
    if window.evidence:
        yield None, f"evidence: {window.evidence}"
    yield None, f"extent: {window.extent}{_at_fault(window)}"
    if window.change:
        yield None, f"under way: {window.change}"
    yield None, f"lost: {lost(window)} requests ({window.counted}){_statuses(window)}"
    yield None, "predicted: " + ("yes" if window.predicted else "no")
    yield None, ""
    for moment in story.moments:
        yield (
            moment.step,
            f"{_offset(moment.at - window.opened):>9}  {moment.step:<12}  {moment.text}",
        )
    if not window.closed:
        yield Step.OPEN, f"{'':>9}  {Step.OPEN:<12}  requests go on failing"
    yield None, ""
    yield None, f"`upstream-guard explain {window.cause}` says what leads to this cause."


def _others(window: ObservedWindow) -> str:
    others = ", ".join(f"{cause} {percent} %" for cause, percent in window.others)
    return f"; else {others}" if others else ""


def _at_fault(window: ObservedWindow) -> str:
    return f": {', '.join(window.endpoints)}" if window.endpoints else ""


def _statuses(window: ObservedWindow) -> str:
    words = [f"{count} × {status or 'no answer'}" for status, count in window.statuses.items()]
    return f", {', '.join(words)}" if words else ""


def _offset(seconds: float) -> str:
    """From the first failed request: `-1.20 s`, `+0.35 s`."""
    return f"{seconds:+.2f} s"
