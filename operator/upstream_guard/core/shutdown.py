"""What an app does on SIGTERM, by how its earlier pods ended.

A pod's deletion says when it began to stop, its preStop hook when SIGTERM came, and its containers when
they ended and how. The API tells all of that to the whole second, by the clocks of the API server and of
the node: a figure is true to about a second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from upstream_guard.core.model import ContainerStop, Pod

GRAIN: Final = 1.0
"""Seconds that one figure may be wrong."""
KILLED: Final = 137
"""Exit code of a process that SIGKILL ended: 128 + 9."""
MARGIN: Final = 2.0
"""Seconds between the slowest drain that was seen and SIGKILL: twice the grain."""
CENSORED_SHARE: Final = 0.25
"""A drain that SIGKILL cut short gets so much more time: how long it would have taken is not known."""
SHORTEST: Final = 5.0
"""Seconds. Who is killed sooner was deleted in a hurry (`--grace-period=1`), which says nothing of the app."""
MOST: Final = 2
"""A grace period grows to at most so many times the pod's own: a connection that never ends must not
hold up rollouts for ever."""


class Ending(StrEnum):
    """What an app does on SIGTERM."""

    AT_ONCE = "AtOnce"
    DRAINS = "Drains"
    IGNORES = "IgnoresSigterm"
    """Every pod was killed at the end of its grace period."""


@dataclass(frozen=True, slots=True)
class Stop:
    """How one pod ended, by its slowest container.

    Attributes:
        seconds: From SIGTERM to the end.
        allowed: From SIGTERM to SIGKILL, as the grace period has it.
        killed: SIGKILL ended it.
    """

    seconds: float
    allowed: float
    killed: bool


@dataclass(frozen=True, slots=True)
class AppShutdown:
    """What the pods of one template were seen to do.

    Attributes:
        ending: What they do.
        samples: Pods that it rests on.
        killed: How many of them SIGKILL ended.
        drain: Seconds, the 99th percentile of those that ended by themselves; 0 where none did.
        given: Seconds that the killed ones had; 0 where none was killed.
    """

    ending: Ending
    samples: int
    killed: int
    drain: float
    given: float


def stop_of(pod: Pod) -> Stop | None:
    """How a pod ended on SIGTERM; None where it has not, or where that cannot be told.

    It cannot where a hook of unknown length ran, or where a container ended before the deletion.
    """
    if not pod.deleted_at or len(pod.stops) < len(pod.containers):
        return None
    found = [_container(stop, pod) for stop in pod.stops]
    known = [stop for stop in found if stop is not None]
    return max(known, key=lambda s: s.seconds) if known and len(known) == len(found) else None


def summarise(stops: Sequence[Stop]) -> AppShutdown | None:
    """What stops of one template add up to; None where there are none."""
    if not stops:
        return None
    by_themselves = sorted(stop.seconds for stop in stops if not stop.killed)
    killed = len(stops) - len(by_themselves)
    drain = by_themselves[math.ceil(0.99 * len(by_themselves)) - 1] if by_themselves else 0.0
    given = max((stop.allowed for stop in stops if stop.killed), default=0.0)
    if not by_themselves:
        ending = Ending.IGNORES
    else:
        ending = Ending.AT_ONCE if drain <= GRAIN and not killed else Ending.DRAINS
    return AppShutdown(ending, len(stops), killed, drain, given)


def app_grace(found: AppShutdown | None, own: int) -> int:
    """Whole seconds from SIGTERM to SIGKILL that `Auto` gives; never fewer than the pod's own.

    Args:
        found: What was seen of earlier pods; None where nothing was.
        own: The pod's own grace period.
    """
    if found is None or found.ending is Ending.IGNORES:
        return own
    needed = found.drain + MARGIN
    if found.killed:
        needed = max(needed, found.given * (1 + CENSORED_SHARE))
    return max(own, min(math.ceil(needed), MOST * own))


def describe(found: AppShutdown) -> str:
    """What was seen and what to do about it, in one or two sentences."""
    pods = "the last pod" if found.samples == 1 else f"the last {found.samples} pods"
    if found.ending is Ending.IGNORES:
        return (
            f"{pods} did not end on SIGTERM and were killed after {found.given:g} s: handle SIGTERM (the "
            "first process of a container ignores it unless it has a handler; with a shell as entry "
            "point, use exec), so that requests in flight finish and rollouts need not wait"
        )
    if found.ending is Ending.AT_ONCE:
        return (
            f"{pods} ended within a second of SIGTERM: if requests take longer than the gateways' drain, "
            "let the app finish them before it exits"
        )
    words = f"{pods} took up to {found.drain:g} s to end after SIGTERM"
    if found.killed:
        words += (
            f", and {found.killed} of them were killed after {found.given:g} s: find what does not end "
            "(long requests, open streams), or raise spec.drain.gracePeriod"
        )
    return words


def _container(stop: ContainerStop, pod: Pod) -> Stop | None:
    if stop.pre_stop is None or stop.ended < pod.deleted_at:
        return None
    sigterm = pod.deleted_at + stop.pre_stop
    allowed = max(0.0, pod.grace_period - stop.pre_stop)
    seconds = max(0.0, stop.ended - sigterm)
    # A SIGKILL long before the end of the grace period came from somebody else (out of memory, say).
    late = seconds >= allowed - GRAIN
    if stop.exit_code == KILLED and (not late or allowed < SHORTEST):
        return None
    return Stop(seconds, allowed, stop.exit_code == KILLED)
