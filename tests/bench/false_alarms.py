"""Windows that are told in peace: healthy load and rollouts under guard, behind several gateways of the lab.

A window in which no request of the load generator failed is a false alarm, and so is every `WindowOpened` without one. What
users did lose is counted as well, for a guard is there to prevent that. As root on Linux:

    .venv/bin/python tests/bench/false_alarms.py --minutes 60 --rollouts 10 --json false_alarms.json
"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from upstream_guard.kube.client import KubeClient
from upstream_guard.lab.demo.bench import Bench, Wish, open_bench
from upstream_guard.lab.demo.runner import load_on, until_calm
from upstream_guard.lab.demo.session import own_namespace
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.tally import Record, percentile
from upstream_guard.lab.faults.model import felt
from upstream_guard.lab.faults.pulse import Operator, Pulse
from upstream_guard.lab.faults.runner import (
    REPLICAS,
    Place,
    Plan,
    prepare,
    service_name,
    until,
)
from upstream_guard.lab.gateways import GATEWAYS
from upstream_guard.lab.report import QuietReporter, RichReporter

CLOSE_SECONDS = 75.0
LOOK_SECONDS = 1.0
READY_SECONDS = 180.0


@dataclass(frozen=True)
class Row:
    """What one gateway's users and guard met."""

    gateway: str
    minutes: float
    rollouts: int
    requests: int
    failed: int
    late_p99: float
    """Of the load generator, seconds: how busy the machine was."""
    windows: int
    false_alarms: int
    causes: tuple[str, ...]
    """Of the false alarms."""
    evidence: tuple[str, ...]
    operators: int
    """Controllers one after the other; more than one where the operator lost its Lease meanwhile."""
    unwatched: float
    """Seconds in which none controlled."""


def judge(
    place: Place,
    records: Sequence[Record],
    minutes: float,
    rollouts: int,
    seen: Sequence[Pulse | None],
) -> Row:
    """Put one gateway's findings together.

    Args:
        place: Where.
        records: Of every request.
        minutes: How long.
        rollouts: How many.
        seen: Who controlled, at each look.
    """
    began = min((r.sent for r in records), default=0.0)
    failed = [r for r in records if r.failed]
    windows = [w for w in place.watch.windows if w.opened >= began]
    false = [w for w in windows if not felt(w, failed)]
    return Row(
        gateway=place.scene.gateway,
        minutes=minutes,
        rollouts=rollouts,
        requests=len(records),
        failed=len(failed),
        late_p99=percentile([r.late for r in records], 0.99),
        windows=len(windows),
        false_alarms=len(false),
        causes=tuple(w.cause for w in false),
        evidence=tuple(w.evidence for w in false),
        operators=len({pulse for pulse in seen if pulse is not None}),
        unwatched=LOOK_SECONDS * sum(pulse is None for pulse in seen),
    )


async def rollouts(places: Sequence[Place], number: int, seconds: float, console: Console) -> int:
    """Restart every Deployment so often, evenly spread over the time, all gateways at once."""
    began, done = time.monotonic(), 0
    for turn in range(number):
        due = began + (turn + 0.5) * seconds / number
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*(rollout(place.scene.stage) for place in places))
        done += 1
        console.print(f"rollout {done} of {number} after {time.monotonic() - began:.0f} s")
    await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
    return done


async def rollout(stage: Stage) -> None:
    """Restart, and see the old pods off."""
    old = stage.uids()
    await stage.kubectl("rollout", "restart", stage.deployment)
    await stage.until_gone(old, READY_SECONDS)
    await stage.until_serving(REPLICAS)


async def look(operator: Operator, seen: list[Pulse | None]) -> None:
    """Note who controls, again and again, until cancelled."""
    while True:
        seen.append(await operator.pulse())
        await asyncio.sleep(LOOK_SECONDS)


async def observe(
    bench: Bench,
    gateways: Sequence[str],
    minutes: float,
    number: int,
    rate: float,
    console: Console,
) -> list[Row]:
    cluster, say = bench.cluster, QuietReporter()
    client = await KubeClient.connect(str(cluster.kubeconfig), cluster.context)
    plan = Plan(
        gateways={name: GATEWAYS[name].up(cluster, say) for name in gateways},
        faults=(), repeats=0, rate=rate, expose=bench.expose, keep=False,
        done=lambda _trial: None, doing=lambda _gateway, _text: None, crew=bench.crew,
    )  # fmt: skip
    operator, seen = Operator(client, bench.crew), list[Pulse | None]()
    try:
        async with AsyncExitStack() as stack:
            namespace = await stack.enter_async_context(own_namespace(cluster, keep=False))
            places = []
            for gateway in gateways:
                name = service_name(gateway)
                stage = Stage(cluster, client, namespace, name)
                places.append(await prepare(stack, stage, gateway, plan, operator))
            for place in places:
                await until_calm(place.exposure)
                await operator.until_attentive(
                    partial(place.watch.unready, REPLICAS), READY_SECONDS
                )
            loads = [await stack.enter_async_context(load_on(p.exposure, rate)) for p in places]
            looking = asyncio.create_task(look(operator, seen))
            done = await rollouts(places, number, minutes * 60, console)
            records = [await load.stop() for load in loads]
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            for place in places:
                await until(place.watch.closed, CLOSE_SECONDS)
            return [
                judge(place, found, minutes, done, seen)
                for place, found in zip(places, records, strict=True)
            ]
    finally:
        await client.close()


def report(rows: Sequence[Row]) -> Table:
    table = Table(title="Windows told in peace")
    for heading in (
        "gateway", "minutes", "rollouts", "requests", "failed", "windows", "false alarms", "controllers",
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "gateway" else "right")
    for row in rows:
        false = ", ".join((str(row.false_alarms), *row.causes))
        table.add_row(
            row.gateway, f"{row.minutes:g}", str(row.rollouts), str(row.requests), str(row.failed),
            str(row.windows), false, str(row.operators),
        )  # fmt: skip
    return table


@click.command()
@click.option(
    "--gateway", "gateways", multiple=True, default=["nginx", "contour"], show_default=True
)
@click.option("--minutes", type=click.FloatRange(0.5, 600), default=60.0, show_default=True)
@click.option("--rollouts", "number", type=click.IntRange(0, 200), default=10, show_default=True)
@click.option("--rate", type=click.FloatRange(1, 1000), default=40.0, show_default=True)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def main(
    gateways: tuple[str, ...], minutes: float, number: int, rate: float, json_file: Path | None
) -> None:
    """Count windows in which no request failed."""
    console = Console(highlight=False)
    output = json_file.parent if json_file else Path("demo-out")
    wish = Wish(gateways, guarded=True, provider=None, context=None, keep=False, output=output)
    with open_bench(wish, RichReporter()) as bench:
        rows = asyncio.run(observe(bench, gateways, minutes, number, rate, console))
    console.print(report(rows))
    console.print(f"load average {os.getloadavg()[0]:.1f}")
    if json_file is not None:
        figures = {"rows": [asdict(row) for row in rows], "load_average": os.getloadavg()[0]}
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
    raise SystemExit(1 if any(row.false_alarms for row in rows) else 0)


if __name__ == "__main__":
    main()
