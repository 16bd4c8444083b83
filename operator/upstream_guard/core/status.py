"""What a guard's status says, as values; `resources.status` turns them into the API's dict.

Nothing here changes while the cluster does not: no clock, no counters that only grow, no latencies of
single probes. So a steady cluster gets no status writes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import DrainMode
from upstream_guard.core.observed import ObservedWindow, describe_open
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.predict.window import Severity
from upstream_guard.core.reasons import ConditionType, Reason
from upstream_guard.core.resolution import UpstreamState
from upstream_guard.core.surge import SurgeRecord
from upstream_guard.core.tuning import DrainAdvice, Evidence, GatewayFacts

MAX_PREDICTIONS: Final = 10
"""Predicted windows that the status lists, those of the latest change first."""
MAX_RISKS: Final = 20
"""Standing risks that the status lists, the worst first."""
MAX_ROUTES: Final = 16
"""Ways through gateways that the status names, asked or not."""
MAX_LISTED_ENDPOINTS: Final = 50
"""Endpoints that the status names; it counts all of them."""


class ConditionStatus(StrEnum):
    """Kubernetes' three truth values."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. `last_transition` is when its status last changed, Unix seconds."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str
    observed_generation: int = 0
    last_transition: float = 0.0


class EndpointState(StrEnum):
    """What an endpoint is to the guard, those that need attention first."""

    FAILING = "Failing"
    """It does not serve, and is listed all the same."""
    EJECTED = "Ejected"
    KEPT_OUT = "KeptOut"
    DRAINING = "Draining"
    PENDING = "Pending"
    """New, and not yet seen to serve."""
    UNKNOWN = "Unknown"
    """Not yet judged."""
    STANDBY = "Standby"
    """External, of an SRV priority that is not listed now."""
    SERVING = "Serving"


_OUT: Final = frozenset({EndpointState.EJECTED, EndpointState.KEPT_OUT})
_RANK: Final = {state: rank for rank, state in enumerate(EndpointState)}


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint, as the status tells it."""

    pod: str
    """Empty for an external upstream."""
    address: str
    """`10.0.0.7:8080`; the port alone is left out where it is not known."""
    state: EndpointState
    listed: bool
    gated: bool
    node: str = ""
    cause: Cause | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EndpointCounts:
    """How many endpoints are in which state. One endpoint may count in several."""

    total: int = 0
    serving: int = 0
    listed: int = 0
    ejected: int = 0
    draining: int = 0
    ungated: int = 0


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """The drain settings in force.

    Attributes:
        mode: `spec.drain.mode`.
        advice: The settings.
        own_grace: The pods' own grace period where all have the same, seconds.
        patch: With `Recommend`, the patch for the workload as JSON; else empty.
        surge: A replica that was added for a drain; None where none was.
    """

    mode: DrainMode
    advice: DrainAdvice
    own_grace: int | None = None
    patch: str = ""
    surge: SurgeRecord | None = None


@dataclass(frozen=True, slots=True)
class PredictionStatus:
    """One predicted window of a change, as the status tells it until no window of it may be open any more.

    Numbers are rounded already, so that what is read back from a status is what was written.

    Attributes:
        change: What kind of change.
        subject: What it happens to, e.g. `deployment/shop`.
        began: Unix seconds at which the change was seen to begin.
        made_at: Unix seconds at which the prediction was there.
        until: Unix seconds at which it is dropped at the latest.
        opens_at: Unix seconds at which the first request is expected to fail.
        duration: From the first to the last failed request, e.g. `1.2s`; empty where it stays open.
        duration_range: e.g. `0.9s-1.4s`.
        lost: Requests expected to fail.
        lost_range: e.g. `25-60`.
        share: Percent of the requests sent meanwhile.
        probability: Percent.
        cause: What the failed requests meet.
        risk: ID of the rule that explains it.
        gateway: Where.
        answer: Status that clients see; 0 where their connection just ends.
        evidence: The weakest that a decisive number rests on.
        message: One sentence.
        remedy: The command that prevents it, or why there is none.
    """

    change: ChangeKind
    subject: str
    began: float
    made_at: float
    until: float
    opens_at: float
    duration: str
    duration_range: str
    lost: int
    lost_range: str
    share: int
    probability: int
    cause: Cause
    risk: str
    gateway: str
    answer: int
    evidence: Evidence
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class RiskStatus:
    """One standing risk, as the status tells it.

    Attributes:
        risk: ID of the rule.
        severity: How bad.
        subject: The object that it is about, e.g. `deployment/shop`.
        path: The field in that object; empty where it is none in particular.
        message: One sentence, with the worst predicted window where there is one.
        remedy: The command that mends it, or why there is none.
    """

    risk: str
    severity: Severity
    subject: str
    path: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """One way through a gateway that the operator asks, or would ask.

    Attributes:
        gateway: Name of the gateway.
        route: The object that makes it, e.g. `Ingress prod/shop`; empty for a plain gateway.
        url: What is asked; empty where nothing is.
        via: Where, e.g. `192.0.2.7:443`.
        problem: What is in the way; empty where nothing is.
    """

    gateway: str
    route: str
    url: str = ""
    via: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """One external upstream, as the status tells it.

    Attributes:
        upstream: Its key.
        state: How its resolution stands.
        addresses: How many are known and allowed.
        message: What DNS said, or why it is refused; empty where all is well.
        certificate_ends: The earliest end of its certificates, Unix seconds; 0 where none was seen.
    """

    upstream: str
    state: UpstreamState
    addresses: int
    message: str = ""
    certificate_ends: float = 0.0


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """Everything that the status of one guard says."""

    observed_generation: int
    service: str
    """Name of the Service, with `:port` where the guard names one."""
    conditions: tuple[Condition, ...]
    endpoints: tuple[EndpointStatus, ...] = ()
    gateways: tuple[GatewayFacts, ...] = ()
    drain: DrainStatus | None = None
    predictions: tuple[PredictionStatus, ...] = ()
    risks: tuple[RiskStatus, ...] = ()
    routes: tuple[RouteStatus, ...] = ()
    upstreams: tuple[UpstreamStatus, ...] = ()
    kube_proxy: GatewayFacts | None = None
    """The way through the ClusterIP, where it counts beside the gateways and was measured."""
    windows: tuple[ObservedWindow, ...] = ()
    """The last ones, newest first; those that are open among them."""

    @property
    def counts(self) -> EndpointCounts:
        """The endpoints, counted."""
        return count_endpoints(self.endpoints)


def count_endpoints(endpoints: Iterable[EndpointStatus]) -> EndpointCounts:
    """How many endpoints are in which state; a draining one is not part of the total."""
    found = tuple(endpoints)
    staying = tuple(e for e in found if e.state is not EndpointState.DRAINING)
    return EndpointCounts(
        total=len(staying),
        serving=sum(e.state is EndpointState.SERVING for e in staying),
        listed=sum(e.listed for e in staying),
        ejected=sum(e.state in _OUT for e in staying),
        draining=len(found) - len(staying),
        ungated=sum(not e.gated for e in staying),
    )


def worst_first(endpoints: Iterable[EndpointStatus]) -> tuple[EndpointStatus, ...]:
    """The endpoints in a stable order, those that need attention first."""
    return tuple(sorted(endpoints, key=lambda e: (_RANK[e.state], e.pod, e.address)))


def merge_conditions(
    old: Iterable[Condition], new: Iterable[Condition], now: float
) -> tuple[Condition, ...]:
    """The new conditions, with the time of the last transition kept where the status is unchanged.

    Args:
        old: As the API has them.
        new: As they should be; those of a type that is not among them are dropped.
        now: Unix seconds.
    """
    before = {condition.type: condition for condition in old}
    return tuple(_keep_time(before.get(condition.type), condition, now) for condition in new)


def _keep_time(old: Condition | None, new: Condition, now: float) -> Condition:
    unchanged = old is not None and old.status is new.status and old.last_transition > 0
    return replace(new, last_transition=old.last_transition if old and unchanged else now)


Judgement = tuple[ConditionStatus, Reason, str]
"""Of a condition: status, reason and message."""


def with_open_window(judgement: Judgement, windows: Iterable[ObservedWindow]) -> Judgement:
    """What `Healthy` says where requests fail, whatever the endpoints look like."""
    status, reason, message = judgement
    window = next((w for w in windows if w.closed == 0), None)
    if window is None:
        return judgement
    message = "; ".join(filter(None, (message, describe_open(window))))
    if status is ConditionStatus.FALSE:
        return status, reason, message
    return ConditionStatus.FALSE, Reason.WINDOW_OPEN, message
