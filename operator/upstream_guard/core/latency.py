"""What is said of latencies that were measured: quantiles, and how sure they are."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

P99: Final = 0.99


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies of one kind, seconds.

    Attributes:
        samples: How many were measured; ≥ 1.
        p50: Half of them were not longer.
        p90: As `p50`, nine of ten.
        p99: As `p50`, ninety-nine of a hundred; of fewer than 100 samples it is their maximum.
        max: The longest.
    """

    samples: int
    p50: float
    p90: float
    p99: float
    max: float

    @property
    def confidence(self) -> float:
        """How sure it is, from 0 to 1, that the true 99th percentile is not above `p99`."""
        return p99_confidence(self.samples)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the propagation canary found of one gateway.

    Attributes:
        detach: From the API write that takes an endpoint away to the last request on a new connection.
        attach: From the API write that adds one to its first request; None where that was never seen.
        kept: As `detach`, for connections that the gateway keeps open; None where none was seen to end
            with the list.
        sticks: A kept connection outlived the change of the list: only the app can end such.
        last: When it was last measured, Unix seconds.
    """

    detach: Latencies
    attach: Latencies | None = None
    kept: Latencies | None = None
    sticks: bool = False
    last: float = 0.0

    @property
    def decisive(self) -> Latencies:
        """What a stopping pod must wait for: the slower of new and kept connections.

        Kept connections count where the gateway ends them. Where only the app can, waiting does not help.
        """
        if self.kept is None or self.sticks or self.kept.p99 <= self.detach.p99:
            return self.detach
        return self.kept


def latencies(seconds: Iterable[float]) -> Latencies | None:
    """Quantiles by nearest rank; None of nothing."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    number = len(ordered)
    p50, p90, p99 = (ordered[_rank(number, quantile) - 1] for quantile in (0.5, 0.9, P99))
    return Latencies(number, p50, p90, p99, ordered[-1])


def p99_confidence(samples: int) -> float:
    """How sure the nearest-rank 99th percentile of so many samples is not below the true one.

    It is unless at least as many samples as its rank lie below the true percentile, of which each does
    with a chance of 0.99: `1 - 0.99^n` for fewer than 100 samples, where it is their maximum.
    """
    if samples < 1:
        return 0.0
    above = range(samples - _rank(samples, P99) + 1)
    missed = math.fsum(math.comb(samples, k) * P99 ** (samples - k) * (1 - P99) ** k for k in above)
    return max(0.0, 1 - missed)


def _rank(samples: int, quantile: float) -> int:
    """From 1. The tiny number keeps 0.9 of 10 at 9, for 0.9 is not exactly 0.9."""
    return max(1, math.ceil(samples * quantile - 1e-9))
