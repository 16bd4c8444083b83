"""A case as a question to the predictor: the state, the gateway, the change, and what is known. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, Final

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts, PlatformFacts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.state import (
    AppFacts,
    Change,
    ChangeKind,
    NodeState,
    PodState,
    Shutdown,
    State,
)
from upstream_guard.core.tuning import Evidence, GatewayKind
from upstream_guard.gateways import PROFILES
from upstream_guard.gateways.behaviour import model_of
from upstream_guard.lab.demo.matrix.cases import Case, Ending, Probe
from upstream_guard.resources.manifests import read_world

Json = dict[str, Any]

_SHUTDOWNS: Final = {
    Ending.EXITS: Shutdown.EXITS,
    Ending.DRAINS: Shutdown.DRAINS,
    Ending.REFUSES: Shutdown.DRAINS,
    Ending.LINGERS: Shutdown.LINGERS,
    Ending.IGNORES: Shutdown.IGNORES,
}


def gateway_model(name: str) -> Gateway:
    """What is built in of a gateway of the lab; nothing of it is measured for the occasion."""
    return model_of(PROFILES[name].facts(name, GatewayKind.INGRESS_CLASS))


def change_of(case: Case, node: str = "") -> Change:
    """What happens, as the predictor calls it."""
    left = case.to_replicas if case.change is ChangeKind.SCALE_IN else 0
    return Change(case.change, to_replicas=left, node=node)


def facts_of(case: Case, starts: Sequence[float], rate: float, busy: float = 0.0) -> Facts:
    """What careful people know of their app before they change it.

    Args:
        case: Says how the app ends, how long its answers take, and by how much its readiness probe
            runs ahead of serving, as observed earlier; one that asks the sample's control port
            succeeds from the process's start on.
        starts: Seconds from each pod's start to its first answer, measured in the case's own
            first deployment; at least one.
        rate: Requests a second.
        busy: Changes of other Services a second, as `other_changes` counts them.
    """
    measured = Estimate(
        min(starts), median(starts), max(starts), Evidence.MEASURED, "its first deployment"
    )
    app = AppFacts(
        start=measured,
        shutdown=_SHUTDOWNS[case.ending],
        linger=_observed(case.linger if case.ending is Ending.LINGERS else 0.0),
        drain=_observed(max(case.response, _lingers(case))),
        response=_observed(case.response),
        slow_response=_observed(case.response),
        readiness_lies=measured if case.probe is Probe.ELSEWHERE else _observed(case.lie),
        serves_kept=case.ending is Ending.REFUSES,
    )
    platform = PlatformFacts(other_changes=busy)
    return Facts(app=app, platform=platform, rate=rate, rate_evidence=Evidence.SPEC)


def _lingers(case: Case) -> float:
    if case.ending is Ending.LINGERS:
        return case.linger + case.response
    return case.linger if case.ending is Ending.REFUSES else 0.0


def _observed(seconds: float) -> Estimate:
    return Estimate.exactly(seconds, Evidence.MEASURED, "observed earlier")


def state_of(
    written: Iterable[Json], service: ObjectRef, pods: Iterable[Json], nodes: Iterable[str]
) -> State:
    """The very manifests that were applied, and where the pods run now.

    Raises:
        ValueError: the Service is not among the manifests.
    """
    for state in read_world(written, complete=True).states:
        if state.service.ref == service:
            running = tuple(map(_pod, pods))
            return replace(state, pods=running, nodes=tuple(map(NodeState, nodes)))
    raise ValueError(f"there is no Service {service} among the manifests")


def _pod(pod: Json) -> PodState:
    meta, conditions = pod["metadata"], pod.get("status", {}).get("conditions") or ()
    return PodState(
        ref=ObjectRef(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        node=str(pod["spec"].get("nodeName", "")),
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        terminating="deletionTimestamp" in meta,
    )
