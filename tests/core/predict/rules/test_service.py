"""Rules about the Service itself."""

from typing import Any

import pytest
from tests.core.predict.factories import (
    container,
    http_route,
    ingress,
    port,
    service,
    state,
    tcp_probe,
    without_pods,
    workload,
)
from tests.core.predict.rules.looking import only, patch_of, risks, severity

from upstream_guard.core.model import ContainerPort
from upstream_guard.core.predict.state import Workload
from upstream_guard.core.predict.window import Severity

NAMELESS = {"ports": (ContainerPort("", 8080),)}


@pytest.mark.parametrize(
    ("neighbours", "complete", "expected"),
    [
        ((), True, Severity.ERROR),
        ((), False, Severity.INFO),
        ((workload(name="cart", labels={"app": "cart"}),), False, Severity.INFO),
        ((workload(labels={"app": "store"}),), False, Severity.WARNING),
    ],
    ids=["cluster", "nothing given", "a stranger", "its name"],
)
def test_a_selector_that_matches_nothing(
    neighbours: tuple[Workload, ...], complete: bool, expected: Severity
) -> None:
    found = without_pods(neighbours=neighbours, complete=complete)
    assert severity("selector-matches-nothing", found) is expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"app": "shop", "role": "website"}, Severity.WARNING),
        ({"app": "shop", "role": "web", "version": "v2"}, Severity.WARNING),
        ({"app": "shop", "role": "guestbook", "version": "v1"}, Severity.INFO),
        ({"app": "shop", "version": "v1"}, Severity.INFO),
    ],
    ids=["a slip", "another version", "another component", "a label missing"],
)
def test_like_labels_tell_what_is_meant(labels: dict[str, str], expected: Severity) -> None:
    found = without_pods(
        service=service(selector={"app": "shop", "role": "web", "version": "v1"}),
        neighbours=(workload(name="other", labels={"version": "v1", **labels}),),
    )
    assert severity("selector-matches-nothing", found) is expected


def test_labels_that_whole_releases_share_make_no_neighbour_likely() -> None:
    shared = {"app.kubernetes.io/part-of": "suite", "app.kubernetes.io/name": "shop"}
    other = {"app.kubernetes.io/part-of": "suite", "app.kubernetes.io/name": "operator"}
    found = without_pods(
        service=service(selector=shared), neighbours=(workload(name="operator", labels=other),)
    )
    assert severity("selector-matches-nothing", found) is Severity.INFO


def test_labels_that_a_controller_adds_are_in_no_template() -> None:
    name = "statefulset.kubernetes.io/pod-name"
    first = service(selector={"app": "shop", name: "shop-0"})
    pods = workload(kind="StatefulSet")
    assert risks(without_pods(service=first, neighbours=(pods,))) == set()
    other = workload(kind="StatefulSet", name="cart", labels={"app": "cart"})
    found = without_pods(service=first, neighbours=(other,))
    assert risks(found) == {"selector-matches-nothing"}


def test_the_nearest_workloads_labels_are_selected() -> None:
    near = workload(labels={"name": "shop"})
    found = only("selector-matches-nothing", without_pods(neighbours=(near,)))
    assert "`deployment/shop`, which comes nearest, has `name=shop`" in found.message
    assert patch_of(found) == {"spec": {"selector": {"app": None, "name": "shop"}}}


def test_services_without_selector_have_endpoints_of_their_own() -> None:
    assert risks(without_pods(service=service(selector={}), complete=True)) == set()


def test_two_programs_of_one_image_of_which_one_serves() -> None:
    web = workload(labels={"app": "shop", "role": "web"})
    jobs = workload(
        container(port=None), name="jobs", replicas=3, labels={"app": "shop", "role": "jobs"}
    )
    found = only("selector-matches-two-apps", state(jobs, web))
    assert found.severity is Severity.WARNING
    assert patch_of(found) == {"spec": {"selector": {"role": "web"}}}


def test_two_images_that_both_serve() -> None:
    both = state(workload(), workload(container("other"), name="other"))
    found = only("selector-matches-two-apps", both)
    assert found.severity is Severity.INFO


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("app", "other.registry/app:2"),
        ("web", "example.org/app-v2:1"),
        ("app", "example.org/rewritten:1"),
    ],
    ids=["a tag", "a version in the name", "the container's name"],
)
def test_a_canary_is_no_other_app(name: str, image: str) -> None:
    canary = workload(container(name, image=image), name="canary", replicas=1)
    assert risks(state(workload(), canary)) == set()


def test_a_named_port_that_no_container_has() -> None:
    wrong = state(service=service(port(80, "web")))
    found = only("named-port-mismatch", wrong)
    assert (found.severity, found.path) == (Severity.ERROR, "spec.ports[0].targetPort")
    assert "(there is only `http`)" in found.message
    assert patch_of(found) == {"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}


def test_a_port_without_a_name_is_meant_by_its_number() -> None:
    wrong = state(workload(container(**NAMELESS)))
    fixed = {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}
    assert patch_of(only("named-port-mismatch", wrong)) == fixed


def test_which_port_is_meant_is_not_guessed() -> None:
    ports = (ContainerPort("a", 8080), ContainerPort("b", 8081))
    found = only("named-port-mismatch", state(workload(container(ports=ports))))
    assert found.remedy is None


def test_native_sidecars_can_have_the_port() -> None:
    proxy = container("proxy", sidecar=True)
    app = container(port=9000)
    assert "named-port-mismatch" not in risks(state(workload(app, proxy)))


def test_an_undeclared_number_is_doubted() -> None:
    wrong = state(workload(container(readiness=tcp_probe("http"))), service=service(port(80, 80)))
    found = only("target-port-unserved", wrong)
    assert found.severity is Severity.WARNING
    assert "targetPort 80 is declared by no container" in found.message
    assert patch_of(found) == {"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}


def test_ports_that_are_not_shown_are_counted() -> None:
    ports = tuple(ContainerPort("", 9000 + n) for n in range(9))
    wrong = state(workload(container(ports=ports)), service=service(port(80, 80)))
    found = only("target-port-unserved", wrong)
    assert found.message.count("900") == 6
    assert "9005 and 3 more:" in found.message


@pytest.mark.parametrize(
    "fields",
    [
        {"ports": ()},
        {"args": ("--listen=:9000",)},
        {"env": {"PORT": "9000"}},
        {"liveness": tcp_probe(9000)},
    ],
    ids=["no port declared", "an argument", "a variable", "a probe"],
)
def test_signs_that_a_port_is_served_all_the_same(fields: dict[str, Any]) -> None:
    pods = workload(container(**{"readiness": tcp_probe(8080), **fields}))
    assert "target-port-unserved" not in risks(state(pods, service=service(port(80, 9000))))


@pytest.mark.parametrize(
    ("name", "routes", "expected"),
    [
        ("10.0.0.1", (), Severity.ERROR),
        ("backend", (), Severity.WARNING),
        ("backend.example.org", (), Severity.INFO),
        ("backend.example.org", (ingress(),), Severity.INFO),
        ("backend.example.org", (http_route(),), Severity.WARNING),
    ],
)
def test_aliases(name: str, routes: tuple[Any, ...], expected: Severity) -> None:
    alias = without_pods(service=service(selector={}, external_name=name), routes=routes)
    assert severity("external-name", alias) is expected


def test_session_affinity() -> None:
    by_address = state(service=service(client_ip_affinity=True))
    assert only("session-affinity", by_address).path == "spec.sessionAffinity"
    assert only("session-affinity", state(routes=(ingress(sticky=True),))).kind == "Ingress"
    alone = state(workload(replicas=1), service=service(client_ip_affinity=True), budgets=())
    assert "session-affinity" not in risks(alone)
