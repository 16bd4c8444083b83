"""JSON of a stable shape: fields are added, none is renamed or removed within a `version`.

```
version         1
summary         {documents, services, errors, warnings, notes, suppressed, baseline, stale, exitCode}
rate            {value: requests a second, assumed: bool}
findings[]      {id, title, severity, cause, object {kind, namespace, name}, field, location, message,
                 changes[], windows[], remedy, noRemedy, fingerprint, suppressed, baseline}
  location      {file, line, column} or null; line and column are null where the source has none
  windows[]     {change, cause, risk, gateway, start, duration, share, lost, probability, status,
                 statusNote, scope, evidence, basis, message, remedy, noRemedy}
    start, duration (seconds) and lost (requests): {low, value, high, evidence, source}; null: endless
  remedy        {kind, namespace, name, type, patch, reason} or null
  suppressed    the reason of the annotation, or null
problems[]      {file, line, column, text, fatal}: what could not be read, or is worth a word
notes[]         text
```
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from upstream_guard.cli.check.objects import Location, Trouble
from upstream_guard.cli.check.report import Entry, Look, Report
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.predict.window import Remedy, Severity, Window

VERSION: Final = 1

Json = dict[str, Any]


def render(report: Report, look: Look) -> str:
    """The whole report, suppressed and known findings included."""
    del look
    return json.dumps(document(report), indent=2, allow_nan=False, default=_plain) + "\n"


def document(report: Report) -> Json:
    """The report as plain values."""
    return {
        "version": VERSION,
        "summary": _summary(report),
        "rate": {"value": report.rate, "assumed": not report.rate_given},
        "findings": [_finding(entry) for entry in report.entries],
        "problems": [_trouble(trouble) for trouble in report.troubles],
        "notes": list(report.notes),
    }


def _plain(value: object) -> object:
    """Frozen mappings and sets of a patch."""
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value) if isinstance(value, frozenset | set) else str(value)


def _summary(report: Report) -> Json:
    return {
        "documents": report.documents,
        "services": report.services,
        "errors": report.count(Severity.ERROR),
        "warnings": report.count(Severity.WARNING),
        "notes": report.count(Severity.INFO),
        "suppressed": sum(bool(e.suppressed) for e in report.entries),
        "baseline": sum(e.known for e in report.entries),
        "stale": report.stale,
        "exitCode": report.exit_code,
    }


def _finding(entry: Entry) -> Json:
    finding = entry.problem.finding
    return {
        "id": finding.risk,
        "title": RISKS[finding.risk].title if finding.risk in RISKS else "",
        "severity": finding.severity.value,
        "cause": finding.cause.value,
        "object": entry.key._asdict(),
        "field": finding.path,
        "location": _location(entry.location),
        "message": finding.message,
        "changes": sorted(change.value for change in finding.changes),
        "windows": [_window(window) for window in entry.problem.windows],
        "remedy": _remedy(finding.remedy),
        "noRemedy": finding.no_remedy or None,
        "fingerprint": entry.fingerprint,
        "suppressed": entry.suppressed or None,
        "baseline": entry.known,
    }


def _location(location: Location | None) -> Json | None:
    if location is None:
        return None
    return {
        "file": location.source,
        "line": location.line or None,
        "column": location.column or None,
    }


def _window(window: Window) -> Json:
    return {
        "change": window.change.value,
        "cause": window.cause.value,
        "risk": window.risk,
        "gateway": window.gateway,
        "start": _estimate(window.start),
        "duration": _estimate(window.duration),
        "share": window.share,
        "lost": _estimate(window.lost),
        "probability": window.probability,
        "status": window.status,
        "statusNote": window.status_note,
        "scope": window.scope.value,
        "evidence": window.evidence.value,
        "basis": window.basis,
        "message": window.message,
        "remedy": _remedy(window.remedy),
        "noRemedy": window.no_remedy or None,
    }


def _estimate(estimate: Estimate) -> Json:
    return {
        "low": _number(estimate.low),
        "value": _number(estimate.value),
        "high": _number(estimate.high),
        "evidence": estimate.evidence.value,
        "source": estimate.source,
    }


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _remedy(remedy: Remedy | None) -> Json | None:
    if remedy is None:
        return None
    return {
        "kind": remedy.kind,
        "namespace": remedy.ref.namespace,
        "name": remedy.ref.name,
        "type": remedy.patch_kind.value,
        "patch": remedy.patch,
        "reason": remedy.reason,
    }


def _trouble(trouble: Trouble) -> Json:
    where = _location(trouble.location) or {}
    return {**where, "text": trouble.text, "fatal": trouble.fatal}
