"""What the three eyes saw of one guarded Service lately: bounded memories, from which windows are made. Pure.

All memories are frozen; taking something in gives a new one. What is kept is bounded by the constants here,
however long it goes on and however much comes in.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from upstream_guard.core.causes import Cause
from upstream_guard.core.classify import PACES, EndpointSeen, RouteSeen, Sign
from upstream_guard.core.evidence import (
    Eye,
    Failure,
    GatewayDelta,
    RouteKey,
    RouteSample,
    UpstreamView,
)
from upstream_guard.core.health import Health, Verdict
from upstream_guard.core.model import DetectionPolicy

K = TypeVar("K")

HORIZON: Final = 10.0
"""Seconds within which failed requests add up to `spec.detection.minRequests`."""
SILENCE: Final = 2.0
"""Seconds that an endpoint must have been silent, where a refusal counts at once: it may just be slow."""
DOUBT: Final = 1.0
"""The same where every endpoint is silent: a machine that is busy for a moment is no reason to suspect them all."""
LEFT_SECONDS: Final = 30.0
"""How long an endpoint that left the list is remembered: gateways need up to some seconds to forget it
(FACTS section 4), and a name or a connection kept alive longer."""
MAX_ENDPOINTS: Final = 256
MAX_ROUTES: Final = 64
MAX_SIGNS: Final = 16
"""Kinds of failed answers of one route; others are counted with the last."""
MAX_HITS: Final = 128
MAX_GOODS: Final = 128
MAX_VIEWS: Final = 16
MAX_WORDS: Final = 120
RATE_MEMORY: Final = 5.0
"""Seconds after which a look at a gateway's count weighs a third in the rate: one second's worth of
requests, as read in a hurry, is a matter of chance."""
PACE_SECONDS: Final = 90.0
"""For how long the rate is remembered as it was: longer than it takes until a window is closed."""
MAX_PACES: Final = 128
TOGETHER: Final = 1.0
"""Endpoints whose probes begin to fail within so many seconds have failed at once: probes take turns."""
LONGEST_STEP: Final = 10.0
"""Seconds between two route probes at most for which they speak."""
LONGEST_GAP: Final = 60.0
"""Seconds after which a gateway that was not heard of counts as not watched."""
_SILENT: Final = frozenset({Cause.CONNECT_TIMEOUT, Cause.READ_TIMEOUT})


# Direct probes.


@dataclass(frozen=True, slots=True)
class Probed:
    """One endpoint and its probes, at one look.

    Attributes:
        address: `10.0.0.7:8080`.
        node: Where it runs; empty where unknown.
        zone: Where that is; empty where unknown.
        listed: Whether the upstream list has it, and its pod is to stay.
        health: By its probes.
    """

    address: str
    node: str
    zone: str
    listed: bool
    health: Health


@dataclass(frozen=True, slots=True)
class Gone:
    """An endpoint that left the list without having failed."""

    at: float
    node: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Ailing:
    """An endpoint that failed while it was listed.

    Attributes:
        cause: How.
        detail: In words.
        node: Where it runs.
        zone: Where that is.
        since: Unix seconds from which requests to it fail.
        last: Unix seconds up to which they did.
        failures: Probes of it that failed in a row.
        sure: The probes were known to be right. Else they say why requests fail that failed at a gateway, and
            no more than that.
    """

    cause: Cause
    detail: str
    node: str
    zone: str
    since: float
    last: float
    failures: int
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Direct:
    """What direct probes see.

    Attributes:
        at: Of the last look; 0 before the first.
        endpoints: As of that look, by address.
        gone: Those that left the list and had not failed, by address.
        ailing: Those that failed while listed, not long ago; also those of which that is not sure.
        failing: Those that fail and are listed now.
        felt: Of these, those whose failure makes a window where a user meets it: not an app that answers
            its own 500 (`spec.detection.errorStatuses`).
    """

    at: float = 0.0
    endpoints: Mapping[str, Probed] = field(default_factory=dict)
    gone: Mapping[str, Gone] = field(default_factory=dict)
    ailing: Mapping[str, Ailing] = field(default_factory=dict)
    failing: frozenset[str] = frozenset()
    felt: frozenset[str] = frozenset()

    @property
    def listed(self) -> int:
        """Endpoints in the list."""
        return sum(e.listed for e in self.endpoints.values())

    @property
    def share(self) -> float:
        """Of the listed endpoints, those that fail their users; 0 where none is listed."""
        return len(self.felt) / self.listed if self.felt else 0.0

    @property
    def since(self) -> float:
        """Since when users have met the present failures; only where there are any."""
        return min(self.ailing[a].since for a in self.felt)


def look(
    direct: Direct,
    endpoints: Iterable[Probed],
    now: float,
    policy: DetectionPolicy,
    *,
    trusted: bool,
    keep_from: float,
) -> Direct:
    """Take a look at what direct probes say.

    Args:
        direct: The last look.
        endpoints: All that there are.
        now: Unix seconds.
        policy: Says which statuses make a window.
        trusted: The probes are known to be right: some pod was seen to serve, and not all are silent
            while the kubelet calls them ready.
        keep_from: What happened since then is kept, a window being open; Unix seconds.
    """
    found = {e.address: e for e in endpoints}
    failing = frozenset(a for a, e in found.items() if trusted and _fails(e, now))
    ailing = {
        address: known
        for address, known in direct.ailing.items()
        if known.last >= min(now - HORIZON, keep_from)
    }
    sure = failing | _left_failing(direct, found)
    turned = frozenset(a for a, e in found.items() if not trusted and _turned(e, now))
    doubted = turned - sure
    for address in (*sorted(sure), *sorted(doubted))[:MAX_ENDPOINTS]:
        ailing[address] = _ails(direct, found[address], now, sure=address in sure)
    failing &= ailing.keys()
    return Direct(
        at=now,
        endpoints=found,
        gone=_gone(direct, found, ailing, now, keep_from),
        ailing=ailing,
        failing=failing,
        felt=frozenset(a for a in failing if _is_felt(found[a].health, policy)),
    )


def _is_felt(health: Health, policy: DetectionPolicy) -> bool:
    """Whether a user who meets this meets a window. What an app answers itself the gateway passes on as it is."""
    own = health.status if health.cause is Cause.APP_ERROR else 0
    # Without a status, or with 200, it was another protocol's word that the app does not serve (gRPC).
    return own < 300 or own in policy.error_statuses


def _left_failing(direct: Direct, found: Mapping[str, Probed]) -> frozenset[str]:
    """Endpoints taken out of the list since the last look because they failed, if only silently."""
    return frozenset(
        address
        for address, before in direct.endpoints.items()
        if before.listed and address in found and not found[address].listed
        if found[address].health.verdict is Verdict.FAILING and found[address].health.cause
    )


def _fails(endpoint: Probed, now: float) -> bool:
    """Listed and condemned; silence takes longer, for the gateway's patience is longer than a probe's."""
    health = endpoint.health
    if not endpoint.listed or health.verdict is not Verdict.FAILING or health.cause is None:
        return False
    return health.hard or now - health.since >= SILENCE


def _turned(endpoint: Probed, now: float) -> bool:
    """It has served and has just stopped to, though its probes are not trusted.

    Where every endpoint is condemned at once the operator distrusts its own eyes, and ejects nobody. But it did
    see them, and lost sight of them as requests began to fail at a gateway: then that is the cause, mostly.
    """
    health = endpoint.health
    fails = endpoint.listed and health.verdict is Verdict.FAILING and health.cause is not None
    lasted = now - health.since
    return fails and health.ever_served and (health.hard or lasted >= DOUBT) and lasted <= HORIZON


def _ails(direct: Direct, endpoint: Probed, now: float, *, sure: bool) -> Ailing:
    health = endpoint.health
    known = direct.ailing.get(endpoint.address)
    before = direct.endpoints.get(endpoint.address)
    if known is not None and endpoint.address in direct.failing:
        since = known.since
    else:
        # A pod that failed before it was listed fails requests only from then on.
        since = health.since if before is not None and before.listed else now
    cause, detail = health.cause or Cause.READ_TIMEOUT, health.detail
    spoke = known is not None and known.cause not in _SILENT and known.last >= health.since
    if known is not None and spoke and cause in _SILENT:
        # What was said once in this failure explains the silence after it: who says that a host cannot be reached
        # says so once a second at most (Linux, `icmp_ratelimit`; RFC 1812, 4.3.2.8).
        cause, detail = known.cause, known.detail
    return Ailing(
        cause, detail, endpoint.node, endpoint.zone, since, now,
        max(1, health.failures), sure or (known is not None and known.sure),
    )  # fmt: skip


def _gone(
    direct: Direct,
    found: Mapping[str, Probed],
    ailing: Mapping[str, Ailing],
    now: float,
    keep_from: float,
) -> dict[str, Gone]:
    gone = {
        address: known
        for address, known in direct.gone.items()
        if known.at >= min(now - LEFT_SECONDS, keep_from)
        and not (address in found and found[address].listed)
    }
    for address, before in direct.endpoints.items():
        left = before.listed and not (address in found and found[address].listed)
        failed = address in ailing and ailing[address].sure
        if left and not failed and len(gone) < MAX_ENDPOINTS:
            gone[address] = Gone(now, before.node, before.zone)
    return gone


def endpoints_seen(direct: Direct, *, doubts: bool) -> tuple[EndpointSeen, ...]:
    """The endpoints as the classifier wants them.

    Args:
        direct: What direct probes see.
        doubts: With what they are not sure of.
    """
    seen: dict[str, EndpointSeen] = {}
    for address, gone in direct.gone.items():
        seen[address] = EndpointSeen(address, gone.node, gone.zone, listed=False, left=True)
    for address, e in direct.endpoints.items():
        if e.listed:
            good = e.health.verdict is Verdict.SERVING and e.health.failures == 0
            seen[address] = EndpointSeen(address, e.node, e.zone, good=good)
    for address, bad in direct.ailing.items():
        if not (bad.sure or doubts):
            continue
        listed = address in direct.endpoints and direct.endpoints[address].listed
        seen[address] = EndpointSeen(
            address, bad.node, bad.zone, listed=listed, cause=bad.cause, detail=bad.detail
        )
    return tuple(seen[address] for address in sorted(seen))


# One gateway: route probes, its metrics, its upstream list.


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second that one replica of a gateway counted.

    Attributes:
        at: Up to when.
        value: Mean of the looks so far, of which the earlier weigh less by `RATE_MEMORY`.
    """

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Tally:
    """Route probes on one way.

    Attributes:
        good: Answers that are no failure since the first failure; in peace, a few of the last.
        signs: Failures by kind.
        fresh_failed: Failures on fresh connections.
        answered: It has been answered, ever: the operator reaches the gateway.
        asked_at: When the last request was sent; 0 before the first.
        failing: It failed.
        lost_seconds: Seconds' worth of requests that failed: between two of ours, the mean of how both
            ended.
        onset: Between which two of ours it first began to fail, Unix seconds; (0, 0) where it did not, or
            was not asked before.
    """

    good: int = 0
    signs: Mapping[Sign, int] = field(default_factory=dict)
    fresh_failed: int = 0
    answered: bool = False
    asked_at: float = 0.0
    failing: bool = False
    lost_seconds: float = 0.0
    onset: tuple[float, float] = (0.0, 0.0)

    @property
    def failed(self) -> int:
        """Failures."""
        return sum(self.signs.values())

    def lost_by(self, direct: Direct) -> float:
        """The same as `lost_seconds`, where direct probes may say when in the first gap it began.

        Half of that gap, which in peace is seconds long, is the best guess of who knows nothing else. Where
        endpoints began to fail in it, requests to them failed from then on.
        """
        begin, end = self.onset
        since = [a.since for a in direct.ailing.values() if begin < a.since <= end + TOGETHER]
        first = min(since, default=math.inf)
        if first > end:
            return self.lost_seconds
        share = min(1.0, len(since) / max(1, len(direct.endpoints)))
        return self.lost_seconds - (end - begin) / 2 + share * (end - first)


@dataclass(frozen=True, slots=True)
class Lane:
    """What is known at one gateway.

    Attributes:
        routes: Route probes by way.
        hits: Failures not yet told: when, and how many requests; bounded.
        goods: When users' or our requests were answered well: when, and how many; bounded.
        own: When our own requests got a failed status, which the gateway counts as well; bounded.
        own_failed: How many did.
        statuses: Failed answers that the gateway counted, by status.
        failures: What it counted of its attempts.
        blamed: The same by endpoint.
        errors: Sum of `statuses`, as counted for the gateway as a whole.
        classes_only: As in `GatewayDelta`.
        counted_until: Up to when the gateway's metrics are known; 0 where they never were.
        interval: Seconds between the last two looks at them.
        rates: Requests a second by the last looks, of each replica.
        paces: When a look ended, and the sum of the rates as of then; those of the last `PACE_SECONDS`.
        views: The upstream list by replica.
        failed_at: When the last failed request was sent.
        failed_seen: When its failure was known.
        good_at: When the last good answer was known.
        asked_at: Of the last route probe.
        eyes: Who saw failures.
    """

    routes: Mapping[RouteKey, Tally] = field(default_factory=dict)
    hits: tuple[tuple[float, float], ...] = ()
    goods: tuple[tuple[float, int], ...] = ()
    own: tuple[float, ...] = ()
    own_failed: int = 0
    statuses: Mapping[int, int] = field(default_factory=dict)
    failures: Mapping[Failure, int] = field(default_factory=dict)
    blamed: Mapping[str, int] = field(default_factory=dict)
    errors: int = 0
    classes_only: bool = False
    counted_until: float = 0.0
    interval: float = 0.0
    rates: Mapping[str, Rate] = field(default_factory=dict)
    paces: tuple[tuple[float, float], ...] = ()
    views: Mapping[str, UpstreamView] = field(default_factory=dict)
    failed_at: float = 0.0
    failed_seen: float = 0.0
    good_at: float = 0.0
    asked_at: float = 0.0
    eyes: frozenset[Eye] = frozenset()

    def watched(self, now: float) -> bool:
        """Whether a failure at this gateway would be seen, by route probe or metrics."""
        return max(self.asked_at, self.counted_until) > now - LONGEST_GAP

    def counts(self, now: float) -> bool:
        """Whether the gateway's own metrics are being read."""
        return self.counted_until > now - max(3 * self.interval, 5.0)

    @property
    def rate(self) -> float | None:
        """Requests a second at all replicas; None where it is not known."""
        return sum(rate.value for rate in self.rates.values()) if self.rates else None

    def rate_before(self, at: float) -> float | None:
        """The highest rate in the ten seconds before some Unix time; None where none was known then.

        A gateway counts a request when it has answered it: while requests hang the rate sinks, and when all are
        answered at once it rises.
        """
        before = (rate for until, rate in self.paces if at - HORIZON <= until <= at)
        return max(before, default=None)

    def settled_rate(self, first: float) -> float | None:
        """The same before requests began to fail; None where the gateway had not been read for long enough then."""
        known = any(until <= first - HORIZON for until, _ in self.paces)
        return self.rate_before(first) if known else None

    @property
    def reached(self) -> bool:
        """Whether a failure came from the gateway itself: else the operator may be the one that is cut off."""
        signs = (sign for tally in self.routes.values() for sign in tally.signs)
        return Eye.METRICS in self.eyes or any(not s.unconnected for s in signs)

    @property
    def requests_failed(self) -> int:
        """Users' requests that failed, as the gateway counted them; our own are taken off."""
        return max(0, self.errors - self.own_failed)

    @property
    def probes_failed(self) -> int:
        """Route probes that failed."""
        return sum(t.failed for t in self.routes.values())

    @property
    def silences(self) -> frozenset[Cause]:
        """How route probes ended that got no status at all."""
        signs = (sign for tally in self.routes.values() for sign in tally.signs)
        return frozenset(s.cause for s in signs if s.status == 0 and s.cause is not None)

    def lost_seconds(self, direct: Direct) -> float:
        """Seconds' worth of requests that failed by route probes, and by what direct probes say of the first.

        Users are taken to spread over the ways as the probes do.
        """
        return sum(t.lost_by(direct) for t in self.routes.values()) / max(1, len(self.routes))

    def answered_since(self, since: float) -> int:
        """Requests that were answered well since then."""
        return sum(count for at, count in self.goods if at >= since)

    def pending(self, now: float) -> tuple[tuple[float, float], ...]:
        """Hits within the horizon."""
        return tuple(hit for hit in self.hits if hit[0] >= now - HORIZON)


def is_failure(sample: RouteSample, policy: DetectionPolicy) -> bool:
    """Whether a user in its place would have met a window."""
    return sample.cause is not None or sample.status in policy.error_statuses


def take_sample(lane: Lane, sample: RouteSample, policy: DetectionPolicy) -> Lane:
    """Take in a route probe.

    No answer from a gateway that never gave one says nothing: the operator may not reach it.
    """
    tally = lane.routes.get(sample.key) or Tally()
    lane = replace(lane, asked_at=max(lane.asked_at, sample.done))
    if not is_failure(sample, policy):
        good = replace(
            _asked(tally, sample, failed=False), good=min(tally.good + 1, 1_000_000), answered=True
        )
        return replace(
            _with_route(lane, sample.key, good),
            goods=(*lane.goods, (sample.sent, 1))[-MAX_GOODS:],
            good_at=max(lane.good_at, sample.done),
        )
    if sample.status == 0 and not tally.answered:
        return lane
    return _with_failure(lane, sample, tally)


def _with_failure(lane: Lane, sample: RouteSample, tally: Tally) -> Lane:
    failed = replace(
        _asked(tally, sample, failed=True),
        good=tally.good if tally.failed else 0,
        signs=_counted(tally.signs, sign_of(sample)),
        fresh_failed=tally.fresh_failed + (not sample.reused),
        answered=tally.answered or sample.status > 0,
    )
    # One that got no answer may have been slow: it takes two for a request.
    weight = 0.5 if sample.status == 0 and sample.cause is Cause.READ_TIMEOUT else 1.0
    return replace(
        _with_route(lane, sample.key, failed),
        hits=(*lane.hits, (sample.sent, weight))[-MAX_HITS:],
        own=(*lane.own, sample.done)[-MAX_HITS:] if sample.status else lane.own,
        own_failed=lane.own_failed + (sample.status > 0),
        failed_at=max(lane.failed_at, sample.sent),
        failed_seen=max(lane.failed_seen, sample.done),
        eyes=lane.eyes | {Eye.ROUTE},
    )


def _asked(tally: Tally, sample: RouteSample, *, failed: bool) -> Tally:
    """With the time since the last request reckoned: the trapezoidal rule on failed or not."""
    gap = min(LONGEST_STEP, max(0.0, sample.sent - tally.asked_at)) if tally.asked_at else 0.0
    share = (tally.failing + failed) / 2
    begins = failed and not tally.failed and not tally.failing
    return replace(
        tally,
        asked_at=max(tally.asked_at, sample.sent),
        failing=failed,
        lost_seconds=tally.lost_seconds + share * gap,
        onset=(sample.sent - gap, sample.sent) if begins and gap else tally.onset,
    )


def _with_route(lane: Lane, key: RouteKey, tally: Tally) -> Lane:
    if key not in lane.routes and len(lane.routes) >= MAX_ROUTES:
        return lane
    return replace(lane, routes={**lane.routes, key: tally})


def _counted(signs: Mapping[Sign, int], sign: Sign) -> dict[Sign, int]:
    if sign not in signs and len(signs) >= MAX_SIGNS:
        sign = list(signs)[-1]
    return {**signs, sign: signs.get(sign, 0) + 1}


def sign_of(sample: RouteSample) -> Sign:
    """The kind of failure that a sample is."""
    took = max(0.0, sample.done - sample.sent)
    pace = max(p for p in PACES if p <= took)
    return Sign(
        sample.status, sample.cause, sample.detail[:MAX_WORDS], pace, sample.server[:MAX_WORDS]
    )


def take_delta(
    lane: Lane, delta: GatewayDelta, policy: DetectionPolicy, share: float = 1.0
) -> Lane:
    """Take in what the gateway counted.

    Of a failure's time only the two looks around it are known. Half way between them is taken, but for the
    first that fail: what has just begun is taken to go on, so that their number says since when.

    Args:
        lane: What is known at the gateway.
        delta: What it counted.
        policy: Says which statuses make a window.
        share: Of the requests, those that fail while it lasts, by what direct probes say; 1 where they say
            nothing.
    """
    if delta.endpoint:
        return _with_blame(lane, delta, policy)
    errors = failed_statuses(delta, policy)
    count, total = sum(errors.values()), sum(delta.statuses.values())
    seconds = max(0.001, delta.until - delta.since)
    middle = (delta.since + delta.until) / 2
    rates = _with_rate(lane.rates, delta, total / seconds)
    lane = replace(
        lane,
        counted_until=max(lane.counted_until, delta.until),
        interval=seconds,
        rates=rates,
        paces=_with_pace(lane.paces, delta.until, sum(rate.value for rate in rates.values())),
        classes_only=delta.classes_only,
        failures=_sum(lane.failures, delta.failures),
    )
    if not count:
        goods = (*lane.goods, (delta.since, total))[-MAX_GOODS:] if total else lane.goods
        return replace(lane, goods=goods, good_at=max(lane.good_at, delta.until))
    users = max(0, count - sum(delta.since <= at <= delta.until for at in lane.own))
    begins = lane.failed_seen < delta.since
    lasted = seconds * min(1.0, count / total / share)
    at = delta.until - lasted if begins else middle
    return replace(
        lane,
        statuses=_sum(lane.statuses, errors),
        errors=lane.errors + count,
        hits=(*lane.hits, (at, float(users)))[-MAX_HITS:] if users else lane.hits,
        failed_at=max(lane.failed_at, at) if users else lane.failed_at,
        failed_seen=max(lane.failed_seen, delta.until) if users else lane.failed_seen,
        eyes=lane.eyes | {Eye.METRICS} if users else lane.eyes,
    )


def _with_rate(rates: Mapping[str, Rate], delta: GatewayDelta, rate: float) -> dict[str, Rate]:
    """A replica that was not heard of for a while is gone, and what it counted with it."""
    kept = {name: known for name, known in rates.items() if known.at > delta.until - LONGEST_GAP}
    known = kept.get(delta.replica)
    if known is None and len(kept) >= MAX_VIEWS:
        return kept
    if known is not None:
        weight = 1 - math.exp(-max(0.0, delta.until - delta.since) / RATE_MEMORY)
        rate = known.value + weight * (rate - known.value)
    return {**kept, delta.replica: Rate(delta.until, rate)}


def _with_pace(
    paces: tuple[tuple[float, float], ...], until: float, rate: float
) -> tuple[tuple[float, float], ...]:
    kept = (pace for pace in paces if pace[0] > until - PACE_SECONDS)
    return (*kept, (until, rate))[-MAX_PACES:]


def _with_blame(lane: Lane, delta: GatewayDelta, policy: DetectionPolicy) -> Lane:
    """Endpoints' counts are parts of what is counted for all of them together."""
    bad = {k: n for k, n in delta.failures.items() if k is not Failure.RETRY}
    count = max(sum(bad.values()), sum(failed_statuses(delta, policy).values()))
    if not count or (delta.endpoint not in lane.blamed and len(lane.blamed) >= MAX_ENDPOINTS):
        return lane
    return replace(lane, blamed=_sum(lane.blamed, {delta.endpoint: count}))


def failed_statuses(delta: GatewayDelta, policy: DetectionPolicy) -> dict[int, int]:
    """Of what a gateway counted, the answers that make a window.

    A class of statuses holds the app's own 500 as well. A gateway that counts its failed attempts counts at
    least one for each answer of its own: more of the class than that were the app's. An app's own 503 is
    left out with them, and is seen by route probes only.
    """
    wanted = set(policy.error_statuses)
    if not delta.classes_only:
        return {status: n for status, n in delta.statuses.items() if status in wanted and n > 0}
    classes = {status // 100 * 100 for status in wanted}
    found = {status: n for status, n in delta.statuses.items() if status in classes and n > 0}
    if delta.tells_failures and 500 not in wanted:
        attempts = sum(n for kind, n in delta.failures.items() if kind is not Failure.RETRY)
        found = {status: min(n, attempts) for status, n in found.items() if attempts}
    return found


def _sum(one: Mapping[K, int], other: Mapping[K, int]) -> dict[K, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in one.keys() | other.keys()}


def take_view(lane: Lane, view: UpstreamView) -> Lane:
    """Take in the upstream list of one replica."""
    if view.replica not in lane.views and len(lane.views) >= MAX_VIEWS:
        return lane
    return replace(lane, views={**lane.views, view.replica: view})


def usable(lane: Lane, direct: Direct, now: float) -> frozenset[str] | None:
    """What some replica may pick; None where none told lately. What left after it told is taken off."""
    fresh = [v for v in lane.views.values() if v.at > now - LONGEST_GAP]
    if not fresh:
        return None
    return frozenset(
        address
        for view in fresh
        for address in view.usable
        if address not in direct.gone or direct.gone[address].at < view.at
    )


def routes_seen(lane: Lane) -> tuple[RouteSeen, ...]:
    """The routes as the classifier wants them."""
    return tuple(
        RouteSeen(key, tally.good, tally.signs, tally.fresh_failed)
        for key, tally in sorted(lane.routes.items())
    )


def cleared(lane: Lane) -> Lane:
    """Without what a window that is over has left: only what is a level stays."""
    return replace(
        lane,
        routes={k: _at_peace(t) for k, t in lane.routes.items()},
        hits=(), own=(), own_failed=0, statuses={}, failures={}, blamed={}, errors=0, eyes=frozenset(),
    )  # fmt: skip


def _at_peace(tally: Tally) -> Tally:
    return Tally(
        min(tally.good, 20),
        answered=tally.answered,
        asked_at=tally.asked_at,
        failing=tally.failing,
    )
