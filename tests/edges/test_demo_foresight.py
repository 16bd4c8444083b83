"""`demo --score`: what the demo's own changes are predicted from."""

from typing import TYPE_CHECKING, Any, cast

import pytest

from upstream_guard.core.predict.score import Prediction
from upstream_guard.lab.demo.foresight import CHANGES, foresight
from upstream_guard.lab.demo.report import Run, as_json
from upstream_guard.lab.demo.runner import Cell
from upstream_guard.lab.demo.scenarios import SCENARIOS
from upstream_guard.lab.demo.tally import Record, tally
from upstream_guard.lab.demo.variants import Variant, pre_stop

if TYPE_CHECKING:
    from upstream_guard.lab.demo.stage import Stage

Json = dict[str, Any]


class FakeStage:
    """Three pods that took a second to serve."""

    namespace, name = "shop", "web"
    cluster = type("Cluster", (), {"nodes": ()})()

    def __init__(self, hook: Json | None = None) -> None:
        self.hook = hook

    def pods(self) -> list[Json]:
        container = {"name": "app", **({"lifecycle": {"preStop": self.hook}} if self.hook else {})}
        return [
            {
                "metadata": {"namespace": "shop", "name": f"web-{i}", "uid": f"uid-{i}"},
                "spec": {"nodeName": f"node-{i % 2}", "containers": [container]},
            }
            for i in range(3)
        ]

    async def sample_state(self, pod: Json) -> Json:
        return {"started": 100.0, "serving": 101.0}

    def node_to_drain(self) -> str:
        return "node-1"


async def foresee(
    scenario: str, variant: Variant, stage: FakeStage | None = None, gateway: str = "nginx"
) -> Prediction | None:
    cell = Cell(gateway, SCENARIOS[scenario], variant, 1)
    return await foresight(200.0)(cell, cast("Stage", stage or FakeStage()))


@pytest.mark.parametrize("gateway", ["nginx", "contour"])
async def test_a_plain_rollout_is_foreseen_to_fail_and_a_tuned_one_is_not(gateway: str) -> None:
    plain = await foresee("rollout", Variant.PLAIN, gateway=gateway)
    tuned = await foresee("rollout", Variant.TUNED, gateway=gateway)
    assert plain is not None
    assert tuned is not None
    assert plain.likely
    assert plain.lost > 10
    assert not tuned.likely
    assert (plain.service, plain.gateway) == ("shop/web", gateway)


async def test_the_guard_is_read_off_the_pods() -> None:
    stage = FakeStage({"sleep": {"seconds": 3}})
    assert pre_stop(stage.pods()) == 3
    assert pre_stop(FakeStage().pods()) == 0
    guarded = await foresee("rollout", Variant.GUARDED, stage)
    assert guarded is not None
    assert not guarded.likely


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
async def test_only_what_goes_bad_by_itself_is_not_foreseen(scenario: str) -> None:
    made = await foresee(scenario, Variant.PLAIN)
    assert (made is None) is (scenario in {"lying-ready", "all-down", "node-loss"})
    assert made is None or made.change is CHANGES[scenario].kind


async def test_a_run_says_what_was_predicted() -> None:
    made = await foresee("rollout", Variant.PLAIN)
    records = [Record(made.began + 1 if made else 0, 0, 0, "502")]
    run = Run(
        "nginx", "rollout", Variant.PLAIN, 1, tally(records), 0, 0, 1, (), (), prediction=made
    )
    (shown,) = as_json([run])["runs"]
    assert shown["announced"] is True
    assert shown["predicted_failed"] > 10
    assert run.trial is not None
    assert run.trial.opened
    (without,) = as_json([Run("nginx", "crash", Variant.PLAIN, 1, tally([]), 0, 0, 1, (), ())])[
        "runs"
    ]
    assert "announced" not in without
