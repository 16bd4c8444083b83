"""The picture of a matrix: predicted against measured, lost requests and durations."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from upstream_guard.core.predict.score import FACTOR, Trial
from upstream_guard.lab.demo.matrix.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final = ("#2471a3", "#c0392b", "#1e8449", "#d68910", "#7d3c98", "#566573")
LEAST_LOST: Final = 0.5
"""Where none is drawn on a logarithmic axis, on which there is no zero."""
LEAST_SECONDS: Final = 0.01


def draw(results: Sequence[Result], path: Path) -> None:
    """Write the picture as a PNG.

    Args:
        results: at least one.
        path: where to; its folder must exist.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 (takes most of a second; only the demo needs it)

    mpl.use("Agg")
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(12.0, 6.0), layout="constrained")
    lost, seconds = figure.subplots(1, 2)
    _panel(lost, results, _lost, LEAST_LOST)
    lost.set_title("requests lost (band: within a factor of 2)")
    _panel(seconds, results, _duration, LEAST_SECONDS)
    seconds.set_title("seconds from the first failed request to the last")
    seconds.legend(title="gateway", loc="upper left", frameon=False)
    figure.suptitle(f"{len(results)} real changes: predicted before, measured after")
    figure.savefig(path, dpi=140, format="png")


def _lost(trial: Trial) -> tuple[float, float]:
    return trial.lost, trial.lost_predicted


def _duration(trial: Trial) -> tuple[float, float]:
    return trial.duration, trial.duration_predicted


def _panel(
    axes: "Axes",
    results: Sequence[Result],
    pair: Callable[[Trial], tuple[float, float]],
    least: float,
) -> None:
    """One point per change; changes without and with a prediction of nothing stand at the edge."""
    pairs = [(r.case.gateway, *pair(r.trial)) for r in results]
    most = 1.5 * max(least * 10, *(value for _, *both in pairs for value in both))
    for index, gateway in enumerate(sorted({gateway for gateway, _, _ in pairs})):
        mine = [(max(x, least), max(y, least)) for g, x, y in pairs if g == gateway]
        axes.scatter(
            [x for x, _ in mine], [y for _, y in mine],
            s=26, alpha=0.7, color=COLOURS[index % len(COLOURS)], label=gateway, linewidths=0,
        )  # fmt: skip
    axes.plot([least, most], [least, most], color="#555555", linewidth=0.9, zorder=0)
    edges = [least, most]
    axes.fill_between(
        edges, [e / FACTOR for e in edges], [e * FACTOR for e in edges], color="#eeeeee", zorder=-1
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(least * 0.8, most)
    axes.set_ylim(least * 0.8, most)
    axes.set_xlabel(f"measured (none: {least:g})")
    axes.set_ylabel(f"predicted (none: {least:g})")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
