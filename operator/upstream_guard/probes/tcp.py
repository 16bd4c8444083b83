"""TCP: an endpoint that completes the handshake serves."""

from collections.abc import Callable

from upstream_guard.core.causes import Cause
from upstream_guard.probes.exchange import (
    Exchange,
    ProbeTarget,
    Send,
    Verdict,
    failure,
    success,
)


class TcpExchange:
    """Says nothing and wants to hear nothing."""

    __slots__ = ()

    def start(self, _send: Send) -> Verdict:
        """Being connected is all that was asked."""
        return success()

    def receive(self, _data: bytes) -> Verdict:
        """See `Exchange`."""
        return success()

    def closed(self) -> Verdict:
        """See `Exchange`."""
        return success()

    def timed_out(self) -> Verdict:
        """See `Exchange`."""
        return failure(Cause.READ_TIMEOUT, "no answer within the time-out")

    def reset(self, reason: str) -> Verdict:
        """See `Exchange`."""
        return failure(Cause.RESET, reason)


_EXCHANGE = TcpExchange()


def prepare(_target: ProbeTarget) -> Callable[[], Exchange]:
    """The TCP prober; see `Prepare`."""
    return lambda: _EXCHANGE
