"""Predicts the demo's own changes from what it deploys, for `demo --score`."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.engine import predict
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.score import Prediction
from upstream_guard.core.predict.state import (
    AppFacts,
    Change,
    ChangeKind,
    GuardFacts,
    Shutdown,
    State,
)
from upstream_guard.core.tuning import Evidence
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.matrix import question
from upstream_guard.lab.demo.runner import Cell, Foresee
from upstream_guard.lab.demo.scenarios import SCALE_IN_TO
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.gateways import contour
from upstream_guard.lab.gateways.model import ServiceTarget

Json = dict[str, Any]

CHANGES: Final[Mapping[str, Change]] = {
    "rollout": Change(ChangeKind.ROLLOUT),
    "slow-start": Change(ChangeKind.ROLLOUT),
    "scale-in": Change(ChangeKind.SCALE_IN, to_replicas=SCALE_IN_TO),
    "crash": Change(ChangeKind.CRASH),
    "drain": Change(ChangeKind.NODE_DRAIN),
}
"""By scenario. An app or a node that goes bad by itself can be detected, and not foreseen."""


def foresight(rate: float) -> Foresee:
    """What predicts the demo's changes.

    Args:
        rate: requests a second of the load.
    """

    async def foresee(cell: Cell, stage: Stage) -> Prediction | None:
        change = CHANGES.get(cell.scenario.name)
        if change is None:
            return None
        pods = stage.pods()
        states = [await stage.sample_state(pod) for pod in pods]
        facts = _facts([s["serving"] - s["started"] for s in states], rate)
        if change.kind is ChangeKind.NODE_DRAIN:
            change = replace(change, node=stage.node_to_drain())
        gateway = question.gateway_model(cell.gateway)
        windows = predict(_state(cell, stage, pods), gateway, change, facts, time.time())
        now = time.time()
        service = f"{stage.namespace}/{stage.name}"
        return Prediction(service, cell.gateway, change.kind, now, now, windows)

    return foresee


def _facts(starts: list[float], rate: float) -> Facts:
    start = Estimate(
        min(starts), sum(starts) / len(starts), max(starts), Evidence.MEASURED, "this deployment"
    )
    app = AppFacts(start=start, shutdown=Shutdown.EXITS)
    return Facts(app=app, rate=rate, rate_evidence=Evidence.SPEC)


def _state(cell: Cell, stage: Stage, pods: list[Json]) -> State:
    named = {"namespace": stage.namespace, "name": stage.name}
    written = [
        variants.deployment(
            cell.variant,
            replicas=cell.scenario.replicas,
            start_delay=cell.scenario.start_delay,
            app=cell.app,
            hook=cell.hook,
            **named,
        ),
        variants.service(**named),
    ]
    if cell.gateway == contour.ADDON.name:
        target = ServiceTarget(stage.namespace, stage.name)
        written += [contour.ingress(target), contour.ingress_class()]
    nodes = [node.name for node in stage.cluster.nodes]
    state = question.state_of(written, ObjectRef(**named), pods, nodes)
    if cell.variant is Variant.GUARDED:
        return replace(state, guard=GuardFacts(pre_stop=variants.pre_stop(pods)))
    return state
