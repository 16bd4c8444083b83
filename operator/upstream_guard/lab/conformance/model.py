"""Failures, routes and what was seen of them, as values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from upstream_guard.core.causes import Cause

QUICK_SECONDS: Final = 1.0
"""The time-outs of a route that need not wait for its product's own."""


class Speaks(StrEnum):
    """What a gateway speaks to an upstream."""

    HTTP = "HTTP/1.1"
    TLS = "HTTPS"
    H2C = "h2c"


class Source(StrEnum):
    """Which upstream a route leads to; the first ones are modes of the sample of that name."""

    HEALTHY = "none"
    REFUSE = "refuse"
    RESET = "reset-before-headers"
    EARLY_CLOSE = "early-close"
    RESET_IN_BODY = "reset-in-body"
    MALFORMED = "malformed"
    MALFORMED_STATUS = "malformed-status"
    OVERSIZED_HEADER = "oversized-header"
    HANG = "hang"
    ERROR = "error"
    CUT_BODY = "cut-body"
    """Closes in an orderly way in the middle of a body."""
    RACE = "race"
    """Answers the first request of a connection, and closes when it gets the second."""
    H2_ONLY = "h2-only"
    """Speaks HTTP/2 in clear and nothing else."""
    TLS_GOOD = "tls-good"
    TLS_UNTRUSTED = "tls-untrusted"
    TLS_EXPIRED = "tls-expired"
    TLS_NAME = "tls-name"
    """A certificate for another name."""
    TLS_ALERT = "tls-alert"
    """Refuses every handshake."""
    DROPS = "drops"
    """Packets to it vanish."""
    UNKNOWN_NAME = "unknown-name"
    """A name that does not exist."""
    SILENT_DNS = "silent-dns"
    """A name whose server does not answer."""
    NOBODY = "nobody"
    """An upstream list that is empty."""


@dataclass(frozen=True, slots=True)
class Case:
    """One failure.

    Attributes:
        name: What it is called in results.
        title: For people.
        cause: Ours; None where nothing fails.
        source: The upstream.
        speaks: What the gateway is told to speak.
        verifies: It checks the upstream's certificate against our authority.
        quick: Its time-outs are `QUICK_SECONDS`; else its product's own.
        kept: It is told to keep upstream connections, where it does not of itself.
        method: Of the request.
        typical: What the profiles say of the cause is about this failure.
        paired: Also measured with a healthy endpoint beside it.
    """

    name: str
    title: str
    cause: Cause | None
    source: Source
    speaks: Speaks = Speaks.HTTP
    verifies: bool = False
    quick: bool = False
    kept: bool = False
    method: str = "GET"
    typical: bool = False
    paired: bool = False

    @property
    def waits(self) -> bool:
        """Whether a request may take as long as a product's own time-outs."""
        silent = {Source.DROPS, Source.HANG, Source.SILENT_DNS}
        return self.source in silent and not self.quick


@dataclass(frozen=True, slots=True)
class Route:
    """One host of the gateway and where it leads.

    Attributes:
        host: The Host header that selects it.
        case: How the upstream is spoken to.
        addresses: `address:port` of each endpoint; none for an empty list.
        name: A DNS name to resolve instead of the addresses.
    """

    host: str
    case: Case
    addresses: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a configuration is made from.

    Attributes:
        folder: Where it may write.
        port: Of the loopback address, for requests.
        admin_port: For products that need one.
        routes: In no order.
        resolver: `address:port` of the DNS server.
        authority: Certificate that upstream certificates are checked against.
    """

    folder: Path
    port: int
    admin_port: int
    routes: tuple[Route, ...]
    resolver: str
    authority: Path


class Shape(StrEnum):
    """What a client got."""

    WHOLE = "whole"
    CUT = "cut"
    """A status, and less of the body than was announced."""
    CLOSED = "closed"
    """The connection ended without a status."""
    GARBAGE = "garbage"
    """Bytes that are no HTTP response."""
    SILENT = "silent"
    """Nothing, as long as we waited."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One request as its client saw it.

    Attributes:
        status: 0 where there was none.
        shape: What came.
        seconds: From the request to its end.
        sent: Requests on its connection, this one included.
    """

    status: int
    shape: Shape
    seconds: float
    sent: int = 1

    @property
    def failed(self) -> bool:
        """Whether a user saw an error."""
        return self.shape is not Shape.WHOLE or self.status >= 500

    @property
    def text(self) -> str:
        """`502`, `200 cut short`, `closed`."""
        words = {Shape.WHOLE: "", Shape.CUT: "cut short"}.get(self.shape, self.shape.value)
        return f"{self.status or ''} {words}".strip()


@dataclass(frozen=True, slots=True)
class Beside:
    """The same failure at one of two endpoints.

    Attributes:
        requests: Sent with each method, one after another.
        get_failed: GETs that failed.
        post_failed: POSTs that failed.
    """

    requests: int
    get_failed: int
    post_failed: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One failure at one gateway.

    Attributes:
        gateway: Its name.
        case: The failure's name.
        observations: One for each repeat.
        markers: The gateway's own words for it, the most frequent first.
        attempts: Requests that reached the upstream per request of a client; None where it cannot
            count them.
        beside: None where it was not measured.
        unsupported: Why the gateway cannot be brought into this situation; then nothing else is given.
    """

    gateway: str
    case: str
    observations: tuple[Observation, ...] = ()
    markers: tuple[str, ...] = ()
    attempts: float | None = None
    beside: Beside | None = None
    unsupported: str = ""

    @property
    def outcomes(self) -> Mapping[str, int]:
        """Observations by their text, the most frequent first."""
        return dict(Counter(o.text for o in self.observations).most_common())

    @property
    def status(self) -> int:
        """What most clients saw as a whole answer; 0 where they saw none."""
        whole = [o.status if o.shape is Shape.WHOLE else 0 for o in self.observations]
        return Counter(whole).most_common(1)[0][0] if whole else 0

    @property
    def seconds(self) -> float:
        """The median of the requests' durations."""
        times = sorted(o.seconds for o in self.observations)
        return times[len(times) // 2] if times else 0.0


@dataclass(frozen=True, slots=True)
class Results:
    """A whole run.

    Attributes:
        versions: Of each gateway, in its own words.
        repeats: Of each case.
        cells: By gateway, then in the order of the cases.
    """

    versions: Mapping[str, str]
    repeats: int
    cells: Sequence[Cell] = field(default_factory=tuple)
