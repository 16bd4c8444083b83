"""How early the running operator told of a change: which telling counts, and against what."""

import io

import pytest
from rich.console import Console

from upstream_guard.lab.demo.telling import (
    Told,
    by_scenario,
    lead_table,
    median_lead,
    telling,
    tellings_in,
)

EVENT = {
    "metadata": {"uid": "e"},
    "reason": "WindowPredicted",
    "action": "PredictRollout",
    "regarding": {"kind": "UpstreamGuard", "name": "shop"},
    "eventTime": "2026-11-26T07:00:00.250000Z",
    "note": "deployment/shop: rollout: about 40 requests fail",
}
AT = 1795676400.25


def told(written: float, seen: float | None = None) -> Told:
    return Told("PredictRollout", written, written if seen is None else seen, "")


def test_an_event_is_read_with_its_own_time() -> None:
    found = tellings_in(EVENT, "shop", 7.0)
    assert found == Told("PredictRollout", AT, 7.0, EVENT["note"])


def test_a_series_counts_at_its_last_time() -> None:
    again = {**EVENT, "series": {"count": 2, "lastObservedTime": "2026-11-26T07:00:01.250000Z"}}
    found = tellings_in(again, "shop", 9.0)
    assert found is not None
    assert found.written == AT + 1


@pytest.mark.parametrize(
    "change",
    [{"reason": "RisksFound"}, {"regarding": {"name": "cart"}}, {"regarding": None},
     {"eventTime": None}],
)  # fmt: skip
def test_standing_risks_and_other_guards_do_not_count(change: dict[str, object]) -> None:
    assert tellings_in({**EVENT, **change}, "shop", 7.0) is None


def test_the_lead_is_to_the_first_failed_request_of_the_change() -> None:
    found = telling("rollout", [told(100.02, 100.05)], [90.0, 101.0, 100.5], 100.0)
    assert (found.told, found.opened) == (True, True)
    assert found.lead is not None
    assert found.lead.written == pytest.approx(0.48)
    assert found.lead.seen == pytest.approx(0.45)


def test_told_too_late_is_a_negative_lead_and_an_earlier_change_counts_for_nothing() -> None:
    found = telling("rollout", [told(100.9), told(80.0)], [100.5], 100.0)
    assert found.lead is not None
    assert found.lead.written == pytest.approx(-0.4)
    assert telling("rollout", [told(80.0)], [100.5], 100.0).told is False


@pytest.mark.parametrize(
    ("tellings", "failures", "flags"),
    [
        ([], [100.5], (False, True)),
        ([told(100.1)], [], (True, False)),
        ([], [90.0], (False, False)),
    ],
)
def test_without_both_there_is_no_lead(
    tellings: list[Told], failures: list[float], flags: tuple[bool, bool]
) -> None:
    found = telling("drain", tellings, failures, 100.0)
    assert found.lead is None
    assert (found.told, found.opened) == flags


def test_the_table_adds_up_each_scenario() -> None:
    leads = [telling("rollout", [told(100.0)], [100.0 + i / 10], 100.0) for i in range(1, 11)]
    others = [telling("drain", [told(100.0)], [], 100.0), telling("drain", [], [101.0], 100.0)]
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(lead_table([*leads, *others]))
    rows = [line.split() for line in console.export_text().splitlines()]
    assert ["rollout", "10", "10", "10", "0", "0.100", "0.500", "0.900", "0.500"] in rows
    assert ["drain", "2", "1", "0", "1", "–", "–", "–", "–"] in rows
    assert median_lead(leads) == pytest.approx(0.55)
    assert median_lead(others) is None
    assert list(by_scenario([*others, *leads])) == ["drain", "rollout"]
