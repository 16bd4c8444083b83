"""The matrix without a cluster: what is drawn, what is written down, what is made of it."""

import json
import math
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from upstream_guard.cli import demo
from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.engine import predict
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.predict.score import Observation, Prediction, naive_rule
from upstream_guard.core.predict.state import ChangeKind, Shutdown, StrategyKind
from upstream_guard.core.predict.window import Scope, Window
from upstream_guard.core.tuning import Evidence
from upstream_guard.lab.demo import bench
from upstream_guard.lab.demo.matrix import picture, question, report, results
from upstream_guard.lab.demo.matrix.cases import (
    GATEWAYS,
    JUST_ENOUGH,
    PLAIN,
    Case,
    Ending,
    Hook,
    Margin,
    Probe,
    generate,
)
from upstream_guard.lab.demo.matrix.manifests import manifests
from upstream_guard.lab.demo.matrix.results import Course, Remedied, Result, ResultFile
from upstream_guard.lab.demo.matrix.show import MatrixProgress
from upstream_guard.lab.demo.tally import Record
from upstream_guard.lab.model import LabError

ALL = GATEWAYS
CASES = generate(1, 150, ALL)
NAMED = {"namespace": "shop", "name": "web"}


class TestGenerator:
    @given(st.integers(0, 2**32), st.integers(1, 60).map(lambda n: n * 6))
    def test_half_are_safe_and_a_third_borderline(self, seed: int, number: int) -> None:
        margins = Counter(case.margin for case in generate(seed, number, ALL))
        assert margins[Margin.SAFE] * 2 == number
        assert margins[Margin.BORDERLINE] * 3 == number

    @given(st.integers(0, 2**32))
    def test_many_risks_and_every_gateway_and_change(self, seed: int) -> None:
        cases = generate(seed, 150, ALL)
        assert len({case.risk for case in cases} - {""}) >= 8
        assert {case.gateway for case in cases} == set(ALL)
        assert {case.change for case in cases} >= {
            ChangeKind.ROLLOUT, ChangeKind.SCALE_IN, ChangeKind.POD_DELETION,
            ChangeKind.NODE_DRAIN,
        }  # fmt: skip
        assert {case.replicas for case in cases} == {1, 2, 3, 4}

    def test_crashes_are_drawn_too_if_not_by_every_seed(self) -> None:
        drawn = [
            any(c.change is ChangeKind.CRASH for c in generate(n, 150, ALL)) for n in range(10)
        ]
        assert sum(drawn) >= 7

    @given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40))
    def test_the_same_seed_draws_the_same_cases(self, seed: int, few: int, more: int) -> None:
        assert generate(seed, few + more, ALL)[:few] == generate(seed, few, ALL)

    def test_another_seed_draws_others(self) -> None:
        others = generate(2, 150, ALL)
        assert [replace(c, seed=1) for c in others] != list(CASES)

    @given(st.integers(0, 2**32))
    def test_every_case_is_one_that_a_cluster_takes(self, seed: int) -> None:
        for case in generate(seed, 60, ALL):
            assert case.risk in RISKS or (case.risk == "") is (case.margin is Margin.SAFE)
            assert (case.hook is Hook.NONE) is (case.hook_seconds == 0)
            if case.hook is Hook.SLEEP:
                assert case.hook_seconds == int(case.hook_seconds) <= case.grace
            assert 1 <= case.to_replicas <= case.replicas <= 4
            assert (case.to_replicas < case.replicas) is (case.change is ChangeKind.SCALE_IN)
            assert 0.2 <= case.start <= 4
            assert 0 <= case.response < 8

    @given(st.integers(0, 2**32))
    def test_safe_cases_keep_what_the_gateway_needs(self, seed: int) -> None:
        for case in generate(seed, 60, ALL):
            need = JUST_ENOUGH.get(case.gateway, 1.1)
            if case.margin is not Margin.SAFE:
                continue
            serves = case.hook_seconds + (case.linger if case.ending is Ending.LINGERS else 0)
            if case.ending is Ending.IGNORES:
                serves = case.kill
            assert serves >= need * 1.3 + (case.response if case.ending is Ending.EXITS else 0)
            assert case.probe in {Probe.HTTP, Probe.TCP} or case.change is ChangeKind.SCALE_IN
            assert case.kill >= need + case.response + 1

    def test_every_gateway_takes_its_turn_and_no_other_is_known(self) -> None:
        assert {case.gateway for case in CASES} == set(GATEWAYS)
        with pytest.raises(ValueError, match="the matrix does not know apache"):
            generate(1, 6, ("nginx", "apache"))

    @pytest.mark.parametrize(("number", "gateways"), [(0, ALL), (1, ())])
    def test_nothing_asked_is_refused(self, number: int, gateways: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match="at least one gateway and one case"):
            generate(1, number, gateways)


class TestQuestion:
    @pytest.mark.parametrize("case", CASES[:60], ids=str)
    def test_the_predictor_reads_what_was_built(self, case: Case) -> None:
        written = manifests(case, **NAMED)
        state = question.state_of(written, ObjectRef(**NAMED), (), ("node-1", "node-2"))
        workload = state.workload
        assert workload is not None
        (container,) = workload.template.containers
        assert workload.replicas == case.replicas
        assert workload.template.grace_period == case.grace
        assert (workload.strategy.kind is StrategyKind.RECREATE) is case.recreates
        assert (container.readiness is None) is (case.probe is Probe.NONE)
        if container.readiness is not None:
            assert container.readiness.period == case.period
        assert (container.pre_stop.seconds if container.pre_stop else 0) == case.hook_seconds
        assert len(state.routes) == (case.gateway == "contour")
        assert naive_rule(state) is (Probe.NONE is case.probe or Hook.NONE is case.hook)

    @pytest.mark.parametrize("gateway", ALL)
    def test_each_gateway_of_the_lab_has_a_model(self, gateway: str) -> None:
        model = question.gateway_model(gateway)
        assert model.facts.controller == gateway
        assert model.facts.via_cluster_ip is (gateway != "contour")

    def test_facts_are_what_was_measured(self) -> None:
        case = replace(CASES[0], ending=Ending.LINGERS, linger=1.5, response=0.4, lie=2.0)
        facts = question.facts_of(case, (1.2, 1.0, 1.9), rate=100)
        start = facts.app.start
        assert (start.low, start.value, start.high) == (1.0, 1.2, 1.9)
        assert start.evidence is Evidence.MEASURED
        assert facts.app.shutdown is Shutdown.LINGERS
        assert facts.app.drain.value == pytest.approx(1.9)
        assert (facts.app.readiness_lies.value, facts.rate) == (2.0, 100)

    @pytest.mark.parametrize("gateway", sorted(PLAIN))
    def test_clear_cut_cases_are_told_apart(self, gateway: str) -> None:
        bad = Case(
            1, 1, gateway, Margin.UNSAFE, "no-readiness-probe", ChangeKind.ROLLOUT,
            probe=Probe.NONE, start=3.0,
        )  # fmt: skip
        good = replace(bad, probe=Probe.HTTP, hook=Hook.SLEEP, hook_seconds=3)
        likely = []
        for case in (bad, good):
            written = manifests(case, **NAMED)
            state = question.state_of(written, ObjectRef(**NAMED), (), ())
            facts = question.facts_of(case, (case.start,), rate=100)
            change = question.change_of(case)
            windows = predict(state, question.gateway_model(gateway), change, facts, 0.0)
            likely.append(max((w.probability for w in windows), default=0.0))
        assert likely[0] > 0.9
        assert likely[1] < 0.1


def window(lost: float = 40.0, duration: float = 2.0) -> Window:
    def known(value: float) -> Estimate:
        return Estimate.exactly(value, Evidence.BUILTIN)

    return Window(
        change=ChangeKind.ROLLOUT, cause=Cause.REFUSED, risk="no-pre-stop", start=known(1.0),
        duration=known(duration), share=0.5, lost=known(lost), probability=0.9, status=502,
        status_note="", scope=Scope.ENDPOINT, evidence=Evidence.BUILTIN, basis="", gateway="nginx",
        message="", no_remedy="there is none",
    )  # fmt: skip


def prediction(*windows: Window) -> Prediction:
    return Prediction("shop/web", "nginx", ChangeKind.ROLLOUT, 99.5, 100.0, windows, 130.0)


def result(case: Case, lost: int = 30, *windows: Window) -> Result:
    seen = (Observation("shop/web", "nginx", 101.0, 1.8, lost),) if lost else ()
    course = Course(prediction(*windows), seen, 900, {"200": 870}, 0, 8.0, (1.0, 1.1))
    return Result(case, naive=True, course=course)


class TestResults:
    def test_what_was_in_flight_counts_and_what_failed_before_does_not(self) -> None:
        records = [
            Record(90.0, 91.0, 0, "502"),
            Record(99.0, 100.5, 0, "reset"),
            Record(101.0, 101.1, 0, "502"),
            Record(101.5, 101.6, 0, "200"),
            Record(105.0, 105.1, 0, "503"),
        ]
        seen, before = results.observe(records, prediction())
        assert before == 1
        assert [(w.start, w.duration, w.lost) for w in seen] == [
            (99.0, 0.0, 1), (101.0, 0.0, 1), (105.0, 0.0, 1),
        ]  # fmt: skip

    def test_windows_that_stay_open_are_cut(self) -> None:
        (cut,) = results.bounded([window(math.inf, math.inf)], seconds=10, rate=100)
        assert (cut.duration.value, cut.lost.value) == (10, 500)
        assert results.bounded([window()], 10, 100) == (window(),)

    def test_a_matrix_can_be_taken_up_again(self, tmp_path: Path) -> None:
        path = tmp_path / "matrix.json"
        first = ResultFile(path, CASES)
        done = result(CASES[1], 30, window())
        done = replace(done, remedied=Remedied(("no-pre-stop",), {"crash": "no"}, done.course))
        first.add(done)
        again = ResultFile(path, CASES)
        assert again.results == [done]
        assert again.has(CASES[1])
        assert not again.has(CASES[0])
        again.add(result(CASES[0], 0))
        assert [r.case.number for r in ResultFile(path, CASES).results] == [1, 2]
        assert json.loads(path.read_text())["score"]["engine"] == {
            "hits": 1, "false_alarms": 0, "misses": 0, "rests": 1,
        }  # fmt: skip

    def test_results_from_elsewhere_count_as_done(self, tmp_path: Path) -> None:
        here, there = tmp_path / "here.json", tmp_path / "there.json"
        ResultFile(there, CASES).add(result(CASES[0], 30))
        ResultFile(here, CASES).add(result(CASES[1], 0))
        both = ResultFile(here, CASES, [there])
        assert [r.case.number for r in both.results] == [1, 2]
        both.add(result(CASES[2], 0))
        assert len(results.read(here)) == 3

    def test_a_single_lost_request_can_be_written_down(self, tmp_path: Path) -> None:
        """Its window lasts 0 s, of which no error is a finite share."""
        path = tmp_path / "matrix.json"
        once = result(CASES[0], 1, window())
        lost = replace(once.course.observed[0], duration=0.0)
        once = replace(once, course=replace(once.course, observed=(lost,)))
        ResultFile(path, CASES).add(once)
        assert results.read(path) == [once]
        assert report.markdown([once], rate=100, picture="matrix.png")
        assert not all(reached for reached, _ in report.goals(report.scorecard([once])))

    def test_results_of_another_matrix_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "matrix.json"
        ResultFile(path, CASES).add(result(CASES[0]))
        with pytest.raises(LabError, match="case 1 of seed 1"):
            ResultFile(path, generate(2, 150, ALL))

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "results": 3}']
    )
    def test_a_file_that_is_none_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "matrix.json"
        path.write_text(text)
        with pytest.raises(LabError, match=r"matrix\.json"):
            results.read(path)


class TestReport:
    def test_the_page_has_every_case_and_the_score(self) -> None:
        done = [result(CASES[0], 0), result(CASES[1], 30, window()), result(CASES[2], 5)]
        done[1] = replace(done[1], remedied=Remedied(("no-pre-stop",), {}, done[0].course))
        page = report.markdown(done, rate=100, picture="matrix.png")
        assert "--cases 3 --seed 1" in page
        assert "| precision | 1.00 | 0.67 |" in page
        assert "| recall | 0.50 | 1.00 |" in page
        assert "1 of 1 services lost nothing with the remedies." in page
        for case in CASES[:3]:
            assert report.describe(case) in page

    def test_goals_are_those_of_the_score(self) -> None:
        good = report.goals(report.scorecard([result(CASES[0], 30, window())]))
        assert all(reached for reached, _ in good)
        bad = report.goals(report.scorecard([result(CASES[0], 300), result(CASES[1], 0, window())]))
        assert not any(reached for reached, _ in bad)

    def test_the_picture_can_be_drawn_of_extremes(self, tmp_path: Path) -> None:
        done = [
            result(CASES[0], 0),
            result(CASES[1], 30_000, window()),
            result(CASES[2], 0, window()),
        ]
        picture.draw(done, tmp_path / "matrix.png")
        assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")

    def test_each_result_is_told_and_kept(self, tmp_path: Path) -> None:
        file = ResultFile(tmp_path / "matrix.json", CASES)
        console = Console(record=True, width=200, file=StringIO())
        with MatrixProgress(console, file, 2) as progress:
            progress.doing(CASES[0], "deploying")
            progress.done(result(CASES[0], 30, window()))
            progress.done(result(CASES[1], 30))
            progress.failed(CASES[2], "waited 60 s")
        told = console.export_text().splitlines()
        assert told[0].startswith("✓")
        assert "30 failed in 1.80 s, predicted 40 in 2.00 s (0.90)" in told[0]
        assert told[1].startswith("✗")
        assert "waited 60 s" in told[2]
        assert len(file.results) == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--matrix", "--cases", "0"], ["--cases"]),
        (["--matrix", "--seed", "x"], ["--seed", "'x'"]),
        (["--matrix", "--scenario", "rollout"], ["--scenario", "together with --matrix"]),
        (["--matrix", "--variant", "plain"], ["--variant", "together with --matrix"]),
        (["--matrix", "--score"], ["--score", "together with --matrix"]),
        (["--cases", "3"], ["--cases", "without --matrix"]),
        (["--remedies"], ["--remedies", "without --matrix"]),
        (["--only", "nginx"], ["--only", "without --matrix"]),
        (["--matrix", "--only", "traefik"], ["--only", "traefik"]),
        (["--matrix", "--also", "nowhere.json"], ["--also", "nowhere.json"]),
    ],
)
def test_options_without_effect_are_refused(
    flags: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError("a cluster was touched")

    monkeypatch.setattr(bench, "choose", refuse)
    done = CliRunner().invoke(demo.command, flags)
    assert done.exit_code == 2
    assert not [word for word in words if word not in " ".join(done.output.split())], done.output


def test_a_finished_matrix_is_reported_without_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError("a cluster was touched")

    monkeypatch.setattr(bench, "choose", refuse)
    figures, page = tmp_path / "a" / "matrix.json", tmp_path / "b" / "page.md"
    figures.parent.mkdir()
    file = ResultFile(figures, generate(5, 2, ("nginx",)))
    for case in generate(5, 2, ("nginx",)):
        file.add(result(case, 30, window()))
    done = CliRunner().invoke(
        demo.command,
        ["--matrix", "--cases", "2", "--seed", "5", "--gateway", "nginx", "--json", str(figures),
         "--page", str(page), "--picture", str(tmp_path / "c" / "matrix.png")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "precision" in done.output
    assert page.read_text().startswith("# Predictions against measurements")
