"""The timeline picture: failed requests over time, one panel per scenario and gateway.

Each run is a lane; its bars say which share of the requests sent in that fifth of a second failed.
Time 0 is the start of the change, a triangle its end.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from upstream_guard.lab.demo.report import Run, group
from upstream_guard.lab.demo.variants import Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BIN_SECONDS: Final = 0.2
COLOURS: Final = {Variant.PLAIN: "#c0392b", Variant.TUNED: "#d68910", Variant.GUARDED: "#1e8449"}
LANE_INCHES: Final = 0.34
LANE_FILL: Final = 0.85
"""The part of a lane that a bar of 100 % fills."""


def draw(runs: Sequence[Run], path: Path, *, rate: float) -> None:
    """Write the picture as a PNG.

    Args:
        runs: at least one.
        path: where to; its folder must exist.
        rate: requests a second of the load, to tell what share failed.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 (takes most of a second; only the demo needs it)

    mpl.use("Agg")
    figure = _figure(runs, rate)
    figure.savefig(path, dpi=140, format="png")


def _figure(runs: Sequence[Run], rate: float) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415

    gateways = list(dict.fromkeys(run.gateway for run in runs))
    scenarios = list(dict.fromkeys(run.what for run in runs))
    lanes = max(_lane_count(runs, scenario) for scenario in scenarios)
    figure = Figure(
        figsize=(
            max(7.0, 5.6 * len(gateways)),
            1.1 + len(scenarios) * (0.75 + LANE_INCHES * lanes),
        ),
        layout="constrained",
    )
    grid = figure.subplots(len(scenarios), len(gateways), squeeze=False, sharex="row")
    for row, scenario in enumerate(scenarios):
        for column, gateway in enumerate(gateways):
            mine = [r for r in runs if (r.gateway, r.what) == (gateway, scenario)]
            _panel(grid[row][column], mine, rate)
            if row == 0:
                grid[row][column].set_title(gateway, fontsize=12, fontweight="bold")
        grid[row][0].set_ylabel(scenario, fontsize=11, fontweight="bold")
    for axes in grid[-1]:
        axes.set_xlabel("seconds from the start of the change (▽ its end)")
    figure.suptitle(
        f"Failed requests over time at {rate:g} requests a second (a full lane: all of them)",
        fontsize=12,
    )
    return figure


def _lane_count(runs: Sequence[Run], scenario: str) -> int:
    counts = Counter(run.gateway for run in runs if run.what == scenario)
    return max(counts.values())


def _panel(axes: "Axes", runs: Sequence[Run], rate: float) -> None:
    lanes = [run for cell in group(runs).values() for run in sorted(cell, key=lambda r: r.repeat)]
    for index, run in enumerate(lanes):
        _lane(axes, run, base=len(lanes) - 1 - index, rate=rate)
    repeats = max((run.repeat for run in lanes), default=1)
    names = [f"{r.variant} {r.repeat}" if repeats > 1 else str(r.variant) for r in lanes]
    axes.set_yticks([len(lanes) - 1 - i + LANE_FILL / 2 for i in range(len(lanes))], names)
    for label, run in zip(axes.get_yticklabels(), lanes, strict=True):
        label.set_color(COLOURS[run.variant])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.1, max(len(lanes), 1))
    axes.axvline(0, color="#555555", linewidth=0.9)
    axes.margins(x=0.02)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _height(share: float) -> float:
    """A bar's height; one failed request must not vanish."""
    return LANE_FILL * min(1.0, max(0.08, share))


def _lane(axes: "Axes", run: Run, *, base: float, rate: float) -> None:
    colour = COLOURS[run.variant]
    start = run.load_started - run.change_started
    end = start + run.tally.requests / rate
    axes.plot([start, end], [base, base], color="#cccccc", linewidth=0.8, zorder=1)
    axes.plot(
        [run.change_ended - run.change_started], [base + 0.12],
        marker="v", markersize=5, markerfacecolor="white", markeredgecolor="#555555", zorder=3,
    )  # fmt: skip
    bins = Counter(int((sent - run.change_started) // BIN_SECONDS) for sent in run.failures)
    axes.bar(
        [index * BIN_SECONDS for index in bins],
        [_height(count / (rate * BIN_SECONDS)) for count in bins.values()],
        width=BIN_SECONDS, bottom=base, align="edge", color=colour, zorder=2,
    )  # fmt: skip
    axes.annotate(
        f"{run.tally.failed} failed", xy=(1.0, base + LANE_FILL / 2),
        xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
        va="center", fontsize=8, color=colour,
    )  # fmt: skip
