"""Everything that can be said of a Service before it changes: findings, with the windows they open."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from upstream_guard.core.predict.engine import likely_changes, predict
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.predict.rules import inspect, judges_mildly
from upstream_guard.core.predict.state import Change, State
from upstream_guard.core.predict.window import Finding, Severity, Window

LIKELY: Final = 0.5
"""A window is worth a warning where at least one request fails more probably than not."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and the windows that it opens.

    Attributes:
        finding: What is wrong, where, and how to mend it.
        windows: Predicted ones, most expensive first; empty where none can be computed.
    """

    finding: Finding
    windows: tuple[Window, ...] = ()


def review(
    state: State,
    gateways: Iterable[Gateway],
    facts: Facts,
    now: float,
    changes: Iterable[Change] | None = None,
) -> tuple[Problem, ...]:
    """Inspect one Service's state and play its likely changes through.

    Args:
        state: The Service and its surroundings.
        gateways: Those in front of it, at least one.
        facts: What is known.
        now: Unix seconds.
        changes: To play through; None takes the likely ones.

    Returns:
        Worst first: by severity, then by the requests lost.
    """
    found = tuple(gateways)
    windows: dict[str, list[Window]] = {}
    played = tuple(likely_changes(state) if changes is None else changes)
    inspected = [inspect(state, (gateway,), facts) for gateway in found]
    for gateway, findings in zip(found, inspected, strict=True):
        for change in played:
            for window in predict(state, gateway, change, facts, now, findings):
                if window.probability >= LIKELY:
                    windows.setdefault(window.risk, []).append(window)
    problems = [
        Problem(finding, _costly_first(windows.pop(finding.risk, ())))
        for finding in (inspected[0] if len(found) == 1 else inspect(state, found, facts))
    ]
    problems += [
        Problem(_finding_of(state, opened[0]), opened)
        for opened in (_costly_first(of_risk) for of_risk in windows.values())
    ]
    return tuple(sorted((_weigh(p) for p in problems), key=_rank))


def _costly_first(windows: Iterable[Window]) -> tuple[Window, ...]:
    return tuple(sorted(windows, key=lambda w: (-w.lost.value, w.change, w.gateway)))


def _finding_of(state: State, window: Window) -> Finding:
    """A window that no structural rule announced: the play-through alone found it."""
    workload = state.workload
    kind, ref = (workload.kind, workload.ref) if workload else ("Service", state.service.ref)
    return Finding(
        risk=window.risk,
        severity=Severity.INFO if judges_mildly(state) else RISKS[window.risk].severity,
        kind=kind,
        ref=ref,
        path="",
        message=RISKS[window.risk].title,
        cause=window.cause,
        changes=frozenset({window.change}),
        remedy=window.remedy,
        no_remedy=window.no_remedy,
    )


def _weigh(problem: Problem) -> Problem:
    """A risk that opens no likely window in the play-through is for information only."""
    finding = problem.finding
    if problem.windows or finding.severity is not Severity.WARNING or not finding.changes:
        return problem
    return replace(problem, finding=replace(finding, severity=Severity.INFO))


_SEVERITIES: Final[Mapping[Severity, int]] = {
    Severity.ERROR: 0,
    Severity.WARNING: 1,
    Severity.INFO: 2,
}


def _rank(problem: Problem) -> tuple[int, float, str, str]:
    lost = sum(window.lost.value for window in problem.windows)
    return (
        _SEVERITIES[problem.finding.severity],
        -lost,
        str(problem.finding.ref),
        problem.finding.risk,
    )
