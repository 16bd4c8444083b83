"""The canary beside real pods: what it says of each gateway, and how long real pods got requests.

Behind each gateway, one after another, with an operator that has measured nothing before: its canaries measure the gateway and
kube-proxy, and guarded deployments are restarted under load; for each pod the time is taken from its deletion (the API server's audit
log) to the last request that it answered, and from when it was listed (a watch) to the first. The pods carry a long hook of their own, so
that nothing fails and the last request is seen; what `preStop: Auto` asks for is in the guard's status.

- quiet: first the canaries, then the restarts, each after the one before has come to an end
- noisy: both at once, while the slice of another Service changes every 0.3 s
- kept: as quiet, with an app that keeps connections open, where the other two end each after one answer, as the canary's endpoints do

Expect 15 minutes a gateway: quiet 4 to 6 and 3, noisy 5, kept 1. As root on Linux; interrupted, the same command goes on where it was, and
no detach that was seen is lost:

    .venv/bin/python tests/bench/canary_bench.py --json canary.json
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import click
import rollouts
from rich.console import Console
from rich.table import Table
from rollouts import Json, Rows, Scene

from upstream_guard.core.latency import Latencies, latencies
from upstream_guard.kube.client import MERGE, ApiError, KubeClient
from upstream_guard.lab import replicas
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.bench import Bench
from upstream_guard.lab.demo.mirror import Mirror, Objects
from upstream_guard.lab.demo.runner import Exposed, until_calm
from upstream_guard.lab.demo.stage import ready_endpoints
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.gateways.profile import gateway_key
from upstream_guard.lab.report import RichReporter

PODS: Final = 6
HOOK_SECONDS: Final = 8
"""preStop of the pods: far longer than any gateway here needs."""
NOISE_SECONDS: Final = 0.3
"""Between two changes of another Service's slice."""
GOAL: Final = 0.95
"""Share of the real detaches that the preStop must cover."""
GOAL_PODS: Final = 100
"""Real detaches that this has to hold for, quiet and noisy together."""
ROLLOUT_SECONDS: Final = 110.0
AUDIT_DELETE: Final = b'"verb":"delete"'


@dataclass(frozen=True, slots=True)
class Phase:
    """Under which conditions the canary and real pods are compared."""

    name: str
    noisy: bool = False
    keeps: bool = False
    """The app keeps connections."""

    @property
    def counts(self) -> bool:
        """Whether the preStop must cover its detaches: where only the app can end them, none can."""
        return not self.keeps


PHASES: Final = (Phase("quiet"), Phase("noisy", noisy=True), Phase("kept", keeps=True))


class Load:
    """Requests at a fixed rate through one gateway, a new connection each; remembers when each pod answered."""

    def __init__(self, exposure: Exposed, rate: float) -> None:
        self._to = (exposure.address, exposure.port)
        head = f"GET / HTTP/1.1\r\nHost: {exposure.host}\r\nConnection: close\r\n\r\n"
        self._request, self._rate = head.encode(), rate
        self.first: dict[str, float] = {}
        """By pod, the Unix time at which the first request that it answered was sent."""
        self.last: dict[str, float] = {}
        """As `first`, of the last one."""
        self.sent = self.failed = 0
        self.began = 0.0
        """Unix time."""

    async def run(self) -> None:
        """Send until cancelled."""
        self.began = time.time()
        start, index = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while True:
                while start + index / self._rate <= time.monotonic():
                    index += 1
                    group.create_task(self._one())
                await asyncio.sleep(0.002)

    async def _one(self) -> None:
        at = time.time()
        self.sent += 1
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(*self._to)
                writer.write(self._request)
                answer = await reader.read()
                writer.close()
            pod = json.loads(answer.partition(b"\r\n\r\n")[2])["pod"]
        except (TimeoutError, OSError, ValueError, KeyError):
            self.failed += 1
            return
        self.first[pod] = min(self.first.get(pod, at), at)
        self.last[pod] = max(self.last.get(pod, at), at)


class Deletions:
    """When each pod of a namespace was deleted, by the API server's audit log."""

    def __init__(self, log: Path, namespace: str) -> None:
        self._log, self._namespace = log, namespace
        self._offset = log.stat().st_size

    def news(self) -> Iterator[tuple[str, float]]:
        """(pod, Unix time) since the last call."""
        with self._log.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                if AUDIT_DELETE in line and (found := self._deletion(json.loads(line))):
                    yield found

    def _deletion(self, event: Json) -> tuple[str, float] | None:
        ref = event.get("objectRef") or {}
        if ref.get("resource") != "pods" or ref.get("namespace") != self._namespace:
            return None
        if event["verb"] != "delete" or event.get("stage") != "ResponseComplete":
            return None
        at = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
        return str(ref["name"]), at


@dataclass(slots=True)
class Pods:
    """What befell the pods of a phase: listed, deleted, and what that meant for requests."""

    load: Load
    deletions: Deletions
    listed: dict[str, float] = field(default_factory=dict)
    deleted: dict[str, float] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    def look(self, at: float, slices: Objects) -> None:
        """Take note of who is listed at a Unix time."""
        for endpoint in ready_endpoints(slices):
            name = (endpoint.get("targetRef") or {}).get("name")
            if name:
                self.listed.setdefault(str(name), at)

    def ended(self, now: float) -> Iterator[tuple[str, Json]]:
        """Pods that are surely asked no more and were not told before, each with its latencies."""
        for pod, at in self.deletions.news():
            self.deleted.setdefault(pod, at)
        for pod, at in self.deleted.items():
            if pod in self.told or now < at + HOOK_SECONDS + 2 or pod not in self.load.last:
                continue
            self.told.add(pod)
            yield (
                pod,
                {
                    "detach": round(max(0.0, self.load.last[pod] - at), 4),
                    "attach": self._attach(pod),
                },
            )

    def _attach(self, pod: str) -> float | None:
        """None of pods that served before there were requests."""
        if self.listed.get(pod, 0.0) < self.load.began:
            return None
        return round(max(0.0, self.load.first[pod] - self.listed[pod]), 4)


@asynccontextmanager
async def noise(client: KubeClient, namespace: str) -> AsyncIterator[None]:
    """The slice of a Service that nobody asks changes all the time."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "noise"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }
    await client.create(f"/api/v1/namespaces/{namespace}/services", service)
    await client.create(path, _slice(0))

    async def change() -> None:
        turn = 0
        while True:
            turn += 1
            with suppress(ApiError):
                await client.patch(f"{path}/noise-1", _slice(turn), content_type=MERGE)
            await asyncio.sleep(NOISE_SECONDS)

    task = asyncio.create_task(change())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _slice(turn: int) -> Json:
    endpoint = {"addresses": [f"198.18.200.{turn % 2 + 1}"], "conditions": {"ready": True}}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "noise-1", "labels": {"kubernetes.io/service-name": "noise"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 9}],
        "endpoints": [endpoint],
    }


def deployment(scene: Scene, phase: Phase) -> Json:
    """The restarted pods: ready when they serve, with a hook of their own."""
    made = variants.deployment(
        Variant.TUNED,
        namespace=scene.stage.namespace,
        name=scene.stage.name,
        replicas=PODS,
        start_delay=0,
        hook=HOOK_SECONDS,
    )
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container["env"].append({"name": "KEEP_ALIVE", "value": str(int(phase.keeps))})
    return made


class Restarts:
    """Restarts a deployment under load until enough detaches were seen, and keeps each of them."""

    def __init__(self, scene: Scene, phase: Phase, rows: Rows, rate: float) -> None:
        self.scene, self.phase, self.rows = scene, phase, rows
        self.prefix = f"{scene.gateway}/{phase.name}/pod/"
        load = Load(scene.exposure, rate)
        log = scene.bench.cluster.audit_log
        self.pods = Pods(load, Deletions(log, scene.stage.namespace))

    async def run(self, wanted: int) -> None:
        """Until so many detaches are in the rows."""
        stage = self.scene.stage
        path = f"/apis/discovery.k8s.io/v1/namespaces/{stage.namespace}/endpointslices"
        selector = f"kubernetes.io/service-name={stage.name}"
        mirror = Mirror(self.scene.client, path, selector, self.pods.look)
        load = asyncio.create_task(self.pods.load.run())
        keeper = asyncio.create_task(self._keep())
        try:
            async with mirror:
                while len(self.rows.below(self.prefix)) < wanted:
                    await stage.kubectl("rollout", "restart", stage.deployment)
                    await stage.kubectl(
                        "rollout", "status", stage.deployment, f"--timeout={ROLLOUT_SECONDS:g}s"
                    )
                    if not self.phase.noisy:
                        await asyncio.sleep(HOOK_SECONDS + 2)
                await asyncio.sleep(HOOK_SECONDS + 3)
        finally:
            for task in (load, keeper):
                task.cancel()
            await asyncio.gather(load, keeper, return_exceptions=True)
        sent, failed = self.pods.load.sent, self.pods.load.failed
        self.rows.add(
            f"{self.scene.gateway}/{self.phase.name}/load", {"sent": sent, "failed": failed}
        )

    async def _keep(self) -> None:
        while True:
            for pod, row in self.pods.ended(time.time()):
                self.rows.add(f"{self.prefix}{pod}", row)
            await asyncio.sleep(0.5)


async def told(scene: Scene) -> Json:
    """What the guard of the restarted pods says: its preStop, and what was measured."""
    status = (await scene.guard(scene.stage.name))["status"]
    found = await scene.measured()
    wanted = {"gateway": gateway_key(scene.gateway), "kube-proxy": rollouts.KUBE_PROXY}
    return {
        "preStop": status["drain"]["preStopSeconds"],
        "evidence": status["drain"]["evidence"],
        "reason": status["drain"]["reason"],
        **{
            name: {
                "samples": found[key].detach.samples,
                "detach": _quantiles(found[key].detach),
                "attach": _quantiles(found[key].attach),
                "kept": _quantiles(found[key].kept),
                "sticks": found[key].sticks,
            }
            for name, key in wanted.items()
        },
    }


def _quantiles(found: Latencies | None) -> Json:
    return {} if found is None else {"p50": found.p50, "p99": found.p99, "max": found.max}


async def compare(bench: Bench, gateway: str, phase: Phase, rows: Rows, plan: "Plan") -> None:
    """One phase, with an operator of its own."""
    key, say = f"{gateway}/{phase.name}/canary", RichReporter()
    with replicas.operator(bench.cluster, say, replicas=1):
        async with AsyncExitStack() as stack:
            scene = await stack.enter_async_context(rollouts.scene(bench, gateway))
            if phase.noisy:
                await stack.enter_async_context(noise(scene.client, scene.stage.namespace))
            stage = scene.stage
            await stage.apply(variants.guard(namespace=stage.namespace, name=stage.name))
            await stage.apply(deployment(scene, phase))
            await stage.until_serving(PODS)
            await until_calm(scene.exposure)
            restarts = Restarts(scene, phase, rows, plan.rate)
            if phase.counts and not phase.noisy:
                await scene.until_measured(plan.samples)
                rows.add(key, await told(scene))
            both = [restarts.run(plan.pods[phase.name])]
            if phase.counts and phase.noisy:
                both.append(_measure_meanwhile(scene, rows, key, plan.samples))
            await asyncio.gather(*both)
            click.echo(summary(gateway, phase, rows))


async def _measure_meanwhile(scene: Scene, rows: Rows, key: str, samples: int) -> None:
    await scene.until_measured(samples)
    rows.add(key, await told(scene))


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for."""

    rate: float
    samples: int
    pods: dict[str, int]


def missing(gateway: str, rows: Rows, plan: Plan) -> list[Phase]:
    """Phases that are not done."""
    return [
        phase
        for phase in PHASES
        if len(rows.below(f"{gateway}/{phase.name}/pod/")) < plan.pods[phase.name]
        or (phase.counts and f"{gateway}/{phase.name}/canary" not in rows)
    ]


def real(gateway: str, phase: Phase, rows: Rows) -> list[Json]:
    """The pods of a phase."""
    return rows.below(f"{gateway}/{phase.name}/pod/")


def covered(gateway: str, rows: Rows) -> tuple[int, int]:
    """How many of the real detaches the preStop of their phase covers, and of how many."""
    inside = total = 0
    for phase in PHASES:
        key = f"{gateway}/{phase.name}/canary"
        if phase.counts and key in rows:
            detaches = [row["detach"] for row in real(gateway, phase, rows)]
            inside += sum(seconds <= rows[key]["preStop"] for seconds in detaches)
            total += len(detaches)
    return inside, total


def summary(gateway: str, phase: Phase, rows: Rows) -> str:
    """One line about a phase."""
    found = latencies(row["detach"] for row in real(gateway, phase, rows))
    if found is None:
        return f"{gateway}, {phase.name}: no detach was seen"
    return (
        f"{gateway}, {phase.name}: {found.samples} detaches, p50 {found.p50 * 1000:.0f} ms, "
        f"p99 {found.p99 * 1000:.0f} ms, max {found.max * 1000:.0f} ms"
    )


def report(gateways: Sequence[str], rows: Rows) -> bool:
    """The table, milliseconds, and the verdict."""
    table = Table("gateway", "", "what", "n", "p50", "p99", "max", "preStop")
    for gateway in gateways:
        for phase in PHASES:
            for cells in _lines(gateway, phase, rows):
                table.add_row(gateway, phase.name, *cells)
    console = Console(width=110)
    console.print(table)
    good = True
    for gateway in gateways:
        inside, total = covered(gateway, rows)
        held = total >= GOAL_PODS and inside >= GOAL * total
        good = good and held
        mark = "[green]✓[/green]" if held else "[red]✗[/red]"
        console.print(f"{mark} {gateway}: the preStop covers {inside} of {total} real detaches")
    return good


def _lines(gateway: str, phase: Phase, rows: Rows) -> Iterator[list[str]]:
    key = f"{gateway}/{phase.name}/canary"
    if key in rows:
        found = rows[key]
        for who in ("gateway", "kube-proxy"):
            for what in ("detach", "attach"):
                hook = f"{found['preStop']} s" if (who, what) == ("gateway", "detach") else ""
                yield [
                    f"canary, {who}: {what}",
                    str(found[who]["samples"]),
                    *_ms(found[who][what]),
                    hook,
                ]
            if found[who]["sticks"]:
                yield [f"canary, {who}: kept connections stay until the app ends them", *[""] * 5]
    for what in ("detach", "attach"):
        measured = latencies(
            row[what] for row in real(gateway, phase, rows) if row[what] is not None
        )
        if measured is not None:
            yield [f"real pods: {what}", str(measured.samples), *_ms(_quantiles(measured)), ""]


def _ms(quantiles: Json) -> list[str]:
    return [f"{1000 * quantiles[q]:.0f}" if q in quantiles else "-" for q in ("p50", "p99", "max")]


@click.command(cls=rollouts.Measurement)
@rollouts.gateways_option
@rollouts.json_option
@click.option("--quiet", default=60, show_default=True, help="Real detaches in peace.")
@click.option("--noisy", default=60, show_default=True, help="While other slices change.")
@click.option("--kept", default=18, show_default=True, help="Of an app that keeps connections.")
@click.option(
    "--samples",
    default=rollouts.ENOUGH_SAMPLES,
    show_default=True,
    help="Of each canary, in each phase.",
)
@click.option("--rate", default=150.0, show_default=True, help="Requests a second.")
def main(
    gateways: tuple[str, ...],
    path: Path | None,
    quiet: int,
    noisy: int,
    kept: int,
    samples: int,
    rate: float,
) -> None:
    """Compare what canaries say with what real pods get."""
    plan = Plan(rate, samples, {"quiet": quiet, "noisy": noisy, "kept": kept})
    rows = Rows(path, {"rate": rate, "samples": samples})
    for gateway in gateways:
        if todo := missing(gateway, rows, plan):
            with rollouts.lab(gateway, guarded=False) as bench:
                replicas.install(bench.cluster, RichReporter())
                for phase in todo:
                    asyncio.run(compare(bench, gateway, phase, rows, plan))
    raise SystemExit(0 if report(gateways, rows) else 1)


if __name__ == "__main__":
    main()
