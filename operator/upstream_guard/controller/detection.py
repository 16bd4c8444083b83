"""Makes windows of what the three eyes see: gathers, has it decided in the core, keeps the ledgers, tells."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from upstream_guard.controller.endpoints import EndpointTracker
from upstream_guard.controller.guards import GuardBook, GuardEntry
from upstream_guard.controller.predictions import Predictions
from upstream_guard.controller.scoring import Scoring
from upstream_guard.core.assessment import Situation
from upstream_guard.core.detect import (
    Hidden,
    Kind,
    News,
    Sighting,
    advance,
    closer_looks,
    hurried,
    inherit,
    wants_name,
)
from upstream_guard.core.evidence import (
    CloserLook,
    GatewayDelta,
    NameLook,
    RouteSample,
    UpstreamView,
)
from upstream_guard.core.external_assessment import ExternalSituation
from upstream_guard.core.ground import Ground, ground_of_pods, ground_of_upstreams
from upstream_guard.core.health import Verdict
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.observed import MAX_WINDOWS, Counted, ObservedWindow, failed_after
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.tuning import GatewayFacts
from upstream_guard.core.watching import AFTERMATH, Scene, Underway, Watch
from upstream_guard.gateways.behaviour import model_of
from upstream_guard.metrics import Metrics
from upstream_guard.resources.status import parse_windows

TICK_SECONDS: Final = 0.25
"""How often time alone is looked at while something is going on; in peace never."""
REMEMBERED_SECONDS: Final = 60.0
"""How long a change that is over is remembered."""
MAX_REMEMBERED: Final = 16

Tell = Callable[[GuardEntry, News | Hidden], None]
"""Tells users."""


@dataclass(slots=True)
class _Memory:
    """What is known of one guard in force.

    Attributes:
        service: That it guards.
        watch: The core's memory.
        scene: As of the last evaluation.
        keys: What endpoints are probed as, by their address.
        facts: The gateways that the scene's behaviours were made from.
        windows: As they were told, newest first.
        changes: Under way or over not long ago.
        watched: Gateways that scoring was told of.
        counted: Up to when failing seconds are counted, Unix seconds; an earlier controller counted the rest.
        tick: Looks again.
    """

    service: ObjectRef
    watch: Watch
    counted: float
    scene: Scene = field(default_factory=Scene)
    keys: Mapping[str, str] = field(default_factory=dict)
    facts: tuple[GatewayFacts, ...] = ()
    windows: tuple[ObservedWindow, ...] = ()
    changes: dict[tuple[ChangeKind, str], Underway] = field(default_factory=dict)
    watched: frozenset[str] = frozenset()
    tick: asyncio.TimerHandle | None = None


class Detection:
    """Keeps a watch over every guard in force.

    Direct probes come with each evaluation (`look`, `look_outside`), the other eyes by `route`, `metrics` and `view`.
    Everything runs on one event loop.
    """

    def __init__(
        self,
        book: GuardBook,
        metrics: Metrics,
        clock: Callable[[], float],
        tell: Tell,
        touched: Callable[[ObjectRef], None],
        predictions: Predictions,
        tracker: EndpointTracker,
        scoring: Scoring,
    ) -> None:
        """Wire it.

        Args:
            book: The guards.
            metrics: Where windows are counted.
            clock: Gives Unix seconds.
            tell: Told of windows that open and close.
            touched: Told of each guard whose windows are others now.
            predictions: Knows the changes under way.
            tracker: Knows the endpoints' health.
            scoring: Told of windows, and of where they would be seen.
        """
        self._book = book
        self._metrics = metrics
        self._clock = clock
        self._tell = tell
        self._touched = touched
        self._predictions = predictions
        self._tracker = tracker
        self._scoring = scoring
        self._memories: dict[ObjectRef, _Memory] = {}
        self._by_service: dict[ObjectRef, ObjectRef] = {}
        self.hurry: Callable[[ObjectRef], None] = lambda _service: None
        """Told, again and again, of Services whose gateways should be read more often."""
        self.look_closer: Callable[[ObjectRef, tuple[str, ...]], None] = lambda _guard, _addresses: (
            None
        )
        """Told, again and again, of endpoints that should be asked as users ask; answers come by `closer`."""
        self.ask_name: Callable[[ObjectRef], None] = lambda _service: None
        """Told, again and again, of Services whose name DNS should be asked for; answers come by `named`."""

    # What the eyes call.

    def look(self, entry: GuardEntry, situation: Situation) -> tuple[ObservedWindow, ...]:
        """Take in an evaluation of a guard whose Service has pods.

        Returns:
            The guard's windows for its status, as they were last told.
        """
        return self._look(entry, ground_of_pods(situation, self._clock()))

    def look_outside(
        self, entry: GuardEntry, situation: ExternalSituation
    ) -> tuple[ObservedWindow, ...]:
        """The same of a guard with external upstreams."""
        return self._look(entry, ground_of_upstreams(situation, self._clock()))

    def route(self, guard: ObjectRef, sample: RouteSample) -> None:
        """Take in a request through a gateway."""
        self._see(guard, sample)

    def metrics(self, delta: GatewayDelta) -> None:
        """Take in what a gateway counted."""
        self._see(self._by_service.get(delta.service), delta)

    def view(self, view: UpstreamView) -> None:
        """Take in a gateway's upstream list."""
        self._see(self._by_service.get(view.service), view)

    def closer(self, guard: ObjectRef, look: CloserLook) -> None:
        """Take in a request to an endpoint itself, made as users make theirs."""
        self._see(guard, look)

    def named(self, service: ObjectRef, look: NameLook) -> None:
        """Take in an answer of the cluster's DNS for a Service's name."""
        self._see(self._by_service.get(service), look)

    def hurried(self, service: ObjectRef) -> bool:
        """Whether something is odd or under way at a Service, so that it should be looked at more often."""
        ref = self._by_service.get(service)
        if ref is None:
            return False
        memory = self._memories[ref]
        return hurried(memory.watch, memory.scene, self._clock())

    def rate(self, ref: ObjectRef) -> float | None:
        """Requests a second to a guard's Service, as gateways count them; None where none does now."""
        memory = self._memories.get(ref)
        return memory.watch.counted_rate(self._clock()) if memory is not None else None

    def forget(self, ref: ObjectRef) -> None:
        """The guard is gone, or no longer in force."""
        memory = self._memories.pop(ref, None)
        if memory is None:
            return
        if self._by_service.get(memory.service) == ref:
            del self._by_service[memory.service]
        if memory.tick is not None:
            memory.tick.cancel()
        self._metrics.windows_open.remove_by_labels({"namespace": ref.namespace, "guard": ref.name})

    # What is gathered.

    def _look(self, entry: GuardEntry, ground: Ground) -> tuple[ObservedWindow, ...]:
        memory = self._memories.get(entry.ref)
        if memory is None or memory.service != ground.service:
            memory = self._first_look(entry, ground.service)
        self._set_scene(entry.ref, memory, ground)
        self._advance(entry.ref, memory)
        return memory.windows

    def _first_look(self, entry: GuardEntry, service: ObjectRef) -> _Memory:
        """What an earlier controller knew is in the status; its open windows are still to be closed."""
        self.forget(entry.ref)
        windows = parse_windows(entry.status)[:MAX_WINDOWS]
        now = self._clock()
        memory = _Memory(service, inherit(windows, now), now, windows=windows)
        self._memories[entry.ref] = memory
        self._by_service[service] = entry.ref
        self._count_open(entry.ref, memory)
        self._count_from_zero(entry.ref)
        return memory

    def _set_scene(self, ref: ObjectRef, memory: _Memory, ground: Ground) -> None:
        memory.keys = ground.keys
        memory.scene = Scene(
            policy=ground.policy,
            endpoints=ground.endpoints,
            trusted=ground.trusted,
            pods=ground.wanted,
            gateways=self._behaviours(memory, ground.gateways),
            changes=self._changes(ref, memory),
            predictions=ground.predictions,
            app_idle=self._predictions.app_idle(ref),
            path=self._tracker.path(ref),
            rate=ground.policy.requests_per_second,
            told=ground.told,
        )

    def _behaviours(
        self, memory: _Memory, facts: tuple[GatewayFacts, ...]
    ) -> Mapping[str, Behaviour]:
        if facts == memory.facts:
            return memory.scene.gateways
        memory.facts = facts
        return {found.name: model_of(found).behaviour for found in facts}

    def _changes(self, ref: ObjectRef, memory: _Memory) -> tuple[Underway, ...]:
        now = self._clock()
        going = {
            b.key: Underway(b.change.kind, b.subject, b.at)
            for b in self._predictions.under_way(ref)
        }
        kept = {
            key: replace(known, ended=min(known.ended, now))
            for key, known in memory.changes.items()
            if key not in going and known.ended > now - REMEMBERED_SECONDS
        }
        latest = sorted((kept | going).items(), key=lambda item: -item[1].began)
        memory.changes = dict(latest[:MAX_REMEMBERED])
        return tuple(memory.changes.values())

    def _fresh(self, ref: ObjectRef, memory: _Memory) -> Scene:
        """The scene with the endpoints' health as it is now, and what is so behind the same gateways."""
        endpoints = tuple(
            replace(e, health=self._tracker.health(ref, memory.keys[e.address]))
            for e in memory.scene.endpoints
        )
        neighbours = {gateway: self._neighbours(ref, gateway) for gateway in memory.watch.lanes}
        return replace(memory.scene, endpoints=endpoints, neighbours=neighbours)

    def _neighbours(self, ref: ObjectRef, gateway: str) -> tuple[int, int]:
        now = self._clock()
        others = [
            memory.watch
            for other, memory in self._memories.items()
            if other != ref
            and gateway in memory.watch.lanes
            and memory.watch.lanes[gateway].watched(now)
        ]
        return sum(gateway in watch.open for watch in others), len(others)

    # What is decided, and told.

    def _see(self, ref: ObjectRef | None, sighting: Sighting) -> None:
        memory = self._memories.get(ref) if ref is not None else None
        if ref is not None and memory is not None:
            self._advance(ref, memory, sighting)

    def _advance(self, ref: ObjectRef, memory: _Memory, sighting: Sighting | None = None) -> None:
        now = self._clock()
        scene = self._fresh(ref, memory) if _stirs(memory.watch) else memory.scene
        step = advance(memory.watch, scene, now, sighting)
        memory.watch = step.watch
        self._count_failing(ref, memory, step.news)
        for item in step.news:
            self._take_news(ref, memory, item)
        if step.news:
            self._count_open(ref, memory)
            self._touched(ref)
        self._tell_watched(ref, memory, now)
        self._set_tick(ref, memory, now)
        if hurried(memory.watch, scene, now):
            self.hurry(memory.service)
        if addresses := closer_looks(memory.watch, scene, now):
            self.look_closer(ref, addresses)
        # What sends to the pods themselves has no use for the Service's name.
        if wants_name(memory.watch, now) and any(f.via_cluster_ip for f in memory.facts):
            self.ask_name(memory.service)

    def _take_news(self, ref: ObjectRef, memory: _Memory, item: News | Hidden) -> None:
        entry = self._book.get(ref)
        if isinstance(item, News):
            others = tuple(w for w in memory.windows if w.id != item.window.id)
            memory.windows = _newest_first((item.window, *others))[:MAX_WINDOWS]
            self._scoring.observed(ref, item.window)
            if item.kind is Kind.CLOSED:
                self._count(ref, item.window)
        if entry is not None:
            self._tell(entry, item)

    def _count_from_zero(self, ref: ObjectRef) -> None:
        """What begins with its first increment looks to Prometheus as if it had never been incremented."""
        labels, metrics = (ref.namespace, ref.name), self._metrics
        metrics.failing_seconds.labels(*labels)
        for counted in Counted:
            metrics.window_lost.labels(*labels, counted.value)

    def _count_failing(
        self, ref: ObjectRef, memory: _Memory, news: Iterable[News | Hidden]
    ) -> None:
        """While a window goes on, and not only at its end: a budget may be spent by then."""
        spans = [(known.first, known.last) for known in memory.watch.open.values()]
        ended = (n.window for n in news if isinstance(n, News) and n.kind is Kind.CLOSED)
        spans += [(window.opened, window.closed) for window in ended]
        seconds, memory.counted = failed_after(spans, memory.counted)
        if seconds > 0:
            self._metrics.failing_seconds.labels(ref.namespace, ref.name).inc(seconds)

    def _count(self, ref: ObjectRef, window: ObservedWindow) -> None:
        labels, metrics, cause = (ref.namespace, ref.name), self._metrics, window.cause.value
        metrics.windows.labels(*labels, cause, str(window.predicted).lower()).inc()
        metrics.window_seconds.labels(*labels, cause).inc(window.seconds)
        metrics.window_lost.labels(*labels, window.counted.value).inc(window.lost)
        if window.change_kind:
            metrics.change_window_seconds.labels(*labels, window.change_kind).inc(window.seconds)
            metrics.change_lost.labels(*labels, window.change_kind).inc(window.lost)

    def _count_open(self, ref: ObjectRef, memory: _Memory) -> None:
        count = sum(window.closed == 0 for window in memory.windows)
        self._metrics.windows_open.labels(ref.namespace, ref.name).set(count)

    def _tell_watched(self, ref: ObjectRef, memory: _Memory, now: float) -> None:
        watched = memory.watch.watched(now)
        if watched != memory.watched:
            memory.watched = watched
            self._scoring.watching(ref, watched)

    def _set_tick(self, ref: ObjectRef, memory: _Memory, now: float) -> None:
        """Look again while time alone may change something."""
        if memory.tick is not None:
            memory.tick.cancel()
            memory.tick = None
        if _stirs(memory.watch) or _waits(memory.scene, now):
            loop = asyncio.get_running_loop()
            memory.tick = loop.call_later(TICK_SECONDS, self._look_again, ref)

    def _look_again(self, ref: ObjectRef) -> None:
        memory = self._memories.get(ref)
        if memory is not None:
            self._advance(ref, memory)


def _stirs(watch: Watch) -> bool:
    return bool(watch.open) or any(lane.hits for lane in watch.lanes.values())


def _waits(scene: Scene, now: float) -> bool:
    """A listed endpoint is silent: its silence may last long enough to count."""
    return scene.trusted and any(
        e.listed and e.health.verdict is Verdict.FAILING and now < e.health.since + 2 * AFTERMATH
        for e in scene.endpoints
    )


def _newest_first(windows: Iterable[ObservedWindow]) -> tuple[ObservedWindow, ...]:
    """Open ones before closed ones, so that none is cut off that has to be closed."""
    return tuple(sorted(windows, key=lambda w: (w.closed > 0, -w.opened, w.id)))
