"""Processes of the lab: each has a log, and a mark in its environment by which it is found again.

The mark is what makes `lab down` work after a SIGKILL in the middle of `lab up`: no file of PIDs has
to be complete or true. Processes inside a node's PID namespace need no mark of their own, for they
die with the namespace's first process.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from upstream_guard.lab.model import LabError

MARK = "UPSTREAM_GUARD_LAB_PROCESS"
"""Environment variable that every process of the lab carries: `<state dir>!<name>`."""

_POLL = 0.02


@dataclass(frozen=True, slots=True)
class MarkedProcess:
    """A running process that carries the mark."""

    pid: int
    state_dir: Path
    name: str


def start(
    state_dir: Path,
    name: str,
    argv: Sequence[str],
    *,
    netns: str = "",
    env: Mapping[str, str] | None = None,
) -> int:
    """Start a long-running process of the lab, in a session of its own, and return its PID.

    Args:
        state_dir: The lab's state folder; output goes to `logs/NAME.log` in it.
        name: What `lab logs NAME` and `stop` call it.
        argv: The command line.
        netns: Network namespace to run in; "" for the machine's own.
        env: Variables added to this process's own environment.

    Raises:
        LabError: if the program cannot be started.
    """
    logs = state_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    command = ["nsenter", f"--net=/run/netns/{netns}", *argv] if netns else list(argv)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        return os.posix_spawnp(
            command[0],
            command,
            {**os.environ, **(env or {}), MARK: f"{state_dir}!{name}"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(logs / f"{name}.log"), append, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
    except OSError as error:
        raise LabError(f"{command[0]} cannot be started: {error}") from error


def stop(state_dir: Path, name: str, timeout: float = 10.0) -> bool:
    """End the processes started under `name`: SIGTERM, and SIGKILL after `timeout` seconds.

    Returns:
        Whether there were any.
    """
    pids = [p.pid for p in marked() if p.state_dir == state_dir and p.name == name]
    _signal(pids, signal.SIGTERM)
    if not _gone(pids, timeout):
        _signal(pids, signal.SIGKILL)
        _gone(pids, timeout)
    return bool(pids)


def end(child: subprocess.Popen[bytes], timeout: float) -> bool:
    """End a child that has no mark: SIGTERM, and SIGKILL after `timeout` seconds.

    Returns:
        Whether SIGTERM was enough.
    """
    child.terminate()
    try:
        child.wait(timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return False
    return True


def kill_all(processes: Iterable[MarkedProcess], timeout: float = 20.0) -> list[int]:
    """SIGKILL these processes.

    Returns:
        The PIDs still there after `timeout` seconds; empty as a rule.
    """
    return kill_pids([p.pid for p in processes], timeout)


def kill_pids(pids: Sequence[int], timeout: float = 20.0) -> list[int]:
    """SIGKILL these PIDs; those that are gone already are no error.

    Returns:
        The PIDs still there after `timeout` seconds; empty as a rule.
    """
    _signal(pids, signal.SIGKILL)
    _gone(pids, timeout)
    return [pid for pid in pids if alive(pid)]


def marked() -> list[MarkedProcess]:
    """All running processes that carry the mark, this one and its parents excepted.

    Those of a lab in a container on this machine are its own affair.
    """
    mine = _ancestors()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in mine:
            continue
        mark = _read_mark(entry)
        if mark and alive(int(entry.name)) and not _in_container(entry):
            folder, _, name = mark.rpartition("!")
            found.append(MarkedProcess(int(entry.name), Path(folder), name))
    return found


def log_tail(state_dir: Path, name: str, lines: int = 5) -> str:
    """The last lines of a process's log, for an error message; "" where there is none."""
    try:
        text = (state_dir / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _read_mark(entry: Path) -> str:
    prefix = f"{MARK}=".encode()
    try:
        environ = (entry / "environ").read_bytes()
    except OSError:
        return ""  # it ended meanwhile, or belongs to somebody else
    for item in environ.split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :].decode(errors="replace")
    return ""


def _in_container(entry: Path) -> bool:
    """Whether a process is below this PID namespace, and not the init of a node right below it.

    A node's other processes end with that init (pid_namespaces(7)).
    """
    try:
        lines = (entry / "status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    _, *below = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [""])
    return bool(below) and below != ["1"]


def _ancestors() -> set[int]:
    found = set()
    pid = os.getpid()
    while pid > 0:
        found.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie; reaps it where it is our own child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _gone(pids: Sequence[int], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
