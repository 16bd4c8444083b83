"""What the demo calls a kept or a broken promise."""

import pytest

from upstream_guard.lab.demo.report import Run, checks
from upstream_guard.lab.demo.tally import Record, tally
from upstream_guard.lab.demo.variants import Variant


def crash(variant: Variant, window: float, repeat: int = 1) -> Run:
    """A run with failures from 1 s on, 10 ms apart, over a window."""
    failed = tuple(1 + n / 100 for n in range(round(window * 100) + 1))
    records = [Record(sent, sent + 0.01, 0.0, "502") for sent in failed]
    return Run(
        gateway="nginx",
        scenario="crash",
        variant=variant,
        repeat=repeat,
        tally=tally(records),
        load_started=0.0,
        change_started=1.0,
        change_ended=7.0,
        failures=failed,
        listed=((0.0, 3),),
    )


@pytest.mark.parametrize(
    ("guarded", "repeats", "held"),
    [(0.3, 1, True), (0.8, 1, True), (1.1, 1, False), (0.3, 3, True), (0.8, 3, False), (2.2, 3, False)],
)  # fmt: skip
def test_a_crash_is_compared_closely_only_over_several_runs(
    guarded: float, repeats: int, held: bool
) -> None:
    windows = {Variant.PLAIN: 4.0, Variant.TUNED: 0.5, Variant.GUARDED: guarded}
    runs = [crash(v, w, n) for v, w in windows.items() for n in range(1, repeats + 1)]
    (check,) = checks(runs)
    assert check.held is held
