"""SARIF 2.1.0, as code scanning services read it."""

import json
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

from upstream_guard.cli.check.objects import Location, Trouble
from upstream_guard.cli.check.report import Entry, Look, Report
from upstream_guard.cli.check.words import paragraphs
from upstream_guard.cli.pages import read_page
from upstream_guard.core.predict.risks import RISKS, RiskInfo
from upstream_guard.core.predict.window import Severity

Json = dict[str, Any]

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: Final = {
    Severity.ERROR: "error",
    Severity.WARNING: "warning",
    Severity.INFO: "note",
}


def render(report: Report, look: Look) -> str:
    """One run; suppressed and known findings are in it, marked as such."""
    del look
    used = sorted(
        {e.problem.finding.risk for e in report.entries if e.problem.finding.risk in RISKS}
    )
    driver = {
        "name": "upstream-guard",
        "version": report.version,
        "rules": [_rule(risk, RISKS[risk]) for risk in used],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(entry, used) for entry in report.entries],
        "invocations": [
            {
                "executionSuccessful": report.exit_code != 2,
                "toolExecutionNotifications": [_notification(t) for t in report.troubles],
            }
        ],
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2) + "\n"


def _rule(risk: str, info: RiskInfo) -> Json:
    page = read_page(risk)
    return {
        "id": risk,
        "name": "".join(part.capitalize() for part in risk.split("-")),
        "shortDescription": {"text": info.title},
        "fullDescription": {"text": f"{info.title}. Source: {info.source}."},
        "help": {"text": page, "markdown": page},
        "defaultConfiguration": {"level": _LEVELS[info.severity]},
        "properties": {"tags": ["reliability", "kubernetes", info.cause.value]},
    }


def _result(entry: Entry, rules: list[str]) -> Json:
    finding = entry.problem.finding
    result: Json = {
        "ruleId": finding.risk,
        "level": _LEVELS[finding.severity],
        "message": {"text": "\n".join([f"{entry.key}: {finding.message}", *_more(entry)])},
        "locations": _locations(entry.location, str(entry.key)),
        "partialFingerprints": {"upstreamGuard/v1": entry.fingerprint},
    }
    if finding.risk in rules:
        result["ruleIndex"] = rules.index(finding.risk)
    if entry.suppressed:
        result["suppressions"] = [{"kind": "inSource", "justification": entry.suppressed}]
    elif entry.known:
        result["suppressions"] = [{"kind": "external", "justification": "in the baseline"}]
    return result


def _more(entry: Entry) -> Iterable[str]:
    return list(paragraphs(entry))[1:]


def _locations(location: Location | None, name: str) -> list[Json]:
    logical = {"fullyQualifiedName": name, "kind": "object"}
    if location is None:
        return [{"logicalLocations": [logical]}]
    return [{"physicalLocation": _physical(location), "logicalLocations": [logical]}]


def _physical(location: Location) -> Json:
    physical: Json = {"artifactLocation": {"uri": _uri(location.source)}}
    if location.line:
        physical["region"] = {"startLine": location.line, "startColumn": max(1, location.column)}
    return physical


def _uri(path: str) -> str:
    """A path as a URI reference; `./` is left out, for services compare with the repository's paths."""
    return quote(path.removeprefix("./").replace("\\", "/"), safe="/")


def _notification(trouble: Trouble) -> Json:
    notification: Json = {
        "level": "error" if trouble.fatal else "warning",
        "message": {"text": trouble.text},
    }
    if trouble.location.source:
        notification["locations"] = [{"physicalLocation": _physical(trouble.location)}]
    return notification
