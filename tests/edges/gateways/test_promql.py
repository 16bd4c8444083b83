"""Questions to a Prometheus, and its answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.model import ObjectRef, ServicePort
from upstream_guard.gateways import PROFILES, promql
from upstream_guard.gateways.adapter import Known
from upstream_guard.gateways.exposition import UnreadableError

KNOWN = (Known(ObjectRef("prod", "shop"), "", (ServicePort("", 80, 8080),)),)


def answer(*series):
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": series}})


def test_a_question_asks_for_what_the_adapter_reads_and_no_more():
    text = promql.query(PROFILES["contour"].adapter, KNOWN)
    assert 'envoy_cluster_name=~"prod_shop_80"' in text
    assert "envoy_cluster_upstream_rq|" in text
    assert "uptime" not in text, "a Prometheus has the uptime of every Envoy in the cluster"


def test_names_are_quoted_for_the_regular_expression_and_for_promql():
    known = [Known(ObjectRef("a.b", 'c"\\'), "", (ServicePort("", 80, 80),))]
    text = promql.query(PROFILES["ingress-nginx"].adapter, known)
    assert text.endswith(r'service=~"c\"\\\\"}')


def test_samples_by_replica():
    found = promql.read_answer(
        answer(
            {"metric": {"__name__": "a", "instance": "10.0.0.1:80"}, "value": [1.5, "3"]},
            {"metric": {"__name__": "a", "instance": "10.0.0.2:80"}, "value": [1.5, "4"]},
            {"metric": {"__name__": "a"}, "value": [1.5, "NaN"]},
            {"metric": {"__name__": "a"}, "value": [1.5, "x"]},
        ).encode()
    )
    assert {key: [s.value for s in samples] for key, samples in found.items()} == {
        "10.0.0.1:80": [3.0],
        "10.0.0.2:80": [4.0],
        "prometheus": [pytest.approx(float("nan"), nan_ok=True)],
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"status":"error","error":"parse error"}',
        b'{"status":"success","data":{"resultType":"matrix","result":[]}}',
        b'{"status":"success","data":{"resultType":"vector","result":[{"value":[1]}]}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_is_told(body):
    with pytest.raises(UnreadableError):
        promql.read_answer(body)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c), max_leaves=10))  # fmt: skip
def test_any_json_is_an_answer_or_is_told(value):
    body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": value}})
    try:
        promql.read_answer(body.encode())
    except UnreadableError:
        return
