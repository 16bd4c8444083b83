"""Windows in a guard's status and in events, read as a user's own script would: what is shown is what counts.

Deliberately not the operator's own parser, which would understand what it alone has written.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from upstream_guard.lab.faults.model import Told

Json = Mapping[str, Any]

_NAMED: Final = re.compile(r"w-[\d-]+")
"""What a window is called, at the beginning of each note about it."""


def windows(guard: Json) -> dict[str, Told]:
    """Windows by ID; a record that lacks what its schema promises is passed over.

    `Told.seen` and `Told.event` are 0: who watches knows when.
    """
    return {str(raw["id"]): told for raw in _records(guard) for told in _told(raw)}


def _records(guard: Json) -> Sequence[Json]:
    found = (guard.get("status") or {}).get("windows") or ()
    return [raw for raw in found if raw.get("id")]


def _told(raw: Json) -> Iterator[Told]:
    try:
        others = raw.get("otherCauses") or ()
        yield Told(
            id=str(raw["id"]),
            ranked=(
                (str(raw["cause"]), int(raw["confidencePercent"])),
                *((str(other["cause"]), int(other["percent"])) for other in others),
            ),
            extent=str(raw["extent"]),
            opened=_unix(raw["opened"]),
            detected=_unix(raw["detected"]),
            seen=0.0,
            event=0.0,
            closed=_unix(raw["closed"]) if raw.get("closed") else 0.0,
            lost=int(raw["lostRequests"]),
            counted=str(raw["counted"]),
            eyes=tuple(str(eye) for eye in raw.get("eyes") or ()),
            predicted=raw.get("predicted") is True,
            evidence=str(raw.get("evidence") or ""),
        )
    except (KeyError, TypeError, ValueError):
        return


def opening(event: Json) -> tuple[str, str, float] | None:
    """Guard, window and the event's own time in Unix seconds of a `WindowOpened`; None of another event."""
    found = _NAMED.match(str(event.get("note") or ""))
    if event.get("reason") != "WindowOpened" or found is None or not event.get("eventTime"):
        return None
    about = event.get("regarding") or {}
    return str(about.get("name", "")), found[0], _unix(str(event["eventTime"]))


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
