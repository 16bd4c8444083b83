"""The dashboard against a real Prometheus that scrapes a real operator."""

import json
from pathlib import Path

import pytest
from tests.contract.test_operator import CRDS, Cluster, free_port, operator, poll

from upstream_guard.core.names import OPERATOR_NAMESPACE
from upstream_guard.lab.packages import find_program
from upstream_guard.lab.prometheus import (
    QueryError,
    configuration,
    questions,
    running,
    target,
)

FOLDER = Path(__file__).parents[2] / "deploy/monitoring"
QUESTIONS = list(questions(json.loads((FOLDER / "grafana-dashboard.json").read_text())))
EJECTED = {"Gates set, by reason", "Ejections by cause"}
"""Panels that have data once an endpoint was ejected."""


@pytest.fixture(scope="module")
def prometheus(apiserver, tmp_path_factory):
    """One that has scraped an operator before and after it ejected an endpoint."""
    if find_program("prometheus") is None:
        pytest.skip("prometheus is not installed; `upstream-guard lab build` installs it")
    for crd in sorted(CRDS.glob("*s.yaml")):
        apiserver.apply(crd.read_text())
    apiserver.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}}
    )
    poll("the CRDs are served", lambda: apiserver.kubectl("get", "ug", "-A").ok)
    cluster, port = Cluster(apiserver, "dashboard"), free_port()
    cluster.service()
    cluster.guard()
    first, *_ = [cluster.pod(name) for name in "abc"]
    config = configuration({"static_configs": [target(port, "upstream-guard-0")]})
    folder = tmp_path_factory.mktemp("prometheus")
    with operator(apiserver, port=port), running(config, folder) as made:
        poll("it is scraped", lambda: made.query("upstream_guard_leading == 1"))
        for name in "abc":
            poll(f"{name} is admitted", lambda name=name: cluster.gate(name) == "True")
        first.stop()
        poll("a is ejected", lambda: made.query("upstream_guard_ejections_total > 0"))
        yield made
    for endpoint in cluster.endpoints.values():
        endpoint.stop()


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: f"{q.panel}: {q.legend}")
def test_panels_have_data(prometheus, question):
    if question.may_be_empty and question.panel not in EJECTED:
        prometheus.query(question.expression)
        return
    poll("data", lambda: prometheus.query(question.expression))


def test_a_mistake_would_be_seen(prometheus):
    with pytest.raises(QueryError, match="expected type range vector"):
        prometheus.query("rate(upstream_guard_leading)")
    assert prometheus.query("upstream_guard_leaders") == []


def test_an_ejection_is_counted_though_its_series_begins_with_it(prometheus):
    (gained,) = (q for q in QUESTIONS if q.panel == "Ejections by cause")
    (series,) = prometheus.query(gained.expression)
    assert series["metric"] == {"cause": "refused"}
    assert series["value"][1] == "1"
    assert (
        prometheus.query("sum(increase(upstream_guard_ejections_total[1h]))")[0]["value"][1] == "0"
    )


def test_the_namespace_is_the_guards(prometheus):
    def namespaces(metric):
        found = prometheus.query(f"count by (namespace, exported_namespace) ({metric})")
        return [series["metric"] for series in found]

    assert namespaces("upstream_guard_condition") == [{"namespace": "dashboard"}]
    assert namespaces("upstream_guard_leading") == [{"namespace": OPERATOR_NAMESPACE}]


def test_rules_are_evaluated_and_say_nothing_of_what_heals(prometheus):
    budget = "namespace_guard:upstream_guard_failing_seconds:rate5m"
    poll("the budget is recorded", lambda: prometheus.query(budget))
    # An endpoint was taken out, which asks for nobody; others may be pending on a machine that is busy.
    assert [alert for alert in prometheus.alerts() if alert["state"] == "firing"] == []
