"""Faults, trials, and what came of them, as values."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from enum import StrEnum

from upstream_guard.core.causes import Cause
from upstream_guard.lab.demo.runner import REQUEST_SECONDS
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.tally import Record, percentile
from upstream_guard.lab.model import Cluster
from upstream_guard.lab.nameserver import Nameserver
from upstream_guard.probes.route import TIMEOUT

HOLD_SECONDS = 6.0
KNOWN_SECONDS = 15.0
"""Of load, after which a gateway's count tells its rate: three looks in peace."""
SLOW_HOLD_SECONDS = REQUEST_SECONDS + 2.5
"""The same where requests get no answer: a client gives up only then, and late ones would still be answered
if the fault ended before."""
EARLY = 1.0
"""Seconds by which a window may begin before we noted that the fault was on: clocks and rounding."""
NEAR = 3.0
"""Seconds between a window and a failed request that still go together: of failures that a gateway counted
only the two looks around them are known, up to 5 s apart."""
NO_CAUSE = "none"
"""Stands for a cause where no window opened."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault is brought about."""

    cluster: Cluster
    stage: Stage
    gateway: str
    dns: Nameserver | None = None
    """The cluster's DNS, where the lab has one."""


class Wire(StrEnum):
    """How gateways go to a service of the matrix; what is appended to its name."""

    CLEAR = ""
    TLS = "tls"
    NAMED = "dns"
    """By its name, for which they ask DNS again and again."""


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
        changing: A change is under way meanwhile.
        wire: How gateways go to the service.
        rate: Requests a second at most, where each costs so much that the machine itself would be the fault.
        hold: Seconds for which it stays on at least. Where requests hang, users have to give up first.
        before: Seconds of load before it. A gateway that is gone or keeps its users waiting counts nothing, so
            what it served has to be known, as it is wherever the load did not begin just now.
    """

    name: str
    title: str
    expected: frozenset[Cause]
    inject: Inject
    gateways: frozenset[str] = frozenset()
    keep_alive: bool = False
    changing: bool = False
    wire: Wire = Wire.CLEAR
    rate: float = math.inf
    hold: float = HOLD_SECONDS
    before: float = KNOWN_SECONDS

    def possible(self, gateway: str) -> bool:
        """Whether it can be brought about behind this gateway."""
        return not self.gateways or gateway in self.gateways


@dataclass(frozen=True, slots=True)
class Told:
    """One window as the operator told it, after it had closed, or at the end of our patience.

    Attributes:
        id: Its name.
        ranked: Causes with their percents, the likeliest first.
        extent: How far it reached.
        opened: Unix seconds of its first failed request.
        detected: Unix seconds at which the operator knew.
        seen: Unix seconds at which a watch of the guard showed it.
        event: Unix seconds of its `WindowOpened` event, by the event's own time; 0 where none came.
        closed: Unix seconds; 0 where it is still open.
        lost: Requests lost.
        counted: `exact` or `estimated`.
        eyes: Who had seen it when it was first shown.
        predicted: Whether a prediction covered it.
        evidence: In words.
    """

    id: str
    ranked: tuple[tuple[str, int], ...]
    extent: str
    opened: float
    detected: float
    seen: float
    event: float
    closed: float
    lost: int
    counted: str
    eyes: tuple[str, ...]
    predicted: bool
    evidence: str

    @property
    def cause(self) -> str:
        """The likeliest."""
        return self.ranked[0][0]

    @property
    def confidence(self) -> int:
        """Of the cause, percent."""
        return self.ranked[0][1]


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault behind one gateway, once.

    Attributes:
        gateway: Its name.
        fault: The fault's name.
        repeat: From 1.
        began: Unix seconds at which it was switched on.
        expected: Causes that are right; none where no window is to open.
        rate: Requests a second of the load.
        requests: Of users, while it was on and after.
        failed: Those that failed: what a gateway's exact count is to be.
        slow: Those that were answered well, but later than a route probe waits: an estimate counts them as lost.
        first_lost: Unix seconds at which the first of both was lost to its user; 0 where none was.
        statuses: Failed requests by outcome.
        late: 99th percentile of the seconds by which the load generator was late: how busy the machine was.
        windows: What the operator told, oldest first.
        problem: Why there is no result; empty where there is one.
    """

    gateway: str
    fault: str
    repeat: int
    began: float
    expected: tuple[str, ...] = ()
    rate: float = 0.0
    requests: int = 0
    failed: int = 0
    slow: int = 0
    first_lost: float = 0.0
    statuses: Mapping[str, int] = field(default_factory=dict)
    late: float = 0.0
    windows: tuple[Told, ...] = ()
    problem: str = ""

    @property
    def worst(self) -> Told | None:
        """The window that lost most; None where none opened."""
        return max(self.windows, key=lambda w: (w.lost, w.confidence), default=None)

    @property
    def cause(self) -> str:
        """The top cause of the window that lost most; `none` where no window opened."""
        return self.worst.cause if self.worst else NO_CAUSE

    @property
    def first(self) -> Told | None:
        """The window whose event came first; None where no event came."""
        told = [w for w in self.windows if w.event]
        return min(told, key=lambda w: w.event, default=None)

    @property
    def delay(self) -> float | None:
        """Seconds from the time at which the first request was lost to the `WindowOpened` event's own time.

        Negative where the operator knew before a user did.
        """
        if self.first is None or not self.first_lost:
            return None
        return self.first.event - self.first_lost

    @property
    def eyes(self) -> str:
        """Who saw the first window, as `direct+route`; empty where none opened."""
        return "+".join(self.first.eyes) if self.first else ""

    @property
    def lost(self) -> int:
        """Requests lost, as the operator told."""
        return sum(w.lost for w in self.windows)

    @property
    def lost_kind(self) -> str:
        """`exact` where every window's count is; `estimated` where not; empty where none opened."""
        kinds = {w.counted for w in self.windows}
        return "exact" if kinds == {"exact"} else "estimated" if kinds else ""

    @property
    def truth(self) -> int:
        """Requests lost, by the load generator: what `lost` is to be."""
        return self.failed if self.lost_kind == "exact" else self.failed + self.slow


def make_trial(base: Trial, records: Sequence[Record], windows: Sequence[Told]) -> Trial:
    """Put one trial's findings together.

    Args:
        base: What is known before.
        records: Of every request.
        windows: Every window of the guard.
    """
    after = [r for r in records if r.sent >= base.began - EARLY]
    failed = [r for r in after if r.failed]
    slow = [r for r in after if not r.failed and r.done - r.sent > TIMEOUT]
    # Not by its first failure: of one that a gateway counted, only the two looks around it are known.
    ours = [window for window in windows if window.detected >= base.began - EARLY]
    return replace(
        base,
        requests=len(after),
        failed=len(failed),
        slow=len(slow),
        first_lost=min((min(r.done, r.sent + TIMEOUT) for r in (*failed, *slow)), default=0.0),
        statuses=dict(Counter(record.outcome for record in failed).most_common()),
        late=percentile([r.late for r in after], 0.99),
        windows=tuple(sorted(ours, key=lambda window: window.opened)),
    )


def felt(window: Told, failed: Iterable[Record]) -> bool:
    """Whether some request failed about the time of a window; a window that nobody felt is a false alarm."""
    first = min(window.opened, window.event or window.opened) - NEAR
    last = (window.closed or window.opened) + NEAR
    return any(first <= record.done and record.sent <= last for record in failed)
