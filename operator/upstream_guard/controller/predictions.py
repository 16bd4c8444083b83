"""Predicts live: the windows of changes as they begin, and what waits for the next one."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from upstream_guard.controller.churn import Churn
from upstream_guard.controller.gathering import Gatherer
from upstream_guard.controller.guards import GuardBook, GuardEntry
from upstream_guard.controller.scoring import Scoring
from upstream_guard.controller.starts import StartBook
from upstream_guard.core.assessment import Situation
from upstream_guard.core.model import Guard, ObjectRef, Pod, Service
from upstream_guard.core.predict.announce import (
    announce,
    likely,
    outlast,
    prediction_status,
    standing_risks,
)
from upstream_guard.core.predict.engine import predict
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.live import (
    Begun,
    Sight,
    WorkloadSight,
    begin,
    deadline,
    is_over,
    under_way,
)
from upstream_guard.core.predict.review import review
from upstream_guard.core.predict.rules.runtimes import runtime_of
from upstream_guard.core.predict.score import Prediction
from upstream_guard.core.predict.state import AppFacts, Change, ChangeKind, State
from upstream_guard.core.predict.window import Severity, Window
from upstream_guard.core.status import PredictionStatus, RiskStatus
from upstream_guard.core.tuning import CLUSTER_IP, Evidence, GatewayFacts
from upstream_guard.gateways.behaviour import model_of
from upstream_guard.kube.state import ClusterState
from upstream_guard.metrics import Metrics
from upstream_guard.resources.status import parse_predictions, parse_risks

REVIEW_SECONDS: Final = 5.0
"""A guard's standing risks are reviewed at most once in this time."""
NO_PODS_SECONDS: Final = 3.0
"""Before a new guard's first review where there are no pods: what is applied together comes together."""
REVIEW_SHARE: Final = 0.2
"""Of the time, what reviews may take altogether: probes and verdicts share the same core."""
LOST_NODE: Final = Estimate(
    0.05,
    0.2,
    1.0,
    Evidence.ASSUMED,
    "the node controller marks all pods of a node not ready as soon as it gives the node up",
)
"""From a node's NotReady, which comes some 40 s after its last sign of life, to the EndpointSlices."""
LEAST_RATE: Final = 0.1
"""Requests a second that are reckoned with where fewer are observed: more may come."""
AFTERMATH: Final = 2.0
"""Seconds after a change, or after the last window expected of it, in which a window is still its own:
the gateway learns of its last step later than we do."""


@dataclass(slots=True)
class _Open:
    """A change that has begun and is not over.

    Attributes:
        begun: The change.
        windows: What is expected of it, as the status tells it.
        said: The same as it is scored, for each gateway; empty before it is predicted, and of one that
            an earlier controller told of.
    """

    begun: Begun
    windows: tuple[PredictionStatus, ...] = ()
    said: tuple[Prediction, ...] = ()


@dataclass(slots=True)
class _Memory:
    """What is known of one guard.

    Attributes:
        sight: The last look.
        pods: The Service's pods at that look.
        gateways: Those in front of it.
        open: Changes that are not over, by their keys.
        closing: What was expected of changes that are over, for as long as a window may be theirs.
        risks: As of the last review, or of the status that an earlier controller wrote.
        asked: What the last review that was asked for depends on.
        review_after: Monotonic time before which no other review is made.
        alarm: Looks again when a change counts as over.
    """

    guard: Guard
    service: Service
    sight: Sight
    pods: tuple[Pod, ...]
    gateways: tuple[GatewayFacts, ...]
    open: dict[tuple[ChangeKind, str], _Open] = field(default_factory=dict)
    closing: dict[tuple[ChangeKind, str], tuple[PredictionStatus, ...]] = field(
        default_factory=dict
    )
    risks: tuple[RiskStatus, ...] = ()
    asked: tuple[object, ...] = ()
    review_after: float = 0.0
    alarm: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Pods come and go because of a change: no moment to judge what waits for the next one."""
        return any(k.begun.change.kind is not ChangeKind.EDIT for k in self.open.values())

    @property
    def since(self) -> float:
        """When the oldest change began that is not over, Unix seconds; infinite where none is."""
        return min((known.begun.at for known in self.open.values()), default=math.inf)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected of a Service: for its guard's status."""

    predictions: tuple[PredictionStatus, ...] = ()
    risks: tuple[RiskStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class Foretold:
    """A change that will open a window, as users are told of it.

    Attributes:
        entry: The guard.
        begun: The change.
        note: What is to be said.
        workload: That it happens to; of a node, the first of the Service.
    """

    entry: GuardEntry
    begun: Begun
    note: str
    workload: WorkloadSight | None


Tell = Callable[[Foretold], None]
"""Tells users of a change."""
Rate = Callable[[ObjectRef], float | None]
"""Requests a second to a guard's Service, as they are observed; None where nobody counts them."""


class Predictions:
    """Follows every guarded Service, and predicts in the background.

    A look costs little and is made with every evaluation. What it finds waits in a queue: changes come
    before reviews, and between any two the event loop has its turn.
    """

    def __init__(
        self,
        book: GuardBook,
        metrics: Metrics,
        clock: Callable[[], float],
        tell: Tell,
        touched: Callable[[ObjectRef], None],
        scoring: Scoring,
        churn: Churn,
    ) -> None:
        """Wire it.

        Args:
            book: The guards.
            metrics: Where windows are counted.
            clock: Gives Unix seconds.
            tell: Told of each change that will open a window.
            touched: Told of each guard whose outlook is another now, or may be by time alone.
            scoring: Told of each prediction whose change is over.
            churn: Knows how busy other Services keep kube-proxy.
        """
        self._book = book
        self._metrics = metrics
        self._clock = clock
        self._tell = tell
        self._touched = touched
        self._scoring = scoring
        self._churn = churn
        self._gather: Gatherer | None = None
        self._rate: Rate = _unknown_rate
        self._memories: dict[ObjectRef, _Memory] = {}
        self._changes: deque[tuple[ObjectRef, Begun]] = deque()
        self._reviews: dict[ObjectRef, None] = {}
        self._rest_until = 0.0
        self._kick = asyncio.Event()
        self.starts = StartBook()

    def attach(self, state: ClusterState, *, injects: bool) -> None:
        """Say where the cluster's state is, and whether our webhook makes the new pods' gates."""
        self._gather = Gatherer(state, injects=injects)

    def observe_rate(self, rate: Rate) -> None:
        """Say who knows how many requests a second there are; until then a rate is assumed."""
        self._rate = rate

    def look(self, entry: GuardEntry, situation: Situation) -> Outlook:
        """Look at a guarded Service: what begins, what is over, what has to be reviewed."""
        if self._gather is None:
            return Outlook()
        memory = self._memories.get(entry.ref)
        moved = memory is not None and memory.guard.service != situation.guard.service
        if memory is None or moved:
            memory = self._first_look(entry, situation, self._gather)
        else:
            self._look_again(memory, situation, self._gather)
        self._set_alarm(entry.ref, memory)
        self._ask_review(entry.ref, memory, self._gather)
        return self._outlook(entry.ref, memory)

    def changing(self, service: ObjectRef) -> bool:
        """Whether a change of this Service is under way, in which pods come and go."""
        guards = (self._memories.get(guard.ref) for guard in self._book.of_service(service))
        return any(memory.busy for memory in guards if memory is not None)

    def under_way(self, ref: ObjectRef) -> tuple[Begun, ...]:
        """The changes of a guarded Service that have begun and are not over."""
        memory = self._memories.get(ref)
        return tuple(known.begun for known in memory.open.values()) if memory else ()

    def app_idle(self, ref: ObjectRef) -> float | None:
        """Seconds after which the app closes an idle connection, by its image or command; None if unknown."""
        memory = self._memories.get(ref)
        sights = memory.sight.workloads if memory else ()
        found = (runtime_of(c) for s in sights for c in s.workload.template.containers)
        return min((runtime.idle for runtime in found if runtime is not None), default=None)

    def forget(self, ref: ObjectRef) -> None:
        """The guard is gone, or no longer in force."""
        memory = self._memories.pop(ref, None)
        self._reviews.pop(ref, None)
        self.starts.forget(ref)
        self._scoring.forget(ref)
        if memory is None:
            return
        if memory.alarm is not None:
            memory.alarm.cancel()
        for metric in (
            self._metrics.predictions_open,
            self._metrics.predicted_lost,
            self._metrics.risks,
        ):
            metric.remove_by_labels({"namespace": ref.namespace, "guard": ref.name})

    async def run(self) -> None:
        """Work off what looks have found, until cancelled."""
        while True:
            while self._changes:
                ref, begun = self._changes.popleft()
                self._foresee(ref, begun)
                await asyncio.sleep(0)
            pause = self._review_next()
            if self._changes:
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._kick.wait()
            except TimeoutError:
                pass
            self._kick.clear()

    # Looks.

    def _first_look(self, entry: GuardEntry, situation: Situation, gather: Gatherer) -> _Memory:
        """What an earlier controller knew is in the status, and is believed until it is known better."""
        self.forget(entry.ref)
        service = situation.service
        memory = _Memory(
            guard=situation.guard,
            service=service,
            sight=gather.sight(service, situation.pods, None),
            pods=situation.pods,
            gateways=situation.gateways,
            open=_inherited(parse_predictions(entry.status)),
            risks=parse_risks(entry.status),
            review_after=0.0 if situation.pods else time.monotonic() + NO_PODS_SECONDS,
        )
        self._memories[entry.ref] = memory
        known = [change.begun for change in memory.open.values()]
        self._begin(entry.ref, memory, under_way(memory.sight, known, self._clock()))
        return memory

    def _look_again(self, memory: _Memory, situation: Situation, gather: Gatherer) -> None:
        now, ref = self._clock(), situation.guard.ref
        sight = gather.sight(situation.service, situation.pods, memory.sight)
        memory.guard, memory.service = situation.guard, situation.service
        memory.pods, memory.gateways = situation.pods, situation.gateways
        self.starts.match(ref, situation.pods)
        # What ends with this look still explains the pods that went since the last one.
        ongoing = [known.begun for known in memory.open.values()]
        for key, known in list(memory.open.items()):
            if is_over(known.begun, sight, now):
                del memory.open[key]
                memory.closing[key] = _closing(known, now)
                self._score(ref, known, now)
        self._begin(ref, memory, begin(memory.sight, sight, ongoing, now))
        memory.sight = sight
        self._scoring.ongoing(ref, memory.since)

    def _begin(self, ref: ObjectRef, memory: _Memory, found: Iterable[Begun]) -> None:
        for begun in found:
            self._take_on(ref, memory, begun)
            self._changes.append((ref, begun))
            self._kick.set()

    def _score(self, ref: ObjectRef, known: _Open, now: float) -> None:
        """A change is over. An edit that makes nothing wrong is no change that could open a window."""
        edit = known.begun.change.kind is ChangeKind.EDIT
        said = tuple(_ended(p, now) for p in known.said if p.likely or not edit)
        if said:
            self._scoring.predicted(ref, said)

    def _take_on(self, ref: ObjectRef, memory: _Memory, begun: Begun) -> None:
        """The same kind of change of the same thing again takes the place of the one before."""
        memory.closing.pop(begun.key, None)
        before = memory.open.pop(begun.key, None)
        if before is not None:
            self._score(ref, before, begun.at)
        # What an edit found stays until the next prediction says that it is mended.
        kept = before.windows if before and begun.change.kind is ChangeKind.EDIT else ()
        memory.open[begun.key] = _Open(begun, kept)

    def _set_alarm(self, ref: ObjectRef, memory: _Memory) -> None:
        if memory.alarm is not None:
            memory.alarm.cancel()
            memory.alarm = None
        ends = [deadline(known.begun) for known in memory.open.values()]
        ends += [window.until for windows in memory.closing.values() for window in windows]
        if ends:
            delay = max(0.05, min(ends) - self._clock() + 0.05)
            memory.alarm = asyncio.get_running_loop().call_later(delay, self._touched, ref)

    def _ask_review(self, ref: ObjectRef, memory: _Memory, gather: Gatherer) -> None:
        """Only where something changed that people write, and nothing is under way."""
        if memory.busy:
            return
        asked = (
            memory.gateways,
            self.starts.estimate(ref),
            gather.asked(memory.guard, memory.sight, memory.pods),
        )
        if asked != memory.asked:
            memory.asked = asked
            self._reviews[ref] = None
            self._kick.set()

    def _outlook(self, ref: ObjectRef, memory: _Memory) -> Outlook:
        now = self._clock()
        memory.closing = {
            k: ws for k, ws in memory.closing.items() if any(w.until > now for w in ws)
        }
        found = [*(known.windows for known in memory.open.values()), *memory.closing.values()]
        latest = sorted((windows for windows in found if windows), key=lambda ws: -ws[0].began)
        predictions = tuple(window for windows in latest for window in windows)
        labels = (ref.namespace, ref.name)
        self._metrics.predictions_open.labels(*labels).set(len(predictions))
        self._metrics.predicted_lost.labels(*labels).set(sum(p.lost for p in predictions))
        for severity in (Severity.ERROR, Severity.WARNING):
            count = sum(risk.severity is severity for risk in memory.risks)
            self._metrics.risks.labels(*labels, severity.value).set(count)
        return Outlook(predictions, memory.risks)

    # What the background does.

    def _foresee(self, ref: ObjectRef, begun: Begun) -> None:
        memory = self._memories.get(ref)
        known = memory.open.get(begun.key) if memory else None
        if memory is None or known is None or known.begun is not begun:
            return
        with self._metrics.prediction_duration.labels("change").time():
            said = self._predict(ref, memory, begun)
            windows = likely(begun, (window for p in said for window in p.windows))
        known.said = said
        news = _news(windows, known, memory) if begun.change.kind is ChangeKind.EDIT else windows
        made_at = self._clock()
        before = known.windows
        known.windows = tuple(prediction_status(begun, w, made_at) for w in windows)
        if begun.change.kind is ChangeKind.EDIT and not windows:
            del memory.open[begun.key]
        for window in news:
            labels = (ref.namespace, ref.name, window.change.value, window.cause.value)
            self._metrics.windows_predicted.labels(*labels).inc()
        entry = self._book.get(ref)
        if news and entry is not None:
            workload = memory.sight.workload(begun.subject) or next(
                iter(memory.sight.workloads), None
            )
            self._tell(Foretold(entry, begun, announce(begun, news), workload))
        if windows or before:
            self._touched(ref)

    def _predict(self, ref: ObjectRef, memory: _Memory, begun: Begun) -> tuple[Prediction, ...]:
        """What is expected at each gateway."""
        state = self._state(memory, begun)
        if state is None:
            return ()
        now, facts = self._clock(), self._facts(memory.guard, begun.change)
        found = [(g, predict(state, g, begun.change, facts, now)) for g in _models(memory)]
        made_at, kind = self._clock(), begun.change.kind
        return tuple(
            Prediction(str(ref), gateway.facts.name, kind, made_at, begun.at, windows)
            for gateway, windows in found
        )

    def _state(self, memory: _Memory, begun: Begun | None = None) -> State | None:
        if self._gather is None:
            return None
        return self._gather.state(memory.guard, memory.service, memory.pods, begun)

    def _facts(self, guard: Guard, change: Change | None = None) -> Facts:
        facts = Facts(app=AppFacts(start=self.starts.estimate(guard.ref)))
        if change is None:
            return facts  # standing risks must not change with every request
        rate, said = self._rate(guard.ref), guard.detection.requests_per_second
        if rate is not None:
            facts = replace(facts, rate=max(LEAST_RATE, rate), rate_evidence=Evidence.MEASURED)
        elif said is not None:
            facts = replace(facts, rate=said, rate_evidence=Evidence.SPEC)
        busy = self._churn.of_others(guard.service_ref, self._clock())
        platform = replace(facts.platform, other_changes=busy)
        if change.kind is ChangeKind.NODE_LOSS:
            platform = replace(platform, node_delist=LOST_NODE)
        return replace(facts, platform=platform)

    def _review_next(self) -> float | None:
        """Review one guard whose turn it is; seconds until the next turn, None where nobody waits."""
        now = time.monotonic()
        if not self._reviews:
            return None
        if now < self._rest_until:
            return self._rest_until - now
        turns = {ref: self._turn(ref) for ref in self._reviews}
        ref = min(turns, key=lambda r: turns[r])
        if turns[ref] > now:
            return turns[ref] - now
        del self._reviews[ref]
        self._review(ref)
        spent = time.monotonic() - now
        rest = spent * (1 / REVIEW_SHARE - 1)
        self._rest_until = now + spent + rest
        return rest

    def _turn(self, ref: ObjectRef) -> float:
        memory = self._memories.get(ref)
        return memory.review_after if memory else 0.0

    def _review(self, ref: ObjectRef) -> None:
        memory = self._memories.get(ref)
        if memory is None:
            return
        if memory.busy:
            memory.asked = ()  # so that the next look in peace asks again
            return
        memory.review_after = time.monotonic() + REVIEW_SECONDS
        state = self._state(memory)
        if state is None:
            return
        with self._metrics.prediction_duration.labels("review").time():
            problems = review(state, _models(memory), self._facts(memory.guard), self._clock())
        risks = standing_risks(problems)
        if risks != memory.risks:
            memory.risks = risks
            self._touched(ref)


def _models(memory: _Memory) -> tuple[Gateway, ...]:
    """The gateways in front; where none is known, whoever it is goes through the ClusterIP."""
    return tuple(model_of(facts) for facts in memory.gateways or (CLUSTER_IP,))


def _unknown_rate(ref: ObjectRef) -> float | None:
    del ref
    return None


def _ended(prediction: Prediction, now: float) -> Prediction:
    """A prediction whose change is over: windows that open later are not its own."""
    span = prediction.span
    last = span[1] if span is not None and math.isfinite(span[1]) else now
    return replace(prediction, until=max(now, last) + AFTERMATH)


def _closing(known: _Open, now: float) -> tuple[PredictionStatus, ...]:
    """What is told of a change that is over: its windows may open, or be open, a while longer."""
    until = max((_ended(p, now).until for p in known.said), default=now + AFTERMATH)
    return tuple(outlast(window, until) for window in known.windows)


def _news(windows: tuple[Window, ...], known: _Open, memory: _Memory) -> tuple[Window, ...]:
    """What an edit made wrong that was not wrong before."""
    told = {(w.risk, w.gateway) for w in known.windows}
    standing = {risk.risk for risk in memory.risks}
    return tuple(w for w in windows if w.risk not in standing and (w.risk, w.gateway) not in told)


def _inherited(
    predictions: tuple[PredictionStatus, ...],
) -> dict[tuple[ChangeKind, str], _Open]:
    """Changes that an earlier controller told of, so that they are closed when they are over."""
    found: dict[tuple[ChangeKind, str], _Open] = {}
    for prediction in predictions:
        begun = Begun(Change(prediction.change), prediction.subject, prediction.began)
        known = found.setdefault(begun.key, _Open(begun))
        known.windows += (prediction,)
    return found
