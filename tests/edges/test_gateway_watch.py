"""The watch over gateways: differences, haste, failures, and what leaves. Faked at the transport."""

import asyncio
import json
import logging
import time

import httpx
import pytest

from upstream_guard.controller import gateway_watch as module
from upstream_guard.controller.gateway_meter import GatewayMeter
from upstream_guard.controller.gateway_reader import ReplicaReader
from upstream_guard.controller.gateway_targets import Target
from upstream_guard.controller.gateway_watch import GatewayWatch
from upstream_guard.core.holding import Departure
from upstream_guard.core.model import Guard, ObjectRef, ServicePort
from upstream_guard.gateways.adapter import Known
from upstream_guard.gateways.client import GatewayClient, ReadError
from upstream_guard.metrics import Metrics

SHOP = ObjectRef("prod", "shop")
A, B = "10.0.0.1:80", "10.0.0.2:80"
FAST = 0.01


def known(*endpoints):
    return Known(SHOP, "10.96.0.9", (ServicePort("", 80, 8080),), frozenset(endpoints))


class Envoy:
    """One replica, whose counters and endpoints a test moves."""

    def __init__(self, uptime=1000):
        self.counts = {}
        self.hosts = {A: "HEALTHY", B: "HEALTHY"}
        self.uptime = uptime
        self.asked = []
        self.status = 200

    def answer(self, request):
        self.asked.append((time.monotonic(), str(request.url.copy_with(query=None).path)))
        if self.status != 200:
            return httpx.Response(self.status)
        if request.url.path == "/clusters":
            return httpx.Response(200, text=json.dumps(self.clusters()))
        rows = [
            f'envoy_cluster_upstream_rq{{envoy_response_code="{code}",envoy_cluster_name="prod_shop_80"}} {n}'
            for code, n in self.counts.items()
        ]
        return httpx.Response(
            200, text="\n".join([*rows, f"envoy_server_uptime{{}} {self.uptime}"])
        )

    def clusters(self):
        hosts = [
            {
                "address": {"socket_address": {"address": e[:-3], "port_value": 80}},
                "health_status": {"eds_health_status": status},
            }
            for e, status in self.hosts.items()
        ]
        return {
            "cluster_statuses": [{"observability_name": "prod_shop_80", "host_statuses": hosts}]
        }


class Scene:
    def __init__(self, background, replicas):
        self.replicas = replicas
        self.client = GatewayClient(httpx.MockTransport(self.answer))
        self.watch = GatewayWatch(self.client, time.time, lambda: 0.5, peace=FAST, hurry=FAST)
        self.scrapes, self.deltas, self.views, self.detaches = [], [], [], []
        self.watch.listen(
            on_scrape=lambda *s: self.scrapes.append(s),
            on_delta=self.deltas.append,
            on_view=self.views.append,
            on_detach=self.detaches.append,
        )

    def answer(self, request):
        return self.replicas[request.url.host].answer(request)

    def follow(self, *hosts, admin=True, behind=None):
        self.watch.follow(
            Target(
                "edge",
                "contour",
                f"http://{host}/stats/prometheus",
                f"http://{host}" if admin else "",
                known=(behind or known(A, B),),
            )
            for host in hosts
        )

    def total(self, replica=None):
        found = {}
        for delta in self.deltas:
            if replica in {None, delta.replica}:
                for code, n in delta.statuses.items():
                    found[code] = found.get(code, 0) + n
        return found

    def read_since(self, host):
        """How often a replica's metrics have been asked for."""
        return sum(path != "/clusters" for _, path in self.replicas[host].asked)


@pytest.fixture
async def scene(background):
    made = Scene(background, {"10.1.0.1": Envoy(), "10.1.0.2": Envoy()})
    yield made
    made.watch.follow(())
    await made.client.close()


async def settled(scene, host, until):
    seen = scene.read_since(host)
    await until(lambda: scene.read_since(host) >= seen + 2)


async def test_counts_are_told_once_by_each_replica(scene, until):
    first, second = scene.replicas.values()
    first.counts, second.counts = {200: 1000}, {200: 5}
    scene.follow("10.1.0.1", "10.1.0.2")
    await settled(scene, "10.1.0.1", until)
    await settled(scene, "10.1.0.2", until)
    assert scene.total() == {}, "what was counted before is not ours"
    first.counts = {200: 1007, 503: 2}
    second.counts = {200: 6}
    await until(lambda: scene.total() == {200: 8, 503: 2})
    await settled(scene, "10.1.0.1", until)
    assert scene.total("10.1.0.1:80") == {200: 7, 503: 2}
    assert ("edge", "ok") in scene.scrapes


async def test_a_restarted_replica_is_counted_from_zero(scene, until):
    replica = scene.replicas["10.1.0.1"]
    replica.counts = {200: 1000}
    scene.follow("10.1.0.1")
    await settled(scene, "10.1.0.1", until)
    replica.counts, replica.uptime = {200: 3}, 0
    await until(lambda: scene.total() == {200: 3})


async def test_a_failure_is_told_once_and_backed_off_from_until_it_is_over(scene, until, caplog):
    caplog.set_level(logging.INFO)
    replica = scene.replicas["10.1.0.1"]
    replica.status = 503
    scene.follow("10.1.0.1", admin=False)
    await until(lambda: scene.scrapes.count(("edge", "status")) >= 4)
    assert [r.message for r in caplog.records if "cannot be read" in r.message] == [
        "The metrics of gateway edge cannot be read at 10.1.0.1:80: HTTP 503"
    ]
    times = [at for at, _ in replica.asked]
    assert times[3] - times[2] > times[1] - times[0], "it is asked less often"
    replica.status = 200
    await until(lambda: ("edge", "ok") in scene.scrapes)
    assert any("can be read at 10.1.0.1:80 again" in r.message for r in caplog.records)


async def test_one_replica_that_fails_keeps_no_other_from_being_read(scene, until):
    scene.replicas["10.1.0.1"].status = 500
    scene.follow("10.1.0.1", "10.1.0.2")
    await settled(scene, "10.1.0.2", until)
    assert {view.replica for view in scene.views} == {"10.1.0.2:80"}


async def test_what_left_is_stale_until_every_replica_has_let_go(scene, until):
    first, second = scene.replicas.values()
    scene.follow("10.1.0.1", "10.1.0.2")
    await until(lambda: len(scene.watch.views(SHOP)) == 2)
    scene.watch.listed(SHOP, frozenset({B}))
    (departure,) = scene.watch.departures(SHOP)
    assert departure.endpoint == A
    await until(lambda: set(scene.watch.whereabouts("edge", departure).holding) == {"10.1.0.1:80", "10.1.0.2:80"})  # fmt: skip
    first.hosts = {B: "HEALTHY"}
    await until(lambda: scene.watch.whereabouts("edge", departure).gone == ("10.1.0.1:80",))
    second.hosts = {A: "DRAINING", B: "HEALTHY"}
    await until(lambda: scene.watch.whereabouts("edge", departure).left_everywhere)
    assert sorted(d.replica for d in scene.detaches) == ["10.1.0.1:80", "10.1.0.2:80"]
    assert all(0 <= d.error <= d.seconds < 5 for d in scene.detaches)


async def test_a_replica_that_was_never_read_leaves_a_departure_open(scene, until):
    scene.replicas["10.1.0.1"].status = 500
    scene.follow("10.1.0.1")
    await until(lambda: ("edge", "status") in scene.scrapes)
    where = scene.watch.whereabouts("edge", Departure(SHOP, A, time.time()))
    assert where.unread == ("10.1.0.1:80",)
    assert not where.left_everywhere


async def test_a_change_makes_haste(scene, until):
    scene.watch._peace = 60.0
    scene.follow("10.1.0.1")
    await until(lambda: scene.read_since("10.1.0.1") == 1)
    await asyncio.sleep(5 * FAST)
    assert scene.read_since("10.1.0.1") == 1
    scene.watch.hurry(SHOP, 60.0)
    await until(lambda: scene.read_since("10.1.0.1") >= 5)


async def test_a_slice_change_makes_haste_by_itself(scene, until):
    scene.watch._peace = 60.0
    scene.follow("10.1.0.1")
    await until(lambda: scene.read_since("10.1.0.1") == 1)
    scene.watch.listed(SHOP, frozenset({A}))
    await until(lambda: scene.read_since("10.1.0.1") >= 3)


async def test_targets_that_go_are_read_no_more_and_those_that_stay_keep_what_they_know(
    scene, until
):
    first, second = scene.replicas.values()
    second.counts = {200: 10}
    scene.follow("10.1.0.1", "10.1.0.2")
    await settled(scene, "10.1.0.2", until)
    scene.follow("10.1.0.2", behind=known(B))
    asked = len(first.asked)
    second.counts = {200: 12}
    await until(lambda: scene.total() == {200: 2})
    assert len(first.asked) <= asked + 1
    assert {view.replica for view in scene.watch.views(SHOP)} == {"10.1.0.2:80"}


async def test_too_many_targets_are_left_out_and_that_is_told_once(scene, monkeypatch, caplog):
    monkeypatch.setattr(module, "MAX_TARGETS", 1)
    for _ in range(2):
        scene.follow("10.1.0.1", "10.1.0.2")
    assert len(scene.watch._followed) == 1
    assert len([r for r in caplog.records if "are not read" in r.message]) == 1


async def test_a_mistake_of_ours_is_told_and_the_replica_read_anew(scene, until, caplog):
    broken = True

    def on_view(_):
        if broken:
            raise KeyError("a mistake")

    scene.watch.listen(on_view=on_view)
    scene.follow("10.1.0.1")
    await until(lambda: all(f.task.done() for f in scene.watch._followed.values()))
    broken = False
    scene.follow("10.1.0.1")
    assert any("begins anew" in r.message for r in caplog.records)
    await settled(scene, "10.1.0.1", until)


async def test_a_name_with_several_addresses_is_several_replicas(scene, monkeypatch):
    async def resolve(host):
        assert host == "edge.example.test"
        return ("10.1.0.1", "10.1.0.2")

    monkeypatch.setattr(module, "resolve", resolve)
    found = await scene.watch._expand([Target("edge", "contour", "http://edge.example.test/m")])
    assert [t.replica for t in found] == ["10.1.0.1:80", "10.1.0.2:80"]


async def test_addresses_are_kept_where_dns_fails(scene, monkeypatch):
    answers = [("10.1.0.1",), ()]

    async def resolve(_):
        return answers.pop(0)

    monkeypatch.setattr(module, "resolve", resolve)
    monkeypatch.setattr(module, "RESOLVED_SECONDS", 0.0)
    for _ in range(2):
        (target,) = await scene.watch._expand([Target("e", "contour", "http://edge.test/m")])
        assert target.address == "10.1.0.1"


class TestReader:
    async def test_replicas_that_answer_by_turns_are_told_and_not_counted(self):
        turns = [Envoy(uptime=1000), Envoy(uptime=500)]
        turns[0].counts, turns[1].counts = {200: 1000}, {200: 7}

        def answer(request):
            turns.reverse()
            return turns[0].answer(request)

        client = GatewayClient(httpx.MockTransport(answer))
        target = Target("edge", "contour", "http://edge/m", known=(known(),))
        reader = ReplicaReader(target, client, time.time)
        assert (await reader.look_at_metrics()).deltas == ()
        for _ in range(3):
            with pytest.raises(ReadError, match="by turns") as error:
                await reader.look_at_metrics()
            assert error.value.result == "mixed"

    async def test_a_prometheus_has_every_replica(self, tmp_path):
        value = {"10.1.0.1:8002": 5, "10.1.0.2:8002": 7}
        asked = []

        def answer(request):
            asked.append((request.headers.get("authorization"), request.content.decode()))
            result = [
                {
                    "metric": {
                        "__name__": "envoy_cluster_upstream_rq",
                        "envoy_cluster_name": "prod_shop_80",
                        "envoy_response_code": "503",
                        "instance": instance,
                    },
                    "value": [1.0, str(n)],
                }
                for instance, n in value.items()
            ]
            data = {"resultType": "vector", "result": result}
            return httpx.Response(200, json={"status": "success", "data": data})

        (tmp_path / "prom").write_text("secret\n")
        target = Target(
            "edge", "contour", prometheus_url="http://prom:9090/", prometheus_token="prom",
            known=(known(),),
        )  # fmt: skip
        client = GatewayClient(httpx.MockTransport(answer))
        reader = ReplicaReader(target, client, time.time, tmp_path)
        assert (await reader.look_at_prometheus()).deltas == ()
        value.update({"10.1.0.1:8002": 9, "10.1.0.3:8002": 100})
        look = await reader.look_at_prometheus()
        assert {d.replica: dict(d.statuses) for d in look.deltas} == {
            "10.1.0.1:8002": {503: 4},
            "10.1.0.2:8002": {},
        }
        assert asked[0][0] == "Bearer secret"
        assert "envoy_cluster_upstream_rq" in asked[0][1]

    async def test_a_token_that_cannot_be_read_is_told(self, tmp_path):
        target = Target("e", "contour", prometheus_url="http://p", prometheus_token="x", known=(known(),))  # fmt: skip
        client = GatewayClient(httpx.MockTransport(lambda _: httpx.Response(200)))
        with pytest.raises(ReadError) as error:
            await ReplicaReader(target, client, time.time, tmp_path).look_at_prometheus()
        assert error.value.result == "token"

    async def test_a_page_that_is_none_is_told(self):
        client = GatewayClient(httpx.MockTransport(lambda _: httpx.Response(200, text="<html>")))
        target = Target("e", "contour", "http://e/m", "http://e", known=(known(),))
        reader = ReplicaReader(target, client, time.time)
        with pytest.raises(ReadError) as error:
            await reader.look_at_list()
        assert error.value.result == "unreadable"
        assert (await reader.look_at_metrics()).deltas == ()


async def test_metrics_of_the_operator(scene, until):
    metrics = Metrics()
    guard = Guard(ObjectRef("prod", "g"), "u", 1, 0.0, "shop")
    meter = GatewayMeter(metrics, lambda service: [guard] if service == SHOP else [])
    meter.attach(scene.watch)
    replica = scene.replicas["10.1.0.1"]
    scene.follow("10.1.0.1")
    await settled(scene, "10.1.0.1", until)
    replica.counts = {200: 3, 503: 2}
    scene.watch.listed(SHOP, frozenset({B}))

    def value(name, **labels):
        return metrics.registry.get_sample_value(name, labels)

    own = {"namespace": "prod", "guard": "g", "gateway": "edge"}
    await until(lambda: value("upstream_guard_gateway_requests_total", **own, code="504") == 0)
    await until(lambda: value("upstream_guard_gateway_requests_total", **own, code="503") == 2)
    await until(lambda: value("upstream_guard_gateway_stale_endpoints", **own) == 1)
    replica.hosts = {B: "HEALTHY"}
    await until(lambda: value("upstream_guard_gateway_stale_endpoints", **own) == 0)
    assert value("upstream_guard_gateway_requests_total", **own, code="200") == 3
    assert value("upstream_guard_gateway_observed_detach_seconds_count", gateway="edge") == 1
    assert value("upstream_guard_gateway_scrapes_total", gateway="edge", result="ok") > 2
