"""Predictions in words: numbers as people say them."""

import math
from dataclasses import replace

from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.predict.window import Window
from upstream_guard.core.tuning import Evidence


def tell(window: Window, facts: Facts) -> Window:
    """The window with its message, one sentence with the numbers."""
    title = RISKS[window.risk].title
    title = title[0].lower() + title[1:]
    assumed = " (assumed)" if facts.rate_evidence is Evidence.ASSUMED else ""
    rate = f"at {number(facts.rate)} requests/s{assumed}"
    message = (
        f"{window.change}: {losses(window)} {rate}, {period(window)}, {status(window)}: {title}"
    )
    return replace(window, message=message)


def losses(window: Window) -> str:
    """`about 40 requests (25-60) fail`."""
    if math.isinf(window.duration.value):
        return "every request fails"
    lost = window.lost
    noun = "request" if round(lost.value) == 1 else "requests"
    verb = "fails" if round(lost.value) == 1 else "fail"
    return f"about {number(lost.value)} {noun}{_range(lost)} {verb}"


def period(window: Window) -> str:
    """`over 1.2 s (0.9-1.4), from 0.1 s on`."""
    if math.isinf(window.duration.value):
        return "until it is mended"
    start = window.start.value
    begin = f", {number(start)} s after it begins" if start >= 0.05 else ""
    return f"over {number(window.duration.value)} s{_range(window.duration)}{begin}"


def status(window: Window) -> str:
    """`502 connect() failed at nginx (public)`."""
    shown = str(window.status) if window.status else "no status"
    note = f" {window.status_note}" if window.status_note else ""
    return f"{shown}{note} at {window.gateway}"


def number(value: float) -> str:
    """Two significant digits below 100, whole numbers above: 0.05, 1.2, 40, 250."""
    if value >= 10:
        return f"{value:.0f}"
    if value >= 0.95:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2g}"


def _range(estimate: Estimate) -> str:
    low, high = number(estimate.low), number(estimate.high)
    return f" ({low}-{high})" if low != high else ""
