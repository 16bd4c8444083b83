"""What is remembered of one guarded Service while its windows are watched, and what is so around it. Pure values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.classify import Case, Diagnosis
from upstream_guard.core.looks import Looks
from upstream_guard.core.model import DetectionPolicy
from upstream_guard.core.observed import ObservedWindow
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.predict.score import SLACK
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.sightings import Direct, Lane, Probed
from upstream_guard.core.status import PredictionStatus

AFTERMATH: Final = 2.0
"""Seconds after a change in which a window is still its own: gateways learn of its last step later."""


@dataclass(frozen=True, slots=True)
class Underway:
    """A change under way, or just over.

    Attributes:
        kind: Of which kind.
        subject: What it happens to, e.g. `deployment/shop`.
        began: Unix seconds.
        ended: Unix seconds; infinite while it lasts.
    """

    kind: ChangeKind
    subject: str
    began: float
    ended: float = math.inf

    @property
    def text(self) -> str:
        """`rollout of deployment/shop`."""
        return f"{self.kind} of {self.subject}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What is so around a guarded Service while evidence comes in.

    Attributes:
        policy: `spec.detection`.
        endpoints: All of them.
        trusted: Direct probes are known to be right.
        pods: Endpoints that are to stay; an empty list where there are none is somebody's wish.
        gateways: How those in front behave, by `GatewayFacts.name`.
        changes: Under way or just over.
        predictions: That are not over.
        rate: Requests a second where no gateway counts them, as the guard says; None where it does not.
        neighbours: For each gateway: other guarded Services behind it with a window, and all of them.
        app_idle: As in `Case`.
        path: As in `Case`.
        told: As in `Case`.
    """

    policy: DetectionPolicy = field(default_factory=DetectionPolicy)
    endpoints: tuple[Probed, ...] = ()
    trusted: bool = True
    pods: int = 0
    gateways: Mapping[str, Behaviour] = field(default_factory=dict)
    changes: tuple[Underway, ...] = ()
    predictions: tuple[PredictionStatus, ...] = ()
    rate: float | None = None
    neighbours: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    app_idle: float | None = None
    path: str = ""
    told: Mapping[Cause, str] = field(default_factory=dict)

    def change_at(self, at: float) -> Underway | None:
        """The change of a moment, Unix seconds; an edit only where there is no other."""
        fitting = [c for c in self.changes if c.began - SLACK <= at <= c.ended + AFTERMATH]
        return max(fitting, key=lambda c: (c.kind is not ChangeKind.EDIT, c.began), default=None)


@dataclass(frozen=True, slots=True)
class Open:
    """A window that is open.

    Attributes:
        id: Its name.
        first: Unix seconds of the first failure.
        last: Unix seconds of the last.
        detected: Unix seconds at which the threshold was crossed.
        pause: Seconds without a failure after which it closes.
        change: Under way when it opened; empty where none was.
        found: Why, as far as it is known.
        found_at: Unix seconds of the last look for the cause.
        case: What was known then; None where an earlier controller looked.
        told: As it was last told; None before it was.
        retold: How often its cause was told anew.
        retold_at: Unix seconds at which.
        direct_lost: Requests lost by share and rate while direct probes failed.
        rate: Requests a second before it opened; None where that was not known for long enough.
    """

    id: str
    first: float
    last: float
    detected: float
    pause: float
    change: str
    found: Diagnosis
    found_at: float
    told: ObservedWindow | None = None
    retold: int = 0
    retold_at: float = 0.0
    direct_lost: float = 0.0
    rate: float | None = None
    case: Case | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """All that is remembered of one guarded Service. Gateways go by name; "" is direct probes alone.

    Attributes:
        direct: What direct probes see.
        lanes: What is known at each gateway.
        open: The windows that are open.
        hidden: When it was last told that a gateway hides failures.
        emptied: Unix seconds since when no endpoint is listed; 0 where one is, or none is to be.
        bare: No endpoint is listed, and one was: whether that is a window or somebody's wish.
        bared: Until when that was so, Unix seconds.
        failed_until: Unix seconds up to which a listed endpoint failed, or the list was empty.
        serial: Windows opened so far, for their names.
        looks: What was asked beside since something was odd.
    """

    direct: Direct = field(default_factory=Direct)
    lanes: Mapping[str, Lane] = field(default_factory=dict)
    open: Mapping[str, Open] = field(default_factory=dict)
    hidden: Mapping[str, float] = field(default_factory=dict)
    emptied: float = 0.0
    bare: bool = False
    bared: float = 0.0
    failed_until: float = 0.0
    serial: int = 0
    looks: Looks = field(default_factory=Looks)

    @property
    def rate(self) -> float | None:
        """Requests a second at all gateways that count them; None where none does."""
        rates = [lane.rate for lane in self.lanes.values() if lane.rate is not None]
        return sum(rates) if rates else None

    def counted_rate(self, now: float) -> float | None:
        """Requests a second at the gateways whose counts are being read; None where none is."""
        rates = [lane.rate for lane in self.lanes.values() if lane.counts(now)]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if known else None

    def watched(self, now: float) -> frozenset[str]:
        """Gateways at which a window would be seen now."""
        return frozenset(name for name, lane in self.lanes.items() if lane.watched(now))
