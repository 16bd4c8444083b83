"""One request through a gateway, as a user makes it, and its connection, kept for a second one.

Unlike the probes of endpoints, of which there are thousands a second, these speak TLS with names and keep
connections, at some hundred a second for the whole operator: asyncio's own transports do that, and what
they cost was measured (docs/decisions/0019-route-probes.md).
"""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, cast
from urllib.parse import quote

import httptools

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import RouteKey, RouteSample
from upstream_guard.core.names import PROBE_HEADER
from upstream_guard.core.route_pace import KEPT_SECONDS
from upstream_guard.core.routes import Ask
from upstream_guard.probes.exchange import failure
from upstream_guard.probes.failures import connect_failure, reset_reason
from upstream_guard.probes.http import BODY_LIMIT, HEAD_LIMIT, USER_AGENT
from upstream_guard.probes.tls import shared_context

TIMEOUT: Final = 2.0
"""Seconds from the first packet to the whole answer. A request that hangs longer is a fact by itself."""
NAME_SECONDS: Final = 30.0
"""How long a gateway's resolved name is believed: load balancers change theirs within a minute."""
_LATE: Final = 0.02
"""Seconds that this process may be late before a request gets them on top of its time."""
_KEPT_LIMIT: Final = KEPT_SECONDS + 0.5
_MARKER_BYTES: Final = 1024
"""Of a failed answer's body; gateways say what is wrong at its beginning."""
_MARKER_HEADERS: Final = (b"proxy-status", b"x-envoy-response-flags")
_URL_SAFE: Final = "/%:?#[]@!$&'()*+,;=~-._"
_TAGS: Final = re.compile(r"(?is)<(style|script|head)\b.*?</\1\s*>|<[^>]*>")
_SLOW: Final = frozenset({Cause.CONNECT_TIMEOUT, Cause.READ_TIMEOUT})


@dataclass(slots=True)
class _Answer:
    """What came back, or how that failed."""

    status: int = 0
    cause: Cause | None = None
    detail: str = ""
    server: str = ""
    marker: str = ""
    body: bytes = b""
    kept: bool = False
    """Another request may go over the same connection."""


@dataclass(slots=True)
class _Step:
    """How far a request has come, for whoever must say where it hangs."""

    link: "_Link | None" = None
    reused: bool = False
    at: str = "connect"


class _Link(asyncio.Protocol):
    """One connection to a gateway, and the answer that is being read from it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self._waiter: asyncio.Future[_Answer] | None = None
        self._answer = _Answer()
        self._parser = httptools.HttpResponseParser(self)
        self._seen = 0
        self._framed = False
        self._head_only = False

    @property
    def usable(self) -> bool:
        """It stands, and was not idle for so long that the gateway may be closing it just now."""
        fresh = time.monotonic() - self.idle_since <= _KEPT_LIMIT
        return self.transport is not None and not self.transport.is_closing() and fresh

    @property
    def unfinished(self) -> _Answer:
        """What has come so far."""
        return self._answer

    async def exchange(self, request: bytes, *, head_only: bool) -> _Answer:
        """Send a request and return what became of it; cancelled, the connection is of no more use."""
        self._answer = _Answer()
        self._parser = httptools.HttpResponseParser(self)
        self._seen = 0
        self._framed = False
        self._head_only = head_only
        self._waiter = asyncio.get_running_loop().create_future()
        if self.transport is None or self.transport.is_closing():
            return _Answer(cause=Cause.EARLY_CLOSE, detail="closed without a response")
        self.transport.write(request)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def abort(self) -> None:
        """Tear it down."""
        if self.transport is not None:
            self.transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.abort()  # nothing was asked
            return
        self._seen += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end()
        except httptools.HttpParserError as error:
            self._break(Cause.MALFORMED, f"malformed response: {error}")
        if not self._answer.status and self._seen > HEAD_LIMIT:
            self._break(Cause.OVERSIZED_HEADER, f"response head over {HEAD_LIMIT} bytes")
        elif self._seen > HEAD_LIMIT + BODY_LIMIT:
            self._end()  # good without its rest

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._answer.status and not self._framed and exc is None:
            self._end()  # HTTP/1.0: the end of the connection is the end of the body
        elif exc is None:
            self._break(Cause.EARLY_CLOSE, f"closed {self._where()}")
        else:
            self._break(Cause.RESET, f"{reset_reason(exc)} {self._where()}")

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in {b"content-length", b"transfer-encoding"}:
            self._framed = True
        elif name == b"server":
            self._answer.server = _line(value)
        elif name in _MARKER_HEADERS and not self._answer.marker:
            self._answer.marker = f"{name.decode()}: {_line(value)}"

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 or status == 101:
            self._answer.status = status
            if self._head_only:
                self._answer.kept = self._parser.should_keep_alive()
                self._end()

    def on_body(self, body: bytes) -> None:
        missing = _MARKER_BYTES - len(self._answer.body)
        if missing > 0:
            self._answer.body += body[:missing]

    def on_message_complete(self) -> None:
        if self._answer.status:  # an interim response (1xx) is a message too
            self._answer.kept = self._parser.should_keep_alive()
            self._end()

    def _where(self) -> str:
        if self._answer.status:
            return "in the response body"
        return "in the response head" if self._seen else "without a response"

    def _break(self, cause: Cause, detail: str) -> None:
        self._answer.cause, self._answer.detail, self._answer.kept = cause, detail, False
        self._end()

    def _end(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._answer)


@dataclass(slots=True)
class _Name:
    """A resolved name."""

    addresses: tuple[str, ...] = ()
    expires: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Names:
    """Gateways' names, resolved by the system; the last known addresses where that fails."""

    def __init__(self) -> None:
        self._known: dict[str, _Name] = {}

    async def resolve(self, name: str) -> tuple[str, ...]:
        """IP addresses of a name, or the address that it is; empty where it never resolved."""
        if is_address(name):
            return (name,)
        known = self._known.setdefault(name, _Name())
        async with known.lock:
            if time.monotonic() >= known.expires:
                found = await _look_up(name)
                # What does not resolve is not asked for again with every request.
                known.expires = time.monotonic() + (NAME_SECONDS if found else 1.0)
                known.addresses = found or known.addresses
        return known.addresses

    def keep(self, names: frozenset[str]) -> None:
        """Forget all other names."""
        self._known = {name: known for name, known in self._known.items() if name in names}


class RouteProber:
    """Makes requests through gateways."""

    def __init__(
        self,
        *,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.time,
        lag: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Make a prober without any connection.

        Args:
            timeout: Seconds until the whole answer.
            clock: Unix seconds, for the samples.
            lag: Seconds that the event loop has lost since some beginning.
        """
        self.names = Names()
        self._timeout = timeout
        self._clock = clock
        self._lag = lag
        self._idle: dict[tuple[RouteKey, str], _Link] = {}

    async def ask(self, ask: Ask, turn: int, *, reuse: bool) -> RouteSample | None:
        """Make one request.

        Args:
            ask: Which.
            turn: The how manieth it is; addresses are asked in turn, two requests each.
            reuse: Take the last request's connection, where it is still open.

        Returns:
            What came of it; None where nothing was learned about the gateway, because this process ran
            out of something, or was itself too late.
        """
        sent, lag, step = self._clock(), self._lag(), _Step()
        try:
            async with self._patience():
                answer = await self._answer(ask, turn, step, reuse=reuse)
        except TimeoutError:
            answer = _timed_out(step)
        if answer is None:
            return None
        if answer.cause in _SLOW and self._lag() - lag >= self._timeout:
            return None
        return _sample(ask.key, answer, step, sent, self._clock())

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """Raises TimeoutError once the gateway has had its time: what this process was late meanwhile is given on top.

        At most as long again: then nothing is known.
        """
        loop, lag, given = asyncio.get_running_loop(), self._lag(), 0.0
        due = loop.time() + self._timeout
        watch: asyncio.TimerHandle

        def look() -> None:
            nonlocal given, watch
            late = self._lag() - lag + loop.time() - (due + given)
            if min(late, self._timeout) > given + _LATE:
                given = min(late, self._timeout)
                watch = loop.call_at(due + given, look)
            else:
                limit.reschedule(loop.time())

        async with asyncio.timeout(None) as limit:
            watch = loop.call_at(due, look)
            try:
                yield
            finally:
                watch.cancel()

    def drop(self, key: RouteKey) -> None:
        """Close what was kept for a way."""
        for known in [known for known in self._idle if known[0] == key]:
            self._idle.pop(known).abort()

    def close(self) -> None:
        """Close everything that was kept."""
        for link in self._idle.values():
            link.abort()
        self._idle.clear()

    async def _answer(self, ask: Ask, turn: int, step: _Step, *, reuse: bool) -> _Answer | None:
        place = ask.addresses[turn // 2 % len(ask.addresses)]
        found = await self.names.resolve(place)
        if not found:
            return _Answer(cause=Cause.DNS, detail=f"{place} does not resolve")
        address = found[turn // 2 // len(ask.addresses) % len(found)]
        before = self._idle.pop((ask.key, address), None)
        if before is not None and not (reuse and before.usable):
            before.abort()
            before = None
        step.reused = before is not None
        try:
            link = before or await self._connect(ask, address, step)
        except (OSError, ValueError) as error:
            return _unconnected(error, step)
        step.link, step.at = link, "request"
        return await self._exchange(ask, address, link, last=step.reused)

    async def _connect(self, ask: Ask, address: str, step: _Step) -> _Link:
        """A connection that stands, TLS included.

        Raises:
            OSError: It could not be made.
            ValueError: The host cannot be a TLS server name.
        """
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, (address, ask.port))
            if not ask.key.tls:
                _, link = await loop.create_connection(_Link, sock=sock)
                return link
            step.at = "tls"
            _, link = await loop.create_connection(
                _Link, sock=sock, ssl=shared_context(), server_hostname=ask.key.host or address
            )
        except BaseException:
            sock.close()
            raise
        return link

    async def _exchange(self, ask: Ask, address: str, link: _Link, *, last: bool) -> _Answer:
        try:
            answer = await link.exchange(
                request_of(ask, address, keep=not last), head_only=ask.method == "HEAD"
            )
        except asyncio.CancelledError:
            link.abort()
            raise
        if answer.kept and not last and (ask.key, address) not in self._idle:
            link.idle_since = time.monotonic()
            self._idle[ask.key, address] = link
        elif link.transport is not None:
            link.transport.close()
        return answer


def request_of(ask: Ask, address: str, *, keep: bool) -> bytes:
    """The request's bytes; a host that the way leaves open is the address."""
    host = ask.key.host or (f"[{address}]" if ":" in address else address)
    lines = (
        f"{ask.method} {quote(ask.key.path, safe=_URL_SAFE)} HTTP/1.1",
        f"Host: {host}",
        f"User-Agent: {USER_AGENT}",
        "Accept: */*",
        f"{PROBE_HEADER}: 1",
        f"Connection: {'keep-alive' if keep else 'close'}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def marker_of(status: int, header: str, body: bytes) -> str:
    """The gateway's own words for a failure: its header, else its page's text; empty below 500."""
    if status < 500:
        return ""
    text = header or _TAGS.sub(" ", body.decode("utf-8", "replace"))
    return " ".join(text.split())


def is_address(text: str) -> bool:
    """Whether it is an IP address rather than a name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


async def _look_up(name: str) -> tuple[str, ...]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (
        OSError,
        UnicodeError,
    ):  # a label of more than 63 characters is no error of the system's
        return ()
    return tuple(dict.fromkeys(str(info[4][0]) for info in found))


def _sample(key: RouteKey, answer: _Answer, step: _Step, sent: float, done: float) -> RouteSample:
    words = answer.detail or marker_of(answer.status, answer.marker, answer.body)
    # Printable and bounded, as every detail is.
    detail = failure(Cause.APP_ERROR, words).detail if words else ""
    return RouteSample(
        sent=sent,
        done=done,
        key=key,
        status=answer.status,
        cause=answer.cause,
        detail=detail,
        reused=step.reused,
        server=answer.server,
    )


def _timed_out(step: _Step) -> _Answer:
    if step.at == "connect":
        return _Answer(cause=Cause.CONNECT_TIMEOUT, detail="no connection to the gateway in time")
    if step.at == "tls" or step.link is None:
        return _Answer(cause=Cause.READ_TIMEOUT, detail="TLS handshake not done in time")
    answer = step.link.unfinished
    what = "no whole response body" if answer.status else "no response"
    answer.cause, answer.detail = Cause.READ_TIMEOUT, f"{what} in time"
    return answer


def _unconnected(error: Exception, step: _Step) -> _Answer | None:
    """Why there is no connection; None where it is this process's own fault."""
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return _Answer(cause=Cause.TLS, detail=f"TLS: {reason}")
    if not isinstance(error, OSError):
        return _Answer(cause=Cause.TLS, detail=f"TLS: no server name: {error}")
    if step.at == "tls":
        reset = isinstance(error, ConnectionResetError) and error.errno is not None
        cause = Cause.RESET if reset else Cause.EARLY_CLOSE
        return _Answer(cause=cause, detail="closed during the TLS handshake")
    verdict = connect_failure(error)
    return None if verdict is None else _Answer(cause=verdict.cause, detail=verdict.detail)


def _line(value: bytes) -> str:
    return value[:256].decode("latin-1").strip()
