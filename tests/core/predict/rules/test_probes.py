"""Readiness rules."""

import pytest
from tests.core.predict.factories import (
    bare_container,
    container,
    exec_probe,
    facts,
    http_probe,
    port,
    seconds,
    service,
    sleep,
    state,
    tcp_probe,
    workload,
)
from tests.core.predict.rules.looking import only, patch_of, risks, severity

from upstream_guard.core.model import ContainerPort
from upstream_guard.core.predict.state import ChangeKind, GuardFacts
from upstream_guard.core.predict.window import Severity


def readiness_patch(**probe: object) -> dict[str, object]:
    container = {"name": "app", "readinessProbe": probe}
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


def test_a_sound_service_has_no_findings() -> None:
    assert risks(state()) == set()


def test_a_container_without_probe_gets_one_on_the_port_that_the_service_means() -> None:
    found = only("no-readiness-probe", state(workload(container(readiness=None))))
    assert found.path == "spec.template.spec.containers[app].readinessProbe"
    assert "container `app` has no readinessProbe" in found.message
    assert ChangeKind.ROLLOUT in found.changes
    assert patch_of(found) == readiness_patch(tcpSocket={"port": 8080}, periodSeconds=1)


def test_what_liveness_asks_on_that_port_is_asked_for_readiness() -> None:
    probed = container(readiness=None, liveness=http_probe("http", "/alive", scheme="HTTPS"))
    asked = {"path": "/alive", "port": 8080, "scheme": "HTTPS"}
    found = only("no-readiness-probe", state(workload(probed)))
    assert patch_of(found) == readiness_patch(httpGet=asked, periodSeconds=1)


def test_liveness_on_another_port_is_not_copied() -> None:
    probed = container(readiness=None, liveness=http_probe(9090))
    found = only("no-readiness-probe", state(workload(probed)))
    assert patch_of(found) == readiness_patch(tcpSocket={"port": 8080}, periodSeconds=1)


@pytest.mark.parametrize(
    "containers",
    [
        (container(), bare_container("sidecar", port=9090, pre_stop=sleep(10))),
        (container(readiness=None, startup=tcp_probe()),),
        (container(readiness=None), container("proxy", port=None, readiness=tcp_probe(8080))),
    ],
    ids=["a sidecar that serves nothing", "a startup probe", "another container asks the port"],
)
def test_pods_that_wait_for_the_serving_port_are_fine(containers: tuple) -> None:
    assert "no-readiness-probe" not in risks(state(workload(*containers)))


def test_a_guard_that_gates_needs_no_probe() -> None:
    assert "no-readiness-probe" not in risks(
        state(workload(container(readiness=None)), guard=GuardFacts(pre_stop=10.0))
    )


def test_monitoring_ports_are_no_traffic_where_there_is_another() -> None:
    exporter = bare_container(
        "exporter", ports=(ContainerPort("metrics", 9100),), pre_stop=sleep(9)
    )
    ports = service(port(), port(9100, "metrics", name="metrics"))
    assert risks(state(workload(container(), exporter), service=ports)) == set()


def test_headless_services_are_judged_mildly() -> None:
    spoilt = workload(container(readiness=None))
    assert severity("no-readiness-probe", state(spoilt)) is Severity.WARNING
    headless = state(spoilt, service=service(headless=True))
    assert severity("no-readiness-probe", headless) is Severity.INFO


def test_a_probe_of_another_port() -> None:
    found = only("readiness-probe-elsewhere", state(workload(container(readiness=tcp_probe(9000)))))
    assert found.severity is Severity.WARNING
    assert "asks port 9000 while traffic arrives at port 8080" in found.message
    assert patch_of(found) == readiness_patch(tcpSocket={"port": 8080}, periodSeconds=1)


def test_the_old_handler_goes_when_the_new_one_is_of_another_type() -> None:
    asking = container(readiness=http_probe(9000, "/start"))
    known = facts(readiness_lies=seconds(1.0))
    found = only("readiness-probe-elsewhere", state(workload(asking)), known)
    assert patch_of(found) == readiness_patch(
        httpGet=None, tcpSocket={"port": 8080}, periodSeconds=1
    )


def test_a_request_to_another_port_is_not_replaced_by_a_mere_connection() -> None:
    asking = container(readiness=http_probe(13133, "/"))
    found = only("readiness-probe-elsewhere", state(workload(asking)))
    assert (found.severity, found.remedy) == (Severity.WARNING, None)


def test_a_health_port_of_the_same_process_is_only_worth_knowing() -> None:
    healthy = container(readiness=http_probe(8081, "/healthz"))
    found = only("readiness-probe-elsewhere", state(workload(healthy)))
    assert (found.severity, found.remedy) == (Severity.INFO, None)
    assert "depends on port 8080" in found.no_remedy


def test_a_port_of_its_own_may_be_asked_for_another_services_sake() -> None:
    ports = (ContainerPort("http", 8080), ContainerPort("query", 9000))
    asking = container(ports=ports, readiness=http_probe("query", "/"))
    found = only("readiness-probe-elsewhere", state(workload(asking)))
    assert (found.severity, found.remedy) == (Severity.WARNING, None)


def test_a_probe_of_another_containers_port_is_not() -> None:
    asking = container(readiness=http_probe(9000, "/healthz"))
    other = container("other", port=9000, readiness=None)
    found = state(workload(asking, other))
    assert severity("readiness-probe-elsewhere", found) is Severity.WARNING


def test_a_service_for_scrapes_alone_asks_nothing_of_the_probe() -> None:
    scraped = workload(container(ports=(ContainerPort("metrics", 9100),)))
    metrics = service(port(9100, "metrics", name="metrics"))
    assert risks(state(scraped, service=metrics)) == set()


def test_a_probe_of_a_name_that_no_port_has_never_succeeds() -> None:
    found = only(
        "readiness-probe-elsewhere", state(workload(container(readiness=http_probe("web"))))
    )
    assert found.severity is Severity.ERROR
    assert found.changes == frozenset()
    assert patch_of(found) == readiness_patch(httpGet={"port": 8080})


def test_listing_pods_that_are_not_ready() -> None:
    found = only("ready-before-serving", state(service=service(publish_not_ready=True)))
    assert found.kind == "Service"
    assert patch_of(found) == {"spec": {"publishNotReadyAddresses": False}}


@pytest.mark.parametrize(
    "command", [("true",), ("/bin/true",), ("sh", "-c", "exit 0"), ("echo", "ok")]
)
def test_a_command_that_checks_nothing(command: tuple[str, ...]) -> None:
    lying = state(workload(container(readiness=exec_probe(*command))))
    assert patch_of(only("ready-before-serving", lying)) == readiness_patch(
        exec=None, tcpSocket={"port": 8080}
    )


def test_commands_that_check_something_are_believed() -> None:
    checking = container(readiness=exec_probe("sh", "-c", "curl -f localhost:8080"))
    assert risks(state(workload(checking))) == set()


def test_a_probe_that_was_seen_to_succeed_too_early_is_asked_later() -> None:
    known = facts(3.5, readiness_lies=seconds(2.0))
    found = only("ready-before-serving", state(), known)
    assert "succeeds 2 s before" in found.message
    assert found.remedy is not None
    assert "before 4 s" in found.remedy.reason
    assert patch_of(found) == readiness_patch(initialDelaySeconds=5), (
        "the kubelet counts up to a second too few"
    )


def test_a_probe_that_waits_as_long_as_the_start_takes_is_right() -> None:
    waiting = workload(container(readiness=http_probe(initial_delay=6.0)))
    assert risks(state(waiting), facts(4.5, readiness_lies=seconds(1.0))) == set()


def test_liveness_as_impatient_as_readiness() -> None:
    both = container(liveness=http_probe("http"))
    found = only("readiness-equals-liveness", state(workload(both)))
    assert found.severity is Severity.INFO
    assert patch_of(found) == {
        "spec": {
            "template": {
                "spec": {"containers": [{"name": "app", "livenessProbe": {"failureThreshold": 9}}]}
            }
        }
    }


@pytest.mark.parametrize(
    "liveness",
    [http_probe(path="/alive"), tcp_probe(), http_probe(failure_threshold=9), http_probe(9090)],
)
def test_a_liveness_of_its_own_or_with_patience_is_fine(liveness: object) -> None:
    assert risks(state(workload(container(liveness=liveness)))) == set()


def test_services_for_udp_alone_are_no_business_of_gateways() -> None:
    dns = service(port(53, 53, protocol="UDP"))
    assert risks(state(workload(bare_container(), replicas=1), service=dns)) == set()
