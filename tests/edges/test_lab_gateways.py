"""Gateways of the lab: what they are told, and that the plain ones carry requests on this machine."""

import contextlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from upstream_guard.lab import images, process
from upstream_guard.lab.gateways import (
    GATEWAYS,
    VIA_CLUSTER_IP,
    ServiceTarget,
    contour,
    httpd,
    support,
)
from upstream_guard.lab.gateways.plain import (
    DNS_SECONDS,
    SECURED,
    Engine,
    PlainGateway,
    Setup,
    Spawn,
    upstream_address,
)
from upstream_guard.lab.model import Cluster, LabError, LabNode
from upstream_guard.lab.nameserver import Fault, Nameserver
from upstream_guard.lab.packages import missing
from upstream_guard.lab.ports import free_port, free_ports, spare_ports
from upstream_guard.lab.report import QuietReporter
from upstream_guard.lab.tools import cached_path

SHOP = ServiceTarget("prod", "shop", 80)
PLAIN = [name for name, addon in GATEWAYS.items() if isinstance(addon, PlainGateway)]
SETUP = Setup(Path("/lab/gateways/x"), 8180, 9180, {"shop.prod.test": "198.19.0.7:80"})
NODE = LabNode("node-1", "198.18.0.11", "ns", Path("/s"), "198.18.101.0/24", Path("/n"))


def make_cluster(folder: Path, service: object, *, nodes: tuple[LabNode, ...] = (NODE,)) -> Cluster:
    """A lab whose kubectl answers every question with one document, and notes what it was asked."""
    answer = folder / "answer.json"
    answer.write_text(json.dumps(service))
    kubectl = folder / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\ncat {answer}\n')
    kubectl.chmod(0o755)
    return Cluster(
        name="lab",
        provider="local" if nodes else "kind",
        kubeconfig=folder / "kubeconfig",
        context="lab",
        state_dir=folder,
        kubectl=kubectl,
        host_address="198.18.0.1",
        nodes=nodes,
        service_cidr="198.19.0.0/16",
    )


def service(address: str = "198.19.0.7", port: int = 80, **spec: object) -> object:
    return {"spec": {"clusterIP": address, "ports": [{"port": port}], **spec}}


def test_there_is_a_row_for_each_gateway_under_its_own_name() -> None:
    assert list(GATEWAYS) == [
        "nginx",
        "contour",
        "haproxy",
        "caddy",
        "httpd",
        "envoy-gateway",
    ]
    assert all(name == addon.name and addon.title for name, addon in GATEWAYS.items())
    assert frozenset({"nginx", "haproxy", "caddy", "httpd"}) == VIA_CLUSTER_IP


def test_a_host_names_the_service_and_is_nobodys_domain() -> None:
    assert SHOP.host == "shop.prod.test"


@pytest.mark.parametrize("name", PLAIN)
def test_configurations_name_the_route_and_leave_connection_settings_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpd, "_MODULE_FOLDERS", (str(tmp_path),))  # it need not be installed
    addon = GATEWAYS[name]
    assert isinstance(addon, PlainGateway)
    text = addon.engine.config(SETUP)
    assert "shop.prod.test" in text
    assert "198.19.0.7:80" in text
    assert "421" in text
    assert SETUP.revision in text
    for setting in ("keepalive", "retries", "proxy_connect_timeout", "proxy_next_upstream"):
        assert setting not in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nginx", "proxy_pass https://198.19.0.7:443;"),
        ("haproxy", "server upstream 198.19.0.7:443 ssl verify none"),
        ("caddy", "reverse_proxy https://198.19.0.7:443 {"),
    ],
)
def test_an_upstream_over_tls_is_not_verified(name: str, words: str) -> None:
    addon = GATEWAYS[name]
    assert isinstance(addon, PlainGateway)
    secured = {**SETUP.routes, "safe.prod.test": f"{SECURED}198.19.0.7:443"}
    text = addon.engine.config(replace(SETUP, routes=secured))
    assert words in text
    assert "198.19.0.7:80" in text, "the other one stays in clear"


def test_nginx_has_room_for_the_longest_host() -> None:
    """A canary's has 58 characters, for which the default (a cache line) is too little: nginx kept its old routes."""
    addon = GATEWAYS["nginx"]
    assert isinstance(addon, PlainGateway)
    longest = ServiceTarget("n" * 63, "s" * 63).host
    text = addon.engine.config(replace(SETUP, routes={longest: "198.19.0.7:80"}))
    (size,) = re.findall(r"server_names_hash_bucket_size (\d+);", text)
    assert int(size) >= 2 * len(longest)


def test_httpd_has_no_tls_in_the_lab() -> None:
    addon = GATEWAYS["httpd"]
    assert isinstance(addon, PlainGateway)
    with pytest.raises(LabError, match="in clear only"):
        addon.engine.config(replace(SETUP, routes={"safe.prod.test": f"{SECURED}198.19.0.7:443"}))


def test_the_revision_changes_with_the_routes_only() -> None:
    other = Setup(Path("/elsewhere"), 1, 2, dict(SETUP.routes))
    assert other.revision == SETUP.revision
    assert Setup(SETUP.folder, 8180, 9180, {}).revision != SETUP.revision


def test_contour_gets_an_ingress_of_its_class() -> None:
    spec = contour.ingress(SHOP)["spec"]
    assert spec["ingressClassName"] == contour.ingress_class()["metadata"]["name"]
    (rule,) = spec["rules"]
    assert rule["host"] == "shop.prod.test"
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "shop", "port": {"number": 80}}


def test_contour_and_envoy_listen_on_the_loopback_address_only(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path, service())
    ports = contour.Ports(*range(1, 8))
    words = contour.contour_command(Path("/contour"), cluster, ports)
    addresses = [word for word in words if word.partition("=")[0].endswith("address")]
    assert len(addresses) == 8
    assert all(word.endswith("=127.0.0.1") for word in addresses)


def test_contour_is_refused_where_pods_cannot_be_reached(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path, service(), nodes=())
    with pytest.raises(LabError, match="no way to the pods"):
        GATEWAYS["contour"].up(cluster, QuietReporter())


class TestUpstreamAddress:
    def test_is_the_cluster_ip_in_the_local_lab(self, tmp_path: Path) -> None:
        assert upstream_address(make_cluster(tmp_path, service()), SHOP) == "198.19.0.7:80"

    def test_brackets_ipv6(self, tmp_path: Path) -> None:
        assert upstream_address(make_cluster(tmp_path, service("fd00::7")), SHOP) == "[fd00::7]:80"

    @pytest.mark.parametrize("address", ["None", ""])
    def test_a_headless_service_has_none(self, tmp_path: Path, address: str) -> None:
        with pytest.raises(LabError, match="no ClusterIP"):
            upstream_address(make_cluster(tmp_path, service(address)), SHOP)

    def test_a_port_that_does_not_exist_is_named(self, tmp_path: Path) -> None:
        cluster = make_cluster(tmp_path, service(port=8443))
        with pytest.raises(LabError, match="no port 80; it has 8443"):
            upstream_address(cluster, SHOP)

    def test_kubectls_words_are_passed_on(self, tmp_path: Path) -> None:
        cluster = make_cluster(tmp_path, service())
        cluster.kubectl.write_text("#!/bin/sh\necho 'not found: shop' >&2\nexit 1\n")
        with pytest.raises(LabError, match="not found: shop"):
            upstream_address(cluster, SHOP)

    def test_is_a_node_port_where_cluster_ips_are_not_routed(self, tmp_path: Path) -> None:
        ports = [{"port": 80, "nodePort": 31234}]
        node = {
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "172.18.0.2"}],
            }
        }
        everything = {"spec": {"clusterIP": "10.96.0.9", "ports": ports}, "items": [node]}
        cluster = make_cluster(tmp_path, everything, nodes=())
        assert upstream_address(cluster, SHOP) == "172.18.0.2:31234"
        assert "NodePort" in (tmp_path / "asked").read_text()


def test_an_occupied_port_is_avoided() -> None:
    wanted = free_port(22000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", wanted))
        taken.listen()
        assert wanted < free_port(wanted) < 32768
    assert free_port(wanted) == wanted


def test_spare_ports_are_none_that_somebody_may_be_given_meanwhile() -> None:
    """The kernel gives clients those from 32768, Kubernetes gives Services those from 30000."""
    spare = spare_ports(50)
    assert len(set(spare)) == 50
    assert max(spare) < 30000
    with contextlib.ExitStack() as held:
        for port in spare:
            held.enter_context(socket.create_server(("", port)))
        assert not set(spare) & set(spare_ports(50))


def test_a_gateway_that_is_not_up_says_so(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path, service())
    for addon in GATEWAYS.values():
        assert not addon.status(cluster).up
        with pytest.raises(LabError, match=f"{addon.name} is not up"):
            addon.expose(cluster, SHOP)
        if isinstance(addon, PlainGateway):
            addon.unexpose(cluster, SHOP)
        addon.down(cluster, QuietReporter())
    assert not process.marked() or all(p.state_dir != tmp_path for p in process.marked())


def test_stopping_a_gateway_of_a_lab_that_is_gone_leaves_nothing_behind(tmp_path: Path) -> None:
    """Else the next lab would find a folder that is not empty, and not a lab's."""
    cluster = replace(make_cluster(tmp_path, service()), state_dir=tmp_path / "gone")
    for addon in GATEWAYS.values():
        addon.down(cluster, QuietReporter())
    assert not cluster.state_dir.exists()


@pytest.fixture
def upstream() -> Iterator[int]:
    """A healthy upstream's port."""
    program = images.upstream_program(QuietReporter())
    port, control = free_ports(20000, 2)
    env = {**os.environ, "PORT": str(port), "CONTROL_PORT": str(control), "POD_NAME": "shop-1"}
    with subprocess.Popen([program], env=env) as running:
        support.wait_for(lambda: support.listens(port), 10, "the upstream")
        yield port
        running.kill()


@pytest.fixture(params=PLAIN)
def gateway(request: pytest.FixtureRequest) -> PlainGateway:
    addon = GATEWAYS[request.param]
    assert isinstance(addon, PlainGateway)
    if request.param == "caddy" and not cached_path("caddy").exists():
        pytest.skip("caddy is not built yet; `make test` builds it")
    if missing(addon.needs()):
        pytest.skip(f"{request.param} is not installed")
    return addon


@pytest.fixture
def lab(tmp_path: Path, upstream: int, gateway: PlainGateway) -> Iterator[Cluster]:
    cluster = make_cluster(tmp_path, service("127.0.0.1", upstream))
    yield cluster
    gateway.down(cluster, QuietReporter())
    assert ours(cluster) == []


def ours(cluster: Cluster) -> list[int]:
    return [p.pid for p in process.marked() if p.state_dir == cluster.state_dir]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_plain_gateway_carries_requests(
    lab: Cluster, upstream: int, gateway: PlainGateway
) -> None:
    say = QuietReporter()
    running = gateway.up(lab, say)
    assert gateway.up(lab, say) == running, "up is idempotent"
    first, second = (ServiceTarget("prod", name, upstream) for name in ("shop", "cart"))
    exposure = gateway.expose(lab, first)
    assert exposure == gateway.expose(lab, first)
    assert (exposure.address, exposure.port) == (running.address, running.port)
    assert support.ask(exposure.port, exposure.host).status == 200
    assert support.ask(exposure.port, second.host).status == 421
    gateway.expose(lab, second)
    assert support.ask(exposure.port, second.host).status == 200
    gateway.unexpose(lab, first)
    assert support.ask(exposure.port, first.host).status == 421
    assert support.ask(exposure.port, second.host).status == 200
    assert gateway.status(lab).up


def test_an_upstream_that_is_gone_is_a_bad_gateway(
    lab: Cluster, upstream: int, gateway: PlainGateway
) -> None:
    gateway.up(lab, QuietReporter())
    target = ServiceTarget("prod", "shop", upstream)
    closed = free_port(21000)
    answer = lab.state_dir / "answer.json"
    answer.write_text(json.dumps(service("127.0.0.1", closed)))
    exposure = gateway.expose(lab, ServiceTarget("prod", "shop", closed))
    expected = 503 if gateway.name in {"haproxy", "httpd"} else 502
    assert support.ask(exposure.port, target.host, timeout=10).status == expected


def test_an_upstream_over_tls(
    lab: Cluster, gateway: PlainGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    if gateway.name == "httpd":
        pytest.skip("in clear only")
    port, control = free_ports(20000, 2)
    monkeypatch.setenv("TLS", "1")
    monkeypatch.setenv("PORT", str(port))
    monkeypatch.setenv("CONTROL_PORT", str(control))
    (lab.state_dir / "answer.json").write_text(json.dumps(service("127.0.0.1", port)))
    gateway.up(lab, QuietReporter())
    with subprocess.Popen([images.upstream_program(QuietReporter())]) as running:
        support.wait_for(lambda: support.listens(port), 10, "the upstream")
        exposure = gateway.expose(lab, ServiceTarget("prod", "shop", port, tls=True))
        assert support.ask(exposure.port, exposure.host).status == 200
        for mode in ("tls-refuse", "tls-plain"):
            url = f"http://127.0.0.1:{control}/fault?mode={mode}"
            urllib.request.urlopen(url, data=b"", timeout=10).close()
            expected = 503 if gateway.name == "haproxy" else 502
            assert support.ask(exposure.port, exposure.host, timeout=10).status == expected
        running.kill()


def test_an_upstream_by_name(lab: Cluster, upstream: int, gateway: PlainGateway) -> None:
    """It serves while DNS knows the name, and fails soon after it does not, whatever way DNS fails."""
    target = ServiceTarget("prod", "shop", upstream)
    with Nameserver({target.dns_name: {"A": ["127.0.0.1"]}}, ttl=DNS_SECONDS) as dns:
        named = replace(target, resolver="{}:{}".format(*dns.address))
        gateway.up(lab, QuietReporter())
        if not gateway.engine.resolves:
            with pytest.raises(LabError, match="goes by addresses only"):
                gateway.expose(lab, named)
            return
        exposure = gateway.expose(lab, named)

        def answers(status: int) -> bool:
            # nginx asks a silent server for half a minute.
            return support.ask(exposure.port, exposure.host, timeout=3).status == status

        failed = 503 if gateway.name == "haproxy" else 502
        until(lambda: answers(200))
        known = dns.records.pop(target.dns_name)
        until(lambda: answers(failed))
        dns.records[target.dns_name] = known
        until(lambda: answers(200))
        dns.fault = Fault.SERVFAIL
        until(lambda: answers(failed))
        dns.fault = Fault.NONE
        until(lambda: answers(200))
        dns.stop()
        until(lambda: answers(0 if gateway.name == "nginx" else failed))
        dns.start()
        until(lambda: answers(200))


def test_killed_it_comes_back_with_its_routes(
    lab: Cluster, upstream: int, gateway: PlainGateway
) -> None:
    say = QuietReporter()
    gateway.up(lab, say)
    exposure = gateway.expose(lab, ServiceTarget("prod", "shop", upstream))
    process.kill_all([p for p in process.marked() if p.state_dir == lab.state_dir])
    # Killing what carries the mark must take everything along, also where the gateway lost the mark.
    until(lambda: not support.listens(exposure.port))
    assert not gateway.status(lab).up
    running = gateway.up(lab, say)
    assert support.ask(running.port, exposure.host).status == 200


def test_one_that_cannot_start_says_why(
    lab: Cluster, gateway: PlainGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(gateway.engine), "config", lambda _self, _setup: "nonsense {{{")
    with pytest.raises(LabError, match=r"ended before; the end of its log:\n.+"):
        gateway.up(lab, QuietReporter())


def test_a_reload_that_was_lost_is_asked_for_again(
    lab: Cluster, upstream: int, gateway: PlainGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.up(lab, QuietReporter())
    asked: list[str] = []
    real = type(gateway.engine).reload

    def lossy(self: Engine, setup: Setup, pids: list[int], spawn: Spawn) -> None:
        asked.append(setup.revision)
        if len(asked) > 1:
            real(self, setup, pids, spawn)

    monkeypatch.setattr(type(gateway.engine), "reload", lossy)
    exposure = gateway.expose(lab, ServiceTarget("prod", "shop", upstream))
    assert support.ask(exposure.port, exposure.host).status == 200
    assert len(asked) == 2


def test_many_reloads_in_a_row_are_survived(
    lab: Cluster, upstream: int, gateway: PlainGateway
) -> None:
    gateway.up(lab, QuietReporter())
    for number in range(10):
        target = ServiceTarget("prod", f"shop-{number}", upstream)
        exposure = gateway.expose(lab, target)
        assert support.ask(exposure.port, exposure.host).status == 200
