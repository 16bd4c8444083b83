"""Sentences that several formats share."""

import math
import re
from collections.abc import Iterator
from typing import Final

from upstream_guard.cli.check.report import Entry, Report
from upstream_guard.core.predict.sentences import losses, number
from upstream_guard.core.predict.window import Severity, Window

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]+")


def clean(text: str) -> str:
    """Text from manifests for a terminal: on one line, and without sequences that it would obey."""
    return _CONTROL.sub(" ", text)


def window_line(window: Window) -> str:
    """`rollout: about 40 requests (25-60) fail over 1.2 s (502) at contour (public)`."""
    change = window.change.value.replace("-", " ")
    status = str(window.status) if window.status else "no answer"
    return f"{change}: {losses(window)} {_period(window)} ({status}) at {window.gateway}"


def _period(window: Window) -> str:
    seconds = window.duration.value
    if math.isinf(seconds):
        return "until it is mended"
    return f"over {number(seconds)} s" if seconds >= 0.05 else "at once"


def remedy_line(entry: Entry) -> str:
    """Why the remedy helps, or why there is none; empty where nothing is known."""
    problem = entry.problem
    remedies = [problem.finding.remedy, *(w.remedy for w in problem.windows)]
    for remedy in remedies:
        if remedy is not None:
            return remedy.reason
    reasons = [problem.finding.no_remedy, *(w.no_remedy for w in problem.windows)]
    return next((f"No patch: {reason}" for reason in reasons if reason), "")


def paragraphs(entry: Entry) -> Iterator[str]:
    """Everything about a finding: its message, its windows, its remedy."""
    yield entry.problem.finding.message
    yield from map(window_line, entry.problem.windows)
    if remedy := remedy_line(entry):
        yield remedy


def counted(count: int, word: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def summary(report: Report) -> str:
    """One sentence on the whole."""
    found = [_found(severity, count) for severity in Severity if (count := report.count(severity))]
    aside = list(_aside(report))
    checked = f"{counted(report.services, 'Service')} in {counted(report.documents, 'document')}"
    text = f"{', '.join(found) or 'Nothing found'} in {checked}"
    return f"{text}; {', '.join(aside)}." if aside else f"{text}."


def _found(severity: Severity, count: int) -> str:
    """`2 warnings`, `2 info`: as findings and `--fail-on` call them."""
    return f"{count:,} info" if severity is Severity.INFO else counted(count, severity.value)


def _aside(report: Report) -> Iterator[str]:
    suppressed = sum(bool(e.suppressed) for e in report.entries)
    known = sum(e.known and not e.suppressed for e in report.entries)
    if suppressed:
        yield f"{suppressed} suppressed"
    if known:
        yield f"{known} in the baseline"
    if report.stale:
        yield f"{report.stale} of the baseline no longer found"
