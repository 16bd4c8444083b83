"""A change, reduced to the numbers that decide how it goes. Hashable, so that equal plays are equal."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from upstream_guard.core.model import DrainMode, kept_listed
from upstream_guard.core.predict.estimate import UNKNOWN_ZERO, Estimate
from upstream_guard.core.predict.facts import Facts, PlatformFacts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.hooks import serves_for
from upstream_guard.core.predict.state import (
    AppFacts,
    Budget,
    Change,
    ChangeKind,
    Container,
    KubeProbe,
    State,
    StrategyKind,
    Workload,
)
from upstream_guard.core.tuning import advise_drain

MAX_PODS: Final = 60
"""More replicas are played with as many: percentages, and so the shares, stay the same."""

UNKNOWN_NODES: Final = 3
"""Pods assumed of a DaemonSet where nobody has counted the nodes."""

Target = int | str


class Replacement(StrEnum):
    """How a workload replaces pods."""

    SURGE = "surge"
    """New pods first or beside, as a Deployment's rolling update."""
    IN_PLACE = "in-place"
    """A pod must be gone before its successor is made, as a StatefulSet's."""
    ALL_AT_ONCE = "all-at-once"
    """Every pod goes before any successor is made (`Recreate`)."""
    NONE = "none"
    """Nobody replaces pods on a change of the template (`OnDelete`, a bare pod)."""


@dataclass(frozen=True, slots=True)
class Readying:
    """When a new pod counts as ready.

    Attributes:
        probed: The serving container has a readiness probe.
        elsewhere: It asks another port than traffic meets.
        initial_delay: Seconds.
        period: Seconds.
        successes: In a row.
        startup_period: Seconds between startup probes, which come before; 0 where there is none.
        lies: Seconds by which it succeeds before the app serves.
        gated: The operator's gate is waited for as well.
        gate_interval: Seconds between the operator's probes.
    """

    probed: bool = False
    elsewhere: bool = False
    initial_delay: float = 0.0
    period: float = 10.0
    successes: int = 1
    startup_period: float = 0.0
    lies: Estimate = UNKNOWN_ZERO
    gated: bool = False
    gate_interval: float = 0.5


@dataclass(frozen=True, slots=True)
class Stopping:
    """What happens to a pod after its deletion.

    Attributes:
        hook: Seconds of the preStop hook; None where there is none.
        grace: The grace period, seconds.
        eject: From a failure to the EndpointSlice without the pod, where a guard probes.
    """

    hook: float | None
    grace: float
    eject: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Play:
    """Everything that a change of one Service behind one gateway depends on.

    Attributes:
        kind: The change.
        replicas: Pods before.
        others: Pods of other workloads behind the Service, which serve on.
        going: Pods that the change takes away (`SCALE_IN`, `NODE_DRAIN`, `NODE_LOSS`, deletion).
        surge: As the controller computes it from `maxSurge`.
        unavailable: As the controller computes it from `maxUnavailable`.
        evictable: Pods that a drain may take away at once; 0 where the budget allows none.
        pool_seconds: Upstream connections that are kept and reused, over the rate of requests.
        patience: Seconds for which a request to an empty list waits and may still be served.
    """

    kind: ChangeKind
    replicas: int
    going: int
    replacement: Replacement
    surge: int
    unavailable: int
    evictable: int
    min_ready: float
    readying: Readying
    stopping: Stopping
    app: AppFacts
    platform: PlatformFacts
    attach: Estimate
    detach: Estimate
    throttle: float
    serves_terminating: bool
    hidden_retries: int
    retry_pause: float
    pool_seconds: float
    replays: bool
    patience: float
    restarts: int
    samples: int
    others: int = 0


def make_play(state: State, gateway: Gateway, change: Change, facts: Facts) -> Play | None:
    """Reduce a change to its play.

    Returns:
        None where the change cannot happen to this Service: no workload, no replicas, nobody to
        replace the pods, no port for TCP.
    """
    workload = state.workload
    takes_tcp = any(port.protocol in {"TCP", ""} for port in state.service.service.ports)
    if workload is None or workload.replicas <= 0 or not takes_tcp:
        return None
    replicas = min(pods_before(state, workload), MAX_PODS)
    kind = ChangeKind.ROLLOUT if change.kind is ChangeKind.CONFIG_CHANGE else change.kind
    surge, unavailable = surge_and_unavailable(workload, replicas)
    container = serving_container(state, workload)
    return Play(
        kind=kind,
        replicas=replicas,
        going=_going(state, workload, change, replicas),
        replacement=_replacement(workload),
        surge=surge,
        unavailable=unavailable,
        evictable=disruptions_allowed(state.budgets, replicas),
        min_ready=workload.min_ready,
        readying=_readying(state, container, facts.app),
        stopping=_handed_over(
            _stopping(state, _going_template(workload, change), gateway),
            state,
            workload,
            gateway,
            kind,
        ),
        app=facts.app,
        platform=facts.platform,
        attach=gateway.attach,
        detach=gateway.detach,
        throttle=gateway.throttle,
        serves_terminating=gateway.behaviour.serves_terminating,
        hidden_retries=gateway.behaviour.refused_retries,
        retry_pause=gateway.behaviour.retry_pause,
        pool_seconds=_pool_seconds(gateway, facts),
        replays=gateway.behaviour.replays,
        patience=_patience(gateway),
        restarts=change.restarts,
        samples=facts.samples,
        others=min(sum(pods_before(state, w) for w in state.workloads[1:]), MAX_PODS),
    )


def pods_before(state: State, workload: Workload) -> int:
    """How many pods the workload has when a change begins.

    An autoscaler's minimum counts where the workload itself asks for fewer, as manifests do.
    """
    if workload.kind == "DaemonSet" and not workload.replicas_given:
        return UNKNOWN_NODES
    least = (a.min_replicas for a in state.autoscalers if a.target == workload.text)
    return max(workload.replicas, *least, 0)


SYN_REPEATS: Final = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 11.0)
"""Seconds after which Linux sends a SYN again that nobody answered.

From 1 s (RFC 6298), doubling only after four repeats (Linux 6.5: `tcp_syn_linear_timeouts`); measured on
6.18: 1.02, 2.03, 3.07, 4.08, 5.11, 7.13, 11.33. Older kernels double at once: 1, 3, 7.
"""
QUEUE_SECONDS: Final = 0.3
"""Until all that wait for a connection have had one. In a gateway that keeps connections, whoever waits takes the
first that is free, also one that another request has opened (Go, net/http: `Transport.queueForIdleConn`), so that
it waits for its whole time-out and not for its own next SYN. Measured of Caddy's 3 s: 2.70 and 2.76."""
CLIENT_PATIENCE: Final = 10.0
"""Seconds for which clients are assumed to wait."""


def _patience(gateway: Gateway) -> float:
    """kube-proxy drops connections to a ClusterIP without endpoints; a later SYN may find one.

    Other gateways answer at once that there is nobody.
    """
    if not gateway.facts.via_cluster_ip:
        return 0.0
    limit = min(gateway.behaviour.connect_timeout or CLIENT_PATIENCE, CLIENT_PATIENCE)
    if gateway.behaviour.reuses:
        return max(0.0, limit - QUEUE_SECONDS)
    return max((at for at in SYN_REPEATS if at < limit), default=0.0)


def _pool_seconds(gateway: Gateway, facts: Facts) -> float:
    """Connections that are kept to a ClusterIP, over the rate; 0 where each request opens its own.

    By Little's law as many are in use as requests come within one response time.
    """
    if not (gateway.behaviour.reuses and gateway.facts.via_cluster_ip):
        return 0.0
    return max(1.0, facts.rate * facts.app.response.value) / facts.rate


def serving_container(state: State, workload: Workload) -> Container | None:
    """The container that serves the Service's first port; the only or first one where none says so."""
    regular = [c for c in workload.template.containers if not c.sidecar]
    for port in state.service.service.ports[:1]:
        for container in regular:
            if any(port.target in {p.number, p.name} for p in container.ports):
                return container
    return regular[0] if regular else None


def target_numbers(state: State, container: Container | None) -> frozenset[int]:
    """The port numbers on which `container` serves the Service's traffic."""
    names = {p.name: p.number for p in container.ports} if container else {}
    targets = (port.target for port in state.service.service.ports)
    numbers = (names.get(t) if isinstance(t, str) else t for t in targets)
    return frozenset(number for number in numbers if number)


def surge_and_unavailable(workload: Workload, replicas: int) -> tuple[int, int]:
    """`maxSurge` rounded up, `maxUnavailable` rounded down; both 0 makes one unavailable.

    Source: kubernetes/pkg/controller/deployment/util, `ResolveFenceposts`.
    """
    surge = resolve(workload.strategy.max_surge, replicas, up=True)
    unavailable = resolve(workload.strategy.max_unavailable, replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def resolve(value: int | str | None, total: int, *, up: bool) -> int:
    """A number or a percentage of `total`, never negative; what cannot be read counts as 0."""
    if isinstance(value, str):
        try:
            share = float(value.rstrip("%")) * total / 100
        except ValueError:
            return 0
        if not math.isfinite(share):
            return 0
        return max(0, math.ceil(share - 1e-9) if up else math.floor(share + 1e-9))
    return max(0, int(value or 0))


def disruptions_allowed(budgets: Iterable[Budget], replicas: int) -> int:
    """How many healthy pods may be evicted at once: the least of all budgets; all without one.

    Percentages round up for `minAvailable` and for `maxUnavailable`, as the disruption controller
    does (kubernetes/pkg/controller/disruption, `getExpectedPodCount`).
    """
    allowed = replicas
    for budget in budgets:
        if budget.max_unavailable is not None:
            allowed = min(allowed, resolve(budget.max_unavailable, replicas, up=True))
        elif budget.min_available is not None:
            needed = resolve(budget.min_available, replicas, up=True)
            allowed = min(allowed, max(0, replicas - needed))
    return allowed


def _replacement(workload: Workload) -> Replacement:
    if workload.strategy.kind is StrategyKind.RECREATE:
        return Replacement.ALL_AT_ONCE
    if workload.strategy.kind is StrategyKind.ON_DELETE or workload.kind == "Pod":
        return Replacement.NONE
    if workload.kind in {"StatefulSet", "DaemonSet"}:
        return Replacement.IN_PLACE
    return Replacement.SURGE


def _going(state: State, workload: Workload, change: Change, replicas: int) -> int:
    match change.kind:
        case ChangeKind.SCALE_IN:
            return max(0, replicas - change.to_replicas)
        case ChangeKind.NODE_DRAIN | ChangeKind.NODE_LOSS:
            return min(replicas, change.pods or _on_one_node(state, workload, change, replicas))
        case ChangeKind.POD_DELETION | ChangeKind.CRASH:
            return min(replicas, change.pods or 1)
    return replicas


def _on_one_node(state: State, workload: Workload, change: Change, replicas: int) -> int:
    """Pods on the node that goes: counted where pods are known, else as the scheduler spreads them.

    Without a constraint the scheduler still prefers to spread (its default constraints), so half of
    the replicas are assumed on one node rather than all.
    """
    running = [pod for pod in state.pods if not pod.terminating and pod.node]
    if running:
        nodes = [pod.node for pod in running]
        return nodes.count(change.node or max(set(nodes), key=lambda n: (nodes.count(n), n)))
    if workload.kind == "DaemonSet":
        return 1
    if workload.template.node_bound:
        return replicas
    if workload.template.spread:
        nodes_known = len(state.nodes) or replicas
        return math.ceil(replicas / max(1, min(replicas, nodes_known)))
    return math.ceil(replicas / 2)


def _readying(state: State, container: Container | None, app: AppFacts) -> Readying:
    guard = state.guard
    gates = guard is not None and guard.gates
    interval = guard.probe_interval if guard else 0.5
    probe = container.readiness if container else None
    if probe is None or container is None:
        return Readying(gated=gates, gate_interval=interval)
    return Readying(
        probed=True,
        elsewhere=_elsewhere(state, container, probe),
        initial_delay=probe.initial_delay,
        period=max(1.0, probe.period),
        successes=max(1, probe.success_threshold),
        startup_period=max(1.0, container.startup.period) if container.startup else 0.0,
        lies=app.readiness_lies,
        gated=gates,
        gate_interval=interval,
    )


def _elsewhere(state: State, container: Container, probe: KubeProbe) -> bool:
    if probe.port is None:
        return False
    numbers = {p.name: p.number for p in container.ports}
    port = numbers.get(probe.port) if isinstance(probe.port, str) else probe.port
    targets = target_numbers(state, container)
    return bool(targets) and port is not None and port not in targets


def _going_template(workload: Workload, change: Change) -> Workload:
    """The workload as the pods that stop were made from it."""
    return workload if change.replaces is None else replace(workload, template=change.replaces)


def _stopping(state: State, workload: Workload, gateway: Gateway) -> Stopping:
    """A hook that cannot be read is believed to last as long as the gateway needs, within limits."""
    container = serving_container(state, workload)
    hook = container.pre_stop if container else None
    grace = workload.template.grace_period
    seconds = None if hook is None else serves_for(hook)
    if hook is not None and seconds is None:
        seconds = min(gateway.facts.needed_seconds, grace / 2)
    guard = state.guard
    if guard is not None and hook is None and guard.pre_stop > 0:
        seconds = guard.pre_stop
        grace += guard.pre_stop
    # Without gates the guard only looks on.
    return Stopping(seconds, grace, guard.eject if guard and guard.gates else None)


def _handed_over(
    stopping: Stopping, state: State, workload: Workload, gateway: Gateway, kind: ChangeKind
) -> Stopping:
    """With the seconds that a guard gives an old pod whose hook is too short (`core/handover.py`).

    It is out of the list for so long before it is deleted, which is as if its hook lasted for longer.
    """
    guard, replicas = state.guard, pods_before(state, workload)
    if guard is None or not guard.gates or guard.drain.mode is not DrainMode.ENFORCE:
        return stopping
    waits = kind is ChangeKind.ROLLOUT and _replacement(workload) is Replacement.SURGE
    if not waits or surge_and_unavailable(workload, replicas)[1] > 0:
        return stopping
    if replicas - 1 < kept_listed(replicas, guard.min_healthy_percent):
        return stopping
    hook = stopping.hook or 0.0
    lacking = advise_drain(guard.drain, (gateway.facts,)).lacking(hook)
    return replace(stopping, hook=hook + lacking, grace=stopping.grace + lacking)
