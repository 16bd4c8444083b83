"""Windows as they were observed: what status keeps, events tell, and predictions are scored by."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import Eye

MAX_WINDOWS: Final = 20
"""Windows that the status keeps, newest first."""


class Counted(StrEnum):
    """How well the requests lost are known."""

    EXACT = "exact"
    """The gateway counted them."""
    ESTIMATED = "estimated"
    """Put together from the operator's own probes and the observed rate."""


class Extent(StrEnum):
    """How far a window reaches."""

    ENDPOINT = "endpoint"
    NODE = "node"
    ZONE = "zone"
    ROUTE = "route"
    """One route of several to the Service."""
    SERVICE = "service"
    GATEWAY = "gateway"
    """Every guarded Service behind it."""


@dataclass(frozen=True, slots=True)
class ObservedWindow:
    """One window, open or closed.

    Numbers are rounded already, so that what is read back from a status is what was written.

    Attributes:
        id: Stable and unique within the guard, e.g. `w-20261126-071530-1`.
        gateway: `GatewayFacts.name`; empty where only direct probes saw it.
        routes: The routes that failed, e.g. `Ingress prod/shop`, sorted.
        cause: The likeliest.
        confidence: Of the cause, percent.
        others: The next likely causes with their percents, at most three.
        extent: How far it reaches.
        endpoints: Endpoints at fault, at most ten; empty where it is none in particular.
        opened: Unix seconds of the first failed request.
        detected: Unix seconds at which it was known.
        closed: Unix seconds of the last failed request; 0 while it is open.
        lost: Requests lost.
        counted: How well `lost` is known.
        statuses: Failed answers by status; 0 stands for none.
        eyes: Who saw it, sorted.
        evidence: In words, at most 512 characters.
        predicted: Whether a prediction covered it.
        change: The change under way, e.g. `rollout of deployment/shop`; empty where there was none.
    """

    id: str
    gateway: str
    routes: tuple[str, ...]
    cause: Cause
    confidence: int
    others: tuple[tuple[Cause, int], ...]
    extent: Extent
    endpoints: tuple[str, ...]
    opened: float
    detected: float
    closed: float
    lost: int
    counted: Counted
    statuses: Mapping[int, int] = field(default_factory=dict)
    eyes: tuple[Eye, ...] = ()
    evidence: str = ""
    predicted: bool = False
    change: str = ""

    @property
    def seconds(self) -> float:
        """From the first failed request to the last; 0 while it is open."""
        return max(0.0, self.closed - self.opened) if self.closed else 0.0

    @property
    def change_kind(self) -> str:
        """`rollout` of `rollout of deployment/shop`; empty where there was none."""
        return self.change.partition(" of ")[0]


def failed_after(spans: Iterable[tuple[float, float]], counted: float) -> tuple[float, float]:
    """How much longer requests have failed than was counted; what overlaps counts once.

    Args:
        spans: First and last failed request of each window, Unix seconds.
        counted: Up to when it was counted before, Unix seconds; what was earlier is passed over.

    Returns:
        The seconds to add, and up to when they are counted now.
    """
    seconds = 0.0
    for first, last in sorted(spans):
        if last > counted:
            seconds += last - max(first, counted)
            counted = last
    return seconds, counted


def describe_open(window: ObservedWindow) -> str:
    """For a condition: nothing that changes while the window is as it was told."""
    where = f" at {window.gateway}" if window.gateway else ""
    return f"window {window.id} is open{where}: {window.cause} ({window.confidence} %)"


def tell_opened(window: ObservedWindow) -> str:
    """One sentence for the event that a window has opened."""
    parts = [_what(window), _found(window)]
    parts.append("predicted" if window.predicted else "not predicted")
    if window.change:
        parts.append(f"under way: {window.change}")
    if window.evidence:
        parts.append(window.evidence)
    return "; ".join(parts)


def tell_closed(window: ObservedWindow) -> str:
    """One sentence for the event that a window has closed."""
    parts = [
        f"{_what(window)} for {window.seconds:.1f} s",
        f"{window.lost} requests lost ({window.counted})",
        _found(window),
        "predicted" if window.predicted else "not predicted",
    ]
    if window.change:
        parts.append(f"during the {window.change}")
    if window.evidence:
        parts.append(window.evidence)
    return "; ".join(parts)


def _what(window: ObservedWindow) -> str:
    """Whose requests failed, and how clients saw it."""
    where = window.gateway or "by direct probes"
    routes = f", {', '.join(window.routes[:3])}" if window.routes else ""
    seen = ", ".join(
        f"{count} × {status or 'no answer'}" for status, count in window.statuses.items()
    )
    return f"{window.id} ({where}{routes}): requests failed" + (f" with {seen}" if seen else "")


def _found(window: ObservedWindow) -> str:
    """Why, and where."""
    others = ", ".join(f"{cause} {percent} %" for cause, percent in window.others)
    rather = f" (else {others})" if others else ""
    at = f" at {', '.join(window.endpoints[:5])}" if window.endpoints else ""
    return f"cause {window.cause} {window.confidence} %{rather}, {window.extent}{at}"
