"""The demo's pure parts around a run: its order, its list of endpoints, its result."""

from pathlib import Path

import pytest

from upstream_guard.lab.demo import runner, stage
from upstream_guard.lab.demo.runner import Cell
from upstream_guard.lab.demo.scenarios import FIRST_LOOK, SCENARIOS
from upstream_guard.lab.demo.tally import Record
from upstream_guard.lab.demo.variants import Variant

ROLLOUT = SCENARIOS["rollout"]


def test_variants_run_next_to_each_other() -> None:
    cells = runner.cells(["nginx", "contour"], [ROLLOUT], list(Variant), repeats=2)
    assert len(cells) == 12
    assert [str(cell) for cell in cells[:4]] == [
        "nginx · rollout · plain · 1",
        "nginx · rollout · tuned · 1",
        "nginx · rollout · guarded · 1",
        "nginx · rollout · plain · 2",
    ]


def test_the_scenarios_of_the_contract_exist() -> None:
    assert list(SCENARIOS) == [
        "rollout", "scale-in", "crash", "lying-ready", "slow-start", "drain", "node-loss",
        "all-down",
    ]  # fmt: skip
    assert set(FIRST_LOOK) <= SCENARIOS.keys()


CELL = Cell("nginx", ROLLOUT, Variant.PLAIN, 1)


def test_a_run_counts_from_the_load_and_finds_the_shortest_list() -> None:
    records = [Record(100 + i, 100.1 + i, 0, "502" if i == 3 else "200") for i in range(10)]
    listed = [(90.0, 0), (95.0, 3), (104.0, 2), (106.0, 4), (200.0, 0)]
    run = runner.make_run(CELL, list(reversed(records)), listed, 102.0, 106.5)
    assert (run.load_started, run.change_seconds, run.min_listed) == (100, 4.5, 2)
    assert run.failures == (103,)


def test_a_list_that_did_not_change_is_what_it_was_before() -> None:
    run = runner.make_run(CELL, [Record(100, 100, 0, "200")], [(95.0, 3)], 100, 101)
    assert run.min_listed == 3


@pytest.mark.parametrize(
    ("conditions", "listed"),
    [({"ready": True}, 1), ({"ready": False}, 0), ({"ready": None}, 1), (None, 1)],
)
def test_no_value_counts_as_ready(conditions: object, listed: int) -> None:
    slices = {"uid": {"endpoints": [{"addresses": ["198.18.0.9"], "conditions": conditions}]}}
    assert stage.count_listed(slices) == listed


def test_an_address_in_two_slices_is_one_endpoint() -> None:
    endpoint = {"addresses": ["198.18.0.9"], "conditions": {"ready": True}}
    slices = {"a": {"endpoints": [endpoint]}, "b": {"endpoints": [endpoint]}, "c": {}}
    assert stage.count_listed(slices) == 1


def test_only_a_running_container_has_an_id() -> None:
    running = {"containerID": "containerd://abc", "state": {"running": {}}}
    waiting = {"containerID": "containerd://abc", "state": {"waiting": {}}}
    assert stage.container_id({"status": {"containerStatuses": [running]}}) == "abc"
    assert stage.container_id({"status": {"containerStatuses": [waiting]}}) == ""
    assert stage.container_id({"status": {}}) == ""


def test_a_containers_processes_are_found_by_their_cgroup(tmp_path: Path) -> None:
    for pid, cgroup in {"7": "0::/kubepods/pod1/abc", "8": "0::/kubepods/pod1/xyz"}.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cgroup").write_text(cgroup)
    (tmp_path / "9").mkdir()  # ended before its cgroup was read
    (tmp_path / "sys").mkdir()
    assert stage.container_pids("abc", tmp_path) == [7]
    assert stage.container_pids("", tmp_path) == []
