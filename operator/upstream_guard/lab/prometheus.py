"""Prometheus, as Debian packages it: what the alerts and the dashboard are tested with."""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from upstream_guard.lab.gateways.support import LOOPBACK, free_port
from upstream_guard.lab.model import LabError
from upstream_guard.lab.packages import Need, find_program

NEEDS: Final = (Need("prometheus", program="promtool", service="prometheus"),)
"""It brings `prometheus` and `promtool`; its service is not used."""
PORT: Final = 9490
"""Tried first; Prometheus' own 9090 may be taken."""
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
QUERY_SECONDS: Final = 30.0
VARIABLES: Final = {
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$namespace": ".+",
    "$guard": ".+",
}
"""What Grafana would fill in for all guards; the intervals suit a server that is young and scrapes often."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One expression of a dashboard.

    Attributes:
        panel: Title of its panel.
        expression: With every variable filled in.
        legend: Template of its series' names.
        may_be_empty: Why the panel may have no data; empty where it must have some.
    """

    panel: str
    expression: str
    legend: str
    may_be_empty: str


def questions(dashboard: Json) -> Iterator[Question]:
    """What a Grafana dashboard asks of Prometheus, panel by panel."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield Question(
                panel["title"],
                filled(target["expr"]),
                target.get("legendFormat", ""),
                panel["fieldConfig"]["defaults"].get("noValue", ""),
            )


def filled(expression: str) -> str:
    """The expression with `VARIABLES` for Grafana's."""
    for name in sorted(VARIABLES, key=len, reverse=True):
        expression = expression.replace(name, VARIABLES[name])
    return expression


class QueryError(Exception):
    """Prometheus refused an expression; the message is its own."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    url: str

    def query(self, expression: str) -> list[Json]:
        """The series that an expression gives now, each with `metric` and `value`.

        Raises:
            QueryError: if it is refused.
        """
        result = self._ask("query", {"query": expression})
        found: list[Json] = result["result"]
        return found

    def active_targets(self) -> list[Json]:
        """What is scraped, each with its `health` and `lastError`."""
        found: list[Json] = self._ask("targets", {"state": "active"})["activeTargets"]
        return found

    def alerts(self) -> list[Json]:
        """What is pending or firing, each with `labels` and `state`."""
        found: list[Json] = self._ask("alerts", {})["alerts"]
        return found

    def _ask(self, what: str, parameters: Mapping[str, str]) -> Json:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=QUERY_SECONDS)
        body = answer.json()
        if body["status"] != "success":
            raise QueryError(f"{parameters}: {body.get('error')}")
        data: Json = body["data"]
        return data


@contextlib.contextmanager
def running(config: Json, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus on loopback, with its data and log in a folder, for the time of the context.

    Raises:
        LabError: if it is not installed, or not ready in time.
    """
    program = find_program("prometheus")
    if program is None:
        raise LabError("prometheus is not installed; `upstream-guard lab build` installs it")
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    port = free_port(PORT)
    command = [
        str(program),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
    try:
        url = f"http://{LOOPBACK}:{port}"
        _wait_ready(url, process, log)
        yield Prometheus(url)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/-/ready", timeout=2).is_success:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(encoding="utf-8", errors="replace")[-1500:]
            raise LabError(f"prometheus is not ready:\n{tail}")
        time.sleep(0.1)
