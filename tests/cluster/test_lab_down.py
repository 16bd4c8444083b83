"""`lab down` leaves the machine as it was, also after a SIGKILL anywhere in `lab up`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from upstream_guard.lab import leftovers, plan, process
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import LabSpec, default_state_dir
from upstream_guard.lab.report import QuietReporter

pytestmark = pytest.mark.cluster

POD = f"""
apiVersion: v1
kind: Pod
metadata: {{name: left-running}}
spec:
  containers: [{{name: pause, image: "{plan.PAUSE_IMAGE}", imagePullPolicy: Never}}]
"""
UP = "from upstream_guard.cli import main; main(['lab', 'up', '--provider', 'local'])"


def running(name: str) -> bool:
    return any(p.name == name for p in process.marked())


MOMENTS: dict[str, Callable[[], bool]] = {
    "state folder": leftovers.POINTER.exists,
    "first namespace": lambda: bool(leftovers.network_namespaces()),
    "network link": lambda: Path("/sys/class/net", plan.HOST_LINK).exists(),
    "control plane": lambda: running("control-plane"),
    "node": lambda: running("node-1"),
    "containerd": (default_state_dir() / "nodes/node-1/containerd.sock").exists,
}


def machine() -> dict[str, set[str]]:
    """What a lab could leave behind, found without the lab's own code."""

    def lines(*command: str) -> set[str]:
        return set(_output(command).splitlines())

    folders = ("/var/lib", "/run", "/opt", "/var/log", "/usr/libexec", "/sys/fs/cgroup")
    return {
        "namespaces": lines("ip", "netns"),
        "routes": lines("ip", "route", "show", "table", "all"),
        "links": lines("ip", "-brief", "link"),
        "rules": lines("nft", "list", "ruleset"),
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").open()},
        "folders": {str(p) for folder in folders for p in Path(folder).iterdir()}
        | {str(p) for p in Path("/sys/fs/cgroup").glob("*/*/")} - {str(leftovers.POINTER)},
        "programs": {
            name
            for p in Path("/proc").glob("[0-9]*/comm")
            if (name := comm(p)).startswith(("containerd", "kube", "etcd", "pause"))
            and str(default_state_dir()) in cmdline(p.parent)
        },
    }


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def comm(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def cmdline(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_text()
    except OSError:
        return ""


def differences(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    return {kind: new for kind, names in before.items() if (new := after[kind] - names)}


@pytest.mark.parametrize("moment", MOMENTS)
def test_down_after_a_sigkill(moment: str, no_lab: LocalProvider) -> None:
    before = machine()
    with subprocess.Popen([sys.executable, "-c", UP], stderr=subprocess.DEVNULL) as up:
        deadline = time.monotonic() + 60
        while not MOMENTS[moment]():
            assert up.poll() is None, "`lab up` ended before the moment came"
            assert time.monotonic() < deadline
        os.kill(up.pid, signal.SIGKILL)
    assert leftovers.find(default_state_dir()), "nothing was made yet: the test tests nothing"

    no_lab.down(QuietReporter())

    assert differences(before, machine()) == {}


def test_down_of_a_whole_lab_with_a_pod(no_lab: LocalProvider) -> None:
    before = machine()
    cluster = no_lab.up(LabSpec(default_state_dir(), nodes=1), QuietReporter())
    subprocess.run(cluster.kubectl_command("apply", "-f", "-"), input=POD, text=True, check=True)
    ready = ("wait", "--for=condition=Ready", "pod/left-running", "--timeout=60s")
    subprocess.run(cluster.kubectl_command(*ready), check=True)

    no_lab.down(QuietReporter())

    assert differences(before, machine()) == {}


def test_down_where_nothing_is(no_lab: LocalProvider) -> None:
    say = QuietReporter()
    no_lab.down(say)
    assert say.said == ["There is no lab; nothing to do."]
