"""What gateways really answered, read by their adapters. See tests/data/gateways/README.md."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.counting import Count, Subject
from upstream_guard.core.evidence import Failure
from upstream_guard.core.model import ObjectRef, ServicePort
from upstream_guard.gateways import PROFILES, exposition
from upstream_guard.gateways.adapter import Known
from upstream_guard.gateways.exposition import UnreadableError
from upstream_guard.gateways.reading import read_lists, read_metrics

DATA = Path(__file__).parents[2] / "data/gateways"
NAMES = ("ok", "refused", "reset", "early", "bad", "slow", "empty", "mixed")
SERVERS = {
    "ok": ("127.0.0.1:9501",),
    "reset": ("127.0.0.1:9502",),
    "bad": ("127.0.0.1:9503",),
    "slow": ("127.0.0.1:9504",),
    "early": ("127.0.0.1:9505",),
    "refused": ("127.0.0.1:9506",),
}


def ref(name):
    return ObjectRef("default", name)


def service(name, **kwargs):
    return Known(ref(name), "", (ServicePort("http", 80, 8080),), **kwargs)


BY_NAME = tuple(service(name) for name in NAMES)
BY_ADDRESS = tuple(service(name, endpoints=frozenset(SERVERS.get(name, ()))) for name in NAMES)


def adapter_of(controller):
    adapter = PROFILES[controller].adapter
    assert adapter is not None
    return adapter


def counts(controller, page, known, learned=None):
    reading, _ = read_metrics(adapter_of(controller), page, known, learned or {}, 1000.0)
    return {subject.service.name: count for subject, count in reading.counts.items() if not subject.endpoint}  # fmt: skip


def lists(controller, known, **files):
    adapter = adapter_of(controller)
    documents = {
        path: (DATA / file).read_bytes()
        for path, file in zip(adapter.list_paths, files["files"], strict=True)
    }
    return read_lists(adapter, documents, known)


class TestEnvoy:
    PAGE = (DATA / "envoy-1.40-stats.txt").read_text()

    def test_contour_counts_each_request_once_by_what_its_client_got(self):
        found = counts("contour", self.PAGE, BY_NAME)
        assert {name: dict(count.statuses) for name, count in found.items()} == {
            "ok": {200: 5},
            "refused": {503: 5},
            "reset": {503: 5},
            "early": {503: 5},
            "bad": {502: 5},
            "slow": {504: 5},
            "empty": {503: 5},
            "mixed": {500: 6},
        }
        assert not any(count.classes_only for count in found.values())

    def test_contour_says_what_failed(self):
        found = counts("contour", self.PAGE, BY_NAME)
        assert {n: dict(c.failures) for n, c in found.items() if c.failures} == {
            "refused": {Failure.CONNECT: 5},
            "reset": {Failure.RESPONSE: 5},
            "early": {Failure.RESPONSE: 5},
            "bad": {Failure.PROTOCOL: 5},
            "slow": {Failure.TIMEOUT: 5},
            "empty": {Failure.EMPTY: 5},
            "mixed": {Failure.CONNECT: 5, Failure.RETRY: 5},
        }

    def test_usable_endpoints_and_the_start(self):
        reading, _ = read_metrics(adapter_of("contour"), self.PAGE, BY_NAME, {}, 1000.0)
        assert reading.counts[Subject(ref("mixed"))].healthy == 2
        assert reading.counts[Subject(ref("empty"))].healthy == 0
        assert reading.started == 990.0

    def test_single_endpoints_where_envoy_counts_them(self):
        reading, listing = read_metrics(adapter_of("contour"), self.PAGE, BY_NAME, {}, 1000.0)
        assert reading.counts[Subject(ref("mixed"), "127.0.0.1:9506")].failures == {
            Failure.CONNECT: 5,
            Failure.TIMEOUT: 0,
        }
        assert listing.usable == {ref("mixed"): {"127.0.0.1:9501", "127.0.0.1:9506"}}
        assert listing.unusable == {ref("mixed"): {"127.0.0.1:9505"}}

    def test_a_connect_time_out_is_not_counted_as_a_refusal_too(self):
        page = (
            'envoy_cluster_upstream_cx_connect_timeout{envoy_cluster_name="default_ok_80"} 2\n'
            'envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name="default_ok_80"} 3\n'
        )
        (count,) = counts("contour", page, BY_NAME).values()
        assert count.failures == {Failure.CONNECT: 1, Failure.CONNECT_TIMEOUT: 2}

    def test_envoy_gateway_by_the_rule_that_leads_to_one_service_alone(self):
        route = ObjectRef("default", "shop")
        alone = service("a", rules=((route, 0, (ref("a"), ref("a"))),))
        assert counts("envoy-gateway", self.PAGE, [alone])["a"].statuses == {200: 5}
        shared = service("a", rules=((route, 0, (ref("a"), ref("b"))),))
        assert counts("envoy-gateway", self.PAGE, [shared]) == {}

    def test_the_list_of_contour_by_name(self):
        listing = lists("contour", BY_NAME, files=["envoy-1.40-clusters.json"])
        assert listing.usable[ref("mixed")] == {"127.0.0.1:9501", "127.0.0.1:9506"}
        assert listing.unusable[ref("mixed")] == {"127.0.0.1:9505"}
        assert listing.usable[ref("empty")] == frozenset()

    def test_the_list_of_a_plain_envoy_by_address_and_the_names_it_teaches(self):
        listing = lists("envoy", BY_ADDRESS, files=["envoy-1.40-clusters.json"])
        assert listing.usable[ref("slow")] == {"127.0.0.1:9504"}
        assert listing.names["default_slow_80"] == ref("slow")
        assert "default_mixed_80" not in listing.names, "it leads to several Services"
        found = counts("envoy", self.PAGE, BY_ADDRESS, listing.names)
        assert found["slow"].statuses == {504: 5}

    def test_a_cluster_ip_is_no_endpoint(self):
        known = [Known(ref("slow"), "127.0.0.1", (ServicePort("", 9504, 80),))]
        listing = lists("envoy", known, files=["envoy-1.40-clusters.json"])
        assert listing.usable == {}
        assert listing.names["default_slow_80"] == ref("slow")


class TestHaproxy:
    PAGE = (DATA / "haproxy-2.6-metrics.txt").read_text()

    def learned(self, known=BY_ADDRESS):
        return lists("haproxy", known, files=["haproxy-2.6-stats.csv"])

    def test_classes_by_backend_named_by_the_statistics_page(self):
        found = counts("haproxy", self.PAGE, BY_ADDRESS, self.learned().names)
        assert {n: {k: v for k, v in c.statuses.items() if v} for n, c in found.items()} == {
            "ok": {200: 3},
            "refused": {500: 3},
            "reset": {500: 3},
            "early": {500: 3},
            "bad": {500: 3},
            "slow": {500: 3},
        }
        assert all(count.classes_only for count in found.values())

    def test_what_failed(self):
        found = counts("haproxy", self.PAGE, BY_ADDRESS, self.learned().names)
        assert found["refused"].failures[Failure.CONNECT] == 3
        assert found["refused"].failures[Failure.RETRY] == 9
        assert found["early"].failures[Failure.RESPONSE] == 3
        assert found["refused"].failures[Failure.RESPONSE] == 0

    def test_the_start_is_told(self):
        reading, _ = read_metrics(adapter_of("haproxy"), self.PAGE, BY_ADDRESS, {}, 1000.0)
        assert reading.started == 1795677695

    def test_the_list_knows_what_is_in_maintenance(self):
        listing = self.learned([service("m", endpoints=frozenset({"127.0.0.1:9501"}))])
        assert listing.usable[ref("m")] == {"127.0.0.1:9501"}
        text = (DATA / "haproxy-2.6-stats.csv").read_text()
        page = text.replace("mixed,", "default_svc_mixed_http,").replace("127.0.0.1", "10.0.0.1")
        documents = {";csv": page.encode()}
        listing = read_lists(adapter_of("haproxytech"), documents, [service("mixed")])
        assert listing.usable == {ref("mixed"): {"10.0.0.1:9501", "10.0.0.1:9506"}}
        assert listing.unusable == {ref("mixed"): {"10.0.0.1:9505"}}

    def test_without_addresses_there_is_no_list_rather_than_an_empty_one(self):
        text = (DATA / "haproxy-2.6-stats.csv").read_text()
        page = text.replace("mixed,", "default_svc_mixed_http,").replace("127.0.0.1:9501", "")
        listing = read_lists(adapter_of("haproxytech"), {";csv": page.encode()}, [service("mixed")])
        assert listing.usable == {}


class TestCaddy:
    PAGE = (DATA / "caddy-2.11-metrics.txt").read_text()
    FILES = ("caddy-2.11-servers.json", "caddy-2.11-upstreams.json")

    def test_by_host_where_the_configuration_says_where_it_leads(self):
        listing = lists("caddy", BY_ADDRESS, files=self.FILES)
        found = counts("caddy", self.PAGE, BY_ADDRESS, listing.names)
        assert {name: dict(count.statuses) for name, count in found.items()} == {
            "ok": {200: 3},
            "refused": {502: 3},
            "reset": {502: 3},
            "early": {502: 3},
            "bad": {502: 3},
        }

    def test_without_the_host_several_routes_cannot_be_told_apart(self):
        listing = lists("caddy", BY_ADDRESS, files=self.FILES)
        page = 'caddy_http_request_duration_seconds_count{code="200",handler="subroute",method="GET",server="srv0"} 3'
        assert counts("caddy", page, BY_ADDRESS, listing.names) == {}

    def test_without_the_host_one_route_can(self):
        servers = b'{"srv0":{"routes":[{"handle":[{"handler":"headers"},{"handler":"reverse_proxy","upstreams":[{"dial":"shop.default.svc:80"}]}]}]}}'
        known = [Known(ref("shop"), "10.96.0.9", (ServicePort("", 80, 8080),))]
        adapter = adapter_of("caddy")
        listing = read_lists(adapter, dict(zip(adapter.list_paths, (servers, b"[]"), strict=True)), known)  # fmt: skip
        page = 'caddy_http_request_duration_seconds_count{code="502",handler="headers",method="GET",server="srv0"} 3'
        assert counts("caddy", page, known, listing.names)["shop"].statuses == {502: 3}

    def test_its_upstreams(self):
        listing = lists("caddy", BY_ADDRESS, files=self.FILES)
        assert listing.usable[ref("ok")] == {"127.0.0.1:9501"}
        assert ref("slow") not in listing.usable


class TestTraefik:
    # After pkg/observability/metrics/prometheus.go and pkg/provider/kubernetes of Traefik 3.7.
    PAGE = """\
# TYPE traefik_service_requests_total counter
traefik_service_requests_total{code="200",method="GET",protocol="http",service="default-ok-80@kubernetes"} 7
traefik_service_requests_total{code="502",method="GET",protocol="http",service="default-ok-http@kubernetes"} 2
traefik_service_requests_total{code="502",method="GET",protocol="http",service="httproute-default-r-gw-infra-gw-ep-web-0-1a2b-svc-default-slow-0@kubernetesgateway"} 4
traefik_service_requests_total{code="200",method="GET",protocol="http",service="default-route-6b204d94623b3df4370c@kubernetescrd"} 9
traefik_service_retries_total{service="default-ok-80@kubernetes"} 3
traefik_service_server_up{service="default-ok-80@kubernetes",url="http://10.0.0.1:8080"} 1
process_start_time_seconds 900
"""
    SERVICES = b"""[
 {"name":"default-ok-80@kubernetes","type":"loadbalancer","loadBalancer":{"servers":[{"url":"http://10.0.0.1:8080"},{"url":"http://10.0.0.2:8080"}]},
  "serverStatus":{"http://10.0.0.1:8080":"UP","http://10.0.0.2:8080":"DOWN"}},
 {"name":"default-route-6b204d94623b3df4370c@kubernetescrd","loadBalancer":{"servers":[{"url":"http://127.0.0.1:9505"}]}},
 {"name":"api@internal"},{"name":"w@kubernetescrd","weighted":{"services":[]}}]"""

    def read_list(self):
        adapter = adapter_of("traefik")
        return read_lists(adapter, {adapter.list_paths[0]: self.SERVICES}, BY_ADDRESS)

    def test_by_ingress_gateway_and_ingress_route(self):
        found = counts("traefik", self.PAGE, BY_ADDRESS, self.read_list().names)
        assert found["ok"] == Count({200: 7, 502: 2}, {Failure.RETRY: 3}, 1)
        assert found["slow"].statuses == {502: 4}
        assert found["early"].statuses == {200: 9}

    def test_its_list(self):
        listing = self.read_list()
        assert listing.usable == {ref("ok"): {"10.0.0.1:8080"}, ref("early"): {"127.0.0.1:9505"}}
        assert listing.unusable == {ref("ok"): {"10.0.0.2:8080"}}


def test_ingress_nginx_by_status_or_by_class():
    # After internal/ingress/metric/collectors/socket.go.
    page = """\
nginx_ingress_controller_requests{canary="",controller_class="k8s.io/ingress-nginx",host="a",ingress="i",method="GET",namespace="default",path="/",service="ok",status="200"} 5
nginx_ingress_controller_requests{canary="",controller_class="k8s.io/ingress-nginx",host="a",ingress="i",method="GET",namespace="default",path="/",service="ok",status="502"} 2
nginx_ingress_controller_requests{canary="",ingress="i",method="GET",namespace="other",path="/",service="ok",status="502"} 9
nginx_ingress_controller_requests{canary="",ingress="i",method="GET",namespace="default",path="/",service="slow",status="5xx"} 4
"""
    found = counts("ingress-nginx", page, BY_NAME)
    assert found["ok"] == Count({200: 5, 502: 2})
    assert found["slow"] == Count({500: 4}, classes_only=True)


def test_istio_by_what_its_gateway_reports_as_source():
    # After the documentation of Istio's standard metrics.
    def row(value, **labels):
        text = ",".join(f'{key}="{v}"' for key, v in labels.items())
        return f"istio_requests_total{{{text}}} {value}\n"

    ok = {"destination_service_name": "ok", "destination_service_namespace": "default"}
    page = (
        row(5, reporter="source", response_code="200", response_flags="-", **ok)
        + row(2, reporter="source", response_code="503", response_flags="UF,URX", **ok)
        + row(9, reporter="destination", response_code="200", response_flags="-", **ok)
        + "envoy_server_uptime{} 20\n"
    )
    assert counts("istio", page, BY_NAME)["ok"] == Count(
        {200: 5, 503: 2}, {Failure.CONNECT: 2, Failure.RETRY: 2}
    )


def test_a_name_that_two_services_could_have_names_neither():
    known = [
        Known(ObjectRef("a", "b-c"), "", (ServicePort("", 80, 80),)),
        Known(ObjectRef("a-b", "c"), "", (ServicePort("", 80, 80),)),
    ]
    page = 'traefik_service_requests_total{code="200",service="a-b-c-80@kubernetes"} 7\n'
    assert counts("traefik", page, known) == {}


WITH_ADAPTER = sorted(name for name, profile in PROFILES.items() if profile.adapter)
PAGES = "\n".join(path.read_text() for path in sorted(DATA.glob("*.txt")))


class TestHostile:
    """Whatever a gateway answers, no traceback comes of it, and no absurd number."""

    @pytest.mark.parametrize("controller", WITH_ADAPTER)
    @given(data=st.data())
    def test_pages_that_were_tampered_with(self, controller, data):
        lines = [line for line in (PAGES + TestTraefik.PAGE).splitlines() if line[:1] != "#"]
        page = []
        for _ in range(data.draw(st.integers(1, 5))):
            line = data.draw(st.sampled_from(lines))
            at = data.draw(st.integers(0, len(line)))
            cut = data.draw(st.integers(0, 5))
            page.append(line[:at] + data.draw(st.text(max_size=8)) + line[at + cut :])
        read_metrics(adapter_of(controller), "\n".join(page), BY_ADDRESS, {}, 1000.0)

    @pytest.mark.parametrize("value", ["NaN", "-1", "+Inf", "1e300", "1e400", "", "x", "1_0"])
    def test_values_that_cannot_be_counts(self, value):
        page = f'envoy_cluster_upstream_rq{{envoy_cluster_name="default_ok_80",envoy_response_code="200"}} {value}\n'
        assert counts("contour", page, BY_NAME) == {}

    @pytest.mark.parametrize("status", ["", "x", "0", "20", "2000", "²00", "9xx", "xxx", "-"])
    def test_statuses_that_are_none(self, status):
        page = f'envoy_cluster_upstream_rq{{envoy_cluster_name="default_ok_80",envoy_response_code="{status}"}} 1\n'
        assert counts("contour", page, BY_NAME) == {}

    def test_more_than_can_be_parsed_is_refused_and_not_cut_short(self, monkeypatch):
        monkeypatch.setattr(exposition, "MAX_SAMPLES", 5)
        row = 'envoy_cluster_upstream_rq{envoy_cluster_name="default_ok_80",envoy_response_code="200"} 1\n'
        assert counts("contour", row * 5, BY_NAME)["ok"].statuses == {200: 5}
        with pytest.raises(UnreadableError):
            counts("contour", row * 6, BY_NAME)
        monkeypatch.setattr(exposition, "MAX_SECONDS", -1.0)
        with pytest.raises(UnreadableError):
            counts("contour", row, BY_NAME)

    def test_a_line_without_end_is_passed_over(self):
        label = "x" * 1_000_000
        page = f'envoy_cluster_upstream_rq{{envoy_cluster_name="default_ok_80",a="{label}"}} 1\n'
        assert counts("contour", page, BY_NAME) == {}

    @pytest.mark.parametrize("controller", [c for c in WITH_ADAPTER if PROFILES[c].adapter.list_paths])  # fmt: skip
    @pytest.mark.parametrize(
        "body",
        [b"", b"{}", b"[]", b"null", b"[1]", b'{"a":1}', b"\xff\xfe", b"a,b\n1,2", b"[" * 100_000,
         b'{"srv0":{"routes":' + b'[{"handle":' * 5_000, b'{"cluster_statuses":[{"name":1}]}',
         b'{"cluster_statuses":[{"host_statuses":[{"health_status":[]}]}]}',
         b'# pxname,svname,status\n"', b"# pxname,svname,status\n\n,\nx"],
    )  # fmt: skip
    def test_lists_that_are_none(self, controller, body):
        adapter = adapter_of(controller)
        with contextlib.suppress(UnreadableError):
            listing = read_lists(adapter, dict.fromkeys(adapter.list_paths, body), BY_ADDRESS)
            assert not listing.usable
