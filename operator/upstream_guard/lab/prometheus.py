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

from upstream_guard.core import names
from upstream_guard.lab.model import LabError
from upstream_guard.lab.packages import Need, find_program
from upstream_guard.lab.ports import LOOPBACK, free_port
from upstream_guard.lab.process import end
from upstream_guard.lab.replicas import manifests_folder

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


def target(http_port: int, replica: str) -> Json:
    """An operator process of this machine, as a group of targets, with what Kubernetes would say of its pod."""
    meta = "__meta_kubernetes_pod"
    return {
        "targets": [f"{LOOPBACK}:{http_port}"],
        "labels": {
            "__meta_kubernetes_namespace": names.OPERATOR_NAMESPACE,
            f"{meta}_name": replica,
            f"{meta}_label_app_kubernetes_io_name": "upstream-guard",
            f"{meta}_label_app_kubernetes_io_component": "operator",
            f"{meta}_container_port_name": "metrics",
        },
    }


def configuration(discovery: Json, *, every: str = "1s") -> Json:
    """Rules and scraping of `deploy/monitoring`, with another discovery.

    Debian's Prometheus has been built without that of Kubernetes; the labels come from `target`.

    Args:
        discovery: `static_configs` or `file_sd_configs`.
        every: Between two scrapes, and two evaluations.

    Raises:
        LabError: the manifests are missing.
    """
    folder = manifests_folder() / "monitoring"
    text = (folder / "scrape.yaml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(text)["scrape_configs"]
    del job["kubernetes_sd_configs"]
    return {
        "global": {"evaluation_interval": every},
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": [{**job, **discovery, "scrape_interval": every}],
    }


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
        end(process, STOP_SECONDS)


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
