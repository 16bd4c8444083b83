"""Readiness: when a pod is listed, and whether that says anything about the traffic it gets."""

import math
from collections.abc import Iterator
from typing import Any, Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.lives import START_CUT
from upstream_guard.core.predict.rules.reporting import (
    ROLLOUTS,
    Mend,
    container_patch,
    in_container,
    in_service,
    report,
    strategic,
)
from upstream_guard.core.predict.rules.serving import (
    is_only_monitored,
    probe_port,
    readiness,
    seconds,
    serving,
    target_numbers,
)
from upstream_guard.core.predict.state import (
    ChangeKind,
    Container,
    HookKind,
    KubeProbe,
    State,
    Workload,
)
from upstream_guard.core.predict.window import Finding, Remedy, Severity

_STARTS: Final = ROLLOUTS | {ChangeKind.POD_DELETION, ChangeKind.NODE_DRAIN, ChangeKind.CRASH}
"""Changes in which containers start."""

_HEALTH_WORDS: Final = (
    "health",
    "live",
    "ready",
    "manage",
    "mgmt",
    "admin",
    "metric",
    "prom",
    "status",
    "probe",
    "monitor",
    "actuator",
    "ping",
    "telemetry",
)
_NO_CHECK: Final = frozenset({"true", "/bin/true", "/usr/bin/true", ":", "echo", "exit 0", "sleep"})


def no_readiness_probe(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A container that serves the Service is listed as soon as its process exists."""
    if state.guard is not None and state.guard.gates:
        return
    for workload in state.workloads:
        for container, port in serving(state, workload):
            if not _is_probed(workload, container, port):
                yield report(
                    "no-readiness-probe",
                    in_container(workload, container, "readinessProbe"),
                    f"container `{container.name}` has no readinessProbe, so its pod is listed as "
                    f"soon as it starts, whether or not port {port} answers",
                    _readiness_probe(workload, container, port),
                    _STARTS,
                )


def _is_probed(workload: Workload, container: Container, port: int) -> bool:
    """Whether readiness waits for the container: by its own probe, or by any that asks its port."""
    if readiness(container) is not None:
        return True
    return any(
        probe_port(probe, other) == port
        for other in workload.template.containers
        if (probe := readiness(other)) is not None
    )


def _readiness_probe(workload: Workload, container: Container, port: int) -> Remedy:
    return container_patch(
        workload,
        container,
        {"readinessProbe": {**_handler(container, port), "periodSeconds": 1}},
        f"a pod joins the upstream list once port {port} answers, not before",
    )


def _http_handler(
    probe: KubeProbe | None, container: Container, port: int
) -> dict[str, Any] | None:
    """What an HTTP probe of this very port does, to be done by another probe as well."""
    if probe is None or probe.kind is not HookKind.HTTP or probe_port(probe, container) != port:
        return None
    action: dict[str, Any] = {"path": probe.path, "port": port}
    if probe.scheme != "HTTP":
        action["scheme"] = probe.scheme
    return {"httpGet": action}


def readiness_probe_elsewhere(
    state: State, _gateways: tuple[Gateway, ...], facts: Facts
) -> Iterator[Finding]:
    """The probe asks a port that traffic never meets, or one that does not exist.

    Scrapes are not the traffic that a probe is meant to look after.
    """
    if is_only_monitored(state):
        return
    for workload in state.workloads:
        numbers = target_numbers(state, workload)
        for container, port in serving(state, workload):
            probe = container.readiness
            if probe is None or probe.port is None:
                continue
            asked = probe_port(probe, container)
            if asked is None:
                yield _unknown_probe_port(workload, container, probe, port)
            elif asked not in numbers and not _is_asked(workload, container, numbers):
                is_known_to_lie = facts.app.readiness_lies.value > 0
                yield _another_port(workload, container, asked, port, is_known_to_lie)


def _is_asked(workload: Workload, container: Container, numbers: frozenset[int]) -> bool:
    """Whether another container's readiness probe asks a port that traffic meets."""
    return any(
        other.readiness is not None and probe_port(other.readiness, other) in numbers
        for other in workload.template.containers
        if other is not container
    )


def _unknown_probe_port(
    workload: Workload, container: Container, probe: KubeProbe, port: int
) -> Finding:
    field = f"readinessProbe.{probe.kind}.port"
    where = in_container(workload, container, field)
    mend = container_patch(
        workload,
        container,
        {"readinessProbe": {probe.kind.value: {"port": port}}},
        f"the kubelet can ask port {port}, at which traffic arrives",
    )
    return report(
        "readiness-probe-elsewhere",
        where,
        f"the readinessProbe of container `{container.name}` asks port `{probe.port}`, a name that "
        "none of its ports has, so the pod never becomes ready",
        mend,
        severity=Severity.ERROR,
        cause=Cause.NO_ENDPOINTS,
    )


def _another_port(
    workload: Workload, container: Container, asked: int, port: int, is_known_to_lie: bool
) -> Finding:
    probe = container.readiness
    kind = probe.kind if probe is not None else HookKind.TCP
    owner = _owner(workload, asked)
    is_foreign = owner is not None and owner is not container
    whose = f", which is a port of container `{owner.name}`," if is_foreign and owner else ""
    fields = {kind.value: None, **_handler(container, port), "periodSeconds": 1}
    mend: Mend = container_patch(
        workload,
        container,
        {"readinessProbe": fields},
        f"the probe asks port {port}, at which traffic arrives",
    )
    if kind is not HookKind.TCP and not is_foreign and not is_known_to_lie:
        # Such a check mostly knows more of the app than a connection to its port would tell, and
        # another Service may lead to the port that it asks.
        mend = f"keep the probe where its answer depends on port {port}, else let it ask that port"
    is_minor = not is_foreign and _is_health_port(container, asked)
    return report(
        "readiness-probe-elsewhere",
        in_container(workload, container, f"readinessProbe.{kind}.port"),
        f"the readinessProbe of container `{container.name}` asks port {asked}{whose} while traffic "
        f"arrives at port {port}: the pod may be ready before that one answers",
        mend,
        _STARTS,
        Severity.INFO if is_minor else Severity.WARNING,
    )


def _handler(container: Container, port: int) -> dict[str, Any]:
    """What a probe of the traffic's port does: what liveness does there, else a TCP connection."""
    return _http_handler(container.liveness, container, port) or {"tcpSocket": {"port": port}}


def _owner(workload: Workload, port: int) -> Container | None:
    for container in workload.template.containers:
        if any(declared.number == port for declared in container.ports):
            return container
    return None


def _is_health_port(container: Container, port: int) -> bool:
    """Whether it looks like a server for health checks in the same process.

    Such a server mostly knows whether the app serves: controllers and JVM apps have one.
    """
    probe = container.readiness
    names = [declared.name for declared in container.ports if declared.number == port]
    told = " ".join((*names, probe.path if probe is not None else "")).lower()
    return any(word in told for word in _HEALTH_WORDS)


def ready_before_serving(
    state: State, _gateways: tuple[Gateway, ...], facts: Facts
) -> Iterator[Finding]:
    """Readiness says yes too early: by the Service's wish, by measurement, or without any check."""
    lists_all = state.service.service.publish_not_ready and not state.service.headless
    if lists_all and state.workloads:
        where = in_service(state, "spec.publishNotReadyAddresses")
        yield report(
            "ready-before-serving",
            where,
            "`publishNotReadyAddresses: true` lists every pod whether or not it is ready",
            strategic(
                where,
                {"spec": {"publishNotReadyAddresses": False}},
                "only ready pods are listed, and a stopping one is no longer",
            ),
            _STARTS,
        )
    for workload in state.workloads:
        for container, port in serving(state, workload):
            yield from _lying_probe(workload, container, port, facts)


def _lying_probe(
    workload: Workload, container: Container, port: int, facts: Facts
) -> Iterator[Finding]:
    probe = container.readiness
    if probe is None:
        return
    lies, serves = facts.app.readiness_lies.value, math.ceil(facts.app.start.high)
    delay = serves + math.ceil(START_CUT)
    where = in_container(workload, container, "readinessProbe")
    if lies > 0 and probe.initial_delay < delay:
        yield report(
            "ready-before-serving",
            where,
            f"the readinessProbe of container `{container.name}` succeeds {seconds(lies)} before "
            f"port {port} serves",
            container_patch(
                workload,
                container,
                {"readinessProbe": {"initialDelaySeconds": delay}},
                f"the probe is not asked before {serves} s, when the app is known to serve (the kubelet counts up "
                "to a second too few); a probe that asks what users ask is better",
            ),
            _STARTS,
        )
    elif probe.kind is HookKind.EXEC and _checks_nothing(probe.command):
        yield report(
            "ready-before-serving",
            where,
            f"the readinessProbe of container `{container.name}` runs "
            f"`{' '.join(probe.command)[:80]}`, which checks nothing",
            container_patch(
                workload,
                container,
                {"readinessProbe": {"exec": None, "tcpSocket": {"port": port}}},
                f"a pod joins the upstream list once port {port} answers, not before",
            ),
            _STARTS,
        )


def _checks_nothing(command: tuple[str, ...]) -> bool:
    script = command[-1].strip() if command else ""
    return bool(command) and (command[0] in _NO_CHECK or (len(command) > 2 and script in _NO_CHECK))


def readiness_equals_liveness(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """What should only take a pod out of the list for a while restarts it as well."""
    for workload in state.workloads:
        for container, _ in serving(state, workload):
            ready, live = container.readiness, container.liveness
            if ready is None or live is None or not _ask_the_same(ready, live, container):
                continue
            patience, limit = _patience(ready), _patience(live)
            if limit <= patience:
                yield report(
                    "readiness-equals-liveness",
                    in_container(workload, container, "livenessProbe"),
                    f"the livenessProbe of container `{container.name}` asks what its readinessProbe "
                    f"asks and gives up after {seconds(limit)}, no later than readiness "
                    f"({seconds(patience)}): an overloaded pod is restarted instead of left alone",
                    _more_patient(workload, container, live, patience),
                    {ChangeKind.CRASH},
                )


def _ask_the_same(one: KubeProbe, other: KubeProbe, container: Container) -> bool:
    if (one.kind, one.command) != (other.kind, other.command):
        return False
    same_path = one.path == other.path or one.kind is not HookKind.HTTP
    return same_path and probe_port(one, container) == probe_port(other, container)


def _patience(probe: KubeProbe) -> float:
    """Seconds of failures until the kubelet acts."""
    return max(1.0, probe.period) * max(1, probe.failure_threshold)


def _more_patient(
    workload: Workload, container: Container, live: KubeProbe, patience: float
) -> Remedy:
    threshold = math.ceil(3 * patience / max(1.0, live.period))
    return container_patch(
        workload,
        container,
        {"livenessProbe": {"failureThreshold": threshold}},
        "an overloaded pod leaves the list first, and is restarted only if it does not recover "
        f"within {seconds(threshold * max(1.0, live.period))}",
    )
