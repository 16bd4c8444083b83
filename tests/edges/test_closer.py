"""Endpoints asked as users ask, against a real server that is good to its health check only."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable

import pytest

from upstream_guard.controller.closer import CloserLooks, as_users_ask, direct_ask
from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import CloserLook, RouteKey
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.routes import Ask

SHOP = ObjectRef("prod", "shop")
ASK = Ask(
    RouteKey("public", "Ingress prod/shop", "shop.example", "/healthz", tls=True),
    ("192.0.2.7",), 443, users_path="/",
)  # fmt: skip


class Liar:
    """Answers its health check, and resets whoever asks for anything else."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.at_once = self.most_at_once = 0
        self.pause = 0.0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.pause)
        self.at_once -= 1
        if head.startswith(b"GET /healthz "):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        else:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()


class Scene:
    def __init__(self, port: int, app: Liar) -> None:
        self.address, self.app = f"127.0.0.1:{port}", app
        self.looks: list[tuple[ObjectRef, CloserLook]] = []
        self.asks: tuple[Ask, ...] = (ASK,)
        self.probe_path = "/healthz"
        self.closer = CloserLooks(
            lambda _guard: self.asks, lambda _guard: self.probe_path, lambda _guard: False,
            lambda guard, look: self.looks.append((guard, look)), time.time,
        )  # fmt: skip


@pytest.fixture
async def scene():
    app = Liar()
    server = await asyncio.start_server(app, "127.0.0.1", 0)
    made = Scene(server.sockets[0].getsockname()[1], app)
    yield made
    made.closer.close()
    server.close()


async def test_it_is_told_what_the_app_does_to_users(
    scene: Scene, until: Callable[[Callable[[], object]], object]
) -> None:
    scene.closer.want(SHOP, (scene.address,))
    await until(lambda: scene.looks)
    ((guard, look),) = scene.looks
    assert (guard, look.address, look.path, look.fault) == (SHOP, scene.address, "/", Cause.RESET)
    (head,) = scene.app.asked
    assert head.startswith(b"GET / HTTP/1.1\r\n")
    assert b"Host: shop.example\r\n" in head
    assert b"upstream-guard-probe: 1\r\n" in head.lower()


async def test_an_endpoint_is_asked_once_at_a_time(
    scene: Scene, until: Callable[[Callable[[], object]], object]
) -> None:
    scene.app.pause = 0.2
    for _ in range(5):
        scene.closer.want(SHOP, (scene.address,))
    await until(lambda: scene.looks)
    assert scene.app.most_at_once == 1
    assert len(scene.app.asked) == 1


async def test_nothing_is_asked_where_probes_ask_as_users_do(scene: Scene) -> None:
    scene.asks = (Ask(ASK.key, ASK.addresses, 443),)
    scene.closer.want(SHOP, (scene.address,))
    scene.asks, scene.probe_path = (ASK,), ""
    scene.closer.want(SHOP, (scene.address,))
    assert scene.closer._tasks == {}


def test_the_request_is_that_of_a_user() -> None:
    other = Ask(RouteKey("public", "", "shop.example", "/shop"), ("192.0.2.7",), 80)
    assert as_users_ask([ASK], "/healthz") == RouteKey(*_parts(ASK, "/"))
    assert as_users_ask([other], "/healthz") == other.key
    assert as_users_ask([Ask(other.key, other.addresses, 80, "HEAD")], "/healthz") is None
    assert as_users_ask([other], "/shop") is None
    found = direct_ask("[2001:db8::7]:8443", ASK.key, tls=True)
    assert (found.addresses, found.port, found.key.tls) == (("2001:db8::7",), 8443, True)


def _parts(ask: Ask, path: str) -> tuple[str, str, str, str, bool]:
    return ask.key.gateway, ask.key.route, ask.key.host, path, ask.key.tls
