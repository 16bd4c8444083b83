"""Live predictions on a real cluster: told before the first request fails, and not where none does."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from upstream_guard.kube.client import KubeClient
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.bench import Bench, Wish, open_bench
from upstream_guard.lab.demo.guarding import KubectlGuarding
from upstream_guard.lab.demo.runner import load_on, until_calm
from upstream_guard.lab.demo.scenarios import SCENARIOS, Scenario
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.model import Cluster
from upstream_guard.lab.report import QuietReporter

pytestmark = pytest.mark.cluster

Json = dict[str, Any]

NAMESPACE = "ug-predictions"
GATEWAY = "nginx"
RATE = 100.0
QUIET_SECONDS = 3.0
EVENT_SECONDS = 10.0
REVIEW_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One change: what was told of it, and what became of the requests. Unix seconds."""

    began: float
    told: tuple[float, ...]
    notes: tuple[str, ...]
    entries: tuple[Json, ...]
    failures: tuple[float, ...]


@pytest.fixture(scope="module")
def bench(cluster: Cluster) -> Iterator[Bench]:
    wish = Wish((GATEWAY,), True, None, None, False, cluster.state_dir / "predictions")
    with open_bench(wish, QuietReporter(), cluster.state_dir) as opened:
        yield opened


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def predicted(stage: Stage) -> list[Json]:
    path = f"/apis/events.k8s.io/v1/namespaces/{stage.namespace}/events"
    events, _ = await stage.client.list_pages(path)
    return [e for e in events if e["reason"] == "WindowPredicted"]


async def status_of(stage: Stage) -> Json:
    text = await stage.kubectl("get", "ug", stage.name, "--output=json")
    status: Json = json.loads(text).get("status") or {}
    return status


async def collect_entries(stage: Stage, found: dict[str, Json]) -> None:
    """Every prediction that the status ever shows, by what it is and when it was made."""
    while True:
        for entry in (await status_of(stage)).get("predictions", ()):
            found[f"{entry['change']} {entry['risk']} {entry['madeAt']}"] = entry
        await asyncio.sleep(0.3)


async def settled(stage: Stage) -> None:
    """Until the guard has reviewed the Service and nothing is under way."""
    deadline = time.monotonic() + REVIEW_SECONDS
    while time.monotonic() < deadline:
        status = await status_of(stage)
        conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
        if conditions.get("Accepted") == "True" and not status.get("predictions"):
            return
        await asyncio.sleep(0.2)
    pytest.fail(f"the guard was not settled within {REVIEW_SECONDS:g} s: {status}")


async def watch_change(bench: Bench, stage: Stage, scenario: Scenario) -> Seen:
    """The change under load, and everything that was told of it."""
    exposure = bench.expose(GATEWAY, stage.namespace, stage.name)
    await asyncio.to_thread(bench.flush)
    await until_calm(exposure)
    await settled(stage)
    before = {e["metadata"]["name"] for e in await predicted(stage)}
    entries: dict[str, Json] = {}
    async with load_on(exposure, RATE) as load:
        await asyncio.sleep(QUIET_SECONDS)
        watching = asyncio.create_task(collect_entries(stage, entries))
        began = time.time()
        await scenario.change(stage)
        await stage.until_serving(scenario.replicas_after)
        await asyncio.sleep(QUIET_SECONDS)
        watching.cancel()
        records = await load.stop()
    events = [e for e in await predicted(stage) if e["metadata"]["name"] not in before]
    return Seen(
        began,
        tuple(sorted(unix(e["eventTime"]) for e in events)),
        tuple(e["note"] for e in events),
        tuple(entries.values()),
        tuple(sorted(r.sent for r in records if r.failed and r.sent >= began)),
    )


async def deployed(stage: Stage, scenario: Scenario, variant: Variant) -> None:
    await stage.apply(
        variants.deployment(
            variant,
            namespace=stage.namespace,
            name=stage.name,
            replicas=scenario.replicas,
            start_delay=scenario.start_delay,
        )
    )
    await stage.until_serving(scenario.replicas)


async def conduct(bench: Bench, scenario: Scenario, variant: Variant) -> Seen:
    """One change of one service: with a guard that only looks on, or with one that protects."""
    client = await KubeClient.connect(str(bench.cluster.kubeconfig), bench.cluster.context)
    name = f"{scenario.name}-{variant.value}"
    place = {"namespace": NAMESPACE, "name": name}
    try:
        async with Stage(bench.cluster, client, NAMESPACE, name) as stage:
            await stage.apply(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
                variants.service(**place),
            )
            guard = variants.guard(**place)
            if variant is Variant.GUARDED:
                await KubectlGuarding(client).guard(stage)
            else:
                off = {"drain": {"mode": "Off"}, "upstreamList": {"mode": "Observe"}}
                guard["spec"] |= off
                await stage.apply(guard)
            await deployed(stage, scenario, variant)
            try:
                return await watch_change(bench, stage, scenario)
            finally:
                await stage.delete(guard)
                await stage.kubectl("delete", stage.deployment, "--wait=false")
                await stage.clear_pods()
    finally:
        await client.close()


@pytest.fixture(scope="module", autouse=True)
def namespace(bench: Bench) -> Iterator[None]:
    yield
    client_args = ("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
    command = bench.cluster.kubectl_command(*client_args)

    async def run() -> None:
        process = await asyncio.create_subprocess_exec(*command)
        await process.wait()

    asyncio.run(run())


@pytest.mark.parametrize("name", ["rollout", "scale-in", "drain"])
def test_a_window_is_told_before_it_opens(bench: Bench, name: str, record_property) -> None:
    seen = asyncio.run(conduct(bench, SCENARIOS[name], Variant.PLAIN))
    assert seen.failures, "without probe and hook, requests fail"
    assert len(seen.told) == 1, seen.notes
    lead = seen.failures[0] - seen.told[0]
    record_property("lead_seconds", round(lead, 3))
    record_property("told_after_seconds", round(seen.told[0] - seen.began, 3))
    print(
        f"{name}: told {seen.told[0] - seen.began:.3f} s after kubectl began, {lead:.3f} s before the "
        f"first of {len(seen.failures)} failed requests\n{seen.notes[0]}"
    )
    # A deletion takes effect within a tenth of a second: on a busy machine that can be a race.
    assert lead > (0 if kind == "rollout" else -1)
    kind = {"drain": "node-drain"}.get(name, name)
    assert {entry["change"] for entry in seen.entries} == {kind}
    assert all(unix(entry["madeAt"]) <= seen.told[0] + 0.01 for entry in seen.entries)
    assert "to prevent it: " in seen.notes[0]


@pytest.mark.parametrize("name", ["rollout", "scale-in", "drain"])
def test_what_the_guard_prevents_is_not_told(bench: Bench, name: str) -> None:
    seen = asyncio.run(conduct(bench, SCENARIOS[name], Variant.GUARDED))
    assert len(seen.failures) <= 2, "a guarded service loses no requests"
    assert seen.notes == ()
    assert seen.entries == ()
