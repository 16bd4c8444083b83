"""Readiness: when a pod is listed, and whether that says anything about the traffic it gets."""

from collections.abc import Iterator
from typing import Any, Final

from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.rules.reporting import (
    ROLLOUTS,
    container_patch,
    in_container,
    report,
)
from upstream_guard.core.predict.rules.serving import probe_port, readiness, serving
from upstream_guard.core.predict.state import (
    ChangeKind,
    Container,
    HookKind,
    KubeProbe,
    State,
    Workload,
)
from upstream_guard.core.predict.window import Finding, Remedy

_STARTS: Final = ROLLOUTS | {ChangeKind.POD_DELETION, ChangeKind.NODE_DRAIN, ChangeKind.CRASH}


def no_readiness_probe(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A container that serves the Service is listed as soon as its process exists."""
    if state.guard is not None and state.guard.gates:
        return
    for workload in state.workloads:
        for container, port in serving(state, workload):
            if not _probed(workload, container, port):
                yield report(
                    "no-readiness-probe",
                    in_container(workload, container, "readinessProbe"),
                    f"container `{container.name}` has no readinessProbe, so its pod is listed as "
                    f"soon as it starts, whether or not port {port} answers",
                    _readiness_probe(workload, container, port),
                    _STARTS,
                )


def _probed(workload: Workload, container: Container, port: int) -> bool:
    """Whether readiness waits for the container: by its own probe, or by any that asks its port."""
    if readiness(container) is not None:
        return True
    others = (
        probe_port(probe, other)
        for other in workload.template.containers
        if (probe := readiness(other)) is not None
    )
    return port in others


def _readiness_probe(workload: Workload, container: Container, port: int) -> Remedy:
    handler = _http_handler(container.liveness, container, port) or {"tcpSocket": {"port": port}}
    return container_patch(
        workload,
        container,
        {"readinessProbe": {**handler, "periodSeconds": 1}},
        f"a pod joins the upstream list once port {port} answers, not before",
    )


def _http_handler(
    probe: KubeProbe | None, container: Container, port: int
) -> dict[str, Any] | None:
    if probe is None or probe.kind is not HookKind.HTTP or probe_port(probe, container) != port:
        return None
    action: dict[str, Any] = {"path": probe.path, "port": port}
    if probe.scheme != "HTTP":
        action["scheme"] = probe.scheme
    return {"httpGet": action}
