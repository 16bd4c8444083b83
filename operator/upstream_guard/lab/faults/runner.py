"""Does trials: load, a fault, what the guard's status says of it, healed again."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

from upstream_guard.core import names
from upstream_guard.kube.client import KubeClient, KubeError
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.guarding import POLL_SECONDS, PROTECT_SECONDS, KubectlGuarding
from upstream_guard.lab.demo.mirror import Mirror, Objects
from upstream_guard.lab.demo.runner import Exposed, load_on, until_calm
from upstream_guard.lab.demo.session import own_namespace
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.faults.model import EARLY, Fault, Scene, Told, Trial, Wire, make_trial
from upstream_guard.lab.faults.naming import KNOWN, publish
from upstream_guard.lab.faults.pulse import Operator, unready
from upstream_guard.lab.faults.secured import secured_deployment, secured_service
from upstream_guard.lab.faults.windows import opening, windows
from upstream_guard.lab.gateways.model import RunningGateway, ServiceTarget
from upstream_guard.lab.gateways.profile import gateway_profile
from upstream_guard.lab.model import Cluster, LabError
from upstream_guard.lab.nameserver import Nameserver
from upstream_guard.lab.replicas import Replica

Json = dict[str, Any]

REPLICAS: Final = 3
PATIENCE_SECONDS: Final = 12.0
"""How long it stays on at most while no window shows."""
HEALED_SECONDS: Final = 1.0
"""Load after the fault."""
ATTENTIVE_SECONDS: Final = 120.0
"""How long the operator may take to be there and to see that all is well before a trial."""
AROUND_SECONDS: Final = 25.0
"""What a trial takes beside its fault, about: calm, load before and after, the window's end."""
CLOSE_SECONDS: Final = 75.0
"""How long a window may take to close; detection keeps one open for up to 60 s."""
KEEP_ALIVE_RATE: Final = 20.0
"""Requests a second over kept connections: as often as the sample closes idle ones."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a session needs to know.

    Attributes:
        gateways: Those that run, by name.
        faults: In order.
        repeats: Of each fault.
        rate: Requests a second.
        expose: Puts a Service's port behind a gateway, which asks a DNS server for its name where one is
            given. Blocking; called in a thread.
        keep: Leave the namespace behind.
        done: Told each trial as it ends.
        doing: Told what is being done, for which gateway.
        has: Whether a trial was done before.
        forget: Makes the machine forget connections to pods that are gone. Blocking.
        crew: The operator's processes where the lab runs them, as they are now.
        at_once: Gateways behind which a fault is on at the same time, at most.
        dns: The DNS server that the operator asks; None where the lab has none.
    """

    gateways: dict[str, RunningGateway]
    faults: Sequence[Fault]
    repeats: int
    rate: float
    expose: Callable[[str, str, str, int, str], Exposed]
    keep: bool
    done: Callable[[Trial], None]
    doing: Callable[[str, str], None]
    has: Callable[[str, str, int], bool] = lambda _gateway, _fault, _repeat: False
    forget: Callable[[Iterable[str]], None] = lambda _addresses: None
    crew: Sequence[Replica] = ()
    at_once: int = 64
    dns: Nameserver | None = None


def rounds(plan: Plan) -> Iterator[list[tuple[str, Fault, int]]]:
    """What is done at once: one fault behind several gateways; every fault once before any again."""
    for repeat in range(1, plan.repeats + 1):
        for fault in plan.faults:
            todo = [
                (gateway, fault, repeat)
                for gateway in plan.gateways
                if fault.possible(gateway) and not plan.has(gateway, fault.name, repeat)
            ]
            for begin in range(0, len(todo), plan.at_once):
                yield todo[begin : begin + plan.at_once]


def minutes(plan: Plan) -> float:
    """About how long what is left to do takes."""
    return sum(todo[0][1].hold + todo[0][1].before + AROUND_SECONDS for todo in rounds(plan)) / 60


class Watch:
    """The windows of one guard, each with the time at which it was first seen, and of its event."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self._windows: dict[str, Told] = {}
        self._events: dict[str, float] = {}
        self._heard: set[str] = set()
        self._guard: Json = {}
        self._name = name
        path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.GUARD_PLURAL}"
        self.mirror = Mirror(client, path, on_change=self.take)
        events = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        self.ear = Mirror(client, events, on_change=self.hear)

    @property
    def windows(self) -> list[Told]:
        """As they are now."""
        return [replace(w, event=self._events.get(w.id, 0.0)) for w in self._windows.values()]

    def opened(self, since: float) -> bool:
        """Whether one was detected since that Unix time."""
        return any(window.detected >= since for window in self._windows.values())

    def closed(self) -> bool:
        """Whether none is open."""
        return all(window.closed for window in self._windows.values())

    def unready(self, pods: int) -> str:
        """Why a window would not be seen yet; empty where it would be."""
        return unready(self._guard, pods) if self._guard else "the guard is not there"

    def take(self, at: float, objects: Objects) -> None:
        """Look at the guards as they are at this Unix time."""
        for guard_ in objects.values():
            if guard_["metadata"]["name"] == self._name:
                self._guard = guard_
                for name, told in windows(guard_).items():
                    before = self._windows.get(name)
                    seen, eyes = (before.seen, before.eyes) if before else (at, told.eyes)
                    self._windows[name] = replace(told, seen=seen, eyes=eyes)

    def hear(self, _at: float, objects: Objects) -> None:
        """Look at the events as they are now."""
        for uid in objects.keys() - self._heard:
            self._heard.add(uid)
            found = opening(objects[uid])
            if found is not None and found[0] == self._name:
                self._events[found[1]] = found[2]


@dataclass(slots=True)
class Place:
    """One guarded service behind one gateway.

    Attributes:
        scene: Where it is.
        exposure: Where users find it.
        watch: Its guard's windows.
        operator: Who guards it.
        rate: Requests a second of which the guard tells.
    """

    scene: Scene
    exposure: Exposed
    watch: Watch
    operator: Operator
    rate: float = 0.0


async def conduct(cluster: Cluster, client: KubeClient, plan: Plan) -> None:
    """Do every trial; one that fails for reasons of its own is told, and the next goes on.

    Raises:
        LabError: a service could not be brought up.
    """
    async with AsyncExitStack() as stack:
        namespace = await stack.enter_async_context(own_namespace(cluster, keep=plan.keep))
        places: dict[tuple[str, Wire], Place] = {}
        operator = Operator(client, plan.crew)
        if plan.dns is not None:
            await publish(plan.dns, cluster, KNOWN)
        for gateway, wires in services(plan).items():
            for wire in wires:
                name = service_name(gateway, wire)
                plan.doing(gateway, f"bringing {name} up")
                stage = Stage(cluster, client, namespace, name, secured=wire is Wire.TLS)
                places[gateway, wire] = await prepare(
                    stack, stage, gateway, plan, operator, wires=wires, wire=wire
                )
        for todo in rounds(plan):
            await asyncio.gather(
                *(
                    _try(places[gateway, fault.wire], fault, repeat, plan)
                    for gateway, fault, repeat in todo
                )
            )


def services(plan: Plan) -> dict[str, tuple[Wire, ...]]:
    """Behind each gateway: how it goes to the services that its faults need."""
    return {
        gateway: tuple(sorted({f.wire for f in plan.faults if f.possible(gateway)}))
        for gateway in plan.gateways
    }


def service_name(gateway: str, wire: Wire = Wire.CLEAR) -> str:
    """Of the service behind a gateway."""
    return "-".join(filter(None, ("shop", gateway, wire.value)))


async def prepare(
    stack: AsyncExitStack,
    stage: Stage,
    gateway: str,
    plan: Plan,
    operator: Operator,
    *,
    wires: Sequence[Wire] = (Wire.CLEAR,),
    wire: Wire = Wire.CLEAR,
) -> Place:
    """Bring a guarded service up behind a gateway; what is to be taken down again goes onto the stack.

    Args:
        stack: Takes it down.
        stage: Where it happens.
        gateway: In front.
        plan: The session's.
        operator: Who guards it.
        wires: How it goes to all services behind this gateway: one profile tells of them.
        wire: How it goes to this one.

    Raises:
        LabError: it did not come up in time, or is to be found by name in a lab without DNS.
    """
    client, namespace, name = stage.client, stage.namespace, stage.name
    service = variants.service(namespace=namespace, name=name)
    deployment = variants.deployment(
        Variant.GUARDED, namespace=namespace, name=name, replicas=REPLICAS, start_delay=0
    )
    if wire is Wire.TLS:
        service, deployment = secured_service(service), secured_deployment(deployment)
    await stage.apply(service)
    await stack.enter_async_context(stage)
    port = service["spec"]["ports"][0]["port"]
    if plan.dns is not None:
        await publish(plan.dns, stage.cluster, ServiceTarget(namespace, name))
    resolver = _resolver(plan) if wire is Wire.NAMED else ""
    exposure = await asyncio.to_thread(plan.expose, gateway, namespace, name, port, resolver)
    behind = [f"{namespace}/{service_name(gateway, other)}" for other in wires]
    profile = gateway_profile(plan.gateways[gateway], behind)
    stack.push_async_callback(stage.delete, profile)
    await stage.apply(guard(namespace, name, exposure.host, plan.rate), profile)
    await _until_protected(client, stage)
    await stage.apply(deployment)
    await stage.until_serving(REPLICAS)
    watch = Watch(client, namespace, name)
    await stack.enter_async_context(watch.mirror)
    await stack.enter_async_context(watch.ear)
    scene = Scene(stage.cluster, stage, gateway, plan.dns)
    return Place(scene, exposure, watch, operator, plan.rate)


def _resolver(plan: Plan) -> str:
    if plan.dns is None:
        raise LabError("a gateway that goes by names needs a DNS server")
    return plan.dns.server


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


class NotMeasuredError(LabError):
    """The trial says nothing: the operator was not there all the time, or busy with something else."""


async def _try(place: Place, fault: Fault, repeat: int, plan: Plan) -> None:
    """Do a trial; one in which the operator was not there is done once more."""
    expected = tuple(sorted(cause.value for cause in fault.expected))
    rate = KEEP_ALIVE_RATE if fault.keep_alive else min(plan.rate, fault.rate)
    base = Trial(place.scene.gateway, fault.name, repeat, time.time(), expected, rate)
    trial = await _attempt(place, fault, base, plan)
    if trial is None:
        plan.doing(
            base.gateway, f"{fault.name} {repeat}: once more, for it would have said nothing"
        )
        trial = await _attempt(place, fault, base, plan)
    plan.done(
        trial
        or replace(
            base,
            problem="not measured: twice the operator was not there, or a window was open before",
        )
    )


async def _attempt(place: Place, fault: Fault, base: Trial, plan: Plan) -> Trial | None:
    try:
        return await _trial(place, fault, base, plan)
    except NotMeasuredError:
        return None
    except (LabError, KubeError, TimeoutError) as error:
        return replace(base, problem=(str(error) or type(error).__name__)[:300])


async def _trial(place: Place, fault: Fault, base: Trial, plan: Plan) -> Trial:
    """One trial.

    Raises:
        NotMeasuredError: another operator controls at its end than at its beginning, or none; or a window
            of something else was open.
        LabError: something else did not come about in time.
    """
    stage, watch = place.scene.stage, place.watch
    say = f"{fault.name} {base.repeat}"
    plan.doing(base.gateway, f"{say}: until all is calm")
    if place.rate != base.rate:
        # Behind a gateway that counts nothing, requests lost are reckoned from what the owner says.
        await stage.apply(guard(stage.namespace, stage.name, place.exposure.host, base.rate))
        place.rate = base.rate
    await stage.until_serving(REPLICAS)
    await until_calm(place.exposure)
    pulse = await place.operator.until_attentive(lambda: watch.unready(REPLICAS), ATTENTIVE_SECONDS)
    addresses = _addresses(stage)
    async with load_on(place.exposure, base.rate, keep_alive=fault.keep_alive) as load:
        await asyncio.sleep(fault.before)
        if not watch.closed():
            raise NotMeasuredError("a window was open before anything was broken")
        began = time.time()
        plan.doing(base.gateway, f"{say}: on")
        async with fault.inject(place.scene):
            on = time.time()
            await until(lambda: watch.opened(began - EARLY), PATIENCE_SECONDS)
            await asyncio.sleep(max(0.0, on + fault.hold - time.time()))
        plan.doing(base.gateway, f"{say}: healed")
        await asyncio.sleep(HEALED_SECONDS)
        records = await load.stop()
    await until(watch.closed, CLOSE_SECONDS)
    await asyncio.to_thread(plan.forget, addresses - _addresses(stage))
    if await place.operator.pulse() != pulse:
        raise NotMeasuredError(f"{pulse.holder} does not control any more")
    return make_trial(replace(base, began=began), records, watch.windows)


def _addresses(stage: Stage) -> frozenset[str]:
    return frozenset(str(pod["status"].get("podIP", "")) for pod in stage.pods()) - {""}


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so, or the time is over; says which."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


def guard(namespace: str, name: str, host: str, rate: float) -> Json:
    """A guard that knows the host which leads to the service, and what an owner knows of his traffic."""
    made = variants.guard(namespace=namespace, name=name)
    made["spec"]["detection"] = {
        "routeProbe": {"host": host},
        "requestsPerSecond": max(1, round(rate)),
    }
    return made
