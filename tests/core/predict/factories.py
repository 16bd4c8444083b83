"""Small builders of what predictions are made from; each argument replaces a sound default.

`state()` is a Service that nothing is wrong with: two pods on two nodes with a readiness probe, a
preStop hook, a budget, and room to drain. A test spoils one thing and sees what is said about it.
"""

from collections.abc import Mapping
from typing import Any, Final

from upstream_guard.core.model import ContainerPort, ObjectRef, Service, ServicePort
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Behaviour, Gateway
from upstream_guard.core.predict.state import (
    AppFacts,
    Autoscaler,
    Backend,
    Budget,
    Container,
    HookKind,
    IngressRule,
    KubeProbe,
    LabelSelector,
    NetworkPolicy,
    Peer,
    PodTemplate,
    PreStop,
    RouteState,
    ServiceState,
    State,
    Strategy,
    Workload,
)
from upstream_guard.core.tuning import (
    CLUSTER_IP,
    MEASURED_MARGIN,
    Evidence,
    GatewayFacts,
    GatewayKind,
)

NAMESPACE: Final = "prod"
SHOP: Final = ObjectRef(NAMESPACE, "shop")
LABELS: Final = {"app": "shop"}


def ref(name: str, namespace: str = NAMESPACE) -> ObjectRef:
    return ObjectRef(namespace, name)


def http_probe(port: int | str = 8080, path: str = "/ready", **fields: Any) -> KubeProbe:
    return KubeProbe(HookKind.HTTP, port, path, **fields)


def tcp_probe(port: int | str = 8080, **fields: Any) -> KubeProbe:
    return KubeProbe(HookKind.TCP, port, **fields)


def exec_probe(*command: str, **fields: Any) -> KubeProbe:
    return KubeProbe(HookKind.EXEC, command=command, **fields)


def sleep(seconds: float) -> PreStop:
    return PreStop(HookKind.SLEEP, seconds)


def run_before_stop(*command: str, seconds: float | None = None) -> PreStop:
    return PreStop(HookKind.EXEC, seconds, command)


def container(name: str = "app", *, port: int | None = 8080, **fields: Any) -> Container:
    """A container that serves `port`, named `http`; None declares no port."""
    declared = () if port is None else (ContainerPort("http", port),)
    sound: dict[str, Any] = {
        "image": f"example.org/{name}:1",
        "ports": declared,
        "readiness": http_probe(port or 8080),
        "pre_stop": sleep(10.0),
        "path": f"spec.template.spec.containers[{name}]",
    }
    return Container(name, **{**sound, **fields})


def bare_container(name: str = "app", **fields: Any) -> Container:
    """A container without probe and hook."""
    return container(name, **{"readiness": None, "pre_stop": None, **fields})


def workload(
    *containers: Container,
    name: str = "shop",
    kind: str = "Deployment",
    replicas: int = 2,
    labels: Mapping[str, str] | None = None,
    template: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Workload:
    """A workload; `template` holds fields of its pod template, the rest are its own."""
    pods = PodTemplate(
        labels=labels or LABELS,
        containers=containers or (container(),),
        **{"spread": True, "grace_period": 60.0, **(template or {})},
    )
    sound = {"match_labels": labels or LABELS, "strategy": Strategy(max_surge=1, max_unavailable=0)}
    return Workload(kind, ref(name), pods, replicas, **{**sound, **fields})


def port(number: int = 80, target: int | str = "http", **fields: Any) -> ServicePort:
    return ServicePort(**{"name": "http", "number": number, "target": target, **fields})


def service(
    *ports: ServicePort,
    selector: Mapping[str, str] | None = None,
    publish_not_ready: bool = False,
    **fields: Any,
) -> ServiceState:
    plain = Service(
        SHOP,
        "uid",
        LABELS if selector is None else selector,
        "ClusterIP",
        "10.0.0.1",
        ports or (port(),),
        publish_not_ready=publish_not_ready,
    )
    return ServiceState(plain, **fields)


def budget(**fields: Any) -> Budget:
    """`maxUnavailable: 1` unless it says otherwise."""
    return Budget(ref("shop"), LabelSelector(LABELS), **(fields or {"max_unavailable": 1}))


def autoscaler(least: int, most: int, target: str = "deployment/shop") -> Autoscaler:
    return Autoscaler(ref("shop"), target, least, most)


def ingress(*, to: ObjectRef = SHOP, at: int | str = 80, **fields: Any) -> RouteState:
    path = "spec.rules[0].http.paths[0].backend.service"
    backend = Backend(to.namespace, to.name, at, path)
    return RouteState(
        "Ingress", ref("shop"), **{"gateway": "nginx", "backends": (backend,), **fields}
    )


def http_route(
    *, to: ObjectRef = SHOP, at: int | str | None = 80, namespace: str = NAMESPACE, **fields: Any
) -> RouteState:
    backend = Backend(to.namespace, to.name, at, "spec.rules[0].backendRefs[0]")
    sound: dict[str, Any] = {"gateway": "edge/public", "backends": (backend,)}
    return RouteState("HTTPRoute", ref("shop", namespace), **{**sound, **fields})


def policy(*rules: IngressRule, name: str = "shop", **fields: Any) -> NetworkPolicy:
    return NetworkPolicy(ref(name), LabelSelector(LABELS), rules, **fields)


def allow(*peers: Peer, ports: tuple[int | str, ...] = ()) -> IngressRule:
    return IngressRule(peers, tuple((p, p if isinstance(p, int) else 0) for p in ports))


def state(*workloads: Workload, **fields: Any) -> State:
    """A Service with its surroundings; without workloads, a sound one."""
    sound: dict[str, Any] = {"service": service(), "budgets": (budget(),)}
    return State(**{**sound, "workloads": workloads or (workload(),), **fields})


def without_pods(**fields: Any) -> State:
    """A Service that nothing is known to belong to."""
    return State(**{"service": service(), **fields})


def seconds(value: float, spread: float = 0.0) -> Estimate:
    return Estimate(value - spread, value, value + spread, Evidence.MEASURED, "seen")


def facts(start: float = 1.0, *, rate: float = 100.0, **app: Any) -> Facts:
    """Facts about an app; `app` holds fields of `AppFacts`."""
    return Facts(app=AppFacts(start=seconds(start), **app), rate=rate, rate_evidence=Evidence.SPEC)


def gateway(
    controller: str = "ingress-nginx",
    name: str = "nginx",
    *,
    detach: float = 4.3,
    attach: float = 4.3,
    kind: GatewayKind = GatewayKind.INGRESS_CLASS,
    **behaviour: Any,
) -> Gateway:
    """A gateway with a margin of 0.5 s; `behaviour` holds fields of `Behaviour`."""
    known = GatewayFacts(
        name=name,
        controller=controller,
        detach_seconds=detach,
        attach_seconds=attach,
        via_cluster_ip=False,
        evidence=Evidence.BUILTIN,
        source="its code",
        kind=kind,
        margin_seconds=MEASURED_MARGIN,
    )
    return Gateway(known, Behaviour(**behaviour), seconds(attach), seconds(detach))


NGINX: Final = gateway(keepalive_idle=60.0, read_timeout=60.0)
"""ingress-nginx: needs 4.8 s to forget a pod."""
CONTOUR: Final = gateway(
    "contour",
    "edge/public",
    detach=0.03,
    attach=0.075,
    kind=GatewayKind.GATEWAY,
    keepalive_idle=3600.0,
    read_timeout=15.0,
)
"""Contour: needs 0.53 s."""
KUBE_PROXY: Final = Gateway(
    CLUSTER_IP, Behaviour(serves_terminating=True), seconds(0.03), seconds(0.03), throttle=1.0
)
"""The way through the ClusterIP: needs 1.69 s."""
