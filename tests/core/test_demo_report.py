"""The demo's table, verdict, JSON and picture, from runs made up here."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from upstream_guard.lab import images
from upstream_guard.lab.demo import plot, report, tally, variants
from upstream_guard.lab.demo.report import Run
from upstream_guard.lab.demo.tally import Record
from upstream_guard.lab.demo.telling import Told
from upstream_guard.lab.demo.variants import Variant

START = 1_700_000_000.0


def run(
    variant: Variant = Variant.PLAIN,
    *,
    failed: tuple[float, ...] = (),
    gateway: str = "nginx",
    scenario: str = "rollout",
    repeat: int = 1,
    min_listed: int = 3,
) -> Run:
    """A run of 10 s at 10 requests a second; the change goes from 2 s to 6 s."""
    records = [
        Record(START + i / 10, START + i / 10 + 0.01, 0.001, "502" if i / 10 in failed else "200")
        for i in range(100)
    ]
    return Run(
        gateway, scenario, variant, repeat, tally.tally(records), START, START + 2, START + 6,
        tuple(r.sent for r in records if r.failed), ((START, 3), (START + 3, min_listed)),
    )  # fmt: skip


def test_the_json_has_the_keys_of_the_contract() -> None:
    document = json.loads(json.dumps(report.as_json([run(failed=(3.0, 3.5))])))
    assert list(document) == ["runs"]
    (only,) = document["runs"]
    contract = {
        "gateway": "nginx",
        "scenario": "rollout",
        "variant": "plain",
        "repeat": 1,
        "requests": 100,
        "failed": 2,
        "statuses": {"200": 98, "502": 2},
        "window_seconds": 0.5,
        "change_seconds": 4.0,
    }
    assert {key: only[key] for key in contract} == contract
    assert only["windows"] == [{"start": 1.0, "end": 1.5, "failed": 2}]
    assert only["failed_before_change"] == 0
    assert only["min_listed"] == 3
    assert only["listed"] == [[-2.0, 3], [1.0, 3]]


def test_figures_keep_their_type_where_nothing_failed() -> None:
    (only,) = report.as_json([run()])["runs"]
    assert type(only["window_seconds"]) is type(only["change_seconds"]) is float


def test_the_table_shows_repeats_as_a_range_and_variants_beside_each_other() -> None:
    runs = [
        run(Variant.GUARDED),
        run(failed=(3.0,)),
        run(failed=(3.0, 3.1, 3.2), repeat=2),
        run(Variant.TUNED, gateway="contour"),
    ]
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(report.table(runs))
    shown = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "nginx rollout plain 100 1–3 0.00–0.20 4.0 4 × 502" in shown
    assert "guarded 100 0 0.00 4.0" in shown
    assert "contour rollout tuned 100 0 0.00 4.0" in shown


def test_the_table_fits_a_narrow_terminal() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(report.table([run(failed=(3.0,), scenario="lying-ready", gateway="contour")]))
    assert "1 × 502" in console.export_text()


@pytest.mark.parametrize("scenario", sorted(report.LOSSLESS))
def test_a_planned_change_must_cost_nothing(scenario: str) -> None:
    good = report.checks([run(Variant.GUARDED, scenario=scenario), run(failed=(3.0,))])
    assert [check.held for check in good] == [True]
    (bad,) = report.checks([run(Variant.GUARDED, scenario=scenario, failed=(3.0,))])
    assert not bad.held
    assert bad.text == f"nginx {scenario}: 1 request failed"


def test_one_lossy_repeat_is_enough_to_break_the_promise() -> None:
    runs = [run(Variant.GUARDED), run(Variant.GUARDED, failed=(3.0, 3.1), repeat=2)]
    (check,) = report.checks([*runs, run(failed=(3.0,)), run(Variant.TUNED)])
    assert not check.held
    assert check.text == "nginx rollout: 2 requests failed (plain: 1; tuned: 0)"


@pytest.mark.parametrize(
    ("guarded", "tuned", "repeats", "held"),
    [
        ((3.0, 3.4), (3.0, 3.5), 3, True),
        ((3.0, 3.4), (3.0, 3.3), 3, False),
        ((3.0, 3.6), (3.0, 3.9), 3, False),
        # A single run each says little: by chance the guarded one may be an interval longer.
        ((3.0, 3.4), (3.0, 3.3), 1, True),
        ((3.0, 3.6), (3.0, 3.9), 1, False),
    ],
)
def test_a_crash_must_cost_half_of_plain_and_no_more_than_tuned(
    guarded: tuple[float, ...], tuned: tuple[float, ...], repeats: int, held: bool
) -> None:
    plain = (3.0, 4.0 - 0.1 * (guarded[1] < 3.5))
    windows = {Variant.PLAIN: plain, Variant.TUNED: tuned, Variant.GUARDED: guarded}
    runs = [
        run(variant, scenario="crash", failed=failed, repeat=repeat)
        for variant, failed in windows.items()
        for repeat in range(1, repeats + 1)
    ]
    (check,) = report.checks(runs)
    assert check.held is held


def test_a_lying_pod_must_be_out_within_the_probes_own_arithmetic() -> None:
    assert pytest.approx(1.8) == report.DETECTION_SECONDS
    (good,) = report.checks([run(Variant.GUARDED, scenario="lying-ready", failed=(3.0, 4.8))])
    (bad,) = report.checks([run(Variant.GUARDED, scenario="lying-ready", failed=(3.0, 5.0))])
    assert (good.held, bad.held) == (True, False)


def test_all_down_must_leave_somebody_listed() -> None:
    (good,) = report.checks([run(Variant.GUARDED, scenario="all-down", min_listed=2)])
    (bad,) = report.checks([run(Variant.GUARDED, scenario="all-down", min_listed=0)])
    assert (good.held, bad.held) == (True, False)


def test_without_guarded_runs_there_is_nothing_to_judge() -> None:
    assert report.checks([run(), run(Variant.TUNED)]) == []


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_picture_is_a_png_that_grows_with_what_it_shows(tmp_path: Path, repeats: int) -> None:
    runs = [
        run(variant, gateway=gateway, scenario=scenario, repeat=repeat, failed=(3.0, 3.1))
        for gateway in ("nginx", "contour")
        for scenario in ("rollout", "crash")
        for variant in Variant
        for repeat in range(1, repeats + 1)
    ]
    path = tmp_path / "timeline.png"
    plot.draw(runs, path, rate=10)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000
    assert height > 400 + 200 * repeats


def test_the_variants_differ_only_in_what_a_team_has_to_know() -> None:
    def container(variant: Variant) -> dict[str, object]:
        made = variants.deployment(
            variant, namespace="demo", name="shop", replicas=3, start_delay=1.5
        )
        found: dict[str, object] = made["spec"]["template"]["spec"]["containers"][0]
        return found

    plain, tuned, guarded = (container(variant) for variant in Variant)
    assert plain == guarded
    assert {"readinessProbe", "lifecycle"} == tuned.keys() - plain.keys()
    assert {"name": "START_DELAY_SECONDS", "value": "1.5"} in plain["env"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("variant", "hook", "pre_stop", "grace"),
    [
        (Variant.TUNED, 5, 5, None),
        (Variant.TUNED, 0, 0, None),
        (Variant.TUNED, 15, 15, None),
        (Variant.TUNED, 30, 30, 40),
        (Variant.PLAIN, 30, 0, None),
        (Variant.GUARDED, 30, 0, None),
    ],
)
def test_a_fixed_hook_leaves_the_app_time_to_end(
    variant: Variant, hook: int, pre_stop: int, grace: int | None
) -> None:
    made = variants.deployment(
        variant, namespace="demo", name="shop", replicas=3, start_delay=0, hook=hook
    )
    pod = made["spec"]["template"]
    assert variants.pre_stop([pod]) == pre_stop
    assert pod["spec"].get("terminationGracePeriodSeconds") == grace


def test_every_sample_server_can_stand_behind_a_gateway() -> None:
    images_of = dict.fromkeys(("go", "go-graceful"), images.UPSTREAM_IMAGE)
    assert list(variants.APPS) == ["go", "go-graceful", "node", "gunicorn", "uvicorn"]
    for name, app in variants.APPS.items():
        made = variants.deployment(
            Variant.PLAIN, namespace="demo", name="shop", replicas=1, start_delay=0, app=app
        )
        (container,) = made["spec"]["template"]["spec"]["containers"]
        assert container["image"] == images_of.get(name, images.SERVERS_IMAGE)
        start = (images.SAMPLES / "start.sh").read_text()
        assert all(f"\n  {word}) exec" in start for word in container.get("args", ()))


def test_apps_have_rows_and_promises_of_their_own() -> None:
    node = replace(run(Variant.GUARDED, failed=(3.0,)), app="node", pre_stop=2.0, kept_failed=1)
    runs = [run(Variant.GUARDED), node]
    assert [(c.held, c.text.partition(":")[0]) for c in report.checks(runs)] == [
        (True, "nginx rollout"),
        (False, "nginx rollout (node)"),
    ]
    shown = report.as_json(runs)["runs"][1]
    assert (shown["app"], shown["pre_stop_seconds"], shown["kept_failed"]) == ("node", 2.0, 1)


def test_the_shortest_guard_is_one_field() -> None:
    assert variants.guard(namespace="demo", name="shop")["spec"] == {
        "targetRef": {"kind": "Service", "name": "shop"}
    }


def lost(*failed: float, variant: Variant = Variant.GUARDED, gateway: str = "contour") -> Run:
    return run(variant, scenario="node-loss", failed=failed, gateway=gateway)


def test_a_lost_node_must_fail_no_request_sent_later_than_two_seconds() -> None:
    plain = lost(*(n / 10 for n in range(20, 90)), variant=Variant.PLAIN)
    (good,) = report.checks([plain, lost(2.5, 3.0, 3.9)])
    assert good.held
    assert "1.90 s after the loss" in good.text
    assert "plain: 6.9 s" in good.text
    (bad,) = report.checks([lost(3.9, 4.2)])
    assert not bad.held


def test_what_fails_long_after_a_node_was_lost_is_held_against_gateways_that_pick_pods() -> None:
    (direct,) = report.checks([lost(3.0, 7.0)])
    (through_kube_proxy,) = report.checks([lost(3.0, 7.0, gateway="nginx")])
    assert not direct.held
    assert through_kube_proxy.held
    assert "1 more later" in through_kube_proxy.text


def heard(lead: float | None, scenario: str = "rollout", failed: tuple[float, ...] = (3.0,)) -> Run:
    """A run whose first request fails at 3 s, told `lead` seconds before."""
    told = () if lead is None else (Told("Predict", START + 3 - lead, START + 3 - lead, ""),)
    return replace(run(failed=failed, scenario=scenario), told=told)


def test_what_the_operator_told_is_in_the_json() -> None:
    (only,) = report.as_json([heard(0.25)])["runs"]
    assert only["told"] == [{"action": "Predict", "written": 0.75, "seen": 0.75}]
    assert only["lead_seconds"] == pytest.approx(0.25, abs=1e-3)
    assert "told" not in report.as_json([run()])["runs"][0]


@pytest.mark.parametrize(
    ("leads", "held", "words"),
    [
        ((0.2, 0.3, -0.1), True, "3 of 3 losses were told, 0.200 s before the first (median)"),
        ((0.2, -0.3, -0.1), False, "3 of 3 losses were told"),
        ((None,), False, "0 of 1 losses were told"),
        ((0.4, None), True, "1 of 2 losses were told, 0.400 s"),
    ],
)
def test_the_median_lead_of_planned_changes_is_a_promise(
    leads: tuple[float | None, ...], held: bool, words: str
) -> None:
    (check,) = report.checks([heard(lead) for lead in leads])
    assert check.held is held
    assert check.text.startswith(f"rollout: {words}")


def test_nothing_is_promised_of_accidents_and_where_nothing_was_lost() -> None:
    assert report.checks([heard(None, "crash"), heard(0.2, failed=())]) == []
