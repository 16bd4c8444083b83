"""Processes are found by the mark that they carry, and by nothing else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from upstream_guard.lab import process
from upstream_guard.lab.model import LabError


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    process.kill_all([p for p in process.marked() if p.state_dir == tmp_path])


def names(state: Path) -> list[str]:
    return [p.name for p in process.marked() if p.state_dir == state]


def until(answer: object, question: object) -> None:
    deadline = time.monotonic() + 5
    while question() != answer:  # type: ignore[operator]
        assert time.monotonic() < deadline, question()  # type: ignore[operator]
        time.sleep(0.01)


def test_a_process_is_found_by_its_mark_and_stopped(state: Path) -> None:
    pid = process.start(state, "sleeper", ["sleep", "60"])
    assert [(p.pid, p.name) for p in process.marked() if p.state_dir == state] == [(pid, "sleeper")]
    assert process.stop(state, "sleeper")
    assert names(state) == []
    assert not process.stop(state, "sleeper")


def test_one_that_ignores_sigterm_is_killed(state: Path) -> None:
    process.start(state, "stubborn", ["sh", "-c", "trap '' TERM; echo up; while :; do :; done"])
    until("up", lambda: process.log_tail(state, "stubborn"))
    assert process.stop(state, "stubborn", timeout=0.2)
    assert names(state) == []


@pytest.mark.parametrize(("script", "gently"), [("", True), ("trap '' TERM; ", False)])
def test_a_child_is_asked_to_end_and_then_forced(script: str, gently: bool) -> None:
    stubborn = f"{script}echo up; while :; do :; done"
    with subprocess.Popen(["sh", "-c", stubborn], stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"up\n"
        assert process.end(child, timeout=5 if gently else 0.2) is gently
        assert child.poll() is not None


def test_children_carry_the_mark_too(state: Path) -> None:
    process.start(state, "family", ["sh", "-c", "sleep 60 & wait"])
    until(["family", "family"], lambda: names(state))
    assert process.kill_all([p for p in process.marked() if p.state_dir == state]) == []
    assert names(state) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="PID namespaces are made by root")
def test_a_lab_in_a_container_is_not_this_one(state: Path) -> None:
    """Of what runs in a PID namespace below, only the init is found: with it, the rest ends."""
    inner = "sleep 60 & echo up; wait"
    process.start(state, "node", ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", inner])
    until("up", lambda: process.log_tail(state, "node"))
    found = [p.pid for p in process.marked() if p.state_dir == state]
    commands = [Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() for pid in found]
    assert sorted(commands) == ["sh", "unshare"]
    assert process.stop(state, "node")
    assert names(state) == []


def test_output_goes_to_the_log(state: Path) -> None:
    process.start(state, "speaker", ["sh", "-c", "echo out; echo err >&2"])
    until("out\nerr", lambda: process.log_tail(state, "speaker"))


def test_this_process_and_its_parents_are_never_found(state: Path) -> None:
    """A user may have the variable in his shell, and must survive `lab down`."""
    script = (
        "from upstream_guard.lab import process; import os;"
        "found = {p.pid for p in process.marked()};"
        "assert not found & {os.getpid(), os.getppid()}, found"
    )
    env = {
        **os.environ,
        process.MARK: f"{state}!shell",
        "PYTHONPATH": os.pathsep.join(["operator", os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "{script}"; exit $?'],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_program_that_is_not_there_is_said_plainly(state: Path) -> None:
    with pytest.raises(LabError, match="no-such-program"):
        process.start(state, "nothing", ["no-such-program"])
