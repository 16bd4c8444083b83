"""What is said of one window: the evidence on it, what it cost, and how it is told. Pure."""

from collections.abc import Iterable
from typing import Final

from upstream_guard.core.classify import Case
from upstream_guard.core.evidence import Eye
from upstream_guard.core.observed import Counted, ObservedWindow
from upstream_guard.core.predict.gateway import UNKNOWN_BEHAVIOUR
from upstream_guard.core.predict.score import Observation, Prediction, match
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.sightings import HORIZON, Lane, endpoints_seen, routes_seen, usable
from upstream_guard.core.status import PredictionStatus
from upstream_guard.core.watching import Open, Scene, Watch

EMPTY_STAYS: Final = 3.0
"""Seconds for which gateways may fail requests because the list was empty.

kube-proxy takes a new list up after a second or two, and Caddy tries for 2.7 s (docs/decisions/0011-prediction.md).
"""
LEFT_OVER: Final = 4
"""One request of so many that fails after that is left over from it, and has no cause of its own."""
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


def case_of(watch: Watch, scene: Scene, gateway: str, now: float) -> Case:
    """All evidence on one window, for the classifier."""
    lane = watch.lanes.get(gateway, Lane())
    failing, known = scene.neighbours.get(gateway, (0, 0))
    change = scene.change_at(now)
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
        empty=watch.bare or (_was_bare(watch, gateway) and not _outlasted(watch, gateway, now)),
        closer=tuple(look for _, look in sorted(watch.looks.closer.items())),
    )


def _was_bare(watch: Watch, gateway: str) -> bool:
    """The list was empty in this window, or so shortly before it that requests failed for that."""
    return gateway in watch.open and watch.bared >= watch.open[gateway].first - EMPTY_STAYS


def _outlasted(watch: Watch, gateway: str, now: float) -> bool:
    """Requests that were sent long after the list was full again fail for another reason than its emptiness.

    A few of many are no reason: a node goes on to send single connections to pods that are gone, for as long as
    conntrack remembers an unanswered SYN, two minutes (Linux, `nf_conntrack_tcp_timeout_syn_sent`).
    """
    lane = watch.lanes.get(gateway, Lane())
    over = watch.bared + EMPTY_STAYS
    if lane.failed_at < over:
        return False
    since = max(over, now - HORIZON)
    failed, good = sum(n for at, n in lane.hits if at >= since), lane.answered_since(since)
    return failed * LEFT_OVER > failed + good


def observed(watch: Watch, scene: Scene, gateway: str, known: Open) -> ObservedWindow:
    """A window as it is told, still open."""
    lane, found = watch.lanes.get(gateway, Lane()), known.found
    before = known.told
    lost, counted = _lost(watch, scene, gateway, known)
    ails = any(a.sure or lane.reached for a in watch.direct.ailing.values())
    eyes = lane.eyes | ({Eye.DIRECT} if ails or watch.emptied else set())
    change = known.change or change_text(scene, known.first)
    return ObservedWindow(
        id=known.id,
        gateway=gateway,
        routes=tuple(sorted({k.route for k, t in lane.routes.items() if t.failed and k.route})),
        cause=found.cause,
        confidence=found.confidence,
        others=found.others,
        extent=found.extent,
        endpoints=found.endpoints,
        opened=rounded(known.first),
        detected=rounded(known.detected),
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
    rate = _rate(scene, lane, known)
    failed = lane.probes_failed
    if failed:
        lost = failed if rate is None else max(1, round(rate * lane.lost_seconds(watch.direct)))
        return max(lost, counted), Counted.ESTIMATED
    before = known.told.lost if known.told else 0
    if known.direct_lost:
        return max(1, before, round(known.direct_lost)), Counted.ESTIMATED
    return max(before, sum(a.failures for a in watch.direct.ailing.values())), Counted.ESTIMATED


def _rate(scene: Scene, lane: Lane, known: Open) -> float | None:
    """Requests a second of users; None where nobody knows.

    As it was before the window; of what had just begun then, as it was while it failed, without our own requests:
    ten a second on each way by then.
    """
    if known.rate is not None:
        return known.rate
    now = lane.rate_before(known.last)
    own = len(lane.routes) / scene.policy.route_probe.change_interval
    return scene.rate if now is None else max(0.0, now - own)


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


def rounded(seconds: float) -> float:
    """To the millisecond, as the status keeps it."""
    return round(seconds * 1000) / 1000


def change_text(scene: Scene, at: float) -> str:
    """The change of a moment in words; empty where there is none."""
    change = scene.change_at(at)
    return change.text if change else ""
