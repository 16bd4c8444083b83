"""The changes that open 502 windows, each done as a user (or an accident) would do it.

A scenario's function returns when the change has ended, as its docstring defines the end. The
runner then waits until every pod serves, so that no failure is left out of the count.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from upstream_guard.lab import nodes
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.variants import APP_LABEL

LOSS_SECONDS: Final = 75.0
"""How long a node is lost: longer than Kubernetes takes to notice (50 s of grace, looked at each 5 s)."""

FAULT_SECONDS: Final = 10.0
"""How long a fault lasts before it is healed: long enough for any probe to have seen it."""

Change = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One change, and the service that it happens to."""

    name: str
    title: str
    """What happens, for the progress bar and the help."""
    change: Change
    replicas: int = 3
    replicas_after: int = 3
    start_delay: float = 1.0
    """Seconds from process start until the app listens."""
    nodes: int = 1
    """How many nodes it needs."""
    cable: bool = False
    """It pulls a node's network cable, which can only be done in the embedded lab."""
    commands: bool = False
    """It tells the app to fail, which only some apps do."""


async def rollout(stage: Stage) -> None:
    """Ends when the last old pod is gone from the API."""
    old = stage.uids()
    await stage.kubectl("rollout", "restart", stage.deployment)
    await stage.until_gone(old)


async def scale_in(stage: Stage, left: int) -> None:
    """Ends when the pods that had to go are gone from the API."""
    await stage.kubectl("scale", stage.deployment, f"--replicas={left}")
    await stage.until_pods(left)


async def _scale_in(stage: Stage) -> None:
    await scale_in(stage, SCALE_IN_TO)


async def crash(stage: Stage) -> None:
    """Ends when the pod runs, serves and is listed again."""
    pods = stage.pods()
    await stage.crash(pods[0])
    await stage.until_restarted(pods[0])
    await stage.until_serving(len(pods))


async def _lying_ready(stage: Stage) -> None:
    """Ends when the pod is healed and listed again."""
    pods = stage.pods()
    await stage.fault(pods[0], LIE, FAULT_SECONDS)
    await asyncio.sleep(FAULT_SECONDS)
    await stage.until_serving(len(pods))


async def drain(stage: Stage) -> None:
    """Ends when the node's pods are gone; only the service's own are evicted.

    A real drain evicts everything; the selector spares whoever else uses the cluster.
    """
    node = stage.node_to_drain()
    old = [pod["metadata"]["uid"] for pod in stage.pods() if pod["spec"]["nodeName"] == node]
    try:
        await stage.kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data",
            f"--pod-selector={APP_LABEL}={stage.name}", "--timeout=120s",
        )  # fmt: skip
        await stage.until_gone(old)
    finally:
        await asyncio.shield(stage.kubectl("uncordon", node))


async def _node_loss(stage: Stage) -> None:
    """Ends when the node is back, and every pod serves and is listed.

    The node's pods go on and nobody hears of it: what is sent there is lost without an answer.
    """
    pods = stage.pods()
    node = stage.node_to_lose()
    await asyncio.to_thread(nodes.cut, node)
    try:
        await asyncio.sleep(LOSS_SECONDS)
    finally:
        await asyncio.to_thread(nodes.heal, node)
    await stage.until_serving(len(pods))


async def _all_down(stage: Stage) -> None:
    """Ends when every pod is healed, serves, and is listed."""
    pods = stage.pods()
    await asyncio.gather(*(stage.fault(pod, BREAK, FAULT_SECONDS) for pod in pods))
    await asyncio.sleep(FAULT_SECONDS)
    await stage.until_serving(len(pods))


SCALE_IN_TO: Final = 2
LIE: Final = "lying-ready"
"""The sample resets every request but the health check's."""
BREAK: Final = "reset-before-headers"
"""The sample resets every request, the health check's too."""

SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("rollout", "rolling restart of 3 replicas", rollout),
        Scenario(
            "scale-in", f"scale from 5 to {SCALE_IN_TO}", _scale_in,
            replicas=5, replicas_after=SCALE_IN_TO,
        ),
        Scenario("crash", "SIGKILL of one of 3, 5 s to serve again", crash, start_delay=5.0),
        Scenario(
            "lying-ready", "one of 3 stays Ready and resets every request", _lying_ready,
            commands=True,
        ),
        Scenario(
            "slow-start", "rolling restart, Ready 5 s before it serves", rollout, start_delay=5.0
        ),
        Scenario("drain", "drain of one of 2 nodes", drain, nodes=2),
        Scenario(
            "node-loss", f"one of 3 nodes cut off for {LOSS_SECONDS:g} s", _node_loss, nodes=3, cable=True
        ),
        Scenario("all-down", "every pod resets every request for 10 s", _all_down, commands=True),
    )
}  # fmt: skip

FIRST_LOOK: Final = ("rollout", "crash", "lying-ready")
"""What runs unless asked otherwise: a few minutes that show the point."""
