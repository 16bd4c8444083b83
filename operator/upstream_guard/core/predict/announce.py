"""What is said of a change that has begun: its windows, the worst first, and how to prevent them."""

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.live import Begun, deadline
from upstream_guard.core.predict.review import Problem
from upstream_guard.core.predict.sentences import number
from upstream_guard.core.predict.window import PatchKind, Remedy, Severity, Window
from upstream_guard.core.status import PredictionStatus, RiskStatus

LIKELY: Final = 0.5
"""A window is announced where at least one request fails more probably than not."""

_OLD_PODS: Final = (
    "nothing any more for the pods that this rollout replaces; the new template prevents it from "
    "the next change on"
)


def likely(begun: Begun, windows: Iterable[Window]) -> tuple[Window, ...]:
    """The windows worth announcing, worst first: by requests lost, then by duration."""
    found = (_of_old_pods(begun, w) for w in windows if w.probability >= LIKELY)
    return tuple(sorted(found, key=_cost))


def announce(begun: Begun, windows: Sequence[Window]) -> str:
    """One sentence for the event about a change.

    Args:
        begun: The change.
        windows: At least one, worst first.
    """
    worst, others = windows[0], len(windows) - 1
    parts = [f"{begun.subject}: {worst.message}"]
    if 0 < worst.share < 1:
        parts.append(f"{worst.share:.0%} of the requests sent meanwhile")
    if others:
        parts.append(f"and {others} more in status.predictions")
    return "; ".join((*parts, f"to prevent it: {prevention(worst)}"))


def prediction_status(begun: Begun, window: Window, made_at: float) -> PredictionStatus:
    """A window of a change that has begun, as the status tells it.

    Args:
        begun: The change.
        window: One of its windows.
        made_at: Unix seconds at which the prediction was there.
    """
    endless = math.isinf(window.duration.value)
    return PredictionStatus(
        change=begun.change.kind,
        subject=begun.subject,
        began=_milliseconds(begun.at),
        made_at=_milliseconds(made_at),
        until=_milliseconds(deadline(begun)),
        opens_at=_milliseconds(begun.at + window.start.value),
        duration="" if endless else f"{number(window.duration.value)}s",
        duration_range="" if endless else _range(window.duration, "s"),
        lost=round(window.lost.value),
        lost_range=_range(window.lost, ""),
        share=round(100 * window.share),
        probability=round(100 * window.probability),
        cause=window.cause,
        risk=window.risk,
        gateway=window.gateway,
        answer=window.status,
        evidence=window.evidence,
        message=window.message,
        remedy=prevention(window),
    )


def outlast(prediction: PredictionStatus, until: float) -> PredictionStatus:
    """The same when its change is over.

    Args:
        prediction: As it was told.
        until: Unix seconds until which a window may still be this change's.
    """
    return replace(prediction, until=_milliseconds(until))


def standing_risks(problems: Iterable[Problem]) -> tuple[RiskStatus, ...]:
    """What a review found that is worth a warning, worst first."""
    return tuple(_risk(p) for p in problems if p.finding.severity is not Severity.INFO)


def _risk(problem: Problem) -> RiskStatus:
    finding = problem.finding
    worst = f"; {problem.windows[0].message}" if problem.windows else ""
    remedy = finding.no_remedy if finding.remedy is None else command(finding.remedy)
    return RiskStatus(
        risk=finding.risk,
        severity=finding.severity,
        subject=f"{finding.kind.lower()}/{finding.ref.name}",
        path=finding.path,
        message=f"{finding.message}{worst}",
        remedy=remedy,
    )


def _range(estimate: Estimate, unit: str) -> str:
    return f"{number(estimate.low)}{unit}-{number(estimate.high)}{unit}"


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000) / 1000


def prevention(window: Window) -> str:
    """The command that applies the remedy, or why there is none."""
    return (
        window.no_remedy or "nothing is known" if window.remedy is None else command(window.remedy)
    )


def command(remedy: Remedy) -> str:
    """A remedy as a command line for a shell."""
    patch = shlex.quote(json.dumps(_plain(remedy.patch), separators=(",", ":")))
    if remedy.patch_kind is PatchKind.CREATE:
        return f"echo {patch} | kubectl apply -f -"
    ref = remedy.ref
    scope = f"-n {ref.namespace} " if ref.namespace else ""
    target = f"{remedy.kind.lower()} {ref.name}"
    return f"kubectl {scope}patch {target} --type {remedy.patch_kind} -p {patch}"


def _of_old_pods(begun: Begun, window: Window) -> Window:
    """A rollout that itself brings the remedy comes too late for the pods that it replaces."""
    if begun.change.replaces is None or window.remedy is not None:
        return window
    return replace(window, no_remedy=_OLD_PODS) if window.risk in _OF_OLD_PODS else window


_OF_OLD_PODS: Final = frozenset(
    {
        "no-pre-stop",
        "pre-stop-too-short",
        "pre-stop-exceeds-grace",
        "grace-shorter-than-drain",
        "sigterm-drops-requests",
    }
)
"""Risks that lie in how the old pods stop, not in how the new ones start."""


def _cost(window: Window) -> tuple[float, float, str, str]:
    endless = math.isinf(window.duration.value)
    return (
        -math.inf if endless else -window.lost.value,
        -window.duration.value,
        window.risk,
        window.gateway,
    )


def _plain(value: Any) -> Any:
    """Mappings and tuples as what JSON knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
