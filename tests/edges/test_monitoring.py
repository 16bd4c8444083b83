"""Rules and alerts: they name what the operator exports, fire when they should, and are explained."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.promql import exported, mistakes, uses

from upstream_guard.core.reasons import Reason
from upstream_guard.lab.packages import find_program

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/monitoring"
CASES = sorted((ROOT / "tests/data/monitoring").glob("*.yaml"))
PAGE = (ROOT / "docs/alerts.md").read_text()

GROUPS = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})
RECORDED = {
    rule["record"]: frozenset({"namespace", "guard"} if ":rate" in rule["record"] else ())
    for rule in RULES
    if "record" in rule
}


def promtool(*args):
    program = find_program("promtool")
    if program is None:
        pytest.skip("promtool is not installed; `upstream-guard lab build` installs it")
    command = [str(program), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def name_of(rule):
    return f"{rule.get('alert') or rule['record']}-{(rule.get('labels') or {}).get('window', '')}"


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_rules_use_what_the_operator_exports(rule):
    assert list(mistakes(rule["expr"], RECORDED)) == []
    for query in re.findall(r'query "([^"]+)"', str(rule.get("annotations"))):
        assert list(mistakes(query, RECORDED)) == []


def test_a_mistake_would_be_seen():
    for expression, words in {
        "upstream_guard_windows_opened > 0": "no metric upstream_guard_windows_opened",
        'upstream_guard_windows_open{cause="reset"} > 0': "has no label cause",
        "max by (gateway) (upstream_guard_windows_open)": "has the label gateway",
        "upstream_guard_windows_open and on (zone) upstream_guard_leading": "the label zone",
        "upstream_guard_windows > 0": "no metric upstream_guard_windows",
    }.items():
        assert words in "; ".join(mistakes(expression, RECORDED)), expression
    with pytest.raises(ValueError, match="expected type matrix"):
        uses("rate(upstream_guard_windows_total)")
    assert exported()["upstream_guard_loop_lag_seconds_bucket"] == {"le"}


def test_reasons_in_expressions_exist():
    for rule in ALERTS:
        for reasons in re.findall(r'reason=~?"([^"]+)"', rule["expr"]):
            assert set(reasons.split("|")) <= {reason.value for reason in Reason}


@pytest.mark.parametrize("rule", ALERTS, ids=name_of)
def test_alerts_say_what_is_and_where_to_read_on(rule):
    assert rule["labels"]["severity"] in {"critical", "warning"}
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    # Instances come and go with a failover, and an alert must not end and begin anew with it.
    assert "instance" not in rule["expr"]
    anchor = rule["alert"].lower()
    assert annotations["runbook_url"] == f"docs/alerts.md#{anchor}"
    section = PAGE.split(f"\n## {rule['alert']}\n")[1].split("\n## ")[0]
    for part in ("**Means.**", "**Look.**", "**Do.**"):
        assert part in section
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| [{rule['alert']}]"))
    assert rule["labels"]["severity"] in row
    assert f"(#{anchor})" in row


def test_the_page_explains_no_alert_that_is_not_there():
    assert sorted(re.findall(r"^## (UpstreamGuard\w+)$", PAGE, re.MULTILINE)) == NAMES


def test_every_alert_is_tried_both_ways():
    tried = {True: set(), False: set()}
    cases = (case for file in CASES for case in yaml.safe_load(file.read_text())["tests"])
    for case in cases:
        for one in case.get("alert_rule_test", ()):
            for alert in one["exp_alerts"]:
                window = alert["exp_labels"].get("window", "")
                tried[True].add((one["alertname"], window))
            if not one["exp_alerts"]:
                tried[False].add(one["alertname"])
    assert tried[True] == {(r["alert"], r["labels"].get("window", "")) for r in ALERTS}
    assert tried[False] == set(NAMES)


def test_the_rules_are_rules_of_prometheus():
    done = promtool("check", "rules", FOLDER / "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@pytest.mark.parametrize("cases", CASES, ids=lambda file: file.stem)
def test_each_alert_fires_when_it_should_and_only_then(cases):
    done = promtool("test", "rules", cases)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_installation_without_operator_asks_what_the_one_with_it_does():
    (job,) = yaml.safe_load((FOLDER / "scrape.yaml").read_text())["scrape_configs"]
    (endpoint,) = yaml.safe_load((FOLDER / "servicemonitor.yaml").read_text())["spec"]["endpoints"]
    assert job["honor_labels"] is endpoint["honorLabels"] is True
    assert job["scrape_interval"] == endpoint["interval"]
    rule = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())
    assert rule["spec"]["groups"] == GROUPS


def test_the_monitor_finds_the_metrics_of_each_replica():
    monitor = yaml.safe_load((FOLDER / "servicemonitor.yaml").read_text())
    service = yaml.safe_load((ROOT / "deploy/base/service.yaml").read_text())
    deployment = yaml.safe_load((ROOT / "deploy/base/deployment.yaml").read_text())
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= service["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    assert monitor["spec"]["endpoints"][0]["port"] == port["name"]
    (job,) = yaml.safe_load((FOLDER / "scrape.yaml").read_text())["scrape_configs"]
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    name, component = labels["app.kubernetes.io/name"], labels["app.kubernetes.io/component"]
    keep = job["relabel_configs"][0]
    ports = [p["name"] for p in pod["spec"]["containers"][0]["ports"]]
    kept = [p for p in ports if re.fullmatch(keep["regex"], f"{name};{component};{p}")]
    assert kept == [port["targetPort"]]
