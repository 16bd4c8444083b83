"""Evenly spread futures: the same question always gets the same answer, without a random generator."""

from dataclasses import dataclass
from typing import Final

from upstream_guard.core.predict.estimate import Estimate

_GOLDEN: Final = 0.6180339887498949
_SILVER: Final = 0.4142135623730951
_BRONZE: Final = 0.3027756377319946


@dataclass(frozen=True, slots=True)
class Draw:
    """One future out of `total`: every uncertain number has one value in it.

    The values are those of an additive recurrence over irrational steps (a Kronecker sequence): over
    all futures each number covers its range evenly, and no two numbers move together.
    """

    index: int
    total: int

    def of(self, estimate: Estimate, dimension: int, pod: int = 0) -> float:
        """A value of the estimate.

        Args:
            estimate: The number.
            dimension: Which number it is; different numbers need different dimensions.
            pod: Which pod it belongs to; 0 for what is the same for every pod.
        """
        if estimate.low == estimate.high:
            return estimate.value
        return estimate.at(self.quantile(dimension, pod))

    def quantile(self, dimension: int, pod: int = 0) -> float:
        """A number in [0, 1)."""
        spread = (self.index + 0.5) / self.total
        return (
            spread + dimension * _GOLDEN * (self.index + 1) + pod * _SILVER + dimension * _BRONZE
        ) % 1.0
