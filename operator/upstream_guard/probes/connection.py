"""One connection per probe, and the one place where readiness of all of them is learned.

The sockets wait in an epoll of their own, and the event loop watches only that epoll's descriptor. Measured on one
core, this takes two thirds of the CPU time of an asyncio transport and a connecting task per probe, and it costs the
same on uvloop and on asyncio's own loop (docs/decisions/probe-loop.md).
"""

import asyncio
import errno
import os
import select
import socket
import struct
from collections.abc import Callable

from upstream_guard.core.causes import Cause
from upstream_guard.probes.exchange import Exchange, ProbeTarget, Verdict, failure
from upstream_guard.probes.failures import connect_failure, reset_reason

OnEnd = Callable[["Connection", Verdict | None], None]
"""Gets the verdict, or None where the operator's own resources ran out and nothing was learned."""

_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_WRITABLE = select.EPOLLOUT
_TROUBLE = select.EPOLLERR | select.EPOLLHUP
_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_UNDER_WAY = {0, errno.EINPROGRESS}
_CHUNK = 16 * 1024
_BATCH = 256


class Poller:
    """Tells connections that their sockets are ready."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let `loop` call `poll` whenever a socket is ready."""
        self._loop = loop
        loop.add_reader(self._epoll.fileno(), self.poll)

    def close(self) -> None:
        """Leave the loop; connections that are still open are none of its business any more."""
        if self._loop is not None:
            self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def watch(self, descriptor: int, connection: "Connection") -> None:
        """Report the readiness of `descriptor` to `connection`, edge-triggered."""
        self._connections[descriptor] = connection
        self._epoll.register(descriptor, _EVENTS)

    def forget(self, descriptor: int) -> None:
        """Report no more; for a descriptor about to be closed, which takes it out of the epoll."""
        self._connections.pop(descriptor, None)

    def poll(self) -> None:
        """Report what is ready now.

        A descriptor's number may be used again as soon as it is closed, so no connection may be made in here, or
        it would get events that were meant for its predecessor.
        """
        for descriptor, events in self._epoll.poll(0, _BATCH):
            connection = self._connections.get(descriptor)
            if connection is not None:
                connection.ready(events)


def _is_established(sock: socket.socket) -> bool:
    """Whether the kernel has the connection, also where nobody has looked yet."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


class Connection:
    """One probe under way: connects, lets the exchange talk, reports one verdict, leaves nothing open.

    It has no timer of its own: whoever made it calls `time_out` when the time is up (a timer for each
    probe was measured to cost as much as a quarter of the whole probe).
    """

    __slots__ = (
        "_connected",
        "_exchange",
        "_on_end",
        "_poller",
        "_socket",
        "_unsent",
        "due",
        "key",
        "lag",
        "started",
    )

    def __init__(
        self,
        key: str,
        exchange: Exchange,
        on_end: OnEnd,
        *,
        due: float,
        started: float,
        lag: float,
    ) -> None:
        """Make a connection, still closed.

        Args:
            key: The scheduler's name for the target.
            exchange: A fresh exchange.
            on_end: Called once, unless the connection is aborted first; never from within `open`.
            due: When the probe should have started, monotonic seconds.
            started: When it did.
            lag: The loop's accumulated lag at that time, in seconds.
        """
        self.key = key
        self.due = due
        self.started = started
        self.lag = lag
        self._exchange = exchange
        self._on_end = on_end
        self._poller: Poller | None = None
        self._socket: socket.socket | None = None
        self._connected = False
        self._unsent = b""

    def open(self, target: ProbeTarget, poller: Poller) -> OSError | None:
        """Start connecting; returns what made that impossible."""
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        try:
            sock = socket.socket(family, _STREAM)
        except OSError as error:
            return error
        number = sock.connect_ex((target.address, target.spec.port))
        if number not in _UNDER_WAY:
            sock.close()
            return OSError(number, os.strerror(number))
        self._socket = sock
        self._poller = poller
        poller.watch(sock.fileno(), self)
        return None

    def ready(self, events: int) -> None:
        """The socket is ready for what `events` says."""
        sock = self._socket
        if sock is None:
            return
        if not self._connected:
            if events & _TROUBLE:
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    self._end(connect_failure(OSError(number, os.strerror(number))))
                    return
            self._connected = True
            verdict = self._exchange.start(self._send)
            if verdict is not None:
                self._end(verdict)
                return
        elif self._unsent:
            self._send(b"")
        if events != _WRITABLE:
            self._read(sock)

    def time_out(self) -> None:
        """The time is up: report what is missing, and tear the connection down."""
        if self._socket is None:
            return
        if self._connected or _is_established(self._socket):
            verdict = self._exchange.timed_out()
        else:
            verdict = failure(Cause.CONNECT_TIMEOUT, "no connection in time")
        self.abort()
        self._on_end(self, verdict)

    def abort(self) -> None:
        """Tear the connection down, report nothing."""
        if self._socket is not None and self._connected:
            # A peer that does not answer will not close either: a reset frees both sides at once.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close()

    def _read(self, sock: socket.socket) -> None:
        """Read until there is a verdict or nothing more: readiness is reported once only."""
        exchange = self._exchange
        try:
            while True:
                data = sock.recv(_CHUNK)
                verdict = exchange.receive(data) if data else exchange.closed()
                if verdict is not None:
                    self._end(verdict)
                    return
        except BlockingIOError:
            return
        except OSError as error:
            self._end(exchange.reset(reset_reason(error)))

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            return
        if self._unsent:
            data = self._unsent + data
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The peer may have answered before it closed; what there is to know comes with the next read.
            sent = len(data)
        self._unsent = data[sent:] if sent < len(data) else b""

    def _end(self, verdict: Verdict | None) -> None:
        self._close()
        self._on_end(self, verdict)

    def _close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None and self._poller is not None:
            descriptor = sock.detach()
            self._poller.forget(descriptor)
            os.close(descriptor)
            # An exchange may hold on to `_send`; a circle would have to wait for the garbage collector.
            del self._exchange
