"""What real servers do, well and badly, and what the HTTP prober makes of it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ProbeProtocol, ProbeSpec
from upstream_guard.probes import ProbeTarget
from upstream_guard.probes.http import BODY_LIMIT, HEAD_LIMIT, build_request

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Script = Callable[[Reader, Writer], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TO_TLS = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
SETTINGS = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"


def says(*pieces: bytes, hang: bool = False) -> Script:
    """Reads the request, sends the pieces one by one, then closes (or hangs)."""

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)
        if hang:
            await reader.read()

    return script


@dataclass(frozen=True)
class Case:
    script: Script
    ok: bool = False
    cause: Cause | None = None
    status: int = 0
    detail: str = ""


CASES = {
    "ok": Case(says(OK), ok=True, status=200),
    "byte by byte": Case(says(*(bytes([byte]) for byte in OK)), ok=True, status=200),
    "answers, then hangs": Case(says(OK, hang=True), ok=True, status=200),
    "no content": Case(says(b"HTTP/1.1 204 No Content\r\n\r\n", hang=True), ok=True, status=204),
    "redirect is an answer": Case(
        says(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"),
        ok=True,
        status=302,
    ),
    "interim response first": Case(
        says(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", OK), ok=True, status=200
    ),
    "chunked": Case(
        says(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n", b"0\r\n\r\n"
        ),
        ok=True,
        status=200,
    ),
    "body ends with the connection": Case(
        says(b"HTTP/1.0 200 OK\r\n\r\n", b"ok"), ok=True, status=200
    ),
    "huge body": Case(
        says(
            b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n", b"x" * 2 * BODY_LIMIT, hang=True
        ),
        ok=True,
        status=200,
    ),
    "head of the largest size": Case(
        says(OK[:17] + b"X: " + b"x" * (HEAD_LIMIT - 17 - 5 - len(OK[17:-2])) + b"\r\n" + OK[17:]),
        ok=True,
        status=200,
    ),
    "not well": Case(
        says(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
        cause=Cause.APP_ERROR,
        status=503,
        detail="HTTP 503",
    ),
    "not well, and its body never comes": Case(
        says(b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\n", hang=True),
        cause=Cause.APP_ERROR,
        status=500,
        detail="HTTP 500",
    ),
    "upgrade": Case(
        says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        cause=Cause.APP_ERROR,
        status=101,
    ),
    "closes at once": Case(says(), cause=Cause.EARLY_CLOSE, detail="closed without a response"),
    "closes in the head": Case(
        says(OK[:20]), cause=Cause.EARLY_CLOSE, detail="closed in the response head"
    ),
    "closes in the body": Case(
        says(OK[:-1]), cause=Cause.EARLY_CLOSE, status=200, detail="closed in the response body"
    ),
    "closes in a chunk": Case(
        says(b"HTTP/1.1 200 OK\r\ntransfer-encoding:chunked\r\n\r\n", b"5\r\nab"),
        cause=Cause.EARLY_CLOSE,
        status=200,
    ),
    "closes in the body after an interim head": Case(
        says(b"HTTP/1.1 100 Continue\r\n\r\n", OK[:-1]), cause=Cause.EARLY_CLOSE, status=200
    ),
    "hangs": Case(says(hang=True), cause=Cause.READ_TIMEOUT, detail="no response in time"),
    "hangs in the head": Case(
        says(OK[:20], hang=True), cause=Cause.READ_TIMEOUT, detail="no whole response head in time"
    ),
    "slow body": Case(
        says(OK[:-1], hang=True),
        cause=Cause.READ_TIMEOUT,
        status=200,
        detail="no whole response body in time",
    ),
    "nonsense": Case(says(b"hello, hello\r\n\r\n"), cause=Cause.MALFORMED),
    "bad status line": Case(says(b"HTTP/1.1 abc\r\n\r\n"), cause=Cause.MALFORMED),
    "bad header": Case(says(b"HTTP/1.1 200 OK\r\nb\0d: x\r\n\r\n"), cause=Cause.MALFORMED),
    "bad chunk": Case(
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        cause=Cause.MALFORMED,
        status=200,
    ),
    "oversized head": Case(
        says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_LIMIT + b"\r\n\r\n"),
        cause=Cause.OVERSIZED_HEADER,
    ),
    "endless head": Case(
        says(b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n" * 1000] * 9), cause=Cause.OVERSIZED_HEADER
    ),
    "endless interim responses": Case(
        says(*[b"HTTP/1.1 103 Early Hints\r\n\r\n" * 300] * 9), cause=Cause.OVERSIZED_HEADER
    ),
    "TLS alert": Case(
        says(b"\x15\x03\x01\0\x02\x02\x16"),
        cause=Cause.PROTOCOL_MISMATCH,
        detail="the endpoint speaks TLS, not HTTP/1",
    ),
    "TLS server that explains itself": Case(
        says(TO_TLS), cause=Cause.PROTOCOL_MISMATCH, status=400
    ),
    "HTTP/2 server": Case(
        says(SETTINGS),
        cause=Cause.PROTOCOL_MISMATCH,
        detail="the endpoint speaks HTTP/2, not HTTP/1",
    ),
    "SSH server": Case(says(b"SSH-2.0-x\r\n"), cause=Cause.PROTOCOL_MISMATCH),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_verdict(case: Case, serve, probe) -> None:
    result = await probe(await serve(case.script), timeout=0.5)
    assert (result.ok, result.cause, result.status) == (case.ok, case.cause, case.status)
    if case.detail:
        assert result.detail == case.detail
    assert len(result.detail) <= 200
    assert 0 < result.latency < 1


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (b"", "connection reset by peer"),
        (OK[:20], "connection reset by peer in the response head"),
        (OK[:-1], "connection reset by peer in the response body"),
    ],
)
async def test_reset(sent: bytes, detail: str, serve, probe, send_reset) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if sent:
            writer.write(sent)
            await asyncio.sleep(0.05)  # a reset overtakes what the peer has not read yet
        send_reset(writer)

    result = await probe(await serve(script))
    assert (result.cause, result.detail) == (Cause.RESET, detail)


async def test_refused(probe, unused_tcp_port: int) -> None:
    result = await probe(unused_tcp_port)
    assert (result.cause, result.detail) == (Cause.REFUSED, "connection refused")


async def test_no_answer_to_the_syn(probe, full_backlog: int) -> None:
    result = await probe(full_backlog, timeout=0.2)
    assert result.cause is Cause.CONNECT_TIMEOUT
    assert 0.2 <= result.latency < 0.5


async def test_the_whole_request(serve, probe) -> None:
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(reader: Reader, writer: Writer) -> None:
        seen.set_result(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        assert await reader.read() == b""  # an orderly close, no reset

    port = await serve(script)
    await probe(port, path="/healthz?a=b c", headers=(("X-Probe", "1"), ("accept", "text/plain")))
    assert (await seen).decode().split("\r\n") == [
        "GET /healthz?a=b%20c HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: upstream-guard/0.1",
        "X-Probe: 1",
        "accept: text/plain",
        "Connection: close",
        "",
        "",
    ]


async def test_ipv6(serve, probe) -> None:
    result = await probe(await serve(says(OK), host="::1"), address="::1")
    assert result.ok


async def test_a_request_larger_than_the_socket_buffer(serve, probe) -> None:
    """Sent in pieces while the server takes its time to read."""
    result = await probe(
        await serve(says(OK)), headers=tuple((f"X-{n}", "x" * 4000) for n in range(16))
    )
    assert result.ok or result.cause is Cause.EARLY_CLOSE  # asyncio's own reader gives up at 64 KiB


def request_of(**spec: object) -> bytes:
    values: dict[str, object] = {"port": 80} | spec
    return build_request(ProbeTarget("2001:db8::1", ProbeSpec(ProbeProtocol.HTTP, **values)))  # type: ignore[arg-type]


def test_host_header() -> None:
    assert b"\r\nHost: [2001:db8::1]:80\r\n" in request_of()
    assert b"\r\nHost: shop.example\r\n" in request_of(host="shop.example")
    overridden = request_of(host="a", headers=(("Host", "b"),))
    assert b"\r\nHost: b\r\n" in overridden
    assert b"Host: a" not in overridden


def test_connection_close_cannot_be_overridden() -> None:
    request = request_of(headers=(("Connection", "keep-alive"),))
    assert request.lower().count(b"connection:") == 1
    assert b"Connection: close" in request


def test_path_stays_in_its_line() -> None:
    assert request_of(path="healthz x\r\nEvil: 1").startswith(
        b"GET /healthz%20x%0D%0AEvil:%201 HTTP/1.1\r\n"
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"headers": (("X", "a\r\nEvil: 1"),)},
        {"headers": (("X y", "a"),)},
        {"headers": (("", "a"),)},
        {"host": "a\nb"},
    ],
)
def test_header_injection_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="header"):
        request_of(**spec)
