"""Guarded rolling restarts under load, beside fixed preStop hooks, and the shortest hook that fails no request.

Behind each gateway, once the operator has measured it: rolling restarts of 3 replicas at 300 requests a second, half of them over
kept-alive client connections. Guarded ones, with the preStop that the operator chose; ones with a readiness probe and a fixed hook
instead; and, by halving, the shortest fixed hook (whole seconds, as Kubernetes has them) behind which no request fails in any of
its repeats.

About 20 minutes a gateway: 3 to 5 until it is measured, 20 guarded restarts of 25 seconds, 9 with fixed hooks, up to 9 for the
search. As root on Linux; interrupted, the same command goes on where it was:

    .venv/bin/python tests/bench/hook_bench.py --json hooks.json

A gateway that keeps a client's connection to the pod that it has (HAProxy) asks that pod until the app ends the connection, whatever
hooks do: what remains then is the app's, and `--app go-graceful` shows it with an app that finishes its requests.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import rollouts
from rich.console import Console
from rich.table import Table
from rollouts import Json, Rows, Scene

from upstream_guard.lab.demo.runner import Cell
from upstream_guard.lab.demo.scenarios import SCENARIOS
from upstream_guard.lab.demo.variants import APPS, GO, App, Variant

ROLLOUT = SCENARIOS["rollout"]
WITHIN_SECONDS = 1
"""The goal: the operator's preStop is at most so much longer than the shortest hook that fails nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for."""

    rate: float
    kept: float
    repeats: int
    hooks: tuple[int, ...]
    hook_repeats: int
    app: App = GO


def guarded_key(gateway: str, repeat: int) -> str:
    """Of a guarded restart."""
    return f"{gateway}/guarded/{repeat}"


def hook_key(gateway: str, hook: int, repeat: int) -> str:
    """Of a restart with a fixed hook."""
    return f"{gateway}/hook/{hook}/{repeat}"


async def shortest(passes: Callable[[int], Awaitable[bool]], most: int) -> int | None:
    """The least whole number up to `most` that passes, by halving; None where not even `most` does."""
    if not await passes(most):
        return None
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if await passes(middle):
            high = middle
        else:
            low = middle + 1
    return high


async def measure(scene: Scene, rows: Rows, plan: Plan) -> None:
    """Everything behind one gateway that is not in the rows yet."""
    gateway = scene.gateway
    runner = scene.runner(plan.rate, plan.kept)

    async def run(key: str, cell: Cell) -> Json:
        if key not in rows:
            rows.add(key, await scene.rollout(runner, cell))
            click.echo(f"{key}: {rows[key]['failed']} of {rows[key]['requests']} failed")
        return rows[key]

    async def fixed(hook: int, repeat: int) -> Json:
        cell = Cell(gateway, ROLLOUT, Variant.TUNED, repeat, plan.app, hook)
        return await run(hook_key(gateway, hook, repeat), cell)

    async def passes(hook: int) -> bool:
        for repeat in range(1, plan.hook_repeats + 1):
            if (await fixed(hook, repeat))["failed"]:
                return False
        return True

    for repeat in range(1, plan.repeats + 1):
        cell = Cell(gateway, ROLLOUT, Variant.GUARDED, repeat, plan.app)
        await run(guarded_key(gateway, repeat), cell)
    for hook in plan.hooks:
        for repeat in range(1, plan.hook_repeats + 1):
            await fixed(hook, repeat)
    found = await shortest(passes, min(plan.hooks))
    rows.add(f"{gateway}/shortest", {"seconds": found})


async def behind(gateway: str, rows: Rows, plan: Plan) -> None:
    """Bring one gateway up, have it measured, and do what is to be done."""
    with rollouts.lab(gateway, apps=(plan.app,)) as bench:
        async with rollouts.scene(bench, gateway) as scene:
            click.echo(f"{gateway}: until it is measured")
            found = await scene.until_measured()
            told = {f"{kind} {name}": m.detach.p99 for (kind, name), m in found.items()}
            rows.add(f"{gateway}/measured", {"detach_p99_seconds": told})
            await measure(scene, rows, plan)


def report(gateways: Sequence[str], rows: Rows, plan: Plan) -> bool:
    """Print what was found; whether the goals were reached everywhere."""
    table = Table("gateway", "restarts", "n", "failed", "on kept", "of", "preStop", "change, s")
    verdicts = []
    for gateway in gateways:
        guarded = rows.below(f"{gateway}/guarded/")
        sets = [("guarded", guarded)]
        hooks = sorted({int(r["pre_stop_seconds"]) for r in rows.below(f"{gateway}/hook/")})
        sets += [(f"fixed {h} s", rows.below(f"{gateway}/hook/{h}/")) for h in hooks]
        for name, found in sets:
            table.add_row(gateway, name, *_cells(found))
        verdicts.append(_verdict(gateway, rows, guarded, plan.repeats))
    console = Console(width=110)
    console.print(table)
    for good, text in verdicts:
        console.print(f"{'[green]✓[/green]' if good else '[red]✗[/red]'} {text}")
    return all(good for good, _ in verdicts)


def _cells(found: Sequence[Json]) -> list[str]:
    if not found:
        return ["0"]
    hooks = sorted({row["pre_stop_seconds"] for row in found})
    return [
        str(len(found)),
        str(sum(row["failed"] for row in found)),
        str(sum(row["kept_failed"] for row in found)),
        str(sum(row["requests"] for row in found)),
        ", ".join(f"{hook:g} s" for hook in hooks),
        f"{median(row['change_seconds'] for row in found):.1f}",
    ]


def _verdict(gateway: str, rows: Rows, guarded: Sequence[Json], repeats: int) -> tuple[bool, str]:
    failed = sum(row["failed"] for row in guarded)
    chosen = max((row["pre_stop_seconds"] for row in guarded), default=0)
    least = rows[f"{gateway}/shortest"]["seconds"] if f"{gateway}/shortest" in rows else None
    shortest_text = "no fixed hook fails nothing" if least is None else f"the shortest is {least} s"
    good = len(guarded) >= repeats and not failed
    good = good and least is not None and chosen <= least + WITHIN_SECONDS
    return good, (
        f"{gateway}: {failed} failed in {len(guarded)} guarded restarts; preStop {chosen:g} s, {shortest_text}"
    )


@click.command(cls=rollouts.Measurement)
@rollouts.gateways_option
@rollouts.json_option
@click.option("--repeats", default=20, show_default=True, help="Guarded restarts.")
@click.option(
    "--hook", "hooks", multiple=True, type=click.IntRange(1, 60), default=(5, 15, 30), show_default=True,
    help="Fixed hooks to compare with, seconds. Repeatable.",
)  # fmt: skip
@click.option("--hook-repeats", default=3, show_default=True, help="Restarts with each fixed hook.")
@click.option("--rate", default=300.0, show_default=True, help="Requests a second.")
@click.option(
    "--app", "name", type=click.Choice(list(APPS)), default=GO.name, show_default=True,
    help="Which sample is restarted.",
)  # fmt: skip
@rollouts.kept_option
def main(
    gateways: tuple[str, ...],
    path: Path | None,
    repeats: int,
    hooks: tuple[int, ...],
    hook_repeats: int,
    rate: float,
    name: str,
    kept: float,
) -> None:
    """Count failed requests of guarded rolling restarts, and search the shortest fixed hook."""
    plan = Plan(rate, kept, repeats, tuple(sorted(set(hooks))), hook_repeats, APPS[name])
    told = {} if plan.app is GO else {"app": name}
    rows = Rows(path, {"rate": rate, "kept": kept, **told})
    for gateway in gateways:
        enough = guarded_key(gateway, repeats) in rows
        if not enough or f"{gateway}/shortest" not in rows:
            asyncio.run(behind(gateway, rows, plan))
    raise SystemExit(0 if report(gateways, rows, plan) else 1)


if __name__ == "__main__":
    main()
