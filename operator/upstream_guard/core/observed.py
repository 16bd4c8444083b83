"""Windows as they were observed: what status keeps, events tell, and predictions are scored by."""

from collections.abc import Mapping
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
