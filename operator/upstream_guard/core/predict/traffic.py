"""Requests against the lives of pods: when, and how many of them, fail."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from upstream_guard.core.predict.draws import Draw
from upstream_guard.core.predict.lives import FOREVER, NUMBER, Fault, Life
from upstream_guard.core.predict.play import Play

HORIZON: Final = 3600.0
"""What goes on for longer than this after the change began is not a window but a state, seconds."""


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
    turns = (
        t
        for life in lives
        for t in (
            life.used_from,
            life.used_until,
            life.serves_from,
            life.serves_until,
            life.lost_from,
        )
    )
    points = sorted({0.0, *(t for t in turns if -HORIZON < t < HORIZON)})
    stretches = [s for begin, until in _pairs(points) for s in _between(play, lives, begin, until)]
    return sorted(stretches, key=lambda s: (s.begin, s.until, s.fault))


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
    for at, delay, life, attach in reversed(changes):
        seen = min(seen, at + delay)
        if attach:
            life.used_from = seen
        else:
            life.used_until = seen


_Entry = tuple[float, float, Life, bool]
"""(when the slice says so, how long the gateway takes, the life, whether it is added)."""


def _changes(play: Play, draw: Draw, lives: Sequence[Life]) -> list[_Entry]:
    entries: list[_Entry] = []
    for pod, life in enumerate(lives):
        if life.listed > -FOREVER and life.listed < life.delisted:
            entries.append((life.listed, draw.of(play.attach, NUMBER.ATTACH, pod), life, True))
        elif life.listed > -FOREVER:
            life.used_from = life.used_until = FOREVER
        if life.delisted < FOREVER:
            entries.append((life.delisted, draw.of(play.detach, NUMBER.DETACH, pod), life, False))
    return sorted(entries, key=lambda e: e[0])


def _throttled(play: Play, draw: Draw, changes: list[_Entry]) -> list[_Entry]:
    """When the list is updated: at most every `throttle` seconds.

    Where other Services change as well there is always something to do, and an update each
    `throttle` seconds; where they do not, the first change after a pause is taken up at once.
    """
    throttle = play.throttle
    busy = draw.quantile(NUMBER.BUSY) < 1 - math.exp(-play.platform.other_changes * throttle)
    phase = throttle * draw.quantile(NUMBER.PHASE)
    result: list[_Entry] = []
    last = -FOREVER
    for at, delay, life, attach in changes:
        if busy:
            last = phase + math.ceil((at - phase) / throttle) * throttle
        elif at > last:
            last = max(at, last + throttle)
        result.append((last, delay, life, attach))
    return result


def _pairs(points: list[float]) -> list[tuple[float, float]]:
    return list(zip(points, [*points[1:], HORIZON], strict=True))


def _between(play: Play, lives: Sequence[Life], begin: float, until: float) -> list[Stretch]:
    middle = (begin + until) / 2
    used = [life for life in lives if life.used_from <= middle < life.used_until]
    if not used and play.serves_terminating:
        used = [x for x in lives if x.used_from <= middle and x.terminating <= middle < x.gone]
    if not used:
        return [Stretch(begin, until, 1.0, until - begin, Fault.EMPTY)]
    bad, broken = _faults(used, middle)
    if not bad and not broken:
        return []
    # Each retry is a fresh pick; nobody retries what broke off under way.
    left = (sum(bad.values()) / len(used)) ** play.hidden_retries
    shares = {fault: count / len(used) * left for fault, count in bad.items()}
    shares |= {fault: count / len(used) for fault, count in broken.items()}
    return [
        Stretch(begin, until, share, share * (until - begin), fault)
        for fault, share in shares.items()
        if share > 0
    ]


def _faults(used: Sequence[Life], at: float) -> tuple[Counter[Fault], Counter[Fault]]:
    """How many of these fail requests sent now: at once, and under way."""
    bad, broken = Counter[Fault](), Counter[Fault]()
    for life in used:
        if at < life.serves_from:
            bad[life.early] += 1
        elif at >= life.serves_until:
            bad[life.late] += 1
        elif at >= life.lost_from:
            broken[life.drop] += 1
    return bad, broken


def expected(stretches: Sequence[Stretch], rate: float) -> float:
    """Requests that fail at `rate` requests a second."""
    return rate * math.fsum(stretch.seconds for stretch in stretches)
