"""Requests through a gateway: what real servers on loopback do, and what is reported of it."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import RouteKey, RouteSample
from upstream_guard.core.routes import Ask
from upstream_guard.probes import route as module
from upstream_guard.probes.route import Names, RouteProber, marker_of, request_of

OK = b"HTTP/1.1 200 OK\r\nServer: gate/1\r\nContent-Length: 2\r\n\r\nok"
BAD = (
    b"HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\nContent-Length: 75\r\n\r\n"
    b"<html><head><title>502</title></head>\n<body><h1>502 Bad Gateway</h1></body>\n"
)
SHOP = "shop.example"


def ask(port: int, *, host: str = SHOP, path: str = "/", tls: bool = False, **fields) -> Ask:
    key = RouteKey("edge", "Ingress prod/web", host, path, tls)
    return Ask(key, fields.pop("addresses", ("127.0.0.1",)), port, **fields)


@pytest.fixture
async def prober() -> AsyncIterator[RouteProber]:
    made = RouteProber(timeout=1.0)
    yield made
    made.close()


def says(*pieces: bytes, hang: bool = False, then: Callable | None = None):
    """Reads a request, sends the pieces, then closes (or hangs, or calls `then`)."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)
        if hang:
            await reader.read()
        if then:
            then(writer)

    return script


def keeps(seen: list[bytes], *answers: bytes):
    """Answers one request after another on one connection, and closes where no answer is left."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
        if answers:
            seen.append(await reader.readuntil(b"\r\n\r\n"))

    return script


async def once(prober: RouteProber, port: int, **fields) -> RouteSample:
    sample = await prober.ask(ask(port, **fields), 0, reuse=False)
    assert sample is not None
    return sample


@pytest.mark.parametrize(
    ("script", "status", "cause", "detail"),
    [
        (says(OK), 200, None, ""),
        (says(*(OK[n : n + 1] for n in range(len(OK)))), 200, None, ""),
        (says(b"HTTP/1.1 103 Early Hints\r\n\r\n", OK), 200, None, ""),
        (says(b"HTTP/1.0 200 OK\r\n\r\n", b"to the end"), 200, None, ""),
        (says(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), 302, None, ""),
        (says(BAD), 502, None, "502 Bad Gateway"),
        (
            says(
                b"HTTP/1.1 503 No\r\nContent-Length: 4\r\nProxy-Status: edge; error=dns\r\n\r\nbusy"
            ),
            503,
            None,
            "proxy-status: edge; error=dns",
        ),
        (
            says(
                b"HTTP/1.1 503 Service Unavailable\r\nServer: envoy\r\nContent-Length: 19\r\n\r\n"
                b"no healthy upstream"
            ),
            503,
            None,
            "no healthy upstream",
        ),
        (says(), 0, Cause.EARLY_CLOSE, "closed without a response"),
        (says(OK[:20]), 0, Cause.EARLY_CLOSE, "closed in the response head"),
        (says(OK[:-1]), 200, Cause.EARLY_CLOSE, "closed in the response body"),
        (says(OK[:-1], hang=True), 200, Cause.READ_TIMEOUT, "no whole response body in time"),
        (says(hang=True), 0, Cause.READ_TIMEOUT, "no response in time"),
        (says(b"nonsense\r\n\r\n"), 0, Cause.MALFORMED, "malformed response"),
        (
            says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * module.HEAD_LIMIT, hang=True),
            0,
            Cause.OVERSIZED_HEADER,
            "response head over",
        ),
        (
            says(
                b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
                b"x" * 2 * module.BODY_LIMIT,
                hang=True,
            ),
            200,
            None,
            "",
        ),
    ],
)
async def test_what_comes_back(
    serve, prober: RouteProber, script, status: int, cause: Cause | None, detail: str
) -> None:
    sample = await once(prober, await serve(script))
    assert (sample.status, sample.cause) == (status, cause)
    assert sample.detail.startswith(detail)
    assert bool(sample.detail) == bool(detail)
    assert not sample.reused
    assert 0 <= sample.done - sample.sent < 3


async def test_the_server_that_answered_is_named(serve, prober: RouteProber) -> None:
    assert (await once(prober, await serve(says(OK)))).server == "gate/1"


async def test_a_reset(serve, send_reset, prober: RouteProber) -> None:
    sample = await once(prober, await serve(says(then=send_reset)))
    assert (sample.status, sample.cause) == (0, Cause.RESET)
    sample = await once(prober, await serve(says(OK[:-1], then=send_reset)))
    assert (sample.status, sample.cause) == (200, Cause.RESET)


async def test_nobody_listens(unused_tcp_port: int, prober: RouteProber) -> None:
    sample = await once(prober, unused_tcp_port)
    assert (sample.status, sample.cause) == (0, Cause.REFUSED)


async def test_silence(full_backlog: int, prober: RouteProber) -> None:
    sample = await once(prober, full_backlog)
    assert (sample.cause, sample.status) == (Cause.CONNECT_TIMEOUT, 0)
    assert sample.done - sample.sent == pytest.approx(1.0, abs=0.5)


async def test_what_this_process_is_late_a_gateway_gets_on_top(serve) -> None:
    """On a busy node a time-out would else be of our own making, or all of them would count for nothing."""
    began, late = time.monotonic(), 0.0
    prober = RouteProber(timeout=0.3, lag=lambda: late)
    asked = asyncio.create_task(prober.ask(ask(await serve(says(hang=True))), 0, reuse=False))
    await asyncio.sleep(0.1)
    late = 0.2
    sample = await asked
    assert sample is not None
    assert sample.cause is Cause.READ_TIMEOUT
    assert time.monotonic() - began >= 0.5


async def test_a_time_out_of_our_own_making_says_nothing(serve) -> None:
    late = 0.0
    prober = RouteProber(timeout=0.2, lag=lambda: late)
    asked = asyncio.create_task(prober.ask(ask(await serve(says(hang=True))), 0, reuse=False))
    await asyncio.sleep(0.05)
    late = 0.9
    assert await asked is None


async def test_the_request_says_who_asks(serve, prober: RouteProber) -> None:
    seen: list[bytes] = []
    port = await serve(keeps(seen, OK))
    await prober.ask(ask(port, path="/up?a=ü b"), 0, reuse=False)
    lines = seen[0].decode().split("\r\n")
    assert lines[0] == "GET /up?a=%C3%BC%20b HTTP/1.1"
    assert f"Host: {SHOP}" in lines
    assert "upstream-guard-probe: 1" in lines
    assert any(line.startswith("User-Agent: upstream-guard/") for line in lines)


def test_without_a_host_the_address_is_asked_for() -> None:
    assert b"\r\nHost: 192.0.2.7\r\n" in request_of(ask(80, host=""), "192.0.2.7", keep=True)
    assert b"\r\nHost: [2001:db8::7]\r\n" in request_of(ask(80, host=""), "2001:db8::7", keep=True)


async def test_head_waits_for_no_body(serve, prober: RouteProber) -> None:
    head = OK[:-2]
    port = await serve(keeps([], head, head))
    for reuse in (False, True):
        sample = await prober.ask(ask(port, method="HEAD"), 0, reuse=reuse)
        assert sample is not None
        assert (sample.status, sample.cause, sample.reused) == (200, None, reuse)


# Pairs.


async def test_the_second_request_takes_the_firsts_connection(serve, prober: RouteProber) -> None:
    seen: list[bytes] = []
    port = await serve(keeps(seen, OK, OK))
    reused = []
    for turn in range(4):
        sample = await prober.ask(ask(port), turn, reuse=turn % 2 == 1)
        assert sample is not None
        assert sample.status == 200
        reused.append(sample.reused)
    assert reused == [False, True, False, True]
    assert [b"Connection: close" in request for request in seen] == [False, True] * 2


async def test_an_app_that_closes_as_it_is_asked_again(serve, prober: RouteProber) -> None:
    """As HAProxy does when the app closed its kept connection: only the second request fails."""
    port = await serve(keeps([], OK))
    first = await prober.ask(ask(port), 0, reuse=False)
    second = await prober.ask(ask(port), 1, reuse=True)
    assert first is not None
    assert second is not None
    assert (first.status, first.cause) == (200, None)
    assert (second.status, second.cause, second.reused) == (0, Cause.EARLY_CLOSE, True)


async def test_a_connection_that_the_gateway_closed_is_not_missed(
    serve, until_closed, prober: RouteProber
) -> None:
    port = await serve(says(OK))  # says it would keep the connection, and closes it
    await prober.ask(ask(port), 0, reuse=False)
    await until_closed(prober)
    sample = await prober.ask(ask(port), 1, reuse=True)
    assert sample is not None
    assert (sample.status, sample.reused) == (200, False)


@pytest.fixture
def until_closed():
    async def wait(prober: RouteProber) -> None:
        end = time.monotonic() + 5
        while any(link.usable for link in prober._idle.values()):
            assert time.monotonic() < end
            await asyncio.sleep(0.005)

    return wait


async def test_connections_are_not_kept_for_too_long(
    serve, prober: RouteProber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_LIMIT", -1.0)
    port = await serve(keeps([], OK, OK))
    await prober.ask(ask(port), 0, reuse=False)
    sample = await prober.ask(ask(port), 1, reuse=True)
    assert sample is not None
    assert (sample.status, sample.reused) == (200, False)


async def test_nothing_stays_open(serve) -> None:
    open_now = 0
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.read()
        finally:
            open_now -= 1
            gone.set()

    prober = RouteProber(timeout=1.0)
    await prober.ask(ask(await serve(script)), 0, reuse=False)
    assert open_now == 1
    prober.drop(RouteKey("edge", "", "another", "/"))
    assert len(prober._idle) == 1
    prober.close()
    await asyncio.wait_for(gone.wait(), 5)
    assert open_now == 0


async def test_addresses_are_asked_in_turn_two_requests_each(prober: RouteProber, serve) -> None:
    asked = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            asked.append(writer.get_extra_info("sockname")[0])
            writer.write(OK)

    port = await serve(script, host="0.0.0.0")
    addresses = ("127.0.0.1", "127.0.0.2")
    for turn in range(6):
        await prober.ask(ask(port, addresses=addresses), turn, reuse=turn % 2 == 1)
    assert asked == [addresses[n] for n in (0, 0, 1, 1, 0, 0)]


# TLS.


async def test_sni_names_the_host(
    serve, server_context: ssl.SSLContext, prober: RouteProber
) -> None:
    names: list[str | None] = []
    server_context.sni_callback = lambda _sock, name, _context: names.append(name)
    port = await serve(keeps([], OK, OK), context=server_context)
    samples = [await prober.ask(ask(port, tls=True), n, reuse=n == 1) for n in (0, 1)]
    assert [(s.status, s.reused) for s in samples if s] == [(200, False), (200, True)]
    sample = await prober.ask(ask(port, tls=True, host=""), 0, reuse=False)
    assert sample is not None
    assert sample.status == 200
    assert names == [SHOP, None]  # an address is no server name


async def test_tls_that_fails(serve, prober: RouteProber, tls_files: tuple[Path, Path]) -> None:
    with _stranger(tls_files) as port:
        refusing = await once(prober, port, tls=True)
    assert (refusing.status, refusing.cause) == (0, Cause.TLS)
    plain = await once(prober, await serve(says(b"HTTP/1.1 400 Bad\r\n\r\n")), tls=True)
    assert plain.cause in {Cause.TLS, Cause.EARLY_CLOSE, Cause.READ_TIMEOUT}

    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)

    closing = await once(prober, await serve(closes), tls=True)
    assert closing.cause in {Cause.EARLY_CLOSE, Cause.RESET}
    silent = await once(prober, await serve(lambda r, _w: r.read(-1)), tls=True)
    assert (silent.cause, silent.detail) == (Cause.READ_TIMEOUT, "TLS handshake not done in time")
    long = await once(prober, await serve(says(OK)), tls=True, host="x" * 64 + ".example")
    assert long.cause is Cause.TLS


@contextmanager
def _stranger(files: tuple[Path, Path]) -> Iterator[int]:
    """A TLS server that knows nobody by the name asked for, and says so (asyncio's loses the alert)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(ssl.SSLError):
            context.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


# Names.


async def test_names_are_looked_up_and_remembered(
    serve, prober: RouteProber, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [(), ("127.0.0.1", "127.0.0.2"), ()]
    asked: list[str] = []

    async def look_up(name: str) -> tuple[str, ...]:
        asked.append(name)
        return answers[len(asked) - 1]

    monkeypatch.setattr(module, "_look_up", look_up)
    names = Names()
    assert await names.resolve("gw.example") == ()
    assert await names.resolve("gw.example") == ()
    assert len(asked) == 1  # not with every request
    monkeypatch.setattr(module.time, "monotonic", lambda: time.time() + 1e9)
    assert await names.resolve("gw.example") == answers[1]
    assert await names.resolve("192.0.2.1") == ("192.0.2.1",)
    monkeypatch.setattr(module.time, "monotonic", lambda: time.time() + 2e9)
    assert await names.resolve("gw.example") == answers[1]  # the last known ones
    names.keep(frozenset())
    assert len(asked) == 3


async def test_a_gateway_whose_name_does_not_resolve(
    prober: RouteProber, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    sample = await once(prober, 80, addresses=("x" * 64 + ".invalid",))
    assert (sample.status, sample.cause) == (0, Cause.DNS)


@pytest.mark.parametrize(
    ("status", "header", "body", "marker"),
    [
        (502, "", b"<style>h1 { x }</style><h1>Bad</h1>\n gateway", "Bad gateway"),
        (502, "a: b", b"page", "a: b"),
        (404, "", b"private words of the app", ""),
        (503, "", b"\xff\xfe<b", "\ufffd\ufffd<b"),
    ],
)
def test_the_gateways_own_words(status: int, header: str, body: bytes, marker: str) -> None:
    assert marker_of(status, header, body) == marker
