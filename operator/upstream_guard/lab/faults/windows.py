"""The windows in a guard's status, read as a user's own script would: what is shown is what counts.

Deliberately not the operator's own parser, which would understand what it alone has written.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from upstream_guard.lab.faults.model import Told

Json = Mapping[str, Any]


def windows(guard: Json) -> dict[str, Told]:
    """Windows by ID; a record that lacks what its schema promises is passed over.

    `Told.seen` is 0: who watches knows when.
    """
    return {str(raw["id"]): told for raw in _records(guard) for told in _told(raw)}


def _records(guard: Json) -> Sequence[Json]:
    found = (guard.get("status") or {}).get("windows") or ()
    return [raw for raw in found if raw.get("id")]


def _told(raw: Json) -> Iterator[Told]:
    try:
        yield Told(
            cause=str(raw["cause"]),
            confidence=int(raw["confidencePercent"]),
            others=tuple(str(other["cause"]) for other in raw.get("otherCauses") or ()),
            extent=str(raw["extent"]),
            opened=_unix(raw["opened"]),
            detected=_unix(raw["detected"]),
            seen=0.0,
            closed=_unix(raw["closed"]) if raw.get("closed") else 0.0,
            lost=int(raw["lostRequests"]),
            counted=str(raw["counted"]),
            eyes=tuple(str(eye) for eye in raw.get("eyes") or ()),
            evidence=str(raw.get("evidence") or ""),
        )
    except (KeyError, TypeError, ValueError):
        return


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
