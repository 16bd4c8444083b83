"""What reads gateways, against real sockets on loopback: bounds, and what is never done."""

import asyncio
import socket

import pytest
from aiohttp import web

from upstream_guard.gateways import client as module
from upstream_guard.gateways.client import (
    GatewayClient,
    Page,
    ReadError,
    joined,
    replica_of,
    resolve,
    with_query,
)


@pytest.fixture
async def client():
    made = GatewayClient()
    yield made
    await made.close()


@pytest.fixture
async def serve():
    """Serve a handler on loopback; its port."""
    runners = []

    async def start(handler):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner.addresses[0][1]

    yield start
    for runner in runners:
        await runner.cleanup()


async def refused(client, page):
    with pytest.raises(ReadError) as error:
        await client.read(page)
    return error.value


async def test_a_page_is_read_whole_and_each_look_has_its_own_connection(client, serve):
    peers = []

    async def handler(request):
        peers.append(request.transport.get_extra_info("peername"))
        return web.Response(body=b"x" * 1_000_000)

    port = await serve(handler)
    for _ in range(2):
        assert len(await client.read(Page(f"http://127.0.0.1:{port}/metrics"))) == 1_000_000
    assert peers[0] != peers[1], "a kept connection would go on to ask a process that was replaced"


async def test_the_host_is_told_where_an_address_is_given(client, serve):
    async def handler(request):
        return web.Response(text=request.host)

    port = await serve(handler)
    page = Page(f"http://edge.example.test:{port}/metrics", address="127.0.0.1")
    assert (await client.read(page)).decode() == f"edge.example.test:{port}"


async def test_a_form_is_posted_and_a_token_sent(client, serve):
    async def handler(request):
        form = await request.post()
        return web.Response(text=f"{request.method} {request.headers['Authorization']} {form['query']}")  # fmt: skip

    port = await serve(handler)
    page = Page(f"http://127.0.0.1:{port}/q", token="abc", form=(("query", '{a=~"b|c"}'),))
    assert (await client.read(page)).decode() == 'POST Bearer abc {a=~"b|c"}'


async def test_too_much_is_not_read(client, serve, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 100_000)
    sent = 0

    async def handler(request):
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b"x" * 65_536)
            sent += 65_536
        return response

    port = await serve(handler)
    assert (await refused(client, Page(f"http://127.0.0.1:{port}/"))).result == "too-large"
    assert sent < 30_000_000, "the rest is left unread"


async def test_compressed_answers_are_refused_unopened(client, serve):
    async def handler(request):
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    port = await serve(handler)
    assert (await refused(client, Page(f"http://127.0.0.1:{port}/"))).result == "unreadable"


async def test_redirects_are_not_followed(client, serve):
    async def handler(request):
        assert request.path == "/metrics"
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    port = await serve(handler)
    error = await refused(client, Page(f"http://127.0.0.1:{port}/metrics"))
    assert (error.result, str(error)) == ("status", "HTTP 302")


async def test_drops_end_at_the_time_out(client, serve, monkeypatch):
    """A gateway that sends a byte now and then would keep a reader for ever."""
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)

    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x")
            await asyncio.sleep(0.05)
        return response

    port = await serve(handler)
    assert (await refused(client, Page(f"http://127.0.0.1:{port}/"))).result == "timeout"


async def test_nobody_there(client):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = await refused(client, Page(f"http://127.0.0.1:{port}/"))
    assert error.result == "unreachable"
    assert str(error)


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1", "http://127.0.0.1:99999/", "http://a b/", "http://.../"]
)
async def test_urls_that_lead_nowhere(client, url):
    assert (await refused(client, Page(url))).result == "unreachable"


async def test_nonsense_instead_of_http(client):
    async def speak(reader, writer):
        await reader.read(10)
        writer.write(b"\x00\xff nonsense\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert (await refused(client, Page(f"http://127.0.0.1:{port}/"))).result == "unreachable"


async def test_names_resolve_to_all_addresses_or_to_none():
    assert "127.0.0.1" in await resolve("localhost")
    assert await resolve("nobody.invalid") == ()
    assert await resolve("x" * 300) == ()


def test_urls():
    assert replica_of("http://a:9901/x") == "a:9901"
    assert replica_of("https://a/x", "10.0.0.1") == "10.0.0.1:443"
    assert replica_of("http://a:b") == "http://a:b"
    assert joined("http://a/", "/clusters") == "http://a/clusters"
    assert joined("http://a/stats", ";csv") == "http://a/stats;csv"
    assert with_query("http://a/m", "x=1") == "http://a/m?x=1"
    assert with_query("http://a/m?y", "x=1") == "http://a/m?y&x=1"
    assert with_query("http://a/m", "") == "http://a/m"
