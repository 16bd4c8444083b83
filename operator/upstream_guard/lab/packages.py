"""Operating-system packages: found, installed where that is allowed, else asked for.

Installing is allowed to root on Debian and Ubuntu. Services that come with a package (containerd,
nginx, haproxy) are neither started nor left enabled: the lab runs its own, on its own addresses.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from upstream_guard.lab.model import LabError, Reporter

POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_MARK = "# upstream-guard lab"
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Need:
    """Something a package brings."""

    package: str
    """Debian's name for it."""
    program: str = ""
    """Found on PATH or in an sbin folder."""
    paths: tuple[str, ...] = ()
    """Alternatively one of these files or folders."""
    service: str = ""
    """Unit that the package would start."""

    def met(self) -> bool:
        """Whether it is there."""
        if self.program:
            return find_program(self.program) is not None
        return any(Path(path).exists() for path in self.paths)


def find_program(name: str) -> Path | None:
    """A program on PATH, or in an sbin folder that an ordinary PATH lacks."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SBIN])
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def missing(needs: Sequence[Need]) -> tuple[Need, ...]:
    """The needs that are not met."""
    return tuple(need for need in needs if not need.met())


def install_command(needs: Sequence[Need]) -> str:
    """What a person would type to meet these needs."""
    names = " ".join(sorted({need.package for need in needs}))
    return f"sudo apt-get update && sudo apt-get install --no-install-recommends -y {names}"


def can_install() -> bool:
    """Whether packages may be installed without asking: root, with apt."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def ensure_packages(needs: Sequence[Need], say: Reporter) -> None:
    """Install what is missing, or say how.

    Raises:
        LabError: if something is missing and cannot be installed here, or the installation fails.
    """
    wanted = missing(needs)
    if not wanted:
        return
    names = sorted({need.package for need in wanted})
    if not can_install():
        raise LabError(
            f"missing on this machine: {', '.join(names)}\n"
            f"On Debian or Ubuntu this installs it:\n  {install_command(wanted)}"
        )
    with say.step(f"Installing {', '.join(names)}"), _services_held_back():
        _apt("update", "-qq")
        _apt("install", "-qq", "-y", "--no-install-recommends", *names)
    for service in (need.service for need in wanted if need.service):
        _disable(service)
    if still := missing(wanted):
        raise LabError(
            f"installed {', '.join(names)}, but did not find "
            f"{', '.join(need.program or ' or '.join(need.paths) for need in still)} afterwards"
        )


def remove_held_policy() -> None:
    """Remove the policy file that an installation killed half-way left behind."""
    try:
        ours = _POLICY_MARK in POLICY.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if ours:
        POLICY.unlink(missing_ok=True)


def _apt(*words: str) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    done = subprocess.run(["apt-get", *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"`apt-get {' '.join(words)}` failed:\n{done.stderr.strip()[-800:]}")


@contextmanager
def _services_held_back() -> Iterator[None]:
    """Forbid package scripts to start services, in the way that Debian's policy documents.

    The file forbids only while this process lives, so that a SIGKILL here does no lasting harm.
    """
    remove_held_policy()
    if POLICY.exists():
        yield
        return
    script = f"#!/bin/sh\n{_POLICY_MARK}\nkill -0 {os.getpid()} 2>/dev/null && exit 101\nexit 0\n"
    POLICY.write_text(script, encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _disable(service: str) -> None:
    """Keep a service that we brought from starting at the next boot."""
    if shutil.which("systemctl"):
        subprocess.run(["systemctl", "disable", "--now", service], capture_output=True, check=False)
