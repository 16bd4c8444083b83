"""`core.status.GuardStatus` to the status of an UpstreamGuard, and its conditions back."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import Eye
from upstream_guard.core.latency import Latencies, Measured
from upstream_guard.core.observed import MAX_WINDOWS, Counted, Extent, ObservedWindow
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.predict.window import Severity
from upstream_guard.core.reasons import ConditionType, Reason
from upstream_guard.core.resolution import UpstreamState
from upstream_guard.core.shutdown import AppShutdown, Ending, describe
from upstream_guard.core.status import (
    MAX_LISTED_ENDPOINTS,
    MAX_PREDICTIONS,
    MAX_RISKS,
    MAX_ROUTES,
    Condition,
    ConditionStatus,
    DrainStatus,
    EndpointCounts,
    EndpointStatus,
    GuardStatus,
    PredictionStatus,
    RiskStatus,
    RouteStatus,
    UpstreamStatus,
    merge_conditions,
    worst_first,
)
from upstream_guard.core.surge import SurgeRecord
from upstream_guard.core.tuning import Evidence, GatewayFacts, GatewayKind
from upstream_guard.resources.durations import seconds_of
from upstream_guard.resources.kube_objects import parse_time

_MAX_MESSAGE: Final = 2048
_MAX_REASON: Final = 1024
_MAX_SOURCE: Final = 512
_MAX_DETAIL: Final = 256
_MAX_PATCH: Final = 4096
_MAX_GATEWAYS: Final = 20
_MAX_FAILED_ROUTES: Final = 8
_MAX_OTHERS: Final = 3
_MAX_AT_FAULT: Final = 10
_MAX_STATUSES: Final = 16


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
        "gateways": [_gateway(gateway) for gateway in _ways(status)],
    }
    if status.drain is not None:
        body["drain"] = _drain(status.drain)
    lists = {
        "routes": [_route(route) for route in status.routes[:MAX_ROUTES]],
        "predictions": [_prediction(p) for p in status.predictions[:MAX_PREDICTIONS]],
        "risks": [_risk(risk) for risk in status.risks[:MAX_RISKS]],
        "upstreams": [_upstream(upstream) for upstream in status.upstreams],
        "windows": [_window(window) for window in status.windows[:MAX_WINDOWS]],
    }
    return body | {key: found for key, found in lists.items() if found}


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


def parse_predictions(status: object) -> tuple[PredictionStatus, ...]:
    """The predictions in a guard's status; those that this version does not know are passed over."""
    return tuple(p for raw in _records(status, "predictions") for p in _parse_prediction(raw))


def parse_risks(status: object) -> tuple[RiskStatus, ...]:
    """The risks in a guard's status; those that this version does not know are passed over."""
    return tuple(r for raw in _records(status, "risks") for r in _parse_risk(raw))


def parse_app_shutdown(status: object) -> AppShutdown | None:
    """What a guard's status says of its app on SIGTERM; None where it says nothing that is known."""
    drain = status.get("drain") if isinstance(status, Mapping) else None
    raw = drain.get("app") if isinstance(drain, Mapping) else None
    if not isinstance(raw, Mapping):
        return None
    try:
        ending = Ending(_text(raw, "onSigterm"))
    except ValueError:
        return None
    samples, killed = _number(raw, "samples"), _number(raw, "killed")
    seconds = (float(_number(raw, key)) for key in ("drainSeconds", "givenSeconds"))
    return AppShutdown(ending, samples, killed, *seconds)


def parse_surge(status: object) -> SurgeRecord | None:
    """The replica that a guard's status remembers; None where it remembers none."""
    drain = status.get("drain") if isinstance(status, Mapping) else None
    raw = drain.get("surge") if isinstance(drain, Mapping) else None
    if not isinstance(raw, Mapping) or not _number(raw, "from"):
        return None
    return SurgeRecord(
        _text(raw, "workload"),
        _text(raw, "node"),
        _number(raw, "from"),
        parse_time(_text(raw, "since")),
        added=raw.get("added") is True,
    )


Measurement = tuple[tuple[GatewayKind, str], Measured | None, str]
"""Kind and name of a gateway, what was measured, and why nothing was."""


def parse_measurements(status: object) -> tuple[Measurement, ...]:
    """What a guard's status tells of gateways; what this version does not know is passed over."""
    return tuple(m for raw in _records(status, "gateways") for m in _parse_measurement(raw))


def parse_windows(status: object) -> tuple[ObservedWindow, ...]:
    """The windows in a guard's status; those that this version does not know are passed over."""
    return tuple(w for raw in _records(status, "windows") for w in _parse_window(raw))


def format_instant(seconds: float) -> str:
    """Unix seconds as an RFC 3339 time with milliseconds, UTC."""
    instant = datetime.fromtimestamp(round(seconds * 1000) / 1000, UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
    if status.predictions:
        worst = status.predictions[0]
        summary["predicted"] = f"{worst.change.value}: {worst.lost} lost"
    return summary


def _ways(status: GuardStatus) -> tuple[GatewayFacts, ...]:
    """The gateways, and kube-proxy where something was measured of it."""
    extra = () if status.kube_proxy is None else (status.kube_proxy,)
    return (*status.gateways[: _MAX_GATEWAYS - len(extra)], *extra)


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
    }
    if endpoint.pod:
        body["gated"] = endpoint.gated
    optional = {
        "pod": _cut(endpoint.pod, 253),
        "node": _cut(endpoint.node, 253),
        "cause": endpoint.cause.value if endpoint.cause else "",
        "detail": _cut(endpoint.detail, _MAX_DETAIL),
    }
    return body | {key: value for key, value in optional.items() if value}


def _gateway(gateway: GatewayFacts) -> dict[str, Any]:
    body: dict[str, Any] = {
        "kind": gateway.kind.value,
        "name": _cut(gateway.name, 512),
        "controller": _cut(gateway.controller, 253),
        "detachLatency": format_seconds(gateway.detach_seconds),
        "attachLatency": format_seconds(gateway.attach_seconds),
        "path": "ClusterIP" if gateway.via_cluster_ip else "Endpoints",
        "evidence": gateway.evidence.value,
        "source": _cut(gateway.source, _MAX_SOURCE),
    }
    if gateway.canary:
        body["canary"] = _cut(gateway.canary, _MAX_SOURCE)
    if gateway.measured is not None:
        body["measured"] = _measured(gateway.measured)
    return body


def _measured(found: Measured) -> dict[str, Any]:
    kinds = {"detach": found.detach, "attach": found.attach, "detachKeptAlive": found.kept}
    body: dict[str, Any] = {key: _latencies(of) for key, of in kinds.items() if of is not None}
    body["keptAliveSticks"] = found.sticks
    body["lastMeasured"] = format_time(found.last)
    return body


def _latencies(found: Latencies) -> dict[str, Any]:
    quantiles = {"p50": found.p50, "p90": found.p90, "p99": found.p99, "max": found.max}
    texts = {key: f"{round(seconds * 1000)}ms" for key, seconds in quantiles.items()}
    sure = math.floor(100 * found.confidence)
    return {"samples": found.samples, **texts, "p99ConfidencePercent": sure}


def _parse_measurement(raw: Mapping[str, Any]) -> Iterable[Measurement]:
    try:
        key = (GatewayKind(_text(raw, "kind")), _text(raw, "name"))
    except ValueError:
        return
    body = raw.get("measured")
    found = body if isinstance(body, Mapping) else {}
    detach = _parse_latencies(found.get("detach"))
    if detach is None:
        yield key, None, _text(raw, "canary")
        return
    measured = Measured(
        detach,
        _parse_latencies(found.get("attach")),
        _parse_latencies(found.get("detachKeptAlive")),
        found.get("keptAliveSticks") is True,
        parse_time(_text(found, "lastMeasured")),
    )
    yield key, measured, _text(raw, "canary")


def _parse_latencies(raw: object) -> Latencies | None:
    if not isinstance(raw, Mapping):
        return None
    samples = _number(raw, "samples")
    p50, p90, p99, most = (seconds_of(raw.get(key)) for key in ("p50", "p90", "p99", "max"))
    if samples < 1 or p50 is None or p90 is None or p99 is None or most is None:
        return None
    return Latencies(samples, p50, p90, p99, most)


def _route(route: RouteStatus) -> dict[str, Any]:
    optional = {
        "route": _cut(route.route, 400),
        "url": _cut(route.url, 1400),
        "via": _cut(route.via, 300),
        "problem": _cut(route.problem, 512),
    }
    return {"gateway": _cut(route.gateway, 512)} | {k: v for k, v in optional.items() if v}


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
    if drain.surge is not None:
        body["surge"] = _surge(drain.surge)
    if advice.app is not None:
        body["app"] = _app_shutdown(advice.app)
    if drain.patch and len(drain.patch) <= _MAX_PATCH:
        body["patch"] = drain.patch
    return body


def _surge(record: SurgeRecord) -> dict[str, Any]:
    return {
        "workload": record.workload,
        "node": record.node,
        "from": record.base,
        "since": format_time(record.since),
        "added": record.added,
    }


def _app_shutdown(app: AppShutdown) -> dict[str, Any]:
    body: dict[str, Any] = {
        "onSigterm": app.ending.value,
        "samples": app.samples,
        "killed": app.killed,
        "message": _cut(describe(app), _MAX_REASON),
    }
    if app.killed < app.samples:
        body["drainSeconds"] = int(app.drain)
    if app.killed:
        body["givenSeconds"] = int(app.given)
    return body


def _prediction(prediction: PredictionStatus) -> dict[str, Any]:
    body: dict[str, Any] = {
        "change": prediction.change.value,
        "subject": _cut(prediction.subject, 320),
        "began": format_instant(prediction.began),
        "madeAt": format_instant(prediction.made_at),
        "until": format_instant(prediction.until),
        "opensAt": format_instant(prediction.opens_at),
        "lostRequests": prediction.lost,
        "sharePercent": prediction.share,
        "probabilityPercent": prediction.probability,
        "cause": prediction.cause.value,
        "risk": prediction.risk,
        "gateway": _cut(prediction.gateway, 512),
        "status": prediction.answer,
        "evidence": prediction.evidence.value,
        "message": _cut(prediction.message, _MAX_REASON),
        "remedy": _command(prediction.remedy),
    }
    ranges = {
        "duration": prediction.duration,
        "durationRange": prediction.duration_range,
        "lostRange": prediction.lost_range,
    }
    return body | {key: text for key, text in ranges.items() if text}


def _parse_prediction(raw: Mapping[str, Any]) -> Iterable[PredictionStatus]:
    try:
        yield PredictionStatus(
            change=ChangeKind(_text(raw, "change")),
            subject=_text(raw, "subject"),
            began=parse_time(_text(raw, "began")),
            made_at=parse_time(_text(raw, "madeAt")),
            until=parse_time(_text(raw, "until")),
            opens_at=parse_time(_text(raw, "opensAt")),
            duration=_text(raw, "duration"),
            duration_range=_text(raw, "durationRange"),
            lost=_number(raw, "lostRequests"),
            lost_range=_text(raw, "lostRange"),
            share=_number(raw, "sharePercent"),
            probability=_number(raw, "probabilityPercent"),
            cause=Cause(_text(raw, "cause")),
            risk=_text(raw, "risk"),
            gateway=_text(raw, "gateway"),
            answer=_number(raw, "status"),
            evidence=Evidence(_text(raw, "evidence")),
            message=_text(raw, "message"),
            remedy=_text(raw, "remedy"),
        )
    except ValueError:
        return


def _risk(risk: RiskStatus) -> dict[str, Any]:
    body = {
        "risk": risk.risk,
        "severity": risk.severity.value,
        "subject": _cut(risk.subject, 320),
        "message": _cut(risk.message, _MAX_REASON),
        "remedy": _command(risk.remedy),
    }
    return body | ({"path": _cut(risk.path, 512)} if risk.path else {})


def _parse_risk(raw: Mapping[str, Any]) -> Iterable[RiskStatus]:
    try:
        severity = Severity(_text(raw, "severity"))
    except ValueError:
        return
    texts = (_text(raw, key) for key in ("subject", "path", "message", "remedy"))
    yield RiskStatus(_text(raw, "risk"), severity, *texts)


def _window(window: ObservedWindow) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": _cut(window.id, 64),
        "gateway": _cut(window.gateway, 512),
        "routes": [_cut(route, 320) for route in window.routes[:_MAX_FAILED_ROUTES]],
        "cause": window.cause.value,
        "confidencePercent": window.confidence,
        "otherCauses": [{"cause": c.value, "percent": p} for c, p in window.others[:_MAX_OTHERS]],
        "extent": window.extent.value,
        "endpoints": [_cut(address, 64) for address in window.endpoints[:_MAX_AT_FAULT]],
        "opened": format_instant(window.opened),
        "detected": format_instant(window.detected),
        "lostRequests": window.lost,
        "counted": window.counted.value,
        "statuses": [
            {"status": status, "requests": count}
            for status, count in list(window.statuses.items())[:_MAX_STATUSES]
        ],
        "eyes": [eye.value for eye in window.eyes],
        "evidence": _cut(window.evidence, 512),
        "predicted": window.predicted,
        "change": _cut(window.change, 320),
    }
    if window.closed:
        body["closed"] = format_instant(window.closed)
        body["duration"] = format_seconds(window.seconds)
    return {key: value for key, value in body.items() if value not in ("", [])}


def _parse_window(raw: Mapping[str, Any]) -> Iterable[ObservedWindow]:
    try:
        yield ObservedWindow(
            id=_text(raw, "id"),
            gateway=_text(raw, "gateway"),
            routes=_texts(raw, "routes"),
            cause=Cause(_text(raw, "cause")),
            confidence=_number(raw, "confidencePercent"),
            others=tuple(
                (Cause(_text(r, "cause")), _number(r, "percent"))
                for r in _records(raw, "otherCauses")
            ),
            extent=Extent(_text(raw, "extent")),
            endpoints=_texts(raw, "endpoints"),
            opened=parse_time(_text(raw, "opened")),
            detected=parse_time(_text(raw, "detected")),
            closed=parse_time(_text(raw, "closed")) if raw.get("closed") else 0.0,
            lost=_number(raw, "lostRequests"),
            counted=Counted(_text(raw, "counted")),
            statuses={
                _number(r, "status"): _number(r, "requests") for r in _records(raw, "statuses")
            },
            eyes=tuple(Eye(text) for text in _texts(raw, "eyes")),
            evidence=_text(raw, "evidence"),
            predicted=raw.get("predicted") is True,
            change=_text(raw, "change"),
        )
    except ValueError:
        return


def _texts(raw: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = raw.get(key)
    return tuple(t for t in found if isinstance(t, str)) if isinstance(found, list) else ()


def _records(status: object, key: str) -> Iterable[Mapping[str, Any]]:
    found = status.get(key) if isinstance(status, Mapping) else None
    if not isinstance(found, list):
        return ()
    return [raw for raw in found if isinstance(raw, Mapping)]


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def _number(raw: Mapping[str, Any], key: str) -> int:
    value = raw.get(key)
    return value if isinstance(value, int) else 0


def _upstream(upstream: UpstreamStatus) -> dict[str, Any]:
    body: dict[str, Any] = {
        "upstream": _cut(upstream.upstream, 300),
        "state": upstream.state.value,
        "addresses": upstream.addresses,
    }
    if upstream.message:
        body["message"] = _cut(upstream.message, 512)
    if upstream.certificate_ends:
        body["certificateExpires"] = format_time(upstream.certificate_ends)
    return body


def parse_upstream_states(status: object) -> dict[str, UpstreamState]:
    """The states of the external upstreams in a guard's status; unknown ones are passed over."""
    return {
        _text(raw, "upstream"): UpstreamState(_text(raw, "state"))
        for raw in _records(status, "upstreams")
        if _text(raw, "state") in set(UpstreamState)
    }


def _command(text: str) -> str:
    """A command is of no use in part."""
    return text if len(text) <= _MAX_PATCH else "too long for the status: `upstream-guard check`"


def _cut(text: str, most: int) -> str:
    """The text, at most `most` characters of it, as the schema allows."""
    return text if len(text) <= most else text[: most - 1] + "…"
