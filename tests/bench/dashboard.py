"""Whether the dashboard shows something: a real Prometheus scrapes the operators of a real demo.

Starts `upstream-guard demo` with the flags given after `--`, finds its operators as they come and go, and asks every
expression of deploy/monitoring/grafana-dashboard.json every few seconds. Told of each: with how many series it answered
at most, and an example. The alerts that were pending or firing are told as well. As root on Linux:

    .venv/bin/python tests/bench/dashboard.py --json dashboard.json -- --score --gateway contour --scenario rollout

Exits with 1 if an expression is refused, or a panel that must have data never had any.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from upstream_guard.lab import process
from upstream_guard.lab.model import default_state_dir
from upstream_guard.lab.prometheus import (
    Prometheus,
    QueryError,
    Question,
    configuration,
    questions,
    running,
    target,
)
from upstream_guard.lab.replicas import manifests_folder

EVERY = 3.0
"""Seconds between two rounds of questions."""
LAST_LOOK = 5.0
"""Seconds in which what came last is scraped and evaluated."""


@dataclass
class Seen:
    """What one expression answered."""

    panel: str
    legend: str
    may_be_empty: str
    series: int = 0
    """At most, at one moment."""
    example: str = ""
    error: str = ""

    def take(self, prometheus: Prometheus, question: Question) -> None:
        try:
            found = prometheus.query(question.expression)
        except QueryError as error:
            self.error = str(error)
            return
        # Later ones of the same size say more: counters have moved by then.
        if len(found) >= max(1, self.series):
            self.series = len(found)
            last = max(found, key=lambda series: float(series["value"][1]))
            labels = ", ".join(f"{k}={v}" for k, v in sorted(last["metric"].items()))
            self.example = f"{float(last['value'][1]):.4g} {labels}".strip()

    @property
    def bad(self) -> bool:
        return bool(self.error) or (not self.series and not self.may_be_empty)


def replicas() -> list[tuple[str, int]]:
    """Name and HTTP port of every operator process of the lab."""
    found = []
    for marked in process.marked():
        words = Path(f"/proc/{marked.pid}/cmdline").read_bytes().decode().split("\0")
        if marked.state_dir == default_state_dir() and "--http-port" in words:
            found.append((marked.name, int(words[words.index("--http-port") + 1])))
    return sorted(set(found))


def follow(file: Path) -> None:
    """Tell Prometheus which operators there are now."""
    partial = file.with_suffix(".new")
    partial.write_text(json.dumps([target(port, name) for name, port in replicas()]))
    partial.rename(file)


def watch(
    demo: subprocess.Popen[bytes], folder: Path, deadline: float
) -> tuple[list[Seen], set[str]]:
    dashboard = json.loads((manifests_folder() / "monitoring/grafana-dashboard.json").read_text())
    asked = list(questions(dashboard))
    seen = [Seen(q.panel, q.legend, q.may_be_empty) for q in asked]
    alerts: set[str] = set()
    targets = folder / "targets.json"
    follow(targets)
    discovery = {"file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
    with running(configuration(discovery), folder) as prometheus:
        while True:
            over = demo.poll() is not None or time.monotonic() > deadline
            if over:
                time.sleep(LAST_LOOK)
            follow(targets)
            for one, question in zip(seen, asked, strict=True):
                one.take(prometheus, question)
            alerts |= {f"{a['labels']['alertname']} {a['state']}" for a in prometheus.alerts()}
            if over:
                return seen, alerts
            time.sleep(EVERY)


def show(seen: list[Seen], alerts: set[str]) -> None:
    table = Table(title="What the dashboard showed")
    for name in ("panel", "series", "example (the largest)", "where it may be empty"):
        table.add_column(name, justify="right" if name == "series" else "left")
    for one in seen:
        table.add_row(one.panel, str(one.series), one.error or one.example, one.may_be_empty)
    console = Console(width=160)
    console.print(table)
    full = sum(one.series > 0 for one in seen)
    console.print(f"{full} of {len(seen)} expressions had data; alerts: {sorted(alerts) or 'none'}")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--minutes", default=30.0, show_default=True, help="The demo is ended after so long.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures.")
@click.argument("demo_flags", nargs=-1, type=click.UNPROCESSED)
def main(minutes: float, json_path: Path | None, demo_flags: tuple[str, ...]) -> None:
    """Ask everything that the dashboard asks, while a demo runs with DEMO_FLAGS."""
    command = [sys.executable, "-m", "upstream_guard.cli", "demo", *demo_flags]
    with tempfile.TemporaryDirectory() as name:
        demo = subprocess.Popen(command)
        try:
            seen, alerts = watch(demo, Path(name), time.monotonic() + minutes * 60)
        finally:
            demo.terminate()
            demo.wait(120)
    show(seen, alerts)
    if json_path:
        body = {"panels": [asdict(one) for one in seen], "alerts": sorted(alerts)}
        json_path.write_text(json.dumps(body, indent=1) + "\n")
    sys.exit(any(one.bad for one in seen))


if __name__ == "__main__":
    main()
