"""What the scheduler says about itself."""

from bisect import bisect_left
from dataclasses import dataclass, field

BOUNDS = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the lateness histogram's buckets, in seconds; one more bucket takes the rest."""


@dataclass(slots=True)
class Histogram:
    """Counts of values in seconds, by bucket (not cumulative)."""

    bounds: tuple[float, ...] = BOUNDS
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    last: float = 0.0
    maximum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        self.last = value
        self.maximum = max(self.maximum, value)

    def quantile(self, share: float) -> float:
        """The upper bound of the bucket in which the `share` (0-1) of the values ends; 0 with no values."""
        wanted = share * self.count
        reached = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            reached += count
            if reached and reached >= wanted:
                return min(bound, self.maximum)
        return self.maximum


@dataclass(slots=True)
class SchedulerStats:
    """Counters since the scheduler was made, and gauges."""

    lateness: Histogram = field(default_factory=Histogram)
    """How long after it was due each probe started, in seconds."""
    sent: int = 0
    """Probes started."""
    delivered: int = 0
    """Results handed over."""
    delayed: int = 0
    """Failures thrown away, and repeated, because the operator's own loop was late during the probe."""
    local_errors: int = 0
    """Probes that ended for want of the operator's own resources (descriptors, ports, memory)."""
    in_flight: int = 0
    """Probes under way now."""
    loop_lag: float = 0.0
    """The event loop's lag when it was last looked at, in seconds."""
