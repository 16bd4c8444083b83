"""Whether route probes see what users get: rollouts of an unguarded Service under load, on the embedded cluster.

A guard that only looks on (`Observe`, no drain) has the operator ask through nginx and Contour with Envoy, while the load
generator sends requests of its own. Compared are the times: of the first failed request, of the first failed probe, and of
probes that failed while no request did. As root on Linux:

    .venv/bin/python tests/bench/route_windows.py --rollouts 5 --json windows.json
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import click
from lab_scene import Json, apply, kubectl, namespace, wait
from rich.console import Console
from rich.table import Table

from upstream_guard.core.names import API_VERSION, PROFILE_KIND
from upstream_guard.lab import images
from upstream_guard.lab.demo import tally, variants
from upstream_guard.lab.gateways import GATEWAYS, Exposure, ServiceTarget
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import Cluster, LabSpec, default_state_dir
from upstream_guard.lab.report import RichReporter

CRDS = Path(__file__).parents[2] / "crds"
NAMESPACE = "route-windows"
AGAIN = "trap 'kill $!; exit' TERM; while true; do \"$@\" & wait $!; sleep 1; done"
SETTLE = 6.0
"""Seconds after a rollout in which its last failures may still come."""
SLACK = 0.3
"""Seconds by which a probe may fail before the first or after the last request did: requests come every 10 ms,
and each is sent to one pod of three."""
FAILURE = re.compile(
    r"^(?P<at>\S+ \S+) DEBUG .*route_probes: Guard \S+/(?P<guard>\S+): through .*: "
    r"(?P<result>\S+) in (?P<took>\d+) ms: (?P<detail>.*)$"
)


@dataclass(frozen=True)
class Failed:
    """One probe that failed; Unix seconds."""

    sent: float
    done: float
    result: str
    detail: str


@dataclass(frozen=True)
class Row:
    """One rollout."""

    gateway: str
    requests: int
    lost: int
    first_lost: float
    """Seconds after the rollout's command at which the first request had failed."""
    seconds: float
    """From the first to the last failed request."""
    probes_failed: int
    behind: float | None
    """Seconds from the first failed request to the first failed probe, both as they ended."""
    outside: int
    """Probes that failed while no request did."""


def manifests(gateway: str, exposure: Exposure) -> list[Json]:
    name = f"shop-{gateway}"
    guard = variants.guard(namespace=NAMESPACE, name=name)
    probe = {} if gateway == "contour" else {"host": exposure.host}
    guard["spec"] |= {
        "upstreamList": {"mode": "Observe"},
        "drain": {"mode": "Off"},
        "detection": {"routeProbe": probe},
    }
    match = (
        {"ingressClasses": ["contour"]}
        if gateway == "contour"
        else {"services": [f"{NAMESPACE}/{name}"]}
    )
    profile = {
        "apiVersion": API_VERSION,
        "kind": PROFILE_KIND,
        "metadata": {"name": f"lab-{gateway}"},
        "spec": {"match": match, "controller": gateway, "address": exposure.url.rstrip("/")},
    }
    return [guard, profile]


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def probes(log: Path, guard: str) -> list[Failed]:
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = FAILURE.match(line)
        if match and match["guard"] == guard:
            done = datetime.strptime(match["at"], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
            sent = done - int(match["took"]) / 1000
            found.append(Failed(sent, done, match["result"], match["detail"]))
    return found


def records(file: Path) -> list[tally.Record]:
    lines = file.read_text().splitlines()
    return [tally.decode(line) for line in lines if line.endswith("]")]


def rollout(cluster: Cluster, name: str) -> tuple[float, float]:
    """Do one; when it was asked for, and when its last failures had had time to come."""
    began = time.time()
    kubectl(cluster, "-n", NAMESPACE, "rollout", "restart", f"deployment/{name}")
    kubectl(cluster, "-n", NAMESPACE, "rollout", "status", f"deployment/{name}", "--timeout=120s")
    time.sleep(SETTLE)
    return began, time.time()


def judge(
    gateway: str, span: tuple[float, float], sent: list[tally.Record], failed: list[Failed]
) -> Row:
    began, ended = span
    mine = [r for r in sent if began <= r.sent < ended]
    lost = sorted((r for r in mine if r.failed), key=lambda r: r.done)
    seen = sorted((f for f in failed if began <= f.sent < ended), key=lambda f: f.done)
    if not lost:
        return Row(gateway, len(mine), 0, 0.0, 0.0, len(seen), None, len(seen))
    first, last = min(r.sent for r in lost), max(r.sent for r in lost)
    outside = [f for f in seen if f.done < first - SLACK or f.sent > last + SLACK]
    return Row(
        gateway,
        len(mine),
        len(lost),
        lost[0].done - began,
        last - first,
        len(seen),
        seen[0].done - lost[0].done if seen else None,
        len(outside),
    )


def expose(cluster: Cluster, gateway: str, say: RichReporter) -> Exposure:
    name = f"shop-{gateway}"
    deployment = variants.deployment(
        variants.Variant.PLAIN, namespace=NAMESPACE, name=name, replicas=3, start_delay=1
    )
    apply(cluster, [variants.service(namespace=NAMESPACE, name=name), deployment])
    GATEWAYS[gateway].up(cluster, say)
    exposure = GATEWAYS[gateway].expose(cluster, ServiceTarget(NAMESPACE, name))
    apply(cluster, manifests(gateway, exposure))
    kubectl(cluster, "-n", NAMESPACE, "rollout", "status", f"deployment/{name}", "--timeout=180s")
    return exposure


def routes(cluster: Cluster) -> list[Json]:
    items = json.loads(kubectl(cluster, "-n", NAMESPACE, "get", "ug", "-o", "json"))["items"]
    return [route for item in items for route in (item.get("status") or {}).get("routes") or ()]


def observe(cluster: Cluster, gateways: tuple[str, ...], rollouts: int, rate: float) -> list[Row]:
    say = RichReporter()
    kubectl(cluster, "apply", "--server-side", "-k", str(CRDS))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="route-windows-")))
        stack.enter_context(namespace(cluster, NAMESPACE))
        exposures = {gateway: expose(cluster, gateway, say) for gateway in gateways}
        log = folder / "operator.log"
        # Restarted as a pod would be: on a busy machine it may lose its Lease, and ends then.
        command = [
            "bash",
            "-c",
            AGAIN,
            "-",
            sys.executable,
            "-m",
            "upstream_guard.cli",
            "run",
            "--no-webhook",
        ]
        command += ["--kubeconfig", str(cluster.kubeconfig), "--operator-namespace", NAMESPACE]
        command += ["--bind", "127.0.0.1", "--http-port", "0", "--log-level", "debug"]
        stack.enter_context(running(command, log))
        wait("every route to be asked", lambda: len(routes(cluster)) == len(gateways), 600)
        time.sleep(10)
        rows = []
        for gateway, exposure in exposures.items():
            out = folder / f"{gateway}.jsonl"
            load = [sys.executable, "-m", "upstream_guard.lab.load", "--url", exposure.url]
            load += ["--host", exposure.host, "--rate", str(rate), "--out", str(out)]
            spans = []
            with running(load, folder / f"{gateway}.log"):
                time.sleep(5)
                for _ in range(rollouts):
                    spans.append(rollout(cluster, f"shop-{gateway}"))
                    time.sleep(20)  # calm, so that each rollout begins in peace
            sent, failed = records(out), probes(log, f"shop-{gateway}")
            rows += [judge(gateway, span, sent, failed) for span in spans]
            calm = [f for f in failed if not any(a <= f.sent < b for a, b in spans)]
            click.echo(f"{gateway}: {len(calm)} probes failed outside of every rollout")
            click.echo("\n".join(sorted({f"  {f.result}: {f.detail}" for f in failed})[:8]))
        return rows


def report(rows: list[Row]) -> None:
    table = Table(title="Rollouts of 3 pods without probe or hook")
    for heading in (
        "gateway", "requests", "failed", "window", "probes failed", "first after", "outside",
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "gateway" else "right")
    for row in rows:
        behind = "never" if row.behind is None else f"{row.behind * 1000:+.0f} ms"
        table.add_row(
            row.gateway,
            str(row.requests),
            str(row.lost),
            f"{row.seconds:.2f} s",
            str(row.probes_failed),
            behind,
            str(row.outside),
        )
    console = Console(width=100)
    console.print(table)
    seen = [row.behind for row in rows if row.behind is not None and row.lost]
    if seen:
        console.print(
            f"seen {len(seen)} of {sum(bool(r.lost) for r in rows)} windows; first failed probe after the first "
            f"failed request: median {median(seen) * 1000:.0f} ms, worst {max(seen) * 1000:.0f} ms"
        )


@click.command()
@click.option("--gateway", "gateways", multiple=True, default=["nginx", "contour"])
@click.option("--rollouts", default=5, show_default=True)
@click.option("--rate", default=100.0, show_default=True, help="Requests a second.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def main(gateways: tuple[str, ...], rollouts: int, rate: float, json_file: Path | None) -> None:
    """Compare failed probes with failed requests."""
    say = RichReporter()
    state_dir = default_state_dir()
    provider = LocalProvider(state_dir)
    cluster = provider.up(LabSpec(state_dir, nodes=1), say)
    try:
        provider.load_image(cluster, images.build_upstream_image(say), say)
        rows = observe(cluster, gateways, rollouts, rate)
    finally:
        provider.down(say)
    report(rows)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
