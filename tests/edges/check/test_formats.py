"""What the formats make of a report."""

import json
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from upstream_guard.cli.check.formats import FORMATS, renderer
from upstream_guard.cli.check.objects import Location
from upstream_guard.cli.check.report import Look, Report
from upstream_guard.core.predict.window import Severity

MakeReport = Callable[..., Report]
PLAIN = Look()


def test_exit_codes(report: MakeReport) -> None:
    assert report().exit_code == 2
    assert report(troubles=()).exit_code == 1
    assert report(troubles=(), fail_on=None).exit_code == 0
    no_errors = [e for e in report().entries if e.severity is not Severity.ERROR]
    assert report(troubles=(), entries=tuple(no_errors), fail_on=Severity.ERROR).exit_code == 0
    assert report(troubles=(), entries=tuple(no_errors), fail_on=Severity.WARNING).exit_code == 1
    aside = tuple(e for e in report().entries if not e.counts)
    assert len(aside) == 2
    assert report(troubles=(), entries=aside, fail_on=Severity.INFO).exit_code == 0


def test_fingerprints_ignore_lines_and_figures(report: MakeReport) -> None:
    first, *_others = report().entries
    moved = type(first)(first.problem, first.key, Location("elsewhere.yaml", 99, 1))
    assert moved.fingerprint == first.fingerprint
    assert len({e.fingerprint for e in report().entries}) == 5
    assert re.fullmatch("[0-9a-f]{16}", first.fingerprint)


def test_table(report: MakeReport) -> None:
    assert (
        renderer("table")(report(), PLAIN)
        == """\
Deployment prod/shop
  warning  container `web` has no preStop hook  no-pre-stop  k8s/shop, v1.yaml:12
           rollout: about 40 requests (20-80) fail over 1.2 s (502) at nginx (public)
           rollout: every request fails until it is mended (502) at nginx (public)
           rollout: about 0.4 requests (0.2-0.8) fail at once (502) at nginx (public)
           and 1 more (-o json)
           → it serves on

Deployment prod/two
  error    50% of nothing: a, b <&>   target-port-unserved  k8s/shop, v1.yaml:12
           → No patch: nothing helps

Deployment prod/three
  info     container `web` has no preStop hook  one-node
           → No patch: nothing helps

1 error, 1 warning, 1 info in 3 Services in 12 documents; 1 suppressed, 1 in the baseline.
Lost requests at 10 requests a second, which is assumed (--rate).
`upstream-guard explain no-pre-stop` tells more; --fix prints the patches.
"""
    )


def test_quiet_is_a_line_for_each_finding(report: MakeReport) -> None:
    lines = renderer("table")(report(), Look(quiet=True)).split("\n")
    assert lines[0] == (
        "k8s/shop, v1.yaml:12: warning: container `web` has no preStop hook [no-pre-stop] "
        "(Deployment prod/shop)"
    )


def test_nothing_found_is_said() -> None:
    text = renderer("table")(Report(services=1, documents=2), PLAIN)
    assert text == "Nothing found in 1 Service in 2 documents.\n"


def test_colours_only_on_request(report: MakeReport) -> None:
    painted = renderer("table")(report(), Look(color=True))
    assert "\x1b[" in painted
    assert re.sub("\x1b\\[[0-9;]*m", "", painted) == renderer("table")(report(), PLAIN)


def test_json_has_the_documented_shape(report: MakeReport) -> None:
    document = json.loads(renderer("json")(report(), PLAIN))
    assert document["version"] == 1
    assert document["summary"] == {
        "documents": 12,
        "services": 3,
        "errors": 1,
        "warnings": 1,
        "notes": 1,
        "suppressed": 1,
        "baseline": 1,
        "stale": 0,
        "exitCode": 2,
    }
    first = document["findings"][0]
    assert list(first) == [
        "id", "title", "severity", "cause", "object", "field", "location", "message", "changes",
        "windows", "remedy", "noRemedy", "fingerprint", "suppressed", "baseline",
    ]  # fmt: skip
    assert first["location"] == {"file": "k8s/shop, v1.yaml", "line": 12, "column": 7}
    assert first["windows"][0]["lost"]["value"] == 40
    assert first["windows"][1]["duration"]["value"] is None
    assert first["windows"][0]["remedy"]["type"] == "strategic"
    assert document["findings"][2]["location"] is None
    assert document["findings"][3]["suppressed"] == "dev"
    assert document["findings"][4]["baseline"] is True
    assert document["problems"][0] == {
        "file": "bad.yaml", "line": 3, "column": 1, "text": "not valid YAML: x", "fatal": True,
    }  # fmt: skip


def test_github_annotations_are_escaped(report: MakeReport) -> None:
    lines = renderer("github")(report(), PLAIN).split("\n")
    assert len(lines) == 6
    assert lines[-1] == ""
    assert lines[0].startswith(
        "::warning file=k8s/shop%2C v1.yaml,title=no-pre-stop%3A Pods stop before the gateway has "
        "forgotten them,line=12,col=7::Deployment prod/shop: container `web` has no preStop hook%0A"
    )
    assert "50%25 of%0D%0Anothing: a, b <&>" in lines[1]
    assert lines[1].startswith("::error ")
    assert lines[2].startswith("::notice title=")
    assert (
        lines[3] == "::error file=bad.yaml,title=Cannot be checked,line=3,col=1::not valid YAML: x"
    )
    assert lines[4] == "::warning file=b.yaml,title=Worth a look,line=1,col=1::twice"


def test_junit_is_xml_and_counts(report: MakeReport) -> None:
    root = ElementTree.fromstring(renderer("junit")(report(), PLAIN))
    suites = root.findall("testsuite")
    assert [s.get("name") for s in suites] == [
        *(f"Deployment prod/{name}" for name in ("shop", "two", "three", "four", "five")),
        "input",
    ]
    count = {
        key: sum(int(s.get(key)) for s in suites)
        for key in ("tests", "failures", "errors", "skipped")
    }
    assert count == {"tests": 7, "failures": 2, "errors": 1, "skipped": 2}
    failure = suites[1].find("testcase/failure")
    assert failure is not None
    assert "50% of" in failure.get("message", "")


def test_junit_of_nothing_still_has_a_case() -> None:
    root = ElementTree.fromstring(renderer("junit")(Report(), PLAIN))
    assert root.find("testsuite/testcase") is not None


def test_sarif(report: MakeReport) -> None:
    log = json.loads(renderer("sarif")(report(), PLAIN))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    for rule in rules:
        assert rule["shortDescription"]["text"]
        assert "## How to fix it" in rule["help"]["markdown"]
        assert rule["help"]["text"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
    first = run["results"][0]["locations"][0]["physicalLocation"]
    assert first == {
        "artifactLocation": {"uri": "k8s/shop%2C%20v1.yaml"},
        "region": {"startLine": 12, "startColumn": 7},
    }
    assert "physicalLocation" not in run["results"][2]["locations"][0]
    assert [bool(r.get("suppressions")) for r in run["results"]] == [
        False,
        False,
        False,
        True,
        True,
    ]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    assert len(invocation["toolExecutionNotifications"]) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_renders_an_empty_report(name: str) -> None:
    assert isinstance(renderer(name)(Report(), PLAIN), str)
