"""Does trials: load, a fault, what the guard's status says of it, healed again."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

from upstream_guard.core import names
from upstream_guard.kube.client import KubeClient
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.guarding import POLL_SECONDS, PROTECT_SECONDS, KubectlGuarding
from upstream_guard.lab.demo.mirror import Mirror, Objects
from upstream_guard.lab.demo.runner import BEFORE_SECONDS, Exposed, load_on, until_calm
from upstream_guard.lab.demo.session import own_namespace
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.faults.model import EARLY, Fault, Scene, Told, Trial, make_trial
from upstream_guard.lab.faults.windows import windows
from upstream_guard.lab.gateways.model import RunningGateway
from upstream_guard.lab.model import Cluster, LabError

Json = dict[str, Any]

REPLICAS: Final = 3
HOLD_SECONDS: Final = 6.0
"""How long a fault stays on at least."""
PATIENCE_SECONDS: Final = 12.0
"""How long it stays on at most while no window shows."""
HEALED_SECONDS: Final = 1.0
"""Load after the fault."""
CLOSE_SECONDS: Final = 75.0
"""How long a window may take to close; detection keeps one open for up to 60 s."""
KEEP_ALIVE_RATE: Final = 20.0
"""Requests a second over kept connections: as often as the sample closes idle ones."""
PLAIN: Final = frozenset({"nginx", "haproxy", "caddy", "httpd"})
"""No route names these, so a GatewayProfile has to."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a session needs to know.

    Attributes:
        gateways: Those that run, by name.
        faults: In order.
        repeats: Of each fault.
        rate: Requests a second.
        expose: Puts a Service behind a gateway. Blocking; called in a thread.
        keep: Leave the namespace behind.
        done: Told each trial as it ends.
        doing: Told what is being done, for which gateway.
        has: Whether a trial was done before.
    """

    gateways: dict[str, RunningGateway]
    faults: Sequence[Fault]
    repeats: int
    rate: float
    expose: Callable[[str, str, str], Exposed]
    keep: bool
    done: Callable[[Trial], None]
    doing: Callable[[str, str], None]
    has: Callable[[str, str, int], bool] = lambda _gateway, _fault, _repeat: False


def rounds(plan: Plan) -> Iterator[list[tuple[str, Fault, int]]]:
    """What is done at once: one fault behind every gateway, or behind one where it is alone."""
    for repeat in range(1, plan.repeats + 1):
        for fault in plan.faults:
            todo = [
                (gateway, fault, repeat)
                for gateway in plan.gateways
                if fault.possible(gateway) and not plan.has(gateway, fault.name, repeat)
            ]
            if fault.alone:
                yield from ([one] for one in todo)
            elif todo:
                yield todo


class Watch:
    """The windows of one guard, each with the time at which it was first seen."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self._windows: dict[str, Told] = {}
        self._name = name
        path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.GUARD_PLURAL}"
        self.mirror = Mirror(client, path, on_change=self.take)

    @property
    def windows(self) -> list[Told]:
        """As they are now."""
        return list(self._windows.values())

    def opened(self, since: float) -> bool:
        """Whether one opened since that Unix time."""
        return any(window.opened >= since for window in self.windows)

    def closed(self) -> bool:
        """Whether none is open."""
        return all(window.closed for window in self.windows)

    def take(self, at: float, objects: Objects) -> None:
        """Look at the guards as they are at this Unix time."""
        for guard_ in objects.values():
            if guard_["metadata"]["name"] == self._name:
                for name, told in windows(guard_).items():
                    before = self._windows.get(name)
                    seen = before.seen if before else at
                    self._windows[name] = replace(told, seen=seen)


@dataclass(frozen=True, slots=True)
class Place:
    """One guarded service behind one gateway."""

    scene: Scene
    exposure: Exposed
    watch: Watch


async def conduct(cluster: Cluster, client: KubeClient, plan: Plan) -> None:
    """Do every trial; one that fails for reasons of its own is told, and the next goes on.

    Raises:
        LabError: a service could not be brought up.
    """
    async with AsyncExitStack() as stack:
        namespace = await stack.enter_async_context(own_namespace(cluster, keep=plan.keep))
        places = {}
        for gateway in plan.gateways:
            plan.doing(gateway, "bringing the service up")
            places[gateway] = await _place(stack, cluster, client, namespace, gateway, plan)
        for todo in rounds(plan):
            await asyncio.gather(
                *(_try(places[gateway], fault, repeat, plan) for gateway, fault, repeat in todo)
            )


async def _place(
    stack: AsyncExitStack,
    cluster: Cluster,
    client: KubeClient,
    namespace: str,
    gateway: str,
    plan: Plan,
) -> Place:
    name = f"shop-{gateway}"
    stage = Stage(cluster, client, namespace, name)
    await stage.apply(variants.service(namespace=namespace, name=name))
    await stack.enter_async_context(stage)
    exposure = await asyncio.to_thread(plan.expose, gateway, namespace, name)
    documents = [guard(namespace, name, exposure.host)]
    if gateway in PLAIN:
        profile = gateway_profile(plan.gateways[gateway], namespace, name)
        documents.append(profile)
        stack.push_async_callback(stage.delete, profile)
    await stage.apply(*documents)
    await _until_protected(client, stage)
    await stage.apply(
        variants.deployment(
            Variant.GUARDED, namespace=namespace, name=name, replicas=REPLICAS, start_delay=0
        )
    )
    await stage.until_serving(REPLICAS)
    watch = Watch(client, namespace, name)
    await stack.enter_async_context(watch.mirror)
    return Place(Scene(cluster, stage, gateway), exposure, watch)


async def _until_protected(client: KubeClient, stage: Stage) -> None:
    """Wait until pods made from now on get their gate, for else they would only be observed."""
    guarding, gated = KubectlGuarding(client), False
    try:
        async with asyncio.timeout(PROTECT_SECONDS):
            while not gated:
                gated = await guarding.injects(stage)
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise LabError(
            f"{PROTECT_SECONDS:g} s after the guard of {stage.name} was created, pods still get no gate"
        ) from None


async def _try(place: Place, fault: Fault, repeat: int, plan: Plan) -> None:
    base = Trial(place.scene.gateway, fault.name, repeat, time.time())
    try:
        trial = await _trial(place, fault, base, plan)
    except LabError as error:
        trial = Trial(base.gateway, base.fault, base.repeat, base.began, problem=str(error)[:300])
    plan.done(trial)


async def _trial(place: Place, fault: Fault, base: Trial, plan: Plan) -> Trial:
    stage, watch = place.scene.stage, place.watch
    say = f"{fault.name} {base.repeat}"
    plan.doing(base.gateway, f"{say}: until all is calm")
    await stage.until_serving(REPLICAS)
    await until_calm(place.exposure)
    await until(watch.closed, CLOSE_SECONDS)
    rate = KEEP_ALIVE_RATE if fault.keep_alive else plan.rate
    async with load_on(place.exposure, rate, keep_alive=fault.keep_alive) as load:
        await asyncio.sleep(BEFORE_SECONDS)
        began = time.time()
        plan.doing(base.gateway, f"{say}: on")
        async with fault.inject(place.scene):
            await until(lambda: watch.opened(began - EARLY), PATIENCE_SECONDS)
            await asyncio.sleep(max(0.0, began + HOLD_SECONDS - time.time()))
        plan.doing(base.gateway, f"{say}: healed")
        await asyncio.sleep(HEALED_SECONDS)
        records = await load.stop()
    await until(watch.closed, CLOSE_SECONDS)
    begun = Trial(base.gateway, base.fault, base.repeat, began)
    return make_trial(begun, records, watch.windows)


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so, or the time is over; says which."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


def guard(namespace: str, name: str, host: str) -> Json:
    """A guard whose route probes know the host that leads to the service."""
    made = variants.guard(namespace=namespace, name=name)
    made["spec"]["detection"] = {"routeProbe": {"host": host}}
    return made


def gateway_profile(gateway: RunningGateway, namespace: str, name: str) -> Json:
    """What an admin writes of a plain gateway."""
    spec: Json = {
        "match": {"services": [f"{namespace}/{name}"]},
        "controller": gateway.name,
        "address": f"http://{gateway.address}:{gateway.port}",
    }
    if gateway.metrics_url:
        spec["metrics"] = {"url": gateway.metrics_url}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.PROFILE_KIND,
        "metadata": {"name": f"lab-{gateway.name}"},
        "spec": spec,
    }
