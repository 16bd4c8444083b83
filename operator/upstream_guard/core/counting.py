"""From what gateways have counted since they started to what they counted between two looks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeVar

from upstream_guard.core.evidence import Failure, GatewayDelta
from upstream_guard.core.model import ObjectRef

K = TypeVar("K")

START_ERROR: Final = 1.5
"""Seconds by which two accounts of one start may differ, in whole seconds as they are."""
UPTIME_ERROR: Final = 65.0
"""The same where the uptime is told: Envoy renews that only when it flushes its statistics, every 5 s
unless it is configured otherwise."""


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What is counted: a Service, or one endpoint of it.

    Attributes:
        service: The Service.
        endpoint: `10.0.0.7:8080`; empty for all of them together.
    """

    service: ObjectRef
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """What a replica of a gateway has counted of a subject since it started.

    Attributes:
        statuses: As in `GatewayDelta`.
        failures: As in `GatewayDelta`.
        healthy: As in `GatewayDelta`; a level, not a count.
        classes_only: As in `GatewayDelta`.
    """

    statuses: Mapping[int, int] = field(default_factory=dict)
    failures: Mapping[Failure, int] = field(default_factory=dict)
    healthy: int | None = None
    classes_only: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the metrics of one replica.

    Attributes:
        at: When it was made.
        asked: The Services that it was made for. What was not looked for is not zero.
        counts: What was counted; a subject that is missing has not been used yet.
        started: When the replica's process started, as it says itself; None where it does not.
        start_error: By how many seconds `started` may be too late.
    """

    at: float
    asked: frozenset[ObjectRef]
    counts: Mapping[Subject, Count]
    started: float | None = None
    start_error: float = START_ERROR


class Succession(Enum):
    """What process a look met, compared with the look before."""

    SAME = "the same, as far as can be known"
    RESTARTED = "one that has started since"
    OTHER = "one that ran beside the other: another replica answers at the same address"


def succession(before: Reading, after: Reading) -> Succession:
    """Whether two looks met one process."""
    if before.started is None or after.started is None:
        return Succession.SAME
    error = max(before.start_error, after.start_error)
    if abs(after.started - before.started) <= error:
        return Succession.SAME
    if after.started >= before.at - error:
        return Succession.RESTARTED
    return Succession.OTHER


def deltas(gateway: str, replica: str, before: Reading, after: Reading) -> Iterator[GatewayDelta]:
    """What one replica counted between two looks. Never negative.

    Counters that went down were reset, by a restart or because the gateway made the upstream anew:
    what they show now has been counted since then, and so since the look before. What was counted
    between that look and the reset is lost. Two looks that met different processes tell nothing.

    Args:
        gateway: As in `GatewayDelta`.
        replica: As in `GatewayDelta`.
        before: The look before.
        after: This look. Services that the look before was not made for have no delta yet.
    """
    met = succession(before, after)
    if met is Succession.OTHER:
        return
    known = {} if met is Succession.RESTARTED else before.counts
    for subject in sorted(after.counts):
        if subject.service not in before.asked:
            continue
        delta = _delta(subject, known.get(subject, Count()), after.counts[subject])
        if delta.endpoint and not delta.statuses and not delta.failures:
            continue
        yield replace(delta, gateway=gateway, replica=replica, since=before.at, until=after.at)


def remembered(before: Reading | None, after: Reading) -> Reading:
    """What the next look is to be compared with: a Service that a process does not show for a while keeps its count.

    HAProxy has no address for a server whose name does not resolve, so that nobody knows whose it is; when it
    resolves again, all that was ever counted would look new. Endpoints are not remembered: theirs begin anew, and
    there is no end of them.

    Args:
        before: What the last look was compared with; None where there was none.
        after: The last look.
    """
    if before is None or succession(before, after) is not Succession.SAME:
        return after
    kept = {
        subject: count
        for subject, count in before.counts.items()
        if not subject.endpoint and subject.service in after.asked
    }
    return replace(after, counts={**kept, **after.counts})


def _delta(subject: Subject, base: Count, count: Count) -> GatewayDelta:
    return GatewayDelta(
        gateway="",
        service=subject.service,
        since=0.0,
        until=0.0,
        statuses=_less(count.statuses, base.statuses),
        classes_only=count.classes_only,
        failures=_less(count.failures, base.failures),
        endpoint=subject.endpoint,
        healthy=count.healthy,
        tells_failures=bool(count.failures),
    )


def _less(now: Mapping[K, int], before: Mapping[K, int]) -> dict[K, int]:
    """What has been added, of all of them since they began anew where one went down; nothing that stayed as it was.

    Answers and failed attempts each by themselves: an Envoy that is told of other limits for a cluster forgets its
    answers by status and keeps its failures (1.38, the fault matrix's `overload`).
    """
    anew = any(now.get(key, 0) < n for key, n in before.items())
    grown = {key: n if anew else n - before.get(key, 0) for key, n in now.items()}
    return {key: n for key, n in grown.items() if n > 0}
