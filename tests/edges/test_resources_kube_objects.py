"""Kubernetes objects as the API serves them, and with holes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from upstream_guard.core.model import (
    ContainerPort,
    GatewayAddress,
    GatewayObject,
    Listener,
    Node,
    ObjectRef,
    ParentRef,
    PathMatch,
    Pod,
    ProbeProtocol,
    Readiness,
    RouteWay,
    ServicePort,
)
from upstream_guard.resources.kube_objects import (
    MAX_WAYS,
    parse_gateway,
    parse_httproute,
    parse_ingress,
    parse_node,
    parse_pod,
    parse_service,
    parse_slice,
    parse_time,
)

DATA = Path(__file__).parents[1] / "data/resources/objects.yaml"
OBJECTS = {
    (body["kind"], body["metadata"]["name"]): body for body in yaml.safe_load_all(DATA.read_text())
}
POD = OBJECTS["Pod", "shop-6f9c-abcde"]


def changed(**parts: dict[str, Any]) -> Pod:
    """The pod with parts of metadata, spec or status laid over its own."""
    return parse_pod({**POD, **{name: {**POD[name], **part} for name, part in parts.items()}})


def test_pod() -> None:
    pod = parse_pod(POD)
    assert pod.ref == ObjectRef("prod", "shop-6f9c-abcde")
    assert (pod.uid, pod.ip, pod.node) == ("pod-1", "198.18.1.2", "node-a")
    assert pod.created == 1767323045.0
    assert pod.template == "rs-1/6f9c"
    assert pod.owner == ("ReplicaSet", "shop-6f9c")
    assert pod.ports == (ContainerPort("http", 8080), ContainerPort("admin", 9000))
    assert pod.readiness == Readiness(
        ProbeProtocol.HTTPS, 8080, "/ready", "shop.example.com", (("X-A", "b"),)
    )
    assert pod.has_exec_readiness
    assert (pod.gated, pod.gate) == (True, False)
    assert (pod.ready, pod.containers_ready, pod.terminating) == (False, True, False)
    assert (pod.ready_since, pod.containers_ready_since) == (1767323049.0, 1767323047.5)
    assert (pod.grace_period, pod.pre_stop) == (45.0, "exec sh -c wait, sleep 5s")
    assert pod.annotations == {"note": "kept"}


def test_containers_of_a_pod() -> None:
    sidecar, app = parse_pod(POD).containers
    assert (sidecar.name, sidecar.readiness, sidecar.has_exec) == ("sidecar", None, True)
    assert (app.name, app.has_exec, app.readiness and app.readiness.port) == ("app", False, 8080)


def test_deleted_pod() -> None:
    pod = changed(
        metadata={"deletionTimestamp": "2026-01-02T03:05:00Z", "deletionGracePeriodSeconds": 7}
    )
    assert pod.terminating
    assert pod.grace_period == 7.0


@pytest.mark.parametrize(("phase", "finished"), [("Running", False), ("Failed", True)])
def test_finished_pod(phase: str, finished: bool) -> None:
    assert changed(status={"phase": phase}).finished is finished


def test_stateful_and_bare_pods() -> None:
    owner = {"kind": "StatefulSet", "name": "db", "uid": "ss-1", "controller": True}
    stateful = changed(
        metadata={"labels": {"controller-revision-hash": "db-7"}, "ownerReferences": [owner]}
    )
    assert stateful.template == "ss-1/db-7"
    bare = changed(metadata={"ownerReferences": []})
    assert (bare.template, bare.owner) == ("pod-1", None)


@pytest.mark.parametrize(
    ("probe", "readiness"),
    [
        ({"tcpSocket": {"port": 5432}}, Readiness(ProbeProtocol.TCP, 5432)),
        (
            {"grpc": {"port": 9090, "service": "shop.v1"}},
            Readiness(ProbeProtocol.GRPC, 9090, service="shop.v1"),
        ),
        (
            {"httpGet": {"port": "nowhere", "host": "a.example.com"}},
            Readiness(ProbeProtocol.HTTP, "nowhere", host="a.example.com"),
        ),
        ({"exec": {"command": ["true"]}}, None),
        ({}, None),
    ],
)
def test_readiness_probes(probe: dict[str, Any], readiness: Readiness | None) -> None:
    assert changed(spec={"containers": [{"readinessProbe": probe}]}).readiness == readiness


def test_service() -> None:
    service = parse_service(OBJECTS["Service", "shop"])
    assert (service.ref, service.uid) == (ObjectRef("prod", "shop"), "svc-1")
    assert (service.type, service.cluster_ip) == ("LoadBalancer", "198.19.0.10")
    assert service.ports == (
        ServicePort("http", 80, "http", "TCP", "http"),
        ServicePort("", 53, 53, "UDP"),
    )
    assert (service.internal_local, service.external_local) == (False, True)
    assert (service.publish_not_ready, service.zonal) == (True, True)


@pytest.mark.parametrize(
    ("distribution", "zonal"), [("PreferClose", True), ("PreferSameZone", True), (None, False)]
)
def test_traffic_distribution(distribution: str | None, zonal: bool) -> None:
    assert parse_service({"spec": {"trafficDistribution": distribution}}).zonal is zonal


def test_slice() -> None:
    parsed = parse_slice(OBJECTS["EndpointSlice", "shop-x1"])
    assert (parsed.ref, parsed.service) == (ObjectRef("prod", "shop-x1"), "shop")
    assert (parsed.address_type, parsed.ports) == ("IPv4", (("http", 8080),))
    states = [(e.ready, e.serving, e.terminating) for e in parsed.endpoints]
    assert states == [
        (True, True, False),
        (False, True, True),
        (True, True, False),
        (False, False, False),
    ]
    first = parsed.endpoints[0]
    assert (first.addresses, first.pod_uid) == (("198.18.1.2",), "pod-1")
    assert (first.node, first.zone) == ("node-a", "z1")


def test_ingress() -> None:
    route = parse_ingress(OBJECTS["Ingress", "shop"])
    assert route.services == {ObjectRef("prod", "shop"), ObjectRef("prod", "fallback")}
    assert route.hosts == ("shop.example.com", "empty.example.com")
    assert (route.kind, route.gateway_class) == ("Ingress", "contour")
    assert parse_ingress(OBJECTS["Ingress", "old"]).gateway_class == "skipper"


def test_httproute() -> None:
    route = parse_httproute(OBJECTS["HTTPRoute", "shop"])
    assert route.services == {ObjectRef("prod", "shop"), ObjectRef("stage", "other")}
    assert (route.kind, route.gateway_class) == ("HTTPRoute", "infra/edge,prod/local")
    assert route.hosts == ("shop.example.com",)


SHOP = ObjectRef("prod", "shop")


def ingress_path(path: str | None, kind: str | None) -> dict[str, Any]:
    backend = {"service": {"name": "shop", "port": {"number": 80}}}
    return {"path": path, "pathType": kind, "backend": backend}


def test_ways_of_an_ingress() -> None:
    route = parse_ingress(OBJECTS["Ingress", "shop"])
    assert route.ways == (
        RouteWay(SHOP, "http", ("shop.example.com",)),
        RouteWay(ObjectRef("prod", "fallback"), 80),
    )
    assert (route.tls_hosts, route.addresses) == ((), ())


@pytest.mark.parametrize(
    ("path", "kind", "text", "match"),
    [
        ("/a", "Prefix", "/a", PathMatch.PREFIX),
        ("/a", "Exact", "/a", PathMatch.EXACT),
        (None, None, "/", PathMatch.PREFIX),
        ("/a/*", "ImplementationSpecific", "/a/", PathMatch.PREFIX),
        ("/a(/|$)(.*)", "ImplementationSpecific", "/a(/|$)(.*)", PathMatch.PATTERN),
        ("/a/.*", "Prefix", "/a/.*", PathMatch.PATTERN),
    ],
)
def test_paths_of_an_ingress(
    path: str | None, kind: str | None, text: str, match: PathMatch
) -> None:
    rules = [{"host": "a.example", "http": {"paths": [ingress_path(path, kind)]}}]
    (way,) = parse_ingress({"metadata": {"namespace": "prod"}, "spec": {"rules": rules}}).ways
    assert (way.path, way.match) == (text, match)


def test_where_an_ingress_is_served() -> None:
    status = {
        "loadBalancer": {
            "ingress": [
                {"ip": "192.0.2.7", "ports": [{"port": 8443, "protocol": "TCP"}]},
                {"hostname": "lb.example"},
                {},
            ]
        }
    }
    spec = {"tls": [{"hosts": ["a.example", "*.b.example"]}, {"secretName": "any"}]}
    route = parse_ingress({"spec": spec, "status": status})
    assert route.addresses == (GatewayAddress("192.0.2.7", (8443,)), GatewayAddress("lb.example"))
    assert route.tls_hosts == ("a.example", "*.b.example", "")


def test_only_a_part_of_many_ways_is_kept_and_no_service_is_lost() -> None:
    paths = [ingress_path(f"/{n}", "Prefix") for n in range(MAX_WAYS + 1)]
    paths[-1]["backend"]["service"]["name"] = "last"
    spec = {"rules": [{"http": {"paths": paths}}]}
    route = parse_ingress({"metadata": {"namespace": "prod"}, "spec": spec})
    assert len(route.ways) == MAX_WAYS
    assert route.services == {SHOP, ObjectRef("prod", "last")}


def test_ways_of_an_httproute() -> None:
    matches = [
        {"path": {"type": "Exact", "value": "/pay"}, "method": "POST"},
        {"path": {"type": "RegularExpression", "value": "/v[0-9]"}},
        {"headers": [{"name": "a", "value": "b"}]},
    ]
    spec = {
        "hostnames": ["a.example", "*.b.example"],
        "parentRefs": [{"name": "edge", "sectionName": "https", "port": 443}],
        "rules": [{"matches": matches, "backendRefs": [{"name": "shop", "port": 80}]}],
    }
    route = parse_httproute({"metadata": {"namespace": "prod"}, "spec": spec})
    hosts = ("a.example", "*.b.example")
    assert route.ways == (
        RouteWay(SHOP, 80, hosts, "/pay", PathMatch.EXACT, frozenset({"POST"})),
        RouteWay(SHOP, 80, hosts, "/v[0-9]", PathMatch.PATTERN),
        RouteWay(SHOP, 80, hosts, conditional=True),
    )
    assert route.parents == (ParentRef("prod/edge", "https", 443),)


def test_gateway() -> None:
    listeners = [
        {"name": "web", "port": 80, "protocol": "HTTP"},
        {"name": "tls", "port": 443, "protocol": "HTTPS", "hostname": "*.example.com"},
        {"name": "through", "port": 444, "protocol": "HTTPS", "tls": {"mode": "Passthrough"}},
        {"name": "db", "port": 5432, "protocol": "TCP"},
    ]
    addresses = [{"value": "192.0.2.8"}, {"type": "Hostname", "value": "lb.example"}]
    gateway = parse_gateway(
        {
            "metadata": {"namespace": "infra", "name": "edge"},
            "spec": {"gatewayClassName": "envoy", "listeners": listeners},
            "status": {"addresses": addresses},
        }
    )
    assert gateway == GatewayObject(
        ObjectRef("infra", "edge"),
        "envoy",
        (Listener("web", 80, False), Listener("tls", 443, True, "*.example.com")),
        (GatewayAddress("192.0.2.8"), GatewayAddress("lb.example")),
    )


def test_node() -> None:
    assert parse_node(OBJECTS["Node", "node-a"]) == Node("node-a", "z1", True, True)


@pytest.mark.parametrize(
    "parse",
    [
        parse_pod,
        parse_service,
        parse_slice,
        parse_ingress,
        parse_httproute,
        parse_gateway,
        parse_node,
    ],
)
@pytest.mark.parametrize(
    "body",
    [{}, {"metadata": None, "spec": None, "status": None}, {"metadata": {}, "spec": {}}],
    ids=["nothing", "nulls", "empty"],
)
def test_what_is_missing_counts_as_absent(
    parse: Callable[[Any], object], body: dict[str, Any]
) -> None:
    assert parse(body) is not None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T01:00:01.250000+01:00", 1.25),
        ("", 0.0),
        (None, 0.0),
        ("yesterday", 0.0),
    ],
)
def test_times(text: str | None, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("state", "last", "restarts", "ends"),
    [
        ({"running": {"startedAt": "2026-01-02T03:04:05Z"}}, {}, 0, 0),
        ({"terminated": {}}, {}, 0, 1),
        ({"terminated": {"exitCode": 1}}, {"terminated": {"exitCode": 1}}, 1, 2),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": {"exitCode": 1}}, 1, 2),
        ({"running": {"startedAt": "2026-01-02T03:04:05Z"}}, {"terminated": {"exitCode": 1}}, 2, 2),
        ({"waiting": {"reason": "ContainerCreating"}}, {}, 0, 0),
        (None, None, None, 0),
    ],
)
def test_how_often_a_container_has_ended(state, last, restarts, ends) -> None:
    status = {"name": "app", "state": state, "lastState": last, "restartCount": restarts}
    assert changed(status={"containerStatuses": [status]}).ends == ends


def test_a_pod_has_started_once_all_its_containers_run() -> None:
    def running(second):
        return {"state": {"running": {"startedAt": f"2026-01-02T03:04:0{second}Z"}}}

    both = [running(5), running(7)]
    assert changed(status={"containerStatuses": both}).started == parse_time("2026-01-02T03:04:07Z")
    half = [running(5), {"state": {"waiting": {}}}]
    assert changed(status={"containerStatuses": half}).started == 0.0
    assert changed(status={"containerStatuses": []}).started == 0.0
