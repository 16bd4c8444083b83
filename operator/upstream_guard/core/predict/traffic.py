"""Requests against the lives of pods: when, and how many of them, fail."""

import math
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
        begin: Seconds from the change's beginning.
        until: Seconds; for requests lost in flight the same as `begin`.
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
    points = sorted(
        {0.0}
        | {
            t
            for life in lives
            for t in (life.used_from, life.used_until, life.serves_from, life.serves_until)
            if 0.0 < t < HORIZON
        }
    )
    stretches = [s for begin, until in _pairs(points) for s in _between(play, lives, begin, until)]
    stretches += _dropped(lives)
    return sorted(stretches, key=lambda s: (s.begin, s.until, s.fault))


def program(play: Play, draw: Draw, lives: Sequence[Life]) -> None:
    """Settle when the gateway takes up each change of the EndpointSlice.

    A gateway takes up a state, not a change: with a later change it has every earlier one. One that
    updates its list at most every `throttle` seconds takes up the first change at once and lets what
    comes meanwhile wait (kube-proxy's `minSyncPeriod`).
    """
    changes = _changes(play, draw, lives)
    if play.throttle > 0:
        changes = _throttled(play.throttle, changes)
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


def _throttled(throttle: float, changes: list[_Entry]) -> list[_Entry]:
    result: list[_Entry] = []
    last = -FOREVER
    for at, delay, life, attach in changes:
        if at > last:
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
    bad: dict[Fault, int] = {}
    for life in used:
        if middle < life.serves_from:
            bad[life.early] = bad.get(life.early, 0) + 1
        elif middle >= life.serves_until:
            bad[life.late] = bad.get(life.late, 0) + 1
    if not bad:
        return []
    # Each retry is a fresh pick; what still fails is shared among the faults as they are.
    total = sum(bad.values())
    left = (total / len(used)) ** play.hidden_retries
    return [
        Stretch(begin, until, share, share * (until - begin), fault)
        for fault, count in bad.items()
        if (share := count / len(used) * left) > 0
    ]


def _dropped(lives: Sequence[Life]) -> list[Stretch]:
    """Requests in flight at the end of a pod that was still used just before.

    Only those count that it got while it served and was used; its share is that of its peers.
    """
    stretches = []
    for life in lives:
        ended = life.serves_until
        if life.dropped <= 0 or not 0 <= ended < HORIZON or life.used_until <= ended - life.dropped:
            continue
        peers = sum(x.used_from <= ended - 1e-6 < x.used_until for x in lives)
        seconds = (min(life.used_until, ended) - (ended - life.dropped)) / max(1, peers)
        if seconds > 0:
            begin = max(0.0, ended - life.dropped)
            stretches.append(Stretch(begin, ended, 1 / max(1, peers), seconds, life.drop))
    return stretches


def expected(stretches: Sequence[Stretch], rate: float) -> float:
    """Requests that fail at `rate` requests a second."""
    return rate * math.fsum(stretch.seconds for stretch in stretches)
