"""What a guard's status says, for people and for programs. Pure: objects of the API and the time in.

Everything here was written by others into a cluster: texts are made fit for a terminal, and what has another
shape than expected counts as absent.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from upstream_guard.cli.check.words import clean
from upstream_guard.core.observed import Counted, ObservedWindow
from upstream_guard.core.predict.window import Severity
from upstream_guard.core.reasons import ConditionType
from upstream_guard.core.status import Condition, ConditionStatus, PredictionStatus, RiskStatus
from upstream_guard.resources.status import (
    format_instant,
    format_seconds,
    parse_conditions,
    parse_predictions,
    parse_risks,
    parse_windows,
)

Json = Mapping[str, Any]

_BAD: Final = frozenset({"Failing", "Ejected", "KeptOut"})
_STATE_STYLES: Final = {
    "Serving": "green",
    "Draining": "dim",
    "Pending": "yellow",
    "Unknown": "yellow",
}
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"))


@dataclass(frozen=True, slots=True)
class Overview:
    """One guard, as its status tells of it."""

    namespace: str
    name: str
    service: str
    written: bool
    """Some operator has written a status."""
    conditions: Mapping[ConditionType, Condition]
    counts: Mapping[str, int]
    endpoints: tuple[Json, ...]
    gateways: tuple[Json, ...]
    routes: tuple[Json, ...]
    drain: Json
    predictions: tuple[PredictionStatus, ...]
    risks: tuple[RiskStatus, ...]
    windows: tuple[ObservedWindow, ...]

    @property
    def well(self) -> bool:
        """It is in force, and nothing says that requests fail."""
        accepted = self.conditions.get(ConditionType.ACCEPTED)
        healthy = self.conditions.get(ConditionType.HEALTHY)
        in_force = accepted is not None and accepted.status is ConditionStatus.TRUE
        failing = healthy is not None and healthy.status is ConditionStatus.FALSE
        return in_force and not failing and not self.open_windows

    @property
    def open_windows(self) -> tuple[ObservedWindow, ...]:
        """Windows that have not closed."""
        return tuple(window for window in self.windows if not window.closed)


def overview_of(body: Json) -> Overview:
    """A guard as the API has it."""
    metadata = _map(body.get("metadata"))
    status = _map(body.get("status"))
    target = _map(_map(body.get("spec")).get("targetRef"))
    conditions = parse_conditions(status)
    counts = _map(status.get("endpoints"))
    return Overview(
        namespace=_word(metadata, "namespace"),
        name=_word(metadata, "name"),
        service=_word(_map(status.get("summary")), "service") or _word(target, "name"),
        written=bool(conditions),
        conditions={condition.type: condition for condition in conditions},
        counts={str(k): v for k, v in counts.items() if isinstance(v, int)},
        endpoints=_maps(status.get("endpointList")),
        gateways=_maps(status.get("gateways")),
        routes=_maps(status.get("routes")),
        drain=_map(status.get("drain")),
        predictions=parse_predictions(status),
        risks=parse_risks(status),
        windows=parse_windows(status),
    )


def as_json(guards: Iterable[Overview]) -> dict[str, Any]:
    """For programs; `well` is what the exit code says."""
    listed = [_as_json(guard) for guard in guards]
    return {"well": all(guard["well"] for guard in listed), "guards": listed}


def _as_json(guard: Overview) -> dict[str, Any]:
    return {
        "namespace": guard.namespace,
        "name": guard.name,
        "service": guard.service,
        "well": guard.well,
        "conditions": {
            kind.value: {"status": c.status.value, "reason": c.reason.value, "message": c.message}
            for kind, c in guard.conditions.items()
        },
        "endpoints": {**guard.counts, "list": [dict(e) for e in guard.endpoints]},
        "gateways": [dict(g) for g in guard.gateways],
        "routes": [dict(r) for r in guard.routes],
        "drain": dict(guard.drain),
        "predictions": [
            {
                "change": p.change.value,
                "subject": p.subject,
                "opensAt": format_instant(p.opens_at),
                "lost": p.lost,
                "cause": p.cause.value,
                "gateway": p.gateway,
                "message": p.message,
                "remedy": p.remedy,
            }
            for p in guard.predictions
        ],
        "risks": [
            {
                "risk": r.risk,
                "severity": r.severity.value,
                "subject": r.subject,
                "message": r.message,
                "remedy": r.remedy,
            }
            for r in guard.risks
        ],
        "windows": [_window_json(w) for w in guard.windows],
    }


def _window_json(window: ObservedWindow) -> dict[str, Any]:
    return {
        "id": window.id,
        "gateway": window.gateway,
        "cause": window.cause.value,
        "confidence": window.confidence,
        "opened": format_instant(window.opened),
        "detected": format_instant(window.detected),
        "closed": format_instant(window.closed) if window.closed else None,
        "lost": window.lost,
        "counted": window.counted.value,
        "predicted": window.predicted,
        "change": window.change,
        "endpoints": list(window.endpoints),
        "evidence": window.evidence,
    }


# All guards, a line each.


def listing(guards: Iterable[Overview], now: float, *, namespaces: bool) -> RenderableType:
    """A table of guards.

    Args:
        guards: At least one.
        now: Unix seconds.
        namespaces: Show where each is.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = ["GUARD", "SERVICE", "STATE", "ENDPOINTS", "WINDOW", "PREDICTED", "RISKS", "GATEWAYS"]
    for head in (["NAMESPACE"] if namespaces else []) + heads:
        table.add_column(head, overflow="fold")
    for guard in guards:
        row = [
            Text(guard.name),
            Text(guard.service),
            _state(guard),
            _counts(guard),
            _window_cell(guard, now),
            _predicted(guard),
            _risk_cell(guard),
            Text(", ".join(_gateway_cell(g) for g in guard.gateways) or "-"),
        ]
        table.add_row(*([Text(guard.namespace)] if namespaces else []), *row)
    return table


def _state(guard: Overview) -> Text:
    if not guard.written:
        return Text("no status yet", style="red")
    accepted = guard.conditions.get(ConditionType.ACCEPTED)
    if accepted is None or accepted.status is not ConditionStatus.TRUE:
        return Text(f"not accepted: {accepted.reason if accepted else 'Unknown'}", style="red")
    if guard.open_windows:
        return Text("requests fail", style="bold red")
    healthy = guard.conditions.get(ConditionType.HEALTHY)
    if healthy is None or healthy.status is ConditionStatus.UNKNOWN:
        return Text(f"unknown: {healthy.reason if healthy else 'Unknown'}", style="yellow")
    if healthy.status is ConditionStatus.FALSE:
        return Text(f"unhealthy: {healthy.reason}", style="red")
    return Text("healthy", style="green")


def _counts(guard: Overview) -> Text:
    counts = guard.counts
    if not counts:
        return Text("-")
    text = f"{counts.get('listed', 0)}/{counts.get('total', 0)} listed"
    for word in ("ejected", "draining"):
        if counts.get(word):
            text += f", {counts[word]} {word}"
    return Text(text, style="yellow" if counts.get("ejected") else "")


def _window_cell(guard: Overview, now: float) -> Text:
    window = next(iter([*guard.open_windows, *guard.windows]), None)
    if window is None:
        return Text("-")
    at = f" at {_fit(window.gateway)}" if window.gateway else ""
    if not window.closed:
        since = age(now - window.opened)
        return Text(f"open for {since}: {window.cause}{at}, {lost(window)} lost", style="bold red")
    since = age(now - window.closed)
    return Text(f"{since} ago: {window.cause}{at}, {lost(window)} lost", style="dim")


def _predicted(guard: Overview) -> Text:
    if not guard.predictions:
        return Text("-")
    worst = guard.predictions[0]
    return Text(f"{worst.change}: {worst.lost} lost", style="yellow")


def _risk_cell(guard: Overview) -> Text:
    errors = sum(risk.severity is Severity.ERROR for risk in guard.risks)
    others = len(guard.risks) - errors
    parts = [_number(errors, "error")] if errors else []
    parts += [_number(others, "warning")] if others else []
    return Text(", ".join(parts) or "-", style="red" if errors else "yellow" if others else "")


def _gateway_cell(gateway: Json) -> str:
    detach = _word(gateway, "detachLatency")
    return _word(gateway, "name") + (f" ({detach})" if detach else "")


# One guard, whole.


def detail(guard: Overview, now: float) -> RenderableType:
    """Everything about one guard.

    Args:
        guard: The guard.
        now: Unix seconds.
    """
    title = Text.assemble(
        (f"{guard.namespace}/{guard.name}", "bold"), f"  Service {guard.service}  ", _state(guard)
    )
    sections = (
        ("Conditions", _conditions(guard)),
        ("Windows", _windows(guard, now)),
        ("Predictions", _predictions(guard, now)),
        ("Risks", _risks(guard)),
        (f"Endpoints  {_counts(guard)}", _endpoints(guard)),
        ("Gateways", _gateways(guard)),
        ("Asked through them", _routes(guard)),
        ("Drain", _drain(guard)),
    )
    parts: list[RenderableType] = [title]
    for name, lines in sections:
        rows = list(lines)
        if rows:
            parts += [Text(""), Text(name, style="bold"), Padding(_grid(rows), (0, 0, 0, 2))]
    return Group(*parts)


Row = tuple[Text, ...]


def _grid(rows: list[Row]) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(max(map(len, rows))):
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _conditions(guard: Overview) -> Iterator[Row]:
    good = {ConditionType.AT_RISK: ConditionStatus.FALSE}
    for kind, condition in guard.conditions.items():
        style = "green" if condition.status is good.get(kind, ConditionStatus.TRUE) else "yellow"
        yield (
            Text(kind.value),
            Text(condition.status.value, style=style),
            Text(condition.reason.value),
            Text(_fit(condition.message), style="dim"),
        )


def _windows(guard: Overview, now: float) -> Iterator[Row]:
    for window in guard.windows:
        if window.closed:
            when = Text(f"{age(now - window.closed)} ago, for {format_seconds(lasted(window))}")
        else:
            when = Text(f"open for {age(now - window.opened)}", style="bold red")
        foreseen = "predicted" if window.predicted else "not predicted"
        yield (
            Text(_fit(window.id)),
            when,
            Text(f"{window.cause} ({window.confidence} %)"),
            Text(_fit(window.gateway) or "direct probes"),
            Text(f"{lost(window)} lost"),
            Text(f"{foreseen}{f'; {_fit(window.change)}' if window.change else ''}", style="dim"),
        )


def _predictions(guard: Overview, now: float) -> Iterator[Row]:
    for prediction in guard.predictions:
        ahead = prediction.opens_at - now
        when = f"in {age(ahead)}" if ahead > 0 else f"since {age(-ahead)}"
        yield (
            Text(f"{prediction.change} of {_fit(prediction.subject)}"),
            Text(when),
            Text(
                f"{prediction.lost} lost, {prediction.cause} at {_fit(prediction.gateway)}",
                "yellow",
            ),
            Text(_fit(prediction.remedy), style="dim"),
        )


def _risks(guard: Overview) -> Iterator[Row]:
    styles = {Severity.ERROR: "red", Severity.WARNING: "yellow"}
    for risk in guard.risks:
        style = styles.get(risk.severity, "")
        words = f"{_fit(risk.subject)}: {_fit(risk.message)}"
        yield Text(risk.severity.value, style=style), Text(_fit(risk.risk)), Text(words)


def _endpoints(guard: Overview) -> Iterator[Row]:
    for endpoint in guard.endpoints:
        state = _word(endpoint, "state")
        style = "red" if state in _BAD else _STATE_STYLES.get(state, "")
        why = " ".join(filter(None, (_word(endpoint, "cause"), _word(endpoint, "detail"))))
        gated = "" if endpoint.get("gated", True) else "without gate"
        yield (
            Text(_word(endpoint, "address")),
            Text(state, style=style),
            Text(_word(endpoint, "pod")),
            Text(_word(endpoint, "node")),
            Text(", ".join(filter(None, (why, gated))), style="dim"),
        )


def _gateways(guard: Overview) -> Iterator[Row]:
    for gateway in guard.gateways:
        yield (
            Text(f"{_word(gateway, 'kind')} {_word(gateway, 'name')}"),
            Text(_word(gateway, "controller")),
            Text(f"detach {_word(gateway, 'detachLatency') or '?'}"),
            Text(f"attach {_word(gateway, 'attachLatency') or '?'}"),
            Text(f"{_word(gateway, 'evidence')}: {_word(gateway, 'source')}", style="dim"),
        )


def _routes(guard: Overview) -> Iterator[Row]:
    for route in guard.routes:
        problem = _word(route, "problem")
        via = _word(route, "via")
        yield (
            Text(_word(route, "gateway")),
            Text(_word(route, "url") or "not asked", style="" if route.get("url") else "yellow"),
            Text(f"at {via}" if via else ""),
            Text(problem or _word(route, "route"), style="yellow" if problem else "dim"),
        )


def _drain(guard: Overview) -> Iterator[Row]:
    if guard.drain:
        seconds = guard.drain.get("preStopSeconds")
        yield (
            Text(f"preStop {seconds} s" if isinstance(seconds, int) else "preStop ?"),
            Text(_word(guard.drain, "mode")),
            Text(_word(guard.drain, "reason"), style="dim"),
        )


# Words.


def lasted(window: ObservedWindow) -> float:
    """Seconds from the first failed request to the last; 0 while it is open."""
    return max(0.0, window.closed - window.opened) if window.closed else 0.0


def lost(window: ObservedWindow) -> str:
    """Requests lost, marked where they are an estimate."""
    return f"{'' if window.counted is Counted.EXACT else 'about '}{window.lost}"


def age(seconds: float) -> str:
    """A time span in its largest unit: `12s`, `3m`, `2h`, `5d`; never negative."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _fit(text: str) -> str:
    return clean(text)


def _word(raw: Json, key: str) -> str:
    value = raw.get(key)
    return clean(value) if isinstance(value, str) else ""


def _map(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _maps(value: object) -> tuple[Json, ...]:
    return tuple(v for v in value if isinstance(v, Mapping)) if isinstance(value, list) else ()
