"""What the running operator told of a change, and how long before its first failed request. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Final

from rich.table import Table

from upstream_guard.core.reasons import Reason
from upstream_guard.lab.demo.tally import percentile

Json = dict[str, Any]

SLACK: Final = 0.5
"""Seconds before the change in which a failed request or an event still counts as its own."""


@dataclass(frozen=True, slots=True)
class Told:
    """One telling of a window that is to come.

    Attributes:
        action: The event's `action`, which names the kind of change, e.g. `PredictRollout`.
        written: The event's own time, Unix seconds by the operator's clock.
        seen: When a watch of the events saw it, Unix seconds.
        note: What it says.
    """

    action: str
    written: float
    seen: float
    note: str


@dataclass(frozen=True, slots=True)
class Lead:
    """Seconds by which a telling came before the first failed request was sent; negative where after.

    Attributes:
        written: By the event's own time.
        seen: By the time at which a watch saw it.
    """

    written: float
    seen: float


@dataclass(frozen=True, slots=True)
class Telling:
    """One change: whether it was told, and whether requests failed.

    Attributes:
        scenario: What was done.
        told: A window was told.
        opened: Requests failed.
        lead: Where both is so.
    """

    scenario: str
    told: bool
    opened: bool
    lead: Lead | None


def tellings_in(event: Json, guard: str, seen: float) -> Told | None:
    """What an Event tells of a window of this guard; None where it tells of something else.

    Args:
        event: An events.k8s.io/v1 Event.
        guard: The guard's name, in the event's namespace.
        seen: Unix seconds at which a watch saw it in this form.
    """
    about: Mapping[str, Any] = event.get("regarding") or {}
    if event.get("reason") != Reason.WINDOW_PREDICTED.value or about.get("name") != guard:
        return None
    again: Mapping[str, Any] = event.get("series") or {}
    at = again.get("lastObservedTime") or event.get("eventTime")
    if not at:
        return None
    return Told(
        str(event.get("action") or ""),
        datetime.fromisoformat(str(at).replace("Z", "+00:00")).timestamp(),
        seen,
        str(event.get("note") or ""),
    )


def telling(
    scenario: str, told: Sequence[Told], failures: Sequence[float], change_started: float
) -> Telling:
    """Put one run together.

    Args:
        scenario: What was done.
        told: In the run.
        failures: Send times of the failed requests, Unix seconds.
        change_started: Unix seconds.
    """
    since = change_started - SLACK
    after = sorted((t for t in told if t.written >= since), key=lambda t: t.written)
    lost = min((at for at in failures if at >= since), default=None)
    lead = None
    if after and lost is not None:
        lead = Lead(lost - after[0].written, lost - after[0].seen)
    return Telling(scenario, bool(after), lost is not None, lead)


def lead_table(tellings: Iterable[Telling]) -> Table:
    """One row for each scenario: what was told of it, and how early."""
    shown = Table(
        title="What the running operator told before the first failed request (lead in seconds)",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    shown.add_column("scenario", no_wrap=True)
    for name in ("changes", "lost requests", "told of these", "told in vain"):
        shown.add_column(name, justify="right")
    for name in ("p10", "p50", "p90", "p50 as a watch saw it"):
        shown.add_column(name, justify="right")
    for scenario, found in by_scenario(tellings).items():
        shown.add_row(scenario, *_row(found))
    return shown


def by_scenario(tellings: Iterable[Telling]) -> dict[str, list[Telling]]:
    """Tellings by what was done, in the order of the first of each."""
    found: dict[str, list[Telling]] = {}
    for one in tellings:
        found.setdefault(one.scenario, []).append(one)
    return found


def median_lead(tellings: Iterable[Telling]) -> float | None:
    """By the events' own time, seconds; None where no window was both told and opened."""
    leads = [one.lead.written for one in tellings if one.lead]
    return median(leads) if leads else None


def _row(found: Sequence[Telling]) -> list[str]:
    opened = [one for one in found if one.opened]
    vain = sum(one.told and not one.opened for one in found)
    written = [one.lead.written for one in found if one.lead]
    seen = [one.lead.seen for one in found if one.lead]
    counts = [len(found), len(opened), sum(one.told for one in opened), vain]
    shares = [f"{percentile(written, share):.3f}" if written else "–" for share in (0.1, 0.5, 0.9)]
    return [*map(str, counts), *shares, f"{percentile(seen, 0.5):.3f}" if seen else "–"]
