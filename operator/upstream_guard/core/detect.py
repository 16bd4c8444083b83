"""Windows of one guarded Service: opened, kept open, closed. Pure: evidence and the time in, news out.

A window opens when failed requests at one gateway reach the guard's `minRequests` within ten seconds, by
route probe or by the gateway's own count; where only direct probes see, when a listed endpoint fails. It
stays open while failures go on, and closes after a pause that grows with the gaps between them, so that
failures now and then make one window, not many. Its times are those of the first and the last failure,
not of its detection.

There is one window at a time for a gateway: causes that come together are ranked within it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from upstream_guard.core.classify import Case, Diagnosis, classify
from upstream_guard.core.evidence import (
    CloserLook,
    Failure,
    GatewayDelta,
    NameLook,
    RouteSample,
    UpstreamView,
)
from upstream_guard.core.looks import Looks
from upstream_guard.core.observed import ObservedWindow
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.sightings import (
    LONGEST_GAP,
    Direct,
    Lane,
    cleared,
    look,
    take_delta,
    take_sample,
    take_view,
)
from upstream_guard.core.telling import case_of, change_text, observed, rounded
from upstream_guard.core.watching import AFTERMATH, Open, Scene, Underway, Watch

CLOSE_AFTER: Final = 5.0
"""Seconds without a failure after which a window closes at the earliest."""
CHANGE_CLOSE_AFTER: Final = 10.0
"""The same while the change is under way in which it opened: its pods go one after the other."""
LONGEST_PAUSE: Final = 60.0
"""The same at the latest; three times the longest gap between two failures in between."""
THINK: Final = 0.3
"""Seconds that the news of a window may wait for a surer cause."""
SURE: Final = 60
"""Percent from which it need not wait."""
AGAIN: Final = 0.25
"""Seconds between two looks for the cause."""
MAX_CHANGES: Final = 4
"""How often a window's cause is told anew."""
REFUTED: Final = 0.05
"""Where failures of endpoints would so probably have been met at the gateway, and were not, none is meant."""
HIDDEN_AGAIN: Final = 300.0
"""Seconds between two notes on failures that a gateway hid."""
MAX_LANES: Final = 16
LONGEST_LOOK: Final = 2.0
"""Seconds between two looks at most for which what was seen at the first is taken to have lasted."""
MOVING: Final = 30.0
"""Seconds after which an endpoint's failure makes nobody hurry any more."""

NO_LOOKS: Final = Looks()
Sighting = RouteSample | GatewayDelta | UpstreamView | CloserLook | NameLook


class Kind(StrEnum):
    """What there is to tell of a window."""

    OPENED = "opened"
    CHANGED = "changed"
    """Another cause is likelier now."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class News:
    """Something to tell of a window."""

    kind: Kind
    window: ObservedWindow


@dataclass(frozen=True, slots=True)
class Hidden:
    """Failures that no user saw, because the gateway tried again.

    Attributes:
        gateway: Its name.
        note: In words.
    """

    gateway: str
    note: str


@dataclass(frozen=True, slots=True)
class Step:
    """What one step leads to."""

    watch: Watch
    news: tuple[News | Hidden, ...] = ()


def advance(watch: Watch, scene: Scene, now: float, sighting: Sighting | None = None) -> Step:
    """Take in a sighting, if there is one, and what direct probes say now; open and close windows.

    Args:
        watch: What is remembered.
        scene: What is so around it.
        now: Unix seconds; never earlier than the last time.
        sighting: What a route probe or the gateway itself saw. Of a gateway that the scene does not
            know it is passed over.
    """
    before, seconds = _direct_share(watch), min(LONGEST_LOOK, max(0.0, now - watch.direct.at))
    watch = _with_looks(_taken(watch, scene, sighting), sighting, now)
    keep_from = min((o.first for o in watch.open.values()), default=math.inf)
    direct = look(
        watch.direct,
        scene.endpoints,
        now,
        scene.policy,
        trusted=scene.trusted,
        keep_from=keep_from,
    )
    bare = not direct.listed and (watch.bare or watch.direct.listed > 0)
    watch = replace(
        watch,
        direct=direct,
        emptied=_emptied(watch, direct, scene, now),
        bare=bare,
        bared=now if bare else watch.bared,
    )
    if before or _direct_share(watch):
        watch = _with_direct_loss(watch, scene, before * seconds, now)
    news: list[News | Hidden] = []
    for gateway in sorted(watch.lanes):
        watch, told = _at_gateway(watch, scene, gateway, now)
        news += told
    watch, told = _direct_alone(watch, scene, now)
    watch, hidden = _hides(watch, scene, now, sighting)
    return Step(watch, (*news, *told, *hidden))


def closer_looks(watch: Watch, scene: Scene, now: float) -> tuple[str, ...]:
    """Endpoints that should be asked now as users ask: some requests fail at a gateway, and all probes are good."""
    if not _odd_between(watch, now):
        return ()
    return watch.looks.wants((e.address for e in scene.endpoints if e.listed), now)


def wants_name(watch: Watch, now: float) -> bool:
    """Whether the cluster's DNS should be asked now for the Service's name, for the same reason."""
    return _odd_between(watch, now) and watch.looks.wants_name(now)


def _odd_between(watch: Watch, now: float) -> bool:
    """Requests fail at a gateway, and every probe of an endpoint is good."""
    return not watch.direct.failing and _odd_at_gateway(watch, now)


def _odd_at_gateway(watch: Watch, now: float) -> bool:
    return any(watch.open) or any(lane.pending(now) for lane in watch.lanes.values())


def inherit(windows: Iterable[ObservedWindow], now: float) -> Watch:
    """What an earlier controller had told of, so that its open windows are closed when they are over.

    Args:
        windows: From the guard's status.
        now: Unix seconds; up to now a window that is open is taken to have lasted.
    """
    found = tuple(windows)
    going = {w.gateway: _inherited(w, now) for w in found if w.closed == 0}
    serials = (w.id.rpartition("-")[2] for w in found)
    serial = max((int(s) for s in serials if s.isdecimal() and len(s) < 10), default=0)
    return Watch(lanes={name: Lane() for name in going if name}, open=going, serial=serial)


def hurried(watch: Watch, scene: Scene, now: float) -> bool:
    """Whether something is odd or under way, so that gateways should be asked more often."""
    if watch.open or any(lane.pending(now) for lane in watch.lanes.values()):
        return True
    if any(_moves(change, now) for change in scene.changes):
        return True
    if any(gone.at > now - CLOSE_AFTER for gone in watch.direct.gone.values()):
        return True
    return any(
        e.listed and e.health.failures > 0 and now - e.health.since < MOVING
        for e in scene.endpoints
        if e.health.ever_served
    )


def _moves(change: Underway, now: float) -> bool:
    """An edit lasts as long as what it says; what it breaks is seen like anything else."""
    return change.kind is not ChangeKind.EDIT and now < change.ended + AFTERMATH


# Taking in.


def _with_looks(watch: Watch, sighting: Sighting | None, now: float) -> Watch:
    """What was asked beside is kept as long as something is odd."""
    if not _odd_at_gateway(watch, now):
        return replace(watch, looks=NO_LOOKS) if watch.looks != NO_LOOKS else watch
    match sighting:
        case CloserLook():
            return replace(watch, looks=watch.looks.with_closer(sighting))
        case NameLook():
            failed = max((lane.failed_at for lane in watch.lanes.values()), default=0.0)
            return replace(watch, looks=watch.looks.with_name(sighting, failed))
        case _:
            return watch


def _taken(watch: Watch, scene: Scene, sighting: Sighting | None) -> Watch:
    if sighting is None or isinstance(sighting, CloserLook | NameLook):
        return watch
    gateway = sighting.key.gateway if isinstance(sighting, RouteSample) else sighting.gateway
    lane = watch.lanes.get(gateway)
    if not gateway or (lane is None and len(watch.lanes) >= MAX_LANES):
        return watch
    lane = lane or Lane()
    match sighting:
        case RouteSample():
            lane = take_sample(lane, sighting, scene.policy)
        case GatewayDelta():
            lane = take_delta(lane, sighting, scene.policy, _direct_share(watch) or 1.0)
        case UpstreamView():
            lane = take_view(lane, sighting)
    return _with_lane(watch, gateway, lane)


def _with_lane(watch: Watch, gateway: str, lane: Lane) -> Watch:
    return replace(watch, lanes={**watch.lanes, gateway: lane})


def _with_open(watch: Watch, gateway: str, known: Open) -> Watch:
    return replace(watch, open={**watch.open, gateway: known})


def _without_open(watch: Watch, gateway: str) -> Watch:
    return replace(watch, open={name: o for name, o in watch.open.items() if name != gateway})


def _emptied(watch: Watch, direct: Direct, scene: Scene, now: float) -> float:
    """Since when the list is empty that was not: one that never had an endpoint is nobody's window."""
    if direct.listed or not scene.pods:
        return 0.0
    return watch.emptied or (now if watch.direct.listed else 0.0)


# At one gateway.


def _at_gateway(
    watch: Watch, scene: Scene, gateway: str, now: float
) -> tuple[Watch, tuple[News, ...]]:
    lane, known = watch.lanes[gateway], watch.open.get(gateway)
    if known is not None:
        return _goes_on(watch, scene, gateway, now)
    pending = lane.pending(now)
    if sum(count for _, count in pending) >= max(1, scene.policy.min_requests):
        times = [at for at, _ in pending]
        return _opens(watch, scene, gateway, (min(times), max(times)), now)
    if lane.hits and not pending:
        watch = _with_lane(watch, gateway, cleared(lane))
    return watch, ()


def _opens(
    watch: Watch, scene: Scene, gateway: str, span: tuple[float, float], now: float
) -> tuple[Watch, tuple[News, ...]]:
    """A window that only direct probes saw so far becomes the gateway's."""
    alone = watch.open.get("") if gateway else None
    case = case_of(watch, scene, gateway, now)
    found = classify(case)
    rate = watch.lanes.get(gateway, Lane()).settled_rate(span[0])
    if alone is not None:
        watch = _without_open(watch, "")
        known = replace(
            alone,
            first=min(alone.first, span[0]),
            last=max(alone.last, span[1]),
            found=found,
            found_at=now,
            rate=rate,
            case=case,
        )
    else:
        watch = replace(watch, serial=watch.serial + 1)
        change = change_text(scene, span[0])
        known = Open(
            id=_name(span[0], watch.serial), first=span[0], last=span[1], detected=now,
            pause=CHANGE_CLOSE_AFTER if change else CLOSE_AFTER, change=change, found=found, found_at=now,
            rate=rate, case=case,
        )  # fmt: skip
    return _tell(watch, scene, gateway, known, now)


def _goes_on(
    watch: Watch, scene: Scene, gateway: str, now: float
) -> tuple[Watch, tuple[News, ...]]:
    known, lane = watch.open[gateway], watch.lanes.get(gateway, Lane())
    last, seen = _last_failure(watch, gateway, known, now)
    fails = last > known.last
    if fails:
        known = replace(known, last=last, pause=_pause(known, scene, last))
    looked = watch.looks.at > known.found_at
    if looked or (fails and now - known.found_at >= AGAIN):
        case = case_of(watch, scene, gateway, now)
        known = replace(
            known, found=classify(case), found_at=now, case=case if fails else known.case
        )
    if _is_over(known, lane, seen, now):
        return _closes(watch, scene, gateway, known, now)
    return _tell(watch, scene, gateway, known, now)


def _last_failure(watch: Watch, gateway: str, known: Open, now: float) -> tuple[float, float]:
    """When the last failed request was sent, and when that was known.

    Where nobody asks through the gateway any more, direct probes stand in.
    """
    lane = watch.lanes.get(gateway, Lane())
    last, seen = max(known.last, lane.failed_at), max(known.last, lane.failed_seen)
    heard = gateway and max(lane.asked_at, lane.counted_until) > now - LONGEST_GAP / 2
    if not heard and watch.failed_until > last and not _refuted(watch):
        return watch.failed_until, watch.failed_until
    return last, seen


def _pause(known: Open, scene: Scene, last: float) -> float:
    least = CLOSE_AFTER
    if known.change and any(c.text == known.change and c.ended > last for c in scene.changes):
        least = CHANGE_CLOSE_AFTER
    return min(LONGEST_PAUSE, max(least, known.pause, 3 * (last - known.last)))


def _is_over(known: Open, lane: Lane, seen: float, now: float) -> bool:
    """Quiet for long enough, and somebody has seen that it is well, not only looked away."""
    quiet = now - seen
    if quiet < known.pause:
        return False
    waits = lane.counts(now) and lane.counted_until <= seen
    if waits and quiet < known.pause + 2 * lane.interval:
        return False
    unheard = not lane.asked_at and not lane.counted_until
    return unheard or lane.good_at > seen or quiet >= LONGEST_GAP / 2


def _tell(
    watch: Watch, scene: Scene, gateway: str, known: Open, now: float
) -> tuple[Watch, tuple[News, ...]]:
    """Say that it is open, once its cause is sure or there was time to think; then, if the cause changes."""
    found = known.found
    if known.told is None:
        if found.confidence < SURE and now - known.detected < THINK:
            return _with_open(watch, gateway, known), ()
        window = observed(watch, scene, gateway, known)
        known = replace(known, told=window, retold_at=now)
        return _with_open(watch, gateway, known), (News(Kind.OPENED, window),)
    if not _another(known, gateway, now):
        return _with_open(watch, gateway, known), ()
    window = observed(watch, scene, gateway, known)
    known = replace(known, told=window, retold=known.retold + 1, retold_at=now)
    return _with_open(watch, gateway, known), (News(Kind.CHANGED, window),)


def _another(known: Open, gateway: str, now: float) -> bool:
    """Another cause, likelier than not, and not too soon after the last one; or a gateway sees it now."""
    if known.told is None or known.told.gateway != gateway:
        return known.told is not None
    if known.found.cause is known.told.cause:
        return False
    rested = now - known.retold_at >= 2.0**known.retold
    return known.retold < MAX_CHANGES and rested and known.found.confidence >= SURE - 10


def _closes(
    watch: Watch, scene: Scene, gateway: str, known: Open, now: float
) -> tuple[Watch, tuple[News, ...]]:
    known = replace(known, found=_final(watch, scene, gateway, known, now))
    window = replace(observed(watch, scene, gateway, known), closed=rounded(known.last))
    opened = () if known.told is not None else (News(Kind.OPENED, replace(window, closed=0.0)),)
    watch = _without_open(watch, gateway)
    if gateway in watch.lanes:
        watch = _with_lane(watch, gateway, cleared(watch.lanes[gateway]))
    return watch, (*opened, News(Kind.CLOSED, window))


def _final(watch: Watch, scene: Scene, gateway: str, known: Open, now: float) -> Diagnosis:
    """All evidence of the window, or what it was last thought to be where nothing new came."""
    lane = watch.lanes.get(gateway, Lane())
    if not (lane.eyes or watch.direct.ailing):
        return known.found
    return classify(_as_it_failed(case_of(watch, scene, gateway, now), known.case))


def _as_it_failed(case: Case, then: Case | None) -> Case:
    """All that was counted, with what was so around it while requests still failed.

    That the list is full again, that endpoints serve and requests are answered once it is over does not
    speak against what it was.
    """
    if then is None:
        return case
    late = {e.address: e for e in case.endpoints if e.cause is not None}
    endpoints = {e.address: e for e in then.endpoints} | late
    good = {route.key: route.good for route in then.routes}
    return replace(
        case,
        endpoints=tuple(endpoints[address] for address in sorted(endpoints)),
        routes=tuple(replace(r, good=good.get(r.key, r.good)) for r in case.routes),
        usable=then.usable,
        neighbours=then.neighbours,
        neighbours_known=then.neighbours_known,
        change=then.change,
        removes=then.removes,
        empty=then.empty,
    )


# Direct probes alone.


def _direct_share(watch: Watch) -> float:
    """Of the requests, those that must fail by what direct probes say."""
    return 1.0 if watch.emptied else watch.direct.share


def _with_direct_loss(watch: Watch, scene: Scene, seconds: float, now: float) -> Watch:
    """What was so since the last look has cost so many seconds' worth of requests."""
    rate = watch.rate if watch.rate is not None else scene.rate
    lost = seconds * (rate or 0.0)
    going = {g: replace(o, direct_lost=o.direct_lost + lost) for g, o in watch.open.items()}
    return replace(watch, open=going, failed_until=now)


def _direct_alone(watch: Watch, scene: Scene, now: float) -> tuple[Watch, tuple[News, ...]]:
    """A window that no gateway's eye has seen; those that one has seen go their own way."""
    if "" in watch.open:
        return _goes_on(watch, scene, "", now)
    if not _direct_share(watch) or watch.open or _refuted(watch) or _retried(watch, scene):
        return watch, ()
    enough = max(1, scene.policy.min_requests)
    if not watch.emptied and _probes_failed(watch.direct) < enough:
        return watch, ()
    first = watch.emptied or watch.direct.since
    return _opens(watch, scene, "", (first, now), now)


def _probes_failed(direct: Direct) -> int:
    return sum(direct.ailing[address].failures for address in direct.felt)


def _refuted(watch: Watch) -> bool:
    """Gateways were asked so often meanwhile that they would have met the failing endpoints."""
    share = _direct_share(watch)
    if not share:
        return False
    since = watch.emptied or watch.direct.since
    asked = sum(lane.answered_since(since) for lane in watch.lanes.values())
    failed = any(lane.failed_at >= since for lane in watch.lanes.values())
    return not failed and asked > 0 and (1 - share) ** asked < REFUTED


def _retried(watch: Watch, scene: Scene) -> bool:
    """Each gateway tries another endpoint after this, and there is one that serves."""
    if watch.emptied or watch.direct.share >= 1 or not scene.gateways:
        return False
    causes = {watch.direct.ailing[address].cause for address in watch.direct.felt}
    return all(
        cause in behaviour.answers and behaviour.answers[cause].retried
        for behaviour in scene.gateways.values()
        for cause in causes
    )


# What a gateway hides.


def _hides(
    watch: Watch, scene: Scene, now: float, sighting: Sighting | None
) -> tuple[Watch, tuple[Hidden, ...]]:
    found = {h.gateway: h for h in _hidden(watch, scene, sighting)}
    new = [
        h for name, h in found.items() if now - watch.hidden.get(name, -math.inf) >= HIDDEN_AGAIN
    ]
    if not new:
        return watch, ()
    told = {name: at for name, at in watch.hidden.items() if now - at < HIDDEN_AGAIN}
    return replace(watch, hidden=told | {h.gateway: now for h in new}), tuple(new)


def _hidden(watch: Watch, scene: Scene, sighting: Sighting | None) -> Iterator[Hidden]:
    if isinstance(sighting, GatewayDelta) and sighting.gateway not in watch.open:
        retries = sighting.failures.get(Failure.RETRY, 0)
        lane = watch.lanes.get(sighting.gateway)
        if retries and not sighting.endpoint and lane is not None and not lane.errors:
            yield Hidden(
                sighting.gateway,
                f"{sighting.gateway} tried {retries} requests again, and no user saw a failure",
            )
    if not watch.direct.felt or watch.open or not (_refuted(watch) or _retried(watch, scene)):
        return
    bad = ", ".join(
        f"{address} ({watch.direct.ailing[address].cause})"
        for address in sorted(watch.direct.felt)[:3]
    )
    for gateway in sorted(scene.gateways):
        yield Hidden(
            gateway, f"{bad} failed while listed, and {gateway} sent the requests elsewhere"
        )


def _inherited(window: ObservedWindow, now: float) -> Open:
    found = Diagnosis(
        window.cause,
        window.confidence,
        window.others,
        window.extent,
        window.endpoints,
        window.evidence,
    )
    pause = CHANGE_CLOSE_AFTER if window.change else CLOSE_AFTER
    return Open(
        window.id, window.opened, now, window.detected, pause, window.change, found, now, window,
        retold_at=now,
    )  # fmt: skip


def _name(opened: float, serial: int) -> str:
    return f"w-{datetime.fromtimestamp(opened, UTC):%Y%m%d-%H%M%S}-{serial}"
