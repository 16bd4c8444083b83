"""A gateway that is slowed down on purpose: how soon the operator's preStop follows, and what rollouts fail then.

What tells the gateway of endpoints (Contour, Envoy Gateway's controller, kube-proxy), or with `--by proxy` the proxy itself, is stopped
for some seconds again and again (SIGSTOP), so that endpoints are forgotten late by up to that long. Rolling restarts of 3 guarded replicas
under load: before; then, slowed down, as soon as the preStop has followed, of pods that were made before and carry the old one (a
hook cannot be changed in a pod that is there); and the next one, of pods that were made since.

About 10 minutes a gateway: 3 to 5 until it is measured, up to 5 until the preStop follows, 3 restarts. As root on Linux; interrupted, the
same command goes on with the next gateway:

    .venv/bin/python tests/bench/slow_bench.py --gateway contour --json slow.json
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import click
import rollouts
from rich.console import Console
from rich.table import Table
from rollouts import Json, Rows, Scene

from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.report import run_json
from upstream_guard.lab.demo.runner import Cell, until_calm
from upstream_guard.lab.demo.scenarios import SCENARIOS
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.faults import inject
from upstream_guard.lab.faults.model import Scene as Faulty

ROLLOUT = SCENARIOS["rollout"]
GOAL_SECONDS = 300.0
PATIENCE_SECONDS = 600.0
"""How long the preStop may take to follow before this gives up."""
BREATH_SECONDS = 1.5
"""How long a process runs between two stops, to catch up with what it missed: longer than kube-proxy's `minSyncPeriod`.

With 0.3 s each of its turns took up one event, the next ones waited for the next turns, and endpoints were forgotten up
to 13 s late though it was stopped for 4 s at a time."""
SETTLE_SECONDS = 90.0
"""After the preStop has begun to follow: for the rest of the burst that the first slow toggle sets off."""


@dataclass(frozen=True, slots=True)
class Slowing:
    """How the gateway is slowed down."""

    by: str
    seconds: float

    def around(self, scene: Scene) -> AbstractAsyncContextManager[None]:
        """Slowed down while the context is open."""
        faulty = Faulty(scene.bench.cluster, scene.stage, scene.gateway)
        found = inject.list_keepers(faulty) if self.by == "controller" else inject.proxies(faulty)
        return inject.halting(found, self.seconds, BREATH_SECONDS)


async def stand(scene: Scene) -> None:
    """The guarded service, with the preStop that was measured."""
    await scene.until_measured()
    await scene.guarding.guard(scene.stage)
    made = variants.deployment(
        Variant.GUARDED,
        namespace=scene.stage.namespace,
        name=scene.stage.name,
        replicas=ROLLOUT.replicas,
        start_delay=ROLLOUT.start_delay,
    )
    await scene.stage.apply(made)
    await scene.stage.until_serving(ROLLOUT.replicas)
    await asyncio.to_thread(scene.bench.flush)
    await until_calm(scene.exposure)


async def pre_stop(scene: Scene) -> int:
    """What the guard's status says now, seconds."""
    status = (await scene.guard(scene.stage.name)).get("status") or {}
    return int((status.get("drain") or {}).get("preStopSeconds", 0))


async def follow(scene: Scene, wanted: float) -> list[tuple[float, int]]:
    """What the status says from now on: (seconds since now, preStop) after each change.

    Ends some time after it covers what is wanted, or when patience ends.
    """
    began, seen = time.monotonic(), [(0.0, await pre_stop(scene))]
    ends = PATIENCE_SECONDS
    while (now := time.monotonic() - began) < ends:
        found = await pre_stop(scene)
        if found != seen[-1][1]:
            seen.append((round(now, 1), found))
            click.echo(f"  {now:.0f} s: preStop {found} s")
        if ends == PATIENCE_SECONDS and found >= wanted:
            ends = min(ends, now + SETTLE_SECONDS)
        await asyncio.sleep(1)
    return seen


async def measure(scene: Scene, slowing: Slowing, rate: float, kept: float) -> Json:
    """Everything behind one gateway."""
    runner = scene.runner(rate, kept)

    async def rollout(name: str, repeat: int) -> Json:
        cell = Cell(scene.gateway, ROLLOUT, Variant.GUARDED, repeat)
        run = run_json(await runner.measure(cell, scene.stage, scene.exposure))
        hook, failed = run["pre_stop_seconds"], run["failed"]
        click.echo(f"  {name}: {failed} of {run['requests']} failed, with preStop {hook:g} s")
        return run

    await stand(scene)
    found: Json = {"seconds": slowing.seconds, "before": await rollout("before", 1)}
    async with slowing.around(scene):
        found["pre_stop"] = await follow(scene, slowing.seconds)
        status = (await scene.guard(scene.stage.name))["status"]
        found["risks"] = [risk.get("risk") for risk in status.get("risks") or ()]
        found["pods made before"] = await rollout("pods made before", 2)
        found["pods made since"] = await rollout("pods made since", 3)
    found["gateways"] = (await scene.guard(scene.stage.name))["status"]["gateways"]
    return found


async def behind(gateway: str, rows: Rows, slowing: Slowing, rate: float, kept: float) -> None:
    """Bring one gateway up, and do all of it."""
    with rollouts.lab(gateway) as bench:
        async with rollouts.scene(bench, gateway) as scene:
            click.echo(f"{gateway}: until it is measured")
            rows.add(gateway, await measure(scene, slowing, rate, kept))


def followed(row: Json) -> float | None:
    """Seconds until the preStop was first raised; 0 where it was long enough before, None where it never was."""
    (_, first), *later = row["pre_stop"]
    if first > row["seconds"]:
        return 0.0
    return next((at for at, seconds in later if seconds > first), None)


def report(gateways: Sequence[str], rows: Rows) -> bool:
    """Print what was found; whether the goals were reached everywhere."""
    titles = ("before", "pods made before", "pods made since")
    table = Table("gateway", "preStop", "followed after", *(f"failed: {t}" for t in titles))
    good = True
    for gateway in gateways:
        row = rows[gateway]
        after = followed(row)
        good = good and after is not None and after <= GOAL_SECONDS
        good = good and not row["pods made since"]["failed"]
        table.add_row(
            gateway,
            f"{row['pre_stop'][0][1]} → {row['pre_stop'][-1][1]} s",
            "never" if after is None else f"{after:.0f} s",
            *(f"{row[t]['failed']} of {row[t]['requests']}" for t in titles),
        )
    Console(width=120).print(table)
    return good


@click.command(cls=rollouts.Measurement)
@rollouts.gateways_option
@rollouts.json_option
@click.option(
    "--by", type=click.Choice(["controller", "proxy"]), default="controller", show_default=True,
    help="What is stopped again and again.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0.2, 8), default=4.0, show_default=True, help="For how long each time.",
)  # fmt: skip
@click.option("--rate", default=300.0, show_default=True, help="Requests a second.")
@rollouts.kept_option
def main(
    gateways: tuple[str, ...], path: Path | None, by: str, seconds: float, rate: float, kept: float
) -> None:
    """Slow gateways down, and see the operator follow."""
    slowing = Slowing(by, seconds)
    rows = Rows(path, {"by": by, "seconds": seconds, "rate": rate, "kept": kept})
    for gateway in gateways:
        if gateway not in rows:
            asyncio.run(behind(gateway, rows, slowing, rate, kept))
    raise SystemExit(0 if report(gateways, rows) else 1)


if __name__ == "__main__":
    main()
