"""Workloads of a running cluster: what they declare, and how far their controller has come."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final

from upstream_guard.core.predict.live import WorkloadSight
from upstream_guard.core.predict.state import Workload
from upstream_guard.resources.kube_objects import Json
from upstream_guard.resources.manifests import parse_daemonset, parse_deployment, parse_statefulset

_EMPTY: Final[Json] = {}

Parser = Callable[[object], Workload | None]


def parse_live_deployment(obj: Json) -> WorkloadSight | None:
    """An apps/v1 Deployment as the API serves it; None without a name."""
    status = obj.get("status") or _EMPTY
    counts = ("replicas", "updatedReplicas", "availableReplicas")
    return _sight(obj, parse_deployment, [_count(status, key) for key in counts])


def parse_live_statefulset(obj: Json) -> WorkloadSight | None:
    """An apps/v1 StatefulSet as the API serves it; None without a name.

    Pods below its partition keep the old template, and count as updated: nothing replaces them.
    """
    status, spec = obj.get("status") or _EMPTY, obj.get("spec") or _EMPTY
    rolling = (spec.get("updateStrategy") or _EMPTY).get("rollingUpdate") or _EMPTY
    total, updated, available = (
        _count(status, key) for key in ("replicas", "updatedReplicas", "availableReplicas")
    )
    held = min(_count(rolling, "partition"), max(0, total - updated))
    return _sight(obj, parse_statefulset, [total, updated + held, available])


def parse_live_daemonset(obj: Json) -> WorkloadSight | None:
    """An apps/v1 DaemonSet as the API serves it; None without a name."""
    status = obj.get("status") or _EMPTY
    counts = ("currentNumberScheduled", "updatedNumberScheduled", "numberAvailable")
    return _sight(obj, parse_daemonset, [_count(status, key) for key in counts])


def _sight(obj: Json, parser: Parser, counts: list[int]) -> WorkloadSight | None:
    workload = parser(obj)
    if workload is None:
        return None
    metadata, spec = obj.get("metadata") or _EMPTY, obj.get("spec") or _EMPTY
    total, updated, available = counts
    return WorkloadSight(
        workload=workload,
        uid=metadata.get("uid") or "",
        template=_fingerprint(spec.get("template")),
        paused=bool(spec.get("paused")),
        generation=_count(metadata, "generation"),
        observed=_count(obj.get("status") or _EMPTY, "observedGeneration"),
        total=total,
        updated=updated,
        available=available,
        stalled=_stalled(obj.get("status") or _EMPTY),
    )


def _stalled(status: Json) -> bool:
    """The Deployment controller has given up waiting for the rollout (`ProgressDeadlineExceeded`)."""
    conditions = (c for c in status.get("conditions") or () if isinstance(c, dict))
    return any(c.get("type") == "Progressing" and c.get("status") == "False" for c in conditions)


def _fingerprint(template: Any) -> str:
    text = json.dumps(template, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _count(obj: Json, key: str) -> int:
    value = obj.get(key)
    return value if isinstance(value, int) else 0
