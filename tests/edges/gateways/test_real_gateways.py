"""Real gateways on loopback: what they count is what their clients got, request by request."""

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from pathlib import Path

import pytest

from upstream_guard.controller.gateway_targets import Target
from upstream_guard.controller.gateway_watch import GatewayWatch
from upstream_guard.core.evidence import Failure
from upstream_guard.core.model import DetectionPolicy, ObjectRef, ServicePort
from upstream_guard.core.sightings import failed_statuses
from upstream_guard.gateways.adapter import Known
from upstream_guard.gateways.client import GatewayClient
from upstream_guard.lab.gateways import GATEWAYS, envoy, support
from upstream_guard.lab.gateways.plain import Setup
from upstream_guard.lab.load import LoadGenerator
from upstream_guard.lab.load import Target as LoadTarget
from upstream_guard.lab.model import LabError
from upstream_guard.lab.packages import find_program
from upstream_guard.lab.ports import free_ports
from upstream_guard.lab.tools import cached_path

SHOP = ObjectRef("prod", "shop")
HOST = "shop.prod.test"
REQUESTS, RATE = 1_000, 250
SECONDS = 60.0
LOOK = 0.2


async def until(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


class Upstream:
    """Answers, and fails every so often in one way."""

    def __init__(self):
        self.mode, self.every, self.seen = "none", 4, 0
        self.address = ""

    async def serve(self, reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.seen += 1
                if self.mode != "none" and self.seen % self.every == 0 and self.fail(writer):
                    return
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def fail(self, writer):
        """Whether the connection is over."""
        if self.mode == "error":
            writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        elif self.mode == "malformed":
            writer.write(b"NONSENSE\r\n\r\n")
        elif self.mode == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        return True


@pytest.fixture
async def upstream():
    made = Upstream()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, backlog=1024)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


class Running:
    def __init__(self, name, port, metrics_url, admin_url):
        self.name, self.port = name, port
        self.metrics_url, self.admin_url = metrics_url, admin_url


@pytest.fixture
async def start():
    """Start a program that ends with the test."""
    processes = []

    async def run(folder, *argv):
        log = (folder / "log").open("wb")
        process = await asyncio.create_subprocess_exec(*map(str, argv), stdout=log, stderr=log)
        processes.append((process, log))
        return process

    run.processes = processes
    yield run
    for process, log in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()
        log.close()


def eds(folder: Path, *endpoints):
    """Tell Envoy its endpoints, at once and whole, as a controller does."""
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": h, "port_value": int(p)}}}}
        for h, p in (e.split(":") for e in endpoints)
    ]
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "prod/shop/80/da39a3ee5e",
        "endpoints": [{"lb_endpoints": hosts}],
    }
    partial = folder / ".eds.json"
    partial.write_text(json.dumps({"version_info": str(time.time()), "resources": [assignment]}))
    partial.rename(folder / "eds.json")


def envoy_config(folder: Path, port: int, admin: int):
    """One route to one cluster, with the names that Contour gives."""

    def listen(number):
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress_http",
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "shop",
                    "domains": [HOST],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "prod/shop/80/da39a3ee5e"}}],
                }
            ]
        },
    }  # fmt: skip
    cluster = {
        "name": "prod/shop/80/da39a3ee5e",
        "alt_stat_name": "prod_shop_80",
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {"path_config_source": {"path": str(folder / "eds.json")}, "resource_api_version": "V3"}
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
    }  # fmt: skip
    return {
        "admin": {"address": listen(admin)},
        "node": {"id": "a", "cluster": "b"},
        "static_resources": {
            "listeners": [
                {
                    "address": listen(port),
                    "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
                }
            ],
            "clusters": [cluster],
        },
    }


async def run_envoy(tmp_path, start, upstream):
    try:
        program = envoy.envoy_program()
    except LabError as error:
        pytest.skip(str(error))
    port, admin = free_ports(random.randint(20_000, 30_000), 2)
    eds(tmp_path, upstream.address)
    (tmp_path / "envoy.json").write_text(json.dumps(envoy_config(tmp_path, port, admin)))
    await start(tmp_path, program, "-c", tmp_path / "envoy.json", "--disable-hot-restart",
                "--concurrency", 1, "--log-level", "error")  # fmt: skip
    base = f"http://127.0.0.1:{admin}"
    return Running("contour", port, f"{base}/stats/prometheus", base)


async def run_plain(name, tmp_path, start, upstream):
    engine = GATEWAYS[name].engine
    program = cached_path(name) if name == "caddy" else find_program(name)
    if program is None or not program.exists():
        pytest.skip(f"{name} is not here")
    port, admin = free_ports(random.randint(20_000, 30_000), 2)
    setup = Setup(tmp_path, port, admin, {HOST: upstream.address})
    (tmp_path / engine.config_file).write_text(engine.config(setup))
    await start(tmp_path, *engine.command(program, setup))
    return Running(name, port, engine.metrics_url(setup), engine.admin_url(setup))


@pytest.fixture(params=["envoy", "haproxy", "caddy"])
async def gateway(request, tmp_path, start, upstream):
    name = request.param
    made = (
        run_envoy(tmp_path, start, upstream)
        if name == "envoy"
        else run_plain(name, tmp_path, start, upstream)
    )
    running = await made
    await until(lambda: support.listens(running.port))
    await answering(running)
    return running


async def answering(running):
    async def answer():
        return (await asyncio.to_thread(support.ask, running.port, HOST)).status

    deadline = time.monotonic() + SECONDS
    while await answer() != 200:
        assert time.monotonic() < deadline, "the gateway does not answer"


class Eye:
    """The watch, and what it told."""

    def __init__(self, watch):
        self.watch = watch
        self.deltas, self.detaches, self.looks = [], [], Counter()
        watch.listen(
            on_delta=self.deltas.append,
            on_detach=self.detaches.append,
            on_scrape=lambda _, result: self.looks.update([result]),
        )

    def statuses(self):
        return sum((Counter(d.statuses) for d in self.deltas), Counter())

    def failures(self):
        return sum((Counter(d.failures) for d in self.deltas), Counter())

    async def settled(self):
        """Both the list and the metrics have been read twice more."""
        wanted = self.looks["ok"] + 4
        await until(lambda: self.looks["ok"] >= wanted)


@pytest.fixture
async def eye(gateway, upstream):
    client = GatewayClient()
    watch = GatewayWatch(client, time.time, random.random, peace=LOOK, hurry=LOOK)
    made = Eye(watch)
    known = Known(SHOP, "", (ServicePort("", 80, 80),), frozenset({upstream.address}))
    watch.follow(
        [Target("edge", gateway.name, gateway.metrics_url, gateway.admin_url, known=(known,))]
    )
    await made.settled()
    yield made
    watch.follow(())
    await client.close()


async def burst(gateway):
    """1,000 requests at 250 a second, by what became of them."""
    records = []
    load = LoadGenerator(
        LoadTarget.parse(f"http://127.0.0.1:{gateway.port}/", HOST), rate=RATE, sink=records.append, timeout=30.0
    )  # fmt: skip
    await load.run(asyncio.Event(), REQUESTS / RATE)
    return Counter(record.outcome for record in records)


@pytest.mark.parametrize("mode", ["none", "error", "malformed", "reset"])
async def test_a_gateway_counts_what_clients_got_request_by_request(mode, eye, gateway, upstream):
    assert not eye.statuses(), "nobody else asks"
    upstream.mode = mode
    outcomes = await burst(gateway)
    await eye.settled()
    classes = gateway.name == "haproxy"
    expected = Counter()
    for outcome, n in outcomes.items():
        assert outcome.isdigit(), f"{n} clients got no status at all: {outcome}"
        expected[int(outcome) // 100 * 100 if classes else int(outcome)] += n
    print(f"{gateway.name} {mode}: clients {dict(outcomes)}, counted {dict(eye.statuses())} {({k.value: n for k, n in eye.failures().items()})}")  # fmt: skip
    assert expected.total() == REQUESTS
    assert eye.statuses() == expected
    # Go sends a GET again whose kept connection broke, so that Caddy hides most resets, or all.
    if mode != "none" and (mode, gateway.name) != ("reset", "caddy"):
        assert REQUESTS - expected[200] > REQUESTS / 50
    if mode in {"malformed", "reset"} and gateway.name != "caddy":
        kind = (
            Failure.PROTOCOL
            if (mode, gateway.name) == ("malformed", "contour")
            else Failure.RESPONSE
        )
        assert eye.failures()[kind] > 0
    # Of these the gateway's own make a window, and what the app has answered itself does not.
    window = sum(sum(failed_statuses(d, DetectionPolicy()).values()) for d in eye.deltas)
    own = 0 if mode == "error" else REQUESTS - expected[200]
    assert own * 0.99 <= window <= own, (
        "a failed attempt may be counted a look earlier than its answer"
    )


async def test_a_restart_loses_no_count_and_invents_none(tmp_path, start, upstream):
    """HAProxy's counters begin anew with the process."""
    gateway = await run_plain("haproxy", tmp_path, start, upstream)
    await until(lambda: support.listens(gateway.port))
    client = GatewayClient()
    watch = GatewayWatch(client, time.time, random.random, peace=LOOK, hurry=LOOK)
    eye = Eye(watch)
    known = Known(SHOP, "", (ServicePort("", 80, 80),), frozenset({upstream.address}))
    watch.follow(
        [Target("edge", "haproxy", gateway.metrics_url, gateway.admin_url, known=(known,))]
    )
    try:
        await eye.settled()
        for _ in range(5):
            await answering(gateway)
        await until(lambda: eye.statuses() == {200: 5})
        engine = GATEWAYS["haproxy"].engine
        setup = Setup(tmp_path, gateway.port, 0, {})
        old = start.processes[0][0]
        await start(tmp_path, *engine.command(find_program("haproxy"), setup), "-sf", old.pid)
        await until(lambda: old.returncode is not None)
        await eye.settled()
        for _ in range(3):
            await answering(gateway)
        await until(lambda: eye.statuses() == {200: 8})
    finally:
        watch.follow(())
        await client.close()


async def test_envoy_is_seen_to_let_go_of_an_endpoint(tmp_path, start, upstream):
    gateway = await run_envoy(tmp_path, start, upstream)
    await until(lambda: support.listens(gateway.port))
    other = "127.0.0.1:9"
    eds(tmp_path, upstream.address, other)
    client = GatewayClient()
    watch = GatewayWatch(client, time.time, random.random, peace=LOOK, hurry=LOOK)
    eye = Eye(watch)
    both = frozenset({upstream.address, other})
    known = Known(SHOP, "", (ServicePort("", 80, 80),), both)
    watch.follow([Target("edge", "contour", "", gateway.admin_url, known=(known,))])
    try:
        await until(lambda: any(v.usable == both for v in watch.views(SHOP)))
        watch.listed(SHOP, both - {other})
        (departure,) = watch.departures(SHOP)
        await eye.settled()
        assert watch.whereabouts("edge", departure).holding, "nobody has told Envoy yet"
        eds(tmp_path, upstream.address)
        await until(lambda: watch.whereabouts("edge", departure).left_everywhere)
        (detach,) = eye.detaches
        assert detach.endpoint == other
        assert 0 < detach.error < detach.seconds
    finally:
        watch.follow(())
        await client.close()
