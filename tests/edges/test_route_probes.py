"""Route probes as the operator makes them: a real gateway on loopback, paced, bounded, and quiet at the end."""

import asyncio
import math
import time
from collections import Counter
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from upstream_guard.controller import route_probes as module
from upstream_guard.controller.route_probes import RouteProbes
from upstream_guard.core.causes import Cause
from upstream_guard.core.model import (
    DetectionPolicy,
    GatewayAddress,
    Guard,
    ObjectRef,
    Route,
    RouteProbePolicy,
    RouteWay,
    Service,
    ServicePort,
)
from upstream_guard.core.routes import Landscape
from upstream_guard.metrics import Metrics

SERVICE = Service(
    ObjectRef("prod", "shop"), "s", {}, "ClusterIP", "", (ServicePort("http", 80, 8080),)
)


class Gateway:
    """Answers every request with `status`; None never answers."""

    def __init__(self):
        self.status: int | None = 200
        self.hosts: Counter[str] = Counter()
        self.open = 0
        self.port = 0
        self._server = None
        self._tasks: set[asyncio.Task] = set()

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.open += 1
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                host = request.partition(b"\r\nHost: ")[2].partition(b"\r\n")[0].decode()
                self.hosts[host] += 1
                if self.status is None:
                    await reader.read()
                    return
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self.status)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(asyncio.current_task())
            writer.close()

    @property
    def asked(self):
        return self.hosts.total()


@pytest.fixture
async def gateway():
    made = Gateway()
    await made.start()
    yield made
    await made.stop()


class World:
    """The probes of some guards behind one gateway."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.metrics = Metrics(CollectorRegistry())
        self.samples = []
        self.touched = []
        self.suspected = set()
        self.probes = RouteProbes(
            self.metrics,
            lambda service: service in self.suspected,
            lambda guard, sample: self.samples.append((guard, sample)),
            self.touched.append,
        )

    def follow(self, name="shop", hosts=("shop.example",), path="", **policy):
        ref = ObjectRef("prod", name)
        detection = DetectionPolicy(route_probe=RouteProbePolicy(**policy))
        ways = tuple(RouteWay(SERVICE.ref, 80, (host,)) for host in hosts)
        address = GatewayAddress("127.0.0.1", (self.gateway.port,))
        services = frozenset({SERVICE.ref})
        route = Route("Ingress", ref, services, (), "edge", ways, (), (address,))
        guard = Guard(ref, "u", 1, 0.0, "shop", detection=detection)
        return self.probes.follow(guard, SERVICE, Landscape((route,)), path)

    def ask_now(self, way):
        way.turn = replace(way.turn, due=time.monotonic())
        self.probes._schedule.advance(way.key, way.turn.due)
        self.probes._kick.set()

    def count(self, result, guard="shop"):
        labels = {"namespace": "prod", "guard": guard, "gateway": "edge", "result": result}
        value = self.metrics.registry.get_sample_value("upstream_guard_route_probes_total", labels)
        return int(value or 0)


@pytest.fixture
def world(gateway):
    return World(gateway)


async def test_a_route_is_asked_and_samples_are_told(world, until, background):
    (status,) = world.follow(interval=0.1)
    assert (status.gateway, status.route) == ("edge", "Ingress prod/shop")
    assert (status.url, status.problem) == ("http://shop.example/", "")
    assert status.via == f"127.0.0.1:{world.gateway.port}"
    background(world.probes.run())
    await until(lambda: len(world.samples) >= 4)
    assert {guard for guard, _ in world.samples} == {ObjectRef("prod", "shop")}
    assert {sample.reused for _, sample in world.samples} == {False, True}
    assert world.count("ok") >= 4
    assert set(world.gateway.hosts) == {"shop.example"}


async def test_failures_are_counted_by_what_they_are(world, until, background):
    world.follow(interval=0.1)
    background(world.probes.run())
    await until(lambda: world.count("ok"))
    world.gateway.status = 503
    await until(lambda: world.count("503"))
    world.gateway.status = 404  # an answer of the app's
    before = world.count("ok")
    await until(lambda: world.count("ok") > before)


async def test_suspicion_hurries_and_calm_returns(world, until, background):
    world.follow(interval=30.0)
    background(world.probes.run())
    world.suspected.add(SERVICE.ref)
    began = time.monotonic()
    await until(lambda: world.gateway.asked >= 10)
    # Looked for every 0.25 s, and ten a second from then on.
    assert time.monotonic() - began < 3.5
    world.suspected.clear()
    ways = list(world.probes._ways.values())
    await until(lambda: ways[0].turn.gap > 1.0)


async def test_a_change_that_is_told_of_is_asked_about_at_once(world, until, background):
    world.follow(interval=300.0)
    background(world.probes.run())
    world.suspected.add(SERVICE.ref)
    began = time.monotonic()
    world.follow(interval=300.0)
    await until(lambda: world.gateway.asked)
    assert time.monotonic() - began < 1.0


async def test_what_is_waited_for_is_asked_about_a_second_time_and_no_more(
    world, until, background, monkeypatch
):
    """It takes two silent requests for a window, and an app that is always slow is no reason to ask it often."""
    monkeypatch.setattr(module, "WONDER_SECONDS", 0.1)
    monkeypatch.setattr(module, "_LAG_FLOOR", math.inf)  # a busy machine discards nothing
    world.follow(interval=300.0)
    (way,) = world.probes._ways.values()
    background(world.probes.run())
    for _ in range(2):
        world.gateway.status = 200
        world.samples.clear()
        world.ask_now(way)
        await until(lambda: len(world.samples) == 1)
        world.gateway.status = None
        world.samples.clear()
        world.ask_now(way)
        await until(lambda: len(world.samples) == 2)
        first, other = (sample for _, sample in world.samples)
        assert {first.cause, other.cause} == {Cause.READ_TIMEOUT}
        assert 0.1 <= other.sent - first.sent < 1.9, "before the first gave up"
        assert way.under_way == 0


async def test_an_unchanged_way_keeps_its_turn(world):
    world.follow(interval=30.0)
    (before,) = world.probes._ways.values()
    world.follow(interval=30.0)
    assert list(world.probes._ways.values()) == [before]
    world.follow(interval=20.0)
    (after,) = world.probes._ways.values()
    assert after.policy.interval == 20.0


async def test_a_gateway_out_of_reach_is_no_evidence_and_said_once(
    world, until, background, caplog
):
    caplog.set_level("WARNING")
    await world.gateway.stop()
    world.follow(interval=0.05)
    background(world.probes.run())
    await until(lambda: world.touched)
    (status,) = world.follow(interval=0.05)
    assert "does not reach the gateway" in status.problem
    refused = world.count("refused")
    await until(lambda: world.count("refused") > refused + 2)
    assert world.samples == []
    assert len(caplog.records) == 1
    assert world.touched == [ObjectRef("prod", "shop")]
    await world.gateway.start()
    await until(lambda: world.samples)
    (status,) = world.follow(interval=0.05)
    assert status.problem == ""
    assert len(world.touched) == 2


async def test_a_gateway_that_goes_down_is_evidence(world, until, background):
    world.follow(interval=0.05)
    background(world.probes.run())
    await until(lambda: world.samples)
    await world.gateway.stop()
    await until(lambda: any(s.cause is Cause.REFUSED for _, s in world.samples))


async def test_what_hangs_does_not_pile_up(world, until, background):
    world.follow(interval=0.1)
    background(world.probes.run())
    await until(lambda: world.samples)
    world.gateway.status = None
    skipped = "upstream_guard_route_probes_skipped_total"
    await until(lambda: world.metrics.registry.get_sample_value(skipped))
    assert world.gateway.open <= module.WAY_LIMIT + 1
    await until(lambda: world.count("read-timeout") >= 2)


async def test_the_budget_holds_for_all_together(world, until, background, monkeypatch):
    monkeypatch.setattr(module, "GATEWAY_RATE", 20.0)
    for number in range(10):
        hosts = tuple(f"h{number}-{n}.example" for n in range(8))
        world.follow(f"g{number}", hosts, interval=0.1)
    background(world.probes.run())
    began = time.monotonic()
    await until(lambda: world.gateway.asked >= 60)
    took = time.monotonic() - began
    assert world.gateway.asked <= 20 + 20 * took + 2
    # Nobody is left out: the longest waiting come first.
    await until(lambda: len(world.gateway.hosts) >= 70)


async def test_a_dropped_guard_is_asked_no_more(world, until, background):
    world.follow(interval=0.05)
    world.follow("other", ("other.example",), interval=0.05)
    background(world.probes.run())
    await until(lambda: world.count("ok") and world.count("ok", "other"))
    world.probes.drop(ObjectRef("prod", "shop"))
    world.probes.drop(ObjectRef("prod", "never-there"))
    await asyncio.sleep(0)
    asked, others = world.gateway.hosts["shop.example"], world.gateway.hosts["other.example"]
    await until(lambda: world.gateway.hosts["other.example"] >= others + 10)
    assert world.gateway.hosts["shop.example"] <= asked + module.WAY_LIMIT
    assert world.count("ok") == 0
    assert len(world.probes._ways) == 1


async def test_at_the_end_nothing_is_open(world, until, background):
    world.follow(interval=0.05)
    task = background(world.probes.run())
    await until(lambda: world.samples)
    world.gateway.status = None
    await until(lambda: world.gateway.open)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: world.gateway.open == 0)


async def test_what_cannot_be_asked_is_said_once(world, caplog):
    caplog.set_level("INFO")
    for _ in range(3):
        statuses = world.follow(path="", host="elsewhere.example")
    assert "elsewhere.example" in statuses[0].problem
    assert statuses[0].url == ""
    assert len(caplog.records) == 1
