"""Windows with everything they are wired to, against a scripted API server: the eyes are fed by hand."""

import time
from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from tests.edges.test_predictions import SHOP, Cluster, guard, pod

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import Failure, GatewayDelta, RouteKey, RouteSample, UpstreamView
from upstream_guard.core.model import EndpointSlice, ObjectRef, ProbeResult, SliceEndpoint
from upstream_guard.core.names import API_VERSION
from upstream_guard.core.predict.state import Change, ChangeKind
from upstream_guard.core.tuning import Evidence
from upstream_guard.lab.nameserver import Nameserver
from upstream_guard.probes.dns import Resolver
from upstream_guard.resources.status import parse_windows

KEY = RouteKey("public", "Ingress prod/shop", "shop.example")
PODS = ("u-a", "u-b", "u-c")


class Watched(Cluster):
    """Three pods that serve and are listed, on a clock that the test moves."""

    def __init__(self, api):
        super().__init__(api)
        self.ahead = 0.0
        self.app.detection._clock = lambda: time.time() + self.ahead

    @property
    def now(self):
        return time.time() + self.ahead

    def put(self, name, **fields):
        """With an address of its own."""
        new = pod(name, **fields)
        new = replace(new, ip=f"198.18.0.{'abc'.index(name) + 1}")
        self.state._pod(self.pods.get(name), new)
        self.pods[name] = new

    def list(self, *uids):
        endpoints = tuple(SliceEndpoint(("198.18.0.1",), True, True, False, uid) for uid in uids)
        ref = ObjectRef("prod", "shop-x")
        new = EndpointSlice(ref, "shop", "IPv4", (("http", 8080),), endpoints)
        self.state._slice(self.state._slices.get(SHOP, {}).get("shop-x"), new)
        self.engine.mark(SHOP)

    def probe(self, *uids, ok=True, cause=None):
        for uid in uids:
            result = ProbeResult(self.now, ok=ok, cause=cause, detail="connection refused")
            for _ in range(2):
                self.engine.tracker._on_result(f"prod/shop/{uid}", result)

    def ask(self, status=200, cause=None, **more):
        now = self.now
        self.app.detection.route(SHOP, RouteSample(now, now, KEY, status, cause, **more))

    def count(self, failures=None, seconds=1.0, **statuses):
        found = {int(key[1:]): n for key, n in statuses.items()}
        now = self.now
        self.app.detection.metrics(
            GatewayDelta("public", SHOP, now - seconds, now, found, failures=failures or {})
        )

    def rest(self, seconds=10.0):
        """Time passes, and all is well."""
        for _ in range(int(seconds)):
            self.ahead += 1
            self.ask()

    def windows(self):
        return parse_windows(self.wanted)

    def metric(self, name, **labels):
        return self.app.metrics.registry.get_sample_value(
            name, {"namespace": "prod", "guard": "shop", **labels}
        )


@pytest.fixture
async def shop(api, background, until):
    async def accept(request, body):
        return 200, {}

    api.handler = accept
    made = Watched(api)
    made.start(background)
    made.fill()
    await until(lambda: len(made.engine.tracker.ports(SHOP)) == 3)
    made.list(*PODS)
    made.probe(*PODS)
    await until(lambda: SHOP in made.app.detection._memories)
    await until(lambda: not made.app._statuses._wanted and "summary" in made.status)
    yield made
    made.engine.abandon()


def condition(status, kind="Healthy"):
    return next(c for c in status["conditions"] if c["type"] == kind)


async def test_a_window_by_route_probes_from_its_first_failure_to_its_end(shop, until):
    shop.rest(2)
    assert not shop.app.detection.hurried(SHOP)
    shop.ask(503, detail="reset reason: overflow")
    assert shop.app.detection.hurried(SHOP)
    await until(lambda: shop.events("WindowOpened"))
    (event,) = shop.events("WindowOpened")
    assert event["type"] == "Warning"
    for words in ("Ingress prod/shop", "1 × 503", "cause overload", "not predicted"):
        assert words in event["note"]
    await until(lambda: "windows" in shop.wanted)
    (window,) = shop.windows()
    assert (window.cause, window.closed, window.gateway) == (Cause.OVERLOAD, 0, "public")
    healthy = condition(shop.wanted)
    assert (healthy["status"], healthy["reason"]) == ("False", "WindowOpen")
    assert f"window {window.id} is open at public: overload" in healthy["message"]
    assert shop.metric("upstream_guard_windows_open") == 1

    shop.rest(10)
    await until(lambda: shop.events("WindowClosed"))
    (event,) = shop.events("WindowClosed")
    assert event["type"] == "Normal"
    assert "1 requests lost (estimated)" in event["note"]
    await until(lambda: shop.windows()[0].closed > 0)
    assert condition(shop.wanted)["reason"] != "WindowOpen"
    assert shop.metric("upstream_guard_windows_open") == 0
    labels = {"cause": "overload", "predicted": "false"}
    assert shop.metric("upstream_guard_windows_total", **labels) == 1
    assert shop.metric("upstream_guard_window_lost_requests_total", counted="estimated") == 1


async def test_failing_seconds_pass_while_a_window_is_open(shop, until):
    name = "upstream_guard_failing_seconds_total"
    assert shop.metric(name) == 0
    assert shop.metric("upstream_guard_window_lost_requests_total", counted="exact") == 0
    shop.rest(2)
    began = time.monotonic()
    for _ in range(30):
        shop.ahead += 1
        shop.ask(503)
    took = time.monotonic() - began  # of real time, which passes as well
    assert shop.metric("upstream_guard_windows_open") == 1
    assert 28.5 <= shop.metric(name) <= 29.5 + took
    shop.rest(20)
    await until(lambda: shop.events("WindowClosed"))
    assert 28.5 <= shop.metric(name) <= 29.5 + took
    assert shop.metric(name) == pytest.approx(
        sum(
            shop.metric("upstream_guard_window_seconds_total", cause=cause) or 0.0
            for cause in Cause
        ),
        abs=0.01,
    )


async def test_an_earlier_controllers_failing_seconds_are_not_counted_again(shop, until):
    shop.ask(503)
    await until(lambda: "windows" in shop.status)
    shop.ahead += 60
    shop.app.detection.forget(SHOP)
    shop.app.guard_seen({**guard(), "status": shop.status}, deleted=False)
    shop.engine.mark(SHOP)
    await until(lambda: SHOP in shop.app.detection._memories)
    assert shop.app.detection._memories[SHOP].watch.open
    assert shop.metric("upstream_guard_failing_seconds_total") == 0
    shop.ahead += 2
    shop.ask(503)
    assert shop.metric("upstream_guard_failing_seconds_total") == pytest.approx(2, abs=0.5)


async def test_conditions_are_told_with_their_reasons(shop, until):
    def told(status, reason):
        return shop.metric(
            "upstream_guard_condition", condition="Healthy", status=status, reason=reason
        )

    assert told("True", "AllServing") == 1
    shop.ask(503)
    await until(lambda: told("False", "WindowOpen") == 1)
    assert told("True", "AllServing") is None
    shop.app.guard_seen(guard(), deleted=True)
    left = generate_latest(shop.app.metrics.registry).decode()
    own = [line for line in left.splitlines() if 'guard="shop"' in line and "_created" not in line]
    assert [line for line in own if "condition" in line or "failing" in line] == []


async def test_while_a_window_stays_open_the_status_stays_as_it_is(shop, until, api):
    shop.ask(503, detail="reset reason: overflow")
    await until(lambda: "windows" in shop.status)
    before = shop.status
    for _ in range(300):
        shop.ahead += 0.1
        shop.ask(503, detail="reset reason: overflow")
        shop.engine.mark(SHOP)
    await until(lambda: not shop.engine._flush_scheduled)
    assert shop.wanted["windows"] == before["windows"]
    assert len(shop.events("WindowOpened")) == 1


async def test_direct_probes_alone(shop, until):
    shop.probe("u-a", ok=False, cause=Cause.REFUSED)
    await until(lambda: shop.events("WindowOpened"))
    assert "by direct probes" in shop.events("WindowOpened")[0]["note"]
    shop.probe("u-a")
    shop.ahead += 10
    await until(lambda: shop.events("WindowClosed"))


async def test_the_gateways_own_count_is_exact(shop, until):
    shop.count(s200=100)
    shop.ahead += 1
    shop.count(s200=60, s504=40, failures={Failure.TIMEOUT: 40})
    await until(lambda: shop.events("WindowOpened"))
    for _ in range(10):
        shop.ahead += 1
        shop.count(s200=100)
    await until(lambda: shop.events("WindowClosed"))
    note = shop.events("WindowClosed")[0]["note"]
    assert "40 requests lost (exact)" in note
    assert "cause read-timeout" in note
    assert shop.metric("upstream_guard_window_lost_requests_total", counted="exact") == 40


async def test_the_rate_that_gateways_count_is_reckoned_with(shop, until):
    rate = shop.app.predictions._rate
    assert rate(SHOP) is None
    shop.count(s200=400, seconds=5.0)
    assert rate(SHOP) == pytest.approx(80)
    shop.ahead += 60
    assert rate(SHOP) is None


async def test_where_no_gateway_counts_the_guards_own_word_is_taken(shop, until):
    said = guard(detection={"requestsPerSecond": 50})
    said["metadata"]["generation"] = 2
    shop.app.guard_seen(said, deleted=False)
    await until(lambda: shop.app.detection._memories[SHOP].scene.rate == 50)
    shop.rest(2)
    for _ in range(21):
        shop.ask(502)
        shop.ahead += 0.1
    shop.rest(10)
    await until(lambda: shop.events("WindowClosed"))
    (window,) = shop.windows()
    assert window.counted.value == "estimated"
    assert 100 <= 50 * window.seconds <= window.lost <= 50 * (window.seconds + 2)
    facts = shop.app.predictions._facts(shop.app.book.get(SHOP).guard, Change(ChangeKind.ROLLOUT))
    assert (facts.rate, facts.rate_evidence) == (50, Evidence.SPEC)


async def test_a_window_that_was_predicted_says_so(shop, until):
    spec = {"match": {"services": ["prod/shop"]}, "controller": "nginx"}
    shop.app.profile_seen(
        {
            "apiVersion": API_VERSION,
            "kind": "GatewayProfile",
            "metadata": {"name": "public"},
            "spec": spec,
        },
        deleted=False,
    )
    shop.rest(1)
    shop.deploy(generation=2, image="shop:2", status={"observedGeneration": 1})
    await until(lambda: "predictions" in shop.wanted)
    shop.engine.mark(SHOP)
    await until(lambda: shop.app.detection._memories[SHOP].scene.predictions)
    shop.ask(502)
    await until(lambda: shop.events("WindowOpened"))
    assert (
        "; predicted; under way: rollout of deployment/shop"
        in shop.events("WindowOpened")[0]["note"]
    )
    shop.rest(30)
    await until(lambda: shop.events("WindowClosed"))
    assert "; predicted; during the rollout" in shop.events("WindowClosed")[0]["note"]


async def test_a_window_of_a_rollout_counts_for_it(shop, until):
    shop.rest(1)
    shop.deploy(generation=2, image="shop:2", status={"observedGeneration": 1})
    await until(lambda: shop.app.predictions.under_way(SHOP))
    await until(lambda: "predictions" in shop.wanted)
    shop.engine.mark(SHOP)
    assert shop.app.detection.hurried(SHOP)
    shop.list("u-b", "u-c")
    shop.put("a", terminating=True)
    await until(lambda: not shop.engine._flush_scheduled)
    shop.ask(502)
    view = UpstreamView(shop.now, "public", "10.1.0.1", SHOP, frozenset({"198.18.0.1:8080"}))
    shop.app.detection.view(view)
    shop.rest(30)
    await until(lambda: shop.events("WindowClosed"))
    (window,) = shop.windows()
    assert window.change == "rollout of deployment/shop"
    assert shop.metric("upstream_guard_change_lost_requests_total", change="rollout") == 1
    assert shop.metric("upstream_guard_change_window_seconds_total", change="rollout") == 0


async def test_what_a_gateway_hides_is_one_quiet_event(shop, until):
    for _ in range(3):
        shop.count(s200=100, failures={Failure.CONNECT: 2, Failure.RETRY: 2})
    await until(lambda: shop.events("FailuresHidden"))
    assert len(shop.events("FailuresHidden")) == 1
    assert shop.events("WindowOpened") == []


async def test_a_restart_loses_no_window_and_closes_what_was_open(shop, until, api):
    shop.ask(503, detail="reset reason: overflow")
    await until(lambda: "windows" in shop.status)
    status = shop.status
    again = Watched(api)
    again.engine.activate()
    again.fill(body=guard(status=status))
    await until(lambda: SHOP in again.app.detection._memories)
    memory = again.app.detection._memories[SHOP]
    assert memory.windows == parse_windows(status)
    again.rest(12)
    assert memory.windows[0].closed > 0
    assert memory.windows[0].id == parse_windows(status)[0].id
    again.engine.abandon()


async def test_peace_writes_and_tells_nothing(shop, until, api):
    await shop.app._recorder.drain(5.0)
    before = [b for b in api.requests if b[0] == "POST"]
    for _ in range(50):
        shop.ahead += 1
        shop.ask()
        shop.count(s200=100, s404=2)
        shop.app.detection.view(
            UpstreamView(shop.now, "public", "r", SHOP, frozenset({"198.18.0.1:8080"}))
        )
        shop.engine.mark(SHOP)
    await until(lambda: not shop.engine._flush_scheduled)
    assert [b for b in api.requests if b[0] == "POST"] == before
    assert "windows" not in shop.wanted
    assert shop.app.detection._memories[SHOP].tick is None


async def test_a_guard_that_goes_takes_its_windows_along(shop, until):
    shop.ask(503)
    await until(lambda: shop.metric("upstream_guard_windows_open") == 1)
    body = guard()
    shop.app.guard_seen(body, deleted=True)
    shop.ask(503)
    assert not shop.app.detection.hurried(SHOP)
    assert shop.app.detection._memories == {}
    assert b'upstream_guard_windows_open{guard="shop"' not in generate_latest(
        shop.app.metrics.registry
    )


async def test_an_app_that_hangs_everywhere_is_told_by_probes_that_eject_nobody(shop, until):
    """Every endpoint is silent at once, so that the operator distrusts its probes, and evaluates so."""
    shop.rest(2)
    for name in "abc":
        gated = replace(shop.pods[name], gated=True, gate=True)
        shop.state._pod(shop.pods[name], gated)
        shop.pods[name] = gated
    shop.probe(*PODS, ok=False, cause=Cause.READ_TIMEOUT)
    shop.engine.mark(SHOP)
    await until(lambda: not shop.app.detection._memories[SHOP].scene.trusted)
    assert not shop.events("WindowOpened"), "probes alone say nothing then"
    shop.ahead += 1.5
    for _ in range(3):
        shop.ask(0, Cause.READ_TIMEOUT, detail="no response in time")
        shop.ahead += 0.5
    await until(lambda: "windows" in shop.wanted)
    (window,) = shop.windows()
    assert window.cause is Cause.READ_TIMEOUT
    assert "direct probes: 3 of 3 endpoints fail, read-timeout" in window.evidence
    assert len(window.endpoints) == 3


async def test_an_app_that_answers_500_has_no_window_by_any_eye(shop, until):
    shop.rest(2)
    detection, engine = shop.app.detection, shop.engine
    for uid in PODS:  # one after the other, as probes find it out
        result = ProbeResult(
            shop.now, ok=False, cause=Cause.APP_ERROR, detail="HTTP 500", status=500
        )
        for _ in range(2):
            engine.tracker._on_result(f"prod/shop/{uid}", result)
        engine.mark(SHOP)
        await until(
            lambda uid=uid: any(
                e.health.status == 500 and detection._memories[SHOP].keys[e.address] == uid
                for e in detection._memories[SHOP].scene.endpoints
            )
        )
        shop.count(s500=40)
        shop.ask(500)
        assert detection._memories[SHOP].watch.serial == 0, "no window was ever opened"


async def test_dns_is_asked_for_the_name_where_a_plain_gateway_fails_and_every_probe_is_good(
    shop, until
):
    domain = "svc.cluster.local"
    known = {f"kubernetes.default.{domain}": {"A": ["10.96.0.1"]}}
    with Nameserver(known) as server:
        shop.app.names._resolver = Resolver([server.address])
        await shop.app.names.run()
        shop.rest(2)
        shop.ask(502)
        shop.ask(502)
        assert len(server.asked) == 1, "a gateway that sends to pods has no use for the name"
        plain = {"match": {"services": ["prod/shop"]}, "controller": "nginx"}
        profile = {"metadata": {"name": "edge"}, "spec": plain}
        shop.app.profile_seen(profile, deleted=False)
        await until(lambda: shop.app.detection._memories[SHOP].facts)
        shop.ask(502)
        await until(lambda: server.asked[-1][0] == f"shop.prod.{domain}")
        await until(lambda: shop.windows() and shop.windows()[0].cause is Cause.DNS)
    assert f"shop.prod.{domain} does not resolve: no such name" in shop.windows()[0].evidence
