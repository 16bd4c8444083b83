"""GitHub's workflow commands: one annotation for each finding that counts.

The escaping is that of actions/toolkit, packages/core/src/command.ts.
"""

from typing import Final

from upstream_guard.cli.check.objects import Location, Trouble
from upstream_guard.cli.check.report import Entry, Look, Report
from upstream_guard.cli.check.words import paragraphs
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.predict.window import Severity

_LEVELS: Final = {
    Severity.ERROR: "error",
    Severity.WARNING: "warning",
    Severity.INFO: "notice",
}


def render(report: Report, look: Look) -> str:
    """A line for each finding, and for each source that could not be read."""
    del look
    lines = [_finding(e) for e in report.entries if e.counts]
    lines += [_trouble(t) for t in report.troubles]
    return "".join(f"{line}\n" for line in lines)


def _finding(entry: Entry) -> str:
    finding = entry.problem.finding
    title = (
        f"{finding.risk}: {RISKS[finding.risk].title}" if finding.risk in RISKS else finding.risk
    )
    text = "\n".join(paragraphs(entry))
    return _command(_LEVELS[finding.severity], entry.location, title, f"{entry.key}: {text}")


def _trouble(trouble: Trouble) -> str:
    level = "error" if trouble.fatal else "warning"
    title = "Cannot be checked" if trouble.fatal else "Worth a look"
    return _command(level, trouble.location, title, trouble.text)


def _command(level: str, location: Location | None, title: str, text: str) -> str:
    properties = {"title": title}
    if location and location.source:
        properties = {"file": location.source, **properties}
    if location and location.line:
        properties |= {"line": str(location.line), "col": str(max(1, location.column))}
    written = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {written}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
