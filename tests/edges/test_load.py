"""The load generator against a server that misbehaves on request."""

import asyncio
import json
import os
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from upstream_guard.lab import load
from upstream_guard.lab.demo import tally
from upstream_guard.lab.demo.runner import mixed_load_on
from upstream_guard.lab.demo.tally import Record
from upstream_guard.lab.gateways import Exposure

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def reply(payload: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(payload)
        await writer.drain()
        writer.close()

    return answer


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the client gives up
    writer.close()


async def serve_forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            break
        writer.write(OK)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[tuple[str, Counter[str]]]:
    """A server on loopback: its URL, and a count of the connections that it got."""
    seen: Counter[str] = Counter()

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen["connections"] += 1
        await answer(reader, writer)

    listening = await asyncio.start_server(counted, "127.0.0.1", 0)
    try:
        port = listening.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/", seen
    finally:
        listening.close()


async def drive(
    url: str, *, rate: float = 100, seconds: float = 0.2, timeout: float = 5, keep: bool = False
) -> list[Record]:
    records: list[Record] = []
    target = load.Target.parse(url, "shop.example", keep_alive=keep)
    generator = load.LoadGenerator(
        target, rate=rate, sink=records.append, keep_alive=keep, timeout=timeout
    )
    await generator.run(asyncio.Event(), seconds)
    return records


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (reply(OK), "200"),
        (reply(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), "502"),
        (reply(b"HTTP/1.1 100 Continue\r\n\r\n" + OK), "200"),
        (reply(b"HTTP/1.0 200 OK\r\n\r\nuntil the end"), "200"),
        (
            reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            "200",
        ),
        (reply(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf"), tally.TRUNCATED),
        (reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"), tally.TRUNCATED),
        (reply(b"HTTP/1.1 200 OK\r\nContent-Le"), tally.EARLY_CLOSE),
        (reply(b""), tally.EARLY_CLOSE),
        (reply(b"SSH-2.0-OpenSSH_9.2\r\n"), tally.MALFORMED),
        (reset, tally.RESET),
    ],
)
async def test_each_fate_has_its_name(answer: Answer, outcome: str) -> None:
    async with server(answer) as (url, _):
        records = await drive(url)
    assert Counter(r.outcome for r in records) == {outcome: 20}


async def test_a_closed_port_is_refused() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        records = await drive(f"http://127.0.0.1:{sock.getsockname()[1]}/")
    assert Counter(r.outcome for r in records) == {tally.REFUSED: 20}


async def test_a_stalled_server_meets_the_same_load_and_each_request_times_out() -> None:
    async with server(hang) as (url, seen):
        records = await drive(url, rate=100, seconds=0.5, timeout=0.3)
        assert seen["connections"] == 50
    assert Counter(r.outcome for r in records) == {tally.TIMEOUT: 50}
    sent = sorted(r.sent for r in records)
    assert sent[-1] - sent[0] == pytest.approx(0.49, abs=0.1)
    assert all(0.3 <= r.done - r.sent < 0.3 + 1 for r in records)


async def test_a_request_is_new_on_its_connection_unless_kept_alive() -> None:
    async with server(serve_forever) as (url, seen):
        await drive(url, rate=50)
        assert seen["connections"] == 10
    async with server(serve_forever) as (url, seen):
        records = await drive(url, rate=50, keep=True)
        assert seen["connections"] < 10
    assert Counter(r.outcome for r in records) == {"200": 10}


async def test_the_host_header_is_the_routes_not_the_gateways() -> None:
    heads: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        writer.close()

    async with server(note) as (url, _):
        await drive(url + "cart?item=1", rate=10, seconds=0.1)
    assert heads[0].startswith(b"GET /cart?item=1 HTTP/1.1\r\nHost: shop.example\r\n")
    assert b"Connection: close\r\n" in heads[0]


@pytest.mark.parametrize(
    "url", ["https://a/", "ftp://a/", "nonsense", "http://", "http://no.invalid/"]
)
def test_a_bad_url_is_named(url: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(load.main, ["--url", url, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "--url" in result.output
    assert "Traceback" not in result.output


async def test_the_process_stops_on_sigint_and_leaves_every_record(tmp_path: Path) -> None:
    out = tmp_path / "load.jsonl"
    async with server(reply(OK)) as (url, seen):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "upstream_guard.lab.load",
            "--url", url, "--rate", "200", "--out", str(out),
            env={**os.environ, "PYTHONPATH": "operator"},
        )  # fmt: skip
        async with asyncio.timeout(30):
            while seen["connections"] < 20:  # noqa: ASYNC110 - the server has no event to wait for
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    records = [tally.decode(line) for line in out.read_text().splitlines()]
    assert len(records) == seen["connections"]
    assert all(json.loads(tally.encode(r))[3] == "200" for r in records)


@pytest.mark.parametrize(("kept", "per_request"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
async def test_a_share_of_the_load_goes_over_kept_connections(
    kept: float, per_request: float
) -> None:
    async with server(serve_forever) as (url, seen):
        port = int(url.rstrip("/").rpartition(":")[2])
        async with mixed_load_on(Exposure("127.0.0.1", port, "shop.test"), 200, kept) as both:
            await asyncio.sleep(1)
            records = await both.stop()
    assert {record.outcome for record in records} == {"200"}
    assert len(records) > 100
    # A few kept connections serve all the requests of their half.
    assert seen["connections"] / len(records) == pytest.approx(per_request, abs=0.15)
    assert both.kept_failed == 0


async def test_failures_on_kept_connections_are_told_apart() -> None:
    async with server(reset) as (url, _):
        port = int(url.rstrip("/").rpartition(":")[2])
        async with mixed_load_on(Exposure("127.0.0.1", port, "shop.test"), 100, 0.25) as both:
            await asyncio.sleep(0.5)
            records = await both.stop()
    assert all(record.failed for record in records)
    assert 0 < both.kept_failed < len(records) / 2
