"""Observed windows, read back from a guard's status."""

from collections.abc import Iterator, Mapping
from typing import Any

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import Eye
from upstream_guard.core.observed import Counted, Extent, ObservedWindow
from upstream_guard.resources.kube_objects import parse_time

Json = Mapping[str, Any]


def parse_windows(status: object) -> tuple[ObservedWindow, ...]:
    """The windows in a guard's status; those that this version does not know are passed over."""
    found = status if isinstance(status, Mapping) else {}
    return tuple(window for raw in _records(found, "windows") for window in _parse(raw))


def _parse(raw: Json) -> Iterator[ObservedWindow]:
    try:
        yield ObservedWindow(
            id=_text(raw, "id"),
            gateway=_text(raw, "gateway"),
            routes=_texts(raw, "routes"),
            cause=Cause(_text(raw, "cause")),
            confidence=_number(raw, "confidencePercent"),
            others=tuple(
                (Cause(_text(other, "cause")), _number(other, "percent"))
                for other in _records(raw, "otherCauses")
            ),
            extent=Extent(_text(raw, "extent")),
            endpoints=_texts(raw, "endpoints"),
            opened=parse_time(_text(raw, "opened")),
            detected=parse_time(_text(raw, "detected")),
            closed=parse_time(_text(raw, "closed")),
            lost=_number(raw, "lostRequests"),
            counted=Counted(_text(raw, "counted")),
            statuses={
                _number(answer, "status"): _number(answer, "requests")
                for answer in _records(raw, "statuses")
            },
            eyes=tuple(Eye(eye) for eye in _texts(raw, "eyes")),
            evidence=_text(raw, "evidence"),
            predicted=raw.get("predicted") is True,
            change=_text(raw, "change"),
        )
    except ValueError:
        return


def _records(raw: Json, key: str) -> list[Json]:
    found = raw.get(key)
    return [r for r in found if isinstance(r, Mapping)] if isinstance(found, list) else []


def _texts(raw: Json, key: str) -> tuple[str, ...]:
    found = raw.get(key)
    return tuple(t for t in found if isinstance(t, str)) if isinstance(found, list) else ()


def _text(raw: Json, key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def _number(raw: Json, key: str) -> int:
    value = raw.get(key)
    return value if isinstance(value, int) else 0
