"""gRPC: one `grpc.health.v1.Health/Check` over cleartext HTTP/2, as the kubelet's grpc probe makes it.

A whole gRPC stack for one call with one string in and one number out would cost more than the rest of the operator;
h2 does the framing, and the two messages are coded here.
"""

from collections.abc import Callable, Iterable
from urllib.parse import unquote_to_bytes

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

from upstream_guard.core.causes import Cause
from upstream_guard.probes.exchange import (
    Exchange,
    ProbeTarget,
    Send,
    Verdict,
    failure,
    success,
)
from upstream_guard.probes.http import (
    BODY_LIMIT,
    HEAD_LIMIT,
    USER_AGENT,
    foreign_protocol,
    header_value,
)

_STREAM = 1
_CONFIG = H2Configuration(client_side=True, header_encoding=None)
_SERVING = 1
_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_NOT_FOUND = b"5"
_UNIMPLEMENTED = b"12"

Header = tuple[bytes, bytes]


class GrpcExchange:
    """One unary call."""

    __slots__ = ("_answer", "_h2", "_headers", "_message", "_request", "_seen", "_send")

    def __init__(self, headers: list[Header], message: bytes) -> None:
        """Make an exchange.

        Args:
            headers: The request's, pseudo headers first.
            message: The request message with its length prefix.
        """
        self._h2 = H2Connection(_CONFIG)
        self._request = headers
        self._message = message
        self._headers: dict[bytes, bytes] = {}
        self._answer = b""
        self._seen = 0
        self._send: Send | None = None

    def start(self, send: Send) -> None:
        """Send preface, settings and the call in one go; the server's settings need not be awaited."""
        self._send = send
        self._h2.initiate_connection()
        self._h2.send_headers(_STREAM, self._request)
        self._h2.send_data(_STREAM, self._message, end_stream=True)
        self._flush()

    def receive(self, data: bytes) -> Verdict | None:
        """See `Exchange`."""
        if not self._seen and (spoken := _not_grpc(data)):
            return failure(Cause.PROTOCOL_MISMATCH, f"the endpoint speaks {spoken}, not gRPC")
        self._seen += len(data)
        if not self._headers and self._seen > HEAD_LIMIT:
            return failure(Cause.OVERSIZED_HEADER, f"response head over {HEAD_LIMIT} bytes")
        if self._seen > BODY_LIMIT:
            return failure(Cause.MALFORMED, f"health answer over {BODY_LIMIT} bytes")
        try:
            verdict = self._digest(self._h2.receive_data(data))
            if verdict is not None:
                self._h2.close_connection()
        except H2Error as error:
            return failure(Cause.MALFORMED, f"malformed HTTP/2: {error}")
        self._flush()
        return verdict

    def closed(self) -> Verdict:
        """See `Exchange`."""
        what = "in the response" if self._seen else "without a response"
        return failure(Cause.EARLY_CLOSE, f"closed {what}", self._status())

    def timed_out(self) -> Verdict:
        """See `Exchange`."""
        what = "no whole response" if self._seen else "no response"
        return failure(Cause.READ_TIMEOUT, f"{what} in time", self._status())

    def reset(self, reason: str) -> Verdict:
        """See `Exchange`."""
        return failure(Cause.RESET, reason, self._status())

    def _digest(self, events: Iterable[Event]) -> Verdict | None:
        for event in events:
            match event:
                case ResponseReceived(headers=headers) | TrailersReceived(headers=headers):
                    self._headers.update(headers or ())
                case DataReceived(data=data):
                    self._answer += data or b""
                case StreamEnded():
                    return self._judge()
                case StreamReset(error_code=code):
                    return failure(Cause.RESET, f"stream reset, {_code(code)}", self._status())
                case ConnectionTerminated(error_code=code, last_stream_id=last):
                    if code or not last:
                        return failure(Cause.EARLY_CLOSE, f"GOAWAY, {_code(code)}", self._status())
        return None

    def _judge(self) -> Verdict:
        status = self._status()
        if status != 200:
            return failure(Cause.APP_ERROR, f"HTTP {status}", status)
        grpc_status = self._headers.get(b"grpc-status")
        if grpc_status is None:
            return failure(Cause.MALFORMED, "no grpc-status in the response", status)
        if grpc_status != b"0":
            return failure(Cause.APP_ERROR, self._refusal(grpc_status), status)
        state = serving_status(self._answer)
        if state is None:
            return failure(Cause.MALFORMED, "malformed health message", status)
        if state != _SERVING:
            return failure(Cause.APP_ERROR, f"gRPC health {_STATES.get(state, state)}", status)
        return success(status)

    def _refusal(self, grpc_status: bytes) -> str:
        if grpc_status == _UNIMPLEMENTED:
            return "gRPC status 12: the endpoint has no grpc.health.v1.Health service"
        if grpc_status == _NOT_FOUND:
            return "gRPC status 5: the health service does not know the service asked for"
        message = unquote_to_bytes(self._headers.get(b"grpc-message", b""))
        return f"gRPC status {_text(grpc_status)}: {_text(message)}"

    def _status(self) -> int:
        text = self._headers.get(b":status", b"")
        return int(text) if text.isdigit() and len(text) == 3 else 0

    def _flush(self) -> None:
        if self._send is not None and (data := self._h2.data_to_send()):
            self._send(data)


def prepare(target: ProbeTarget) -> Callable[[], Exchange]:
    """The gRPC health prober; see `Prepare`."""
    headers: list[Header] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/grpc.health.v1.Health/Check"),
        (b":authority", header_value("Host", target.spec.host or target.authority).encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", USER_AGENT.encode()),
    ]
    message = check_request(target.spec.service)
    return lambda: GrpcExchange(headers, message)


def check_request(service: str) -> bytes:
    """A length-prefixed HealthCheckRequest.

    Raises:
        ValueError: The name is over 16 KiB.
    """
    name = service.encode()
    if len(name) > HEAD_LIMIT:
        raise ValueError(f"gRPC health service name over {HEAD_LIMIT} bytes")
    body = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(body).to_bytes(4, "big") + body


def serving_status(answer: bytes) -> int | None:
    """The status of a length-prefixed HealthCheckResponse; None where it is malformed or compressed."""
    if len(answer) < 5 or answer[0] or int.from_bytes(answer[1:5], "big") != len(answer) - 5:
        return None
    status = 0  # proto3 leaves out what has its default value
    at = 5
    while at < len(answer):
        key, at = _read_varint(answer, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(answer, at)
            status = value if key >> 3 == 1 else status
        elif kind == 2:
            length, at = _read_varint(answer, at)
            at += length
        elif kind in {1, 5}:
            at += 8 if kind == 1 else 4
        else:
            return None
    return status if at == len(answer) else None


def _not_grpc(data: bytes) -> str:
    if data.startswith(b"HTTP/"):
        return "HTTP/1"
    spoken = foreign_protocol(data)
    return "" if spoken == "HTTP/2" else spoken


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Number and next position; a number that is cut off ends behind the data, which no caller takes for whole."""
    number = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    return number, len(data) + 1


def _code(code: object) -> str:
    name = getattr(code, "name", None)
    return f"error {name or code}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
