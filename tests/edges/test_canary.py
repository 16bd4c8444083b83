"""The canary's edges: real sockets on loopback, an API server of scripted answers, a gateway that is late."""

import asyncio
import contextlib
import time
from dataclasses import replace

import httpx
import pytest

from upstream_guard.controller import canary
from upstream_guard.controller.asker import Asker
from upstream_guard.controller.canary import NO_ADDRESS, CanaryOptions, CanaryRunner
from upstream_guard.controller.canary_objects import CanaryObjects
from upstream_guard.controller.canary_ways import (
    Front,
    WayFinder,
    gateway_addresses,
    reachable_address,
    service_addresses,
)
from upstream_guard.controller.measurements import Measurements
from upstream_guard.controller.responder import Responders
from upstream_guard.core.canary import (
    Absence,
    CanaryPlan,
    Candidate,
    Endpoint,
    Pace,
    Sample,
    Unmeasured,
)
from upstream_guard.core.model import EndpointSlice, ObjectRef, SliceEndpoint
from upstream_guard.core.names import CANARY_ENDPOINT_HEADER, CANARY_TOKEN_HEADER
from upstream_guard.core.status import GuardStatus
from upstream_guard.core.tuning import (
    CLUSTER_IP,
    Evidence,
    GatewayFacts,
    GatewayKind,
    GatewayProfile,
)
from upstream_guard.gateways.canary import plan_canary
from upstream_guard.metrics import Metrics
from upstream_guard.resources.canary import canary_route, canary_service, canary_slice
from upstream_guard.resources.status import build_status

SPACE = "upstream-guard-system"
ADDRESS = "198.18.0.9"
SECONDS = 30.0


async def within(condition, seconds=SECONDS):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.01)


# The endpoints.


@pytest.fixture
async def responders():
    seen = []
    both = Responders("secret", seen.append)
    await both.start("127.0.0.1", 0)
    both.seen = seen
    yield both
    await both.stop()


async def exchange(port, *requests):
    """Send requests on one connection, one after another; the answers, and whether it was closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for request in requests:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        answers.append(head.decode() + (await reader.readexactly(2)).decode())
    with contextlib.suppress(TimeoutError):
        rest = await asyncio.wait_for(reader.read(1), 0.1)
        writer.close()
        return answers, rest == b""
    writer.close()
    return answers, False


def request(token="secret", version="1.1"):
    header = f"{CANARY_TOKEN_HEADER.lower()}: {token}\r\n" if token else ""
    return f"GET / HTTP/{version}\r\nHost: x\r\n{header}\r\n".encode()


async def test_each_endpoint_says_which_it_is_and_ends_the_connection(responders):
    for endpoint in Endpoint:
        (answer,), closed = await exchange(responders.ports[endpoint], request())
        assert f"{CANARY_ENDPOINT_HEADER}: {endpoint.value}\r\n" in answer
        assert "Connection: close" in answer
        assert answer.endswith(f"{endpoint.value}\n")
        assert closed
    assert [(a.endpoint, a.reused) for a in responders.seen] == [
        (Endpoint.A, False),
        (Endpoint.B, False),
    ]


async def test_strangers_are_answered_and_not_counted(responders):
    answers, _ = await exchange(responders.ports[Endpoint.A], request(token="guess"))
    assert answers[0].startswith("HTTP/1.1 200")
    await exchange(responders.ports[Endpoint.A], request(token=""))
    assert responders.seen == []


async def test_kept_connections_are_told_apart_and_can_be_ended(responders):
    responders.keeping = set(Endpoint)
    answers, closed = await exchange(responders.ports[Endpoint.A], request(), request())
    assert "Connection: keep-alive" in answers[1]
    assert not closed
    assert [a.reused for a in responders.seen] == [False, True]

    reader, writer = await asyncio.open_connection("127.0.0.1", responders.ports[Endpoint.A])
    writer.write(request())
    await reader.readuntil(b"\r\n\r\na\n")
    responders.end_connections(Endpoint.A)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert responders.keeping == {Endpoint.B}


async def test_http_1_0_ends_its_connection(responders):
    responders.keeping = set(Endpoint)
    _, closed = await exchange(responders.ports[Endpoint.A], request(version="1.0"))
    assert closed


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000]
)
async def test_nonsense_ends_the_connection_and_nothing_else(responders, nonsense):
    reader, writer = await asyncio.open_connection("127.0.0.1", responders.ports[Endpoint.A])
    writer.write(nonsense)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    answers, _ = await exchange(responders.ports[Endpoint.A], request())
    assert answers


# The requests.


@pytest.mark.parametrize(
    ("answer", "result", "detail"),
    [
        (httpx.Response(200, headers={CANARY_ENDPOINT_HEADER: "a", "Server": "envoy"}), "ok", ""),
        (httpx.Response(404), "foreign", "status 404"),
        (httpx.Response(308, headers={"Location": "https://x/"}), "foreign", "status 308"),
        (httpx.Response(503), "failed", "status 503"),
        (httpx.ConnectError("no"), "failed", "ConnectError"),
        (httpx.ReadTimeout("no"), "failed", "ReadTimeout"),
    ],
)
async def test_what_a_request_brought(answer, result, detail):
    asked = []

    def handle(request):
        asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    asker = Asker("secret", lambda reply: None, httpx.MockTransport(handle))
    reply = await asker.look("http://198.18.0.1:8080", "canary.invalid")
    await asker.close()
    assert (reply.result, reply.detail) == (result, detail)
    (request,) = asked
    assert request.headers["Host"] == "canary.invalid"
    assert request.headers[CANARY_TOKEN_HEADER] == "secret"
    assert request.headers["Connection"] == "close"
    assert str(request.url) == "http://198.18.0.1:8080/"


async def test_requests_without_an_answer_are_bounded():
    waiting = asyncio.Event()

    async def handle(request):
        await waiting.wait()
        return httpx.Response(200)

    replies = []
    asker = Asker("secret", replies.append, httpx.MockTransport(handle))
    for _ in range(200):
        asker.ask("http://198.18.0.1", "")
    assert asker.sent == 64
    waiting.set()
    await within(lambda: len(replies) == 64)
    await asker.close()


# The objects.

CONTOUR = CanaryPlan(GatewayKind.INGRESS_CLASS, "contour", "canary.upstream-guard.invalid")
PUBLIC = CanaryPlan(GatewayKind.GATEWAY, "infra/public", "canary.upstream-guard.invalid")
MADE = {"metadata": {"name": "canary-x", "namespace": SPACE, "uid": "u1"}}


def test_slices_say_everything_that_some_controller_wants():
    slice_ = canary_slice(MADE, Endpoint.B, ADDRESS, 8002, None)
    metadata = slice_["metadata"]
    assert metadata["name"].startswith("canary-x-"), "ingress-nginx wants the Service's name first"
    assert metadata["labels"]["kubernetes.io/service-name"] == "canary-x"
    assert metadata["labels"]["app.kubernetes.io/part-of"] == "upstream-guard"
    assert metadata["ownerReferences"][0]["uid"] == "u1"
    assert slice_["ports"] == [{"name": "http", "port": 8002, "protocol": "TCP"}]
    (endpoint,) = slice_["endpoints"]
    assert endpoint["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert slice_["addressType"] == "IPv4"
    assert canary_slice(MADE, Endpoint.B, "2001:db8::1", 8002, None)["addressType"] == "IPv6"


@pytest.mark.parametrize(
    ("state", "conditions"),
    [
        (Absence.NOT_READY, {"ready": False, "serving": False, "terminating": False}),
        (Absence.TERMINATING, {"ready": False, "serving": True, "terminating": True}),
    ],
)
def test_an_endpoint_goes_as_pods_go(state, conditions):
    (endpoint,) = canary_slice(MADE, Endpoint.A, ADDRESS, 8001, state)["endpoints"]
    assert endpoint["conditions"] == conditions
    assert canary_slice(MADE, Endpoint.A, ADDRESS, 8001, Absence.ABSENT)["endpoints"] == []


def test_each_kind_of_gateway_gets_its_kind_of_route():
    ingress = canary_route(CONTOUR, MADE)
    assert ingress["spec"]["ingressClassName"] == "contour"
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == [CONTOUR.host]
    route = canary_route(PUBLIC, MADE)
    assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "infra"}]
    assert route["spec"]["hostnames"] == [PUBLIC.host]
    for kind in (GatewayKind.PROFILE, GatewayKind.CLUSTER_IP):
        assert canary_route(replace(CONTOUR, kind=kind), MADE) is None
    assert "selector" not in canary_service(CONTOUR, SPACE)["spec"]


# Which gateways, and where.


def facts(kind=GatewayKind.INGRESS_CLASS, name="contour", controller="contour"):
    return GatewayFacts(name, controller, 0.03, 0.1, False, Evidence.BUILTIN, "code", kind=kind)


@pytest.mark.parametrize(
    ("gateway", "profile", "words"),
    [
        (facts(), GatewayProfile("p", frozenset({"contour"}), canary=False), "canary.mode Off"),
        (facts(name="alb", controller="aws-alb"), None, "load balancer"),
        (facts(name="mine", controller="mine.example/x"), None, "its controller is not known"),
        (facts(name="(no class)", controller="unknown"), None, "name no class"),
        (
            facts(GatewayKind.PROFILE, "edge", "nginx"),
            GatewayProfile("edge", address="http://198.18.0.1"),
            f"lead a host of your choice to Service {SPACE}/canary-gatewayprofile-edge, port 80",
        ),
    ],
)
def test_why_a_gateway_is_not_measured(gateway, profile, words):
    plan = plan_canary(gateway, [profile] if profile else [], SPACE)
    assert isinstance(plan, Unmeasured)
    assert plan.reason.startswith("not measured: ")
    assert words in plan.reason


def test_how_gateways_are_measured():
    plan = plan_canary(facts(), [], SPACE)
    assert plan == CanaryPlan(
        GatewayKind.INGRESS_CLASS,
        "contour",
        "canary-ingressclass-contour.upstream-guard.invalid",
        expected=0.03,
    )
    allowed = GatewayProfile("p", frozenset({"mine"}), canary_requests=60)
    unknown = plan_canary(facts(name="mine", controller="mine.example/x"), [allowed], SPACE)
    assert isinstance(unknown, CanaryPlan)
    assert unknown.requests_per_minute == 60
    edge = GatewayProfile("edge", address="http://198.18.0.1/", canary_host="ug.example.com")
    plain = plan_canary(facts(GatewayKind.PROFILE, "edge", "nginx"), [edge], SPACE)
    assert isinstance(plain, CanaryPlan)
    assert (plain.host, plain.url) == ("ug.example.com", "http://198.18.0.1/")
    proxy = plan_canary(CLUSTER_IP, [], SPACE)
    assert isinstance(proxy, CanaryPlan)
    assert (proxy.host, proxy.keeps) == ("", False)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("198.18.0.9", ADDRESS),
        ("198.18.0.9:9443", ADDRESS),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:9443", "2001:db8::1"),
        ("127.0.0.1", ""),
        ("169.254.1.1", ""),
        ("::1", ""),
        ("0.0.0.0", ""),
        ("operator.example.com", ""),
        ("", ""),
        ("[", ""),
    ],
)
def test_addresses_that_a_slice_may_hold(text, address):
    assert reachable_address(text) == address


class Slices:
    """As much of the cluster's state as replicas are found by."""

    def __init__(self, *slices):
        self.known = slices

    def slices_of(self, service):
        return tuple(s for s in self.known if s.service == service.name)


def envoys(*addresses):
    return EndpointSlice(
        ObjectRef("projectcontour", "envoy-1"),
        "envoy",
        "IPv4",
        (("http", 8080), ("https", 8443)),
        tuple(SliceEndpoint((a,), True, True, False, "", "", "") for a in addresses),
    )


async def test_a_gateway_is_asked_through_each_replica(api):
    ingress = {"status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}}}
    envoy = {
        "metadata": {"name": "envoy", "namespace": "projectcontour"},
        "spec": {
            "clusterIP": "198.19.0.7",
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "https", "port": 443, "targetPort": 8443},
            ],
        },
        **ingress,
    }

    async def serve(request, body):
        if request.path.endswith("/services"):
            return 200, {"items": [{"metadata": {"name": "x"}}, envoy]}
        assert request.path.endswith(f"/ingresses/{CONTOUR.service}")
        return 200, ingress

    api.handler = serve
    ways = WayFinder(api.client, Slices(envoys("198.18.1.1", "198.18.1.2")))
    front = await ways.find(CONTOUR, MADE)
    assert front == Front(
        ("http://lb.example.com:80",), ObjectRef("projectcontour", "envoy"), ("http", 8080)
    )
    assert ways.urls(front) == ("http://198.18.1.1:8080", "http://198.18.1.2:8080")
    assert WayFinder(api.client, Slices()).urls(front) == front.urls


async def test_what_profiles_and_gateways_say_of_addresses(api):
    gateway = {
        "spec": {
            "listeners": [{"protocol": "HTTPS", "port": 443}, {"protocol": "HTTP", "port": 8080}]
        },
        "status": {"addresses": [{"value": "198.18.0.3"}]},
    }

    async def serve(request, body):
        return 200, {"items": []} if request.path.endswith("/services") else gateway

    api.handler = serve
    ways = WayFinder(api.client, Slices())
    assert (await ways.find(replace(CONTOUR, url="http://edge:81/"), MADE)).urls == (
        "http://edge:81",
    )
    assert (await ways.find(PUBLIC, MADE)).urls == ("http://198.18.0.3:8080",)
    proxy = replace(CONTOUR, kind=GatewayKind.CLUSTER_IP)
    assert (await ways.find(proxy, {"spec": {"clusterIP": "198.19.0.2"}})).urls == (
        "http://198.19.0.2:80",
    )
    assert (await ways.find(proxy, {"spec": {"clusterIP": "None"}})).urls == ()
    assert gateway_addresses({"spec": {}, "status": {}}) == ((), 80)
    assert service_addresses({"spec": {"clusterIP": "None"}}) == ()


# All of it.


class Store:
    """Keeps what is applied, as an API server would; slices are seen by gateways `late` seconds later."""

    def __init__(self, api):
        self.objects = {}
        self.changes = []
        self.writes = []
        self.refuse = 0
        api.handler = self.serve

    async def serve(self, request, body):
        verb, path = request.method, request.path
        if verb == "GET" and path.rpartition("/")[2] in {
            "services",
            "endpointslices",
            "ingresses",
            "httproutes",
        }:
            found = [o for p, o in self.objects.items() if p.rpartition("/")[0] == path]
            return 200, {"items": found}
        if verb != "GET":
            self.writes.append((verb, path))
        if verb == "PATCH" and self.refuse:
            return self.refuse, {"kind": "Status", "code": self.refuse, "reason": "Forbidden"}
        if verb == "PATCH":
            assert request.query["fieldManager"] == "upstream-guard"
            self.put(path, body)
        if path not in self.objects:
            return 404, {"kind": "Status", "code": 404, "reason": "NotFound"}
        return 200, self.objects.pop(path) if verb == "DELETE" else self.objects[path]

    def put(self, path, body):
        known = self.objects.get(path)
        body["metadata"]["uid"] = known["metadata"]["uid"] if known else f"uid-{len(self.writes)}"
        if "/services/" in path:
            body["spec"]["clusterIP"] = "198.19.0.2"
        self.objects[path] = body
        if "endpoints" in body:
            self.changes.append((time.monotonic(), self.listed()))

    def listed(self):
        return [
            (endpoint["addresses"][0], o["ports"][0]["port"])
            for o in self.objects.values()
            for endpoint in o.get("endpoints", ())
            if endpoint["conditions"]["ready"]
        ]

    def seen(self, late):
        known = [list_ for at, list_ in self.changes if at <= time.monotonic() - late]
        return known[-1] if known else []


class Gateway:
    """A proxy that follows the store late; with `keep` it holds on to one upstream connection."""

    def __init__(self, store, late, keep=False):
        self.store, self.late, self.keep = store, late, keep
        self.lock = asyncio.Lock()
        self.upstream = None
        self.version = "late/1"
        self.requests = 0
        self.turn = 0
        self.server = None

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        host, port = self.server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        answer = await self.forward(head.replace(b"Connection: close\r\n", b""))
        writer.write(answer.replace(b"\r\n", f"\r\nServer: {self.version}\r\n".encode(), 1))
        writer.close()

    async def forward(self, head):
        # A kept connection carries one request at a time.
        async with self.lock if self.keep else contextlib.nullcontext():
            for _ in range(2):
                upstream = self.upstream or await self.connect()
                self.upstream = None
                if upstream is None:
                    return b"HTTP/1.1 503 None\r\nContent-Length: 0\r\n\r\n"
                answer = await self.ask(*upstream, head)
                if answer is not None:
                    return answer
        return b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"

    async def connect(self):
        listed = self.store.seen(self.late)
        self.turn += 1
        if not listed:
            return None
        return await asyncio.open_connection("127.0.0.1", listed[self.turn % len(listed)][1])

    async def ask(self, reader, writer, head):
        try:
            writer.write(head)
            answer = await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        if self.keep and b"Connection: keep-alive" in answer:
            self.upstream = (reader, writer)
        else:
            writer.close()
        return answer


class FaithfulGateway(Gateway):
    """Keeps an upstream connection for as long as its client keeps his, and only for him, as HAProxy does."""

    async def serve(self, reader, writer):
        upstream, again = None, True
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while again:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                again = b"Connection: close" not in head
                upstream = upstream or await self.connect()
                if upstream is None:
                    writer.write(b"HTTP/1.1 503 None\r\nContent-Length: 0\r\n\r\n")
                    continue
                upstream[1].write(head.replace(b"Connection: close\r\n", b""))
                answer = await upstream[0].readuntil(b"\r\n\r\n")
                answer += await upstream[0].readexactly(2)
                if b"Connection: keep-alive" not in answer:
                    upstream[1].close()
                    upstream = None
                writer.write(answer)
        writer.close()


class Scene:
    """A runner with its surroundings."""

    def __init__(self, api, plans, address=ADDRESS):
        self.store = Store(api)
        self.wanted = {plan.key: plan for plan in plans}
        self.pods = 0
        self.measurements = Measurements()
        self.metrics = Metrics()
        self.news = 0
        self.runner = CanaryRunner(
            api.client,
            Slices(),
            CanaryOptions(SPACE, address, "127.0.0.1"),
            self.measurements,
            self.metrics,
            self.want,
            self.told,
        )

    async def want(self):
        return {key: Candidate(plan, self.pods) for key, plan in self.wanted.items()}

    def told(self):
        self.news += 1

    def sample(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def toggles(self, result="done"):
        return self.sample(
            "upstream_guard_canary_toggles_total",
            kind="GatewayProfile",
            gateway="edge",
            result=result,
        )


EDGE = CanaryPlan(GatewayKind.PROFILE, "edge", "ug.example.com", expected=0.1)


async def test_a_late_gateway_is_measured_through_it(api, background):
    scene = Scene(api, [EDGE])
    async with Gateway(scene.store, late=1.0) as gateway:
        scene.wanted = {EDGE.key: replace(EDGE, url=gateway.url)}
        background(scene.runner.run())
        await within(lambda: scene.toggles() == 2, 90)
        found = scene.measurements.of(EDGE.key)
        # Wide: on a busy machine a request may be late, and then so is what it says.
        assert 0.7 <= found.detach.p50 <= 5.0
        assert 0.7 <= found.attach.p50 <= 5.0
        gauge = "upstream_guard_gateway_detach_seconds"
        edge = {"kind": "GatewayProfile", "gateway": "edge"}
        assert scene.sample(gauge, **edge, connections="new", quantile="0.99") >= 0.7
        asked = scene.sample("upstream_guard_canary_requests_total", **edge, result="ok")
        assert 30 <= asked <= 400
        assert scene.news >= 1
    patches = [path for verb, path in scene.store.writes if verb == "PATCH"]
    assert sum("/services/" in path for path in patches) == 1
    assert sum("/endpointslices/" in path for path in patches) <= 2 + 2 * 3, "two for each toggle"


async def test_in_peace_nothing_is_written_and_a_new_version_is_measured_at_once(
    api, background, monkeypatch
):
    monkeypatch.setattr(canary, "RECONCILE_SECONDS", 0.05)
    monkeypatch.setattr(canary, "GLANCE_INTERVAL", 0.1)
    monkeypatch.setattr(canary, "FIRST_BURST", 1)
    scene = Scene(api, [EDGE])
    async with Gateway(scene.store, late=0.0) as gateway:
        scene.wanted = {EDGE.key: replace(EDGE, url=gateway.url)}
        background(scene.runner.run())
        await within(lambda: scene.toggles() == 1, 60)
        written, asked = len(scene.store.writes), gateway.requests
        await within(lambda: gateway.requests >= asked + 5)
        assert len(scene.store.writes) == written
        gateway.version = "late/2"
        await within(lambda: scene.toggles() == 2, 60)


async def test_pods_that_come_have_their_gateway_measured(api, background, monkeypatch):
    monkeypatch.setattr(canary, "RECONCILE_SECONDS", 0.05)
    monkeypatch.setattr(canary, "FIRST_BURST", 1)
    paces = []

    def stirred(pace, now):
        paces.append(pace)
        return replace(pace, next_at=now)

    monkeypatch.setattr(canary, "stirred", stirred)
    scene = Scene(api, [EDGE])
    async with Gateway(scene.store, late=0.0) as gateway:
        scene.wanted = {EDGE.key: replace(EDGE, url=gateway.url)}
        background(scene.runner.run())
        await within(lambda: scene.toggles() == 1, 60)
        assert paces == []
        scene.pods = 1
        await within(lambda: scene.toggles() == 2, 60)
    (pace,) = paces
    assert isinstance(pace, Pace)
    assert pace.burst == 0


@pytest.mark.parametrize("kind", [Gateway, FaithfulGateway])
async def test_kept_connections_that_stay_are_said_to(api, background, kind):
    """Whether the gateway keeps them for everybody, or for the client that keeps his own."""
    scene = Scene(api, [EDGE])
    async with kind(scene.store, late=0.0, keep=True) as gateway:
        scene.wanted = {EDGE.key: replace(EDGE, url=gateway.url, expected=-9.0)}
        background(scene.runner.run())
        await within(lambda: scene.toggles() >= 4, 60)
        assert scene.measurements.of(EDGE.key).sticks


async def test_no_way_through_means_no_toggle_and_a_word_in_status(api, background):
    scene = Scene(api, [])
    async with Gateway(scene.store, late=3600.0) as gateway:
        scene.wanted = {EDGE.key: replace(EDGE, url=gateway.url)}
        background(scene.runner.run())
        await within(lambda: scene.toggles("unreachable") == 2, 60)
        told = scene.measurements.apply(facts(GatewayKind.PROFILE, "edge", "nginx"))
        # As a rule `status 503`; on a busy machine the last request may have found no time.
        start = f"not measured now: requests to {gateway.url} for ug.example.com end in "
        assert told.canary.startswith(start)
        assert told.evidence is Evidence.BUILTIN
    assert sum(verb == "PATCH" for verb, _ in scene.store.writes) == 3, "the objects, once"


async def test_without_an_address_of_the_operator_nothing_is_written(api, background):
    scene = Scene(api, [EDGE], address="")
    background(scene.runner.run())
    await within(lambda: scene.news == 1)
    assert (
        scene.measurements.apply(facts(GatewayKind.PROFILE, "edge", "nginx")).canary == NO_ADDRESS
    )
    assert scene.store.writes == []


async def test_a_refusing_api_server_is_a_word_in_status(api, background):
    scene = Scene(api, [EDGE])
    scene.store.refuse = 403
    scene.wanted = {EDGE.key: replace(EDGE, url="http://127.0.0.1:1")}
    background(scene.runner.run())
    await within(lambda: scene.toggles("refused") == 2, 60)
    told = scene.measurements.apply(facts(GatewayKind.PROFILE, "edge", "nginx"))
    assert told.canary == "not measured now: the API server says Forbidden"


async def test_what_a_predecessor_left_is_removed_and_nobody_elses(api, background):
    scene = Scene(api, [])
    objects = CanaryObjects(api.client, SPACE, ADDRESS)
    objects.ports = {Endpoint.A: 8001, Endpoint.B: 8002}
    await objects.set_up(CONTOUR, {Endpoint.A: None, Endpoint.B: Absence.ABSENT})
    await objects.set_up(PUBLIC, {Endpoint.A: None, Endpoint.B: Absence.ABSENT})
    assert len(scene.store.objects) == 8
    await objects.keep_only([CONTOUR.service])
    assert len(scene.store.objects) == 4
    assert all(CONTOUR.service in path for path in scene.store.objects)
    background(scene.runner.run())
    await within(lambda: not scene.store.objects)
    selectors = {query.get("labelSelector") for verb, _, query, _ in api.requests if verb == "GET"}
    assert (
        "app.kubernetes.io/part-of=upstream-guard,app.kubernetes.io/component=canary" in selectors
    )


# What is told of it.


def test_what_status_says_is_taken_over_by_a_successor():
    first, second = Measurements(), Measurements()
    key = (GatewayKind.INGRESS_CLASS, "contour")
    samples = tuple(Sample(1_000_000.0 + n, 0.08, 0.004 + n / 10_000) for n in range(30))
    assert first.found(key, samples, 1_000_030.0)
    assert not first.found(key, samples, 1_000_040.0)
    gateway = first.apply(facts())
    assert (gateway.evidence, gateway.detach_seconds) == (Evidence.MEASURED, 0.0069)
    status = build_status(GuardStatus(1, "shop", (), gateways=(gateway,)), None, 1.0)
    shown = status["gateways"][0]["measured"]
    assert shown["detach"] == {
        "samples": 30,
        "p50": "5ms",
        "p90": "7ms",
        "p99": "7ms",
        "max": "7ms",
        "p99ConfidencePercent": 26,
    }
    assert shown["lastMeasured"] == "1970-01-12T13:47:09Z"
    second.inherit(status)
    taken = second.apply(facts())
    assert taken.evidence is Evidence.MEASURED
    assert taken.measured.detach.samples == 30
    assert build_status(GuardStatus(1, "shop", (), gateways=(taken,)), None, 1.0) == status


def test_a_successor_says_the_same_of_a_gateway_that_cannot_be_measured():
    first, second = Measurements(), Measurements()
    key = (GatewayKind.INGRESS_CLASS, "contour")
    assert first.note(key, NO_ADDRESS)
    status = build_status(GuardStatus(1, "s", (), gateways=(first.apply(facts()),)), None, 1.0)
    second.inherit(status)
    assert second.apply(facts()) == first.apply(facts()), "no write at a takeover"
    assert not second.note(key, NO_ADDRESS)
    assert second.note(key, "")
    second.inherit(status)
    assert second.apply(facts()).canary == "", "who controls knows better than a status"


def test_an_older_status_of_another_guard_changes_nothing():
    book = Measurements()
    key = (GatewayKind.INGRESS_CLASS, "contour")
    book.found(key, tuple(Sample(1_000_000.0 + n, 0.08, 0.1) for n in range(30)), 1.0)
    status = build_status(GuardStatus(1, "shop", (), gateways=(book.apply(facts()),)), None, 1.0)
    book.found(key, tuple(Sample(2_000_000.0 + n, 0.08, 0.5) for n in range(30)), 2.0)
    book.inherit(status)
    assert book.of(key).detach.p99 == 0.5


def test_after_a_restart_few_samples_only_make_it_worse():
    book = Measurements()
    key = (GatewayKind.INGRESS_CLASS, "contour")
    book.found(key, tuple(Sample(100.0 + n, 0.08, 1.0) for n in range(60)), 200.0)
    assert not book.found(key, (Sample(300.0, 0.08, 0.1),), 300.0)
    assert book.of(key).detach.p99 == 1.0
    assert book.found(key, (Sample(300.0, 0.08, 3.0),), 300.0)
    assert (book.of(key).detach.p99, book.of(key).detach.samples) == (3.0, 60)
    assert book.found(key, tuple(Sample(400.0 + n, 0.08, 0.2) for n in range(12)), 420.0)
    assert (book.of(key).detach.p99, book.of(key).detach.samples) == (0.2, 12)


def test_a_gateway_that_may_not_be_measured_loses_its_numbers_everywhere():
    leader, standby = Measurements(), Measurements()
    key = (GatewayKind.INGRESS_CLASS, "contour")
    leader.found(key, tuple(Sample(100.0 + n, 0.08, 1.0) for n in range(60)), 200.0)
    status = build_status(GuardStatus(1, "s", (), gateways=(leader.apply(facts()),)), None, 1.0)
    standby.inherit(status)
    assert leader.forget(key)
    assert leader.note(key, "not measured: GatewayProfile p says canary.mode Off")
    assert not leader.note(key, "not measured: GatewayProfile p says canary.mode Off")
    status = build_status(GuardStatus(1, "s", (), gateways=(leader.apply(facts()),)), None, 1.0)
    assert status["gateways"][0]["canary"].endswith("Off")
    standby.inherit(status)
    assert standby.of(key) is None


@pytest.mark.parametrize(
    "status",
    [None, {}, {"gateways": 3}, {"gateways": [3, {"kind": "Other"}, {"kind": "ClusterIP"}]},
     {"gateways": [{"kind": "ClusterIP", "name": "ClusterIP", "measured": {"detach": {"samples": "x"}}}]},
     {"gateways": [{"kind": "ClusterIP", "measured": {"detach": {"samples": 3, "p50": "1ms"}}}]}],
)  # fmt: skip
def test_a_status_of_another_version_is_passed_over(status):
    book = Measurements()
    book.inherit(status)
    assert book.of((GatewayKind.CLUSTER_IP, "ClusterIP")) is None
