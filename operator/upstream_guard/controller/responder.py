"""The two endpoints of canaries: tiny HTTP servers that say which of the two they are."""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, cast

import httptools

from upstream_guard.core.canary import Arrival, Endpoint
from upstream_guard.core.names import CANARY_ENDPOINT_HEADER, CANARY_TOKEN_HEADER

MAX_CONNECTIONS: Final = 512
"""Of one endpoint. The operator's own requests are far fewer; strangers shall not cost more."""
MAX_REQUEST_BYTES: Final = 32_768
IDLE_SECONDS: Final = 90.0

OnArrival = Callable[[Arrival], None]


class Responders:
    """Both endpoints. Whoever asks is answered; only requests with the token are reported."""

    def __init__(self, token: str, on_arrival: OnArrival) -> None:
        """Wire it.

        Args:
            token: What our own requests carry.
            on_arrival: Called, in the event loop, for each request of ours.
        """
        self._token = token.encode()
        self._on_arrival = on_arrival
        self._servers: list[asyncio.Server] = []
        self.ports: Mapping[Endpoint, int] = MappingProxyType({})
        self.keeping: set[Endpoint] = set()
        """Endpoints that leave connections open after a response."""
        self.connections: dict[Endpoint, set[Connection]] = {e: set() for e in Endpoint}

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Args:
            host: Address; empty means all.
            port: Of endpoint `a`, and the next one of `b`; 0 picks two.

        Raises:
            OSError: A port is taken.
        """
        loop = asyncio.get_running_loop()
        ports = {}
        for number, endpoint in enumerate(Endpoint):
            wanted = port + number if port else 0
            server = await loop.create_server(
                lambda e=endpoint: Connection(self, e),
                host or None,
                wanted,
            )
            self._servers.append(server)
            ports[endpoint] = int(server.sockets[0].getsockname()[1])
        self.ports = MappingProxyType(ports)

    async def stop(self) -> None:
        """Listen no more and end all connections."""
        for server in self._servers:
            server.close()
        for endpoint in Endpoint:
            self.end_connections(endpoint)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    def end_connections(self, endpoint: Endpoint) -> None:
        """End an endpoint's connections, and keep none from now on, as an app does that stops.

        A connection in the middle of a request ends after its response.
        """
        self.keeping.discard(endpoint)
        for connection in list(self.connections[endpoint]):
            connection.end()

    def is_ours(self, token: bytes) -> bool:
        """Whether a request is the operator's own."""
        return token == self._token

    def arrived(self, endpoint: Endpoint, *, reused: bool) -> None:
        """A request of ours has arrived, whole."""
        self._on_arrival(Arrival(time.monotonic(), endpoint, reused))


class Connection(asyncio.Protocol):
    """One connection to an endpoint."""

    def __init__(self, responders: Responders, endpoint: Endpoint) -> None:
        self._all = responders
        self._endpoint = endpoint
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._token = b""
        self._bytes = 0
        self._answered = 0
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = cast("asyncio.Transport", transport)
        known = self._all.connections[self._endpoint]
        if len(known) >= MAX_CONNECTIONS:
            self._transport.abort()
            return
        known.add(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        del exc
        self._all.connections[self._endpoint].discard(self)
        if self._idle is not None:
            self._idle.cancel()

    def data_received(self, data: bytes) -> None:
        """A part of a request, or several."""
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.end()
            return
        if self._bytes > MAX_REQUEST_BYTES and self._transport is not None:
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser: one header."""
        if name.lower() == CANARY_TOKEN_HEADER.lower().encode():
            self._token = value

    def on_message_complete(self) -> None:
        """Parser: a whole request."""
        if self._all.is_ours(self._token):
            self._all.arrived(self._endpoint, reused=self._answered > 0)
        self._token, self._bytes = b"", 0
        self._answered += 1
        keep = self._endpoint in self._all.keeping and self._parser.should_keep_alive()
        if self._transport is not None:
            self._transport.write(_response(self._endpoint, keep=keep))
        if keep:
            self._wait()
        else:
            self.end()

    def end(self) -> None:
        """Close after what is written."""
        if self._transport is not None:
            self._transport.close()

    def _wait(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.end)


def _response(endpoint: Endpoint, *, keep: bool) -> bytes:
    body = f"{endpoint.value}\n"
    return (
        "HTTP/1.1 200 OK\r\n"
        "Content-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        f"{CANARY_ENDPOINT_HEADER}: {endpoint.value}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n"
        f"\r\n{body}"
    ).encode()
