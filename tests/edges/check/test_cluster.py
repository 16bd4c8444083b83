"""A running cluster as the source: what is listed, and what is said about what cannot be."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from upstream_guard.cli.check.analysis import Question, analyse
from upstream_guard.cli.check.cluster import read_cluster
from upstream_guard.cli.check.command import command
from upstream_guard.core.predict.facts import Facts
from upstream_guard.kube.client import KubeClient

LABELS = {"app": "shop"}
POD = {
    "metadata": {"labels": LABELS},
    "spec": {"containers": [{"name": "web", "ports": [{"containerPort": 80}]}]},
}
META = {"name": "shop", "namespace": "prod"}
ITEMS = {
    "services": [{"metadata": META, "spec": {"selector": LABELS, "ports": [{"port": 80}]}}],
    "deployments": [
        {
            "metadata": META,
            "spec": {"replicas": 2, "selector": {"matchLabels": LABELS}, "template": POD},
        }
    ],
}


@pytest.fixture
def serve(api: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Answers lists with `ITEMS`, and some resources with a status."""

    async def connect(_kubeconfig: str | None, _context: str | None) -> KubeClient:
        client: KubeClient = api.client
        return client

    monkeypatch.setattr(KubeClient, "connect", connect)

    def set_up(**statuses: int) -> None:
        async def handler(request: Any, _body: object) -> Any:
            plural = request.path.rsplit("/", 1)[-1]
            if plural in statuses:
                return api.failure(statuses[plural])
            return 200, {"metadata": {}, "items": ITEMS.get(plural, [])}

        api.handler = handler

    return set_up


async def test_everything_is_listed_and_nothing_written(
    api: Any, serve: Callable[..., None]
) -> None:
    serve()
    inputs = await read_cluster(None, "stage", ())
    assert inputs.complete
    assert not inputs.troubles
    assert {verb for verb, *_ in api.requests} == {"GET"}
    assert "/apis/gateway.networking.k8s.io/v1/httproutes" in {path for _, path, *_ in api.requests}
    found, services = analyse(
        inputs.objects, Question(Facts(), complete=inputs.complete), inputs.troubles
    )
    assert services == 1
    risks = {f.problem.finding.risk for f in found}
    assert "no-readiness-probe" in risks
    located = inputs.objects[0]
    assert str(located.location("spec.ports")) == "cluster stage"


async def test_guards_of_the_cluster_count(api: Any, serve: Callable[..., None]) -> None:
    """What a guard prevents is not predicted, and one that is not in force is told."""
    serve()
    spec = {"targetRef": {"name": "shop"}}
    lost = {"metadata": {**META, "name": "lost"}, "spec": {"targetRef": {"name": "shopp"}}}
    guards = [{"metadata": META, "spec": spec}, lost]

    async def handler(request: Any, _body: object) -> Any:
        plural = request.path.rsplit("/", 1)[-1]
        return 200, {"metadata": {}, "items": {**ITEMS, "upstreamguards": guards}.get(plural, [])}

    api.handler = handler
    inputs = await read_cluster(None, None, ())
    assert "/apis/upstreamguard.io/v1alpha1/gatewayprofiles" in {p for _, p, *_ in api.requests}
    found, _ = analyse(inputs.objects, Question(Facts(), complete=inputs.complete), [])
    risks = {f.problem.finding.risk: str(f.problem.finding.ref) for f in found}
    assert risks["guard-not-accepted"] == "prod/lost"
    assert "no-pre-stop" not in risks


async def test_namespaces(api: Any, serve: Callable[..., None]) -> None:
    serve()
    inputs = await read_cluster(None, None, ("a", "b"))
    paths = {path for _, path, *_ in api.requests}
    assert {
        "/api/v1/namespaces/a/services",
        "/api/v1/namespaces/b/services",
        "/api/v1/nodes",
    } <= paths
    assert "/api/v1/services" not in paths
    assert not inputs.complete


async def test_kinds_that_are_missing_or_forbidden_are_named(serve: Callable[..., None]) -> None:
    serve(httproutes=404, nodes=403)
    inputs = await read_cluster(None, None, ())
    assert inputs.notes == ["HTTPRoute: this cluster does not have the kind"]
    (trouble,) = inputs.troubles
    assert "Node: not allowed to list them" in str(trouble)
    assert not trouble.fatal
    assert not inputs.complete
    assert len(inputs.objects) == 2


async def test_without_services_nothing_can_be_checked(serve: Callable[..., None]) -> None:
    serve(services=403)
    inputs = await read_cluster(None, None, ())
    assert [t.fatal for t in inputs.troubles] == [True]


async def test_expired_credentials_are_told_once(api: Any, serve: Callable[..., None]) -> None:
    serve()

    async def refuse(_request: Any, _body: object) -> Any:
        return api.failure(401, "Unauthorized")

    api.handler = refuse
    inputs = await read_cluster(None, "stage", ())
    (trouble,) = inputs.troubles
    assert str(trouble) == "cluster stage: cannot be read: Unauthorized: no"
    assert trouble.fatal
    assert not inputs.complete


def test_a_server_that_is_down_is_told_once_and_nothing_else(tmp_path: Path) -> None:
    config = tmp_path / "config"
    with socket.socket() as unused:
        # Bound without a listener: connections are refused, and no other program gets the port.
        unused.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{unused.getsockname()[1]}"
        config.write_text(
            json.dumps(
                {
                    "current-context": "c",
                    "clusters": [{"name": "c", "cluster": {"server": server}}],
                    "users": [{"name": "c", "user": {}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
                }
            )
        )
        result = CliRunner().invoke(command, ["--kubeconfig", str(config), "--context", "c"])
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: cluster c: cannot be read: Unreachable: ")
