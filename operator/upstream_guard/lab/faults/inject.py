"""Ways to bring a fault about, each an asynchronous context: on while it is open, healed on leaving."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from upstream_guard.lab import plan, process
from upstream_guard.lab.demo.stage import Stage, container_pids, kubectl
from upstream_guard.lab.demo.variants import APP_PORT
from upstream_guard.lab.faults.model import Inject, Scene
from upstream_guard.lab.faults.naming import dns_name
from upstream_guard.lab.gateways import GATEWAYS, envoy_gateway, support
from upstream_guard.lab.model import Cluster, LabError
from upstream_guard.lab.nameserver import Fault as DnsFault
from upstream_guard.lab.nameserver import Nameserver
from upstream_guard.lab.report import QuietReporter

Json = dict[str, Any]

LONGEST_SECONDS: Final = 120.0
"""A sample heals itself after so long, should we not come to it."""
HEALTHY: Final = "none"
Switch = Callable[[], Awaitable[None]]
COMMAND_SECONDS: Final = 20.0
SLOW_SECONDS: Final = 0.2
"""What a crowded app takes for an answer: less than a probe waits."""
_LIMITS: Final = ("max-connections", "max-pending-requests", "max-requests")
"""Contour's annotations of a Service, for Envoy's circuit breakers."""
_ICMP_LIMIT: Final = "/proc/sys/net/ipv4/icmp_ratelimit"
"""Milliseconds between two answers to one address, of the network namespace of who opens it."""


def sample(mode: str, pods: int = 0, delay: float = 0.0) -> Inject:
    """The sample fails in this way, in so many pods, or in all where that is 0.

    Args:
        mode: Of the sample.
        pods: In how many; 0 is all.
        delay: Seconds by which `slow` answers late.
    """

    @asynccontextmanager
    async def inject(scene: Scene) -> AsyncIterator[None]:
        chosen = scene.stage.pods()[: pods or None]
        try:
            await asyncio.gather(
                *(scene.stage.fault(p, mode, LONGEST_SECONDS, delay) for p in chosen)
            )
            yield
        finally:
            await asyncio.gather(*(scene.stage.fault(p, HEALTHY, 0) for p in chosen))

    return inject


@asynccontextmanager
async def crash(scene: Scene) -> AsyncIterator[None]:
    """The app's process is killed in every pod at once; the kubelet starts it again."""
    pods = scene.stage.pods()
    await asyncio.gather(*(scene.stage.crash(pod) for pod in pods))
    yield
    await scene.stage.until_serving(len(pods))


def firewall(verdict: str, *, gateway_only: bool = False) -> Inject:
    """Packets to the app's port of the service's pods meet this verdict on their nodes.

    Args:
        verdict: Of nftables.
        gateway_only: Only packets from the lab's edge, where ClusterIPs are translated; the kubelet's
            own never are concerned, for they do not pass through the node.
    """

    @asynccontextmanager
    async def inject(scene: Scene) -> AsyncIterator[None]:
        addresses = [pod["status"]["podIP"] for pod in scene.stage.pods()]
        table = f"ug_fault_{scene.stage.name.replace('-', '_')}"
        source = plan.EDGE_ADDRESS if gateway_only else ""
        rules = ruleset(table, addresses, verdict, source)
        try:
            await asyncio.to_thread(_on_nodes, scene.cluster, ["nft", "--file", "-"], rules)
            yield
        finally:
            command = ["nft", "delete", "table", "ip", table]
            await asyncio.to_thread(_on_nodes, scene.cluster, command, "")

    return inject


def unreachable() -> Inject:
    """Every packet to the service's pods is answered by ICMP: no such host.

    Linux sends one such answer a second to an address at most, and drops the other packets without a word
    (`icmp_ratelimit`, RFC 1812 4.3.2.8): then most users would meet a time-out, another fault. The limit is
    lifted meanwhile.
    """
    reject = firewall("reject with icmp type host-unreachable")
    # Of the first of several trials at once, for the last of them.
    limits: list[str] = []

    @asynccontextmanager
    async def inject(scene: Scene) -> AsyncIterator[None]:
        cluster = scene.cluster

        async def lift() -> None:
            limits[:] = await asyncio.to_thread(_on_nodes, cluster, ["cat", _ICMP_LIMIT], "")
            await asyncio.to_thread(_on_nodes, cluster, ["tee", _ICMP_LIMIT], "0\n")

        async def restore() -> None:
            # Lab nodes are alike, so what one said holds for all.
            await asyncio.to_thread(_on_nodes, cluster, ["tee", _ICMP_LIMIT], limits[0])

        async with _TOGETHER.held(("icmp", cluster.name), lift, restore), reject(scene):
            yield

    return inject


@asynccontextmanager
async def crowded(scene: Scene) -> AsyncIterator[None]:
    """The gateway may have one request under way at the service, and the app takes its time."""
    service, names = f"service/{scene.stage.name}", [f"projectcontour.io/{n}" for n in _LIMITS]
    slow = sample("slow", delay=SLOW_SECONDS)
    try:
        await scene.stage.kubectl("annotate", "--overwrite", service, *(f"{n}=1" for n in names))
        async with slow(scene):
            yield
    finally:
        await scene.stage.kubectl("annotate", service, *(f"{n}-" for n in names))


def ruleset(table: str, addresses: Iterable[str], verdict: str, source: str = "") -> str:
    """The rules for nft. Connections that are open are concerned as well.

    Args:
        table: Its name.
        addresses: Of the pods.
        verdict: Of nftables.
        source: Only packets from this address; all where empty.
    """
    origin = f"ip saddr {source} " if source else ""
    to = f"ip daddr {{ {', '.join(addresses)} }} tcp dport {APP_PORT}"
    return f"""\
table ip {table} {{
  chain forward {{
    type filter hook forward priority -10
    {origin}{to} {verdict}
  }}
}}
"""


class Together:
    """Something that trials of several gateways share: on with the first of them, off with the last."""

    def __init__(self) -> None:
        self._users: dict[Hashable, int] = {}
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def held(self, key: Hashable, on: Switch, off: Switch) -> AsyncIterator[None]:
        """Keep it on while the context is open.

        Args:
            key: What it is.
            on: Switches it on.
            off: Switches it off.
        """
        async with self._lock:
            if not self._users.get(key):
                await on()
            self._users[key] = self._users.get(key, 0) + 1
        try:
            yield
        finally:
            async with self._lock:
                self._users[key] -= 1
                if not self._users[key]:
                    await off()


_TOGETHER: Final = Together()


@asynccontextmanager
async def no_room(scene: Scene) -> AsyncIterator[None]:
    """Every pod is deleted while no node takes new ones: an empty list that nobody wanted."""
    cluster, pods = scene.cluster, len(scene.stage.pods())
    nodes = [node.name for node in cluster.nodes]

    async def cordon() -> None:
        await kubectl(cluster, "cordon", *nodes)

    async def uncordon() -> None:
        await kubectl(cluster, "uncordon", *nodes)

    async with _TOGETHER.held(("cordon", cluster.name), cordon, uncordon):
        await _delete_pods(scene.stage)
        yield
    await scene.stage.until_serving(pods)


def _dns(scene: Scene) -> Nameserver:
    """The cluster's DNS.

    Raises:
        LabError: the lab was brought up without.
    """
    if scene.dns is None:
        raise LabError("this lab has no DNS server that could fail")
    return scene.dns


@asynccontextmanager
async def nameless(scene: Scene) -> AsyncIterator[None]:
    """DNS knows the service's name no more, as after its Service was renamed."""
    records, name = _dns(scene).records, dns_name(scene.stage)
    before = records.pop(name)
    try:
        yield
    finally:
        records[name] = before


@asynccontextmanager
async def stopped_dns(scene: Scene) -> AsyncIterator[None]:
    """The DNS server has ended: nothing listens at its address."""
    server = _dns(scene)

    async def stop() -> None:
        await asyncio.to_thread(server.stop)

    async def start() -> None:
        server.start()

    async with _TOGETHER.held("dns-stopped", stop, start):
        yield


@asynccontextmanager
async def failing_dns(scene: Scene) -> AsyncIterator[None]:
    """The DNS server says that it cannot tell, as one whose own sources are away."""
    server = _dns(scene)

    async def fail() -> None:
        server.fault = DnsFault.SERVFAIL

    async def heal() -> None:
        server.fault = DnsFault.NONE

    async with _TOGETHER.held("dns-failing", fail, heal):
        yield


@asynccontextmanager
async def frozen_list(scene: Scene) -> AsyncIterator[None]:
    """What tells the gateway of endpoints is stopped, and then every pod is replaced: the list is never empty."""
    pids = await asyncio.to_thread(list_keepers, scene)
    if not pids:
        raise LabError(f"nothing was found that keeps the list of {scene.gateway}")
    pods = scene.stage.pods()

    async def stop() -> None:
        support.send(pids, signal.SIGSTOP)

    async def go_on() -> None:
        support.send(pids, signal.SIGCONT)

    async with _TOGETHER.held(tuple(sorted(pids)), stop, go_on):
        await _replace(scene.stage, pods)
        yield
    await scene.stage.until_serving(len(pods))


async def _replace(stage: Stage, old: Sequence[Json]) -> None:
    """Other pods serve before the first of these goes; returns when these are gone.

    Source: kubernetes.io, ReplicaSet, "Pod deletion cost".
    """
    names = [f"pod/{pod['metadata']['name']}" for pod in old]
    await stage.kubectl("scale", stage.deployment, f"--replicas={2 * len(old)}")
    await stage.until_serving(2 * len(old))
    await stage.kubectl(
        "annotate", "--overwrite", *names, "controller.kubernetes.io/pod-deletion-cost=-100"
    )
    await stage.kubectl("scale", stage.deployment, f"--replicas={len(old)}")
    await stage.kubectl("delete", *names, "--ignore-not-found", "--wait=false", "--grace-period=1")
    await stage.until_gone(pod["metadata"]["uid"] for pod in old)


async def _delete_pods(stage: Stage) -> None:
    await stage.kubectl(
        "delete", "pod", f"--selector=app.kubernetes.io/name={stage.name}", "--wait=false", "--grace-period=1",
    )  # fmt: skip


@asynccontextmanager
async def halting(pids: Sequence[int], stopped: float, running: float) -> AsyncIterator[None]:
    """Processes are stopped again and again: what they do comes late, by up to so many seconds.

    Args:
        pids: Which; at least one.
        stopped: Seconds for which they are stopped.
        running: Seconds for which they run in between.

    Raises:
        LabError: there is no process.
    """
    if not pids:
        raise LabError("no process was found that could be slowed down")

    async def halt() -> None:
        while True:
            support.send(pids, signal.SIGSTOP)
            await asyncio.sleep(stopped)
            support.send(pids, signal.SIGCONT)
            await asyncio.sleep(running)

    task = asyncio.create_task(halt())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        support.send(pids, signal.SIGCONT)


def proxies(scene: Scene) -> list[int]:
    """The processes that take users' connections, all of them, as this machine counts them."""
    mine = {support.process_name(name) for name in _proxies(scene.gateway)}
    return support.descendants(
        p.pid for p in process.marked() if p.state_dir == scene.cluster.state_dir and p.name in mine
    )


def list_keepers(scene: Scene) -> list[int]:
    """The processes by which the gateway hears of endpoints, as this machine counts them."""
    if scene.gateway == "contour":
        return support.main_pids(scene.cluster, "contour")
    if scene.gateway == envoy_gateway.NAME:
        return _controller_pids(scene.cluster)
    return _by_command(f"{scene.cluster.state_dir}/edge-kube-proxy.yaml")


def _controller_pids(cluster: Cluster) -> list[int]:
    text = support.kubectl(
        cluster, "get", "pods", f"--namespace={envoy_gateway.NAMESPACE}",
        f"--selector=control-plane={envoy_gateway.NAME}",
        "--output=jsonpath={.items[*].status.containerStatuses[*].containerID}",
    )  # fmt: skip
    return [pid for word in text.split() for pid in container_pids(word.rpartition("//")[2])]


def _by_command(word: str) -> list[int]:
    """Processes with this in their command line, ourselves and shells excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # it ended meanwhile
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(word in w for w in words[1:]) and not words[0].endswith("sh"):
                found.append(int(entry.name))
    return found


@asynccontextmanager
async def killed_gateway(scene: Scene) -> AsyncIterator[None]:
    """The gateway's own processes are killed, and started again at the end."""
    mine = {support.process_name(name) for name in _proxies(scene.gateway)}
    doomed = [
        p for p in process.marked() if p.state_dir == scene.cluster.state_dir and p.name in mine
    ]
    try:
        await asyncio.to_thread(process.kill_all, doomed)
        yield
    finally:
        await asyncio.to_thread(GATEWAYS[scene.gateway].up, scene.cluster, QuietReporter())


def in_a_rollout(fault: Inject) -> Inject:
    """The same in the middle of a rollout that by itself costs nothing.

    While a change is under way the operator looks more often.
    """

    @asynccontextmanager
    async def inject(scene: Scene) -> AsyncIterator[None]:
        stage = scene.stage
        old = [pod["metadata"]["uid"] for pod in stage.pods()]
        await stage.kubectl("rollout", "restart", stage.deployment)
        async with fault(scene):
            yield
        await stage.until_gone(old)
        await stage.until_serving(len(old))

    return inject


def _proxies(gateway: str) -> Sequence[str]:
    """Names of the processes that take users' connections."""
    return {
        "contour": ("envoy",),
        envoy_gateway.NAME: (f"{envoy_gateway.NAME}-envoy",),
    }.get(gateway, (gateway,))


def _on_nodes(cluster: Cluster, command: Sequence[str], stdin: str) -> list[str]:
    """What the command says in each node's network namespace.

    Raises:
        LabError: it failed on one.
    """
    said = []
    for node in cluster.nodes:
        words = ["nsenter", f"--net=/run/netns/{node.netns}", *command]
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        if done.returncode:
            raise LabError(f"`{' '.join(words)}` failed: {done.stderr.strip()}")
        said.append(done.stdout)
    return said
