"""Faults, trials, and what came of them, as values."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from upstream_guard.core.causes import Cause
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.tally import Record
from upstream_guard.lab.model import Cluster

EARLY = 1.0
"""Seconds by which a window may begin before we noted that the fault was on: clocks and rounding."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault is brought about."""

    cluster: Cluster
    stage: Stage
    gateway: str


Inject = Callable[[Scene], AbstractAsyncContextManager[None]]
"""The fault is on while the context is open; leaving it heals all."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: What it is called in results.
        title: For people.
        expected: Causes that are right; none where no window is to open.
        inject: Brings it about.
        gateways: Those behind which it can be brought about; all where empty.
        keep_alive: Clients keep their connections.
        alone: Nothing else may go on meanwhile, for it touches what gateways share.
        settle: Seconds that it takes to show after it was switched on.
    """

    name: str
    title: str
    expected: frozenset[Cause]
    inject: Inject
    gateways: frozenset[str] = frozenset()
    keep_alive: bool = False
    alone: bool = False
    settle: float = 0.0

    def possible(self, gateway: str) -> bool:
        """Whether it can be brought about behind this gateway."""
        return not self.gateways or gateway in self.gateways


@dataclass(frozen=True, slots=True)
class Told:
    """One window as the operator told it, after it had closed, or at the end of our patience.

    Attributes:
        cause: The likeliest.
        confidence: Percent.
        others: The next likely ones.
        extent: How far it reached.
        opened: Unix seconds of its first failed request.
        detected: Unix seconds at which the operator knew.
        seen: Unix seconds at which a watch of the guard showed it.
        closed: Unix seconds; 0 where it is still open.
        lost: Requests lost.
        counted: `exact` or `estimated`.
        eyes: Who saw it.
        evidence: In words.
    """

    cause: str
    confidence: int
    others: tuple[str, ...]
    extent: str
    opened: float
    detected: float
    seen: float
    closed: float
    lost: int
    counted: str
    eyes: tuple[str, ...]
    evidence: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault behind one gateway, once.

    Attributes:
        gateway: Its name.
        fault: The fault's name.
        repeat: From 1.
        began: Unix seconds at which it was switched on.
        requests: Of users, while it was on and after.
        failed: Those that failed.
        first_failed: Unix seconds at which the first of them had failed; 0 where none did.
        statuses: Failed requests by outcome.
        windows: What the operator told, oldest first.
        problem: Why there is no result; empty where there is one.
    """

    gateway: str
    fault: str
    repeat: int
    began: float
    requests: int = 0
    failed: int = 0
    first_failed: float = 0.0
    statuses: Mapping[str, int] = field(default_factory=dict)
    windows: tuple[Told, ...] = ()
    problem: str = ""

    @property
    def cause(self) -> str:
        """The top cause of the window that lost most; `none` where no window opened."""
        if not self.windows:
            return "none"
        return max(self.windows, key=lambda w: (w.lost, w.confidence)).cause

    @property
    def delay(self) -> float | None:
        """Seconds from the first failed request to when a watch showed the window."""
        if not self.windows or not self.first_failed:
            return None
        return max(0.0, min(w.seen for w in self.windows) - self.first_failed)

    @property
    def lost(self) -> int:
        """Requests lost, as the operator told."""
        return sum(w.lost for w in self.windows)


def make_trial(base: Trial, records: Sequence[Record], windows: Sequence[Told]) -> Trial:
    """Put one trial's findings together.

    Args:
        base: What is known before.
        records: Of every request.
        windows: Every window of the guard.
    """
    after = [r for r in records if r.sent >= base.began - EARLY]
    failed = [r for r in after if r.failed]
    counts: dict[str, int] = {}
    for record in failed:
        counts[record.outcome] = counts.get(record.outcome, 0) + 1
    ours = [window for window in windows if window.opened >= base.began - EARLY]
    return Trial(
        gateway=base.gateway,
        fault=base.fault,
        repeat=base.repeat,
        began=base.began,
        requests=len(after),
        failed=len(failed),
        first_failed=min((r.done for r in failed), default=0.0),
        statuses=counts,
        windows=tuple(sorted(ours, key=lambda window: window.opened)),
    )
