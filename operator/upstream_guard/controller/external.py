"""External upstreams: gathers what DNS and probes say of each guard's addresses, decides, and has slices written.

Nothing here waits: names and certificates are followed by tasks of their own, which mark the guard when
something changed; the engine then calls `evaluate`, as it does after each probe's verdict.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from upstream_guard.controller.certificates import CertificateWatch
from upstream_guard.controller.endpoints import EndpointTracker
from upstream_guard.controller.external_news import ExternalNews
from upstream_guard.controller.guards import GuardBook, GuardEntry
from upstream_guard.controller.names import MAX_PARALLEL, Asks, NameFollower
from upstream_guard.controller.slice_writer import SliceWriter
from upstream_guard.core.admission import Decision
from upstream_guard.core.allowance import AllowList
from upstream_guard.core.external import (
    Choice,
    Refusal,
    Slot,
    as_pod,
    choose,
    permitted,
    refusals_of_names,
    update_slots,
)
from upstream_guard.core.external_assessment import ExternalSituation, assess_external
from upstream_guard.core.model import Guard, ListMode, ObjectRef, Pod, ProbeSpec, Service
from upstream_guard.core.observed import ObservedWindow
from upstream_guard.core.policy import Unresolved, guarded_port, resolve_upstream_probe
from upstream_guard.core.resolution import recall, state_of, wanted
from upstream_guard.core.slices import plan_slices, read_slices
from upstream_guard.core.status import RouteStatus
from upstream_guard.core.tuning import GatewayFacts
from upstream_guard.kube.client import KubeClient
from upstream_guard.kube.premises import gather_premises
from upstream_guard.kube.state import ClusterState
from upstream_guard.metrics import Metrics


@dataclass(frozen=True, slots=True)
class ExternalOptions:
    """What an administrator says of external upstreams.

    Attributes:
        allow: Names and ranges that are possible.
        cluster_ranges: Ranges of the cluster beside those that the API tells.
    """

    allow: AllowList = field(default_factory=AllowList)
    cluster_ranges: tuple[str, ...] = ()


Look = Callable[[GuardEntry, ExternalSituation], tuple[ObservedWindow, ...]]
"""Makes windows of what evaluations find."""


@dataclass(slots=True)
class _Followed:
    """One guard in force with external upstreams."""

    service: ObjectRef
    names: NameFollower
    certificates: CertificateWatch
    slots: dict[str, Slot]
    unresolved: str = ""
    alarm: asyncio.TimerHandle | None = None


class Externals:
    """Every guard with external upstreams."""

    def __init__(
        self,
        client: KubeClient,
        resolver: Asks,
        options: ExternalOptions,
        book: GuardBook,
        tracker: EndpointTracker,
        news: ExternalNews,
        metrics: Metrics,
        clock: Callable[[], float],
        mark: Callable[[ObjectRef], None],
        state: ClusterState,
    ) -> None:
        """Wire it.

        Args:
            client: The API server.
            resolver: Who answers questions to DNS.
            options: What is allowed.
            book: The guards.
            tracker: Probes the addresses.
            news: Tells users.
            metrics: Where questions are counted.
            clock: Unix seconds.
            mark: Has a guard evaluated soon.
            state: The cluster.
        """
        self._resolver = resolver
        self._options = options
        self._book = book
        self._tracker = tracker
        self._news = news
        self._metrics = metrics
        self._clock = clock
        self._mark = mark
        self._state = state
        self._limit = asyncio.Semaphore(MAX_PARALLEL)
        self._followed: dict[ObjectRef, _Followed] = {}
        self._writer = SliceWriter(client, state, clock, self._written, mark)
        self.look: Look = lambda _entry, _situation: ()
        """Told of each evaluation; gives the guard's windows for its status."""

    def evaluate(
        self,
        entry: GuardEntry,
        gateways: tuple[GatewayFacts, ...],
        routes: tuple[RouteStatus, ...] = (),
    ) -> None:
        """Decide over a guard in force with external upstreams.

        Args:
            entry: The guard.
            gateways: The gateways in front.
            routes: The ways through them that the operator asks.
        """
        guard = entry.guard
        service = self._state.service(guard.service_ref) if guard else None
        if guard is None or service is None:
            return
        followed = self._follow(guard)
        followed.names.follow(guard.upstreams, service.families)
        now = self._clock()
        refusals = self._update_slots(followed, guard, service, now)
        self._probe(followed, guard, service)
        healths = {key: self._tracker.health(guard.ref, key) for key in followed.slots}
        served = self._tracker.service_served(guard.ref)
        choice = choose(guard, followed.slots, healths, now, service_served=served)
        followed.slots = dict(choice.slots)
        followed.certificates.watch(guard, followed.slots)
        self._publish(guard, service, choice)
        self._set_alarm(guard.ref, followed, choice.revisit_at, now)
        memory = followed.names.memory
        situation = ExternalSituation(
            guard=guard,
            service=service,
            choice=choice,
            healths=healths,
            listed=self._listed(guard.service_ref),
            upstreams={u.key: state_of(u, memory, now) for u in guard.upstreams},
            refusals=refusals,
            gateways=gateways,
            routes=routes,
            certificates=followed.certificates.ends,
            unresolved=followed.unresolved,
            service_served=served,
        )
        situation = replace(situation, windows=self.look(entry, situation))
        self._news.decided(entry, situation, assess_external(situation, now), now)

    def drop(self, guard: ObjectRef) -> None:
        """A guard is gone, not in force, or has no external upstreams any more.

        Its slices stay: they carry traffic, and the garbage collector takes them along with the guard.
        """
        followed = self._followed.pop(guard, None)
        if followed is not None:
            self._end(followed)
            self._writer.forget(guard)
            self._news.forget(guard)

    def abandon(self) -> None:
        """Ask, decide and write nothing more, at once: another replica may control by now."""
        for followed in self._followed.values():
            self._end(followed)
        self._writer.abandon()

    async def settle(self, timeout: float) -> None:
        """Ask no more, and wait for writes under way, for at most `timeout` seconds."""
        for followed in self._followed.values():
            self._end(followed)
        await self._writer.settle(timeout)

    @staticmethod
    def _end(followed: _Followed) -> None:
        followed.names.stop()
        followed.certificates.stop()
        if followed.alarm is not None:
            followed.alarm.cancel()

    def _follow(self, guard: Guard) -> _Followed:
        known = self._followed.get(guard.ref)
        if known is not None and known.service == guard.service_ref:
            return known
        if known is not None:
            self._end(known)
        ref = guard.ref
        names = NameFollower(
            self._resolver,
            self._options.allow,
            self._metrics,
            self._limit,
            lambda: self._mark(ref),
            self._clock,
        )
        # What an operator published before us is what we know until DNS has answered.
        now = self._clock()
        slots = {
            key: replace(slot, since=now)
            for key, slot in read_slices(self._writer.there(guard.service_ref).values()).items()
        }
        names.memory.update(recall(guard.upstreams, (s.wanted for s in slots.values()), now))
        followed = _Followed(
            guard.service_ref, names, CertificateWatch(lambda: self._mark(ref)), slots
        )
        self._followed[ref] = followed
        return followed

    def _update_slots(
        self, followed: _Followed, guard: Guard, service: Service, now: float
    ) -> tuple[Refusal, ...]:
        """Bring the slots up to date with DNS; what is refused, now or by now, has none."""
        allow = self._options.allow
        premises = gather_premises(self._state, self._options.cluster_ranges)
        memory = followed.names.memory
        found = wanted(guard.upstreams, memory, now, service.families)
        kept, refused = permitted(found, allow, premises)
        before, _ = permitted((s.wanted for s in followed.slots.values()), allow, premises)
        still = {one.key for one in before}
        slots = {key: slot for key, slot in followed.slots.items() if key in still}
        followed.slots = update_slots(slots, kept, now)
        return (*refusals_of_names(guard.upstreams, memory, allow), *refused)

    def _probe(self, followed: _Followed, guard: Guard, service: Service) -> None:
        routed = bool(self._state.routes_to(service.ref))
        targets: dict[str, tuple[Pod, ProbeSpec]] = {}
        unresolved = ""
        for key, slot in followed.slots.items():
            spec = resolve_upstream_probe(guard, service, slot.wanted, routed_by_http=routed)
            if isinstance(spec, Unresolved):
                unresolved = spec.reason
            else:
                targets[key] = (as_pod(guard, slot), spec)
        impossible = self._tracker.follow(guard.ref, targets)
        followed.unresolved = unresolved or impossible

    def _publish(self, guard: Guard, service: Service, choice: Choice) -> None:
        port = guarded_port(guard, service)
        if guard.upstream_list.mode is ListMode.OBSERVE or isinstance(port, Unresolved):
            return
        slices = plan_slices(guard, service, port, choice.slots)
        self._writer.want(guard, slices, choice.decisions)

    def _listed(self, service: ObjectRef) -> frozenset[str]:
        slots = read_slices(self._writer.there(service).values())
        return frozenset(key for key, slot in slots.items() if slot.listed)

    def _set_alarm(self, ref: ObjectRef, followed: _Followed, at: float, now: float) -> None:
        if followed.alarm is not None:
            followed.alarm.cancel()
            followed.alarm = None
        if at < math.inf:
            loop = asyncio.get_running_loop()
            followed.alarm = loop.call_later(max(0.01, at - now), self._mark, ref)

    def _written(self, ref: ObjectRef, decisions: tuple[Decision, ...]) -> None:
        entry = self._book.get(ref)
        if entry is not None:
            self._news.written(entry, decisions)
            self._mark(ref)
