"""Guards with external upstreams: a real DNS server on loopback, a scripted API server, verdicts by the test."""

import asyncio
import ssl
import time
from dataclasses import replace
from ipaddress import ip_network

import pytest
from prometheus_client import generate_latest

from upstream_guard.controller import names, slice_writer
from upstream_guard.controller.app import App
from upstream_guard.controller.certificates import CertificateWatch
from upstream_guard.controller.external import ExternalOptions
from upstream_guard.controller.options import Options
from upstream_guard.core.allowance import AllowList
from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import RouteKey, RouteSample
from upstream_guard.core.external import Slot
from upstream_guard.core.model import Guard, ObjectRef, ProbeResult, Upstream, UpstreamTls
from upstream_guard.core.names import API_VERSION, MANAGED_BY_LABEL
from upstream_guard.core.resolution import Wanted
from upstream_guard.kube.premises import gather_premises
from upstream_guard.kube.state import ClusterState, Named
from upstream_guard.lab.nameserver import Fault, Nameserver
from upstream_guard.probes.certificates import HandshakeError, certificate_end
from upstream_guard.resources.kube_objects import parse_node, parse_pod, parse_service, parse_slice
from upstream_guard.webhook.certs import issue, new_authority

PAY = ObjectRef("prod", "pay")
DEADLINE_SECONDS = 30.0
EVERYTHING = AllowList(
    ("*.example.com",), (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))
)


def service(**spec):
    return parse_service(
        {
            "metadata": {"namespace": "prod", "name": "pay", "uid": "s-pay"},
            "spec": {
                "ports": [{"name": "https", "port": 443, "appProtocol": "https"}],
                "ipFamilies": ["IPv4"],
                **spec,
            },
        }
    )


def guard(uid="g1", generation=1, status=None, upstreams=None, **spec):
    return {
        "apiVersion": API_VERSION,
        "kind": "UpstreamGuard",
        "metadata": {"namespace": "prod", "name": "pay", "uid": uid, "generation": generation},
        "spec": {
            "targetRef": {"name": "pay"},
            "upstreams": upstreams or [{"host": "api.example.com", "port": 443}],
            **spec,
        },
        "status": status or {},
    }


class Cluster:
    """The operator without watches of its own: what it writes is what it sees."""

    def __init__(self, api, background, server, allow=EVERYTHING):
        self.api = api
        self.slices = {}
        options = Options(
            webhook_port=None,
            external=ExternalOptions(allow),
            dns_servers=(server.address,),
        )
        api.handler = self.answer
        self.app = App(options, api.client, 35)
        self.state, self.tracker = self.app.state, self.app.engine.tracker
        background(self.app._statuses.run())
        background(self.app._recorder.run())

    async def answer(self, request, body):
        name = request.path.rsplit("/", 1)[1]
        if "/endpointslices/" not in request.path:
            return 200, {}
        if request.method == "GET":
            return (200, self.slices[name]) if name in self.slices else self.api.failure(404)
        before = self.slices.get(name)
        if request.method == "DELETE":
            del self.slices[name]
            self.state._slice(parse_slice(before), None)
            return 200, {}
        self.slices[name] = body
        self.state._slice(parse_slice(before) if before else None, parse_slice(body))
        return 200, body

    def see(self, *objects):
        for one in objects:
            if isinstance(one, dict):
                self.app.guard_seen(one, deleted=False)
            else:
                self.state._service(None, one)

    def probe(self, address, *, ok=True, times=2, cause=Cause.REFUSED):
        for _ in range(times):
            result = ProbeResult(time.time(), ok, None if ok else cause)
            self.tracker._on_result(f"prod/pay/{address}:443", result)

    def ready(self):
        """The addresses that the slices show, and whether as ready."""
        return {
            address: endpoint["conditions"]["ready"]
            for body in self.slices.values()
            for endpoint in body["endpoints"]
            for address in endpoint["addresses"]
        }

    def status(self):
        return self.app._statuses.current(PAY)

    def reasons(self):
        return {c["type"]: c["reason"] for c in self.status().get("conditions", ())}

    def told(self):
        return [body["reason"] for body in self.api.bodies("POST")]

    def writes(self):
        return [
            (verb, path) for verb, path, _, _ in self.api.requests if "/endpointslices/" in path
        ]

    def metric(self, text):
        return text in generate_latest(self.app.metrics.registry).decode()


@pytest.fixture
def until():
    """As that of the folder, with patience for DNS and a busy machine."""

    async def wait(condition):
        end = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def server():
    with Nameserver({"api.example.com": {"A": ["203.0.113.1", "203.0.113.2"]}}, ttl=1) as running:
        yield running


@pytest.fixture
async def start(api, background, server):
    made = []

    def begin(allow=EVERYTHING):
        cluster = Cluster(api, background, server, allow)
        cluster.app.engine.activate()
        made.append(cluster)
        return cluster

    yield begin
    for cluster in made:
        cluster.app.engine.abandon()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("upstream_guard.core.resolution.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("upstream_guard.core.resolution.MAX_RETRY_SECONDS", 0.2)


async def serving(cluster, until, *addresses):
    await until(lambda: all(a in cluster.ready() for a in addresses))
    for address in addresses:
        cluster.probe(address)
    await until(lambda: all(cluster.ready().get(a) for a in addresses))


async def test_addresses_are_published_once_they_serve_and_a_steady_dns_writes_nothing(
    start, until, server
):
    cluster = start()
    cluster.see(service(), guard())
    await until(lambda: cluster.ready() == {"203.0.113.1": False, "203.0.113.2": False})
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    (body,) = cluster.slices.values()
    assert body["metadata"]["name"] == "pay-external-ipv4-443"
    assert body["metadata"]["labels"][MANAGED_BY_LABEL] == "upstream-guard"
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("UpstreamGuard", "g1", True)
    assert body["ports"] == [
        {"name": "https", "port": 443, "protocol": "TCP", "appProtocol": "https"}
    ]
    assert all(
        set(e["conditions"]) == {"ready", "serving", "terminating"} for e in body["endpoints"]
    )
    await until(lambda: cluster.reasons().get("Healthy") == "AllServing")
    assert cluster.reasons() == {
        "Accepted": "Accepted",
        "Programmed": "Programmed",
        "Healthy": "AllServing",
        "AtRisk": "NoRisk",
    }
    written, asked = len(cluster.writes()), len(server.asked)
    server.records["api.example.com"] = {"A": ["203.0.113.2", "203.0.113.1"]}
    await until(lambda: len(server.asked) >= asked + 2)
    assert len(cluster.writes()) == written
    assert cluster.metric('upstream_guard_dns_lookups_total{result="answer"}')


async def test_what_refuses_is_ejected_and_comes_back(start, until):
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    cluster.probe("203.0.113.1", ok=False)
    await until(lambda: cluster.ready() == {"203.0.113.1": False, "203.0.113.2": True})
    cluster.probe("203.0.113.2", ok=False)
    await until(
        lambda: "EjectionFloorReached" in cluster.told() or "OperatorBlind" in cluster.told()
    )
    assert cluster.ready()["203.0.113.2"]
    cluster.probe("203.0.113.1")
    await until(lambda: cluster.ready()["203.0.113.1"])
    await until(lambda: "EndpointEjected" in cluster.told())
    assert cluster.metric('upstream_guard_ejections_total{cause="refused",guard="pay"')


async def test_a_window_of_external_upstreams_is_told_and_is_in_the_status(start, until):
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    await until(lambda: cluster.reasons().get("Healthy") == "AllServing")
    key = RouteKey("public", "Ingress prod/pay", "pay.example")

    def ask(status, at):
        cluster.app.detection.route(PAY, RouteSample(at, at, key, status))

    now = time.time()
    ask(200, now)
    ask(502, now + 0.1)
    await until(lambda: "WindowOpened" in cluster.told())
    await until(lambda: cluster.reasons().get("Healthy") == "WindowOpen")
    (window,) = cluster.status()["windows"]
    assert (window["gateway"], window["predicted"]) == ("public", False)
    cluster.app.detection._clock = lambda: time.time() + 10
    ask(200, now + 10)
    await until(lambda: "WindowClosed" in cluster.told())
    await until(lambda: cluster.reasons().get("Healthy") == "AllServing")
    assert cluster.status()["windows"][0]["closed"]


async def test_an_address_that_the_floor_keeps_listed_opens_a_window_by_itself(start, until):
    cluster = start()
    cluster.see(service(), guard(upstreamList={"minHealthyPercent": 100}))
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    cluster.probe("203.0.113.1", ok=False)
    await until(lambda: "WindowOpened" in cluster.told())
    await until(lambda: "windows" in cluster.status())
    (window,) = cluster.status()["windows"]
    assert (window["cause"], window["endpoints"]) == ("refused", ["203.0.113.1:443"])
    assert window["eyes"] == ["direct"]


async def test_the_windows_go_with_the_guard(start, until):
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    assert PAY in cluster.app.detection._memories
    cluster.app.guard_seen(guard(), deleted=True)
    assert cluster.app.detection._memories == {}


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.SILENT])
async def test_last_known_good_addresses_stay_and_it_is_told_once(
    start, until, server, fault, quick
):
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    written = len(cluster.writes())
    server.fault = fault
    await until(lambda: "UpstreamUnresolved" in cluster.told())
    await until(lambda: cluster.reasons()["AtRisk"] == "LastKnownGood")
    assert cluster.metric('upstream_guard_dns_last_known_good{guard="pay",namespace="prod"} 1.0')
    (upstream,) = cluster.status()["upstreams"]
    assert (upstream["state"], upstream["addresses"]) == ("LastKnownGood", 2)
    asked = len(server.asked)
    await until(lambda: len(server.asked) > asked + 2)
    assert len(cluster.writes()) == written
    server.fault = Fault.NONE
    await until(lambda: "UpstreamResolved" in cluster.told())
    await until(lambda: cluster.reasons()["AtRisk"] == "NoRisk")
    assert cluster.told().count("UpstreamUnresolved") == 1
    assert len(cluster.writes()) == written


async def test_a_name_that_is_gone_holds_its_addresses(start, until, server):
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    del server.records["api.example.com"]
    await until(lambda: "UpstreamUnresolved" in cluster.told())
    assert cluster.ready() == {"203.0.113.1": True, "203.0.113.2": True}
    await until(lambda: cluster.status()["upstreams"][0].get("message") == "no such name")


async def test_a_change_of_address_is_followed_make_before_break(start, until, server):
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    server.records["api.example.com"] = {"A": ["203.0.113.9"]}
    await until(lambda: "203.0.113.9" in cluster.ready())
    assert cluster.ready() == {"203.0.113.1": True, "203.0.113.2": True, "203.0.113.9": False}
    cluster.probe("203.0.113.9")
    await until(lambda: cluster.ready() == {"203.0.113.9": True})


async def test_nothing_is_allowed_by_default_and_nothing_is_asked(start, until, server):
    cluster = start(AllowList())
    cluster.see(service(), guard())
    await until(lambda: "UpstreamRefused" in cluster.told())
    await until(lambda: cluster.reasons().get("Programmed") == "NotAllowed")
    assert cluster.reasons()["Healthy"] == "NoEndpoints"
    (upstream,) = cluster.status()["upstreams"]
    assert upstream["state"] == "Refused"
    assert "--allow-upstream-names" in upstream["message"]
    assert (server.asked, cluster.writes()) == ([], [])


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "203.0.113.77", "203.0.113.78"]
)
async def test_a_name_that_turns_to_the_cluster_is_not_followed(start, until, server, address):
    cluster = start(AllowList(("*",), (ip_network("0.0.0.0/0"),)))
    cluster.state._node(
        None,
        parse_node(
            {
                "metadata": {"name": "n"},
                "status": {"addresses": [{"type": "InternalIP", "address": "203.0.113.77"}]},
            }
        ),
    )
    cluster.state._pod(
        None,
        parse_pod(
            {
                "metadata": {"namespace": "bank", "name": "vault", "uid": "v"},
                "status": {"podIP": "203.0.113.78"},
            }
        ),
    )
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    server.records["api.example.com"] = {"A": ["203.0.113.1", address]}
    await until(lambda: "UpstreamRefused" in cluster.told())
    await until(lambda: cluster.ready() == {"203.0.113.1": True})
    keys = cluster.tracker._by_guard[PAY]
    assert keys == {"prod/pay/203.0.113.1:443"}
    assert cluster.status()["upstreams"][0]["state"] == "Resolved"


async def test_an_address_that_becomes_the_clusters_own_goes_even_if_it_is_the_last(
    start, until, server
):
    server.records["api.example.com"] = {"A": ["203.0.113.1"]}
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1")
    taken = {
        "metadata": {"namespace": "bank", "name": "vault", "uid": "v"},
        "status": {"podIP": "203.0.113.1"},
    }
    cluster.state._pod(None, parse_pod(taken))
    cluster.app.engine.mark(PAY)
    await until(lambda: cluster.ready() == {})


async def test_the_next_operator_goes_on_from_the_slices_while_dns_is_away(
    start, until, server, quick
):
    first = start()
    first.see(service(), guard())
    await serving(first, until, "203.0.113.1", "203.0.113.2")
    first.probe("203.0.113.2", ok=False)
    await until(lambda: not first.ready()["203.0.113.2"])
    first.app.engine.abandon()
    server.fault = Fault.SERVFAIL
    second = start()
    second.slices.update(first.slices)
    for body in first.slices.values():
        second.state._slice(None, parse_slice(body))
    second.see(service(), guard(status={"upstreams": [LAST_KNOWN]}))
    await until(lambda: second.reasons().get("AtRisk") == "LastKnownGood")
    assert second.ready() == {"203.0.113.1": True, "203.0.113.2": False}
    second.probe("203.0.113.2")
    await until(lambda: second.ready()["203.0.113.2"])
    second.probe("203.0.113.1")
    server.fault = Fault.NONE
    await until(lambda: "UpstreamResolved" in second.told())


LAST_KNOWN = {"upstream": "api.example.com:443", "state": "LastKnownGood", "addresses": 2}


async def test_observe_asks_and_probes_and_writes_nothing(start, until):
    cluster = start()
    cluster.see(service(), guard(upstreamList={"mode": "Observe"}))
    await until(lambda: cluster.reasons().get("Programmed") == "Observing")
    await until(lambda: len(cluster.tracker._by_guard.get(PAY, ())) == 2)
    assert cluster.writes() == []


async def test_a_slice_of_somebody_else_with_our_name_is_left_alone(start, until, caplog):
    cluster = start()
    foreign = {"metadata": {"name": "pay-external-ipv4-443", "labels": {}}}
    cluster.slices["pay-external-ipv4-443"] = foreign
    cluster.see(service(), guard())
    await until(lambda: "is somebody else's" in caplog.text)
    assert cluster.slices["pay-external-ipv4-443"] is foreign


async def test_what_others_change_in_our_slices_is_put_right(start, until, monkeypatch):
    monkeypatch.setattr(slice_writer, "OVERLAY_SECONDS", 0.2)
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    (body,) = cluster.slices.values()
    tampered = {**body, "endpoints": []}
    cluster.slices[body["metadata"]["name"]] = tampered
    cluster.state._slice(parse_slice(body), parse_slice(tampered))
    await until(lambda: cluster.ready() == {"203.0.113.1": True, "203.0.113.2": True})


async def test_a_refused_write_is_tried_again(start, until, caplog):
    cluster = start()
    good, refused = cluster.answer, []

    async def refuse(request, body):
        if request.method == "PATCH" and "/endpointslices/" in request.path and len(refused) < 2:
            refused.append(body)
            return cluster.api.failure(403, "Forbidden")
        return await good(request, body)

    cluster.api.handler = refuse
    cluster.see(service(), guard())
    await until(lambda: len(cluster.ready()) == 2)
    assert caplog.text.count("not written") == 1


async def test_a_port_that_changes_leaves_no_slice_behind(start, until):
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    other = [{"host": "api.example.com", "port": 8443}]
    cluster.see(guard(generation=2, upstreams=other))
    await until(lambda: len(cluster.slices) == 2)
    for last in (1, 2):
        for _ in range(2):
            cluster.tracker._on_result(
                f"prod/pay/203.0.113.{last}:8443", ProbeResult(time.time(), True)
            )
    await until(lambda: set(cluster.slices) == {"pay-external-ipv4-8443"})


async def test_a_guard_that_goes_leaves_its_slices_and_no_metrics(start, until):
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    written = len(cluster.writes())
    cluster.app.guard_seen(guard(), deleted=True)
    await asyncio.sleep(0)
    assert len(cluster.writes()) == written
    assert not cluster.metric('upstream_guard_dns_last_known_good{guard="pay"')
    assert cluster.app.externals._followed == {}


async def test_a_guard_without_upstreams_and_selector_is_refused_as_before(start, until):
    cluster = start()
    body = guard()
    del body["spec"]["upstreams"]
    cluster.see(service(), body)
    await until(lambda: cluster.reasons().get("Accepted") == "NoSelector")


async def test_a_service_that_selects_pods_takes_no_upstreams(start, until, server):
    cluster = start()
    cluster.see(service(selector={"app": "pay"}), guard())
    await until(lambda: cluster.reasons().get("Accepted") == "HasSelector")
    assert (server.asked, cluster.writes()) == ([], [])


async def test_a_mistake_while_following_names_is_heard_and_does_not_end_it(
    start, until, caplog, monkeypatch
):
    cluster = start()
    good = names.learn

    def fail(*args):
        monkeypatch.setattr(names, "learn", good)
        raise ArithmeticError("a mistake of ours")

    monkeypatch.setattr(names, "learn", fail)
    cluster.see(service(), guard())
    await until(lambda: "a mistake of ours" in caplog.text)
    await until(lambda: len(cluster.ready()) == 2)


# When nobody controls


async def test_the_standby_lists_every_address(start, until):
    cluster = start()
    cluster.see(service(), guard())
    await serving(cluster, until, "203.0.113.1", "203.0.113.2")
    cluster.probe("203.0.113.1", ok=False)
    await until(lambda: not cluster.ready()["203.0.113.1"])
    cluster.app.engine.abandon()
    foreign = parse_slice(
        {
            "metadata": {
                "namespace": "prod",
                "name": "foreign",
                "labels": {"kubernetes.io/service-name": "pay"},
            },
            "endpoints": [{"addresses": ["203.0.113.9"], "conditions": {"ready": False}}],
        }
    )
    cluster.state._slice(None, foreign)
    merge = cluster.answer

    async def answer(request, body):
        name = request.path.rsplit("/", 1)[1]
        return await merge(request, {**cluster.slices[name], **body})

    cluster.api.handler = answer
    await cluster.app._sweeper.release_all()
    assert cluster.ready() == {"203.0.113.1": True, "203.0.113.2": True}
    written = len(cluster.writes())
    await cluster.app._sweeper.release_all()
    assert len(cluster.writes()) == written


# The cluster's own addresses


async def test_the_premises_are_what_the_api_tells(start):
    state = start().state
    state._node(
        None,
        parse_node(
            {
                "metadata": {"name": "n"},
                "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00:1::/64"]},
                "status": {
                    "addresses": [
                        {"type": "InternalIP", "address": "192.0.2.1"},
                        {"type": "Hostname", "address": "n"},
                    ]
                },
            }
        ),
    )
    state._pod(
        None,
        parse_pod(
            {
                "metadata": {"namespace": "a", "name": "p", "uid": "p"},
                "status": {
                    "podIP": "198.51.100.1",
                    "podIPs": [{"ip": "198.51.100.1"}, {"ip": "fd00:2::1"}],
                },
            }
        ),
    )
    balanced = {"loadBalancer": {"ingress": [{"ip": "198.51.100.5"}, {"hostname": "lb"}]}}
    state._service(
        None,
        parse_service(
            {
                "metadata": {"namespace": "a", "name": "s"},
                "spec": {"clusterIP": "10.96.0.7", "externalIPs": ["198.51.100.6"]},
                "status": balanced,
            }
        ),
    )
    state._service(
        None,
        parse_service({"metadata": {"namespace": "a", "name": "h"}, "spec": {"clusterIP": "None"}}),
    )
    state._slice(
        None,
        parse_slice(
            {
                "metadata": {
                    "namespace": "default",
                    "name": "kubernetes",
                    "labels": {"kubernetes.io/service-name": "kubernetes"},
                },
                "endpoints": [{"addresses": ["198.51.100.9"]}],
            }
        ),
    )
    state._service_range(None, Named(ObjectRef("", "kubernetes"), "10.96.0.0/16,fd00:3::/112"))
    premises = gather_premises(state, ["100.64.0.0/10"])
    assert {str(network) for network, _ in premises.ranges} == {
        "100.64.0.0/10",
        "10.96.0.0/16",
        "fd00:3::/112",
        "10.244.0.0/24",
        "fd00:1::/64",
    }
    assert set(premises.addresses) == {
        "192.0.2.1",
        "198.51.100.1",
        "fd00:2::1",
        "10.96.0.7",
        "198.51.100.6",
        "198.51.100.5",
        "198.51.100.9",
    }
    assert premises.known


@pytest.mark.parametrize(("given", "known"), [([], False), (["10.0.0.0/8"], True)])
async def test_an_operator_of_one_namespace_must_be_told_the_ranges(api, given, known):
    state = ClusterState(api.client, None, "prod")
    assert gather_premises(state, given).known is known


# Certificates


@pytest.fixture
async def origin(tmp_path):
    """A TLS server on loopback; yields its port and when its certificate ends."""
    now = time.time()
    cert, key = issue(new_authority(now), ("origin.example.com",), now)
    (tmp_path / "crt").write_bytes(cert)
    (tmp_path / "key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    asked = []
    context.sni_callback = lambda _, name, __: asked.append(name)

    async def serve(reader, writer):
        await reader.read()
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield running.sockets[0].getsockname()[1], now, asked
    running.close()


async def test_the_end_of_a_certificate_is_read_with_sni(origin):
    port, now, asked = origin
    end = await certificate_end("127.0.0.1", port, "origin.example.com")
    assert end > now
    assert asked == ["origin.example.com"]


async def test_no_certificate_is_told_and_bounded(unused_port):
    with pytest.raises(HandshakeError):
        await certificate_end("127.0.0.1", unused_port, "origin.example.com", seconds=1)


@pytest.fixture
async def unused_port():
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as running:
        return running.sockets[0].getsockname()[1]


async def test_certificates_are_watched_for_each_upstream_with_tls(origin, until):
    port, now, _ = origin
    upstream = Upstream("origin.example.com", port, tls=UpstreamTls())
    plain = Upstream("plain.example.com", port)
    watched = Guard(PAY, "g1", 1, 0.0, "pay", upstreams=(upstream, plain))
    slots = {
        str(u.key): Slot(Wanted("127.0.0.1", port, u.key, u.host), True, now)
        for u in (upstream, plain)
    }
    rounds = []
    watch = CertificateWatch(lambda: rounds.append(1))
    watch.watch(watched, slots)
    await until(lambda: bool(rounds))
    assert set(watch.ends) == {upstream.key}
    assert watch.ends[upstream.key] > now
    watch.watch(replace(watched, upstreams=(plain,)), slots)
    assert watch.ends == {}
    watch.stop()
