"""What a prediction needs to know of a gateway: its answers to failures, its delays, its retries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.tuning import Evidence, GatewayFacts


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client sees when the gateway meets one cause.

    Attributes:
        status: HTTP status; 0 where the connection just ends (or a 200 is cut short).
        note: The gateway's own words or flag for it, e.g. `connect() failed`, `UF`.
        evidence: `BUILTIN` where measured or read in the product's code, else `ASSUMED`.
        retried: The gateway tries another endpoint by default, so that users rarely see it.
    """

    status: int
    note: str = ""
    evidence: Evidence = Evidence.ASSUMED
    retried: bool = False


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one gateway product treats its upstreams by default. None means "not known".

    Attributes:
        answers: By cause; a cause that is missing gets `UNKNOWN_ANSWER`.
        keepalive_idle: Seconds after which it closes an idle upstream connection; 0 where it keeps
            none.
        connect_timeout: Seconds.
        read_timeout: Seconds; infinite where it has none.
        serves_terminating: With no ready endpoint left it uses terminating ones that still serve.
        reads_ready: Only ready endpoints are used; False where it gets all and decides itself.
        refused_retries: How often a refused connection is tried again at a fresh pick, by default.
        retry_pause: Seconds between these tries.
        reuses: Requests of different clients share upstream connections. To a ClusterIP, which picks
            a pod per connection, few requests then meet a fresh pick.
        replays: A request that broke off on a reused connection is sent again (Go's transport, for
            methods that may be repeated).
        bare_pages: Its own error pages carry no `Server` header, and the app's is passed on.
        pages: In lower case, words of which each of its own error pages has one at least; empty where that
            is not known, or where its pages have no body.
    """

    answers: Mapping[Cause, Answer] = field(default_factory=dict)
    keepalive_idle: float | None = None
    connect_timeout: float | None = None
    read_timeout: float | None = None
    serves_terminating: bool = False
    reads_ready: bool = True
    refused_retries: int = 0
    retry_pause: float = 0.0
    reuses: bool = False
    replays: bool = False
    bare_pages: bool = False
    pages: tuple[str, ...] = ()


UNKNOWN_ANSWER: Final = Answer(502, "not known for this gateway")
UNKNOWN_BEHAVIOUR: Final = Behaviour()


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway in front of a Service.

    Attributes:
        facts: Its name, product, and what the upstream list's changes take.
        behaviour: Its product's.
        attach: From the EndpointSlice's change to the first request sent to a new endpoint, seconds.
        detach: From the EndpointSlice's change to the last request sent to the old one, seconds,
            new connections only.
        throttle: Least seconds between two updates of its list; the first after a pause is made at
            once, what comes meanwhile waits (kube-proxy's `minSyncPeriod`).
    """

    facts: GatewayFacts
    behaviour: Behaviour
    attach: Estimate
    detach: Estimate
    throttle: float = 0.0

    @property
    def text(self) -> str:
        """`contour (prod/public)`, for people."""
        return f"{self.facts.controller} ({self.facts.name})"

    def answer(self, cause: Cause) -> Answer:
        """What clients see of this cause."""
        return self.behaviour.answers.get(cause, UNKNOWN_ANSWER)
