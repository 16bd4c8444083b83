"""An open-loop HTTP/1.1 load generator: `python -m upstream_guard.lab.load`.

Open loop: the clock alone fixes when a request is sent. A stalled gateway therefore meets the same
load as a healthy one, and what its users would have suffered is counted, where a closed loop would
politely wait ("coordinated omission"). How late the generator itself was is part of each record.

Cheap, because it shares two cores with a whole cluster: uvloop, one Protocol per connection,
httptools, and one sweep for all time-outs instead of a timer each.
"""

import asyncio
import errno
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast
from urllib.parse import urlsplit

import click
import httptools
import uvloop

from upstream_guard.lab.demo import tally
from upstream_guard.lab.demo.tally import Record

SWEEP_SECONDS = 0.05
"""How often time-outs are looked for, and so how exact they are."""
FLUSH_SECONDS = 0.25
"""How often results reach the file, where the demo's progress bar reads them."""
MIN_TIMER = 0.001
"""uvloop's timers count in milliseconds; a shorter one would spin."""

_ERRNO_OUTCOMES = {
    errno.ECONNREFUSED: tally.REFUSED,
    errno.ECONNRESET: tally.RESET,
    errno.EPIPE: tally.RESET,
    errno.ETIMEDOUT: tally.TIMEOUT,
    errno.EHOSTUNREACH: tally.UNREACHABLE,
    errno.ENETUNREACH: tally.UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where the requests go. The name was resolved once: DNS is not what is measured."""

    address: str
    port: int
    request: bytes

    @classmethod
    def parse(cls, url: str, host: str = "", *, keep_alive: bool = False) -> "Target":
        """Resolve `url` and write its request down.

        Args:
            url: `http://name-or-address[:port][/path]`.
            host: the Host header, where it is not the URL's own.
            keep_alive: ask for the connection to be kept.

        Raises:
            ValueError: not an http URL, or its name does not resolve.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// URL")
        port = parts.port or 80
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise ValueError(f"{parts.hostname!r} does not resolve: {error.strerror}") from error
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = (
            f"GET {path} HTTP/1.1",
            f"Host: {host or parts.netloc}",
            "User-Agent: upstream-guard-load",
            f"Connection: {'keep-alive' if keep_alive else 'close'}",
        )
        return cls(str(found[0][4][0]), port, ("\r\n".join(head) + "\r\n\r\n").encode())


class _Flight:
    """One request under way, from its send time to its outcome."""

    __slots__ = ("connection", "done", "late", "sent", "task")

    def __init__(self, sent: float, late: float) -> None:
        self.sent = sent
        self.late = late
        self.done = False
        self.task: asyncio.Task[None] | None = None
        self.connection: _Connection | None = None


class _Connection(asyncio.Protocol):
    """One TCP connection and the response that is being read from it."""

    __slots__ = ("bounded", "flight", "headed", "load", "parser", "transport")

    def __init__(self, load: "LoadGenerator", flight: _Flight) -> None:
        self.load = load
        self.flight: _Flight | None = flight
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.headed = False
        self.bounded = False

    def begin(self, flight: _Flight) -> None:
        """Send the request of `flight` on this open connection."""
        self.flight = flight
        flight.connection = self
        self.headed = self.bounded = False
        if self.transport is not None:
            self.transport.write(self.load.target.request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.flight is None or self.flight.done:
            self.transport.abort()
        else:
            self.begin(self.flight)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._end(tally.MALFORMED)

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self.bounded = True

    def on_headers_complete(self) -> None:
        self.headed = self.parser.get_status_code() >= 200

    def on_message_complete(self) -> None:
        if self.headed:  # a 100 Continue is a message too, but not the answer
            self._end(str(self.parser.get_status_code()), reuse=self.parser.should_keep_alive())

    def connection_lost(self, exc: Exception | None) -> None:
        if self.headed and not self.bounded and exc is None:
            self._end(str(self.parser.get_status_code()))  # HTTP/1.0: the end is the end
        elif self.headed:
            self._end(tally.TRUNCATED)
        else:
            self._end(tally.RESET if exc is not None else tally.EARLY_CLOSE)
        self.load.forget(self)

    def _end(self, outcome: str, *, reuse: bool = False) -> None:
        flight, self.flight = self.flight, None
        if flight is None:
            return
        self.load.finish(flight, outcome)
        if reuse and self.load.keep_alive:
            self.load.keep(self)
        elif self.transport is not None:
            self.transport.close()


class LoadGenerator:
    """Sends requests at a fixed rate until told to stop, and reports each one's fate.

    Args:
        target: where to.
        rate: requests a second, > 0.
        sink: called with each record as it is complete, in order of completion.
        keep_alive: reuse connections that the gateway keeps open; otherwise a new one each.
        timeout: seconds from send to the whole answer.
        clock: a monotonic clock in seconds.
        epoch: the Unix time at which `clock` read 0, for the records.
    """

    def __init__(
        self,
        target: Target,
        *,
        rate: float,
        sink: Callable[[Record], None],
        keep_alive: bool = False,
        timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        epoch: float | None = None,
    ) -> None:
        self.target = target
        self.keep_alive = keep_alive
        self._rate = rate
        self._sink = sink
        self._timeout = timeout
        self._clock = clock
        self._epoch = time.time() - clock() if epoch is None else epoch
        self._flights: deque[_Flight] = deque()
        self._idle: list[_Connection] = []

    async def run(self, stop: asyncio.Event, duration: float | None = None) -> None:
        """Send until `stop` is set or `duration` seconds are over, then wait for the answers.

        Returns within the time-out after the last send.
        """
        sweeper = asyncio.create_task(self._sweep_forever())
        try:
            await self._send_on_schedule(stop, duration)
            sweeper.cancel()
            while self._flights:
                self._sweep(self._clock())
                await asyncio.sleep(SWEEP_SECONDS)
        finally:
            sweeper.cancel()
            self._abandon()

    async def _send_on_schedule(self, stop: asyncio.Event, duration: float | None) -> None:
        start = self._clock()
        index = 0
        while not stop.is_set():
            now = self._clock()
            while start + index / self._rate <= now:
                if duration is not None and index >= duration * self._rate:
                    return
                self._send(start + index / self._rate)
                index += 1
            await asyncio.sleep(max(MIN_TIMER, start + index / self._rate - now))

    def _send(self, scheduled: float) -> None:
        now = self._clock()
        flight = _Flight(now, now - scheduled)
        self._flights.append(flight)
        if self._idle:
            self._idle.pop().begin(flight)
        else:
            flight.task = asyncio.get_running_loop().create_task(self._open(flight))

    async def _open(self, flight: _Flight) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(
                lambda: _Connection(self, flight), self.target.address, self.target.port
            )
        except OSError as error:
            self.finish(flight, _ERRNO_OUTCOMES.get(error.errno or 0, tally.CLIENT_ERROR))

    def finish(self, flight: _Flight, outcome: str) -> None:
        """Record `flight`'s outcome; only the first one counts."""
        if flight.done:
            return
        flight.done = True
        epoch = self._epoch
        self._sink(Record(flight.sent + epoch, self._clock() + epoch, flight.late, outcome))

    def keep(self, connection: _Connection) -> None:
        """Take back a connection that may carry another request."""
        self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """A connection is gone: never send on it again."""
        with suppress(ValueError):
            self._idle.remove(connection)

    async def _sweep_forever(self) -> None:
        while True:
            self._sweep(self._clock())
            await asyncio.sleep(SWEEP_SECONDS)

    def _sweep(self, now: float) -> None:
        """Drop what is done and time out what is due; flights stand in order of sending."""
        pending: list[_Flight] = []
        while self._flights and (self._flights[0].done or self._due(self._flights[0], now)):
            flight = self._flights.popleft()
            if not flight.done:
                pending.append(flight)
        for flight in pending:
            self._expire(flight)

    def _due(self, flight: _Flight, now: float) -> bool:
        return now - flight.sent >= self._timeout

    def _expire(self, flight: _Flight) -> None:
        self.finish(flight, tally.TIMEOUT)
        if flight.task is not None:
            flight.task.cancel()
        if flight.connection is not None and flight.connection.transport is not None:
            flight.connection.transport.abort()

    def _abandon(self) -> None:
        for flight in self._flights:
            self._expire(flight)
        for connection in self._idle:
            if connection.transport is not None:
                connection.transport.close()


class RecordFile:
    """Collects records and writes them in batches, so that a reader can follow along."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[str] = []

    def add(self, record: Record) -> None:
        """Keep `record` for the next flush."""
        self._lines.append(tally.encode(record) + "\n")

    def flush(self) -> None:
        """Write what was collected."""
        self._stream.writelines(self._lines)
        self._stream.flush()
        self._lines.clear()

    async def flush_forever(self) -> None:
        """Flush four times a second."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.flush()


async def _drive(
    target: Target, *, rate: float, duration: float | None, timeout: float, keep: bool, out: Path
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with out.open("w", encoding="utf-8") as stream:
        file = RecordFile(stream)
        flusher = asyncio.create_task(file.flush_forever())
        generator = LoadGenerator(
            target, rate=rate, sink=file.add, keep_alive=keep, timeout=timeout
        )
        await generator.run(stop, duration)
        flusher.cancel()
        file.flush()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", required=True, help="Where to, http:// only.")
@click.option("--host", default="", help="Host header, if not the URL's.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), default=200.0, show_default=True,
    help="Requests a second, sent by the clock whatever the answers do.",
)  # fmt: skip
@click.option("--duration", type=click.FloatRange(0), help="Seconds; without it until SIGINT.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True,
    help="Seconds to the whole answer.",
)  # fmt: skip
@click.option("--keep-alive", is_flag=True, help="Reuse connections instead of one per request.")
@click.option(
    "--out", type=click.Path(dir_okay=False, writable=True, path_type=Path), required=True,
    help="Results, a JSON line per request: [sent, done, late, outcome].",
)  # fmt: skip
def main(
    *,
    url: str,
    host: str,
    rate: float,
    duration: float | None,
    timeout: float,
    keep_alive: bool,
    out: Path,
) -> None:
    """Send requests at a fixed rate and write down what became of each."""
    try:
        target = Target.parse(url, host, keep_alive=keep_alive)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    uvloop.run(
        _drive(target, rate=rate, duration=duration, timeout=timeout, keep=keep_alive, out=out)
    )


if __name__ == "__main__":
    main()
