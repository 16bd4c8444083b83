"""The score: what counts as said, as opened, and as right."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ContainerPort, ObjectRef, Service
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.score import (
    Confusion,
    Observation,
    Prediction,
    Trial,
    match,
    naive_rule,
    poisson_interval,
    score,
)
from upstream_guard.core.predict.state import (
    ChangeKind,
    Container,
    HookKind,
    KubeProbe,
    PodTemplate,
    PreStop,
    ServiceState,
    State,
    Workload,
)
from upstream_guard.core.predict.window import Scope, Window
from upstream_guard.core.tuning import Evidence


def window(
    start: float = 1.0, duration: float = 2.0, lost: float = 40.0, probability: float = 1.0
) -> Window:
    def known(value: float) -> Estimate:
        return Estimate.exactly(value, Evidence.BUILTIN)

    return Window(
        change=ChangeKind.ROLLOUT, cause=Cause.REFUSED, risk="no-pre-stop", start=known(start),
        duration=known(duration), share=0.3, lost=known(lost), probability=probability, status=502,
        status_note="", scope=Scope.ENDPOINT, evidence=Evidence.BUILTIN, basis="", gateway="nginx",
        message="",
    )  # fmt: skip


def prediction(*windows: Window, began: float = 100.0, until: float = math.inf) -> Prediction:
    return Prediction("shop/web", "nginx", ChangeKind.ROLLOUT, began - 1, began, windows, until)


def seen(
    start: float, duration: float = 2.0, lost: int = 40, gateway: str = "nginx"
) -> Observation:
    return Observation("shop/web", gateway, start, duration, lost)


def trial(predicted: float, observed: int) -> Trial:
    """Lost requests predicted, and lost."""
    said = prediction(window(lost=predicted)) if predicted else prediction()
    return Trial(said, (seen(101, lost=observed),) if observed else ())


class TestPoissonInterval:
    @pytest.mark.parametrize(
        ("count", "low", "high"),
        [(0, 0.0, 3.688879), (1, 0.025318, 5.571643), (5, 1.623486, 11.668332),
         (9, 4.115373, 17.084803), (30, 20.240874, 42.826873)],
    )  # fmt: skip
    def test_known_values(self, count: int, low: float, high: float) -> None:
        """Garwood's table, as R's `poisson.test` gives it."""
        assert poisson_interval(count) == pytest.approx((low, high), abs=1e-5)

    @given(st.integers(0, 500), st.floats(0.5, 0.999))
    def test_holds_the_count_and_grows_with_confidence(self, count: int, confidence: float) -> None:
        low, high = poisson_interval(count, confidence)
        assert low <= count <= high
        wider = poisson_interval(count, (1 + confidence) / 2)
        assert wider[0] <= low
        assert high <= wider[1]

    def test_refuses_a_negative_count(self) -> None:
        with pytest.raises(ValueError, match="-1"):
            poisson_interval(-1)


class TestMatch:
    def test_the_latest_change_that_had_begun_takes_it(self) -> None:
        first, second = prediction(began=100), prediction(began=200)
        trials = match([first, second], [seen(250), seen(150), seen(199.7)])
        assert [[w.start for w in t.observed] for t in trials] == [[150], [199.7, 250]]

    def test_nobody_elses_and_none_after_the_end(self) -> None:
        known = prediction(window(), began=100, until=110)
        other, late, early = seen(101, gateway="caddy"), seen(111), seen(99)
        trials = match([known], [other, late, early])
        assert trials[0].observed == ()
        assert [(t.prediction, t.observed) for t in trials[1:]] == [
            (None, (early,)), (None, (other,)), (None, (late,)),
        ]  # fmt: skip
        assert score(trials).engine == Confusion(false_alarms=1, misses=3)

    @given(st.lists(st.floats(0, 100), max_size=5), st.lists(st.floats(-10, 110), max_size=8))
    def test_every_window_counts_once(self, begins: list[float], starts: list[float]) -> None:
        trials = match([prediction(began=b) for b in begins], [seen(s) for s in starts])
        assert sorted(w.start for t in trials for w in t.observed) == sorted(starts)
        assert len(trials) == len(begins) + sum(t.prediction is None for t in trials)


class TestTrial:
    def test_an_unlikely_window_announces_nothing(self) -> None:
        said = Trial(prediction(window(probability=0.4), window(probability=0.49)), (seen(101),))
        assert not said.announced
        assert (said.lost_predicted, said.duration_predicted, said.lead) == (0, 0, None)

    def test_windows_add_up_and_calm_between_them_counts(self) -> None:
        said = Trial(
            prediction(window(1, 2, 10), window(5, 1, 7), window(0, 50, 99, probability=0.1)),
            (seen(101.5, 1, 8), seen(105, 2, 5)),
        )
        assert said.lost_predicted == 17
        assert said.lost == 13
        assert said.duration_predicted == pytest.approx(5)
        assert said.duration == pytest.approx(5.5)
        assert said.duration_error == pytest.approx(-0.5)
        assert said.duration_right
        assert said.lead == pytest.approx(2.5)

    def test_what_stays_open_is_cut_where_watching_ended(self) -> None:
        said = Trial(prediction(window(2, math.inf), until=110), (seen(102, 8),))
        assert said.duration_predicted == pytest.approx(8)

    @pytest.mark.parametrize(
        ("predicted", "observed", "right"),
        [(20, 40, True), (19.9, 40, False), (80, 40, True), (81, 40, False), (3.6, 0, True),
         (3.7, 0, False), (5.5, 1, True), (0, 1, False), (0, 0, True), (17, 9, True)],
    )  # fmt: skip
    def test_lost_requests(self, predicted: float, observed: int, right: bool) -> None:
        assert trial(predicted, observed).lost_right is right

    @pytest.mark.parametrize(
        ("predicted", "observed", "right"),
        [(1.3, 1.0, True), (10, 13, True), (10, 15, False), (0.3, 0.0, True), (0.4, 0.0, False)],
    )
    def test_durations(self, predicted: float, observed: float, right: bool) -> None:
        said = Trial(prediction(window(duration=predicted)), (seen(101, observed),))
        assert said.duration_right is right


class TestScore:
    def test_nothing_gives_no_figures(self) -> None:
        card = score(())
        assert (card.trials, card.engine, card.naive) == (0, Confusion(), Confusion())
        assert card.engine.precision is card.engine.recall is card.lead is card.lost_right is None

    def test_counts_medians_and_shares(self) -> None:
        card = score([trial(40, 40), trial(10, 0), trial(0, 30), trial(0, 0), trial(50, 40)])
        assert card.engine == Confusion(hits=2, false_alarms=1, misses=1, rests=1)
        assert (card.engine.precision, card.engine.recall) == (2 / 3, 2 / 3)
        assert card.lost_right == pytest.approx(2 / 4)
        assert card.duration_error == 0
        assert card.duration_right == pytest.approx(2 / 3)
        assert card.lead == pytest.approx(2)

    def test_a_miss_counts_as_a_wrong_duration(self) -> None:
        card = score([Trial(prediction(), (seen(101, duration=4),))])
        assert (card.duration_error, card.duration_share, card.duration_right) == (4, 1, 0)

    def test_of_a_window_with_one_lost_request_there_is_no_share(self) -> None:
        card = score([Trial(prediction(window()), (seen(101, duration=0, lost=1),))])
        assert (card.duration_error, card.duration_share, card.duration_right) == (2, None, 0)

    def test_the_naive_rule_is_scored_where_it_was_asked(self) -> None:
        said = prediction(window())
        trials = [
            Trial(said, (seen(101),), naive=True),
            Trial(said, (seen(101),), naive=False),
            Trial(said, (), naive=True),
            Trial(said, (), naive=False),
            Trial(said, ()),
        ]
        assert score(trials).naive == Confusion(1, 1, 1, 1)

    @given(
        st.lists(
            st.tuples(st.floats(0, 100), st.integers(0, 50), st.one_of(st.none(), st.booleans()))
        )
    )
    def test_every_trial_counts_once(self, raw: list[tuple[float, int, bool | None]]) -> None:
        trials = [
            Trial(trial(lost, seen_lost).prediction, trial(lost, seen_lost).observed, naive)
            for lost, seen_lost, naive in raw
        ]
        card = score(trials)
        parts = (card.engine, card.naive)
        sums = [c.hits + c.false_alarms + c.misses + c.rests for c in parts]
        assert sums == [len(raw), sum(naive is not None for _, _, naive in raw)]


@pytest.mark.parametrize(
    ("probe", "hook", "said"),
    [(True, True, False), (False, True, True), (True, False, True), (False, False, True)],
)
def test_the_naive_rule(probe: bool, hook: bool, said: bool) -> None:
    container = Container(
        "app",
        ports=(ContainerPort("http", 8080),),
        readiness=KubeProbe(HookKind.HTTP, port=8080) if probe else None,
        pre_stop=PreStop(HookKind.SLEEP, 5) if hook else None,
    )
    sidecar = Container("proxy", sidecar=True)
    ref = ObjectRef("shop", "web")
    service = Service(ref, "", {"app": "web"}, "ClusterIP", "", ())
    workload = Workload("Deployment", ref, PodTemplate({"app": "web"}, (container, sidecar)))
    assert naive_rule(State(ServiceState(service), (workload,))) is said
