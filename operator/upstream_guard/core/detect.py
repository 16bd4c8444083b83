"""Windows of one guarded Service: opened, kept open, closed. Pure: evidence and the time in, news out.

A window opens when failed requests at one gateway reach the guard's `minRequests` within ten seconds, by
route probe or by the gateway's own count; where only direct probes see, when a listed endpoint fails. It
stays open while failures go on, and closes after a pause that grows with the gaps between them, so that
failures now and then make one window, not many. Its times are those of the first and the last failure,
not of its detection.

There is one window at a time for a gateway: causes that come together are ranked within it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.classify import Case, Diagnosis, classify
from upstream_guard.core.evidence import (
    CloserLook,
    Eye,
    Failure,
    GatewayDelta,
    NameLook,
    RouteSample,
    UpstreamView,
)
from upstream_guard.core.looks import Looks
from upstream_guard.core.model import DetectionPolicy
from upstream_guard.core.observed import Counted, ObservedWindow
from upstream_guard.core.predict.gateway import UNKNOWN_BEHAVIOUR, Behaviour
from upstream_guard.core.predict.score import SLACK, Observation, Prediction, match
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.sightings import (
    LONGEST_GAP,
    Direct,
    Lane,
    Probed,
    cleared,
    endpoints_seen,
    look,
    routes_seen,
    take_delta,
    take_sample,
    take_view,
    usable,
)
from upstream_guard.core.status import PredictionStatus

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
AFTERMATH: Final = 2.0
"""Seconds after a change in which a window is still its own: gateways learn of its last step later."""
REFUTED: Final = 0.05
"""Where failures of endpoints would so probably have been met at the gateway, and were not, none is meant."""
HIDDEN_AGAIN: Final = 300.0
"""Seconds between two notes on failures that a gateway hid."""
MAX_LANES: Final = 16
LONGEST_LOOK: Final = 2.0
"""Seconds between two looks at most for which what was seen at the first is taken to have lasted."""
EMPTY_STAYS: Final = 3.0
"""Seconds for which gateways may fail requests because the list was empty.

kube-proxy takes a new list up after a second or two, and Caddy tries for 2.7 s (docs/decisions/0011-prediction.md).
"""
MOVING: Final = 30.0
"""Seconds after which an endpoint's failure makes nobody hurry any more."""

TAKING: Final = frozenset(
    {
        ChangeKind.ROLLOUT,
        ChangeKind.SCALE_IN,
        ChangeKind.POD_DELETION,
        ChangeKind.NODE_DRAIN,
        ChangeKind.NODE_LOSS,
    }
)
"""Changes that take pods away."""

NO_LOOKS: Final = Looks()
Sighting = RouteSample | GatewayDelta | UpstreamView | CloserLook | NameLook


@dataclass(frozen=True, slots=True)
class Underway:
    """A change under way, or just over.

    Attributes:
        kind: Of which kind.
        subject: What it happens to, e.g. `deployment/shop`.
        began: Unix seconds.
        ended: Unix seconds; infinite while it lasts.
    """

    kind: ChangeKind
    subject: str
    began: float
    ended: float = math.inf

    @property
    def text(self) -> str:
        """`rollout of deployment/shop`."""
        return f"{self.kind} of {self.subject}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What is so around a guarded Service while evidence comes in.

    Attributes:
        policy: `spec.detection`.
        endpoints: All of them.
        trusted: Direct probes are known to be right.
        pods: Endpoints that are to stay; an empty list where there are none is somebody's wish.
        gateways: How those in front behave, by `GatewayFacts.name`.
        changes: Under way or just over.
        predictions: That are not over.
        rate: Requests a second where no gateway counts them, as the guard says; None where it does not.
        neighbours: For each gateway: other guarded Services behind it with a window, and all of them.
        app_idle: As in `Case`.
        path: As in `Case`.
        told: As in `Case`.
    """

    policy: DetectionPolicy = field(default_factory=DetectionPolicy)
    endpoints: tuple[Probed, ...] = ()
    trusted: bool = True
    pods: int = 0
    gateways: Mapping[str, Behaviour] = field(default_factory=dict)
    changes: tuple[Underway, ...] = ()
    predictions: tuple[PredictionStatus, ...] = ()
    rate: float | None = None
    neighbours: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    app_idle: float | None = None
    path: str = ""
    told: Mapping[Cause, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Open:
    """A window that is open.

    Attributes:
        id: Its name.
        first: Unix seconds of the first failure.
        last: Unix seconds of the last.
        detected: Unix seconds at which the threshold was crossed.
        pause: Seconds without a failure after which it closes.
        change: Under way when it opened; empty where none was.
        found: Why, as far as it is known.
        found_at: Unix seconds of the last look for the cause.
        case: What was known then; None where an earlier controller looked.
        told: As it was last told; None before it was.
        retold: How often its cause was told anew.
        retold_at: Unix seconds at which.
        direct_lost: Requests lost by share and rate while direct probes failed.
        rate: Requests a second as it opened: what fails at the gateway may not be counted any more.
    """

    id: str
    first: float
    last: float
    detected: float
    pause: float
    change: str
    found: Diagnosis
    found_at: float
    told: ObservedWindow | None = None
    retold: int = 0
    retold_at: float = 0.0
    direct_lost: float = 0.0
    rate: float | None = None
    case: Case | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """All that is remembered of one guarded Service. Gateways go by name; "" is direct probes alone.

    Attributes:
        direct: What direct probes see.
        lanes: What is known at each gateway.
        open: The windows that are open.
        hidden: When it was last told that a gateway hides failures.
        emptied: Unix seconds since when no endpoint is listed; 0 where one is, or none is to be.
        bare: No endpoint is listed, and one was: whether that is a window or somebody's wish.
        bared: Until when that was so, Unix seconds.
        failed_until: Unix seconds up to which a listed endpoint failed, or the list was empty.
        serial: Windows opened so far, for their names.
        looks: What was asked beside since something was odd.
    """

    direct: Direct = field(default_factory=Direct)
    lanes: Mapping[str, Lane] = field(default_factory=dict)
    open: Mapping[str, Open] = field(default_factory=dict)
    hidden: Mapping[str, float] = field(default_factory=dict)
    emptied: float = 0.0
    bare: bool = False
    bared: float = 0.0
    failed_until: float = 0.0
    serial: int = 0
    looks: Looks = field(default_factory=Looks)

    @property
    def rate(self) -> float | None:
        """Requests a second at all gateways that count them; None where none does."""
        rates = [lane.rate for lane in self.lanes.values() if lane.rate is not None]
        return sum(rates) if rates else None

    def counted_rate(self, now: float) -> float | None:
        """Requests a second at the gateways whose counts are being read; None where none is."""
        rates = [lane.rate for lane in self.lanes.values() if lane.counts(now)]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if known else None

    def watched(self, now: float) -> frozenset[str]:
        """Gateways at which a window would be seen now."""
        return frozenset(name for name, lane in self.lanes.items() if lane.watched(now))


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
    rate = watch.lanes.get(gateway, Lane()).rate
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
        change = _change_of(scene, span[0])
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
    window = replace(observed(watch, scene, gateway, known), closed=_rounded(known.last))
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


# What is said of a window.


def case_of(watch: Watch, scene: Scene, gateway: str, now: float) -> Case:
    """All evidence on one window, for the classifier."""
    lane = watch.lanes.get(gateway, Lane())
    failing, known = scene.neighbours.get(gateway, (0, 0))
    change = _latest(scene.changes, now)
    before = watch.open[gateway].case if gateway in watch.open else None
    return Case(
        behaviour=scene.gateways.get(gateway, UNKNOWN_BEHAVIOUR),
        endpoints=endpoints_seen(watch.direct, doubts=lane.reached),
        routes=routes_seen(lane),
        statuses={} if lane.classes_only else lane.statuses,
        failures=lane.failures,
        blamed=lane.blamed,
        usable=usable(lane, watch.direct, now),
        neighbours=failing,
        neighbours_known=known,
        change=change.text if change else "",
        removes=change is not None and change.kind in TAKING,
        app_idle=scene.app_idle,
        path=scene.path,
        told={**scene.told, **watch.looks.told},
        empty=watch.bare or (before is not None and before.empty and not _outlasted(watch, lane)),
        closer=tuple(look for _, look in sorted(watch.looks.closer.items())),
    )


def _outlasted(watch: Watch, lane: Lane) -> bool:
    """Requests that were sent long after the list was full again fail for another reason than its emptiness."""
    return lane.failed_at >= watch.bared + EMPTY_STAYS


def observed(watch: Watch, scene: Scene, gateway: str, known: Open) -> ObservedWindow:
    """A window as it is told, still open."""
    lane, found = watch.lanes.get(gateway, Lane()), known.found
    before = known.told
    lost, counted = _lost(watch, scene, gateway, known)
    ails = any(a.sure or lane.reached for a in watch.direct.ailing.values())
    eyes = lane.eyes | ({Eye.DIRECT} if ails or watch.emptied else set())
    change = known.change or _change_of(scene, known.first)
    return ObservedWindow(
        id=known.id,
        gateway=gateway,
        routes=tuple(sorted({k.route for k, t in lane.routes.items() if t.failed and k.route})),
        cause=found.cause,
        confidence=found.confidence,
        others=found.others,
        extent=found.extent,
        endpoints=found.endpoints,
        opened=_rounded(known.first),
        detected=_rounded(known.detected),
        closed=0.0,
        lost=lost,
        counted=counted,
        statuses=_statuses(lane),
        eyes=tuple(sorted(eyes or (before.eyes if before else ()))),
        evidence=found.evidence,
        predicted=_predicted(known.first, gateway, scene.predictions)
        or bool(before and before.predicted),
        change=change,
    )


def _lost(watch: Watch, scene: Scene, gateway: str, known: Open) -> tuple[int, Counted]:
    """Requests lost: by the gateway's count, else by the probes' share and the rate.

    A gateway that is down, or breaks connections off without a status, does not count what its users
    lose; nor does it count, or not until much later, those whom it keeps waiting: who was not answered
    within a route probe's patience is lost, whether or not he waits on. Where no rate is known, what the
    probes themselves lost is all that is known, and is given.
    """
    lane = watch.lanes.get(gateway, Lane())
    silent = lane.silences
    # It does not count what our own requests met: an app's own 503 where it counts classes only, or an
    # answer that broke off after a good status.
    told = lane.errors > 0 or not lane.probes_failed
    if lane.counted_until > known.first and not silent and told:
        exact = Counted.ESTIMATED if lane.classes_only else Counted.EXACT
        return lane.requests_failed, exact
    counted = lane.requests_failed if lane.counted_until > known.first else 0
    # What fails may not be counted any more, and of what had just begun little was counted: the larger one.
    counted_rates = [rate for rate in (known.rate, lane.rate) if rate is not None]
    rate = max(counted_rates, default=scene.rate)
    failed = lane.probes_failed
    if failed:
        lost = failed if rate is None else max(1, round(rate * lane.lost_seconds(watch.direct)))
        return max(lost, counted), Counted.ESTIMATED
    before = known.told.lost if known.told else 0
    if known.direct_lost:
        return max(1, before, round(known.direct_lost)), Counted.ESTIMATED
    return max(before, sum(a.failures for a in watch.direct.ailing.values())), Counted.ESTIMATED


def _statuses(lane: Lane) -> dict[int, int]:
    if lane.statuses:
        return dict(sorted(lane.statuses.items()))
    found: dict[int, int] = {}
    for tally in lane.routes.values():
        for sign, times in tally.signs.items():
            found[sign.status] = found.get(sign.status, 0) + times
    return dict(sorted(found.items()))


def _predicted(opened: float, gateway: str, predictions: Iterable[PredictionStatus]) -> bool:
    """Whether a prediction covers it: of this gateway, or of any where only direct probes saw it."""
    fitting = [
        p
        for p in predictions
        if not gateway or p.gateway in {gateway, ""} or p.gateway.endswith(f"({gateway})")
    ]
    said = (Prediction("", gateway, p.change, p.made_at, p.began, (), p.until) for p in fitting)
    trials = match(said, (Observation("", gateway, opened, 0.0, 1),))
    return any(trial.prediction is not None and trial.observed for trial in trials)


def _change_of(scene: Scene, opened: float) -> str:
    change = _latest(scene.changes, opened)
    return change.text if change else ""


def _latest(changes: Iterable[Underway], at: float) -> Underway | None:
    """The change of a moment; an edit only where there is no other."""
    fitting = [c for c in changes if c.began - SLACK <= at <= c.ended + AFTERMATH]
    return max(fitting, key=lambda c: (c.kind is not ChangeKind.EDIT, c.began), default=None)


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


def _rounded(seconds: float) -> float:
    """To the millisecond, as the status keeps it."""
    return round(seconds * 1000) / 1000
