"""For people: findings by object."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import groupby
from typing import Final, Protocol

from upstream_guard.cli.check.report import Entry, Look, Report
from upstream_guard.cli.check.words import clean, remedy_line, summary, window_line
from upstream_guard.core.predict.window import Severity

SHOWN_WINDOWS: Final = 3
"""Of one finding; the others are in the JSON."""

_STYLES: Final[Mapping[Severity, str]] = {
    Severity.ERROR: "bold red",
    Severity.WARNING: "yellow",
    Severity.INFO: "cyan",
}
_WIDTH: Final = max(len(severity) for severity in Severity)


class Paint(Protocol):
    """Text and rich style to what is written."""

    def __call__(self, text: str, style: str = "") -> str:
        """The text without what a terminal would obey, in that style."""


def render(report: Report, look: Look) -> str:
    """Findings that count, grouped by object, and a summary; with `quiet` a line for each finding.

    Empty where nothing could be checked: standard error says why.
    """
    paint = _painted if look.color else _plain
    entries = [e for e in report.entries if e.counts]
    if look.quiet:
        lines = [_short(entry, paint) for entry in entries]
    else:
        lines = [*_groups(entries, paint), *_end(report, paint)]
    return "".join(f"{line}\n" for line in lines)


def _plain(text: str, style: str = "") -> str:
    del style
    return clean(text)


@lru_cache(maxsize=4096)
def _painted(text: str, style: str = "") -> str:
    # Only a terminal pays for rich.
    from rich.style import Style  # noqa: PLC0415

    return Style.parse(style).render(clean(text)) if style else clean(text)


def _short(entry: Entry, paint: Paint) -> str:
    finding = entry.problem.finding
    where = f"{entry.location}: " if entry.location else ""
    severity = paint(finding.severity, _STYLES[finding.severity])
    return f"{paint(where)}{severity}: {paint(f'{finding.message} [{finding.risk}] ({entry.key})')}"


def _groups(entries: list[Entry], paint: Paint) -> Iterator[str]:
    for key, group in groupby(entries, lambda e: e.key):
        yield paint(str(key), "bold")
        for entry in group:
            yield from _finding(entry, paint)
        yield ""


def _finding(entry: Entry, paint: Paint) -> Iterator[str]:
    finding = entry.problem.finding
    severity = paint(f"{finding.severity:<{_WIDTH}}", _STYLES[finding.severity])
    where = paint(f"  {entry.location}", "dim") if entry.location else ""
    yield f"  {severity}  {paint(finding.message)}  {paint(finding.risk, 'dim')}{where}"
    indent = " " * (_WIDTH + 4)
    windows = entry.problem.windows
    for window in windows[:SHOWN_WINDOWS]:
        yield f"{indent}{paint(window_line(window))}"
    if len(windows) > SHOWN_WINDOWS:
        yield paint(f"{indent}and {len(windows) - SHOWN_WINDOWS} more (-o json)", "dim")
    if remedy := remedy_line(entry):
        yield f"{indent}{paint('→ ' + remedy, 'green' if _has_remedy(entry) else 'dim')}"


def _has_remedy(entry: Entry) -> bool:
    problem = entry.problem
    return problem.finding.remedy is not None or any(w.remedy for w in problem.windows)


def _end(report: Report, paint: Paint) -> Iterator[str]:
    if report.unread:
        return
    yield summary(report)
    if any(e.counts and e.problem.windows for e in report.entries):
        told = "" if report.rate_given else ", which is assumed (--rate)"
        yield paint(f"Lost requests at {report.rate:g} requests a second{told}.", "dim")
    if not report.services and report.documents:
        yield paint("No Service is among them, and windows are those of Services.", "dim")
    counting = [e for e in report.entries if e.counts]
    if counting:
        explain = f"`upstream-guard explain {counting[0].problem.finding.risk}` tells more"
        patches = "; --fix prints the patches" if any(map(_has_remedy, counting)) else ""
        yield paint(f"{explain}{patches}.", "dim")
