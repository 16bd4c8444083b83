"""`upstream-guard demo`: what it says to input that cannot work. No cluster is touched."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from upstream_guard.cli import demo
from upstream_guard.lab.demo import bench
from upstream_guard.lab.demo.runner import Cell, make_run
from upstream_guard.lab.demo.scenarios import SCENARIOS
from upstream_guard.lab.demo.tally import Record
from upstream_guard.lab.demo.variants import Variant


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError("a cluster was touched")

    monkeypatch.setattr(bench, "choose", refuse)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gateway", "ngnix"], ["'ngnix'", "nginx", "contour", "haproxy", "caddy"]),
        (["--scenario", "earthquake"], ["'earthquake'", "rollout", "all-down", "all"]),
        (["--variant", "best"], ["'best'", "plain", "tuned", "guarded"]),
        (["--provider", "cloud"], ["'cloud'", "kind", "local", "existing"]),
        (["--rate", "0"], ["--rate", "1<=x<=5000"]),
        (["--rate", "fast"], ["'fast'"]),
        (["--repeats", "0"], ["--repeats", "1<=x<=100"]),
        (["--json", "/"], ["--json", "directory"]),
        (["--provider", "existing"], ["--context"]),
        (["--context", "prod"], ["--provider existing"]),
        (["--app", "rails"], ["'rails'", "go", "node", "gunicorn", "uvicorn", "all"]),
        (["--kept", "2"], ["--kept", "0<=x<=1"]),
        (["--app", "node", "--scenario", "all"], ["lying-ready", "node cannot", "--app go"]),
        (["--app", "all", "--scenario", "rollout", "--score"], ["--score", "gunicorn", "--app go"]),
        (["--matrix", "--app", "node"], ["--app", "--matrix"]),
        (["--matrix", "--gateway", "httpd"], ["--matrix knows nginx", "not httpd"]),
    ],
)
def test_bad_input_is_named_and_told_what_is_possible(flags: list[str], words: list[str]) -> None:
    result = CliRunner().invoke(demo.command, flags)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    missing = [word for word in words if word not in " ".join(result.output.split())]
    assert not missing, result.output


def test_help_shows_examples() -> None:
    result = CliRunner().invoke(demo.command, ["--help"])
    assert result.exit_code == 0
    assert "upstream-guard demo --scenario all --json runs.json" in result.output


def test_figures_and_picture_get_their_folder(tmp_path: Path) -> None:
    cell = Cell("nginx", SCENARIOS["rollout"], Variant.PLAIN, 1)
    run = make_run(cell, [Record(100.0, 100.1, 0.0, "502")], [], 100.0, 101.0)
    figures, picture = tmp_path / "a" / "runs.json", tmp_path / "b" / "timeline.png"
    options = demo.Options(
        gateways=("nginx",), cells=(cell,), rate=200, provider=None, context=None, keep=False,
        json_path=figures, picture=picture,
    )  # fmt: skip
    demo._write([run], options, Console(quiet=True))
    assert json.loads(figures.read_text())["runs"][0]["statuses"] == {"502": 1}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_runs_nothing_is_written(tmp_path: Path) -> None:
    options = demo.Options(
        gateways=(), cells=(), rate=200, provider=None, context=None, keep=False,
        json_path=tmp_path / "a" / "runs.json", picture=tmp_path / "a" / "timeline.png",
    )  # fmt: skip
    demo._write([], options, Console(quiet=True))
    assert not (tmp_path / "a").exists()
