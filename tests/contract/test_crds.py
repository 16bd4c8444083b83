"""The CRDs on a real API server: defaults, refusals, columns, and what the operator writes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import Eye
from upstream_guard.core.model import DrainMode, DrainPolicy
from upstream_guard.core.observed import Counted, Extent, ObservedWindow
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.predict.window import Severity
from upstream_guard.core.reasons import ConditionType, Reason
from upstream_guard.core.status import (
    Condition,
    ConditionStatus,
    DrainStatus,
    EndpointState,
    EndpointStatus,
    GuardStatus,
    PredictionStatus,
    RiskStatus,
    RouteStatus,
)
from upstream_guard.core.tuning import CLUSTER_IP, Evidence, advise_drain, recommended_patch
from upstream_guard.resources.guard import parse_guard
from upstream_guard.resources.status import build_status

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data/resources"
NOW = 1_700_000_000.0

KINDS = {"UpstreamGuard": "refused_guards.yaml", "GatewayProfile": "refused_profiles.yaml"}


def cases(kind: str) -> list[dict[str, Any]]:
    return yaml.safe_load((DATA / KINDS[kind]).read_text())


def documents(kind: str) -> str:
    """Every case as one document, named by its index."""
    bodies = [
        {
            "apiVersion": "upstreamguard.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": f"case-{index}"},
            "spec": json.loads(json.dumps(case["spec"]).replace("LONG", "x" * 5000)),
        }
        for index, case in enumerate(cases(kind))
    ]
    return yaml.safe_dump_all(bodies)


@pytest.fixture(scope="module")
def server(apiserver):
    apiserver.install(ROOT / "crds")
    return apiserver


@pytest.fixture(scope="module")
def refusals(server):
    """What the API server says of each case, by kind and index."""
    found: dict[tuple[str, int], str] = {}
    for kind in KINDS:
        result = server.kubectl("create", "--dry-run=server", "-f", "-", stdin=documents(kind))
        assert "created" not in result.out, result.out
        for part in result.err.split("Error from server")[1:]:
            match = re.search(r'"case-(\d+)" is invalid: (.*)', part, re.DOTALL)
            assert match, part
            found[kind, int(match[1])] = match[2]
    return found


@pytest.mark.parametrize(
    ("kind", "index", "case"),
    [(kind, i, case) for kind in KINDS for i, case in enumerate(cases(kind))],
    ids=lambda value: value["name"] if isinstance(value, dict) else None,
)
def test_refused(refusals, kind: str, index: int, case: dict[str, Any]) -> None:
    said = refusals[kind, index]
    assert f"{case.get('api_path', case['path'])}: " in said
    assert case.get("api_message", case["message"]) in said


def test_examples_are_accepted_with_defaults(server) -> None:
    examples = sorted((ROOT / "deploy/examples").glob("*.yaml"))
    assert len(examples) >= 5
    for example in examples:
        result = server.kubectl(
            "create", "--dry-run=server", "-o", "yaml", "-f", str(example), "--validate=strict"
        )
        assert result.ok, result.err
        documents = zip(
            yaml.safe_load_all(result.out), yaml.safe_load_all(example.read_text()), strict=True
        )
        for served, written in documents:
            if served["kind"] != "UpstreamGuard":
                continue
            # Defaults by the schema and defaults by the parser are the same guard.
            assert parse_guard(served).probe == parse_guard(written).probe
            assert parse_guard(served).drain == parse_guard(written).drain
            assert parse_guard(served).upstream_list == parse_guard(written).upstream_list
            assert parse_guard(served).detection == parse_guard(written).detection
            assert parse_guard(served).upstreams == parse_guard(written).upstreams


def test_shortest_guard_gets_every_default(server) -> None:
    result = server.kubectl(
        "create",
        "--dry-run=server",
        "-o",
        "json",
        "-f",
        str(ROOT / "deploy/examples/minimal.yaml"),
    )
    assert json.loads(result.out)["spec"] == {
        "targetRef": {"group": "", "kind": "Service", "name": "shop"},
        "probe": {"interval": "500ms", "failureThreshold": 2, "successThreshold": 2},
        "upstreamList": {
            "mode": "Enforce",
            "minHealthyPercent": 50,
            "admitTimeout": "30s",
            "admitVia": "Endpoint",
        },
        "drain": {
            "mode": "Enforce",
            "preStop": "Auto",
            "gracePeriod": "Auto",
            "maxPreStop": "60s",
            "surgeBeforeEvict": False,
        },
        "detection": {
            "minRequests": 1,
            "errorStatuses": [502, 503, 504],
            "routeProbe": {"mode": "Auto", "interval": "3s", "changeInterval": "100ms"},
        },
    }


def test_short_interval_alone_is_enough(server) -> None:
    guard = {
        "apiVersion": "upstreamguard.io/v1alpha1",
        "kind": "UpstreamGuard",
        "metadata": {"name": "quick"},
        "spec": {"targetRef": {"name": "shop"}, "probe": {"interval": "200ms", "port": "http"}},
    }
    result = server.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(guard))
    assert result.ok, result.err


def fullest_status() -> GuardStatus:
    """As large as a status can become: every limit of the schema is met, none is broken."""
    endpoints = tuple(
        EndpointStatus(
            f"shop-{n:04}" + "x" * 300,
            f"10.0.0.{n % 250}:8080",
            EndpointState.FAILING if n % 2 else EndpointState.SERVING,
            listed=True,
            gated=True,
            node="node-a",
            cause=Cause.REFUSED,
            detail="connection refused " * 30,
        )
        for n in range(200)
    )
    advice = advise_drain(DrainPolicy(), [CLUSTER_IP])
    return GuardStatus(
        observed_generation=1,
        service="shop:http",
        conditions=tuple(
            Condition(type_, ConditionStatus.TRUE, Reason.ACCEPTED, "in force " * 600, 1)
            for type_ in ConditionType
        ),
        endpoints=endpoints,
        gateways=(CLUSTER_IP,) * 30,
        drain=DrainStatus(DrainMode.RECOMMEND, advice, 30, recommended_patch(advice, ["app"])),
        predictions=(prediction(),) * 30,
        windows=tuple(window(n) for n in range(30)),
        routes=(
            RouteStatus("g" * 600, "r" * 500, "u" * 2000, "v" * 400, "p" * 600),
            RouteStatus("edge", ""),
        )
        * 2,
        risks=(
            RiskStatus(
                "no-pre-stop",
                Severity.WARNING,
                "deployment/" + "x" * 500,
                "spec." * 200,
                "no hook " * 300,
                "kubectl " * 1000,
            ),
        )
        * 30,
    )


def window(n: int) -> ObservedWindow:
    """One window with texts of more than any length; every other one is open."""
    return ObservedWindow(
        id=f"w-20261126-071530-{n}",
        gateway="contour " * 200,
        routes=("Ingress " + "x" * 600,) * 30,
        cause=Cause.STALE_UPSTREAM,
        confidence=100,
        others=((Cause.PROTOCOL_MISMATCH, 40),) * 3,
        extent=Extent.ENDPOINT,
        endpoints=("[2001:db8::1]:8080" * 8,) * 20,
        opened=NOW,
        detected=NOW + 0.1,
        closed=NOW + 5 if n % 2 else 0.0,
        lost=2**40,
        counted=Counted.ESTIMATED,
        statuses=dict.fromkeys(range(500, 530), 2**40),
        eyes=tuple(Eye),
        evidence="direct probes " * 100,
        predicted=True,
        change="rollout of deployment/" + "x" * 600,
    )


def prediction() -> PredictionStatus:
    """One entry with texts of more than any length."""
    return PredictionStatus(
        change=ChangeKind.POD_DELETION,
        subject="deployment/" + "x" * 500,
        began=NOW,
        made_at=NOW + 1,
        until=NOW + 600,
        opens_at=NOW + 2,
        duration="1.2s",
        duration_range="0.9s-1.4s",
        lost=40,
        lost_range="25-60",
        share=100,
        probability=100,
        cause=Cause.PROTOCOL_MISMATCH,
        risk="grace-shorter-than-drain",
        gateway="contour " * 200,
        answer=503,
        evidence=Evidence.MEASURED,
        message="requests fail " * 200,
        remedy="kubectl " * 1000,
    )


def test_status_is_stored_whole_and_shown(server) -> None:
    made = server.kubectl("create", "-f", str(ROOT / "deploy/examples/minimal.yaml"))
    assert made.ok, made.err
    try:
        body = build_status(fullest_status(), None, NOW)
        patched = server.kubectl(
            "patch",
            "ug",
            "shop",
            "--subresource=status",
            "--type=merge",
            "-o",
            "json",
            # As an argument it would be longer than a process may be given.
            "--patch-file=/dev/stdin",
            stdin=json.dumps({"status": body}),
        )
        assert patched.ok, patched.err
        stored = json.loads(patched.out)["status"]
        assert stored == body
        assert build_status(fullest_status(), stored, NOW + 60) == stored
        shown = server.kubectl("get", "ug", "shop").out.splitlines()
    finally:
        server.kubectl("delete", "ug", "shop")
    assert shown[0].split() == [
        *["NAME", "SERVICE", "ACCEPTED", "READY", "HEALTHY", "AT", "RISK", "PREDICTED"],
        *["PRESTOP", "AGE"],
    ]
    assert shown[1].split()[:11] == [
        *["shop", "shop:http", "True", "200/200", "True", "True"],
        *["pod-deletion:", "40", "lost", "2s", "(builtin)"],
    ]
