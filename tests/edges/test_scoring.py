"""The score of live predictions, as Prometheus sees it."""

import asyncio
import math

import pytest
from tests.core.predict.test_ledger import expected, opened, said

from upstream_guard.controller import scoring as module
from upstream_guard.controller.scoring import Scoring
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.ledger import LATE
from upstream_guard.metrics import Metrics

SHOP = ObjectRef("prod", "shop")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def scoring(metrics, clock):
    made = Scoring(metrics, clock)
    yield made
    made.forget(SHOP)


def scored(metrics: Metrics) -> dict[tuple[str, str], float]:
    return {
        (s.labels["change"], s.labels["outcome"]): s.value
        for m in metrics.predictions_scored.collect()
        for s in m.samples
        if s.name.endswith("_total")
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"upstream_guard_prediction_{name}", labels)


async def test_a_hit_gives_lead_and_errors(scoring, metrics, clock):
    scoring.predicted(SHOP, [said()])
    scoring.observed(SHOP, opened(101, 103.5, lost=20))
    assert scored(metrics) == {}
    clock.now = 110 + LATE
    scoring.ongoing(SHOP, 105.0)
    scoring.ongoing(SHOP, math.inf)
    assert scored(metrics) == {("rollout", "hit"): 1}
    assert value(metrics, "lead_seconds_bucket", change="rollout", le="0.5") == 0
    assert value(metrics, "lead_seconds_bucket", change="rollout", le="1.0") == 1
    assert value(metrics, "duration_error_seconds_sum", change="rollout") == pytest.approx(0.5)
    assert value(metrics, "lost_ratio_sum", change="rollout") == pytest.approx(2.0)


async def test_what_nobody_could_see_is_no_false_alarm(scoring, metrics, clock):
    clock.now = 500
    scoring.predicted(SHOP, [said(), said(gateway="contour")])
    assert scored(metrics) == {("rollout", "unwatched"): 2}
    scoring.watching(SHOP, ["contour"])
    scoring.predicted(SHOP, [said(), said(gateway="contour")])
    assert scored(metrics) == {("rollout", "unwatched"): 3, ("rollout", "false-alarm"): 1}
    scoring.predicted(SHOP, [said(100, 110, "contour", expected(0.1))])
    assert scored(metrics)["rollout", "rest"] == 1


async def test_a_window_without_a_change_is_a_miss_of_its_own(scoring, metrics, clock):
    clock.now = 500
    scoring.observed(SHOP, opened())
    assert scored(metrics) == {("none", "miss"): 1}
    assert value(metrics, "lost_ratio_count", change="none") is None


async def test_time_alone_settles(scoring, metrics, clock, until, monkeypatch):
    monkeypatch.setattr(module, "SETTLE_SLACK", 0.0)
    clock.now = 110 + LATE - 0.05
    scoring.watching(SHOP, ["nginx"])
    scoring.predicted(SHOP, [said()])
    assert scored(metrics) == {}
    clock.now = 110 + LATE
    await until(lambda: scored(metrics) == {("rollout", "false-alarm"): 1})


async def test_a_forgotten_guard_is_not_counted(scoring, metrics, clock):
    before = len(asyncio.all_tasks())
    scoring.predicted(SHOP, [said()])
    scoring.forget(SHOP)
    clock.now = 500
    scoring.ongoing(SHOP, math.inf)
    assert scored(metrics) == {}
    assert len(asyncio.all_tasks()) == before
