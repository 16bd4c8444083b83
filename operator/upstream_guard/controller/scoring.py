"""Scores the live predictions: puts them together with the windows that were seen, and counts."""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.observed import ObservedWindow
from upstream_guard.core.predict.ledger import (
    Ledger,
    add_predictions,
    add_window,
    due,
    settle,
    verdict,
)
from upstream_guard.core.predict.score import Prediction, Trial
from upstream_guard.metrics import Metrics

NO_CHANGE: Final = "none"
"""The change of a window that opened while none was under way: nothing could announce it."""
SETTLE_SLACK: Final = 0.05
"""Seconds that an alarm comes late, so that what is due has passed by any clock."""


@dataclass(slots=True)
class _Account:
    """One guard's entries.

    Attributes:
        ledger: What is not settled.
        watched: Gateways at which a window would be seen.
        alarm: Settles what is complete by time alone.
    """

    ledger: Ledger = field(default_factory=Ledger)
    watched: frozenset[str] = frozenset()
    alarm: asyncio.TimerHandle | None = None


class Scoring:
    """Keeps each guard's ledger, and feeds the metrics.

    Whoever observes windows calls `watching` and `observed`; who predicts calls `ongoing` and `predicted`.
    Calls come from the event loop, in any order.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        """Wire it.

        Args:
            metrics: Where it counts.
            clock: Gives Unix seconds.
        """
        self._metrics = metrics
        self._clock = clock
        self._accounts: dict[ObjectRef, _Account] = {}

    def watching(self, guard: ObjectRef, gateways: Iterable[str]) -> None:
        """Say at which gateways a window of this guard's Service would be seen now.

        Without it, a prediction that did not come true is counted as `unwatched`, as no false alarm.

        Args:
            guard: The guard.
            gateways: `GatewayFacts.name` of each.
        """
        self._account(guard).watched = frozenset(gateways)

    def observed(self, guard: ObjectRef, window: ObservedWindow) -> None:
        """Take in a window.

        Args:
            guard: Whose Service.
            window: Closed; an open one (`closed` is 0) may be told as well, and keeps the change that
                it belongs to from being settled without it.
        """
        account = self._account(guard)
        account.ledger = add_window(account.ledger, str(guard), window)
        self._settle(guard, account)

    def ongoing(self, guard: ObjectRef, since: float) -> None:
        """Say when the oldest change began that is not over.

        Args:
            guard: The guard.
            since: Unix seconds; infinite where none is under way.
        """
        account = self._accounts.get(guard)
        if account is None and math.isinf(since):
            return
        account = account or self._account(guard)
        if account.ledger.since != since:
            account.ledger = replace(account.ledger, since=since)
            self._settle(guard, account)

    def predicted(self, guard: ObjectRef, predictions: Iterable[Prediction]) -> None:
        """Take in what was predicted of a change that is over.

        Args:
            guard: The guard.
            predictions: One for each gateway, those without windows too; `service` is the guard's name,
                `until` the end of the change.
        """
        account = self._account(guard)
        account.ledger = add_predictions(account.ledger, predictions)
        self._settle(guard, account)

    def forget(self, guard: ObjectRef) -> None:
        """The guard is gone, or no longer in force: what waits is not counted."""
        account = self._accounts.pop(guard, None)
        if account is not None and account.alarm is not None:
            account.alarm.cancel()

    def _account(self, guard: ObjectRef) -> _Account:
        return self._accounts.setdefault(guard, _Account())

    def _settle(self, guard: ObjectRef, account: _Account) -> None:
        now = self._clock()
        account.ledger, trials = settle(account.ledger, now)
        for trial in trials:
            self._count(guard, trial, account.watched)
        if account.alarm is not None:
            account.alarm.cancel()
            account.alarm = None
        at = due(account.ledger, now)
        if at < math.inf:
            loop = asyncio.get_running_loop()
            account.alarm = loop.call_later(at - now + SETTLE_SLACK, self._settle, guard, account)

    def _count(self, guard: ObjectRef, trial: Trial, watched: frozenset[str]) -> None:
        said, metrics = trial.prediction, self._metrics
        change = said.change.value if said else NO_CHANGE
        outcome = verdict(trial, watched=said is not None and said.gateway in watched)
        labels = (guard.namespace, guard.name, change, outcome.value)
        metrics.predictions_scored.labels(*labels).inc()
        if said is None or not trial.opened:
            return
        if trial.lead is not None:
            metrics.prediction_lead.labels(change).observe(trial.lead)
        metrics.prediction_duration_error.labels(change).observe(abs(trial.duration_error))
        metrics.prediction_lost_ratio.labels(change).observe(trial.lost_predicted / trial.lost)
