"""Who holds the Lease, judged by one's own clock.

Clocks of two machines may differ by any amount, so a Lease's age is the time since *we* last saw its
record change, as client-go's leader election does it (`observedTime`).
"""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """All in seconds."""

    renew_every: float = 2.0
    duration: float = 10.0
    """Not renewed for so long, the Lease may be taken."""
    give_up: float = 8.0
    """A holder that could not renew for so long ends; below `duration`, so two never control."""
    sweep: float = 25.0
    """Not renewed and not taken for so long, a standby sets the gates free: with the work itself this
    keeps the promise of 30 s."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What the Lease object says."""

    holder: str
    renewals: str
    """Renew time and transitions as text: any change of it is a sign of life."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A record and when it was first seen as it is."""

    record: LeaseRecord | None
    since: float


class Step(StrEnum):
    """What to do with the Lease now."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


def observe_lease(seen: Observation | None, record: LeaseRecord | None, now: float) -> Observation:
    """The observation after one more look."""
    if seen is not None and seen.record == record:
        return seen
    return Observation(record, now)


def next_step(seen: Observation, me: str, times: LeaseTimes, now: float) -> Step:
    """What a candidate named `me` may do."""
    if seen.record is None:
        return Step.CREATE
    if seen.record.holder == me:
        return Step.RENEW
    if not seen.record.holder or now - seen.since >= times.duration:
        return Step.TAKE
    return Step.WAIT


def is_fresh(seen: Observation | None, times: LeaseTimes, now: float) -> bool:
    """Somebody controls: only then may new pods be given a gate that somebody must open."""
    return (
        seen is not None
        and seen.record is not None
        and bool(seen.record.holder)
        and now - seen.since < times.duration
    )


def must_sweep(seen: Observation | None, times: LeaseTimes, now: float) -> bool:
    """Nobody controls and nobody took over: gates must be opened without a verdict."""
    return seen is not None and now - seen.since >= times.sweep
