"""What a guard saves each sample app, and what only the app can fix.

Go, Node.js, gunicorn and uvicorn with the settings that they come with, behind each gateway: rolling restarts of 3 replicas at 200
requests a second, half of them over kept-alive client connections; plain (no readiness probe, no hook) and guarded. With it
what the operator says of the guarded app: what was seen of it on SIGTERM, conditions, risks and events.

About 12 minutes a gateway: 3 to 5 until it is measured, then 16 restarts of 25 seconds. As root on Linux (the samples' image is a Debian
with debootstrap, made once); interrupted, the same command goes on where it was:

    .venv/bin/python tests/bench/apps_bench.py --json apps.json
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import rollouts
from rich.console import Console
from rich.table import Table
from rollouts import Json, Rows

from upstream_guard.lab.demo.runner import Cell
from upstream_guard.lab.demo.scenarios import SCENARIOS
from upstream_guard.lab.demo.variants import APPS, Variant

VARIANTS = (Variant.PLAIN, Variant.GUARDED)


def cells(gateway: str, apps: Sequence[str], repeats: int) -> Iterator[tuple[str, Cell]]:
    """What is to be done behind a gateway, each with its key."""
    for repeat in range(1, repeats + 1):
        for app in apps:
            for variant in VARIANTS:
                key = f"{gateway}/{app}/{variant}/{repeat}"
                yield key, Cell(gateway, SCENARIOS["rollout"], variant, repeat, APPS[app])


async def behind(gateway: str, todo: Sequence[tuple[str, Cell]], rows: Rows, load: Json) -> None:
    """Bring one gateway up, have it measured, and do what is to be done."""
    apps = tuple(dict.fromkeys(cell.app for _, cell in todo))
    with rollouts.lab(gateway, apps=apps) as bench:
        async with rollouts.scene(bench, gateway) as scene:
            click.echo(f"{gateway}: until it is measured")
            await scene.until_measured()
            runner = scene.runner(**load)
            for key, cell in todo:
                rows.add(key, await scene.rollout(runner, cell))
                click.echo(f"{key}: {rows[key]['failed']} of {rows[key]['requests']} failed")


def advice(guarded: Sequence[Json]) -> str:
    """What the operator said of an app, once each, in few words."""
    said: dict[str, None] = {}
    for row in guarded:
        app = (row.get("drain") or {}).get("app") or {}
        said |= dict.fromkeys(filter(None, (app.get("onSigterm"), *row.get("risks", ()))))
        said |= dict.fromkeys(event.partition(":")[0] for event in row.get("events", ()))
    return ", ".join(said)


def report(gateways: Sequence[str], apps: Sequence[str], rows: Rows) -> None:
    """The table, and the operator's words about each app."""
    table = Table(
        "gateway", "app", "plain", "guarded", "failed with", "preStop", "the operator says"
    )
    words: dict[str, dict[str, None]] = {app: {} for app in apps}
    for gateway in gateways:
        for app in apps:
            plain, guarded = (rows.below(f"{gateway}/{app}/{variant}/") for variant in VARIANTS)
            statuses = {
                name for row in guarded for name in row["statuses"] if not name.startswith("2")
            }
            hooks = sorted({row["pre_stop_seconds"] for row in guarded})
            table.add_row(
                gateway,
                app,
                ", ".join(str(row["failed"]) for row in plain),
                ", ".join(str(row["failed"]) for row in guarded),
                ", ".join(sorted(statuses)),
                ", ".join(f"{hook:g} s" for hook in hooks),
                advice(guarded),
            )
            for row in guarded:
                message = ((row.get("drain") or {}).get("app") or {}).get("message")
                words[app] |= {message: None} if message else {}
    console = Console(width=150)
    console.print(table)
    for app, messages in words.items():
        for message in messages:
            console.print(f"{app}: {message}", soft_wrap=True)


@click.command(cls=rollouts.Measurement)
@rollouts.gateways_option
@rollouts.json_option
@click.option(
    "--app", "apps", multiple=True, type=click.Choice(list(APPS)), default=tuple(APPS), show_default=True,
    help="Repeatable.",
)  # fmt: skip
@click.option("--repeats", default=2, show_default=True, help="Restarts, of each kind.")
@click.option("--rate", default=200.0, show_default=True, help="Requests a second.")
@rollouts.kept_option
def main(
    gateways: tuple[str, ...],
    path: Path | None,
    apps: tuple[str, ...],
    repeats: int,
    rate: float,
    kept: float,
) -> None:
    """Count failed requests of each app, with and without a guard."""
    load = {"rate": rate, "kept": kept}
    rows = Rows(path, load)
    for gateway in gateways:
        todo = [(key, cell) for key, cell in cells(gateway, apps, repeats) if key not in rows]
        if todo:
            asyncio.run(behind(gateway, todo, rows, load))
    report(gateways, apps, rows)


if __name__ == "__main__":
    main()
