"""What a Service's traffic meets: its ports, the containers behind them, how many pods there are."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from upstream_guard.core.model import ServicePort
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.play import surge_and_unavailable
from upstream_guard.core.predict.state import (
    Autoscaler,
    Container,
    KubeProbe,
    State,
    StrategyKind,
    Workload,
)
from upstream_guard.core.tuning import CLUSTER_IP, GatewayFacts, GatewayKind

_MONITORING: Final = ("metrics", "prometheus")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the traffic of one Service port arrives in the pods of one workload.

    Attributes:
        index: Of the port in the Service.
        port: The Service's port.
        container: That serves it; the likeliest one where no `ports` say so; None without containers.
        number: The port in the pod; None where a name leads nowhere.
        declared: A container declares this port.
    """

    index: int
    port: ServicePort
    container: Container | None
    number: int | None
    declared: bool


def traffic_ports(state: State) -> tuple[tuple[int, ServicePort], ...]:
    """The TCP ports that users' requests take, with their indices.

    Monitoring ports count only where there is nothing else.
    """
    ports = tuple(
        (i, p) for i, p in enumerate(state.service.service.ports) if p.protocol in {"TCP", ""}
    )
    users = tuple(
        (i, p) for i, p in ports if not any(word in p.name.lower() for word in _MONITORING)
    )
    return users or ports


def is_only_monitored(state: State) -> bool:
    """Whether nothing but scrapes goes through the Service."""
    ports = state.service.service.ports
    return bool(ports) and all(any(word in p.name.lower() for word in _MONITORING) for p in ports)


def targets(state: State, workload: Workload) -> tuple[Target, ...]:
    """Where each traffic port of the Service arrives in the pods of a workload."""
    return tuple(_target(index, port, workload) for index, port in traffic_ports(state))


def serving(state: State, workload: Workload) -> tuple[tuple[Container, int], ...]:
    """Each container that gets the Service's traffic, once, with the first port that it serves."""
    found: dict[str, tuple[Container, int]] = {}
    for target in targets(state, workload):
        if target.container is not None and target.number is not None:
            found.setdefault(target.container.name, (target.container, target.number))
    return tuple(found.values())


def target_numbers(state: State, workload: Workload) -> frozenset[int]:
    """The ports in the pod at which the Service's traffic arrives."""
    return frozenset(t.number for t in targets(state, workload) if t.number is not None)


def _target(index: int, port: ServicePort, workload: Workload) -> Target:
    for container in workload.template.containers:
        for declared in container.ports:
            if port.target != "" and port.target in {declared.name, declared.number}:
                return Target(index, port, container, declared.number, declared=True)
    number = None if isinstance(port.target, str) else port.target
    return Target(index, port, _likeliest(workload), number, declared=False)


def _likeliest(workload: Workload) -> Container | None:
    """Who serves a port that nobody declares: one that declares none, rather one that is probed."""
    candidates = sorted(regular(workload), key=lambda c: (bool(c.ports), readiness(c) is None))
    return candidates[0] if candidates else None


def regular(workload: Workload) -> tuple[Container, ...]:
    """The containers that are all stopped at once: not the native sidecars."""
    return tuple(c for c in workload.template.containers if not c.sidecar)


def probe_port(probe: KubeProbe, container: Container) -> int | None:
    """The number a probe asks; a name is looked up in its own container only, as the kubelet does."""
    if not isinstance(probe.port, str):
        return probe.port
    return next((p.number for p in container.ports if p.name == probe.port), None)


def readiness(container: Container) -> KubeProbe | None:
    """What decides when the container is first ready.

    Without a readiness probe, a container with a startup probe is ready once that succeeds (the
    kubelet's prober manager sets `ready` only of a container that has started).
    """
    return container.readiness or container.startup


def autoscaler(state: State, workload: Workload) -> Autoscaler | None:
    """The autoscaler that sets the workload's replicas."""
    return next((a for a in state.autoscalers if a.target == workload.text), None)


def replicas(state: State, workload: Workload) -> int:
    """How many pods there are at least: an autoscaler's minimum goes before the workload's number."""
    scaler = autoscaler(state, workload)
    if scaler is None or workload.replicas == 0:
        return workload.replicas
    return max(1, scaler.min_replicas)


def endpoints(state: State) -> float:
    """How many pods are behind the Service at least; infinite with a DaemonSet, which has one a node."""
    if any(workload.kind == "DaemonSet" for workload in state.workloads):
        return math.inf
    return sum(replicas(state, workload) for workload in state.workloads)


def hands_over(state: State, workload: Workload) -> bool:
    """Whether another pod can serve while one stops, so that a graceful stop is worth something."""
    if endpoints(state) > 1:
        return True
    if workload.kind != "Deployment" or workload.strategy.kind is not StrategyKind.ROLLING:
        return False
    return surge_and_unavailable(workload, 1)[0] > 0


def hook_seconds(container: Container, state: State) -> float | None:
    """How long the container's preStop hook lasts: 0 without one, None where it cannot be read."""
    if container.pre_stop is not None:
        return container.pre_stop.seconds
    return state.guard.pre_stop if state.guard is not None else 0.0


def slowest(gateways: Iterable[Gateway]) -> GatewayFacts:
    """The gateway that needs most time to forget a pod; kube-proxy where none is known."""
    facts = (gateway.facts for gateway in gateways)
    return max(facts, key=lambda f: (f.needed_seconds, f.name), default=CLUSTER_IP)


def called(facts: GatewayFacts) -> str:
    """A gateway's name for people: `contour (prod/public)`."""
    if facts.kind is GatewayKind.CLUSTER_IP:
        return "kube-proxy"
    return f"{facts.controller} ({facts.name})"


def seconds(value: float) -> str:
    """`1.2 s`, with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + " s"
