"""Which requests go through the gateways: only such as surely reach the Service and change nothing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.evidence import RouteKey
from upstream_guard.core.model import (
    DetectionPolicy,
    GatewayAddress,
    GatewayObject,
    Guard,
    Listener,
    ObjectRef,
    ParentRef,
    PathMatch,
    Route,
    RouteProbeMode,
    RouteProbePolicy,
    RouteWay,
    Service,
    ServicePort,
)
from upstream_guard.core.routes import MAX_ASKS, Ask, Landscape, RoutePlan, plan_routes
from upstream_guard.core.tuning import GatewayProfile

SHOP = ObjectRef("prod", "shop")
OTHER = ObjectRef("prod", "other")
HOST = "shop.example"
ADDRESS = GatewayAddress("192.0.2.7")
SERVICE = Service(
    SHOP,
    "s",
    {"app": "shop"},
    "ClusterIP",
    "198.19.0.7",
    (ServicePort("http", 80, 8080), ServicePort("admin", 81, 8081)),
)


def guard(section: str | None = None, **route_probe: object) -> Guard:
    policy = DetectionPolicy(route_probe=RouteProbePolicy(**route_probe))
    return Guard(SHOP, "g", 1, 0.0, "shop", section, detection=policy)


def way(path: str = "/", service: ObjectRef = SHOP, hosts: tuple[str, ...] = (HOST,), **rest):
    return RouteWay(service, rest.pop("port", 80), hosts, path, **rest)


def ingress(*ways: RouteWay, **fields: object) -> Route:
    base = {
        "kind": "Ingress",
        "ref": ObjectRef("prod", "web"),
        "services": frozenset(w.service for w in ways),
        "hosts": (),
        "gateway_class": "contour",
        "ways": ways,
        "addresses": (ADDRESS,),
    }
    return Route(**(base | fields))


def plan(route: Route, of: Guard | None = None, probe_path: str = "", **rest) -> RoutePlan:
    return plan_routes(of or guard(), SERVICE, Landscape((route,), **rest), probe_path)


def only(found: RoutePlan) -> Ask:
    assert found.unasked == ()
    (ask,) = found.asks
    return ask


def refused(found: RoutePlan) -> str:
    assert found.asks == ()
    (unasked,) = found.unasked
    return unasked.reason


def test_an_ingress_is_asked_where_its_status_says() -> None:
    key = RouteKey("contour", "Ingress prod/web", HOST, "/")
    assert only(plan(ingress(way()))) == Ask(key, ("192.0.2.7",), 80)


def test_a_host_with_tls_is_asked_over_tls() -> None:
    ask = only(plan(ingress(way(), tls_hosts=(HOST,))))
    assert (ask.key.tls, ask.port, ask.url) == (True, 443, f"https://{HOST}/")
    others = only(plan(ingress(way(), tls_hosts=("another.example",))))
    assert (others.key.tls, others.port) == (False, 80)


def test_ports_of_the_status_go_before_the_usual_ones() -> None:
    addresses = (GatewayAddress("192.0.2.7", (8080,)),)
    assert only(plan(ingress(way(), addresses=addresses))).port == 8080


def test_without_an_address_nothing_is_guessed() -> None:
    assert "GatewayProfile" in refused(plan(ingress(way(), addresses=())))


def test_a_profile_says_where() -> None:
    profile = GatewayProfile(
        "edge", ingress_classes=frozenset({"contour"}), address="https://10.0.0.9:8443"
    )
    ask = only(plan(ingress(way(), addresses=()), profiles=(profile,)))
    assert (ask.addresses, ask.port, ask.key.tls) == (("10.0.0.9",), 8443, True)
    assert (ask.key.gateway, ask.key.host) == ("contour", HOST)


@pytest.mark.parametrize("address", ["http://[::1", "http://x:99999", "http://:80"])
def test_a_profile_whose_address_is_none(address: str) -> None:
    profile = GatewayProfile("edge", ingress_classes=frozenset({"contour"}), address=address)
    assert "GatewayProfile edge" in refused(plan(ingress(way()), profiles=(profile,)))


@pytest.mark.parametrize(
    ("ways", "probe_path", "path"),
    [
        ((way("/"),), "/healthz", "/healthz"),
        ((way("/"),), "/healthz?full=1", "/healthz?full=1"),
        ((way("/shop"),), "/healthz", "/shop"),
        ((way("/shop"),), "/shopping", "/shop"),
        ((way("/shop"), way("/shop/admin", OTHER)), "/shop/admin/up", "/shop"),
        ((way("/"), way("/healthz", OTHER, match=PathMatch.EXACT)), "/healthz", "/"),
        ((way("/long/one"), way("/short")), "", "/short"),
        ((way("/delete-all"), way("/longer/and/harmless")), "", "/longer/and/harmless"),
        ((way("/v[0-9]", match=PathMatch.PATTERN), way("/longer")), "", "/longer"),
        ((way("/a", conditional=True), way("/longer")), "", "/longer"),
    ],
)
def test_the_path_surely_leads_there(
    ways: tuple[RouteWay, ...], probe_path: str, path: str
) -> None:
    ask = only(plan(ingress(*ways), probe_path=probe_path))
    assert (ask.key.path, ask.method) == (path, "GET")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (way("/v[0-9]", match=PathMatch.PATTERN), "/v[0-9] is a pattern"),
        (way("/a", conditional=True), "header or query parameter"),
        (way("/pay", methods=frozenset({"POST", "PUT"})), "takes POST, PUT only"),
        (way("/users/delete"), "may change something (delete)"),
        (way("/Logout", match=PathMatch.EXACT), "may change something (Logout)"),
    ],
)
def test_what_is_not_certain_is_said(found: RouteWay, reason: str) -> None:
    text = refused(plan(ingress(found)))
    assert reason in text
    assert "spec.detection.routeProbe.path" in text


@pytest.mark.parametrize("path", ["/deleted-items", "/settings", "/runs", "/unstoppable"])
def test_words_within_words_are_no_danger(path: str) -> None:
    assert only(plan(ingress(way(path)))).key.path == path


def test_the_users_word_goes_first() -> None:
    of = guard(path="/users/delete")
    assert only(plan(ingress(way("/")), of, "/healthz")).key.path == "/users/delete"
    assert "/elsewhere" in refused(plan(ingress(way("/shop")), guard(path="/elsewhere")))


def test_head_where_only_that_is_routed() -> None:
    assert only(plan(ingress(way(methods=frozenset({"HEAD", "POST"}))))).method == "HEAD"


def test_wildcards_and_no_host() -> None:
    route = ingress(way(hosts=("*.shop.example",)))
    assert only(plan(route)).key.host == "upstream-guard.shop.example"
    wanted = guard(host="eu.shop.example")
    assert only(plan(route, wanted)).key.host == "eu.shop.example"
    assert only(plan(ingress(way(hosts=())), wanted)).key.host == "eu.shop.example"
    assert only(plan(ingress(way(hosts=())))).key.host == ""


def test_a_host_that_leads_elsewhere_is_never_asked() -> None:
    """A tenant's guard cannot have another tenant's host asked."""
    assert "eu.example" in refused(plan(ingress(way()), guard(host="eu.example")))
    route = ingress(way(), way(hosts=("eu.example",), service=OTHER))
    assert "eu.example" in refused(plan(route, guard(host="eu.example")))


def test_only_the_guarded_port() -> None:
    route = ingress(way(port="http"), way("/admin", hosts=("admin.example",), port=81))
    assert only(plan(route, guard(section="http"))).key.host == HOST
    assert only(plan(route, guard(section="admin"))).key.host == "admin.example"
    assert "port admin" in refused(plan(ingress(way(port=80)), guard(section="admin")))


def test_off_asks_nothing() -> None:
    assert plan(ingress(way()), guard(mode=RouteProbeMode.OFF)) == RoutePlan()


def test_many_hosts_are_bounded_and_that_is_said() -> None:
    found = plan(ingress(*(way(hosts=(f"h{n}.example",)) for n in range(MAX_ASKS + 3))))
    assert len(found.asks) == MAX_ASKS
    assert "2 more" in found.unasked[0].reason


# The Gateway API.

EDGE = GatewayObject(
    ObjectRef("infra", "edge"),
    "envoy",
    (Listener("web", 80, False), Listener("tls", 8443, True, "*.example")),
    (ADDRESS,),
)


def httproute(*ways: RouteWay, parent: ParentRef | None = None) -> Route:
    parents = (parent or ParentRef("infra/edge"),)
    return ingress(
        *ways, kind="HTTPRoute", gateway_class="infra/edge", addresses=(), parents=parents
    )


def on_edge(route: Route, gateway: GatewayObject = EDGE) -> RoutePlan:
    return plan(route, gateways={"infra/edge": gateway})


def test_an_httproute_is_asked_at_its_listener_over_tls_where_there_is_one() -> None:
    ask = only(on_edge(httproute(way())))
    assert (ask.key, ask.port) == (
        RouteKey("infra/edge", "HTTPRoute prod/web", HOST, "/", tls=True),
        8443,
    )


def test_the_listener_that_the_route_names() -> None:
    for parent in (ParentRef("infra/edge", section="web"), ParentRef("infra/edge", port=80)):
        ask = only(on_edge(httproute(way(), parent=parent)))
        assert (ask.key.tls, ask.port) == (False, 80)


def test_the_narrower_host_of_route_and_listener() -> None:
    named = replace(EDGE, listeners=(Listener("tls", 443, True, HOST),))
    for hosts in ((), ("*.example",), (HOST,)):
        assert only(on_edge(httproute(way(hosts=hosts)), named)).key.host == HOST
    wild = replace(EDGE, listeners=(Listener("tls", 443, True, "*.example"),))
    assert only(on_edge(httproute(way(hosts=())), wild)).key.host == "upstream-guard.example"


@pytest.mark.parametrize(
    ("gateway", "reason"),
    [
        (replace(EDGE, addresses=()), "names no address"),
        (replace(EDGE, listeners=()), "no HTTP listener"),
        (replace(EDGE, listeners=(Listener("a", 80, False, "x.test"),)), "no HTTP listener"),
    ],
)
def test_gateways_that_cannot_be_asked(gateway: GatewayObject, reason: str) -> None:
    assert reason in refused(on_edge(httproute(way()), gateway))


def test_a_gateway_that_is_not_there() -> None:
    assert "does not exist" in refused(plan(httproute(way())))


# Plain gateways.


def test_a_plain_gateway_is_asked_as_its_profile_says() -> None:
    profile = GatewayProfile(
        "edge", services=frozenset({SHOP}), address="http://gw.example:8180/shop/"
    )
    landscape = Landscape(profiles=(profile,))
    ask = only(plan_routes(guard(host=HOST), SERVICE, landscape, "/healthz"))
    assert ask == Ask(RouteKey("edge", "", HOST, "/shop"), ("gw.example",), 8180)
    ask = only(plan_routes(guard(host=HOST, path="/up"), SERVICE, landscape, "/healthz"))
    assert ask.key.path == "/up"
    assert ask.users_path == ""
    bare = Landscape(profiles=(replace(profile, address="http://gw.example:8180"),))
    ask = only(plan_routes(guard(), SERVICE, bare, "/healthz"))
    assert (ask.key.path, ask.users_path) == ("/healthz", "/")


@pytest.mark.parametrize(
    ("ways", "probe_path", "said", "users"),
    [
        ((way("/"),), "/healthz", "", "/"),
        ((way("/"),), "/", "", ""),
        ((way("/"),), "/healthz", "/up", ""),
        ((way("/"), way("/shop")), "/healthz", "", "/"),
        ((way("/logout"), way("/shop"), way("/healthz")), "/healthz", "", "/shop"),
        ((way("/", methods=frozenset({"POST"})), way("/healthz")), "/healthz", "", ""),
    ],
)
def test_the_path_of_users_is_known_where_another_is_asked(ways, probe_path, said, users) -> None:
    assert only(plan(ingress(*ways), guard(path=said), probe_path)).users_path == users


def test_a_plain_gateway_without_an_address() -> None:
    landscape = Landscape(profiles=(GatewayProfile("edge", services=frozenset({SHOP})),))
    assert "names no address" in refused(plan_routes(guard(), SERVICE, landscape))


PATHS = st.sampled_from(["/", "/a", "/a/b", "/a/b/", "/b", "/delete", "/a.*"])
WAYS = st.builds(
    RouteWay,
    st.sampled_from([SHOP, OTHER]),
    st.sampled_from([80, 81, "http", ""]),
    st.sampled_from([(), (HOST,), ("*.example",), (HOST, "b.example")]),
    PATHS,
    st.sampled_from(list(PathMatch)),
    st.sampled_from([frozenset(), frozenset({"GET"}), frozenset({"POST"}), frozenset({"HEAD"})]),
    st.booleans(),
)


@given(st.lists(WAYS, max_size=5), st.sampled_from(["", *["/a", "/a/b", "/z"]]), st.booleans())
def test_whatever_the_routes_a_question_leads_to_the_service(
    ways: list[RouteWay], probe_path: str, sectioned: bool
) -> None:
    """By the rules of Ingress: of the rules that take the request, the best leads to the guarded port."""
    found = plan(ingress(*ways), guard("http" if sectioned else None), probe_path)
    for ask in found.asks:
        takers = [w for w in ways if _takes(w, ask)]
        best = max((w.match is PathMatch.EXACT, len(w.path.rstrip("/"))) for w in takers)
        leading = [
            w for w in takers if (w.match is PathMatch.EXACT, len(w.path.rstrip("/"))) == best
        ]
        assert any(w.service == SHOP and (not sectioned or w.port != 81) for w in leading)
        assert ask.method in {"GET", "HEAD"}
        assert "delete" not in ask.key.path


def _takes(way: RouteWay, ask: Ask) -> bool:
    host = ask.key.host.replace("upstream-guard.", "*.")
    if way.conditional or host not in (way.hosts or ("",)):
        return False
    if way.methods and ask.method not in way.methods:
        return False
    if way.match is PathMatch.EXACT:
        return way.path == ask.key.path
    elements = [e for e in way.path.split("/") if e]
    asked = [e for e in ask.key.path.split("/") if e]
    return way.match is PathMatch.PREFIX and asked[: len(elements)] == elements
