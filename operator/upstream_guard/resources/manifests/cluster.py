"""What runs now: pods and nodes of a cluster."""

from typing import Final

from upstream_guard.core.predict.state import NodeState, PodState, Strategy, StrategyKind, Workload
from upstream_guard.resources.kube_objects import Json, parse_node
from upstream_guard.resources.manifests.pods import POD_SPEC, template_of
from upstream_guard.resources.manifests.reading import (
    EMPTY,
    annotations_of,
    flag,
    many,
    record,
    ref_of,
    resource,
    text,
    whole,
)
from upstream_guard.resources.manifests.values import KnownPod

_CONDITIONS: Final = many(record(type=text, status=text))
POD: Final = resource(
    spec=POD_SPEC,
    status=record(
        phase=text, conditions=_CONDITIONS, containerStatuses=many(record(restartCount=whole))
    ),
)
NODE: Final = resource(spec=record(unschedulable=flag), status=record(conditions=_CONDITIONS))

_FINISHED: Final = frozenset({"Succeeded", "Failed"})


def parse_known_pod(raw: object) -> KnownPod | None:
    """A Pod; none where it has finished, for it will never serve again."""
    obj = POD(raw)
    if obj is None:
        return None
    status: Json = obj.get("status", EMPTY)
    if status.get("phase") in _FINISHED:
        return None
    metadata: Json = obj["metadata"]
    bare = None if metadata.get("ownerReferences") else _bare(obj)
    return KnownPod(
        state=PodState(
            ref=ref_of(obj),
            uid=metadata.get("uid", ""),
            node=obj.get("spec", EMPTY).get("nodeName", ""),
            ready=any(
                c.get("type") == "Ready" and c.get("status") == "True"
                for c in status.get("conditions", ())
            ),
            terminating="deletionTimestamp" in metadata,
            restarts=sum(c.get("restartCount", 0) for c in status.get("containerStatuses", ())),
        ),
        labels=metadata.get("labels", {}),
        bare=bare,
    )


def _bare(obj: Json) -> Workload:
    """A pod that nothing replaces, as the workload that it is."""
    template = template_of(obj, path="spec")
    return Workload(
        kind="Pod",
        ref=ref_of(obj),
        template=template,
        strategy=Strategy(StrategyKind.ON_DELETE, 0, 0),
        match_labels=template.labels,
        annotations=annotations_of(obj),
    )


def parse_node_state(raw: object) -> NodeState | None:
    """A Node."""
    obj = NODE(raw)
    if obj is None:
        return None
    node = parse_node(obj)
    return NodeState(node.name, node.zone, node.ready, not node.unschedulable)
