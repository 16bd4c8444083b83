"""The operator dies by SIGKILL where it hurts most, and the cluster is none the worse for it.

The bounds are those of the design: with one replica left, a service is within 30 s what plain
Kubernetes would make of it; with none left, only pods that already had a gate wait, and `upstream-guard
uninstall` frees them; started again, everything is decided within 5 s.
"""

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import upstream_guard
from upstream_guard.core import names
from upstream_guard.kube.client import KubeClient
from upstream_guard.lab import replicas
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.guarding import KubectlGuarding
from upstream_guard.lab.demo.mirror import Mirror, Objects
from upstream_guard.lab.demo.stage import Stage, container_id
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.images import build_upstream_image
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import Cluster
from upstream_guard.lab.replicas import Replica
from upstream_guard.lab.report import QuietReporter

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
Record = Callable[[str, object], None]

PODS = 3
START_DELAY = 3.0
"""Seconds for which a new pod runs without serving: the time in which the operator is killed."""
TAKEOVER_SECONDS = 30.0
RESTART_SECONDS = 5.0
POLL_SECONDS = 0.05


async def until(what: str, question: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        await asyncio.sleep(POLL_SECONDS)
    pytest.fail(f"not within {seconds:g} s: {what}")


def gated(pod: Json) -> bool:
    gates = pod["spec"].get("readinessGates") or ()
    return any(gate["conditionType"] == names.GATE for gate in gates)


def gate_of(pod: Json) -> str:
    """`True`, `False`, or nothing where it was never written."""
    conditions = pod["status"].get("conditions") or ()
    return next((c["status"] for c in conditions if c["type"] == names.GATE), "")


def waiting(pod: Json) -> bool:
    """Injected, running, and not yet admitted."""
    return gated(pod) and gate_of(pod) != "True" and bool(container_id(pod))


@dataclass(slots=True)
class Shop:
    """A service under guard, and what was seen of its gates."""

    stage: Stage
    guarding: KubectlGuarding
    closed: set[str] = field(default_factory=set)
    """UIDs of pods whose gate was ever seen False."""

    async def deploy(self, pods: int, *, strategy: str = "RollingUpdate") -> None:
        """The Deployment, under guard before its first pod is made."""
        place = {"namespace": self.stage.namespace, "name": self.stage.name}
        made = variants.deployment(Variant.GUARDED, **place, replicas=pods, start_delay=START_DELAY)
        made["spec"]["strategy"] = {"type": strategy}
        await self.stage.apply(variants.service(**place))
        await self.guarding.guard(self.stage)
        await self.stage.apply(made)
        await self.until_all_listed(pods)

    async def until_all_listed(self, number: int, seconds: float = 60.0) -> None:
        """Wait until exactly the living pods are listed, `number` of them."""

        def complete() -> bool:
            uids = self.stage.uids()
            return len(uids) == number and self.stage.listed_uids() == uids

        await until(f"the {number} pods of {self.stage.name} are listed", complete, seconds)

    async def until_replaced(self, old: frozenset[str], number: int, seconds: float) -> None:
        """Wait until only pods that are not among `old` are left, `number` of them, all listed."""
        await until(
            f"all pods of {self.stage.name} are new and listed",
            lambda: (
                len(uids := self.stage.uids()) == number
                and not uids & old
                and self.stage.listed_uids() == uids
            ),
            seconds,
        )

    def least_listed(self, since: float) -> int:
        """The shortest list since a Unix time, the one that held then included."""
        before = [number for at, number in self.stage.listed if at <= since][-1:]
        return min(before + [number for at, number in self.stage.listed if at > since])

    def note(self, _at: float, pods: Objects) -> None:
        """What `closed` is filled by."""
        self.closed.update(uid for uid, pod in pods.items() if gate_of(pod) == "False")


@dataclass(frozen=True, slots=True)
class Crew:
    """Two replicas of the operator."""

    cluster: Cluster
    started: list[Replica]
    kubeconfig: Path

    async def controller(self) -> Replica:
        """The one that controls."""
        found: Replica = await until(
            "a replica controls", lambda: replicas.controlling(self.cluster, self.started)
        )
        return found


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    """The cluster with the sample's image and all of `deploy/` but the Deployment."""
    say = QuietReporter()
    LocalProvider(cluster.state_dir).load_image(cluster, build_upstream_image(say), say)
    replicas.install(cluster, say)
    return cluster


@pytest.fixture
def crew(installed: Cluster) -> Iterator[Crew]:
    """The operator, beside the cluster; who is killed here stays dead."""
    with replicas.operator(
        installed, QuietReporter(), prefix="failover", supervise=False
    ) as started:
        yield Crew(installed, started, replicas.account_kubeconfig(installed))


@pytest.fixture
async def shops(crew: Crew) -> AsyncIterator[Callable[[str], Any]]:
    """Makes shops in a namespace of the test's own."""
    client = await KubeClient.connect(str(crew.cluster.kubeconfig), crew.cluster.context)
    namespace = f"ug-failover-{secrets.token_hex(2)}"
    await client.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        stack.push_async_callback(client.delete, f"/api/v1/namespaces/{namespace}")

        async def open_shop(name: str) -> Shop:
            stage = await stack.enter_async_context(Stage(crew.cluster, client, namespace, name))
            shop = Shop(stage, KubectlGuarding(client))
            selector = f"{variants.APP_LABEL}={name}"
            pods = f"/api/v1/namespaces/{namespace}/pods"
            await stack.enter_async_context(Mirror(client, pods, selector, shop.note))
            return shop

        yield open_shop


def report(record: Record, **seconds: float) -> None:
    """Keep measured seconds in the report, and show them (`pytest -rP`)."""
    for what, value in seconds.items():
        record(what, round(value, 1))
        print(f"{what.replace('_', ' ')}: {value:.1f} s")


async def provoke(shop: Shop, change: str) -> frozenset[str]:
    """Make a change, and wait until a new pod has its gate and waits; the UIDs of the old pods."""
    old = shop.stage.uids()
    if change == "scale from 0":
        await shop.stage.kubectl("scale", shop.stage.deployment, f"--replicas={PODS}")
    else:
        await shop.stage.kubectl("rollout", "restart", shop.stage.deployment)
    await until(
        "a new pod waits behind its gate",
        lambda: any(waiting(p) and p["metadata"]["uid"] not in old for p in shop.stage.pods()),
    )
    return old


@pytest.mark.parametrize("change", ["RollingUpdate", "Recreate", "scale from 0"])
async def test_the_controller_dies_between_injection_and_admission(
    change: str, crew: Crew, shops: Callable[[str], Any], record_property: Record
) -> None:
    shop: Shop = await shops("shop")
    strategy = "Recreate" if change == "Recreate" else "RollingUpdate"
    await shop.deploy(0 if change == "scale from 0" else PODS, strategy=strategy)
    controller = await crew.controller()
    old = await provoke(shop, change)

    killed = replicas.kill(controller)

    assert any(waiting(pod) for pod in shop.stage.pods()), "the test tests nothing"
    await shop.until_replaced(old, PODS, TAKEOVER_SECONDS)
    report(record_property, from_the_kill_to_all_listed=time.time() - killed)
    assert all(map(gated, shop.stage.pods()))
    assert shop.closed == set()
    if strategy == "RollingUpdate" and old:
        assert shop.least_listed(killed) == PODS, "maxUnavailable of 3 pods is none"
    else:
        counts = [number for at, number in shop.stage.listed if at > killed]
        assert counts == sorted(counts), "who was listed stays listed"


async def test_scale_from_0_while_the_controller_is_dead(
    crew: Crew, shops: Callable[[str], Any], record_property: Record
) -> None:
    shop: Shop = await shops("shop")
    await shop.deploy(0)

    replicas.kill(await crew.controller())
    scaled = time.time()
    await shop.stage.kubectl("scale", shop.stage.deployment, f"--replicas={PODS}")

    await shop.until_all_listed(PODS, TAKEOVER_SECONDS)
    report(record_property, from_the_scaling_to_all_listed=time.time() - scaled)
    assert shop.closed == set()


async def test_nobody_left_and_uninstall_releases_the_rest(
    crew: Crew, shops: Callable[[str], Any], record_property: Record
) -> None:
    shop: Shop = await shops("shop")
    await shop.deploy(PODS)
    old = await provoke(shop, "RollingUpdate")

    killed = replicas.kill(*crew.started)

    held = {pod["metadata"]["uid"] for pod in shop.stage.pods() if waiting(pod)}
    assert held, "the test tests nothing"
    scaled = time.time()
    await shop.stage.kubectl("scale", shop.stage.deployment, f"--replicas={PODS + 3}")

    def rolled_out_but_for_the_held() -> bool:
        uids = shop.stage.uids()
        return len(uids) == PODS + 3 and not uids & old and shop.stage.listed_uids() == uids - held

    await until("plain pods are listed", rolled_out_but_for_the_held)
    report(record_property, from_the_scaling_to_all_plain_pods_listed=time.time() - scaled)
    assert {pod["metadata"]["uid"] for pod in shop.stage.pods() if gated(pod)} == held
    assert shop.least_listed(killed) == PODS

    started = time.time()
    await asyncio.to_thread(uninstall, crew.cluster)
    report(record_property, uninstall_took=time.time() - started)
    try:
        await shop.until_replaced(old, PODS + 3, TAKEOVER_SECONDS)
        report(record_property, from_uninstall_to_all_listed=time.time() - started)
        assert shop.closed == set()
        assert shop.least_listed(killed) == PODS
    finally:
        replicas.install(crew.cluster, QuietReporter())


def uninstall(cluster: Cluster) -> None:
    """`upstream-guard uninstall`, as an administrator."""
    folder = str(Path(upstream_guard.__file__).parent.parent)
    done = subprocess.run(
        [
            sys.executable, "-m", "upstream_guard.cli", "uninstall", "--yes",
            f"--kubeconfig={cluster.kubeconfig}", f"--context={cluster.context}",
        ],
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = "crd,clusterrole,clusterrolebinding,mutatingwebhookconfiguration,namespace"
    label = f"--selector={names.PART_OF_LABEL}={names.PART_OF}"
    command = cluster.kubectl_command("get", kinds, label, "-o", "name")
    left = subprocess.run(command, capture_output=True, text=True, check=True)
    assert left.stdout == ""


async def test_started_again_all_is_as_before(
    crew: Crew, shops: Callable[[str], Any], record_property: Record
) -> None:
    steady: Shop = await shops("steady")
    moving: Shop = await shops("moving")
    await asyncio.gather(steady.deploy(PODS), moving.deploy(PODS))
    await crew.controller()
    old = await provoke(moving, "RollingUpdate")

    killed = replicas.kill(*crew.started)

    (held,) = [pod["metadata"]["uid"] for pod in moving.stage.pods() if waiting(pod)]
    liar = steady.stage.pods()[0]
    await steady.stage.fault(liar, "lying-ready", 120)
    started = time.time()
    again = [replicas.start(crew.cluster, r.name, crew.kubeconfig) for r in crew.started]
    seen = asyncio.gather(
        moment(
            "the faulted pod is out",
            lambda: liar["metadata"]["uid"] not in steady.stage.listed_uids(),
        ),
        moment("the held pod is listed", lambda: held in moving.stage.listed_uids()),
        moment_of_injection(moving),
    )
    for replica in again:
        await asyncio.to_thread(replicas.until_ready, crew.cluster, replica)
    ready = time.time()
    async with asyncio.timeout(RESTART_SECONDS):
        ejected, admitted, injecting = await seen
    report(
        record_property,
        from_start_to_both_ready=ready - started,
        from_start_to_the_faulted_pod_out=ejected - started,
        from_start_to_the_held_pod_in=admitted - started,
        from_start_to_new_pods_gated=injecting - started,
    )
    await moving.until_replaced(old, PODS, 60)
    assert all(map(gated, moving.stage.pods()))
    assert moving.closed == set()
    assert moving.least_listed(killed) == PODS
    assert steady.closed == {liar["metadata"]["uid"]}
    assert steady.least_listed(killed) == PODS - 1


async def moment(what: str, question: Callable[[], Any]) -> float:
    """The Unix time at which something became true."""
    await until(what, question)
    return time.time()


async def moment_of_injection(shop: Shop) -> float:
    """The Unix time from which new pods get their gate again."""
    while True:
        if await shop.guarding.injects(shop.stage):
            return time.time()
        await asyncio.sleep(POLL_SECONDS)
