"""Live predictions on a real cluster: told before the first request fails, and not where none does."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import pytest

from upstream_guard.kube.client import KubeClient
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.bench import Bench, Wish, open_bench
from upstream_guard.lab.demo.guarding import KubectlGuarding
from upstream_guard.lab.demo.hearing import Hearing
from upstream_guard.lab.demo.runner import load_on, until_calm
from upstream_guard.lab.demo.scenarios import SCENARIOS, Scenario
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.telling import Told
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.model import Cluster
from upstream_guard.lab.report import QuietReporter

pytestmark = pytest.mark.cluster

Json = dict[str, Any]

NAMESPACE = "ug-predictions"
GATEWAY = "nginx"
RATE = 100.0
QUIET_SECONDS = 3.0
EVENT_SECONDS = 20.0
SETTLE_SECONDS = 60.0
CERTAIN: Final = 5.0
"""Seconds until an app serves: without a probe, requests fail then at the 10 requests a second that are
assumed of a rate nobody has measured, and not only at this test's."""
RACE_SECONDS: Final = 1.0
"""A deletion takes effect within a tenth of a second: on a busy machine, telling of it is a race."""

CHANGES: Final = {
    "rollout": SCENARIOS["rollout"],
    "scale-in": SCENARIOS["scale-in"],
    "drain": replace(SCENARIOS["drain"], start_delay=CERTAIN),
}
ACTIONS: Final = {
    "rollout": ("rollout", "PredictRollout"),
    "scale-in": ("scale-in", "PredictScaleIn"),
    "drain": ("node-drain", "PredictNodeDrain"),
}
"""What each change is called, in the status and by its event."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One change: what was told of it, and what became of the requests. Unix seconds."""

    began: float
    told: tuple[Told, ...]
    entries: tuple[Json, ...]
    failures: tuple[float, ...]


@pytest.fixture(scope="module")
def bench(cluster: Cluster) -> Iterator[Bench]:
    wish = Wish((GATEWAY,), True, None, None, False, cluster.state_dir / "predictions")
    with open_bench(wish, QuietReporter(), cluster.state_dir) as opened:
        yield opened


@pytest.fixture(scope="module", autouse=True)
def namespace(bench: Bench) -> Iterator[None]:
    yield
    client_args = ("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")

    async def run() -> None:
        process = await asyncio.create_subprocess_exec(*bench.cluster.kubectl_command(*client_args))
        await process.wait()

    asyncio.run(run())


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
    """Until the guard is in force and nothing is under way."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        status = await status_of(stage)
        conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
        if conditions.get("Accepted") == "True" and not status.get("predictions"):
            return
        await asyncio.sleep(0.2)
    pytest.fail(f"the guard was not settled within {SETTLE_SECONDS:g} s: {status}")


async def watch_change(bench: Bench, stage: Stage, scenario: Scenario, *, told: bool) -> Seen:
    """The change under load, and everything that was told of it."""
    exposure = bench.expose(GATEWAY, stage.namespace, stage.name)
    await asyncio.to_thread(bench.flush)
    await until_calm(exposure)
    await settled(stage)
    entries: dict[str, Json] = {}
    hearing = Hearing(stage.client, stage.namespace, stage.name)
    async with load_on(exposure, RATE) as load, hearing:
        await asyncio.sleep(QUIET_SECONDS)
        watching = asyncio.create_task(collect_entries(stage, entries))
        began = time.time()
        await scenario.change(stage)
        await stage.until_serving(scenario.replicas_after)
        await asyncio.sleep(QUIET_SECONDS)
        if told:
            await hearing.until_told(EVENT_SECONDS)
        watching.cancel()
        records = await load.stop()
    failures = sorted(r.sent for r in records if r.failed and r.sent >= began)
    return Seen(began, hearing.told, tuple(entries.values()), tuple(failures))


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
    place = {"namespace": NAMESPACE, "name": f"{scenario.name}-{variant.value}"}
    guarding = KubectlGuarding(client)
    try:
        async with Stage(bench.cluster, client, **place) as stage:
            await stage.apply(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
                variants.service(**place),
            )
            guarded = variant is Variant.GUARDED
            await (guarding.guard(stage) if guarded else guarding.look_on(stage))
            try:
                await deployed(stage, scenario, variant)
                return await watch_change(bench, stage, scenario, told=not guarded)
            finally:
                await guarding.release(stage)
                await stage.kubectl("delete", stage.deployment, "--wait=false")
                await stage.clear_pods()
    finally:
        await client.close()


@pytest.mark.parametrize("name", CHANGES)
def test_a_window_is_told_before_it_opens(bench: Bench, name: str, record_property) -> None:
    seen = asyncio.run(conduct(bench, CHANGES[name], Variant.PLAIN))
    kind, action = ACTIONS[name]
    assert seen.failures, "without probe and hook, requests fail"
    assert [told.action for told in seen.told] == [action]
    (told,) = seen.told
    lead = seen.failures[0] - told.written
    record_property("lead_seconds", round(lead, 3))
    record_property("lead_as_a_watch_saw_it_seconds", round(seen.failures[0] - told.seen, 3))
    record_property("told_after_seconds", round(told.written - seen.began, 3))
    assert lead > (0 if name == "rollout" else -RACE_SECONDS)
    assert {entry["change"] for entry in seen.entries} == {kind}
    assert all(_unix(entry["madeAt"]) <= told.written + 0.01 for entry in seen.entries)
    assert "to prevent it: " in told.note


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_guard_prevents_is_not_told(bench: Bench, name: str) -> None:
    seen = asyncio.run(conduct(bench, CHANGES[name], Variant.GUARDED))
    assert len(seen.failures) <= 2, "a guarded service loses no requests"
    assert seen.told == ()
    assert seen.entries == ()


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
