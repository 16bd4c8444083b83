"""Nodes that are lost, and nodes that are drained of a Service's only pod, on a real cluster."""

import asyncio
import json
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.test_demo import demo

from upstream_guard.kube.client import KubeClient
from upstream_guard.lab import replicas
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.guarding import KubectlGuarding
from upstream_guard.lab.demo.report import NODE_LOSS_SECONDS
from upstream_guard.lab.demo.runner import load_on, until_calm
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.gateways import GATEWAYS
from upstream_guard.lab.gateways.model import Exposure, ServiceTarget
from upstream_guard.lab.images import build_upstream_image
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import Cluster
from upstream_guard.lab.report import QuietReporter

pytestmark = pytest.mark.cluster

RATE = 100.0
GATEWAY = "contour"
POLL_SECONDS = 0.1


def test_no_request_is_sent_to_a_lost_node_for_longer_than_two_seconds(
    cluster: Cluster, tmp_path: Path
) -> None:
    figures = tmp_path / "runs.json"
    done = demo(
        "--gateway", GATEWAY, "--scenario", "node-loss", "--variant", "guarded",
        "--json", str(figures), "--picture", str(tmp_path / "timeline.png"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(figures.read_text())["runs"]
    assert run["opened_for_seconds"] <= NODE_LOSS_SECONDS
    assert run["failed"] > 0, "the node was not lost"
    assert run["min_listed"] == 2
    assert "NodeLost" in done.stdout
    subprocess.run(cluster.kubectl_command("get", "nodes"), capture_output=True, check=True)


@dataclass(frozen=True, slots=True)
class Shop:
    """A guarded Service behind a gateway, with the only pod of its Deployment."""

    stage: Stage
    exposure: Exposure

    async def replicas(self) -> int:
        found = await self.stage.kubectl(
            "get", self.stage.deployment, "--output=jsonpath={.spec.replicas}"
        )
        return int(found)


@pytest.fixture
def ready(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the operator, its right to scale, and a gateway."""
    say = QuietReporter()
    LocalProvider(cluster.state_dir).load_image(cluster, build_upstream_image(say), say)
    replicas.install(cluster, say)
    apply = ("apply", f"--kustomize={replicas.manifests_folder() / 'surge'}")
    subprocess.run(cluster.kubectl_command(*apply), capture_output=True, check=True)
    GATEWAYS[GATEWAY].up(cluster, say)
    with replicas.operator(cluster, say, prefix="nodes"):
        yield cluster


@pytest.fixture
async def shop(ready: Cluster) -> AsyncIterator[Shop]:
    cluster, gateway = ready, GATEWAYS[GATEWAY]
    async with AsyncExitStack() as stack:
        client = await KubeClient.connect(str(cluster.kubeconfig), cluster.context)
        stack.push_async_callback(client.close)
        namespace = f"ug-nodes-{secrets.token_hex(2)}"
        await client.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        stack.push_async_callback(client.delete, f"/api/v1/namespaces/{namespace}")
        stage = await stack.enter_async_context(Stage(cluster, client, namespace, "shop"))
        await stage.apply(variants.service(namespace=namespace, name="shop"))
        await KubectlGuarding(client).guard(stage)
        target = ServiceTarget(namespace, "shop")
        exposure = await asyncio.to_thread(gateway.expose, cluster, target)
        stack.callback(gateway.unexpose, cluster, target)
        yield Shop(stage, exposure)


async def deploy_one(stage: Stage) -> None:
    place = {"namespace": stage.namespace, "name": stage.name}
    made = variants.guard(**place)
    made["spec"]["drain"] = {"surgeBeforeEvict": True}
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": place,
        "spec": {
            "minAvailable": 1,
            "selector": {"matchLabels": {variants.APP_LABEL: stage.name}},
        },
    }
    one = variants.deployment(Variant.GUARDED, **place, replicas=1, start_delay=1.0)
    await stage.apply(made, budget, one)
    await stage.until_serving(1)


async def test_the_only_pod_is_drained_without_a_failed_request(shop: Shop) -> None:
    stage = shop.stage
    await deploy_one(stage)
    await until_calm(shop.exposure)
    (old,) = stage.pods()
    node = old["spec"]["nodeName"]
    try:
        async with load_on(shop.exposure, RATE) as load:
            selector = f"--pod-selector={variants.APP_LABEL}={stage.name}"
            await stage.kubectl("drain", node, "--ignore-daemonsets", selector, "--timeout=90s")
            await stage.until_gone([old["metadata"]["uid"]])
            await stage.until_pods(1)
            await stage.until_serving(1)
            records = await load.stop()
    finally:
        await asyncio.shield(stage.kubectl("uncordon", node))
    assert await shop.replicas() == 1
    assert [r for r in records if r.failed] == []
    events = await stage.kubectl("get", "events", "--output=jsonpath={.items[*].reason}")
    assert {"ReplicaAdded", "ReplicaPutBack"} <= set(events.split())
    drain = await until_forgotten(stage)
    assert drain["app"]["samples"] >= 1
    assert drain["app"]["onSigterm"] in {"AtOnce", "Drains"}


async def until_forgotten(stage: Stage, seconds: float = 30.0) -> dict[str, Any]:
    """`status.drain`, once it remembers no replica any more."""
    deadline = time.monotonic() + seconds
    while True:
        text = await stage.kubectl("get", "ug", stage.name, "--output=jsonpath={.status.drain}")
        drain: dict[str, Any] = json.loads(text)
        if "surge" not in drain:
            return drain
        assert time.monotonic() < deadline, drain
        await asyncio.sleep(POLL_SECONDS)
