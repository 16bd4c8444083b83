"""Evenly spread futures: the same question always gets the same answer, without a random generator."""

from functools import lru_cache
from typing import Final

from upstream_guard.core.predict.estimate import Estimate

_GOLDEN: Final = 0.6180339887498949
_SILVER: Final = 0.4142135623730951
_BRONZE: Final = 0.3027756377319946
_DIMENSIONS: Final = 32
"""More than there are uncertain numbers."""


class Draw:
    """One future out of `total`: every uncertain number has one value in it.

    The values are those of an additive recurrence over irrational steps (a Kronecker sequence): over
    all futures each number covers its range evenly, and no two numbers move together.

    A prediction asks for hundreds of thousands of numbers: what is the same for every pod is worked out
    once, and `of` calls nothing.
    """

    __slots__ = ("_begins", "_steps", "index", "total")

    def __init__(self, index: int, total: int) -> None:
        """Make the future.

        Args:
            index: Which one, from 0.
            total: Of how many.
        """
        self.index = index
        self.total = total
        spread = (index + 0.5) / total
        self._begins = [spread + n * _GOLDEN * (index + 1) for n in range(_DIMENSIONS)]
        self._steps = [n * _BRONZE for n in range(_DIMENSIONS)]

    def of(self, estimate: Estimate, dimension: int, pod: int = 0) -> float:
        """A value of the estimate, as `Estimate.at` gives it.

        Args:
            estimate: The number.
            dimension: Which number it is; different numbers need different dimensions.
            pod: Which pod it belongs to; 0 for what is the same for every pod.
        """
        low, high, value = estimate.low, estimate.high, estimate.value
        if low == high:
            return value
        quantile = (self._begins[dimension] + pod * _SILVER + self._steps[dimension]) % 1.0
        if quantile <= 0.5:
            return low + (value - low) * quantile * 2
        return value + (high - value) * (quantile - 0.5) * 2

    def quantile(self, dimension: int, pod: int = 0) -> float:
        """A number in [0, 1)."""
        return (self._begins[dimension] + pod * _SILVER + self._steps[dimension]) % 1.0


@lru_cache(maxsize=8)
def draws(total: int) -> tuple[Draw, ...]:
    """All futures of `total`."""
    return tuple(Draw(index, total) for index in range(total))
