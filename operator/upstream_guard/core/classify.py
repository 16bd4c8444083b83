"""From evidence to ranked causes, with percents and the evidence in words. Pure.

Naive Bayes in the open: every piece of evidence is a row of weights, one for each cause; a cause's score is
its prior plus the weights of all that was seen; `exp` of the scores, made to add up to 100, are the
percents. A weight is the natural logarithm of how much likelier this evidence is under the cause than
under one that says nothing of it: 2.3 is ten times, -2.3 a tenth. The rows are tables (`likelihoods`), and
what a status means is the gateway's own table of answers read backwards (`Behaviour.answers`).

More of one kind of evidence counts for more, but slowly, and never for less: a cause that a row favours
most does not lose rank when the row is seen again.

RFC 9110 gives the codes their sense: 502 is an invalid response from the inbound server (15.6.3), 503 a
server that cannot handle the request at present, overload named as an example (15.6.4), 504 no timely
response (15.6.5). Products differ from it, so the RFC only stands in where a gateway is not known.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

from upstream_guard.core.causes import SLOW_CAUSES, Cause
from upstream_guard.core.evidence import CloserLook, Failure, RouteKey
from upstream_guard.core.likelihoods import (
    ASIDE,
    BY_RFC,
    CIRCUMSTANCES,
    COUNTED,
    DIRECT,
    PHRASES,
    PRIORS,
    TOLD,
    Circumstance,
    Row,
)
from upstream_guard.core.observed import Extent
from upstream_guard.core.predict.gateway import UNKNOWN_BEHAVIOUR, Answer, Behaviour
from upstream_guard.core.tuning import Evidence

MINOR: Final = 16
"""One kind of failure among so many is of the window's edges: what it began or ended with, and not its cause."""
BROKEN_OFF: Final = 0.3
"""How probable the answer to a broken connection is where the app hangs, of what it is where it closes early."""
MAX_EVIDENCE: Final = 512
MAX_ENDPOINTS: Final = 10
MAX_OTHERS: Final = 3
CERTAIN: Final = 99
"""Percent at most: what is concluded from symptoms is never sure."""
PACES: Final = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 30.0, 60.0)
"""Seconds to which answer times are rounded down, so that few kinds of failure have to be told apart."""
_GATEWAY_CONNECT: Final = frozenset(
    {Cause.REFUSED, Cause.CONNECT_TIMEOUT, Cause.UNREACHABLE, Cause.DNS, Cause.TLS, Cause.BLOCKED}
)


@dataclass(frozen=True, slots=True, order=True)
class Sign:
    """One kind of failed answer at a gateway.

    Attributes:
        status: As in `RouteSample`.
        cause: As in `RouteSample`.
        words: Its `detail`, cut.
        pace: Seconds that it took, rounded down to one of `PACES`.
        server: As in `RouteSample`, cut.
    """

    status: int
    cause: Cause | None = None
    words: str = ""
    pace: float = 0.0
    server: str = ""

    @property
    def unconnected(self) -> bool:
        """No connection to the gateway came about."""
        return self.status == 0 and self.cause in _GATEWAY_CONNECT


@dataclass(frozen=True, slots=True)
class EndpointSeen:
    """One endpoint, as the operator's direct probes see it.

    Attributes:
        address: `10.0.0.7:8080`.
        node: Where it runs; empty where unknown.
        zone: Where that is; empty where unknown.
        listed: Whether the upstream list has it.
        good: It serves, by its own probes; False also where it was not asked.
        cause: How it failed while it was listed; None where it did not.
        detail: Of that failure.
        left: It left the list without having failed (its pod stops), and not long ago.
    """

    address: str
    node: str = ""
    zone: str = ""
    listed: bool = True
    good: bool = False
    cause: Cause | None = None
    detail: str = ""
    left: bool = False


@dataclass(frozen=True, slots=True)
class RouteSeen:
    """What route probes met on one way since shortly before the window.

    Attributes:
        key: The way.
        good: Answers that are no failure.
        signs: Failed answers by kind.
        fresh_failed: Failures on a connection to the gateway that had carried nothing before.
    """

    key: RouteKey
    good: int = 0
    signs: Mapping[Sign, int] = field(default_factory=dict)
    fresh_failed: int = 0

    @property
    def failed(self) -> int:
        """Failed answers."""
        return sum(self.signs.values())


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that is known of one window. Whatever is left out counts as not known.

    Attributes:
        behaviour: How this gateway answers, waits and retries.
        endpoints: Listed ones, and those that failed or left since shortly before the window.
        routes: Route probes through this gateway.
        statuses: Answers that the gateway counted, by status; failed ones only.
        failures: What it counted of its own attempts.
        blamed: Failures that it counted, by endpoint.
        usable: Endpoints that the gateway may pick by its own word; None where it does not tell.
        neighbours: Other guarded Services behind the gateway: how many of them fail.
        neighbours_known: How many of them are watched.
        change: The change under way, e.g. `rollout of deployment/shop`.
        removes: That change takes pods away.
        app_idle: Seconds after which the app closes an idle connection; None where unknown.
        path: Path that the direct probes ask for; empty where they do not speak HTTP.
        told: What is known by other ways, in words by cause: a name that does not resolve, a
            certificate that has expired.
        empty: The upstream list is empty though there are pods, or was in this window.
        closer: Requests to endpoints themselves as users make them, the last one of each.
    """

    behaviour: Behaviour = UNKNOWN_BEHAVIOUR
    endpoints: tuple[EndpointSeen, ...] = ()
    routes: tuple[RouteSeen, ...] = ()
    statuses: Mapping[int, int] = field(default_factory=dict)
    failures: Mapping[Failure, int] = field(default_factory=dict)
    blamed: Mapping[str, int] = field(default_factory=dict)
    usable: frozenset[str] | None = None
    neighbours: int = 0
    neighbours_known: int = 0
    change: str = ""
    removes: bool = False
    app_idle: float | None = None
    path: str = ""
    told: Mapping[Cause, str] = field(default_factory=dict)
    empty: bool = False
    closer: tuple[CloserLook, ...] = ()

    @property
    def listed(self) -> tuple[EndpointSeen, ...]:
        """Endpoints in the list now."""
        return tuple(e for e in self.endpoints if e.listed)

    @property
    def failing(self) -> tuple[EndpointSeen, ...]:
        """Endpoints that failed while they were listed."""
        return tuple(e for e in self.endpoints if e.cause is not None)

    @property
    def stale(self) -> tuple[str, ...]:
        """Endpoints that the gateway uses though they have left the list.

        Only those that were in it: a gateway may go through an address that no list has, a ClusterIP.
        """
        used = (self.usable or frozenset()) | self.blamed.keys()
        gone = {e.address for e in self.endpoints if not e.listed}
        return tuple(sorted(used & gone))


@dataclass(frozen=True, slots=True)
class Seen:
    """One piece of evidence.

    Attributes:
        row: What it weighs for each cause.
        times: How often it was seen, at least 1.
        words: For people; empty where another piece says it.
    """

    row: Row
    times: int
    words: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why requests fail.

    Attributes:
        cause: The likeliest.
        confidence: Percent.
        others: The next likely with theirs, at most three, none below 1 %.
        extent: How far it reaches.
        endpoints: At fault, at most ten.
        evidence: In words, what speaks most for the cause first; at most 512 characters.
    """

    cause: Cause
    confidence: int
    others: tuple[tuple[Cause, int], ...]
    extent: Extent
    endpoints: tuple[str, ...]
    evidence: str


def classify(case: Case) -> Diagnosis:
    """Weigh everything that is known. Never raises, whatever the case."""
    seen = tuple(evidence(case))
    ranked = rank(seen)
    cause, confidence = ranked[0]
    return Diagnosis(
        cause=cause,
        confidence=confidence,
        others=tuple((c, p) for c, p in ranked[1 : MAX_OTHERS + 1] if p >= 1),
        extent=_extent(case, cause),
        endpoints=_at_fault(case, cause),
        evidence=_in_words(seen, cause),
    )


def rank(seen: Iterable[Seen]) -> tuple[tuple[Cause, int], ...]:
    """Every cause with its percent, the likeliest first."""
    scores = dict(PRIORS)
    for piece in seen:
        strength = weight_of(piece.times)
        for cause, weight in piece.row.items():
            scores[cause] += strength * weight
    top = max(scores.values())
    shares = {cause: math.exp(score - top) for cause, score in scores.items()}
    total = math.fsum(shares.values())
    # Rounded, so that sums which are equal but for their last bit keep the order of the list.
    order = sorted(scores, key=lambda cause: -round(scores[cause], 9))
    return tuple((c, min(CERTAIN, round(100 * shares[c] / total))) for c in order)


def weight_of(times: int) -> float:
    """How much evidence counts that was seen so often: 1 for once, 1.5 for ten times, 2 for a hundred."""
    return 1 + math.log10(max(1, times)) / 2


def evidence(case: Case) -> Iterator[Seen]:
    """Everything in a case that speaks for or against causes."""
    yield from _direct(case)
    yield from _closer(case)
    yield from _answers(case)
    yield from _counted(case)
    for cause, words in sorted(case.told.items()):
        yield Seen({cause: TOLD.get(cause, ASIDE)}, 1, words)
    for circumstance, words in _circumstances(case):
        yield Seen(CIRCUMSTANCES[circumstance], 1, words)


# Direct probes.


def _direct(case: Case) -> Iterator[Seen]:
    by_cause: dict[Cause, list[EndpointSeen]] = {}
    for endpoint in case.failing:
        if endpoint.cause is not None:
            by_cause.setdefault(endpoint.cause, []).append(endpoint)
    total = sum(not endpoint.left for endpoint in case.endpoints)
    for cause, found in sorted(by_cause.items()):
        first = found[0]
        detail = f" ({first.address}: {first.detail})" if first.detail else f" ({first.address})"
        words = f"direct probes: {len(found)} of {total} endpoints fail, {cause}{detail}"
        yield Seen(DIRECT.get(cause, {cause: 4.0}), len(found), words)


def _closer(case: Case) -> Iterator[Seen]:
    """Asked as users ask: what fails so is the endpoint's own fault, whatever its health check says."""
    by_cause: dict[Cause, list[CloserLook]] = {}
    for look in case.closer:
        if look.fault is not None:
            by_cause.setdefault(look.fault, []).append(look)
    for cause, found in sorted(by_cause.items()):
        first = found[0]
        words = (
            f"asked for {first.path} as users do: {len(found)} of {len(case.closer)} endpoints fail, "
            f"{cause} ({first.address}: {first.detail or first.status})"
        )
        yield Seen(DIRECT.get(cause, {cause: 4.0}), len(found), words)
    if case.closer and not by_cause:
        words = f"asked for {case.closer[0].path} as users do: {len(case.closer)} endpoints answer"
        yield Seen(CIRCUMSTANCES[Circumstance.SAME_PATH_GOOD], 1, words)


# Answers at the gateway, by route probes and by its own count.


def _answers(case: Case) -> Iterator[Seen]:
    asked = sum(route.failed + route.good for route in case.routes)
    for kind, found in _kinds(case.routes):
        times = sum(number for _, number in found)
        words = f"route probes: {times} of {asked} {_sign_words(found[0][0])}"
        yield Seen(_mean(((sign_row(s, case.behaviour), n) for s, n in found), times), times, words)
        if app_answered(kind, case.behaviour):
            yield Seen(CIRCUMSTANCES[Circumstance.APP_HEADER], times)
        if is_foreign_page(kind, case.behaviour):
            yield Seen(CIRCUMSTANCES[Circumstance.FOREIGN_PAGE], times)
    for status, times in sorted(case.statuses.items()):
        if times > 0:
            row = sign_row(Sign(status), case.behaviour, timed=False)
            yield Seen(row, times, f"gateway's metrics: {times} × {status}")


def _sortable(sign: Sign) -> tuple[int, str, str, float]:
    return sign.status, sign.cause or "", sign.words, sign.pace


def _sign_words(sign: Sign) -> str:
    if sign.cause is not None and sign.status == 0:
        said = f"got no answer, {sign.cause}"
    elif sign.cause is not None:
        said = f"got {sign.status} cut short, {sign.cause}"
    else:
        said = f"answered {sign.status}"
    slow = f" after {sign.pace:g} s" if sign.pace >= 1 else ""
    return f"{said}{slow}" + (f" `{sign.words[:120]}`" if sign.words else "")


def sign_row(sign: Sign, behaviour: Behaviour, *, timed: bool = True) -> Row:
    """What one kind of failed answer weighs for each cause at this gateway.

    Args:
        sign: The answer.
        behaviour: The gateway's.
        timed: Whether the time that it took is known.
    """
    row = {cause: math.log(_of_status(sign, cause, behaviour)) for cause in Cause}
    # Without an answer the words are our own, of our connection to the gateway; the status' row has it.
    words = sign.words if sign.status else ""
    for cause, weight in _of_words(words, behaviour).items():
        row[cause] += weight
    if timed:
        for cause in Cause:
            row[cause] += math.log(_of_pace(sign, cause, behaviour))
    return row


def _kinds(routes: Iterable[RouteSeen]) -> Iterator[tuple[Sign, list[tuple[Sign, int]]]]:
    """Kinds of failed answers, each with its signs by pace and how often they were met; without `MINOR` ones.

    One answer at three paces is one kind of answer that was met three times, and not three kinds.
    """
    total: Counter[Sign] = Counter()
    for route in routes:
        total.update({sign: times for sign, times in route.signs.items() if times > 0})
    kinds: dict[Sign, list[tuple[Sign, int]]] = {}
    for sign, times in sorted(total.items(), key=lambda item: (-item[1], _sortable(item[0]))):
        kinds.setdefault(replace(sign, pace=0.0), []).append((sign, times))
    for kind, found in kinds.items():
        if sum(times for _, times in found) * MINOR > total.total():
            yield kind, found


def _mean(rows: Iterable[tuple[Row, int]], total: int) -> Row:
    """Of rows that were seen so often each, `total` times together."""
    mean = dict.fromkeys(Cause, 0.0)
    for row, times in rows:
        for cause in Cause:
            mean[cause] += row[cause] * times / total
    return mean


def _of_status(sign: Sign, cause: Cause, behaviour: Behaviour) -> float:
    """How probable the answer is under the cause, words and time left aside."""
    if sign.cause is not None and sign.status == 0:
        return _of_silence(sign.cause, cause, behaviour)
    if sign.cause is not None:
        return _CUT.get(cause, 0.03)
    if cause is Cause.APP_ERROR:
        # The app may answer anything; 500 and 503 are what it mostly answers (RFC 9110, 15.6.1, 15.6.4).
        return {500: 0.6, 503: 0.25}.get(sign.status, 0.05)
    if cause is Cause.GATEWAY_DOWN:
        return 0.03
    answer = behaviour.answers.get(cause)
    if answer is None:
        return BY_RFC.get(cause, {}).get(sign.status, 0.1)
    dropped = _dropped(sign, cause, behaviour)
    meant = behaviour.answers[Cause.EARLY_CLOSE] if dropped else answer
    return (BROKEN_OFF if dropped else 1.0) * _of_answer(meant, sign.status)


def _dropped(sign: Sign, cause: Cause, behaviour: Behaviour) -> bool:
    """An app that hung has been ended, mostly by its liveness probe, with the requests that waited in it.

    What a hanging app's users get is either the gateway's time-out or, at the end, a broken connection.
    """
    if cause is not Cause.READ_TIMEOUT or sign.status == 0:
        return False
    broken, late = (behaviour.answers.get(c) for c in (Cause.EARLY_CLOSE, Cause.READ_TIMEOUT))
    return (
        broken is not None
        and late is not None
        and sign.status == broken.status
        and sign.status != late.status
    )


def _of_answer(answer: Answer, status: int) -> float:
    """Where it was measured or read in the code it is believed, else less; retries hide it.

    Its note may name another status for a variant of the cause, e.g. `502 at a TLS port`.
    """
    sure = answer.evidence is Evidence.BUILTIN
    if answer.status != status:
        if re.search(rf"\b{status}\b", answer.note):
            return 0.3
        return 0.05 if sure else 0.1
    return (0.8 if sure else 0.5) * (0.6 if answer.retried else 1.0)


_CUT: Final[Mapping[Cause, float]] = {
    Cause.RESET: 0.5,
    Cause.EARLY_CLOSE: 0.5,
    Cause.READ_TIMEOUT: 0.2,
    Cause.MALFORMED: 0.2,
    Cause.GATEWAY_DOWN: 0.1,
}
"""A status came and the body did not end (FACTS section 2, "RST in the body")."""


_WAITS: Final[Mapping[Cause, float]] = {
    Cause.OVERLOAD: 0.3,
    Cause.GATEWAY_DOWN: 0.15,
    Cause.STALE_UPSTREAM: 0.2,
    Cause.DNS: 0.3,
}
"""It has not answered yet, and waits for none of its time-outs that are known. For a DNS server nginx waits 30 s
(docs/reference/conformance.md)."""


def _of_silence(how: Cause, cause: Cause, behaviour: Behaviour) -> float:
    """No status came: the gateway was not reached, broke the connection off, or still waits."""
    answer = behaviour.answers.get(cause)
    if how in _GATEWAY_CONNECT:
        return 0.9 if cause is Cause.GATEWAY_DOWN else 0.02
    if how is Cause.READ_TIMEOUT:
        hangs = answer is not None and "hang" in answer.note
        if cause in SLOW_CAUSES or hangs:
            return 0.5
        return _WAITS.get(cause, 0.02)
    if cause is Cause.GATEWAY_DOWN:
        return 0.4
    return 0.7 if answer is not None and answer.status == 0 else 0.04


def _of_words(words: str, behaviour: Behaviour) -> Row:
    """The gateway's own words: markers in its table of answers, and phrases of known products."""
    row: dict[Cause, float] = {}
    if not words:
        return row
    meant = {
        cause
        for cause, answer in behaviour.answers.items()
        if any(_pattern(marker).search(words) for marker in _markers(answer.note))
    }
    if meant:
        for cause in Cause:
            row[cause] = 0.0 if cause in meant else -2.5
    for phrase, weights in PHRASES:
        if phrase in words.lower():
            for cause, weight in weights.items():
                row[cause] = row.get(cause, 0.0) + weight
    return row


@cache
def _markers(note: str) -> tuple[str, ...]:
    """What stands in backticks: the words of its log, or its flags."""
    return tuple(re.findall(r"`([^`]+)`", note))


@cache
def _pattern(marker: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(marker)}(?!\w)")


def _of_pace(sign: Sign, cause: Cause, behaviour: Behaviour) -> float:
    """How probable the time is that the answer took: time-outs take as long as they are set to."""
    least = None if _dropped(sign, cause, behaviour) else _least_seconds(cause, behaviour)
    if sign.status == 0 and sign.cause is Cause.READ_TIMEOUT:
        # Still waiting: the gateway has connected already where its time-out for that is over.
        connecting = cause in {Cause.CONNECT_TIMEOUT, Cause.BLOCKED, Cause.UNREACHABLE}
        over = least is not None and sign.pace > least + 0.5
        return 0.2 if connecting and over else 0.7
    if least is None:
        return 0.4
    if sign.pace < _floor(least):
        return 0.1
    return 0.15 if sign.pace >= least + 2 and sign.pace >= 2 * least else 0.7


def _floor(seconds: float) -> float:
    """Rounded down as paces are, with a tenth for clocks."""
    return max(pace for pace in PACES if pace <= max(0.0, seconds * 0.9))


def _least_seconds(cause: Cause, behaviour: Behaviour) -> float | None:
    """What the gateway waits before it gives up; None where that is not known."""
    if cause in {Cause.CONNECT_TIMEOUT, Cause.BLOCKED}:
        return _finite(behaviour.connect_timeout)
    if cause is Cause.READ_TIMEOUT:
        return _finite(behaviour.read_timeout)
    if cause in {Cause.OVERLOAD, Cause.UNREACHABLE, Cause.APP_ERROR, Cause.STALE_UPSTREAM}:
        return None
    if cause is Cause.REFUSED:
        return behaviour.refused_retries * behaviour.retry_pause
    return 0.0


def _finite(seconds: float | None) -> float | None:
    return seconds if seconds is not None and math.isfinite(seconds) else None


def app_answered(sign: Sign, behaviour: Behaviour) -> bool:
    """Whether the answer is the app's by its `Server` header, which this gateway's own pages lack."""
    return behaviour.bare_pages and sign.cause is None and bool(sign.server)


def is_foreign_page(sign: Sign, behaviour: Behaviour) -> bool:
    """Whether the answer has a body, and it is none of the gateway's own error pages."""
    if not (behaviour.pages and sign.status and sign.cause is None and sign.words):
        return False
    said = sign.words.lower()
    return not any(page in said for page in behaviour.pages) and not _of_words(said, behaviour)


# What the gateway counts of its attempts.


def _counted(case: Case) -> Iterator[Seen]:
    known = {kind: times for kind, times in case.failures.items() if kind in COUNTED}
    for kind, times in sorted(known.items()):
        if times * MINOR > sum(known.values()):
            yield Seen(COUNTED[kind], times, f"gateway's metrics: {times} × {_COUNTED_WORDS[kind]}")


_COUNTED_WORDS: Final[Mapping[Failure, str]] = {
    Failure.CONNECT: "no connection to the endpoint",
    Failure.CONNECT_TIMEOUT: "connect time-out",
    Failure.RESPONSE: "connection broken before the response",
    Failure.PROTOCOL: "protocol error",
    Failure.TIMEOUT: "no response in time",
    Failure.EMPTY: "no endpoint to choose from",
    Failure.OVERFLOW: "limit of connections or waiting requests hit",
    Failure.RETRY: "tried again",
}


# What is so around it.


def _circumstances(case: Case) -> Iterator[tuple[Circumstance, str]]:
    yield from _of_list(case)
    yield from _of_gateway(case)
    yield from _of_routes(case)


def _of_list(case: Case) -> Iterator[tuple[Circumstance, str]]:
    listed, left = case.listed, tuple(e for e in case.endpoints if e.left)
    here = tuple(e for e in case.endpoints if not e.left)
    if case.empty or (case.endpoints and not listed):
        verb = "was" if listed else "is"
        if here and all(e.cause is not None for e in here):
            yield Circumstance.EMPTY_FOLLOWS, ""
        else:
            yield Circumstance.LIST_EMPTY, f"the upstream list {verb} empty"
    fails_users = any(look.fault is not None for look in case.closer)
    serve = all(e.good for e in listed) and not case.failing and not fails_users
    if listed and serve and not case.empty:
        yield Circumstance.DIRECT_GOOD, f"direct probes: all {len(listed)} listed endpoints serve"
        if case.path and any(r.key.path == case.path and r.failed for r in case.routes):
            yield Circumstance.SAME_PATH_GOOD, f"asked for the same path, {case.path}"
    if left:
        names = ", ".join(e.address for e in left[:3])
        yield Circumstance.JUST_LEFT, f"{names} left the list just before"
    if case.removes:
        yield Circumstance.PODS_GO, f"under way: {case.change}"


def _of_gateway(case: Case) -> Iterator[tuple[Circumstance, str]]:
    if case.stale:
        names = ", ".join(case.stale[:3])
        yield Circumstance.STALE_SEEN, f"the gateway uses {names}, which left the list"
    if case.usable is not None and not case.usable:
        yield Circumstance.GATEWAY_EMPTY, "the gateway holds no usable endpoint"
    if 0 < case.neighbours == case.neighbours_known:
        yield Circumstance.NEIGHBOURS_FAIL, f"{case.neighbours} other Services behind it fail too"
    idle, kept = case.app_idle, case.behaviour.keepalive_idle
    if idle is not None and kept is not None and 0 < idle < kept:
        words = f"the app closes idle connections after {idle:g} s, the gateway after {kept:g} s"
        yield Circumstance.APP_IDLE_SHORTER, words


def _of_routes(case: Case) -> Iterator[tuple[Circumstance, str]]:
    failed = sum(r.failed for r in case.routes)
    good = sum(r.good for r in case.routes if r.failed)
    if not failed:
        return
    if good > failed and not case.failing:
        yield Circumstance.INTERMITTENT, f"{good} other requests on the same route were answered"
    if good and not sum(r.fresh_failed for r in case.routes):
        yield Circumstance.REUSED_ONLY, "only requests on kept-alive connections failed"
    whole = [r for r in case.routes if not r.failed and r.good]
    if whole:
        yield Circumstance.OTHER_ROUTE_GOOD, f"{len(whole)} other routes to the Service are good"


# How far it reaches.


def _extent(case: Case, cause: Cause) -> Extent:
    if cause is Cause.GATEWAY_DOWN or 0 < case.neighbours == case.neighbours_known:
        return Extent.GATEWAY
    failing = [e for e in case.endpoints if e.address in set(_at_fault(case, cause))]
    rest = [e for e in case.listed if e not in failing]
    if failing and rest:
        return _extent_of(failing, rest)
    if not failing and any(r.failed for r in case.routes):
        whole = any(r.good and not r.failed for r in case.routes)
        return Extent.ROUTE if whole else Extent.SERVICE
    return Extent.SERVICE


def _extent_of(failing: list[EndpointSeen], rest: list[EndpointSeen]) -> Extent:
    """Some endpoints of several: a node or a zone where all of its, and more than one, fail."""
    if len(failing) < 2:
        return Extent.ENDPOINT
    nodes, zones = {e.node for e in failing}, {e.zone for e in failing}
    if len(nodes) == 1 and "" not in nodes and nodes.isdisjoint(e.node for e in rest):
        return Extent.NODE
    if len(zones) == 1 and "" not in zones and zones.isdisjoint(e.zone for e in rest):
        return Extent.ZONE
    return Extent.ENDPOINT


def _at_fault(case: Case, cause: Cause) -> tuple[str, ...]:
    if cause in {Cause.GATEWAY_DOWN, Cause.NO_ENDPOINTS, Cause.DNS}:
        return ()
    if cause is Cause.STALE_UPSTREAM:
        found = case.stale or tuple(e.address for e in case.endpoints if e.left)
        return tuple(sorted(found))[:MAX_ENDPOINTS]
    closer = tuple(look.address for look in case.closer if look.fault is not None)
    found = tuple(e.address for e in case.failing) or closer or tuple(case.blamed)
    return tuple(sorted(found))[:MAX_ENDPOINTS]


def _in_words(seen: Iterable[Seen], cause: Cause) -> str:
    """What speaks for the cause, strongest first."""
    said = [piece for piece in seen if piece.words]
    said.sort(key=lambda piece: -weight_of(piece.times) * _lift(piece.row, cause))
    text = ""
    for words in dict.fromkeys(piece.words for piece in said if _lift(piece.row, cause) > -1):
        longer = f"{text}; {words}" if text else words
        if len(longer) <= MAX_EVIDENCE:
            text = longer
    return text


def _lift(row: Row, cause: Cause) -> float:
    """How much a row favours a cause over the average of all."""
    mean = math.fsum(row.values()) / len(Cause)
    return row.get(cause, 0.0) - mean
