"""Runs the propagation canaries: one toggle at a time, when it is due, and tells what was found.

`core/canary.py` decides; here are the clock, the API server, and requests through gateways. Whatever goes
wrong is a note in status, and the built-in number of the gateway is used.
"""

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from upstream_guard.controller.asker import Asker, Reply
from upstream_guard.controller.canary_objects import CanaryObjects
from upstream_guard.controller.canary_ways import Front, WayFinder
from upstream_guard.controller.measurements import Key, Measurements
from upstream_guard.controller.responder import Responders
from upstream_guard.core.canary import (
    CHANGE_BURST,
    FIRST_BURST,
    GLANCE_INTERVAL,
    MAX_SAMPLES,
    PAIR_SECONDS,
    SURPRISE_BURST,
    Absence,
    Act,
    Arrival,
    CanaryPlan,
    Candidate,
    Connections,
    Endpoint,
    Pace,
    Sample,
    Toggle,
    Unmeasured,
    after_failure,
    after_toggle,
    arrived,
    ask_period,
    at_once,
    is_surprise,
    keeps_client,
    measured,
    next_act,
    next_kind,
    sample_of,
    stirred,
)
from upstream_guard.core.latency import Latencies
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.kube.client import ApiError, KubeClient
from upstream_guard.kube.state import ClusterState
from upstream_guard.metrics import Metrics

logger = logging.getLogger(__name__)

Wanted = Mapping[Key, Candidate]

RECONCILE_SECONDS: Final = 10.0
"""How soon a canary follows a new gateway, and goes after the last guard has gone."""
ASK_SECONDS: Final = 0.005
"""Between two looks at whether a request is due."""
ACT_SECONDS: Final = 0.01
"""Between two looks at a toggle under way."""
TOLD_FAILURES: Final = 2
"""Tries in a row without a way, from which on status says so."""
MAX_CANARIES: Final = 32
NO_ADDRESS: Final = "not measured: the operator does not know an address at which gateways reach it; pass --canary-address"
KUBE_PROXY_NOTE: Final = "seen from the operator's node; kept-alive connections stay with their pod until one side ends them"


@dataclass(slots=True)
class _Bird:
    """One canary: its plan and how far it has come."""

    plan: CanaryPlan
    pace: Pace = field(default_factory=Pace)
    pods: int = 0
    """As `Candidate.pods` when it was last looked at."""
    glance_at: float = 0.0
    """When it is looked at next, if nothing is measured before."""
    service: dict[str, Any] | None = None
    """As the API server has it; None: the objects are to be applied."""
    states: dict[Endpoint, Absence | None] = field(
        default_factory=lambda: {Endpoint.A: None, Endpoint.B: Absence.ABSENT}
    )
    front: Front | None = None
    urls: tuple[str, ...] = ()
    servers: frozenset[str] = frozenset()
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))
    problem: str = ""

    @property
    def listed(self) -> Endpoint:
        """The endpoint that is in the list; with both it is the first."""
        return next((e for e, state in self.states.items() if state is None), Endpoint.A)


@dataclass(frozen=True, slots=True)
class CanaryOptions:
    """How canaries are run.

    Attributes:
        namespace: Of the operator, where their objects are.
        address: Of the operator, as gateways reach it; empty where it is not known.
        bind: Address that the endpoints listen on; empty means all.
        port: Of endpoint `a`, and the next one of `b`; 0 picks two.
    """

    namespace: str
    address: str
    bind: str = ""
    port: int = 0


class CanaryRunner:
    """Measures all gateways that lead to guarded Services, as long as this replica controls."""

    def __init__(
        self,
        client: KubeClient,
        state: ClusterState,
        options: CanaryOptions,
        measurements: Measurements,
        metrics: Metrics,
        wanted: Callable[[], Awaitable[Wanted]],
        on_news: Callable[[], None],
    ) -> None:
        """Wire it.

        Args:
            client: The API server.
            state: The cluster, for the replicas of gateways.
            options: How.
            measurements: Where what was found goes.
            metrics: Ours.
            wanted: Says which gateways lead to guarded Services.
            on_news: Called when status has something new to say of gateways.
        """
        self._options = options
        self._measurements = measurements
        self._metrics = metrics
        self._wanted = wanted
        self._on_news = on_news
        token = secrets.token_hex(16)
        self._responders = Responders(token, self._arrival)
        self._asker = Asker(token, self._reply)
        self._objects = CanaryObjects(client, options.namespace, options.address)
        self._ways = WayFinder(client, state)
        self._birds: dict[Key, _Bird] = {}
        self._toggle: Toggle | None = None
        self._bird: _Bird | None = None
        self._servers: set[str] = set()
        self._tidy = False

    async def run(self) -> None:
        """Measure until cancelled.

        Raises:
            OSError: A port is taken.
        """
        await self._responders.start(self._options.bind, self._options.port)
        self._objects.ports = self._responders.ports
        reconciled = -RECONCILE_SECONDS
        try:
            while True:
                if time.monotonic() - reconciled >= RECONCILE_SECONDS:
                    await self._reconcile()
                    reconciled = time.monotonic()
                now = time.monotonic()
                due = await self._next(now)
                await asyncio.sleep(max(0.0, min(reconciled + RECONCILE_SECONDS, due) - now))
        finally:
            await self._asker.close()
            await self._responders.stop()

    async def _next(self, now: float) -> float:
        """Measure or look at a gateway where that is due; when the next one is, or `now`."""
        due = now + RECONCILE_SECONDS
        birds = self._birds.values()
        if (bird := min(birds, key=lambda b: b.pace.next_at, default=None)) is not None:
            if bird.pace.next_at <= now:
                await self._measure(bird)
                return now
            due = min(due, bird.pace.next_at)
        if (bird := min(birds, key=lambda b: b.glance_at, default=None)) is not None:
            if bird.glance_at <= now:
                await self._glance(bird)
                return now
            due = min(due, bird.glance_at)
        return max(due, now + ACT_SECONDS)

    # Which gateways.

    async def _reconcile(self) -> None:
        found = await self._wanted()
        plans = {k: c.plan for k, c in found.items() if isinstance(c.plan, CanaryPlan)}
        if not self._options.address:
            plans = {}
        plans = dict(sorted(plans.items())[:MAX_CANARIES])
        gone = [key for key, bird in self._birds.items() if plans.get(key) != bird.plan]
        for key in gone:
            self._forget(key, self._birds.pop(key))
        news = [self._explain(key, c.plan) for key, c in found.items() if key not in plans]
        await self._remove_strays(plans.values(), anew=bool(gone))
        for key, plan in plans.items():
            if key not in self._birds:
                burst = FIRST_BURST if self._measurements.of(key) is None else CHANGE_BURST
                self._birds[key] = _Bird(plan, Pace(burst=burst), found[key].pods)
            self._follow(self._birds[key], found[key].pods)
        if any(news):
            self._on_news()

    def _explain(self, key: Key, plan: CanaryPlan | Unmeasured) -> bool:
        """Say why a gateway is not measured; whether that is new."""
        reason = plan.reason if isinstance(plan, Unmeasured) else NO_ADDRESS
        forgotten = self._measurements.forget(key)
        return self._measurements.note(key, reason) or forgotten

    def _forget(self, key: Key, bird: _Bird) -> None:
        kind, gateway = key
        labels = {"kind": kind.value, "gateway": gateway}
        for metric in (
            self._metrics.gateway_detach,
            self._metrics.gateway_attach,
            self._metrics.canary_samples,
            self._metrics.canary_requests,
            self._metrics.canary_toggles,
        ):
            metric.remove_by_labels(labels)
        logger.info("%s %s is no longer measured", kind.value, bird.plan.gateway)

    async def _remove_strays(self, plans: Iterable[CanaryPlan], *, anew: bool) -> None:
        """Delete objects of gateways that are not measured any more, our predecessor's as well."""
        if self._tidy and not anew:
            return
        self._tidy = False
        try:
            await self._objects.keep_only(plan.service for plan in plans)
        except ApiError as error:
            logger.warning("Objects of former canaries not deleted, will retry: %s", error)
        else:
            self._tidy = True

    def _follow(self, bird: _Bird, pods: int) -> None:
        """Pods that come or go behind the gateway, and its own replicas: it was scaled or upgraded."""
        if pods != bird.pods:
            bird.pods = pods
            bird.pace = stirred(bird.pace, time.monotonic())
        if bird.front is None or not bird.urls:
            return
        urls = self._ways.urls(bird.front)
        if urls != bird.urls:
            bird.urls = urls
            self._changed(bird, "its replicas are others now")

    def _changed(self, bird: _Bird, why: str) -> None:
        logger.info("%s %s is measured anew: %s", bird.plan.kind.value, bird.plan.gateway, why)
        bird.samples.clear()
        bird.pace = at_once(bird.pace, time.monotonic(), CHANGE_BURST)

    # One toggle.

    async def _measure(self, bird: _Bird) -> None:
        started, sent = time.monotonic(), self._asker.sent
        bird.glance_at = started + GLANCE_INTERVAL
        try:
            toggle, act = await self._attempt(bird)
        except ApiError as error:
            bird.service, bird.states = None, _Bird(bird.plan).states
            self._count(bird, "refused")
            self._failed(bird, f"the API server says {error.reason or error.status}")
            return
        if toggle is None or act is Act.FAIL:
            self._count(bird, "unreachable")
            self._failed(bird, bird.problem)
            with contextlib.suppress(ApiError):
                if bird.service is not None and not await self._objects.is_there(bird.service):
                    bird.service = None
            bird.front = None
            return
        now = time.monotonic()
        self._count(bird, "done")
        bird.pace = after_toggle(
            bird.pace,
            now,
            self._asker.sent - sent,
            now - started,
            bird.plan.requests_per_minute,
            random.random(),  # noqa: S311  # jitter
        )
        self._found(bird, sample_of(toggle, time.time()))

    async def _glance(self, bird: _Bird) -> None:
        """One request to each replica, and no write: a gateway of another version is measured anew."""
        bird.glance_at = time.monotonic() + GLANCE_INTERVAL
        for url in bird.urls:
            reply = await self._asker.look(url, bird.plan.host)
            self._count_request(bird, reply)
            told = reply.result == "ok" and reply.server
            if told and bird.servers and reply.server not in bird.servers:
                self._changed(bird, "it calls itself otherwise now")
                bird.servers = frozenset()
                return

    async def _attempt(self, bird: _Bird) -> tuple[Toggle | None, Act]:
        if bird.service is None:
            bird.service = await self._objects.set_up(bird.plan, bird.states)
        if bird.front is None:
            bird.front = await self._ways.find(bird.plan, bird.service)
        bird.urls = self._ways.urls(bird.front)
        if not bird.urls:
            bird.problem = "no address of it is known; give it in a GatewayProfile's spec.address"
            return None, Act.FAIL
        absence, connections = next_kind(bird.pace, keeps=bird.plan.keeps)
        keeping = connections is Connections.KEPT
        self._responders.keeping = set(Endpoint) if keeping else set()
        self._bird, self._servers = bird, set()
        self._toggle = Toggle(
            time.monotonic(), bird.listed, absence, connections, bird.plan.expected
        )
        asking = asyncio.create_task(self._ask(bird))
        try:
            act = await self._act(bird, bird.service)
            return self._toggle, act
        finally:
            asking.cancel()
            self._toggle = None

    async def _ask(self, bird: _Bird) -> None:
        """Send requests for as long as the toggle lasts, to each replica in turn."""
        turn, asked = 0, 0.0
        while self._toggle is not None:
            now = time.monotonic()
            # Looked at anew each time: a slow search must not sleep through the toggle that it found.
            if now - asked >= ask_period(self._toggle, now):
                rounds, at = divmod(turn, len(bird.urls))
                keep = keeps_client(self._toggle, rounds)
                self._asker.ask(bird.urls[at], bird.plan.host, keep=keep)
                turn, asked = turn + 1, now
            await asyncio.sleep(ASK_SECONDS)

    async def _act(self, bird: _Bird, service: dict[str, Any]) -> Act:
        """Do what the toggle asks for, to its end."""
        while True:
            toggle = self._toggle
            if toggle is None:
                return Act.FAIL
            act = next_act(toggle, time.monotonic())
            if act in {Act.DONE, Act.FAIL}:
                return act
            if act is Act.ATTACH:
                self._toggle = replace(toggle, attach_at=time.monotonic())
                await self._list(bird, service, toggle.incoming, None)
                await asyncio.sleep(PAIR_SECONDS)
            elif act is Act.DETACH:
                self._toggle = replace(toggle, detach_at=time.monotonic())
                await self._list(bird, service, toggle.outgoing, toggle.absence)
            elif act is Act.END_KEPT:
                self._toggle = replace(toggle, ended_at=time.monotonic())
                self._responders.end_connections(toggle.outgoing)
            else:
                await asyncio.sleep(ACT_SECONDS)

    async def _list(
        self, bird: _Bird, service: dict[str, Any], endpoint: Endpoint, state: Absence | None
    ) -> None:
        await self._objects.list_endpoint(service, endpoint, state)
        bird.states[endpoint] = state

    # What came of it.

    def _found(self, bird: _Bird, sample: Sample) -> None:
        before = measured(tuple(bird.samples))
        servers = frozenset(self._servers)
        if bird.servers and servers and servers != bird.servers:
            self._changed(bird, "it calls itself otherwise now")
        bird.servers = servers or bird.servers
        bird.samples.append(sample)
        bird.problem = ""
        now = time.monotonic()
        if is_surprise(sample, before):
            bird.pace = at_once(bird.pace, now, SURPRISE_BURST)
        key = bird.plan.key
        kube_proxy = bird.plan.kind is GatewayKind.CLUSTER_IP
        noted = self._measurements.note(key, KUBE_PROXY_NOTE if kube_proxy else "")
        told = self._measurements.found(key, tuple(bird.samples), time.time())
        self._gauges(bird)
        if told or noted:
            self._on_news()

    def _failed(self, bird: _Bird, problem: str) -> None:
        bird.pace = after_failure(bird.pace, time.monotonic(), random.random())  # noqa: S311  # jitter
        if bird.pace.failures < TOLD_FAILURES:
            return
        text = f"not measured now: {problem}"
        if self._measurements.note(bird.plan.key, text):
            logger.warning("%s %s: %s", bird.plan.kind.value, bird.plan.gateway, text)
            self._on_news()

    def _gauges(self, bird: _Bird) -> None:
        found = measured(tuple(bird.samples))
        if found is None:
            return
        labels = (bird.plan.kind.value, bird.plan.gateway)
        self._metrics.canary_samples.labels(*labels).set(found.detach.samples)
        for name, of in (("new", found.detach), ("kept-alive", found.kept)):
            for quantile, seconds in _quantiles(of):
                self._metrics.gateway_detach.labels(*labels, name, quantile).set(seconds)
        for quantile, seconds in _quantiles(found.attach):
            self._metrics.gateway_attach.labels(*labels, quantile).set(seconds)

    def _count(self, bird: _Bird, result: str) -> None:
        labels = (bird.plan.kind.value, bird.plan.gateway, result)
        self._metrics.canary_toggles.labels(*labels).inc()

    def _count_request(self, bird: _Bird, reply: Reply) -> None:
        labels = (bird.plan.kind.value, bird.plan.gateway, reply.result)
        self._metrics.canary_requests.labels(*labels).inc()

    # What the endpoints and the gateway say.

    def _arrival(self, arrival: Arrival) -> None:
        if self._toggle is not None:
            self._toggle = arrived(self._toggle, arrival)

    def _reply(self, reply: Reply) -> None:
        bird = self._bird
        if bird is None:
            return
        self._count_request(bird, reply)
        if reply.server:
            self._servers.add(reply.server)
        if reply.result != "ok":
            where = bird.urls[0] if bird.urls else ""
            bird.problem = f"requests to {where} for {bird.plan.host or 'it'} end in {reply.detail}"


def _quantiles(found: Latencies | None) -> tuple[tuple[str, float], ...]:
    if found is None:
        return ()
    return ("0.5", found.p50), ("0.9", found.p90), ("0.99", found.p99), ("1", found.max)
