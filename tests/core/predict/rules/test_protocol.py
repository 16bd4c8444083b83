"""Rules about protocols and idle connections."""

from typing import Any

import pytest
from tests.core.predict.factories import (
    CONTOUR,
    NGINX,
    container,
    facts,
    gateway,
    http_probe,
    http_route,
    ingress,
    port,
    service,
    state,
    workload,
)
from tests.core.predict.rules.looking import only, patch_of, risks, severity

from upstream_guard.core.predict.state import HookKind, KubeProbe, RouteState, ServiceState
from upstream_guard.core.predict.window import Severity

TLS = workload(container(readiness=http_probe(scheme="HTTPS")))
GRPC = workload(container(readiness=KubeProbe(HookKind.GRPC, 8080)))
ANNOTATION = "nginx.ingress.kubernetes.io/backend-protocol"


def said(protocol: str) -> ServiceState:
    return service(port(app_protocol=protocol))


def called(name: str) -> ServiceState:
    return service(port(name=name))


def test_plain_http_to_a_port_that_is_probed_by_tls() -> None:
    found = only("protocol-mismatch", state(TLS, routes=(ingress(),), complete=True))
    assert found.severity is Severity.ERROR
    assert patch_of(found) == {"metadata": {"annotations": {ANNOTATION: "HTTPS"}}}
    assert severity("protocol-mismatch", state(TLS, routes=(ingress(),))) is Severity.WARNING


def test_tls_to_a_port_that_is_probed_by_plain_http() -> None:
    found = only("protocol-mismatch", state(routes=(ingress(backend_tls=True),), complete=True))
    assert found.severity is Severity.WARNING  # some servers speak both
    assert patch_of(found) == {"metadata": {"annotations": {ANNOTATION: "HTTP"}}}


def test_http_1_to_grpc() -> None:
    found = only("protocol-mismatch", state(GRPC, routes=(ingress(),)))
    assert patch_of(found) == {"metadata": {"annotations": {ANNOTATION: "GRPC"}}}


def test_the_gateway_api_follows_app_protocol() -> None:
    found = only("protocol-mismatch", state(GRPC, routes=(http_route(),)), gateways=[CONTOUR])
    entry = {"port": 80, "appProtocol": "kubernetes.io/h2c"}
    assert patch_of(found) == {"spec": {"ports": [entry]}}
    told = state(GRPC, routes=(http_route(),), service=said("kubernetes.io/h2c"))
    assert "protocol-mismatch" not in risks(told)


@pytest.mark.parametrize(
    ("there", "route", "expected"),
    [
        (said("https"), ingress(), Severity.WARNING),
        (said("kubernetes.io/h2c"), ingress(), Severity.WARNING),
        (called("https-web"), ingress(), Severity.INFO),
        (called("grpc"), http_route(), Severity.INFO),
        (called("http"), ingress(), None),
        (said("http"), ingress(), None),
        (said("https"), ingress(backend_tls=True), None),
        (called("grpc"), ingress(grpc=True), None),
        (said("http"), ingress(grpc=True), None),  # many servers do both
        (called("https"), http_route(), Severity.INFO),
        (said("https"), ingress(annotations={"x/ssl-passthrough": "true"}), None),
    ],
)
def test_what_a_port_is_said_to_speak(
    there: ServiceState, route: RouteState, expected: Severity | None
) -> None:
    silent = workload(container(readiness=KubeProbe(HookKind.TCP, 8080)))
    found = state(silent, service=there, routes=(route,))
    assert severity("protocol-mismatch", found) is expected


def test_routes_to_other_ports_and_services_do_not_matter() -> None:
    two = service(port(443, name="https"), port(80, 8081))
    silent = workload(container(readiness=KubeProbe(HookKind.TCP, 8080)))
    assert "protocol-mismatch" not in risks(state(silent, service=two, routes=(ingress(),)))


def test_a_known_idle_timeout_shorter_than_the_gateways() -> None:
    found = only("keepalive-race", state(), facts(keepalive_idle=5.0))
    assert found.severity is Severity.WARNING
    assert "after 5 s, ingress-nginx (nginx) keeps them for 60 s" in found.message
    assert "for 65 s" in found.no_remedy
    assert risks(state(), facts(keepalive_idle=75.0)) == set()


@pytest.mark.parametrize(
    ("fields", "expected", "variable", "value"),
    [
        (
            {"command": ("uvicorn", "app:app")},
            Severity.WARNING,
            "UVICORN_TIMEOUT_KEEP_ALIVE",
            "65",
        ),
        (
            {"args": ("gunicorn --threads 4 app",)},
            Severity.WARNING,
            "GUNICORN_CMD_ARGS",
            "--keep-alive 65",
        ),
        (
            {
                "command": ("gunicorn", "-k", "gevent", "app"),
                "env": {"GUNICORN_CMD_ARGS": "--workers 2 --keep-alive 3"},
            },
            Severity.WARNING,
            "GUNICORN_CMD_ARGS",
            "--workers 2 --keep-alive 65",
        ),
        ({"image": "node:22-slim"}, Severity.INFO, "", ""),
        ({"command": ("node", "server.js")}, Severity.INFO, "", ""),
        ({"command": ("tini", "--", "/usr/bin/node", "server.js")}, Severity.INFO, "", ""),
        ({"args": ("sh", "-c", "cd /app && exec node server.js")}, Severity.INFO, "", ""),
        ({"image": "registry/library/tomcat:10"}, Severity.INFO, "", ""),
    ],
)
def test_known_runtimes(
    fields: dict[str, Any], expected: Severity, variable: str, value: str
) -> None:
    found = only("keepalive-race", state(workload(container(**fields))))
    assert found.severity is expected
    if variable:
        env = {"name": "app", "env": [{"name": variable, "value": value}]}
        assert patch_of(found) == {"spec": {"template": {"spec": {"containers": [env]}}}}
    else:
        assert found.remedy is None


@pytest.mark.parametrize(
    "fields",
    [
        {"command": ("gunicorn", "app")},
        {"command": ("uvicorn", "app", "--timeout-keep-alive", "75")},
        {"command": ("uvicorn", "app"), "env": {"UVICORN_TIMEOUT_KEEP_ALIVE": "75"}},
        {"command": ("gunicorn", "--threads=2", "--keep-alive=75", "app")},
        {"image": "example.org/node-exporter:1"},
        {"image": "node:22", "command": ("sleep", "infinity")},
        {"command": ("sh", "-c", "# join a node itself\nexec db start  # on this node too")},
        {"args": ("--role", "node", "--listen=:80")},
    ],
)
def test_apps_without_the_race(fields: dict[str, Any]) -> None:
    assert "keepalive-race" not in risks(state(workload(container(**fields))))


def test_gateways_that_keep_nothing_do_not_race() -> None:
    for idle in (0.0, None):
        quiet = gateway(keepalive_idle=idle)
        assert "keepalive-race" not in risks(state(), facts(keepalive_idle=5.0), [quiet])


def test_the_most_patient_gateway_decides() -> None:
    found = only("keepalive-race", state(), facts(keepalive_idle=65.0), [NGINX, CONTOUR])
    assert "contour (edge/public) keeps them for 3600 s" in found.message
