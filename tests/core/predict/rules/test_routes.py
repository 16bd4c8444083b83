"""Rules about routes."""

from dataclasses import replace
from typing import Any

import pytest
from tests.core.predict.factories import (
    CONTOUR,
    NGINX,
    SHOP,
    facts,
    gateway,
    http_route,
    ingress,
    port,
    ref,
    seconds,
    service,
    state,
    workload,
)
from tests.core.predict.rules.looking import only, patch_of, risks, severity

from upstream_guard.core.predict.rules import inspect_routes
from upstream_guard.core.predict.state import Backend, Grant, RouteState, World
from upstream_guard.core.predict.window import PatchKind, Severity

FOREIGN = http_route(namespace="web")
SLOW = facts(slow_response=seconds(90.0))


def world(*routes: RouteState, **fields: Any) -> World:
    return World(routes=routes, services={SHOP: service()}, **fields)


@pytest.mark.parametrize(
    ("to", "complete", "expected"),
    [
        (ref("shopp"), True, Severity.ERROR),
        (ref("shopp"), False, Severity.WARNING),
        (ref("shop", "elsewhere"), False, Severity.INFO),
    ],
)
def test_routes_to_services_that_are_not_there(
    to: object, complete: bool, expected: Severity
) -> None:
    (found,) = inspect_routes(world(ingress(to=to), complete=complete))  # type: ignore[arg-type]
    assert found.severity is expected


def test_a_misspelt_name_is_pointed_out() -> None:
    (found,) = inspect_routes(world(ingress(to=ref("shopp"))))
    assert "(there is `shop`)" in found.message
    assert found.path == "spec.rules[0].http.paths[0].backend.service"


def test_a_namespace_with_workloads_is_known() -> None:
    there = world(
        ingress(to=ref("x", "dev")), workloads=(replace(workload(), ref=ref("x", "dev")),)
    )
    (found,) = inspect_routes(there)
    assert found.severity is Severity.WARNING


def test_routes_to_what_is_there_or_to_other_kinds_are_fine() -> None:
    bucket = replace(ingress(), backends=(Backend("prod", "files", kind="Bucket.example.org"),))
    assert inspect_routes(world(ingress(), bucket, complete=True)) == ()


@pytest.mark.parametrize(
    ("route", "patch"),
    [
        (
            ingress(at=8080),
            {"path": "/spec/rules/0/http/paths/0/backend/service/port", "value": {"number": 80}},
        ),
        (http_route(at=8080), {"path": "/spec/rules/0/backendRefs/0/port", "value": 80}),
    ],
)
def test_a_port_that_the_service_does_not_have(route: RouteState, patch: dict[str, Any]) -> None:
    found = only("route-to-nowhere", state(routes=(route,)))
    assert found.severity is Severity.ERROR
    assert patch_of(found) == ({"op": "add", **patch},)


@pytest.mark.parametrize("at", [80, "http", None])
def test_ports_by_number_and_name(at: int | str | None) -> None:
    assert risks(state(routes=(ingress(at=at),))) == set()  # type: ignore[arg-type]


def test_which_of_two_ports_is_meant_is_not_guessed() -> None:
    two = service(port(80), port(81, name="other"))
    found = only("route-to-nowhere", state(service=two, routes=(ingress(at=82),)))
    assert found.remedy is None


def test_a_backend_of_no_weight_gets_no_requests() -> None:
    off = replace(http_route(), backends=(Backend("prod", "shop", 82, "spec.rules[0]", 0),))
    assert severity("route-to-nowhere", state(routes=(off,))) is Severity.INFO


def test_a_foreign_route_without_a_grant() -> None:
    found = only("missing-reference-grant", state(routes=(FOREIGN,), complete=True))
    assert found.severity is Severity.ERROR
    assert found.remedy is not None
    assert found.remedy.patch_kind is PatchKind.CREATE
    assert found.remedy.patch["spec"] == {  # type: ignore[call-overload]
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "web"}],
        "to": [{"group": "", "kind": "Service", "name": "shop"}],
    }
    assert severity("missing-reference-grant", state(routes=(FOREIGN,))) is Severity.WARNING


@pytest.mark.parametrize(
    ("sources", "targets", "allowed"),
    [
        ((("HTTPRoute", "web"),), (("Service", ""),), True),
        ((("HTTPRoute", "web"),), (("Service", "shop"),), True),
        ((("GRPCRoute", "web"),), (("Service", "shop"),), False),
        ((("HTTPRoute", "other"),), (("Service", "shop"),), False),
        ((("HTTPRoute", "web"),), (("Service", "cart"),), False),
        ((("HTTPRoute", "web"),), (("Secret", ""),), False),
    ],
)
def test_grants(
    sources: tuple[tuple[str, str], ...], targets: tuple[tuple[str, str], ...], allowed: bool
) -> None:
    granted = state(routes=(FOREIGN,), grants=(Grant(ref("g"), sources, targets),))
    assert ("missing-reference-grant" not in risks(granted)) is allowed


def test_an_impatient_gateway() -> None:
    found = only("gateway-timeout", state(routes=(ingress(),)), SLOW)
    assert "waits 60 s for a response" in found.message
    name = "nginx.ingress.kubernetes.io/proxy-read-timeout"
    assert patch_of(found) == {"metadata": {"annotations": {name: "95"}}}


def test_what_the_route_says_goes_before_the_default() -> None:
    patient = state(routes=(ingress(request_timeout=120.0),))
    assert "gateway-timeout" not in risks(patient, SLOW)
    brief = http_route(request_timeout=10.0)
    found = only(
        "gateway-timeout", state(routes=(brief,)), facts(slow_response=seconds(12.0)), [CONTOUR]
    )
    assert patch_of(found) == (
        {"op": "add", "path": "/spec/rules/0/timeouts", "value": {"request": "17s"}},
    )


def test_a_gateway_whose_route_is_not_known() -> None:
    found = only("gateway-timeout", state(), SLOW, [NGINX])
    assert (found.kind, found.remedy) == ("Service", None)
    other = gateway("traefik", "traefik", read_timeout=float("inf"))
    assert "gateway-timeout" not in risks(state(), SLOW, [other])
