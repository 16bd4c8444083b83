"""Asks every guarded route through its gateways, at a pace that follows what is going on."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import RouteSample
from upstream_guard.core.model import Guard, ObjectRef, RouteProbePolicy, Service
from upstream_guard.core.route_pace import Bucket, Turn, first_turn, hurry, next_turn, second
from upstream_guard.core.routes import Ask, Landscape, RoutePlan, plan_routes
from upstream_guard.core.status import RouteStatus
from upstream_guard.metrics import Metrics
from upstream_guard.probes.route import RouteProber, is_address
from upstream_guard.probes.schedule import Schedule

logger = logging.getLogger(__name__)

TOTAL_RATE: Final = 200.0
"""Requests a second through all gateways together; said in the CRD."""
GATEWAY_RATE: Final = 100.0
"""The same through one gateway."""
WAY_LIMIT: Final = 4
"""Requests under way on one way: more would only pile up behind a gateway that hangs."""
GATEWAY_LIMIT: Final = 32
TOTAL_LIMIT: Final = 128
MISSES: Final = 3
"""Failed connections after which a gateway that never answered is reported as out of reach."""
LOOK_SECONDS: Final = 0.25
"""How often it is asked whether anything is suspected; that something begins is told at once."""
WONDER_SECONDS: Final = 0.5
"""After which a request that is not answered yet has the next one made at once: it takes two silent ones for a
window, and in peace the second would come seconds after the first has given up."""
BUSY_SECONDS: Final = 0.05
"""The same while requests are under way: the grain in which the loop's own lateness is known."""
_TICK: Final = 0.002
_LAG_FLOOR: Final = 0.025
"""Lateness of the loop that costs a request nothing: it takes some ten turns of it, a quarter of a second in all.
Summed up without a floor, a busy node's few milliseconds a turn made every time-out count for nothing."""

OnSample = Callable[[ObjectRef, RouteSample], None]
"""Gets the guard and what one request through a gateway brought."""


@dataclass(slots=True)
class _Way:
    """One way that is asked for one guard."""

    key: str
    guard: ObjectRef
    ask: Ask
    policy: RouteProbePolicy
    bad: frozenset[int]
    turn: Turn
    booked: bool = False
    """Its next request is paid from the budget already, and only waits for its time."""
    count: int = 0
    under_way: int = 0
    reached: bool = False
    """The gateway has once answered. What never answered may just be out of our reach."""
    misses: int = 0
    problem: str = ""
    wondered: bool = False
    """A request was waited for, and none has been answered soon since."""

    @property
    def door(self) -> tuple[tuple[str, ...], int]:
        """Where the gateway is asked."""
        return self.ask.addresses, self.ask.port


@dataclass(slots=True)
class _Course:
    """Everything that is asked for one guard."""

    service: ObjectRef
    plan: RoutePlan = field(default_factory=RoutePlan)
    ways: tuple[_Way, ...] = ()
    hurried: bool = False


class RouteProbes:
    """Keeps the ways of all guards in force, and asks them while `run` runs."""

    def __init__(
        self,
        metrics: Metrics,
        hurried: Callable[[ObjectRef], bool],
        on_sample: OnSample,
        touched: Callable[[ObjectRef], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Wire it.

        Args:
            metrics: Where requests are counted.
            hurried: Whether a change of this Service is under way, or a window of it suspected.
            on_sample: Told of each request, but for those to gateways that were never reached.
            touched: Told of each guard whose `RouteStatus` is another now.
            clock: Unix seconds, for the samples.
        """
        self._metrics = metrics
        self._hurried = hurried
        self._on_sample = on_sample
        self._touched = touched
        self._draw = random.Random()  # noqa: S311 - spreads load, keeps no secret
        self._prober = RouteProber(clock=clock, lag=lambda: self._lag)
        self._courses: dict[ObjectRef, _Course] = {}
        self._ways: dict[str, _Way] = {}
        self._schedule = Schedule(self._draw)
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_gateway: Counter[str] = Counter()
        self._buckets: dict[str, Bucket] = {}
        self._doors: set[tuple[tuple[str, ...], int]] = set()
        """Where some gateway has answered."""
        self._total = Bucket.full(TOTAL_RATE, time.monotonic())
        self._kick = asyncio.Event()
        self._lag = 0.0
        self._look_after = 0.0
        self._numbers = 0

    def follow(
        self, guard: Guard, service: Service, landscape: Landscape, probe_path: str
    ) -> tuple[RouteStatus, ...]:
        """Ask exactly what is to be asked for a guard in force.

        Args:
            guard: The guard.
            service: Its Service.
            landscape: What is in front of it.
            probe_path: By which its pods are probed; empty where not by HTTP.

        Returns:
            What is asked and what is not, for the status; in peace always the same.
        """
        plan = plan_routes(guard, service, landscape, probe_path)
        course = self._courses.setdefault(guard.ref, _Course(service.ref))
        course.service = service.ref
        self._replace(course, guard, plan)
        self._look_at(course)
        return tuple(_statuses(course))

    def asks(self, ref: ObjectRef) -> tuple[Ask, ...]:
        """What is asked for a guard."""
        course = self._courses.get(ref)
        return course.plan.asks if course else ()

    def drop(self, ref: ObjectRef) -> None:
        """Ask nothing more for a guard, and forget it; what is under way is not reported."""
        course = self._courses.pop(ref, None)
        if course is None:
            return
        for way in course.ways:
            self._discard(way)
        self._forget_gateways()
        labels = {"namespace": ref.namespace, "guard": ref.name}
        self._metrics.route_probes.remove_by_labels(labels)

    async def run(self) -> None:
        """Ask until cancelled; what is under way then is torn down."""
        woken = time.monotonic()
        try:
            while True:
                now = time.monotonic()
                self._lag += max(0.0, now - woken - _LAG_FLOOR)
                self._look(now)
                self._start_due(now)
                pause = self._pause(time.monotonic())
                woken = time.monotonic() + pause
                try:
                    async with asyncio.timeout(pause):
                        await self._kick.wait()
                    woken = time.monotonic()
                except TimeoutError:
                    pass
                self._kick.clear()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._prober.close()

    # Which ways there are.

    def _replace(self, course: _Course, guard: Guard, plan: RoutePlan) -> None:
        """Ways that stay the same keep their turn."""
        detection = guard.detection
        policy, bad = detection.route_probe, frozenset(detection.error_statuses)
        same = {way.ask: way for way in course.ways if (way.policy, way.bad) == (policy, bad)}
        kept = [same.get(ask) or self._new(guard.ref, ask, policy, bad) for ask in plan.asks]
        gone = [way for way in course.ways if way not in kept]
        for way in gone:
            self._discard(way)
        if plan.unasked != course.plan.unasked:
            for unasked in plan.unasked:
                words = (guard.ref, unasked.route or unasked.gateway, unasked.reason)
                logger.info("Guard %s: %s is not asked through its gateway: %s", *words)
        course.plan, course.ways = plan, tuple(kept)
        if gone:
            self._forget_gateways()

    def _new(
        self, guard: ObjectRef, ask: Ask, policy: RouteProbePolicy, bad: frozenset[int]
    ) -> _Way:
        now = time.monotonic()
        self._numbers += 1
        turn = first_turn(policy, now, self._draw.random(), hurried=False)
        way = _Way(str(self._numbers), guard, ask, policy, bad, turn)
        way.reached = way.door in self._doors
        self._ways[way.key] = way
        self._schedule.advance(way.key, turn.due)
        self._kick.set()
        return way

    def _discard(self, way: _Way) -> None:
        self._ways.pop(way.key, None)
        self._schedule.discard(way.key)
        self._prober.drop(way.ask.key)

    def _forget_gateways(self) -> None:
        gateways = {way.ask.key.gateway for way in self._ways.values()}
        for name in self._buckets.keys() - gateways:
            del self._buckets[name]
        self._doors &= {way.door for way in self._ways.values()}
        names = (a for way in self._ways.values() for a in way.ask.addresses if not is_address(a))
        self._prober.names.keep(frozenset(names))

    # When they are asked.

    def _look(self, now: float) -> None:
        if now < self._look_after:
            return
        self._look_after = now + LOOK_SECONDS
        for course in self._courses.values():
            self._look_at(course)

    def _look_at(self, course: _Course) -> None:
        before, course.hurried = course.hurried, self._hurried(course.service)
        if before or not course.hurried:
            return
        now = time.monotonic()
        for way in course.ways:
            way.turn = hurry(way.turn, way.policy, now, self._draw.random())
            self._schedule.advance(way.key, way.turn.due)
        self._kick.set()

    def _pause(self, now: float) -> float:
        longest = BUSY_SECONDS if self._tasks else LOOK_SECONDS
        due = self._schedule.next_due()
        return longest if due is None else min(longest, max(_TICK, due - now))

    def _start_due(self, now: float) -> None:
        while (popped := self._schedule.pop(now)) is not None:
            way = self._ways[popped[0]]
            wait = 0.0 if way.booked else self._book(way, now)
            way.booked = wait > 0
            if way.booked:
                self._schedule.advance(way.key, now + wait)
                continue
            if self._crowded(way):
                self._metrics.route_probes_skipped.inc()
            else:
                self._start(way)
            course = self._courses[way.guard]
            way.turn = next_turn(
                way.turn, way.policy, now, self._draw.random(), hurried=course.hurried
            )
            self._schedule.advance(way.key, way.turn.due)

    def _book(self, way: _Way, now: float) -> float:
        """Take one request from the budgets; seconds until it may be made, in order of booking."""
        gateway = way.ask.key.gateway
        total = self._total.refilled(now)
        own = (self._buckets.get(gateway) or Bucket.full(GATEWAY_RATE, now)).refilled(now)
        self._total, self._buckets[gateway] = total.taken(), own.taken()
        return max(total.wait, own.wait)

    def _crowded(self, way: _Way) -> bool:
        return (
            way.under_way >= WAY_LIMIT
            or self._by_gateway[way.ask.key.gateway] >= GATEWAY_LIMIT
            or len(self._tasks) >= TOTAL_LIMIT
        )

    def _start(self, way: _Way) -> None:
        gateway = way.ask.key.gateway
        way.under_way += 1
        self._by_gateway[gateway] += 1
        task = asyncio.create_task(self._make(way, way.count, reuse=way.turn.reuse))
        way.count += 1
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("A request through a gateway failed here", exc_info=task.exception())

    def _wonder(self, way: _Way) -> None:
        """Once until something is answered soon: an app that is always slow is not asked more often."""
        if way.wondered or way.key not in self._ways:
            return
        way.wondered = True
        way.turn = second(way.turn, time.monotonic())
        self._schedule.advance(way.key, way.turn.due)
        self._kick.set()

    # What comes of it.

    async def _make(self, way: _Way, turn: int, *, reuse: bool) -> None:
        loop = asyncio.get_running_loop()
        wonder = loop.call_later(WONDER_SECONDS, self._wonder, way)
        try:
            sample = await self._prober.ask(way.ask, turn, reuse=reuse)
        finally:
            way.wondered &= loop.time() >= wonder.when()
            wonder.cancel()
            way.under_way -= 1
            self._by_gateway[way.ask.key.gateway] -= 1
        if way.key not in self._ways:
            self._prober.drop(way.ask.key)
            return
        self._count(way, sample)
        if sample is None:
            return
        if sample.status:
            self._reached(way)
        elif not way.reached:
            self._missed(way, sample)
            return
        self._on_sample(way.guard, sample)

    def _count(self, way: _Way, sample: RouteSample | None) -> None:
        result = "discarded" if sample is None else _result(sample, way.bad)
        labels = (way.guard.namespace, way.guard.name, way.ask.key.gateway, result)
        self._metrics.route_probes.labels(*labels).inc()
        if sample is None:
            return
        self._metrics.route_probe_duration.labels(result).observe(sample.done - sample.sent)
        if result != "ok":
            took = (sample.done - sample.sent) * 1000
            key = way.ask.key
            words = (way.guard, key.gateway, way.ask.url, result, took, sample.detail)
            logger.debug("Guard %s: through %s, %s: %s in %.0f ms: %s", *words)

    def _reached(self, way: _Way) -> None:
        way.reached, way.misses = True, 0
        self._doors.add(way.door)
        if way.problem:
            way.problem = ""
            self._touched(way.guard)

    def _missed(self, way: _Way, sample: RouteSample) -> None:
        """No evidence of a window: maybe only the operator cannot get there."""
        way.misses += 1
        if way.misses != MISSES:
            return
        where = f"{way.ask.addresses[0]}:{way.ask.port}"
        cause = (sample.cause or Cause.UNREACHABLE).value
        way.problem = f"the operator does not reach the gateway at {where} ({cause})"
        logger.warning("Guard %s: %s: %s; %s", way.guard, way.ask.url, way.problem, sample.detail)
        self._touched(way.guard)


def _result(sample: RouteSample, bad: frozenset[int]) -> str:
    if sample.cause is not None:
        return sample.cause.value
    return str(sample.status) if sample.status in bad else "ok"


def _statuses(course: _Course) -> Iterable[RouteStatus]:
    for way in course.ways:
        ask = way.ask
        more = f" and {len(ask.addresses) - 1} more" if len(ask.addresses) > 1 else ""
        via = f"{ask.addresses[0]}:{ask.port}{more}"
        yield RouteStatus(ask.key.gateway, ask.key.route, ask.url, via, way.problem)
    for unasked in course.plan.unasked:
        yield RouteStatus(unasked.gateway, unasked.route, problem=unasked.reason)
