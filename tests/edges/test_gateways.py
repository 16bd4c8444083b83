"""Gateways in front of a Service: found by class and controller, corrected by profiles."""

import pytest

from upstream_guard.core.model import DrainPolicy, ObjectRef, Route
from upstream_guard.core.tuning import Evidence, GatewayKind, GatewayProfile, advise_drain
from upstream_guard.gateways import PROFILES, discover

SHOP = ObjectRef("prod", "shop")
CLASSES = {"nginx": "k8s.io/ingress-nginx", "edge": "projectcontour.io/ingress-controller"}
GATEWAYS = {
    "infra/eg": "gateway.envoyproxy.io/gatewayclass-controller",
    "infra/istio": "istio.io/gateway-controller",
    "infra/odd": "example.com/odd",
}


def ingress(class_: str, service: ObjectRef = SHOP) -> Route:
    return Route("Ingress", ObjectRef("prod", f"i-{class_}"), frozenset({service}), (), class_)


def http_route(*gateways: str) -> Route:
    return Route("HTTPRoute", ObjectRef("prod", "r"), frozenset({SHOP}), (), ",".join(gateways))


def found(*routes: Route, profiles: tuple[GatewayProfile, ...] = ()) -> list[tuple[str, str]]:
    gateways = discover(SHOP, routes, CLASSES, GATEWAYS, profiles)
    return [(gateway.name, gateway.controller) for gateway in gateways]


def test_by_controller_of_the_class_whatever_its_name() -> None:
    assert found(ingress("edge"), ingress("nginx")) == [
        ("edge", "contour"),
        ("nginx", "ingress-nginx"),
    ]


def test_by_class_name_where_no_class_object_exists() -> None:
    assert found(ingress("skipper"), ingress("gce")) == [("gce", "gce"), ("skipper", "skipper")]


def test_gateways_of_the_gateway_api() -> None:
    assert found(http_route("infra/eg", "infra/istio")) == [
        ("infra/eg", "envoy-gateway"),
        ("infra/istio", "istio"),
    ]


def test_each_gateway_is_named_once_and_other_services_are_passed_over() -> None:
    assert found(ingress("edge"), ingress("edge")) == [("edge", "contour")]
    assert found(ingress("edge", ObjectRef("prod", "other"))) == []


def test_unknown_gateways_are_assumed_slow() -> None:
    (gateway,) = discover(SHOP, [http_route("infra/odd")], CLASSES, GATEWAYS)
    assert (gateway.controller, gateway.evidence) == ("example.com/odd", Evidence.ASSUMED)
    assert advise_drain(DrainPolicy(), [gateway]).pre_stop == 7


def test_an_ingress_without_a_class_is_assumed_slow() -> None:
    (gateway,) = discover(SHOP, [ingress("")], CLASSES, {})
    assert (gateway.name, gateway.controller) == ("(no class)", "unknown")
    assert gateway.evidence is Evidence.ASSUMED


def test_a_profile_goes_before_what_is_built_in() -> None:
    profile = GatewayProfile(
        "mine", gateways=frozenset({"infra/odd"}), detach_seconds=0.3, bad_statuses=(502,)
    )
    (gateway,) = discover(SHOP, [http_route("infra/odd")], CLASSES, GATEWAYS, [profile])
    assert (gateway.kind, gateway.evidence) == (GatewayKind.GATEWAY, Evidence.PROFILE)
    assert gateway.bad_statuses == (502,)
    assert gateway.source == "GatewayProfile mine"
    assert advise_drain(DrainPolicy(), [gateway]).pre_stop == 1


def test_a_profile_may_start_from_a_built_in_one() -> None:
    profile = GatewayProfile("mine", ingress_classes=frozenset({"edge"}), controller="traefik")
    (gateway,) = discover(SHOP, [ingress("edge")], CLASSES, GATEWAYS, [profile])
    assert (gateway.controller, gateway.detach_seconds) == ("traefik", 2.0)


def test_a_profile_names_services_that_no_route_names() -> None:
    profile = GatewayProfile("plain", services=frozenset({SHOP}))
    (gateway,) = discover(SHOP, [], {}, {}, [profile])
    assert (gateway.kind, gateway.name) == (GatewayKind.PROFILE, "plain")
    assert gateway.via_cluster_ip
    assert advise_drain(DrainPolicy(), [gateway]).pre_stop == 2


@pytest.mark.parametrize("controller", ["nginx", "haproxy", "caddy", "httpd", "envoy"])
def test_plain_proxies_are_known_by_name_only(controller: str) -> None:
    profile = GatewayProfile("edge", services=frozenset({SHOP}), controller=controller)
    (gateway,) = discover(SHOP, [], {}, {}, [profile])
    assert (gateway.name, gateway.controller) == ("edge", controller)
    assert gateway.via_cluster_ip
    of_class = GatewayProfile("edge", ingress_classes=frozenset({"nginx"}), controller=controller)
    (gateway,) = discover(SHOP, [ingress("nginx")], CLASSES, {}, [of_class])
    assert (gateway.controller, gateway.via_cluster_ip) == (controller, True)
    ((_, by_class_name),) = found(ingress(controller))
    assert by_class_name not in {"haproxy", "caddy", "httpd", "envoy", "nginx"}


def test_a_profile_says_what_the_gateway_is_configured_with() -> None:
    profile = GatewayProfile(
        "mine",
        ingress_classes=frozenset({"edge"}),
        connect_timeout=1.0,
        read_timeout=5.0,
        keepalive_idle=0.0,
        retries=4,
    )
    (gateway,) = discover(SHOP, [ingress("edge")], CLASSES, GATEWAYS, [profile])
    said = (gateway.connect_timeout, gateway.read_timeout, gateway.keepalive_idle, gateway.retries)
    assert said == (1.0, 5.0, 0.0, 4)
    assert gateway.evidence is Evidence.BUILTIN


@pytest.mark.parametrize(
    ("controller", "pre_stop"),
    [
        ("contour", 1),
        ("cluster-ip", 2),
        ("nginx", 2),
        ("haproxy", 2),
        ("caddy", 2),
        ("httpd", 2),
        ("envoy", 2),
        ("envoy-gateway", 2),
        ("traefik", 4),
        ("haproxy-ingress", 4),
        ("f5-nginx", 4),
        ("skipper", 5),
        ("ingress-nginx", 6),
        ("haproxytech", 7),
        ("istio", 12),
        ("aws-alb", 60),
        ("gce", 60),
    ],
)
def test_pre_stop_by_built_in_profile(controller: str, pre_stop: int) -> None:
    facts = PROFILES[controller].facts("edge", GatewayKind.GATEWAY)
    assert advise_drain(DrainPolicy(), [facts]).pre_stop == pre_stop


def test_every_profile_is_tested_and_found_by_one_product_only() -> None:
    for name, profile in PROFILES.items():
        assert profile.source
        for class_ in profile.ingress_classes:
            owners = [n for n, p in PROFILES.items() if class_ in p.ingress_classes]
            assert owners == [name]
        for pattern in profile.ingress_controllers:
            controller = pattern.rstrip("*")
            owners = [n for n, p in PROFILES.items() if p.is_ingress_controller(controller)]
            assert owners == [name]
