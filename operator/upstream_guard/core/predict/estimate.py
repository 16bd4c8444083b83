"""A number that is not known exactly: its range, and what it rests on."""

from dataclasses import dataclass
from typing import Final

from upstream_guard.core.tuning import Evidence


@dataclass(frozen=True, slots=True)
class Estimate:
    """A quantity between `low` and `high`, most likely `value`.

    Attributes:
        low: Tenth percentile or lower bound.
        value: The best single number.
        high: Ninetieth percentile or upper bound.
        evidence: What it rests on.
        source: Where it comes from, for people.
    """

    low: float
    value: float
    high: float
    evidence: Evidence = Evidence.ASSUMED
    source: str = ""

    @classmethod
    def exactly(cls, value: float, evidence: Evidence, source: str = "") -> "Estimate":
        """A number without doubt."""
        return cls(value, value, value, evidence, source)

    def at(self, quantile: float) -> float:
        """The value at a quantile of 0 to 1: linear from `low` over `value` (0.5) to `high`."""
        if quantile <= 0.5:
            return self.low + (self.value - self.low) * quantile * 2
        return self.value + (self.high - self.value) * (quantile - 0.5) * 2


UNKNOWN_ZERO: Final = Estimate(0.0, 0.0, 0.0)
"""Nothing is known, and nothing is added."""
