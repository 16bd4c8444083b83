"""Where gateways are read: pods by labels and annotations, or what a GatewayProfile says."""

import pytest

from upstream_guard.controller.gateway_targets import GatewayFinder, Target
from upstream_guard.controller.guards import GuardBook
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.names import API_VERSION
from upstream_guard.gateways import discover
from upstream_guard.kube.state import ClusterState
from upstream_guard.kube.surroundings import (
    parse_seen_httproute,
    parse_seen_ingress,
    parse_seen_service,
)
from upstream_guard.resources.kube_objects import parse_gateway, parse_pod, parse_slice
from upstream_guard.resources.profile import parse_profile

SHOP = ObjectRef("prod", "shop")
SCRAPE = {"prometheus.io/scrape": "true"}
ENVOY = {"app": "envoy"}


class Touched:
    """Nobody: tests ask, and are not told."""

    def __getattr__(self, name):
        return lambda *_: None


class Scene:
    def __init__(self):
        self.state = ClusterState(None, Touched())
        self.book = GuardBook()
        self.left = set()
        self.finder = GatewayFinder(self.state, self.book, self.gateways, lambda _: self.left)

    def gateways(self, service):
        return discover(
            service.ref,
            self.state.routes_to(service.ref),
            self.state.ingress_classes,
            self.state.gateway_controllers,
            tuple(self.book.profiles.values()),
        )

    def guard(self, name="shop"):
        self.book.put(
            {
                "apiVersion": API_VERSION,
                "kind": "UpstreamGuard",
                "metadata": {"namespace": "prod", "name": name, "uid": name},
                "spec": {"targetRef": {"name": name}},
            }
        )
        service = {
            "metadata": {"namespace": "prod", "name": name},
            "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80, "targetPort": 8080}]},
        }
        self.state._seen_service(None, parse_seen_service(service))

    def ingress(self, class_="contour", service="shop"):
        backend = {"service": {"name": service, "port": {"number": 80}}}
        body = {
            "metadata": {"namespace": "prod", "name": f"{class_}-{service}"},
            "spec": {
                "ingressClassName": class_,
                "rules": [{"http": {"paths": [{"path": "/", "backend": backend}]}}],
            },
        }
        self.state._seen_route(None, parse_seen_ingress(body))

    def pod(self, ip="10.0.0.2", labels=ENVOY, notes=SCRAPE, port=None, namespace="edge"):
        ports = [{"containerPort": port}] if port else []
        body = {
            "metadata": {
                "namespace": namespace,
                "name": f"p-{ip}",
                "uid": ip,
                "labels": labels,
                "annotations": notes,
            },
            "spec": {"containers": [{"name": "a", "ports": ports}]},
            "status": {"podIP": ip},
        }
        self.state._pod(None, parse_pod(body))

    def profile(self, name="edge", **spec):
        body = {"apiVersion": API_VERSION, "kind": "GatewayProfile", "metadata": {"name": name}}
        self.book.profiles[name] = parse_profile({**body, "spec": spec})

    def urls(self):
        return [(t.metrics_url, t.admin_url) for t in self.finder.targets()]


@pytest.fixture
def scene():
    made = Scene()
    made.guard()
    return made


def test_each_annotated_pod_of_the_gateway_is_a_target(scene):
    scene.ingress()
    scene.pod("10.0.0.2")
    scene.pod("10.0.0.3", notes={**SCRAPE, "prometheus.io/port": "9000", "prometheus.io/path": "/m"})  # fmt: skip
    scene.pod("10.0.0.4", labels={"app": "other"})
    scene.pod("10.0.0.5", notes={})
    scene.pod("10.0.0.6", notes={}, port=8002)
    scene.pod("10.0.0.7", notes={"prometheus.io/scrape": "false"}, port=8002)
    assert [url for url, _ in scene.urls()] == [
        "http://10.0.0.2:8002/stats/prometheus",
        "http://10.0.0.3:9000/m",
        "http://10.0.0.6:8002/stats/prometheus",
    ]
    target = scene.finder.targets()[0]
    assert (target.gateway, target.controller, target.replica) == ("contour", "contour", "10.0.0.2:8002")  # fmt: skip
    assert target.services == {SHOP}


def test_nothing_is_read_without_a_guard_or_without_a_route(scene):
    scene.pod()
    assert scene.urls() == []
    empty = Scene()
    empty.ingress()
    empty.pod()
    assert empty.urls() == []


@pytest.mark.parametrize(
    "notes",
    [
        {"prometheus.io/path": "metrics"},
        {"prometheus.io/path": "/a b"},
        {"prometheus.io/path": "/" + "x" * 300},
        {"prometheus.io/path": "/\r\nHost: x"},
        {"prometheus.io/scheme": "file"},
    ],
)
def test_annotations_that_cannot_be_followed(scene, notes):
    scene.ingress()
    scene.pod(notes={**SCRAPE, **notes})
    assert scene.urls() == []


@pytest.mark.parametrize("port", ["x", "0", "70000", "-1", "²", "9" * 30])
def test_a_port_that_is_none_leaves_the_products_own(scene, port):
    scene.ingress()
    scene.pod(notes={**SCRAPE, "prometheus.io/port": port})
    assert scene.urls() == [("http://10.0.0.2:8002/stats/prometheus", "")]


def test_ipv6(scene):
    scene.ingress()
    scene.pod("fd00::2")
    assert scene.urls() == [("http://[fd00::2]:8002/stats/prometheus", "")]


def test_the_admin_api_where_the_product_shows_it_to_others(scene):
    scene.ingress("haproxy")
    scene.pod(labels={"run": "haproxy-ingress"}, notes={}, port=1024)
    assert scene.urls() == [("http://10.0.0.2:1024/metrics", "http://10.0.0.2:1024/")]


def test_pods_of_a_gateway_by_the_labels_of_its_name(scene):
    scene.state._gateway(None, parse_gateway({"metadata": {"namespace": "infra", "name": "eg"}, "spec": {"gatewayClassName": "eg"}}))  # fmt: skip
    scene.state.gateway_controllers = {"infra/eg": "gateway.envoyproxy.io/gatewayclass-controller"}
    route = {
        "metadata": {"namespace": "prod", "name": "r"},
        "spec": {
            "parentRefs": [{"namespace": "infra", "name": "eg"}],
            "rules": [
                {"backendRefs": [{"name": "other"}]},
                {"backendRefs": [{"name": "shop", "port": 80}, {"kind": "Backend", "name": "x"}]},
            ],
        },
    }
    scene.state._seen_route(None, parse_seen_httproute(route))
    own = {
        "gateway.envoyproxy.io/owning-gateway-name": "eg",
        "gateway.envoyproxy.io/owning-gateway-namespace": "infra",
    }
    scene.pod("10.0.0.2", labels=own)
    scene.pod("10.0.0.3", labels={**own, "gateway.envoyproxy.io/owning-gateway-name": "other"})
    (target,) = scene.finder.targets()
    assert target.metrics_url == "http://10.0.0.2:19001/stats/prometheus"
    assert target.known[0].rules == ((ObjectRef("prod", "r"), 1, (SHOP, None)),)


def test_a_profile_goes_before_the_pods(scene):
    scene.ingress()
    scene.pod()
    scene.profile(match={"ingressClasses": ["contour"]}, metrics={"url": "http://edge:8002/s"})
    assert scene.urls() == [("http://edge:8002/s", "")]


def test_an_admin_url_is_read_beside_the_pods_metrics(scene):
    scene.ingress()
    scene.pod()
    scene.profile(match={"ingressClasses": ["contour"]}, admin={"url": "http://edge:9001"})
    assert scene.urls() == [
        ("", "http://edge:9001"),
        ("http://10.0.0.2:8002/stats/prometheus", ""),
    ]


def test_a_prometheus_stands_for_all_replicas(scene):
    scene.ingress()
    scene.pod()
    scene.profile(
        match={"ingressClasses": ["contour"]},
        prometheus={"url": "http://prom:9090", "tokenFile": "prom"},
    )
    (target,) = scene.finder.targets()
    assert (target.prometheus_url, target.prometheus_token) == ("http://prom:9090", "prom")


def test_a_plain_gateway_is_what_its_profile_says(scene):
    scene.profile(
        match={"services": ["prod/shop"]},
        controller="haproxy",
        metrics={"url": "http://10.0.0.9:8404/metrics"},
        admin={"url": "http://10.0.0.9:8404/stats"},
    )
    (target,) = scene.finder.targets()
    assert (target.gateway, target.replica) == ("edge", "10.0.0.9:8404")
    assert "10.96.0.9:80" in target.known[0].cluster_addresses
    assert "shop.prod.svc:80" in target.known[0].cluster_addresses


def test_a_gateway_without_a_view_of_its_own_is_no_target(scene):
    scene.profile(
        match={"services": ["prod/shop"]},
        controller="nginx",
        metrics={"url": "http://10.0.0.9:9113/metrics"},
    )
    assert scene.urls() == []


def test_endpoints_that_left_lately_are_still_the_services(scene):
    scene.ingress()
    scene.pod()
    body = {
        "metadata": {"namespace": "prod", "name": "shop-1", "labels": {"kubernetes.io/service-name": "shop"}},
        "ports": [{"name": "", "port": 8080}],
        "endpoints": [{"addresses": ["10.0.1.1"]}],
    }  # fmt: skip
    scene.state._slice(None, parse_slice(body))
    scene.left = {"10.0.1.9:8080"}
    (target,) = scene.finder.targets()
    assert target.known[0].endpoints == {"10.0.1.1:8080", "10.0.1.9:8080"}


def test_a_target_is_the_same_whatever_lies_behind_it(scene):
    scene.ingress()
    scene.pod()
    (before,) = scene.finder.targets()
    scene.guard("cart")
    scene.ingress(service="cart")
    (after,) = scene.finder.targets()
    assert before.key == after.key
    assert isinstance(after, Target)
    assert len(after.known) == 2
