"""A sample of the matrix: clear-cut services, predicted first, then changed for real."""

import asyncio
from dataclasses import replace

import pytest

from upstream_guard.core.predict.score import score
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.kube.client import KubeClient
from upstream_guard.lab.demo.bench import Wish, open_bench
from upstream_guard.lab.demo.matrix.cases import Case, Ending, Hook, Margin, Probe
from upstream_guard.lab.demo.matrix.results import Result
from upstream_guard.lab.demo.matrix.session import Plan, conduct
from upstream_guard.lab.model import Cluster
from upstream_guard.lab.report import QuietReporter

pytestmark = pytest.mark.cluster

RATE = 60.0
SAFE = Case(
    0, 1, "nginx", Margin.SAFE, "", ChangeKind.ROLLOUT, replicas=2, to_replicas=2,
    hook=Hook.SLEEP, hook_seconds=3, start=0.5,
)  # fmt: skip
CASES = (
    SAFE,
    replace(SAFE, number=2, change=ChangeKind.SCALE_IN, to_replicas=1),
    replace(SAFE, number=3, gateway="contour", hook_seconds=1, change=ChangeKind.POD_DELETION),
    replace(
        SAFE, number=4, margin=Margin.UNSAFE, risk="no-readiness-probe", probe=Probe.NONE, start=3.0
    ),
    replace(
        SAFE, number=5, gateway="contour", margin=Margin.UNSAFE, risk="recreate-strategy", surge=-1,
        start=1.0,
    ),
    replace(
        SAFE, number=6, gateway="contour", margin=Margin.UNSAFE, risk="sigterm-drops-requests",
        hook_seconds=1, response=2.5, ending=Ending.EXITS,
    ),
)  # fmt: skip


class Collected:
    """Keeps what a session reports."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.problems: list[str] = []

    def doing(self, case: Case, text: str) -> None:
        pass

    def done(self, result: Result) -> None:
        self.results.append(result)

    def failed(self, case: Case, why: str) -> None:
        self.problems.append(f"{case}: {why}")


def test_clear_cut_services_are_predicted_right(cluster: Cluster) -> None:
    told = Collected()
    wish = Wish(("nginx", "contour"), False, None, None, False, cluster.state_dir / "matrix")
    with open_bench(wish, QuietReporter(), cluster.state_dir) as bench:

        async def session() -> list[Case]:
            client = await KubeClient.connect(str(cluster.kubeconfig), cluster.context)
            plan = Plan(
                CASES, RATE, bench.expose, bench.flush, bench.forget, jobs=2, with_remedies=True
            )
            try:
                return await conduct(bench.cluster, client, plan, told)
            finally:
                await client.close()

        assert asyncio.run(session()) == [], told.problems
    assert len(told.results) == len(CASES)
    for result in told.results:
        trial, bad = result.trial, result.case.margin is Margin.UNSAFE
        assert (trial.announced, trial.opened) == (bad, bad), f"{result.case}: {result.course}"
        assert trial.lead is None or trial.lead > -result.case.response
        if bad:
            announced = {window.risk for window in result.course.prediction.likely}
            assert result.case.risk in announced
            assert result.remedied is not None
            assert result.remedied.course is not None
            assert result.remedied.course.failed == 0, result.remedied
    card = score(result.trial for result in told.results)
    assert card.naive.hits + card.naive.false_alarms == 1, "only the one without a probe"
