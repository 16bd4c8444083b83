"""One client of a gateway: what became of a request, down to a connection that just ends."""

import socket
import time
from contextlib import closing
from typing import Final

import httptools

from upstream_guard.lab.conformance.model import Observation, Shape
from upstream_guard.lab.ports import LOOPBACK

CHUNK: Final = 65536


def ask(
    port: int, host: str, *, method: str = "GET", requests: int = 1, timeout: float = 10.0
) -> Observation:
    """Send up to so many requests on one connection; the first that is no whole 200, or the last.

    Args:
        port: Of the loopback address.
        host: Host header.
        method: With a body of one byte where it is not GET.
        requests: At most so many, one after another.
        timeout: Seconds without a byte after which a request is given up.
    """
    try:
        connection = socket.create_connection((LOOPBACK, port), timeout=timeout)
    except OSError:  # nobody is there, or not yet
        return Observation(0, Shape.CLOSED, 0.0)
    with closing(connection):
        for sent in range(1, requests + 1):
            started = time.monotonic()
            status, shape = _exchange(connection, host, method)
            seen = Observation(status, shape, time.monotonic() - started, sent)
            if status != 200 or shape is not Shape.WHOLE:
                break
    return seen


def _exchange(connection: socket.socket, host: str, method: str) -> tuple[int, Shape]:
    answer = _Answer()
    body = "x" if method != "GET" else ""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    try:
        connection.sendall(f"{method} / HTTP/1.1\r\nHost: {host}\r\n{length}\r\n{body}".encode())
        while not answer.whole:
            data = connection.recv(CHUNK)
            if not data:
                return answer.status, answer.at_end
            answer.parser.feed_data(data)
    except ConnectionError:
        return answer.status, Shape.CUT if answer.status else Shape.CLOSED
    except TimeoutError:
        return answer.status, Shape.SILENT
    except httptools.HttpParserError:
        return 0, Shape.GARBAGE
    return answer.status, Shape.WHOLE


class _Answer:
    """A response as it comes in; called back by the parser."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.whole = False
        self._bounded = False

    @property
    def at_end(self) -> Shape:
        """What it is when the connection ends in an orderly way now."""
        if not self.status:
            return Shape.CLOSED
        # Without a length and without chunks the end of the connection is the end of the body.
        return Shape.CUT if self._bounded else Shape.WHOLE

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._bounded = True

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_message_complete(self) -> None:
        self.whole = self.status >= 200  # a 100 Continue is a message too, but not the answer
