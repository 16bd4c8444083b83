"""What the gateways share: ports, kubectl, waiting, and processes that forget their environment."""

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from upstream_guard.lab import packages, process
from upstream_guard.lab.gateways.model import ServiceTarget
from upstream_guard.lab.model import Cluster, LabError
from upstream_guard.lab.ports import LOOPBACK

START_SECONDS: Final = 20.0
"""How long a gateway may take until it listens."""
ROUTE_SECONDS: Final = 30.0
"""How long a gateway may take to learn a route."""
STOP_SECONDS: Final = 5.0
_POLL = 0.05
_KUBECTL_SECONDS = 60.0


def folder(cluster: Cluster, name: str) -> Path:
    """Everything that a gateway writes, its log excepted."""
    return cluster.state_dir / "gateways" / name


@contextlib.contextmanager
def locked(cluster: Cluster, name: str) -> Iterator[None]:
    """Keep other programs from changing the gateway meanwhile: a demo and a test may share a lab.

    Where the lab is gone there is nothing to keep them from, and its folder must not come back.
    """
    path = cluster.state_dir / "gateways" / f"{name}.lock"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            path.parent.mkdir(exist_ok=True)
            fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
        yield


def process_name(name: str) -> str:
    """What `lab logs` calls a gateway's process."""
    return f"gateway-{name}"


def listens(port: int, address: str = LOOPBACK) -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def wait_for(
    condition: Callable[[], bool], seconds: float, what: str, *, poll: float = _POLL
) -> None:
    """Wait until something is so.

    Raises:
        LabError: if it is not so within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds:g} s for {what}")
        time.sleep(poll)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a gateway answered."""

    status: int
    """0 where there was no answer in time."""
    headers: Mapping[str, str]
    """Names in lower case."""


def ask(port: int, host: str, timeout: float = 2.0, address: str = LOOPBACK) -> Answer:
    """Send `GET /` with this Host header."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", "/", headers={"Host": host, "Connection": "close"})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()})
    except (OSError, http.client.HTTPException):
        return Answer(0, {})
    finally:
        connection.close()


def kubectl(
    cluster: Cluster, *args: str, stdin: str = "", seconds: float = _KUBECTL_SECONDS
) -> str:
    """Run kubectl on the cluster, and return its output.

    Raises:
        LabError: with kubectl's own words.
    """
    try:
        done = subprocess.run(
            cluster.kubectl_command(*args),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"`kubectl {' '.join(args)}` failed: {error}") from error
    if done.returncode:
        raise LabError(f"`kubectl {' '.join(args)}` failed: {done.stderr.strip()[-800:]}")
    return done.stdout


def get_service(cluster: Cluster, target: ServiceTarget) -> dict[str, Any]:
    """The Service, which is sure to have the target's port.

    Raises:
        LabError: if the Service or the port does not exist.
    """
    text = kubectl(
        cluster, "get", "service", target.name, f"--namespace={target.namespace}", "--output=json"
    )
    service: dict[str, Any] = json.loads(text)
    ports = [int(port["port"]) for port in service["spec"].get("ports") or ()]
    if target.port not in ports:
        raise LabError(
            f"Service {target.namespace}/{target.name} has no port {target.port}; "
            f"it has {', '.join(map(str, ports)) or 'none'}"
        )
    return service


def node_address(cluster: Cluster) -> str:
    """The InternalIP of a node that is ready.

    Raises:
        LabError: if there is none.
    """
    nodes = json.loads(kubectl(cluster, "get", "nodes", "--output=json"))["items"]
    for node in nodes:
        conditions = {c["type"]: c["status"] for c in node["status"].get("conditions", ())}
        if conditions.get("Ready") != "True":
            continue
        for address in node["status"].get("addresses", ()):
            if address["type"] == "InternalIP":
                return str(address["address"])
    raise LabError("no node is ready")


def start(
    cluster: Cluster, name: str, argv: Sequence[str], *, contained: bool = False, netns: str = ""
) -> None:
    """Start a gateway's process under the lab's mark.

    Args:
        cluster: Whose state folder it belongs to.
        name: The process's name, without prefix.
        argv: The command line.
        contained: For programs that overwrite their environment, and the mark with it (nginx does,
            to change its title). They get a PID namespace, whose marked parent takes them along
            when it is killed.
        netns: Network namespace to run in; "" for the machine's own.
    """
    command = list(argv)
    if contained:
        # Without root, a user namespace of one's own is what allows the other.
        user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
        command = ["unshare", *user, "--pid", "--fork", "--kill-child", "--", *command]
    process.start(cluster.state_dir, process_name(name), command, netns=netns)


def main_pids(cluster: Cluster, name: str, *, contained: bool = False) -> list[int]:
    """PIDs of the gateway's own main process; empty if it does not run."""
    found = [p.pid for p in _marked(cluster, name)]
    if contained:
        return [child for pid in found for child in _children(pid)]
    return [pid for pid in found if _parent(pid) not in found]


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal; a process that is gone meanwhile is no error."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def stop(cluster: Cluster, name: str, *, contained: bool = False) -> None:
    """End a gateway's processes: asked first, then forced."""
    if contained:
        # The parent of a PID namespace does not pass SIGTERM on.
        send(main_pids(cluster, name, contained=True), signal.SIGTERM)
        with contextlib.suppress(LabError):
            wait_for(
                lambda: not main_pids(cluster, name, contained=True), STOP_SECONDS, "it to end"
            )
    if contained:
        process.kill_all(_marked(cluster, name))
    else:
        process.stop(cluster.state_dir, process_name(name), STOP_SECONDS)


def write(path: Path, text: str) -> None:
    """Write a file that only we may read; it changes whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.touch(mode=0o600)
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


def remove_folder(cluster: Cluster, name: str) -> None:
    """Remove a gateway's folder."""
    shutil.rmtree(folder(cluster, name), ignore_errors=True)


def program(name: str) -> Path:
    """A program that a package has brought.

    Raises:
        LabError: if it is not there.
    """
    found = packages.find_program(name)
    if found is None:
        raise LabError(f"{name} is not installed")
    return found


def until_listening(cluster: Cluster, name: str, port: int, address: str = LOOPBACK) -> None:
    """Wait until a gateway that was just started accepts connections.

    Raises:
        LabError: if it ends, or does not in time, with the last lines of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    while not listens(port, address):
        # Slept first: a process that has only just been made does not show its mark yet.
        time.sleep(_POLL)
        late = time.monotonic() > deadline
        if late or not _marked(cluster, name):
            why = f"did not within {START_SECONDS:g} s" if late else "ended before"
            tail = process.log_tail(cluster.state_dir, process_name(name))
            raise LabError(
                f"{name} should listen on {address}:{port} and {why}; the end of its log:\n{tail}"
            )


def _marked(cluster: Cluster, name: str) -> list[process.MarkedProcess]:
    return [
        p
        for p in process.marked()
        if p.name == process_name(name) and p.state_dir == cluster.state_dir
    ]


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def descendants(pids: Iterable[int]) -> list[int]:
    """These processes, and all that they have started."""
    found = list(pids)
    for pid in found:  # it grows
        found += [child for child in _children(pid) if child not in found]
    return found


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    except OSError:
        return []
    return [int(word) for word in text.split()]
