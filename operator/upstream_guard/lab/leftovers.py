"""What a local lab leaves on a machine, found by name alone, and how it is removed.

Nothing here trusts a state file: `lab up` may have been killed at any point. Every trace has a name
of ours: a mark in processes' environments, `ug-lab-*` namespaces, the link `uglab0`, and a state
folder with a marker file in it. Containers' cgroups have containerd's names; only empty ones are
taken away, which hurts nobody who shares the parent.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from upstream_guard.lab import packages, plan, process
from upstream_guard.lab.model import CLUSTER_FILE, LabError, Reporter

MARKER = ".upstream-guard-lab"
"""A folder without this file is never emptied."""
POINTER = Path("/run/upstream-guard-lab")
"""Says where the lab's state is, for a `down` that was told another folder or none."""
_CGROUPS = Path("/sys/fs/cgroup")
_MACHINE_FOLDERS = (Path("/var/lib/cni"), Path("/run/containerd/s"), Path("/run/containerd"))
"""Made for mount points where they were missing; removed when empty."""
_DEADLINE = 20.0
_POLL = 0.05


def state_dirs(state_dir: Path) -> tuple[Path, ...]:
    """The folder given, and the one where the present lab really is."""
    found = [state_dir]
    with contextlib.suppress(OSError):
        found.append(Path(POINTER.read_text(encoding="utf-8").strip()))
    return tuple(dict.fromkeys(found))


def elsewhere(state_dir: Path) -> Path | None:
    """Where the state of a lab is that runs on this machine, if it is another folder than this one."""
    found = next((path for path in state_dirs(state_dir) if path != state_dir), None)
    running = found is not None and any(p.state_dir == found for p in process.marked())
    return found if running else None


def claim(state_dir: Path) -> None:
    """Make the state folder ours.

    Raises:
        LabError: if it holds something else.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        if not (state_dir / MARKER).exists() and any(state_dir.iterdir()):
            raise LabError(f"{state_dir} is not empty and not a lab's; choose another --state-dir")
        (state_dir / MARKER).touch()
        POINTER.write_text(f"{state_dir}\n", encoding="utf-8")
    except OSError as error:
        raise LabError(f"the lab's state cannot be kept in {state_dir}: {error}") from error


def find(state_dir: Path) -> tuple[str, ...]:
    """One line for each trace of a local lab."""
    dirs = state_dirs(state_dir)
    return (
        *(f"process {p.pid} ({p.name})" for p in process.marked()),
        *(f"network namespace {name}" for name in network_namespaces()),
        *([f"network link {plan.HOST_LINK}"] if _has_link() else []),
        *(f"mount {path}" for path in _mounts(dirs)),
        *(f"cgroup {path}" for path in _cgroups()),
        *(f"folder {path}" for path in dirs if (path / MARKER).exists()),
    )


def remove(state_dir: Path, say: Reporter) -> None:
    """Remove every trace.

    Raises:
        LabError: if something is still there afterwards; it says what.
    """
    dirs = state_dirs(state_dir)
    with say.step("Stopping the lab's processes"):
        process.kill_all(process.marked(), _DEADLINE)
    with say.step("Removing its network, mounts and cgroups"):
        _remove_network()
        for point in _mounts(dirs):
            _run("umount", "--lazy", point)
        _remove_cgroups()
    with say.step("Removing its files"):
        for path in dirs:
            _remove_state(path)
        for folder in _MACHINE_FOLDERS:
            with contextlib.suppress(OSError):
                folder.rmdir()
        POINTER.unlink(missing_ok=True)
        packages.remove_held_policy()
    if still := find(state_dir):
        raise LabError("could not be removed:\n  " + "\n  ".join(still))


def network_namespaces() -> tuple[str, ...]:
    """The lab's network namespaces."""
    folder = Path("/run/netns")
    if not folder.is_dir():
        return ()
    return tuple(sorted(p.name for p in folder.iterdir() if p.name.startswith(plan.PREFIX)))


def cgroup_pids(container: str) -> tuple[int, ...]:
    """PIDs of the processes in a container's cgroup, ascending; empty if there is none."""
    for parent in _cgroup_parents():
        if pids := sorted(_pids(parent / container)):
            return tuple(pids)
    return ()


def _has_link() -> bool:
    """Asked of the kernel, not of /sys, which may be mounted from another network namespace."""
    try:
        socket.if_nametoindex(plan.HOST_LINK)
    except OSError:
        return False
    return True


def _mounts(dirs: tuple[Path, ...]) -> tuple[str, ...]:
    """Mount points below the state folders, innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if any(Path(point).is_relative_to(path) for path in dirs):
            found.append(point)
    return tuple(reversed(found))


def _cgroup_parents() -> tuple[Path, ...]:
    """The containers' parent in each hierarchy: version 2's only one, or each of version 1's."""
    candidates = [_CGROUPS / plan.CGROUP, *_CGROUPS.glob(f"*/{plan.CGROUP}")]
    return tuple(path for path in candidates if path.is_dir())


def _cgroups() -> tuple[Path, ...]:
    """Containers' cgroups without a process, and parents without a child."""
    found = []
    parents = _cgroup_parents()
    busy = {path.name for parent in parents for path in _inside(parent) if _in_use(path)}
    for parent in parents:
        children = [path for path in _inside(parent) if path.is_dir()]
        found += [path for path in children if path.name not in busy]
        found += [] if children else [parent]
    return tuple(found)


def _inside(folder: Path) -> tuple[Path, ...]:
    """What is in it; nothing where somebody else has removed it meanwhile, as containers' runtimes do."""
    with contextlib.suppress(FileNotFoundError):
        return tuple(folder.iterdir())
    return ()


def _in_use(folder: Path) -> bool:
    """A process is in it, also one of another PID namespace.

    Version 2 lists such a one as 0; version 1 leaves it out, and counts it in the hierarchy `pids`.
    """
    if any(True for _ in _pids(folder)):
        return True
    with contextlib.suppress(OSError):
        return (folder / "pids.current").read_text(encoding="utf-8").strip() != "0"
    return False


def _pids(folder: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for word in (folder / "cgroup.procs").read_text(encoding="utf-8").split():
            yield int(word)


def _remove_cgroups() -> None:
    """A cgroup can be removed a moment after its last process is gone."""
    end = time.monotonic() + _DEADLINE
    while (groups := _cgroups()) and time.monotonic() < end:
        for group in groups:
            with contextlib.suppress(OSError):
                group.rmdir()
        if _cgroups() == groups:
            time.sleep(_POLL)


def _remove_network() -> None:
    if _has_link():
        _run("ip", "link", "delete", plan.HOST_LINK)
    for name in network_namespaces():
        pids = _run("ip", "netns", "pids", name).split()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _run("ip", "netns", "delete", name)
        # A namespace file whose mount is gone (killed between the two steps of `ip netns add`).
        with contextlib.suppress(OSError):
            Path("/run/netns", name).unlink()


def _remove_state(path: Path) -> None:
    if not (path / MARKER).exists() or _mounts((path,)):
        return
    (path / CLUSTER_FILE).unlink(missing_ok=True)  # first: what is half removed is no cluster
    for entry in path.iterdir():  # the marker goes last: a kill in between leaves it findable
        if entry.name == MARKER:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (path / MARKER).unlink()
        path.rmdir()


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
