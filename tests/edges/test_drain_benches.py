"""The reckoning of the measurements of drains: what is kept, searched and compared. No cluster is touched."""

import json
import sys
from pathlib import Path

import pytest

from upstream_guard.lab.demo.runner import Cell
from upstream_guard.lab.demo.variants import APPS
from upstream_guard.lab.gateways import Exposure
from upstream_guard.lab.model import LabError

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import apps_bench
import canary_bench
import hook_bench
import slow_bench
import steady
from rollouts import Rows


def test_rows_are_on_disk_after_each_one_and_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = Rows(path, {"rate": 300})
    rows.add("nginx/guarded/1", {"failed": 0})
    rows.add("nginx/hook/5/1", {"failed": 2})
    again = Rows(path, {"rate": 300})
    assert "nginx/guarded/1" in again
    assert again["nginx/hook/5/1"] == {"failed": 2}
    assert again.below("nginx/hook/5/") == [{"failed": 2}]
    assert "nginx/guarded/2" not in again


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {"rate": 200}, "rows": {}}'])
def test_rows_of_another_measurement_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(LabError, match=r"rows\.json"):
        Rows(path, {"rate": 300})


@pytest.mark.parametrize("least", range(6))
async def test_the_shortest_hook_is_found_by_halving(least: int) -> None:
    tried: list[int] = []

    async def passes(hook: int) -> bool:
        tried.append(hook)
        return hook >= least

    assert await hook_bench.shortest(passes, 5) == least
    assert len(tried) <= 4


async def test_where_not_even_the_longest_passes_there_is_none() -> None:
    async def passes(_hook: int) -> bool:
        return False

    assert await hook_bench.shortest(passes, 5) is None


def run(failed: int = 0, pre_stop: float = 2.0) -> dict[str, object]:
    return {
        "failed": failed,
        "kept_failed": 0,
        "requests": 3000,
        "pre_stop_seconds": pre_stop,
        "change_seconds": 9.0,
        "statuses": {"200": 3000 - failed, "502": failed},
    }


@pytest.mark.parametrize(
    ("failed", "shortest", "restarts", "good"),
    [
        (0, 1, 20, True),
        (1, 1, 20, False),
        (0, 0, 20, False),
        (0, None, 20, False),
        (0, 2, 19, False),
    ],
)
def test_when_guarded_restarts_reach_their_goal(
    failed: int, shortest: int | None, restarts: int, good: bool
) -> None:
    rows = Rows(None, {})
    for repeat in range(restarts):
        rows.add(hook_bench.guarded_key("nginx", repeat + 1), run(failed if repeat == 7 else 0))
    rows.add(hook_bench.hook_key("nginx", 5, 1), run(pre_stop=5))
    rows.add("nginx/shortest", {"seconds": shortest})
    plan = hook_bench.Plan(300, 0.5, 20, (5,), 1)
    assert hook_bench.report(["nginx"], rows, plan) is good


def test_every_app_is_run_with_and_without_a_guard() -> None:
    cells = dict(apps_bench.cells("nginx", list(APPS), 2))
    assert len(cells) == len(APPS) * 2 * 2
    assert isinstance(cells["nginx/node/guarded/2"], Cell)
    assert cells["nginx/node/guarded/2"].app.name == "node"


def test_what_the_operator_says_of_an_app_is_told_once() -> None:
    row = run() | {
        "drain": {"app": {"onSigterm": "AtOnce"}},
        "risks": ["keepalive-race"],
        "events": ["AppEndsAtOnce: the last 3 pods …", "Admitted: a"],
    }
    said = apps_bench.advice([row, row])
    assert said == "AtOnce, keepalive-race, AppEndsAtOnce, Admitted"
    assert apps_bench.advice([run()]) == ""


@pytest.mark.parametrize(
    ("seen", "after"),
    [
        ([(0.0, 2), (41.0, 5), (60.0, 6)], 41.0),
        ([(0.0, 2)], None),
        ([(0.0, 2), (30.0, 1)], None),
        ([(0.0, 6)], 0.0),
    ],
)
def test_when_a_pre_stop_has_followed(seen: list[tuple[float, int]], after: float | None) -> None:
    assert slow_bench.followed({"seconds": 4.0, "pre_stop": seen}) == after


class TestRealPods:
    def deletion(self, pod: str, at: str, namespace: str = "shop") -> str:
        event = {
            "verb": "delete",
            "stage": "ResponseComplete",
            "requestReceivedTimestamp": at,
            "objectRef": {"resource": "pods", "namespace": namespace, "name": pod},
        }
        return json.dumps(event, separators=(",", ":")) + "\n"

    def pods(self, log: Path) -> canary_bench.Pods:
        load = canary_bench.Load(Exposure("127.0.0.1", 80, "shop.test"), 100)
        load.began = 990.0
        return canary_bench.Pods(load, canary_bench.Deletions(log, "shop"))

    def test_each_is_told_once_when_it_is_surely_asked_no_more(self, tmp_path: Path) -> None:
        log = tmp_path / "audit.log"
        log.write_text(self.deletion("earlier", "1970-01-01T00:15:00.000000Z"))
        pods = self.pods(log)
        with log.open("a") as stream:
            stream.write(self.deletion("a", "1970-01-01T00:16:40.500000Z"))
            stream.write(self.deletion("b", "1970-01-01T00:16:40.500000Z", "elsewhere"))
            stream.write(self.deletion("a", "1970-01-01T00:16:48.900000Z"))
            stream.write('{"verb":"delete", half a line')
        pods.load.first["a"], pods.load.last["a"] = 995.2, 1001.6
        pods.listed["a"] = 995.0
        assert list(pods.ended(1005.0)) == []
        told = list(pods.ended(1011.0))
        assert told == [("a", {"detach": 1.1, "attach": 0.2})]
        assert list(pods.ended(1020.0)) == []

    def test_of_a_pod_that_was_listed_before_the_load_the_attach_is_not_known(
        self, tmp_path: Path
    ) -> None:
        log = tmp_path / "audit.log"
        log.touch()
        pods = self.pods(log)
        log.write_text(self.deletion("a", "1970-01-01T00:16:40.000000Z"))
        pods.load.first["a"], pods.load.last["a"] = 991.0, 999.0
        pods.listed["a"] = 900.0
        assert list(pods.ended(1011.0)) == [("a", {"detach": 0.0, "attach": None})]

    def test_who_is_listed_is_noted_at_the_first_sight(self, tmp_path: Path) -> None:
        (tmp_path / "audit.log").touch()
        pods = self.pods(tmp_path / "audit.log")

        def slices(*, ready: bool) -> dict[str, dict[str, object]]:
            endpoint = {"conditions": {"ready": ready}, "targetRef": {"name": "a"}}
            return {"uid": {"endpoints": [endpoint]}}

        pods.look(1.0, slices(ready=False))
        pods.look(2.0, slices(ready=True))
        pods.look(3.0, slices(ready=True))
        assert pods.listed == {"a": 2.0}

    def test_the_coverage_counts_each_phase_by_its_own_pre_stop(self) -> None:
        rows = Rows(None, {})
        for phase, pre_stop, detaches in (
            ("quiet", 1, (0.1, 1.2)),
            ("noisy", 2, (1.9, 2.0, 2.1)),
            ("kept", 1, (8.0,)),
        ):
            rows.add(f"nginx/{phase}/canary", {"preStop": pre_stop})
            for number, detach in enumerate(detaches):
                rows.add(f"nginx/{phase}/pod/{number}", {"detach": detach, "attach": None})
        assert canary_bench.covered("nginx", rows) == (3, 5)

    def test_what_is_missing_is_done_again(self) -> None:
        rows = Rows(None, {})
        plan = canary_bench.Plan(150, 20, {"quiet": 1, "noisy": 1, "kept": 1})
        rows.add("nginx/quiet/pod/a", {"detach": 1.0, "attach": 0.5})
        rows.add("nginx/kept/pod/a", {"detach": 8.0, "attach": 0.5})
        assert [phase.name for phase in canary_bench.missing("nginx", rows, plan)] == [
            "quiet",
            "noisy",
        ]
        rows.add("nginx/quiet/canary", {"preStop": 2})
        assert [phase.name for phase in canary_bench.missing("nginx", rows, plan)] == ["noisy"]


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, False),
        ({"writes_but_lease": 1}, True),
        ({"canary_writes": 9}, False),
        ({"without_guards": {"left": ["service/x"]}}, True),
        ({"without_guards": {"canary": {"requests": 1.0}}}, True),
        ({"without_guards": {}}, False),
    ],
)
def test_which_writes_a_steady_cluster_may_have(changes: dict[str, object], broken: bool) -> None:
    calm = {"writes_but_lease": 0, "canary_writes": 0, "canary": {"requests": 0.0}, "left": []}
    result = calm | changes
    if "without_guards" in changes:
        result["without_guards"] = calm | changes["without_guards"]  # type: ignore[operator]
    assert steady.broken(result) is broken
