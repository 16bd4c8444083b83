"""What route probes cost: one request, beside httpx and a probe of an endpoint, and 100 guards in peace and in change.

nginx answers over loopback, plain and with TLS. Each figure is the CPU time (user and system, by the kernel's
accounting) of a process of its own that does nothing else. Run as a script:

    .venv/bin/python tests/bench/route_bench.py --requests 4000 --seconds 30 --json routes.json
"""

import asyncio
import json
import os
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import httpx
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from rich.console import Console
from rich.table import Table

from upstream_guard.controller.route_probes import RouteProbes
from upstream_guard.core.evidence import RouteKey
from upstream_guard.core.model import (
    DetectionPolicy,
    GatewayAddress,
    Guard,
    ObjectRef,
    ProbeProtocol,
    ProbeSpec,
    Route,
    RouteWay,
    Service,
    ServicePort,
)
from upstream_guard.core.routes import Ask, Landscape
from upstream_guard.metrics import Metrics
from upstream_guard.probes import ProbeScheduler, ProbeTarget
from upstream_guard.probes.route import RouteProber

HOST = "shop.example"
GUARDS = 100
AT_ONCE = 20
"""Requests under way in the comparison of single requests."""


@dataclass(frozen=True)
class Gate:
    """Where nginx answers."""

    plain: int
    tls: int


Worker = Callable[[Gate, int], Any]


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# Single requests: each returns how many were answered.


async def ours(gate: Gate, requests: int, *, tls: bool = False) -> int:
    prober = RouteProber()
    good = 0

    async def way(number: int) -> None:
        nonlocal good
        key = RouteKey("edge", f"r{number}", HOST, "/", tls)
        ask = Ask(key, ("127.0.0.1",), gate.tls if tls else gate.plain)
        for turn in range(requests // AT_ONCE):
            sample = await prober.ask(ask, turn, reuse=turn % 2 == 1)
            good += sample is not None and sample.status == 200

    await asyncio.gather(*map(way, range(AT_ONCE)))
    prober.close()
    return good


async def ours_tls(gate: Gate, requests: int) -> int:
    return await ours(gate, requests, tls=True)


async def with_httpx(gate: Gate, requests: int, *, tls: bool = False) -> int:
    """As it would be used: two clients, one that keeps connections and one that does not."""
    url = f"https://127.0.0.1:{gate.tls}/" if tls else f"http://127.0.0.1:{gate.plain}/"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    limits = httpx.Limits(max_keepalive_connections=0)
    good = 0
    async with (
        httpx.AsyncClient(verify=context, timeout=30.0) as keeping,
        httpx.AsyncClient(verify=context, timeout=30.0, limits=limits) as fresh,
    ):

        async def way() -> None:
            nonlocal good
            for turn in range(requests // AT_ONCE):
                client = keeping if turn % 2 else fresh
                answer = await client.get(
                    url, headers={"Host": HOST}, extensions={"sni_hostname": HOST}
                )
                good += answer.status_code == 200

        await asyncio.gather(*(way() for _ in range(AT_ONCE)))
    return good


async def with_httpx_tls(gate: Gate, requests: int) -> int:
    return await with_httpx(gate, requests, tls=True)


async def endpoint_probes(gate: Gate, requests: int) -> int:
    """The endpoints' own machinery: a new connection each, no names, nothing kept."""
    good = 0
    done = asyncio.Event()

    def on_result(key: str, result: Any) -> None:
        nonlocal good
        good += result.ok
        if good >= requests:
            done.set()
        scheduler.probe_soon(key)

    scheduler = ProbeScheduler(on_result)
    for number in range(AT_ONCE):
        spec = ProbeSpec(ProbeProtocol.HTTP, gate.plain, interval=1.0, timeout=1.0)
        scheduler.set_target(str(number), ProbeTarget("127.0.0.1", spec))
        scheduler.probe_soon(str(number))
    running = asyncio.create_task(scheduler.run())
    await asyncio.wait_for(done.wait(), 300)
    running.cancel()
    return good


SINGLE: Mapping[str, Worker] = {
    "ours": ours,
    "ours, TLS": ours_tls,
    "httpx": with_httpx,
    "httpx, TLS": with_httpx_tls,
    "endpoint probe": endpoint_probes,
}


# The whole of it: guards for some seconds.


def shop(number: int) -> tuple[Guard, Service]:
    ref = ObjectRef("bench", f"shop-{number}")
    service = Service(ref, "s", {}, "ClusterIP", "", (ServicePort("http", 80, 8080),))
    return Guard(ref, "u", 1, 0.0, ref.name, detection=DetectionPolicy()), service


async def guards(gate: Gate, seconds: int, *, count: int, hurried: int, tls: bool = False) -> int:
    """So many guards with a route each, some of them in a change."""
    busy = {shop(number)[1].ref for number in range(hurried)}
    samples = 0

    def on_sample(*_: object) -> None:
        nonlocal samples
        samples += 1

    probes = RouteProbes(Metrics(), lambda service: service in busy, on_sample, lambda _: None)
    port = gate.tls if tls else gate.plain
    for number in range(count):
        guard, service = shop(number)
        way = RouteWay(service.ref, 80, (HOST,))
        route = Route(
            "Ingress",
            guard.ref,
            frozenset({service.ref}),
            (),
            f"edge-{number % 4}",
            (way,),
            (HOST,) if tls else (),
            (GatewayAddress("127.0.0.1", (port,)),),
        )
        probes.follow(guard, service, Landscape((route,)), "")
    running = asyncio.create_task(probes.run())
    await asyncio.sleep(seconds)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return samples


async def off(gate: Gate, seconds: int) -> int:
    return await guards(gate, seconds, count=0, hurried=0)


async def peace(gate: Gate, seconds: int) -> int:
    return await guards(gate, seconds, count=GUARDS, hurried=0)


async def peace_tls(gate: Gate, seconds: int) -> int:
    return await guards(gate, seconds, count=GUARDS, hurried=0, tls=True)


async def one_change(gate: Gate, seconds: int) -> int:
    return await guards(gate, seconds, count=GUARDS, hurried=1)


async def ten_changes(gate: Gate, seconds: int) -> int:
    return await guards(gate, seconds, count=GUARDS, hurried=10)


async def all_change(gate: Gate, seconds: int) -> int:
    return await guards(gate, seconds, count=GUARDS, hurried=GUARDS)


async def all_change_tls(gate: Gate, seconds: int) -> int:
    return await guards(gate, seconds, count=GUARDS, hurried=GUARDS, tls=True)


WHOLE: Mapping[str, Worker] = {
    "no guard": off,
    "100 guards in peace": peace,
    "100 guards in peace, TLS": peace_tls,
    "1 of 100 in a change": one_change,
    "10 of 100 in a change": ten_changes,
    "100 of 100 in a change": all_change,
    "100 of 100 in a change, TLS": all_change_tls,
}


# The server, and the processes.


def certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@contextmanager
def nginx(folder: Path) -> Iterator[Gate]:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise click.ClickException("nginx is missing: apt install nginx")
    gate = Gate(18_480, 18_443)
    certificate(folder)
    temp = " ".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; {temp} server {{ listen 127.0.0.1:{gate.plain};\n"
        f"listen 127.0.0.1:{gate.tls} ssl; ssl_certificate {folder}/tls.crt;\n"
        f"ssl_certificate_key {folder}/tls.key; keepalive_requests 100000;\n"
        'location / { return 200 "ok"; } } }\n'
    )
    process = subprocess.Popen([program, "-c", str(config), "-e", f"{folder}/error.log"])
    try:
        deadline = time.monotonic() + 10
        while not _answers(gate):
            if time.monotonic() > deadline:
                raise click.ClickException((folder / "error.log").read_text()[-1000:])
            time.sleep(0.05)
        yield gate
    finally:
        process.terminate()
        process.wait(10)


def _answers(gate: Gate) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{gate.plain}/").status_code == 200
    except httpx.TransportError:
        return False


def measure(name: str, gate: Gate, amount: int) -> dict[str, float]:
    """Run one worker in a process of its own."""
    command = [sys.executable, __file__, "--worker", name, "--gate", f"{gate.plain},{gate.tls}"]
    command += ["--amount", str(amount)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def work(name: str, gate: Gate, amount: int) -> None:
    worker = {**SINGLE, **WHOLE}[name]

    async def run() -> dict[str, float]:
        before, began = cpu(), time.monotonic()
        answered = await worker(gate, amount)
        return {
            "answered": answered,
            "cpu_seconds": cpu() - before,
            "wall_seconds": time.monotonic() - began,
        }

    click.echo(json.dumps(uvloop.run(run())))


@click.command()
@click.option("--requests", default=4000, show_default=True, help="Of each contender.")
@click.option("--seconds", default=30, show_default=True, help="Of each scene with guards.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
@click.option("--only-guards", is_flag=True, help="Leave the single requests out.")
@click.option("--worker", hidden=True)
@click.option("--gate", "gate_text", hidden=True, default="0,0")
@click.option("--amount", hidden=True, default=0)
def main(
    requests: int,
    seconds: int,
    json_file: Path | None,
    only_guards: bool,
    worker: str | None,
    gate_text: str,
    amount: int,
) -> None:
    """Say what route probes cost."""
    if worker is not None:
        work(worker, Gate(*map(int, gate_text.split(","))), amount)
        return
    console = Console()
    with tempfile.TemporaryDirectory(prefix="route-bench-") as folder, nginx(Path(folder)) as gate:
        single = {} if only_guards else {n: measure(n, gate, requests) for n in SINGLE}
        whole = {name: measure(name, gate, seconds) for name in WHOLE}
    table = Table(title="One request (half of them on a kept connection, but for endpoint probes)")
    for heading in ("by", "answered", "CPU s per 10,000"):
        table.add_column(heading, justify="left" if heading == "by" else "right")
    for name, row in single.items():
        each = row["cpu_seconds"] / row["answered"] * 10_000
        table.add_row(name, f"{row['answered']:,.0f}", f"{each:.2f}")
    console.print(table)
    table = Table(title="Guards with one route each")
    for heading in ("scene", "requests/s", "share of a core"):
        table.add_column(heading, justify="left" if heading == "scene" else "right")
    for name, row in whole.items():
        rate, share = (row[key] / row["wall_seconds"] for key in ("answered", "cpu_seconds"))
        table.add_row(name, f"{rate:.1f}", f"{share:.2%}")
    console.print(table)
    console.print(f"load average {os.getloadavg()[0]:.1f}")
    if json_file is not None:
        figures = {"single": single, "whole": whole, "load_average": os.getloadavg()[0]}
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
