"""What a Service's traffic meets: its ports, the containers behind them, how many pods there are."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from upstream_guard.core.model import ServicePort
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.play import surge_and_unavailable
from upstream_guard.core.predict.state import (
    Autoscaler,
    Container,
    KubeProbe,
    PreStop,
    State,
    StrategyKind,
    Workload,
)
from upstream_guard.core.tuning import CLUSTER_IP, GatewayFacts

_MONITORING = ("metrics", "prometheus")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the traffic of one Service port arrives in the pods of one workload.

    Attributes:
        port: The Service's port.
        container: That serves it; None where that cannot be told.
        number: The port in the pod; None where a name leads nowhere.
    """

    port: ServicePort
    container: Container | None
    number: int | None


def traffic_ports(state: State) -> tuple[ServicePort, ...]:
    """The TCP ports that users' requests take: monitoring ports only where there is nothing else."""
    ports = tuple(p for p in state.service.service.ports if p.protocol in {"TCP", ""})
    users = tuple(p for p in ports if not any(word in p.name for word in _MONITORING))
    return users or ports


def targets(state: State, workload: Workload) -> tuple[Target, ...]:
    """Where each traffic port of the Service arrives in the pods of a workload."""
    return tuple(_target(port, workload) for port in traffic_ports(state))


def serving(state: State, workload: Workload) -> tuple[tuple[Container, int], ...]:
    """Each container that gets the Service's traffic, once, with the first port that it serves."""
    found: dict[str, tuple[Container, int]] = {}
    for target in targets(state, workload):
        if target.container is not None and target.number is not None:
            found.setdefault(target.container.name, (target.container, target.number))
    return tuple(found.values())


def target_numbers(state: State, workload: Workload) -> frozenset[int]:
    """The ports in the pod that the Service's traffic arrives at."""
    return frozenset(t.number for t in targets(state, workload) if t.number is not None)


def _target(port: ServicePort, workload: Workload) -> Target:
    containers = workload.template.containers
    for container in containers:
        for declared in container.ports:
            if port.target in {declared.name, declared.number} and port.target != "":
                return Target(port, container, declared.number)
    if isinstance(port.target, str):
        return Target(port, None, None)
    return Target(port, _undeclared(containers), port.target)


def _undeclared(containers: Iterable[Container]) -> Container | None:
    """Who serves a port that nobody declares: the only regular container that declares none."""
    silent = [c for c in containers if not c.sidecar and not c.ports]
    return silent[0] if len(silent) == 1 else None


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
    return max(scaler.min_replicas, workload.replicas if workload.replicas_given else 0, 1)


def replaceable(state: State, workload: Workload) -> bool:
    """Whether another pod serves while one stops, so that a graceful stop is worth something."""
    count = replicas(state, workload)
    if count > 1 or workload.kind == "DaemonSet":
        return True
    if workload.kind != "Deployment" or workload.strategy.kind is not StrategyKind.ROLLING:
        return False
    return count == 1 and surge_and_unavailable(workload, 1)[0] > 0


def hook_seconds(hook: PreStop | None) -> float | None:
    """How long a preStop hook lasts: 0 without one, None where it cannot be read."""
    return 0.0 if hook is None else hook.seconds


def slowest(gateways: Iterable[Gateway]) -> GatewayFacts:
    """The gateway that needs most time to forget a pod; kube-proxy where none is known."""
    return max((g.facts for g in gateways), key=lambda f: f.needed_seconds, default=CLUSTER_IP)


def named(workloads: Iterable[Workload]) -> Iterator[str]:
    """The workloads' names for people."""
    return (f"`{workload.text}`" for workload in workloads)


def seconds(value: float) -> str:
    """`1.2 s`, with at most two decimals."""
    if not math.isfinite(value):
        return "for ever"
    return f"{value:.2f}".rstrip("0").rstrip(".") + " s"
