"""What the load generator saw, and what it adds up to. Pure: no clock, no files.

One request is one `Record`. On disk a record is one line of JSON, `[sent, done, late, outcome]`,
short because a run has thousands of them and readable because people debug with `less`.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

WINDOW_GAP = 1.0
"""Failed requests sent less than this many seconds apart belong to one window."""

TIMEOUT = "timeout"
REFUSED = "refused"
RESET = "reset"
EARLY_CLOSE = "early-close"
TRUNCATED = "truncated"
MALFORMED = "malformed"
UNREACHABLE = "unreachable"
CLIENT_ERROR = "client-error"
"""The generator itself failed, e.g. for want of local ports: no verdict about the gateway."""


def is_failure(outcome: str) -> bool:
    """A status of 500 or more, no answer, or a truncated one."""
    return not outcome.isdigit() or int(outcome) >= 500


@dataclass(frozen=True, slots=True)
class Record:
    """One request as its client saw it."""

    sent: float
    """Unix time at which the client began: connect, or write on a kept-alive connection."""
    done: float
    """Unix time at which the whole answer, or the failure, was there."""
    late: float
    """Seconds between the time the schedule wanted and `sent`."""
    outcome: str
    """The status as text, e.g. `200`, or one of this module's names where none (whole) came."""

    @property
    def failed(self) -> bool:
        """Whether a user saw an error."""
        return is_failure(self.outcome)


@dataclass(frozen=True, slots=True)
class Window:
    """An interval in which requests failed, by send time (Unix seconds)."""

    start: float
    end: float
    failed: int

    @property
    def seconds(self) -> float:
        """From the first failed request to the last; 0 where there was only one."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Tally:
    """One run's requests, added up."""

    requests: int
    failed: int
    statuses: dict[str, int]
    """Requests by outcome, the most frequent first."""
    windows: tuple[Window, ...]
    late_p99: float
    """99th percentile of `Record.late`, seconds."""
    slowest: float
    """The longest answer that was not a failure, seconds."""

    @property
    def window_seconds(self) -> float:
        """Sum of the windows' lengths: the time in which a user could meet an error."""
        return sum((window.seconds for window in self.windows), 0.0)

    @property
    def span_seconds(self) -> float:
        """From the first failed request of the run to the last, calm times between included."""
        return self.windows[-1].end - self.windows[0].start if self.windows else 0.0


def encode(record: Record) -> str:
    """One line of the results file, without its newline; times to 0.1 ms."""
    times = [round(record.sent, 4), round(record.done, 4), round(record.late, 5)]
    return json.dumps([*times, record.outcome], separators=(",", ":"))


def decode(line: str) -> Record:
    """The inverse of `encode`.

    Raises:
        ValueError: the line is no record, e.g. the half line of a generator that was killed.
    """
    try:
        sent, done, late, outcome = json.loads(line)
        return Record(float(sent), float(done), float(late), str(outcome))
    except (TypeError, ValueError) as error:
        raise ValueError(f"not a load record: {line[:80]!r}") from error


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile (`share` in 0-1) of `values`; 0 where there are none."""
    if not values:
        return 0.0
    rank = max(1, math.ceil(share * len(values)))
    return sorted(values)[rank - 1]


def find_windows(records: Iterable[Record], gap: float = WINDOW_GAP) -> tuple[Window, ...]:
    """Group failed requests into windows: a calm of `gap` seconds or more ends one."""
    times = sorted(record.sent for record in records if record.failed)
    if not times:
        return ()
    cuts = [index for index, (a, b) in enumerate(pairwise(times), start=1) if b - a >= gap]
    bounds = pairwise([0, *cuts, len(times)])
    return tuple(Window(times[a], times[b - 1], b - a) for a, b in bounds)


def tally(records: Sequence[Record]) -> Tally:
    """Add up one run. An empty run gives zeros, never an error."""
    counts = Counter(record.outcome for record in records)
    return Tally(
        requests=len(records),
        failed=sum(record.failed for record in records),
        statuses=dict(counts.most_common()),
        windows=find_windows(records),
        late_p99=percentile([record.late for record in records], 0.99),
        slowest=max((r.done - r.sent for r in records if not r.failed), default=0.0),
    )
