"""The story of one window as a picture: a line of time, what lasted as bars, what happened as marks."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

from upstream_guard.cli.check.words import clean
from upstream_guard.cli.story import Moment, Step, Story

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final = {
    Step.PREDICTED: "#8e44ad",
    Step.CHANGE: "#2c3e50",
    Step.FAILED: "#c0392b",
    Step.DETECTED: "#d68910",
    Step.ACTION: "#1e8449",
    Step.CLOSED: "#c0392b",
}
MAX_MARKS: Final = 24
"""Moments that are written out; more would be read by nobody."""
LABEL_CHARACTERS: Final = 96


def draw(story: Story, path: Path) -> None:
    """Write the picture as a PNG.

    Args:
        story: What to draw.
        path: Where to; its folder must exist.

    Raises:
        ImportError: matplotlib is missing.
        OSError: The file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 (takes most of a second, and is an extra)

    mpl.use("Agg")
    from matplotlib.figure import Figure  # noqa: PLC0415

    moments = story.moments[:MAX_MARKS]
    figure = Figure(figsize=(13, 2.2 + 0.36 * len(moments)), layout="constrained")
    axes = figure.subplots()
    _window(axes, story)
    for row, moment in enumerate(moments):
        _mark(axes, moment, moment.at - story.window.opened, row)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + 0.9 * (right - left))  # room for the words
    axes.set_ylim(len(moments) - 0.3, -0.9)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_xlabel("seconds from the first failed request")
    window = story.window
    state = "" if window.closed else ", still open"
    axes.set_title(
        _plain(
            f"Window {window.id} of {story.guard}: {window.cause}, "
            f"{window.lost} requests lost ({window.counted}){state}"
        ),
        loc="left",
        fontsize=11,
        fontweight="bold",
    )
    figure.savefig(path, dpi=130, format="png")


def _window(axes: "Axes", story: Story) -> None:
    window = story.window
    ends = window.closed or max(m.at for m in story.moments)
    span = max(ends - window.opened, 0.02)
    axes.axvspan(0, span, color=COLOURS[Step.FAILED], alpha=0.13, linewidth=0)
    axes.annotate(
        "requests fail",
        (span / 2, -0.72),
        ha="center",
        fontsize=8,
        color=COLOURS[Step.FAILED],
    )


def _mark(axes: "Axes", moment: Moment, at: float, row: int) -> None:
    colour = COLOURS.get(moment.step, "#555555")
    axes.plot(at, row, "o", color=colour, markersize=6)
    words = _plain(textwrap.shorten(clean(moment.text), LABEL_CHARACTERS, placeholder="…"))
    axes.annotate(
        f"{at:+.2f} s  {words}",
        (at, row),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=colour,
    )


def _plain(text: str) -> str:
    """Between two dollar signs matplotlib reads a formula."""
    return text.replace("$", r"\$")
