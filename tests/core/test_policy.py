"""How a pod is probed: the user's word, the readinessProbe, the inference."""

import pytest

from upstream_guard.core.model import (
    ContainerPort,
    ContainerReadiness,
    Guard,
    ObjectRef,
    Pod,
    ProbeOverrides,
    ProbeProtocol,
    ProbeSpec,
    Readiness,
    Service,
    ServicePort,
)
from upstream_guard.core.policy import Unresolved, guarded_port, resolve_probe

HTTP, HTTPS, TCP, GRPC = ProbeProtocol
REF = ObjectRef("prod", "shop")


def guard(section: str | None = None, **probe: object) -> Guard:
    return Guard(REF, "u", 1, 0.0, "shop", section, ProbeOverrides(**probe))


def service(*ports: ServicePort) -> Service:
    return Service(REF, "u", {"app": "shop"}, "ClusterIP", "198.18.0.9", ports)


def port(
    name: str = "", target: int | str = 8080, app: str = "", protocol: str = "TCP"
) -> ServicePort:
    return ServicePort(name, 80, target, protocol, app)


def pod(*containers: ContainerReadiness) -> Pod:
    if not containers:
        containers = (ContainerReadiness((ContainerPort("web", 8080),), None),)
    return Pod(
        ref=ObjectRef("prod", "shop-1"),
        uid="p",
        ip="198.18.1.2",
        node="n",
        labels={},
        created=0.0,
        template="t",
        owner=None,
        ports=tuple(p for c in containers for p in c.ports),
        readiness=next((c.readiness for c in containers if c.readiness), None),
        has_exec_readiness=any(c.has_exec for c in containers),
        gated=True,
        gate=None,
        ready=True,
        containers_ready=True,
        containers_ready_since=0.0,
        ready_since=0.0,
        terminating=False,
        containers=containers,
    )


def container(
    readiness: Readiness | None, *ports: int, has_exec: bool = False
) -> ContainerReadiness:
    named = tuple(ContainerPort(f"p{number}", number) for number in ports)
    return ContainerReadiness(named, readiness, has_exec=has_exec)


def resolve(g: Guard, s: Service, p: Pod, routed: bool = False) -> ProbeSpec:
    spec = resolve_probe(g, s, p, routed_by_http=routed)
    assert isinstance(spec, ProbeSpec), spec
    return spec


APP_PROBE = Readiness(HTTP, 8080, "/ready", "shop.example.com", (("X-A", "b"),))


def test_readiness_probe_is_copied() -> None:
    spec = resolve(guard(), service(port()), pod(container(APP_PROBE, 8080)))
    assert spec == ProbeSpec(HTTP, 8080, "/ready", "shop.example.com", (("X-A", "b"),))
    assert spec.status_max == 399


def test_a_sidecars_probe_is_not_taken_for_the_apps() -> None:
    sidecar = container(Readiness(HTTP, 15021, "/healthz/ready"), 15090)
    spec = resolve(guard(), service(port("http")), pod(sidecar, container(APP_PROBE, 8080)))
    assert (spec.port, spec.path) == (8080, "/ready")
    bare = resolve(guard(), service(port("http")), pod(sidecar, container(None, 8080)))
    assert (bare.port, bare.path, bare.status_max) == (8080, "/", 499)


def test_undeclared_ports_of_several_containers_are_matched_by_the_probe() -> None:
    sidecar = container(Readiness(HTTP, 15021, "/healthz/ready"))
    spec = resolve(guard(), service(port("http")), pod(sidecar, container(APP_PROBE)))
    assert spec.path == "/ready"


def test_probe_of_a_single_container_counts_whatever_it_declares() -> None:
    spec = resolve(guard(), service(port(target=9999)), pod(container(APP_PROBE)))
    assert spec.port == 8080


def test_exec_probe_is_replaced_by_inference() -> None:
    spec = resolve(guard(), service(port("http")), pod(container(None, 8080, has_exec=True)))
    assert (spec.protocol, spec.status_max) == (HTTP, 499)


@pytest.mark.parametrize(
    ("service_port", "routed", "protocol"),
    [
        (port("http"), False, HTTP),
        (port("http-admin"), False, HTTP),
        (port("https"), False, HTTPS),
        (port("HTTPS-web"), False, HTTPS),
        (port(app="http"), False, HTTP),
        (port(app="https"), False, HTTPS),
        (port(app="kubernetes.io/ws"), False, HTTP),
        (port(app="kubernetes.io/wss"), False, HTTPS),
        (port(app="kubernetes.io/h2c"), True, TCP),
        (port("grpc"), True, TCP),
        (port("http", app="redis"), False, HTTP),
        (port("db", app="mysql"), True, TCP),
        (port("main"), True, HTTP),
        (port("main"), False, TCP),
        (port(), False, TCP),
        (port("httpd"), False, TCP),
    ],
)
def test_inference(service_port: ServicePort, routed: bool, protocol: ProbeProtocol) -> None:
    spec = resolve(guard(), service(service_port), pod(), routed)
    assert (spec.protocol, spec.port) == (protocol, 8080)


def test_the_users_fields_win_one_by_one() -> None:
    app = pod(container(APP_PROBE, 8080))
    path = resolve(guard(path="/live"), service(port()), app)
    assert (path.path, path.host, path.status_max) == ("/live", "shop.example.com", 399)
    timing = resolve(guard(interval=2.0, timeout=1.0, failure_threshold=5), service(port()), app)
    assert (timing.interval, timing.timeout, timing.failure_threshold) == (2.0, 1.0, 5)
    other = resolve(guard(port=9000), service(port()), app)
    assert (other.port, other.path) == (9000, "/ready")


def test_another_protocol_takes_nothing_but_the_port() -> None:
    app = pod(container(APP_PROBE, 8080))
    assert resolve(guard(protocol=TCP), service(port()), app) == ProbeSpec(
        TCP, 8080, status_max=499
    )
    assert resolve(guard(protocol=HTTPS), service(port()), app).path == "/ready"


def test_a_path_means_http_and_a_service_means_grpc() -> None:
    tcp = pod(container(Readiness(TCP, 8080), 8080))
    by_path = resolve(guard(path="/live"), service(port()), tcp)
    assert (by_path.protocol, by_path.path, by_path.status_max) == (HTTP, "/live", 399)
    by_service = resolve(guard(service="shop.v1"), service(port()), tcp)
    assert (by_service.protocol, by_service.service) == (GRPC, "shop.v1")
    https = pod(container(Readiness(HTTPS, 8080), 8080))
    assert resolve(guard(path="/live"), service(port()), https).protocol is HTTPS


def test_named_target_port_is_looked_up_in_the_pod() -> None:
    assert resolve(guard(), service(port(target="web")), pod()).port == 8080
    missing = resolve_probe(guard(), service(port(target="nope")), pod(), routed_by_http=False)
    assert isinstance(missing, Unresolved)
    assert "no container of pod prod/shop-1 has a port named 'nope'" in missing.reason
    assert "set spec.probe.port" in missing.reason


def test_named_probe_port() -> None:
    assert resolve(guard(port="web"), service(port(target=1)), pod()).port == 8080


def test_section_names_a_port_by_name_or_number() -> None:
    two = service(port("admin", 9000), ServicePort("http", 8000, 8080))
    assert guarded_port(guard("http"), two) == two.ports[1]
    assert guarded_port(guard("8000"), two) == two.ports[1]
    assert guarded_port(guard(), two) == two.ports[0]
    missing = guarded_port(guard("grpc"), two)
    assert isinstance(missing, Unresolved)
    assert "it has admin, http" in missing.reason


def test_only_tcp_is_probed() -> None:
    both = service(port("dns", protocol="UDP"), port("dns-tcp"))
    assert guarded_port(guard(), both) == both.ports[1]
    assert isinstance(guarded_port(guard("dns"), both), Unresolved)
    assert isinstance(guarded_port(guard(), service()), Unresolved)
