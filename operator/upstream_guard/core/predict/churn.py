"""How busy other Services keep kube-proxy, from when their EndpointSlices changed. Pure."""

import math
from collections.abc import Iterable
from typing import Final

WINDOW: Final = 120.0
"""Seconds that are looked back."""
MIN_SYNC_PERIOD: Final = 1.0
"""Seconds that kube-proxy waits after each sync, whichever Service caused it (its `minSyncPeriod`)."""
MOST_BUSY: Final = 0.99
"""Share of the time; always busy would be endlessly many changes."""


def other_changes(times: Iterable[float], now: float) -> float:
    """Changes a second which, if they came at random, would keep kube-proxy waiting for the same share of the time.

    Changes come in bursts, as pods of a rollout do, and a burst makes one wait: so it is not their number
    that counts but the time that they cover.

    Args:
        times: When slices of other Services changed, ascending, Unix seconds.
        now: Unix seconds.

    Returns:
        A number for `PlatformFacts.other_changes`, to one decimal; 0 where nothing changed.
    """
    covered, free_from = 0.0, now - WINDOW
    for at in times:
        begin, end = max(at, free_from), min(at + MIN_SYNC_PERIOD, now)
        if end > begin:
            covered += end - begin
            free_from = end
    busy = min(MOST_BUSY, covered / WINDOW)
    return round(-math.log(1 - busy) / MIN_SYNC_PERIOD, 1)
