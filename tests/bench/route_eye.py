"""How soon a route probe fails after the first request of a user did: nginx before three apps that stop in turn.

Needs no cluster: nginx on loopback, three small HTTP servers, the load generator in a process of its own, and the operator's
route probes as they are wired in the operator, hurried while a "rollout" goes on (each app in turn does not listen for half a
second). Run as a script:

    .venv/bin/python tests/bench/route_eye.py --rollouts 20 --json eye.json
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

import click
import uvloop
from rich.console import Console

from upstream_guard.controller.route_probes import RouteProbes
from upstream_guard.core.evidence import RouteSample
from upstream_guard.core.model import (
    GatewayAddress,
    Guard,
    ObjectRef,
    Route,
    RouteWay,
    Service,
    ServicePort,
)
from upstream_guard.core.routes import Landscape
from upstream_guard.lab.demo import tally
from upstream_guard.metrics import Metrics

PORT = 18_580
APPS = (18_581, 18_582, 18_583)
AWAY = 0.5
"""Seconds that each app does not listen."""
BETWEEN = 0.5
CALM = 3.0
SHOP = ObjectRef("bench", "shop")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@dataclass(frozen=True)
class Row:
    """One rollout."""

    lost: int
    probes_failed: int
    behind: float | None
    """Seconds from the first failed request to the first failed probe, as they ended."""
    share_lost: float
    """Of the requests between the first and the last that failed."""
    share_probes: float
    outside: int
    """Probes that failed while no request did."""


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        writer.close()


async def listen(port: int) -> asyncio.Server:
    return await asyncio.start_server(answer, "127.0.0.1", port, backlog=512, reuse_address=True)


@contextmanager
def gateway(folder: Path) -> Iterator[None]:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise click.ClickException("nginx is missing: apt install nginx")
    temp = " ".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in APPS)
    config = folder / "nginx.conf"
    config.write_text(
        f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; {temp} upstream apps {{ {servers} }}\n"
        f"server {{ listen 127.0.0.1:{PORT} backlog=512; location / {{ proxy_pass http://apps;\n"
        "proxy_next_upstream off; } } }\n"
    )
    process = subprocess.Popen([program, "-c", str(config), "-e", f"{folder}/error.log"])
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


async def rollouts(number: int, hurry: set[ObjectRef]) -> list[tuple[float, float]]:
    servers = {port: await listen(port) for port in APPS}
    await asyncio.sleep(CALM)
    spans = []
    for _ in range(number):
        began = time.time()
        hurry.add(SHOP)
        await asyncio.sleep(BETWEEN)
        for port in APPS:
            servers[port].close()
            await servers[port].wait_closed()
            await asyncio.sleep(AWAY)
            servers[port] = await listen(port)
            await asyncio.sleep(BETWEEN)
        hurry.clear()
        await asyncio.sleep(CALM)
        spans.append((began, time.time()))
    for server in servers.values():
        server.close()
    return spans


def probes(hurry: set[ObjectRef], found: list[RouteSample]) -> RouteProbes:
    made = RouteProbes(
        Metrics(), lambda s: s in hurry, lambda _, sample: found.append(sample), lambda _: None
    )
    service = Service(SHOP, "s", {}, "ClusterIP", "", (ServicePort("http", 80, 8080),))
    address = GatewayAddress("127.0.0.1", (PORT,))
    ways = (RouteWay(SHOP, 80, ("shop.example",)),)
    route = Route("Ingress", SHOP, frozenset({SHOP}), (), "edge", ways, (), (address,))
    made.follow(Guard(SHOP, "g", 1, 0.0, "shop"), service, Landscape((route,)), "")
    return made


async def observe(number: int) -> tuple[list[tuple[float, float]], list[RouteSample]]:
    hurry: set[ObjectRef] = set()
    found: list[RouteSample] = []
    asking = asyncio.create_task(probes(hurry, found).run())
    spans = await rollouts(number, hurry)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return spans, found


def judge(span: tuple[float, float], sent: list[tally.Record], found: list[RouteSample]) -> Row:
    began, ended = span
    mine = [r for r in sent if began <= r.sent < ended]
    lost = sorted((r for r in mine if r.failed), key=lambda r: r.done)
    asked = [s for s in found if began <= s.sent < ended]
    failed = sorted((s for s in asked if s.cause or s.status >= 500), key=lambda s: s.done)
    if not lost:
        return Row(0, len(failed), None, 0.0, 0.0, len(failed))
    first, last = min(r.sent for r in lost), max(r.done for r in lost)
    during = [r for r in mine if first <= r.sent <= last]
    then = [s for s in asked if first <= s.sent <= last]
    return Row(
        len(lost),
        len(failed),
        failed[0].done - lost[0].done if failed else None,
        len(lost) / len(during),
        sum(s in failed for s in then) / max(1, len(then)),
        sum(s.done < first - 0.1 or s.sent > last + 0.1 for s in failed),
    )


def report(rows: list[Row], calm: int) -> None:
    seen = sorted(row.behind for row in rows if row.behind is not None)
    console = Console(width=110, highlight=False)
    console.print(
        f"{len(rows)} rollouts, {sum(r.lost for r in rows)} requests and "
        f"{sum(r.probes_failed for r in rows)} probes failed; {sum(r.outside for r in rows)} probes failed "
        f"while no request did in a rollout, {calm} outside of them"
    )
    console.print(
        f"share that failed: requests {median(r.share_lost for r in rows):.0%}, "
        f"probes {median(r.share_probes for r in rows):.0%}"
    )
    if len(seen) > 1:
        console.print(
            f"first failed probe after the first failed request: {len(seen)} of {len(rows)} seen; median "
            f"{median(seen) * 1000:.0f} ms, p90 {quantiles(seen, n=10)[-1] * 1000:.0f} ms, "
            f"worst {seen[-1] * 1000:.0f} ms"
        )
    console.print(f"load average {os.getloadavg()[0]:.1f}")


@click.command()
@click.option("--rollouts", "number", default=20, show_default=True)
@click.option("--rate", default=100.0, show_default=True, help="Requests of users a second.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def main(number: int, rate: float, json_file: Path | None) -> None:
    """Compare the first failed probe with the first failed request."""
    with tempfile.TemporaryDirectory(prefix="route-eye-") as name, gateway(Path(name)):
        out = Path(name) / "load.jsonl"
        command = [sys.executable, "-m", "upstream_guard.lab.load", "--out", str(out)]
        command += ["--url", f"http://127.0.0.1:{PORT}/", "--rate", str(rate), "--timeout", "5"]
        time.sleep(1.0)
        load = subprocess.Popen(command)
        try:
            spans, found = uvloop.run(observe(number))
        finally:
            load.terminate()
            load.wait(20)
        lines = [line for line in out.read_text().splitlines() if line.endswith("]")]
    sent = [tally.decode(line) for line in lines]
    rows = [judge(span, sent, found) for span in spans]
    first, last = spans[0][0], spans[-1][1]
    calm = [s for s in found if (s.cause or s.status >= 500) and first < s.sent < last]
    outside = sum(not any(a <= s.sent < b for a, b in spans) for s in calm)
    report(rows, outside)
    if json_file is not None:
        figures = {"rows": [asdict(row) for row in rows], "load_average": os.getloadavg()[0]}
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
