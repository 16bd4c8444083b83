"""What route probes and the reading of gateways cost with many guards: the controller's CPU with them on, off, and on again.

Each guard has one pod and one route, the services spread over the gateways. In one run, so that all phases meet the same
machine: as the operator comes, then with `routeProbe.mode: Off` and no metrics in the profiles, then as at first. As root
on Linux:

    .venv/bin/python tests/bench/overhead.py --guards 100 --minutes 3 --json overhead.json
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import httpx
import lab_scene as scene
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from upstream_guard.core import names
from upstream_guard.lab import replicas
from upstream_guard.lab.gateways import GATEWAYS, RunningGateway, ServiceTarget
from upstream_guard.lab.gateways.profile import gateway_profile
from upstream_guard.lab.model import Cluster, LabError
from upstream_guard.lab.replicas import Replica
from upstream_guard.lab.report import RichReporter

Json = dict[str, Any]

SETTLE_SECONDS = 30
"""After a phase's settings are in force: until statuses are written and the pace is that of peace."""
COUNTERS = {
    "endpoint_probes": "upstream_guard_probe_results",
    "route_probes": "upstream_guard_route_probes",
    "scrapes": "upstream_guard_gateway_scrapes",
}


@dataclass(frozen=True)
class Phase:
    """What one phase cost; a second, of the process that controlled."""

    name: str
    seconds: float
    cpu_percent: float
    """Of one core."""
    memory_mib: float
    endpoint_probes: float
    route_probes: float
    scrapes: float


@dataclass(frozen=True)
class Shop:
    """One guarded service and where it is served."""

    name: str
    gateway: str
    host: str


def counters(replica: Replica) -> dict[str, float]:
    """Sums of the counters so far."""
    text = httpx.get(
        f"http://127.0.0.1:{replica.http_port}/metrics", timeout=10, trust_env=False
    ).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {
        key: sum(s.value for s in families[name].samples if s.name.endswith("_total"))
        if name in families
        else 0.0
        for key, name in COUNTERS.items()
    }


def measure(name: str, cluster: Cluster, crew: Sequence[Replica], minutes: float) -> Phase:
    """Look at the controller for so long.

    Raises:
        LabError: another one controls at the end, so that the figures are of nobody.
    """
    replica = replicas.controlling(cluster, crew)
    if replica is None:
        raise LabError("no replica controls")
    began, cpu, before = time.monotonic(), scene.cpu_seconds(replica.pid), counters(replica)
    time.sleep(minutes * 60)
    seconds, after = time.monotonic() - began, counters(replica)
    used = scene.cpu_seconds(replica.pid) - cpu
    if replicas.controlling(cluster, crew) != replica:
        raise LabError(
            f"{replica.name} does not control any more: the machine is too busy to measure"
        )
    rates = {key: (after[key] - before[key]) / seconds for key in COUNTERS}
    return Phase(name, seconds, 100 * used / seconds, scene.rss_mib(replica.pid), **rates)


def expose(
    cluster: Cluster, where: str, running: Sequence[RunningGateway], number: int, say: RichReporter
) -> list[Shop]:
    """Services, routes and pods; the guards come with `settings`."""
    shops = []
    parts = [scene.guarded_service(where, f"shop-{n}", 1) for n in range(number)]
    scene.apply(cluster, [first[0] for first, _ in parts])
    with say.step(f"{number} routes"):
        for n in range(number):
            gateway = running[n % len(running)].name
            exposure = GATEWAYS[gateway].expose(cluster, ServiceTarget(where, f"shop-{n}"))
            shops.append(Shop(f"shop-{n}", gateway, exposure.host))
    return shops


def settings(
    where: str, shops: Sequence[Shop], running: Sequence[RunningGateway], *, on: bool
) -> list[Json]:
    """Guards and profiles with both eyes, or without."""
    found = []
    for shop in shops:
        guard = scene.guarded_service(where, shop.name, 1)[0][1]
        probe = {"mode": "Auto", "host": shop.host} if on else {"mode": "Off"}
        guard["spec"]["detection"] = {"routeProbe": probe}
        found.append(guard)
    for gateway in running:
        mine = [f"{where}/{shop.name}" for shop in shops if shop.gateway == gateway.name]
        seen = gateway if on else replace(gateway, metrics_url="", admin_url="")
        found.append(gateway_profile(seen, mine))
    return found


def phase(
    name: str, cluster: Cluster, items: list[Json], crew: Sequence[Replica], minutes: float
) -> Phase:
    scene.apply(cluster, items)
    time.sleep(SETTLE_SECONDS)
    return measure(name, cluster, crew, minutes)


def run(gateways: Sequence[str], number: int, minutes: float) -> list[Phase]:
    with scene.lab() as (cluster, say), scene.namespace(cluster, "ug-overhead") as where:
        running = [GATEWAYS[name].up(cluster, say) for name in gateways]
        shops = expose(cluster, where, running, number, say)
        on = settings(where, shops, running, on=True)
        off = settings(where, shops, running, on=False)
        try:
            with replicas.operator(cluster, say) as crew:
                scene.apply(cluster, on)
                accepted = lambda: scene.condition_true(cluster, where, "Accepted") == number  # noqa: E731
                scene.wait("every guard accepted", accepted)
                pods = [scene.guarded_service(where, shop.name, 1)[1] for shop in shops]
                scene.apply(cluster, pods)
                healthy = lambda: scene.condition_true(cluster, where, "Healthy") == number  # noqa: E731
                with say.step(f"{number} endpoints healthy"):
                    scene.wait("every guard healthy", healthy, 900)
                return [
                    phase("on", cluster, on, crew, minutes),
                    phase("off", cluster, off, crew, minutes),
                    phase("on again", cluster, on, crew, minutes),
                ]
        finally:
            for gateway in running:
                scene.kubectl(
                    cluster, "delete", names.PROFILE_KIND, gateway_profile(gateway, [])["metadata"]["name"],
                    "--ignore-not-found",
                )  # fmt: skip
                GATEWAYS[gateway.name].down(cluster, say)


def report(phases: Sequence[Phase]) -> Table:
    table = Table(title="The controller, each second")
    for heading in ("phase", "CPU", "memory", "endpoint probes", "route probes", "scrapes"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for one in phases:
        table.add_row(
            one.name, f"{one.cpu_percent:.1f} %", f"{one.memory_mib:.0f} MiB",
            f"{one.endpoint_probes:.0f}", f"{one.route_probes:.1f}", f"{one.scrapes:.2f}",
        )  # fmt: skip
    return table


@click.command()
@click.option("--guards", "number", type=click.IntRange(1, 250), default=100, show_default=True)
@click.option(
    "--minutes",
    type=click.FloatRange(0.2, 60),
    default=3.0,
    show_default=True,
    help="Of each phase.",
)
@click.option(
    "--gateway", "gateways", multiple=True, default=["haproxy", "contour"], show_default=True
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def main(number: int, minutes: float, gateways: tuple[str, ...], json_file: Path | None) -> None:
    """Measure the controller with both eyes, without, and with them again."""
    phases = run(gateways, number, minutes)
    console = Console(highlight=False)
    console.print(report(phases))
    console.print(f"load average {os.getloadavg()[0]:.1f}")
    if json_file is not None:
        figures = {
            "guards": number,
            "gateways": gateways,
            "phases": [asdict(one) for one in phases],
            "load_average": os.getloadavg()[0],
        }
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
