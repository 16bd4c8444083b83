"""HTTP/1.1: one GET on a connection of its own, judged by its status, as the kubelet does.

Nothing is followed and nothing unbounded is read: a redirect is an answer like any other, a head may have
`HEAD_LIMIT` bytes, and of the body at most `BODY_LIMIT` bytes are waited for. The body is read at all because a
reset in the middle of it is a failure that users see and a look at the status line would miss.
"""

import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

import httptools

from upstream_guard.core.causes import Cause
from upstream_guard.probes.exchange import (
    Exchange,
    ProbeTarget,
    Send,
    Verdict,
    failure,
    success,
)

HEAD_LIMIT = 16 * 1024
"""Bytes of status line and headers; larger than what the gateways accept by default (4-16 KiB)."""

BODY_LIMIT = 64 * 1024
"""Bytes of body after which a response is good without its rest."""

USER_AGENT = "upstream-guard/0.1"

_URL_SAFE = "/%:?#[]@!$&'()*+,;=~-._"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_EXPECTED = b"HTTP/1."
_FRAMED = re.compile(rb"^(content-length|transfer-encoding)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_PLAIN_TO_TLS = (
    b"Client sent an HTTP request to an HTTPS server",  # Go net/http
    b"The plain HTTP request was sent to HTTPS port",  # nginx
    b"speaking plain HTTP to an SSL-enabled server port",  # Apache httpd
)


class HttpExchange:
    """One request and its response. Also the callback object of its own parser.

    The parser calls only what every response needs: a callback for each header and piece of body was a tenth of a
    probe's cost, and what they would tell is found in the raw bytes on the rare paths that ask.
    """

    __slots__ = ("_complete", "_high", "_low", "_parser", "_raw", "_request", "_seen", "_status")

    def __init__(self, request: bytes, low: int, high: int) -> None:
        """Make an exchange.

        Args:
            request: The whole request as it goes over the wire.
            low: Lowest status that is a success.
            high: Highest status that is a success.
        """
        self._request = request
        self._low = low
        self._high = high
        self._parser = httptools.HttpResponseParser(self)
        self._raw = b""
        self._seen = 0
        self._status = 0
        self._complete = False

    def start(self, send: Send) -> None:
        """Send the request."""
        send(self._request)

    def receive(self, data: bytes) -> Verdict | None:
        """See `Exchange`."""
        seen = self._seen
        self._seen = seen + len(data)
        if self._status:
            return self._feed(data)
        if not seen and not data.startswith(_EXPECTED) and (spoken := foreign_protocol(data)):
            return failure(Cause.PROTOCOL_MISMATCH, f"the endpoint speaks {spoken}, not HTTP/1")
        self._raw = self._raw + data if seen else data
        if self._seen <= HEAD_LIMIT:
            return self._feed(data)
        allowed = HEAD_LIMIT - seen
        return self._feed_last_of_head(data[:allowed], data[allowed:])

    def closed(self) -> Verdict:
        """See `Exchange`."""
        if not self._status:
            what = "in the response head" if self._seen else "without a response"
            return failure(Cause.EARLY_CLOSE, f"closed {what}")
        if _FRAMED.search(self._head()):
            return self._spoiled(Cause.EARLY_CLOSE, "closed in the response body")
        return self._judge()

    def timed_out(self) -> Verdict:
        """See `Exchange`."""
        if self._status:
            return self._spoiled(Cause.READ_TIMEOUT, "no whole response body in time")
        what = "no whole response head" if self._seen else "no response"
        return failure(Cause.READ_TIMEOUT, f"{what} in time")

    def reset(self, reason: str) -> Verdict:
        """See `Exchange`."""
        if self._status:
            return self._spoiled(Cause.RESET, f"{reason} in the response body")
        return failure(Cause.RESET, f"{reason} in the response head" if self._seen else reason)

    def on_headers_complete(self) -> None:
        """Called by the parser: a head was read. Interim responses (1xx but 101) are not the answer yet."""
        status = self._parser.get_status_code()
        if status >= 200 or status == 101:
            self._status = status

    def on_message_complete(self) -> None:
        """Called by the parser: a response is whole."""
        if self._status:
            self._complete = True

    def _feed(self, data: bytes) -> Verdict | None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return self._judge()
        except httptools.HttpParserError as error:
            # Bytes after a whole response are no concern of a connection that ends here.
            if not self._complete:
                return self._spoiled(Cause.MALFORMED, f"malformed response: {error}")
        if self._complete or (self._status and self._seen >= HEAD_LIMIT + BODY_LIMIT):
            del (
                self._parser
            )  # it holds our methods: a circle that would wait for the garbage collector
            return self._judge()
        return None

    def _feed_last_of_head(self, within: bytes, beyond: bytes) -> Verdict | None:
        """Go on only where the head ends within the limit; the parser itself has none."""
        verdict = self._feed(within) if within else None
        if verdict is None and not self._status:
            return failure(Cause.OVERSIZED_HEADER, f"response head over {HEAD_LIMIT} bytes")
        return verdict or self._feed(beyond)

    def _judge(self) -> Verdict:
        status = self._status
        if self._low <= status <= self._high:
            return success(status)
        if status == 400 and any(marker in self._raw for marker in _PLAIN_TO_TLS):
            return failure(
                Cause.PROTOCOL_MISMATCH, "the endpoint speaks TLS, not plain HTTP", status
            )
        return failure(Cause.APP_ERROR, f"HTTP {status}", status)

    def _spoiled(self, cause: Cause, detail: str) -> Verdict:
        """A failure after the status is known: a bad status has already said what is wrong."""
        if self._status and not self._low <= self._status <= self._high:
            return self._judge()
        return failure(cause, detail, self._status)

    def _head(self) -> bytes:
        """The last head that was read: of the answer itself, not of what came before it."""
        heads = self._raw.split(b"\r\n\r\n")
        finals = [head for head in heads if head.startswith(b"HTTP/") and head[9:10] != b"1"]
        return finals[0] if finals else self._raw


def prepare(target: ProbeTarget) -> Callable[[], Exchange]:
    """The HTTP prober; see `Prepare`."""
    request = build_request(target)
    low, high = target.spec.status_min, target.spec.status_max
    return lambda: HttpExchange(request, low, high)


def build_request(target: ProbeTarget) -> bytes:
    """The request's bytes.

    Headers of the spec take the place of the defaults, but for `Connection`: one probe, one connection.

    Raises:
        ValueError: A header could break out of its line.
    """
    spec = target.spec
    defaults = (
        ("Host", spec.host or target.authority),
        ("User-Agent", USER_AGENT),
        ("Accept", "*/*"),
    )
    given = {name.lower() for name, _ in spec.headers}
    headers = [(name, value) for name, value in defaults if name.lower() not in given]
    headers += [(name, value) for name, value in spec.headers if name.lower() != "connection"]
    headers.append(("Connection", "close"))
    path = quote(spec.path if spec.path.startswith("/") else f"/{spec.path}", safe=_URL_SAFE)
    return "\r\n".join([f"GET {path} HTTP/1.1", *_lines(headers), "", ""]).encode()


def header_value(name: str, value: str) -> str:
    """`value` without spaces around it.

    Raises:
        ValueError: It could break out of its line.
    """
    if any(char in value for char in "\r\n\0"):
        raise ValueError(f"the value of header {name} has a line break or NUL in it")
    return value.strip()


def foreign_protocol(data: bytes) -> str:
    """The protocol that these first bytes of an answer certainly belong to, if it is not HTTP/1; else empty."""
    if data[:1] in {b"\x15", b"\x16"} and data[1:2] == b"\x03":
        return "TLS"
    if data.startswith(b"PRI * HTTP/2") or _is_settings_frame(data):
        return "HTTP/2"
    if data.startswith(b"SSH-"):
        return "SSH"
    return ""


def _is_settings_frame(data: bytes) -> bool:
    # 24 bits of length (a multiple of 6), type 4, flags 0, stream 0: how every HTTP/2 server opens (RFC 9113, 3.4).
    return (
        len(data) >= 9
        and data[3:9] == b"\x04\0\0\0\0\0"
        and int.from_bytes(data[:3], "big") % 6 == 0
    )


def _lines(headers: list[tuple[str, str]]) -> Iterator[str]:
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is no header name")
        yield f"{name}: {header_value(name, value)}"
