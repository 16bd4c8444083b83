"""Upstreams that fail in ways that the sample does not know: TLS, HTTP/2, races, silence, DNS."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from upstream_guard.lab.ports import LOOPBACK

CONNECTION_SECONDS: Final = 10.0
"""A connection that says nothing for so long is closed."""
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PART: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + bytes(65536)
_SETTINGS: Final = bytes.fromhex("000000040000000000")
_GOAWAY_PROTOCOL_ERROR: Final = bytes.fromhex("0000080700000000000000000000000001")
H2_GREETING: Final = _SETTINGS + _GOAWAY_PROTOCOL_ERROR
"""What an HTTP/2 server sends to who does not begin as HTTP/2 does (RFC 9113, 3.4 and 5.4.1)."""
HANDSHAKE_FAILURE: Final = bytes.fromhex("15030300020228")
"""A fatal TLS alert (RFC 8446, 6.2)."""
_FILLERS: Final = 3
_HEADER: Final = 12
_NAME_END_AND_TYPES: Final = 5
_NXDOMAIN: Final = bytes.fromhex("81830001000000000000")
"""Response, recursion desired and available, code 3; one question, no records."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Something that a gateway can be led to.

    Attributes:
        address: `address:port`.
        seen: Requests that reached it so far; None where it cannot count them.
    """

    address: str
    seen: Callable[[], int] | None = None


Handler = Callable[[socket.socket, Callable[[], None]], None]
"""Serves one connection; calls the second argument for each request that it gets."""


def race(connection: socket.socket, count: Callable[[], None]) -> None:
    """Answer the first request, and close as soon as the second is there."""
    if read_request(connection):
        count()
        connection.sendall(OK)
    if read_request(connection):
        count()


def cut_body(connection: socket.socket, count: Callable[[], None]) -> None:
    """Send part of a body and close."""
    if read_request(connection):
        count()
        connection.sendall(PART)


def h2_only(connection: socket.socket, count: Callable[[], None]) -> None:
    """Greet as an HTTP/2 server does, and hang up on whoever does not speak it."""
    if connection.recv(4096):
        count()
        connection.sendall(H2_GREETING)


def tls_alert(connection: socket.socket, count: Callable[[], None]) -> None:
    """Refuse the handshake."""
    if connection.recv(4096):
        count()
        connection.sendall(HANDSHAKE_FAILURE)


def over_tls(certificate: str, key: str) -> Handler:
    """Answer over TLS with this certificate (PEM files)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve(connection: socket.socket, count: Callable[[], None]) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            while read_request(wrapped):
                count()
                wrapped.sendall(OK)

    return serve


def read_request(connection: socket.socket) -> bool:
    """Read one request with its body; False where the peer closed instead."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(4096)
        if not chunk:
            return False
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    missing = _content_length(head) - len(body)
    while missing > 0:
        missing -= len(connection.recv(4096)) or missing
    return True


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


@contextmanager
def serving(handler: Handler) -> Iterator[Upstream]:
    """A TCP server on the loopback address while the context is open, a thread for each connection."""
    lock, requests = threading.Lock(), 0

    def count() -> None:
        nonlocal requests
        with lock:
            requests += 1

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(CONNECTION_SECONDS)
            with suppress(OSError):  # ssl.SSLError too: what a peer may make of a bad upstream
                handler(self.request, count)

    with socketserver.ThreadingTCPServer(
        (LOOPBACK, 0), Connection, bind_and_activate=False
    ) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.request_queue_size = 128
        server.server_bind()
        server.server_activate()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield Upstream(f"{LOOPBACK}:{server.server_address[1]}", lambda: requests)
        finally:
            server.shutdown()


@contextmanager
def dropping() -> Iterator[Upstream]:
    """An address whose SYNs vanish: a listener that never accepts and whose queue is full.

    Linux drops a SYN then; no privilege and no packet filter is needed.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for _ in range(_FILLERS):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield Upstream(f"{LOOPBACK}:{listener.getsockname()[1]}")


@contextmanager
def name_server(silent: str) -> Iterator[str]:
    """A DNS server that knows no name, as `address:port`.

    Args:
        silent: First label of the names about which it says nothing at all.
    """

    class Query(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            if silent.encode() not in data.lower():
                sock.sendto(no_such_name(data), self.client_address)

    with socketserver.ThreadingUDPServer((LOOPBACK, 0), Query) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"{LOOPBACK}:{server.server_address[1]}"
        finally:
            server.shutdown()


def no_such_name(query: bytes) -> bytes:
    """The answer NXDOMAIN to a DNS query with one question (RFC 1035, 4.1); empty to anything else."""
    end = _HEADER
    while end < len(query) and query[end]:
        end += query[end] + 1
    end += _NAME_END_AND_TYPES
    if end > len(query):
        return b""
    return query[:2] + _NXDOMAIN + query[_HEADER:end]
