"""Rollouts: how many pods are left, and whether the gateway knows the new ones in time."""

import math
from collections.abc import Iterator
from typing import Any, Final

from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.play import pods_before, surge_and_unavailable
from upstream_guard.core.predict.rules.reporting import (
    ROLLOUTS,
    Mend,
    in_object,
    in_workload,
    merge,
    nest,
    report,
    strategic,
)
from upstream_guard.core.predict.rules.serving import (
    autoscaler,
    called,
    endpoints,
    hook_seconds,
    replicas,
    seconds,
    serving,
)
from upstream_guard.core.predict.rules.stores import store_behind
from upstream_guard.core.predict.state import ChangeKind, Quota, State, StrategyKind, Workload
from upstream_guard.core.predict.window import Finding, Severity

_LOSSES: Final = frozenset(
    {
        ChangeKind.NODE_DRAIN,
        ChangeKind.NODE_LOSS,
        ChangeKind.POD_DELETION,
        ChangeKind.CRASH,
    }
)
"""Changes that take single pods away."""


def recreate_strategy(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """Every old pod stops before the first new one starts."""
    for workload in state.workloads:
        if workload.strategy.kind is not StrategyKind.RECREATE or workload.replicas <= 0:
            continue
        has_others = endpoints(state) > replicas(state, workload)
        where = in_workload(workload, "spec.strategy.type")
        yield report(
            "recreate-strategy",
            where,
            f"`{workload.text}` is replaced with strategy Recreate: no pod serves from the end of the "
            "old ones until new ones are ready",
            _rolling(state, workload),
            ROLLOUTS,
            Severity.INFO if has_others else None,
        )


def _rolling(state: State, workload: Workload) -> Mend:
    claims = sorted(workload.template.claims)
    store = store_behind(state, workload)
    if store:
        return (
            f"its port is the usual one of {store}, and a second pod of a data store beside the first "
            "has data of its own"
        )
    if claims:
        return (
            f"its pods mount PersistentVolumeClaim `{claims[0]}`, which may allow one pod at a time; "
            "a rolling update needs a volume that several pods may mount"
        )
    return strategic(
        in_workload(workload, "spec.strategy"),
        _strategy(1),
        "old pods stay until new ones are ready (if two versions may run side by side)",
    )


def _strategy(surge: int | str) -> dict[str, Any]:
    rolling = {"maxSurge": surge, "maxUnavailable": 0}
    return {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}}


def max_unavailable(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A rolling update that may take away every pod, or half of them, before new ones are ready."""
    for workload in state.workloads:
        count = pods_before(state, workload)
        if workload.strategy.kind is not StrategyKind.ROLLING or count <= 0:
            continue
        surge, unavailable = surge_and_unavailable(workload, count)
        if workload.kind == "Deployment" and unavailable * 2 >= count:
            pods = "pod" if count == 1 else "pods"
            yield _takes_away(
                workload, surge, f"{unavailable} of {count} {pods}", takes_all=unavailable >= count
            )
        elif workload.kind in _IN_PLACE and unavailable >= count > 1:
            yield _takes_away(workload, surge, "all pods", takes_all=True)


_IN_PLACE: Final = frozenset({"StatefulSet", "DaemonSet"})


def _takes_away(workload: Workload, surge: int, pods: str, *, takes_all: bool) -> Finding:
    field = "spec.updateStrategy" if workload.kind in _IN_PLACE else "spec.strategy"
    patch = nest(f"{field}.rollingUpdate", {"maxUnavailable": 1})
    if workload.kind not in _IN_PLACE:
        patch = _strategy(workload.strategy.max_surge if surge else 1)
    where = in_workload(workload, f"{field}.rollingUpdate.maxUnavailable")
    return report(
        "max-unavailable",
        where,
        f"maxUnavailable `{workload.strategy.max_unavailable}` lets a rollout take away {pods} of "
        f"`{workload.text}` before new ones are ready",
        strategic(where, patch, "new pods are ready before the last old ones stop"),
        ROLLOUTS,
        Severity.WARNING if takes_all else Severity.INFO,
    )


def single_replica(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """One pod: whatever ends it ends the service."""
    workload = next((w for w in state.workloads if w.replicas > 0), None)
    if workload is None or endpoints(state) != 1:
        return
    is_set = workload.kind == "StatefulSet"
    changes = _LOSSES | ROLLOUTS if is_set else _LOSSES
    scaler = autoscaler(state, workload)
    path = "spec.minReplicas" if scaler else "spec.replicas"
    where = (
        in_object("HorizontalPodAutoscaler", scaler.ref, path)
        if scaler
        else in_workload(workload, path)
    )
    mend = _two_replicas(state, workload)
    yield report(
        "single-replica",
        where,
        f"`{workload.text}` may run with one replica"
        + (f", the minimum of its autoscaler `{scaler.ref.name}`" if scaler else "")
        + ": while its pod is moved or restarted, nothing serves",
        mend,
        changes,
        Severity.INFO if isinstance(mend, str) else None,
    )


def _two_replicas(state: State, workload: Workload) -> Mend:
    reason = "one pod serves while the other stops or starts"
    scaler = autoscaler(state, workload)
    if workload.kind == "StatefulSet":
        return (
            "whether its pods can share the work only the app knows: a patch cannot add a replica"
        )
    if workload.kind == "Pod":
        return "nobody replaces a bare pod: run it by a Deployment"
    if workload.strategy.kind is StrategyKind.RECREATE or workload.template.claims:
        return (
            "strategy Recreate or a PersistentVolumeClaim says that one pod runs at a time: "
            "a second replica needs an app that allows it"
        )
    store = store_behind(state, workload)
    if store:
        return (
            f"its port is the usual one of {store}, and a second pod of a data store has data of its "
            "own: it has to be set up for replication first"
        )
    if scaler is not None:
        where = in_object("HorizontalPodAutoscaler", scaler.ref, "spec.minReplicas")
        patch: dict[str, Any] = {"minReplicas": 2}
        if scaler.max_replicas < 2:
            patch["maxReplicas"] = 2
        return merge(where, {"spec": patch}, reason)
    return strategic(in_workload(workload, "spec.replicas"), {"spec": {"replicas": 2}}, reason)


def no_replicas(state: State, _gateways: tuple[Gateway, ...], _facts: Facts) -> Iterator[Finding]:
    """Nothing runs behind the Service."""
    if not state.workloads or endpoints(state) > 0:
        return
    workload = state.workloads[0]
    where = in_workload(workload, "spec.replicas")
    yield report(
        "no-replicas",
        where,
        f"`{workload.text}` has 0 replicas, so no pod answers for Service `{state.service.ref.name}`",
        strategic(
            where,
            {"spec": {"replicas": 2}},
            "two pods serve, and one is left while the other stops",
        ),
    )


def min_ready_seconds(
    state: State, gateways: tuple[Gateway, ...], facts: Facts
) -> Iterator[Finding]:
    """A rollout that is over before a slow gateway has taken up the first new pod."""
    gateway = max((g.facts for g in gateways), key=lambda g: g.attach_seconds, default=None)
    if gateway is None:
        return
    for workload in state.workloads:
        hooks = [hook_seconds(container, state) for container, _ in serving(state, workload)]
        if workload.kind != "Deployment" or not hooks or None in hooks:
            continue
        covered = workload.min_ready + min(hook or 0.0 for hook in hooks)
        covered += _lasts(state, workload, facts)
        is_alone = endpoints(state) == replicas(state, workload) > 1
        if is_alone and gateway.attach_seconds > covered:
            yield _too_fast(workload, gateway.attach_seconds, called(gateway))


def _lasts(state: State, workload: Workload, facts: Facts) -> float:
    """How long, at least, a rollout takes after its first new pod is ready; infinite if not rolling."""
    if workload.strategy.kind is not StrategyKind.ROLLING:
        return math.inf
    count = replicas(state, workload)
    surge, unavailable = surge_and_unavailable(workload, count)
    steps = math.ceil(count / max(1, surge + unavailable))
    return max(0, steps - 1) * (facts.app.start.value + workload.min_ready)


def _too_fast(workload: Workload, attach: float, gateway: str) -> Finding:
    wanted = math.ceil(attach)
    patch: dict[str, Any] = {"minReadySeconds": wanted}
    if workload.deadline <= wanted:
        patch["progressDeadlineSeconds"] = math.ceil(workload.deadline) + wanted
    where = in_workload(workload, "spec.minReadySeconds")
    return report(
        "min-ready-seconds",
        where,
        f"minReadySeconds is {seconds(workload.min_ready)}, but {gateway} may need {seconds(attach)} "
        f"to use a new pod: a rollout of `{workload.text}` may stop the last old one before",
        strategic(where, {"spec": patch}, "old pods stay until the gateway uses the new ones"),
        ROLLOUTS,
    )


def quota_blocks_surge(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A rolling update that must add a pod first, where the quota allows no more."""
    for workload in state.workloads:
        is_rolling = workload.strategy.kind is StrategyKind.ROLLING
        count = replicas(state, workload)
        if workload.kind != "Deployment" or not is_rolling or count <= 0:
            continue
        surge, unavailable = surge_and_unavailable(workload, count)
        if surge < 1 or unavailable > 0:
            continue
        for quota in state.quotas:
            yield from _full(quota, workload, count, surge)


def _full(quota: Quota, workload: Workload, count: int, surge: int) -> Iterator[Finding]:
    for resource in ("pods", "count/pods"):
        hard = quota.hard.get(resource)
        if hard is None or not math.isfinite(hard):
            continue
        used = max(quota.used.get(resource, 0.0), float(count))
        if hard - used >= 1 or not math.isfinite(used):
            continue
        where = in_object("ResourceQuota", quota.ref, f"spec.hard.{resource}")
        wanted = str(math.ceil(max(hard, used)) + surge)
        yield report(
            "quota-blocks-surge",
            where,
            f"the quota allows {hard:g} pods, which are {used:g} already: a rollout of "
            f"`{workload.text}` cannot add the pod that it needs before it removes one",
            strategic(
                where,
                {"spec": {"hard": {resource: wanted}}},
                f"there is room for {surge} more while pods are replaced",
            ),
            ROLLOUTS,
        )
