"""JUnit's XML: a suite for each object, a failing test case for each finding that counts."""

import re
from itertools import groupby
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from upstream_guard.cli.check.report import Entry, Look, Report
from upstream_guard.cli.check.words import paragraphs

_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report, look: Look) -> str:
    """Findings at or above `--fail-on` are failures, others pass; what was not read is an error."""
    del look
    root = Element("testsuites", name="upstream-guard check")
    for key, group in groupby(report.entries, lambda e: e.key):
        suite = SubElement(root, "testsuite", name=_text(str(key)))
        for entry in group:
            _case(suite, entry, report)
        _count(suite)
    if report.troubles:
        _troubles(root, report)
    if not len(root):
        suite = SubElement(root, "testsuite", name="upstream-guard check")
        SubElement(suite, "testcase", classname="upstream-guard", name="nothing found")
        _count(suite)
    indent(root)
    written = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{written}\n'


def _case(suite: Element, entry: Entry, report: Report) -> None:
    finding = entry.problem.finding
    case = SubElement(suite, "testcase", classname=_text(str(entry.key)), name=_text(finding.risk))
    if entry.location:
        case.set("file", _text(entry.location.source))
        if entry.location.line:
            case.set("line", str(entry.location.line))
    if not entry.counts:
        reason = entry.suppressed or "in the baseline"
        SubElement(case, "skipped", message=_text(reason))
        return
    text = "\n".join([*paragraphs(entry), *([str(entry.location)] if entry.location else [])])
    if report.fails(entry):
        failure = SubElement(
            case, "failure", message=_text(finding.message), type=finding.severity.value
        )
        failure.text = _text(text)
    else:
        SubElement(case, "system-out").text = _text(f"{finding.severity}: {text}")


def _troubles(root: Element, report: Report) -> None:
    suite = SubElement(root, "testsuite", name="input")
    for trouble in report.troubles:
        case = SubElement(suite, "testcase", classname="input", name=_text(trouble.location.source))
        kind = "error" if trouble.fatal else "system-out"
        SubElement(case, kind).text = _text(str(trouble))
    _count(suite)


def _count(suite: Element) -> None:
    suite.set("tests", str(len(suite)))
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))


def _text(text: str) -> str:
    """XML 1.0 has no way to write most control characters."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
