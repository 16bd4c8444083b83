"""Workloads: what runs the pods of a Service, with the API's defaults filled in."""

from collections.abc import Mapping
from typing import Final

from upstream_guard.core.predict.state import (
    LabelSelector,
    PodTemplate,
    Strategy,
    StrategyKind,
    Workload,
)
from upstream_guard.resources.kube_objects import Json
from upstream_guard.resources.manifests.pods import TEMPLATE, template_of
from upstream_guard.resources.manifests.reading import (
    EMPTY,
    annotations_of,
    controller_kind,
    many,
    record,
    ref_of,
    resource,
    selector,
    share,
    text,
    texts,
    whole,
)

_ROLLING: Final = record(maxSurge=share, maxUnavailable=share, partition=whole)
_UPDATE: Final = record(type=text, rollingUpdate=_ROLLING)
_COMMON: Final = {
    "replicas": whole,
    "minReadySeconds": whole,
    "progressDeadlineSeconds": whole,
    "template": TEMPLATE,
}

DEPLOYMENT: Final = resource(spec=record(**_COMMON, selector=selector, strategy=_UPDATE))
STATEFULSET: Final = resource(
    spec=record(
        **_COMMON,
        selector=selector,
        updateStrategy=_UPDATE,
        podManagementPolicy=text,
        volumeClaimTemplates=many(record(metadata=record(name=text))),
    )
)
DAEMONSET: Final = resource(
    spec=record(**_COMMON, selector=selector, updateStrategy=_UPDATE),
    status=record(desiredNumberScheduled=whole),
)
REPLICASET: Final = resource(spec=record(**_COMMON, selector=selector))
REPLICATION_CONTROLLER: Final = resource(spec=record(**_COMMON, selector=texts))
ROLLOUT: Final = resource(
    spec=record(**_COMMON, selector=selector, strategy=record(canary=_ROLLING, blueGreen=record()))
)

_BY_HAND: Final = Strategy(StrategyKind.ON_DELETE, 0, 0)
"""Pods are never replaced because the template changed."""
_OWNERS: Final = frozenset({"Deployment", "Rollout"})


def parse_deployment(raw: object) -> Workload | None:
    """A Deployment."""
    obj = DEPLOYMENT(raw)
    if obj is None:
        return None
    spec: Json = obj.get("spec", EMPTY)
    update: Json = spec.get("strategy", EMPTY)
    if update.get("type") == StrategyKind.RECREATE:
        return _workload("Deployment", obj, Strategy(StrategyKind.RECREATE))
    return _workload("Deployment", obj, _rolling(update.get("rollingUpdate", EMPTY)))


def parse_statefulset(raw: object) -> Workload | None:
    """A StatefulSet: one pod at a time, in order unless `podManagementPolicy` says `Parallel`.

    `maxUnavailable` counts where it is given (beta since Kubernetes 1.35). A partition that leaves no
    pod to replace is told as `OnDelete`: a new template then stops nothing.
    """
    obj = STATEFULSET(raw)
    if obj is None:
        return None
    spec: Json = obj.get("spec", EMPTY)
    update: Json = spec.get("updateStrategy", EMPTY)
    rolling: Json = update.get("rollingUpdate", EMPTY)
    strategy = Strategy(StrategyKind.ROLLING, 0, rolling.get("maxUnavailable", 1))
    held = 0 < spec.get("replicas", 1) <= rolling.get("partition", 0)
    if held or update.get("type") == StrategyKind.ON_DELETE:
        strategy = _BY_HAND
    ordered = spec.get("podManagementPolicy") != "Parallel"
    return _workload("StatefulSet", obj, strategy, ordered=ordered)


def parse_daemonset(raw: object) -> Workload | None:
    """A DaemonSet: as many replicas as its status wants, else one that nobody gave."""
    obj = DAEMONSET(raw)
    if obj is None:
        return None
    update: Json = obj.get("spec", EMPTY).get("updateStrategy", EMPTY)
    rolling: Json = update.get("rollingUpdate", EMPTY)
    strategy = Strategy(
        StrategyKind.ROLLING, rolling.get("maxSurge", 0), rolling.get("maxUnavailable", 1)
    )
    if update.get("type") == StrategyKind.ON_DELETE:
        strategy = _BY_HAND
    wanted = obj.get("status", EMPTY).get("desiredNumberScheduled")
    counted = {**obj, "spec": {**obj.get("spec", EMPTY), "replicas": wanted}}
    return _workload("DaemonSet", counted, strategy)


def parse_replicaset(raw: object) -> Workload | None:
    """A ReplicaSet; none where a Deployment (or an Argo Rollout) speaks for it."""
    obj = REPLICASET(raw)
    if obj is None or controller_kind(obj) in _OWNERS:
        return None
    return _workload("ReplicaSet", obj, _BY_HAND)


def parse_replication_controller(raw: object) -> Workload | None:
    """A ReplicationController."""
    obj = REPLICATION_CONTROLLER(raw)
    return None if obj is None else _workload("ReplicationController", obj, _BY_HAND)


def parse_rollout(raw: object) -> Workload | None:
    """An Argo Rollout, as far as a rolling update resembles it.

    A canary has the Deployment's numbers; blue-green starts a whole second set. Steps, analysis and
    traffic weights are not looked at. One whose template is another object's (`workloadRef`) is left
    to that object.
    """
    obj = ROLLOUT(raw)
    if obj is None or "template" not in obj.get("spec", EMPTY):
        return None
    strategy: Json = obj["spec"].get("strategy", EMPTY)
    if "blueGreen" in strategy:
        return _workload("Rollout", obj, Strategy(StrategyKind.ROLLING, "100%", 0))
    return _workload("Rollout", obj, _rolling(strategy.get("canary", EMPTY)))


def _rolling(raw: Json) -> Strategy:
    defaults = Strategy()
    return Strategy(
        StrategyKind.ROLLING,
        raw.get("maxSurge", defaults.max_surge),
        raw.get("maxUnavailable", defaults.max_unavailable),
    )


def _workload(kind: str, obj: Json, strategy: Strategy, *, ordered: bool = False) -> Workload:
    spec: Json = obj.get("spec", EMPTY)
    claims = (claim.get("metadata", EMPTY) for claim in spec.get("volumeClaimTemplates", ()))
    template = template_of(
        spec.get("template", EMPTY), own_claims=(c["name"] for c in claims if "name" in c)
    )
    replicas = spec.get("replicas")
    return Workload(
        kind=kind,
        ref=ref_of(obj),
        template=template,
        replicas=1 if replicas is None else replicas,
        replicas_given=replicas is not None,
        strategy=strategy,
        min_ready=float(spec.get("minReadySeconds", 0)),
        ordered=ordered,
        deadline=float(spec.get("progressDeadlineSeconds", 600)),
        match_labels=_match_labels(spec.get("selector"), template),
        annotations=annotations_of(obj),
    )


def _match_labels(
    selected: LabelSelector | Mapping[str, str] | None, template: PodTemplate
) -> Mapping[str, str]:
    """A ReplicationController selects by plain labels; a selector left out is the template's labels."""
    if selected is None:
        return template.labels
    return selected.labels if isinstance(selected, LabelSelector) else selected
