"""The Grafana dashboard: it asks for what the operator exports, and Grafana can lay it out."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from tests.promql import TARGET, mistakes, uses

from upstream_guard.lab.prometheus import VARIABLES, Question, filled, questions

FOLDER = Path(__file__).parents[2] / "deploy/monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUESTIONS = list(questions(DASHBOARD))
RECORDED = {
    rule["record"]: frozenset()
    for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}


def name_of(question: Question):
    return re.sub(r"\W+", "-", question.panel.lower())


@pytest.mark.parametrize("question", QUESTIONS, ids=name_of)
def test_panels_ask_for_what_the_operator_exports(question):
    assert "$" not in question.expression
    assert list(mistakes(question.expression, RECORDED)) == []
    shown = set(re.findall(r"\{\{(\w+)\}\}", question.legend))
    kept = {label for use in uses(question.expression) if not use.name for label in use.labels}
    assert shown <= kept | TARGET
    # Replicas take turns; what one of them says must not appear twice.
    assert re.search(r"\b(sum|max|min|count) ?(by|\()", question.expression)


def test_every_panel_says_what_it_shows():
    titles = [panel["title"] for panel in PANELS]
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert panel["targets"]
        assert [t["refId"] for t in panel["targets"]] == list("AB")[: len(panel["targets"])]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(t["datasource"] == panel["datasource"] for t in panel["targets"])
    assert len(titles) - len(set(titles)) == 1  # open windows: as a number, and over time


def test_panels_lie_beside_each_other():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    boxes = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for box in boxes:
        assert box["x"] >= 0
        assert box["x"] + box["w"] <= 24
    for a, b in combinations(boxes, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (a, b)


def test_its_variables_are_those_that_panels_use():
    variables = {f"${v['name']}" for v in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$[a-z]\w*", json.dumps([p["targets"] for p in PANELS])))
    assert used <= variables
    assert variables - {"$datasource"} == {name for name in VARIABLES if not name.startswith("$__")}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            inner = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
            assert inner
            assert list(mistakes(filled(f"max by ({inner[2]}) ({inner[1]})"), {})) == []
    assert DASHBOARD["uid"] == "upstream-guard"
    assert DASHBOARD["schemaVersion"] >= 36
