"""The dashboard against a real Prometheus that scrapes a real operator."""

import contextlib
import json
from pathlib import Path

import pytest
from tests.contract.test_external import Scene, Upstream, own_address
from tests.contract.test_operator import CRDS, Cluster, operator, poll

from upstream_guard.core.names import OPERATOR_NAMESPACE
from upstream_guard.lab.nameserver import Nameserver
from upstream_guard.lab.packages import find_program
from upstream_guard.lab.ports import spare_ports
from upstream_guard.lab.prometheus import (
    QueryError,
    configuration,
    questions,
    running,
    target,
)

FOLDER = Path(__file__).parents[2] / "deploy/monitoring"
QUESTIONS = list(questions(json.loads((FOLDER / "grafana-dashboard.json").read_text())))
HAPPENED = {
    "Gates set, by reason",
    "Ejections by cause",
    "Windows by cause",
    "502-seconds by cause",
    "Requests lost, by how they are known",
    "What is not as it should be",
    "What DNS answers",
    "On the last known good addresses",
}
"""Panels that may be empty, and have data after what happens here."""


@pytest.fixture(scope="module")
def prometheus(apiserver, tmp_path_factory):
    """One that has scraped an operator while endpoints failed, a window opened and closed, and DNS went away."""
    if find_program("prometheus") is None:
        pytest.skip("prometheus is not installed; `upstream-guard lab build` installs it")
    address = own_address()
    if not address or address.startswith("127."):
        pytest.skip("this machine has no address besides loopback, which no slice may hold")
    for crd in sorted(CRDS.glob("*s.yaml")):
        apiserver.apply(crd.read_text())
    apiserver.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}}
    )
    poll("the CRDs are served", lambda: apiserver.kubectl("get", "ug", "-A").ok)
    (port,), folder = spare_ports(1), tmp_path_factory.mktemp("prometheus")
    config = configuration({"static_configs": [target(port, "upstream-guard-0")]})
    with contextlib.ExitStack() as stack:
        server = Nameserver({"api.example.com": {"A": [address]}}, ttl=1)
        stack.enter_context(server)
        flags = (
            "--dns-server={}:{}".format(*server.address),
            "--allow-upstream-names=*.example.com",
            f"--allow-upstream-ranges={address}/32",
        )
        pods = Cluster(apiserver, "dashboard")
        pods.service()
        pods.guard()
        first, *_ = [pods.pod(name) for name in "abc"]
        upstreams = [Upstream(address), Upstream(address)]
        external = Scene(apiserver, "dashboard-external", server, upstreams)
        stack.enter_context(operator(apiserver, *flags, port=port))
        made = stack.enter_context(running(config, folder))
        poll("it is scraped", lambda: made.query("upstream_guard_leading == 1"))
        eject_a_pod(pods, first, made)
        open_a_window(external, made)
        server.stop()
        poll("DNS is away", lambda: made.query("upstream_guard_dns_last_known_good == 2"))
        yield made
    for endpoint in (*pods.endpoints.values(), *upstreams):
        endpoint.stop()


def eject_a_pod(pods, first, prometheus):
    for name in "abc":
        poll(f"{name} is admitted", lambda name=name: pods.gate(name) == "True")
    first.stop()
    refused = 'upstream_guard_ejections_total{guard="shop"} > 0'
    poll("a is ejected", lambda: prometheus.query(refused))


def open_a_window(external, prometheus):
    failing, _ = external.upstreams
    poll("both are listed", lambda: external.ready().get(failing.port))
    failing.stop()
    poll("a window opens", lambda: prometheus.query("upstream_guard_windows_open == 1"))
    failing.start()
    over = 'upstream_guard_windows_total{guard="pay"}'
    poll("it closes", lambda: prometheus.query(over), 60)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: f"{q.panel}: {q.legend}")
def test_panels_have_data(prometheus, question):
    if question.may_be_empty and question.panel not in HAPPENED:
        prometheus.query(question.expression)
        return
    poll("data", lambda: prometheus.query(question.expression))


def test_a_mistake_would_be_seen(prometheus):
    with pytest.raises(QueryError, match="expected type range vector"):
        prometheus.query("rate(upstream_guard_leading)")
    assert prometheus.query("upstream_guard_leaders") == []


def test_an_ejection_is_counted_though_its_series_begins_with_it(prometheus):
    metric = 'upstream_guard_ejections_total{guard="shop"}'
    (gained,) = (q for q in QUESTIONS if q.panel == "Ejections by cause")
    assert gained.expression.count("upstream_guard_ejections_total{") == 3
    counted = {
        s["metric"]["cause"]: float(s["value"][1]) for s in prometheus.query(gained.expression)
    }
    ejections = prometheus.query("sum by (cause) (upstream_guard_ejections_total)")
    assert counted == {s["metric"]["cause"]: float(s["value"][1]) for s in ejections}
    assert float(prometheus.query(f"sum(increase({metric}[1h]))")[0]["value"][1]) == 0


def test_a_window_costs_of_the_budget_what_it_took(prometheus):
    pay = '{namespace="dashboard-external", guard="pay"}'
    spent = prometheus.query(f"upstream_guard_failing_seconds_total{pay}")
    took = prometheus.query(f"sum(upstream_guard_window_seconds_total{pay})")
    assert float(spent[0]["value"][1]) == pytest.approx(float(took[0]["value"][1]), abs=0.01)
    lost = prometheus.query(f"sum(increase(upstream_guard_window_lost_requests_total{pay}[1h]))")
    assert float(lost[0]["value"][1]) > 0


def test_the_namespace_is_the_guards(prometheus):
    def namespaces(metric):
        found = prometheus.query(f"count by (namespace, exported_namespace) ({metric})")
        return [series["metric"] for series in found]

    guards = [{"namespace": "dashboard"}, {"namespace": "dashboard-external"}]
    assert sorted(namespaces("upstream_guard_condition"), key=str) == guards
    assert namespaces("upstream_guard_leading") == [{"namespace": OPERATOR_NAMESPACE}]


def test_rules_are_evaluated_and_say_nothing_of_what_heals(prometheus):
    budget = "namespace_guard:upstream_guard_failing_seconds:rate5m"
    poll("the budget is recorded", lambda: prometheus.query(budget))
    # An endpoint was taken out, which asks for nobody; others may be pending on a machine that is busy.
    assert [alert for alert in prometheus.alerts() if alert["state"] == "firing"] == []
