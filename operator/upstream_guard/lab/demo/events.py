"""The events that a user of the guard would see, from raw Event objects. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from upstream_guard.core import names

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class UserEvent:
    """One event of the operator's, repeats folded into one."""

    kind: str
    """`Normal` or `Warning`."""
    reason: str
    subject: str
    """What it is about, as `kind/name`."""
    message: str
    count: int


def user_events(items: Iterable[Json]) -> list[UserEvent]:
    """The operator's own events in order of time; same subject and reason count as one.

    Of those that count as one the last message is kept.
    """
    mine = sorted((item for item in items if _ours(item)), key=_time)
    found: dict[tuple[str, str], UserEvent] = {}
    for item in mine:
        about = item.get("involvedObject") or item.get("regarding") or {}
        subject = f"{about.get('kind', '')}/{about.get('name', '')}".lower()
        reason = str(item.get("reason", ""))
        before = found.get((subject, reason))
        found[subject, reason] = UserEvent(
            kind=str(item.get("type", "")),
            reason=reason,
            subject=subject,
            message=str(item.get("message") or item.get("note") or ""),
            count=_count(item) + (before.count if before else 0),
        )
    return list(found.values())


def _ours(item: Json) -> bool:
    source = (item.get("source") or {}).get("component")
    return names.COMPONENT in {item.get("reportingComponent"), source}


def _time(item: Json) -> str:
    """RFC 3339 in UTC, which sorts as text."""
    return str(
        item.get("eventTime")
        or item.get("lastTimestamp")
        or item["metadata"].get("creationTimestamp")
        or ""
    )


def _count(item: Json) -> int:
    return int((item.get("series") or {}).get("count") or item.get("count") or 1)
