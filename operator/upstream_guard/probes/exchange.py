"""What a prober is: a conversation over one connection, without any I/O of its own.

An exchange is told what happened on its connection and answers with a verdict once it has one. Because it
never touches a socket, every prober runs on any event loop, TLS is one exchange around another, and tests feed
bytes straight in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Protocol

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ProbeSpec

DETAIL_LIMIT = 200
"""Longest `Verdict.detail`, in characters."""

Send = Callable[[bytes], None]
"""Queues bytes for the peer; never blocks."""


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """One endpoint and how it is probed.

    Raises:
        ValueError: `address` is no IP address (a name would be resolved again at every probe), or the port, interval or
            time-out is out of range.
    """

    address: str
    spec: ProbeSpec

    def __post_init__(self) -> None:
        ip_address(self.address)
        if not 0 < self.spec.port < 65536:
            raise ValueError(f"port {self.spec.port} is not in 1-65535")
        if not (self.spec.interval > 0 and self.spec.timeout > 0):
            raise ValueError("probe interval and timeout must be greater than 0 seconds")

    @property
    def authority(self) -> str:
        """`address:port`, with IPv6 in brackets, as a Host header has it."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.spec.port}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one exchange found out. `cause` is None exactly where `ok` is True."""

    ok: bool
    cause: Cause | None = None
    detail: str = ""
    status: int = 0


class Exchange(Protocol):
    """One conversation. After the first verdict no method is called again."""

    def start(self, send: Send, /) -> Verdict | None:
        """The connection stands; say what is to be said first."""

    def receive(self, data: bytes, /) -> Verdict | None:
        """Bytes came (never empty)."""

    def closed(self) -> Verdict:
        """The peer closed in an orderly way, and no verdict had been reached."""

    def timed_out(self) -> Verdict:
        """The time is up with the connection standing, and no verdict had been reached."""

    def reset(self, reason: str, /) -> Verdict:
        """The connection was torn down; `reason` is the system's text for it."""


Prepare = Callable[[ProbeTarget], Callable[[], Exchange]]
"""A prober: does the work that is the same for every probe of a target once, and returns the maker of exchanges.

Raises ValueError for a spec that cannot be probed.
"""


@lru_cache(maxsize=1024)
def success(status: int = 0) -> Verdict:
    """The verdict of a good probe; shared, as it is by far the most frequent one."""
    return Verdict(ok=True, status=status)


def failure(cause: Cause, detail: str, status: int = 0) -> Verdict:
    """A bad probe's verdict, its detail made fit for people: one line, bounded."""
    line = "".join(char if char.isprintable() else "?" for char in detail[: DETAIL_LIMIT + 1])
    if len(line) > DETAIL_LIMIT:
        line = line[: DETAIL_LIMIT - 1] + "…"
    return Verdict(ok=False, cause=cause, detail=line, status=status)
