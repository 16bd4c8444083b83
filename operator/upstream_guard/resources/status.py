"""`core.status.GuardStatus` to the status of an UpstreamGuard, and its conditions back."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from upstream_guard.core.reasons import ConditionType, Reason
from upstream_guard.core.status import (
    MAX_LISTED_ENDPOINTS,
    Condition,
    ConditionStatus,
    DrainStatus,
    EndpointCounts,
    EndpointStatus,
    GuardStatus,
    merge_conditions,
    worst_first,
)
from upstream_guard.core.tuning import GatewayFacts
from upstream_guard.resources.kube_objects import parse_time

_MAX_MESSAGE: Final = 2048
_MAX_REASON: Final = 1024
_MAX_SOURCE: Final = 512
_MAX_DETAIL: Final = 256
_MAX_PATCH: Final = 4096
_MAX_GATEWAYS: Final = 20


def build_status(status: GuardStatus, old: object, now: float) -> dict[str, Any]:
    """The status to write.

    It equals `old` when nothing has changed, so that the caller can leave the write. It is whole: to be
    written as a replacement, since a merge patch would keep a key that is no longer there.

    Args:
        status: What it should say.
        old: The guard's present `status`, of which only the conditions' times are kept.
        now: Unix seconds, for conditions that change.
    """
    counts = status.counts
    conditions = merge_conditions(parse_conditions(old), status.conditions, now)
    body: dict[str, Any] = {
        "observedGeneration": status.observed_generation,
        "conditions": [_condition(condition) for condition in conditions],
        "summary": _summary(status, counts),
        "endpoints": _counts(counts),
        "endpointList": [
            _endpoint(endpoint) for endpoint in worst_first(status.endpoints)[:MAX_LISTED_ENDPOINTS]
        ],
        "gateways": [_gateway(gateway) for gateway in status.gateways[:_MAX_GATEWAYS]],
    }
    if status.drain is not None:
        body["drain"] = _drain(status.drain)
    return body


def parse_conditions(status: object) -> tuple[Condition, ...]:
    """The conditions of a guard's status; those that this version does not know are passed over."""
    found = status.get("conditions") if isinstance(status, Mapping) else None
    if not isinstance(found, Iterable) or isinstance(found, str | Mapping):
        return ()
    return tuple(
        condition
        for raw in found
        if isinstance(raw, Mapping)
        for condition in _parse_condition(raw)
    )


def format_time(seconds: float) -> str:
    """Unix seconds as the API writes a time: whole seconds, UTC."""
    return datetime.fromtimestamp(math.floor(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_seconds(seconds: float) -> str:
    """Seconds as a duration for people: `30ms`, `1.19s`, `70s`."""
    if 0 < seconds < 1:
        return f"{round(seconds * 1000)}ms"
    return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"


def _parse_condition(raw: Mapping[str, Any]) -> Iterable[Condition]:
    try:
        type_ = ConditionType(str(raw.get("type")))
        state = ConditionStatus(str(raw.get("status")))
        reason = Reason(str(raw.get("reason")))
    except ValueError:
        return
    generation = raw.get("observedGeneration")
    yield Condition(
        type_,
        state,
        reason,
        str(raw.get("message") or ""),
        generation if isinstance(generation, int) else 0,
        parse_time(str(raw.get("lastTransitionTime"))),
    )


def _condition(condition: Condition) -> dict[str, Any]:
    return {
        "type": condition.type.value,
        "status": condition.status.value,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": format_time(condition.last_transition),
        "reason": condition.reason.value,
        "message": _cut(condition.message, _MAX_MESSAGE),
    }


def _summary(status: GuardStatus, counts: EndpointCounts) -> dict[str, str]:
    controllers = dict.fromkeys(gateway.controller for gateway in status.gateways)
    summary = {
        "service": _cut(status.service, 128),
        "endpoints": f"{counts.listed}/{counts.total}",
        "gateways": _cut(", ".join(controllers), 256),
    }
    if status.drain is not None:
        advice = status.drain.advice
        summary["preStop"] = f"{advice.pre_stop}s ({advice.evidence.value})"
    return summary


def _counts(counts: EndpointCounts) -> dict[str, int]:
    return {
        "total": counts.total,
        "serving": counts.serving,
        "listed": counts.listed,
        "ejected": counts.ejected,
        "draining": counts.draining,
        "ungated": counts.ungated,
    }


def _endpoint(endpoint: EndpointStatus) -> dict[str, Any]:
    body: dict[str, Any] = {
        "address": _cut(endpoint.address, 64),
        "state": endpoint.state.value,
        "gated": endpoint.gated,
    }
    optional = {
        "pod": _cut(endpoint.pod, 253),
        "node": _cut(endpoint.node, 253),
        "cause": endpoint.cause.value if endpoint.cause else "",
        "detail": _cut(endpoint.detail, _MAX_DETAIL),
    }
    return body | {key: value for key, value in optional.items() if value}


def _gateway(gateway: GatewayFacts) -> dict[str, Any]:
    return {
        "kind": gateway.kind.value,
        "name": _cut(gateway.name, 512),
        "controller": _cut(gateway.controller, 253),
        "detachLatency": format_seconds(gateway.detach_seconds),
        "attachLatency": format_seconds(gateway.attach_seconds),
        "path": "ClusterIP" if gateway.via_cluster_ip else "Endpoints",
        "evidence": gateway.evidence.value,
        "source": _cut(gateway.source, _MAX_SOURCE),
    }


def _drain(drain: DrainStatus) -> dict[str, Any]:
    advice = drain.advice
    body: dict[str, Any] = {
        "mode": drain.mode.value,
        "preStopSeconds": advice.pre_stop,
        "evidence": advice.evidence.value,
        "reason": _cut(advice.reason, _MAX_REASON),
    }
    if drain.own_grace is not None:
        body["gracePeriodSeconds"] = advice.grace_for(drain.own_grace)
    if drain.patch and len(drain.patch) <= _MAX_PATCH:
        body["patch"] = drain.patch
    return body


def _cut(text: str, most: int) -> str:
    """The text, at most `most` characters of it, as the schema allows."""
    return text if len(text) <= most else text[: most - 1] + "…"
