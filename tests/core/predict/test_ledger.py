"""The ledger: a change and its windows are put together once, and not before all can be known."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.causes import Cause
from upstream_guard.core.observed import Counted, Extent, ObservedWindow
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.ledger import (
    LATE,
    MAX_ENTRIES,
    Ledger,
    Verdict,
    add_predictions,
    add_window,
    due,
    settle,
    verdict,
)
from upstream_guard.core.predict.score import Prediction, Trial
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.predict.window import Scope, Window
from upstream_guard.core.tuning import Evidence

SHOP = "prod/shop"


def expected(probability: float = 1.0) -> Window:
    def known(value: float) -> Estimate:
        return Estimate.exactly(value, Evidence.BUILTIN)

    return Window(
        change=ChangeKind.ROLLOUT, cause=Cause.REFUSED, risk="no-pre-stop", start=known(1.0),
        duration=known(2.0), share=0.3, lost=known(40), probability=probability, status=502,
        status_note="", scope=Scope.ENDPOINT, evidence=Evidence.BUILTIN, basis="", gateway="nginx",
        message="",
    )  # fmt: skip


def said(began: float = 100.0, until: float = 110.0, gateway: str = "nginx", *windows: Window):
    kind = ChangeKind.ROLLOUT
    return Prediction(SHOP, gateway, kind, began + 0.02, began, windows or (expected(),), until)


def opened(at: float = 101.0, closed: float = 103.0, gateway: str = "nginx", lost: int = 30):
    return ObservedWindow(
        id=f"w-{at:g}", gateway=gateway, routes=(), cause=Cause.REFUSED, confidence=90, others=(),
        extent=Extent.SERVICE, endpoints=(), opened=at, detected=at + 1, closed=closed, lost=lost,
        counted=Counted.ESTIMATED,
    )  # fmt: skip


def entered(*entries: Prediction | ObservedWindow, since: float = math.inf) -> Ledger:
    ledger = Ledger(since=since)
    for entry in entries:
        if isinstance(entry, Prediction):
            ledger = add_predictions(ledger, [entry])
        else:
            ledger = add_window(ledger, SHOP, entry)
    return ledger


@pytest.mark.parametrize("backwards", [False, True])
def test_a_window_meets_its_change_whichever_is_told_first(backwards: bool) -> None:
    entries = [said(), opened()]
    ledger, trials = settle(entered(*(reversed(entries) if backwards else entries)), 110 + LATE)
    (trial,) = trials
    assert verdict(trial, watched=False) is Verdict.HIT
    assert trial.lead == pytest.approx(0.98)
    assert (trial.lost, trial.duration) == (30, 2.0)
    assert ledger == Ledger()


def test_nothing_is_settled_before_late_windows_may_have_been_told() -> None:
    ledger = entered(said())
    assert settle(ledger, 110 + LATE - 0.1) == (ledger, ())
    assert due(ledger, 111) == 110 + LATE
    _, trials = settle(ledger, 110 + LATE)
    assert [verdict(t, watched=True) for t in trials] == [Verdict.FALSE_ALARM]
    assert [verdict(t, watched=False) for t in trials] == [Verdict.UNWATCHED]


def test_an_open_window_holds_back_the_change_it_belongs_to() -> None:
    ledger = entered(said(), opened(closed=0))
    held, trials = settle(ledger, 1000)
    assert (held, trials) == (ledger, ())
    ended = add_window(held, SHOP, opened(closed=900))
    assert ended.unclosed == ()
    _, (trial,) = settle(ended, 1000)
    assert trial.duration == 799


def test_a_window_waits_for_the_change_under_way_and_another_one_does_not() -> None:
    ledger = entered(opened(), opened(20, 21), since=100.2)
    kept, (trial,) = settle(ledger, 500)
    assert verdict(trial, watched=True) is Verdict.MISS
    assert trial.observed[0].start == 20
    assert [w.start for w in kept.windows] == [101]
    _, trials = settle(add_predictions(replace(kept, since=math.inf), [said(until=490)]), 600)
    assert [verdict(t, watched=True) for t in trials] == [Verdict.HIT]


def test_a_change_with_no_window_expected_and_none_seen_is_a_rest_and_else_a_miss() -> None:
    silent = said(100.0, 110.0, "nginx", expected(0.2))
    _, (rest,) = settle(entered(silent), 200)
    assert verdict(rest, watched=True) is Verdict.REST
    _, (miss,) = settle(entered(silent, opened()), 200)
    assert verdict(miss, watched=True) is Verdict.MISS
    assert miss.prediction is not None


def test_a_window_seen_at_no_gateway_in_particular_counts_where_one_was_expected() -> None:
    quiet = said(100.0, 110.0, "contour", expected(0.1))
    _, trials = settle(entered(quiet, said(), opened(gateway="")), 200)
    found = {t.prediction.gateway: verdict(t, watched=True) for t in trials if t.prediction}
    assert found == {"contour": Verdict.REST, "nginx": Verdict.HIT}


def test_gateways_are_scored_apart() -> None:
    _, trials = settle(entered(said(), said(gateway="contour"), opened()), 200)
    found = {t.prediction.gateway: verdict(t, watched=True) for t in trials if t.prediction}
    assert found == {"nginx": Verdict.HIT, "contour": Verdict.FALSE_ALARM}


def test_it_is_bounded() -> None:
    ledger = entered(*(opened(float(i), i + 0.5) for i in range(200)))
    ledger = add_predictions(ledger, [said(float(i)) for i in range(200)])
    for i in range(200):
        ledger = add_window(ledger, SHOP, opened(1000.0 + i, 0))
    sizes = {len(ledger.windows), len(ledger.predictions), len(ledger.unclosed)}
    assert sizes == {MAX_ENTRIES}


moments = st.floats(0, 500).map(lambda x: round(x, 2))


@given(
    begins=st.lists(moments, max_size=6, unique=True),
    windows=st.lists(moments, max_size=6, unique=True),
    looks=st.lists(st.floats(0, 1000), max_size=8).map(sorted),
)
def test_every_change_and_every_window_is_counted_exactly_once(begins, windows, looks) -> None:
    ledger = entered(*(said(b, b + 10) for b in begins), *(opened(w, w + 1) for w in windows))
    trials: list[Trial] = []
    for now in [*looks, 2000.0]:
        ledger, found = settle(ledger, now)
        trials += found
    assert ledger == Ledger()
    assert sorted(t.prediction.began for t in trials if t.prediction) == sorted(begins)
    assert sorted(w.start for t in trials for w in t.observed) == sorted(windows)
    assert due(ledger, 0) == math.inf
