"""The main job through the command line: the same rollout, plain and guarded, on a real cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from upstream_guard.lab.model import Cluster

pytestmark = pytest.mark.cluster

CONTRACT = {
    "gateway": str,
    "scenario": str,
    "variant": str,
    "repeat": int,
    "requests": int,
    "failed": int,
    "statuses": dict,
    "window_seconds": float,
    "change_seconds": float,
}
RUNS = 3
"""At most: a run is repeated where a connection was lost in the middle of kube-proxy's own transaction."""


def demo(*flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "upstream_guard.cli", "demo", *flags],
        env={**os.environ, "PYTHONPATH": "operator"},
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip


def untranslated(cluster: Cluster) -> int:
    """Connections that met kube-proxy's rules while they were exchanged (docs/decisions/0027)."""
    log = cluster.logs / "gateway-nginx.log"
    return log.read_text(errors="replace").count("(101: ") if log.exists() else 0


def test_a_guarded_rollout_loses_nothing_where_a_plain_one_does(
    cluster: Cluster, tmp_path: Path
) -> None:
    figures, picture = tmp_path / "runs.json", tmp_path / "timeline.png"
    for _ in range(RUNS):
        before = untranslated(cluster)
        done = demo(
            "--gateway", "nginx", "--scenario", "rollout", "--variant", "plain",
            "--variant", "guarded", "--json", str(figures), "--picture", str(picture),
        )  # fmt: skip
        if untranslated(cluster) == before:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    plain, guarded = json.loads(figures.read_text())["runs"]
    for run in (plain, guarded):
        assert {key: type(run[key]) for key in CONTRACT} == CONTRACT
        assert sum(run["statuses"].values()) == run["requests"]
        assert (run["gateway"], run["scenario"], run["repeat"]) == ("nginx", "rollout", 1)
    assert plain["variant"] == "plain"
    assert plain["failed"] > 0
    assert (guarded["variant"], guarded["failed"]) == ("guarded", 0)
    assert guarded["min_listed"] >= 1

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "GuardAccepted" in done.stdout
    assert "The guard kept every promise." in done.stdout
    assert "The operator's logs:" in done.stderr or "Using the operator" in done.stderr

    left = subprocess.run(
        cluster.kubectl_command("get", "namespaces", "--output=name"),
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    living = [name for name in left if name.startswith("namespace/ug-demo-")]
    assert all(_terminating(cluster, name) for name in living)


def test_another_cluster_is_refused_while_the_lab_is_up(cluster: Cluster) -> None:
    done = demo("--provider", "existing", "--context", "no-such-context")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "`upstream-guard lab down` first" in done.stderr
    subprocess.run(cluster.kubectl_command("get", "nodes"), capture_output=True, check=True)


def _terminating(cluster: Cluster, name: str) -> bool:
    phase = subprocess.run(
        cluster.kubectl_command("get", name, "--ignore-not-found", "--output=jsonpath={.status.phase}"),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return phase in {"", "Terminating"}
