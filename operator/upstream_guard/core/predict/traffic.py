"""Requests against the lives of pods: when, and how many of them, fail."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from operator import itemgetter
from typing import Final

from upstream_guard.core.predict.draws import Draw
from upstream_guard.core.predict.lives import FOREVER, Fault, Life, Number
from upstream_guard.core.predict.play import Play

HORIZON: Final = 3600.0
"""What goes on for longer than this after the change began is not a window but a state, seconds."""


TEARDOWN: Final = 0.3
"""From a pod's end until its address no longer refuses, but says nothing, seconds (seen: 0.2 to 0.3 of one or two pods, 0.6
of four at once). Whoever opens a connection of his own waits in vain then: Linux sends his SYN again and again to the
address that kube-proxy chose first (conntrack). One who takes the first connection that anybody has opened does not."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which a share of the requests fails.

    Attributes:
        begin: Seconds from the change's beginning; negative for requests that are under way then.
        until: Seconds.
        share: Of the requests sent meanwhile, 0 to 1.
        seconds: Seconds' worth of requests that fail: times the rate it is their number.
        fault: Why.
    """

    begin: float
    until: float
    share: float
    seconds: float
    fault: Fault


def failures(play: Play, draw: Draw, lives: Sequence[Life]) -> list[Stretch]:
    """All stretches of one future, in order of time."""
    program(play, draw, lives)
    failing = _failing(lives)
    always_used = _is_always_used(lives)
    if not failing and always_used:
        return []
    points = _points(play, lives)
    stretches: list[Stretch] = []
    for begin, until in zip(points, [*points[1:], HORIZON], strict=True):
        middle = (begin + until) / 2
        # Most of the time nothing fails, so it is worth asking first.
        if _is_within(middle, failing) or not (always_used or _is_used(middle, lives)):
            stretches += _between(play, lives, begin, until)
    if play.patience > 0:
        stretches = _patient(play.patience, stretches)
    return sorted(stretches, key=_order)


def _points(play: Play, lives: Sequence[Life]) -> list[float]:
    """When anything changes, in order, for a request or its retries; the beginning of the change too."""
    turns = {0.0}
    for life in lives:
        turns.update(
            (
                life.used_from,
                life.used_until,
                life.listens_from,
                life.serves_from,
                life.serves_until,
                life.lost_from,
                life.terminating,
                life.gone,
                life.forgotten,
            )
        )
        if play.pool_seconds > 0:
            turns.add(life.gone + TEARDOWN)
    retries = range(1, play.hidden_retries + 1) if play.retry_pause else ()
    turns |= {at - retry * play.retry_pause for at in turns for retry in retries}
    return sorted(t for t in turns if -HORIZON < t < HORIZON)


def _order(stretch: Stretch) -> tuple[float, float, Fault]:
    return stretch.begin, stretch.until, stretch.fault


def _patient(patience: float, stretches: list[Stretch]) -> list[Stretch]:
    """Requests to an empty list hang; those sent within `patience` of its end are served late."""
    result: list[Stretch] = []
    begin = end = FOREVER
    for stretch in reversed(stretches):
        if stretch.fault is not Fault.EMPTY:
            result.append(stretch)
            continue
        if stretch.until != begin:  # not the earlier part of the gap that was just seen
            end = stretch.until
        begin = stretch.begin
        until = min(stretch.until, end - patience)
        if until > begin:
            result.append(replace(stretch, until=until, seconds=until - begin))
    return result


def program(play: Play, draw: Draw, lives: Sequence[Life]) -> None:
    """Settle when the gateway takes up each change of the EndpointSlice.

    A gateway takes up a state, not a change: with a later change it has every earlier one. One that
    updates its list at most every `throttle` seconds takes up the first change at once and lets what
    comes meanwhile wait (kube-proxy's `minSyncPeriod`).
    """
    changes = _changes(play, draw, lives)
    if play.throttle > 0:
        changes = _throttled(play, draw, changes)
    seen = FOREVER
    for at, delay, life, kind in reversed(changes):
        seen = min(seen, at + delay)
        if kind is _Kind.ATTACH:
            life.used_from = seen
        elif kind is _Kind.DETACH:
            life.used_until = seen
        elif kind is _Kind.REMOVE:
            life.forgotten = seen


class _Kind(Enum):
    ATTACH = auto()
    DETACH = auto()
    REMOVE = auto()
    """Of an endpoint that was asked only where there was no other."""
    OTHER = auto()
    """Of an endpoint that takes no traffic before or after it."""


_MOMENT: Final = itemgetter(0)
_Entry = tuple[float, float, Life, _Kind]
"""(when the slice says so, how long the gateway takes, the life, what happens to it)."""


def _changes(play: Play, draw: Draw, lives: Sequence[Life]) -> list[_Entry]:
    entries: list[_Entry] = []
    for pod, life in enumerate(lives):
        if life.listed > -FOREVER and life.listed < life.delisted:
            attach = draw.of(play.attach, Number.ATTACH, pod)
            entries.append((life.listed, attach, life, _Kind.ATTACH))
            if play.throttle > 0 and life.shown < life.listed:
                entries.append((life.shown, attach, life, _Kind.OTHER))
        elif life.listed > -FOREVER:
            life.used_from = life.used_until = FOREVER
        if life.delisted < FOREVER:
            detach = draw.of(play.detach, Number.DETACH, pod)
            entries.append((life.delisted, detach, life, _Kind.DETACH))
            if life.removed < FOREVER:
                entries.append((life.removed, detach, life, _Kind.REMOVE))
    entries.sort(key=_MOMENT)
    return entries


def _throttled(play: Play, draw: Draw, changes: list[_Entry]) -> list[_Entry]:
    """When the list is updated: at most every `throttle` seconds.

    Where other Services change as well there is always something to do, and an update each
    `throttle` seconds; where they do not, the first change after a pause is taken up at once.
    """
    throttle = play.throttle
    busy = draw.quantile(Number.BUSY) < 1 - math.exp(-play.platform.other_changes * throttle)
    phase = throttle * draw.quantile(Number.PHASE)
    result: list[_Entry] = []
    last = -FOREVER
    for at, delay, life, kind in changes:
        if busy:
            last = phase + math.ceil((at - phase) / throttle) * throttle
        elif at > last:
            last = max(at, last + throttle)
        result.append((last, delay, life, kind))
    return result


def _failing(lives: Sequence[Life]) -> list[tuple[float, float]]:
    """When each life is used although requests to it fail; most are never."""
    found: list[tuple[float, float]] = []
    for life in lives:
        begin, until = life.used_from, life.used_until
        good = life.serves_from
        if begin < good and begin < until:
            found.append((begin, good if good < until else until))
        bad = life.serves_until if life.serves_until < life.lost_from else life.lost_from
        begin = bad if bad > begin else begin
        if begin < until:
            found.append((begin, until))
    return found


def _is_always_used(lives: Sequence[Life]) -> bool:
    """Whether the list is never empty."""
    until = -HORIZON
    for begin, end in sorted((life.used_from, life.used_until) for life in lives):
        if begin > until:
            return False
        until = max(until, end)
    return until >= HORIZON


def _is_within(at: float, spans: Sequence[tuple[float, float]]) -> bool:
    for begin, until in spans:  # noqa: SIM110 - a generator costs more than the question
        if begin <= at < until:
            return True
    return False


def _is_used(at: float, lives: Sequence[Life]) -> bool:
    """Whether the list has anybody in it."""
    return any(life.used_from <= at < life.used_until for life in lives)


def _between(play: Play, lives: Sequence[Life], begin: float, until: float) -> list[Stretch]:
    middle = (begin + until) / 2
    used = _asked(play, lives, middle)
    if not used:
        return [Stretch(begin, until, 1.0, until - begin, Fault.EMPTY)]
    bad, broken = _faults(used, middle)
    if bad and not _is_used(middle, lives):
        bad = {Fault.LAST: sum(bad.values())}
    if play.pool_seconds > 0:
        broken.pop(Fault.LYING, None)  # nobody opens a connection to a new pod while old ones last
    if play.replays:
        broken.pop(Fault.DROPPED, None)
        broken.pop(Fault.KILLED, None)
    number, length = len(used), until - begin
    stretches = []
    for fault, count in broken.items():
        share = count / number
        stretches.append(Stretch(begin, until, share, share * length, fault))
    if not bad:
        return stretches
    if play.pool_seconds > 0 and sum(bad.values()) < number:
        return stretches + _reopened(play, used, bad, begin, until)
    left = _after_retries(play, lives, bad, number, middle)
    for fault, count in bad.items():
        share = count / number * left
        if share:
            stretches.append(Stretch(begin, until, share, share * length, fault))
    return stretches


def _asked(play: Play, lives: Sequence[Life], at: float) -> list[Life]:
    """Who is picked from: those on the list, or where nobody is ready those that stop, while kube-proxy knows them.

    Without those that say nothing where connections are kept: nobody misses them.
    """
    asked = [life for life in lives if life.used_from <= at < life.used_until]
    if not asked and play.serves_terminating:
        asked = [x for x in lives if x.used_from <= at and x.terminating <= at < x.forgotten]
    if play.pool_seconds > 0:
        asked = [life for life in asked if at < life.gone + TEARDOWN]
    return asked


def _after_retries(
    play: Play, lives: Sequence[Life], bad: Mapping[Fault, int], used: int, at: float
) -> float:
    """The share of failed picks whose retries fail as well; each is a fresh pick at its own time."""
    if not play.retry_pause:
        return float((sum(bad.values()) / used) ** play.hidden_retries)
    return math.prod(
        _failing_share(play, lives, at + retry * play.retry_pause)
        for retry in range(1, play.hidden_retries + 1)
    )


def _failing_share(play: Play, lives: Sequence[Life], at: float) -> float:
    """Of the picks at this time, those that fail; where there is nobody to pick, one waits for the next."""
    if used := _asked(play, lives, at):
        return sum(_faults(used, at)[0].values()) / len(used)
    comes = min((life.used_from for life in lives if life.used_from > at), default=FOREVER)
    return float(comes - at > play.patience)


def _reopened(
    play: Play, used: Sequence[Life], bad: Mapping[Fault, int], begin: float, until: float
) -> list[Stretch]:
    """Where connections are reused, only those fail that have to be opened afresh.

    Each connection to a pod that stops is opened again and again until a pod is picked that serves:
    s/(1-s) failures for a share s of pods that do not.
    """
    share = sum(bad.values()) / len(used)
    tries = share / max(0.1, 1 - share)
    stopped = [life for life in used if begin <= life.serves_until < until]
    seconds = play.pool_seconds / len(used) * tries
    over = min(until, begin + seconds)
    return [Stretch(begin, over, share, seconds, life.late) for life in stopped]


def _faults(used: Sequence[Life], at: float) -> tuple[dict[Fault, int], dict[Fault, int]]:
    """How many of these fail requests sent now: as they are reached, and only afterwards."""
    bad: dict[Fault, int] = {}
    broken: dict[Fault, int] = {}
    for life in used:
        if at < life.listens_from:
            bad[Fault.NOT_YET] = bad.get(Fault.NOT_YET, 0) + 1
        elif at < life.serves_from:
            broken[Fault.LYING] = broken.get(Fault.LYING, 0) + 1
        elif at >= life.serves_until:
            bad[life.late] = bad.get(life.late, 0) + 1
        elif at >= life.lost_from:
            broken[life.drop] = broken.get(life.drop, 0) + 1
    return bad, broken


def expected(stretches: Sequence[Stretch], rate: float) -> float:
    """Requests that fail at `rate` requests a second."""
    return rate * math.fsum(stretch.seconds for stretch in stretches)
