"""The Prometheus text format, as far as somebody asked: what is not wanted is not parsed."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

MAX_LINE: Final = 2_048
"""Characters of a line; longer ones are passed over."""
MAX_SAMPLES: Final = 60_000
"""Lines that are parsed of one page."""
MAX_SECONDS: Final = 3.0
"""CPU time for one page: as much as 60,000 lines need on a slow machine."""


class UnreadableError(ValueError):
    """What a gateway answered is not what its product answers, or too much of it."""


def parse_samples(
    text: str, names: frozenset[str], wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[Sample]:
    """The samples of these names, in order. Lines that are none are passed over.

    Parsing costs 30 µs a line, and a busy Envoy shows 100,000 lines of which a few hundred matter:
    so lines are chosen first.

    Args:
        text: A page of metrics.
        names: Full names of the samples, `_total` and `_count` included.
        wanted: Looks at a whole line before it is parsed.

    Raises:
        UnreadableError: There is more than can be parsed. Half a page would be worse than none: what
            is missing in one look seems to be new in the next.
    """
    started, parsed = time.thread_time(), 0
    for found in _lines(names).finditer(text):
        line = found[0]
        if len(line) > MAX_LINE or not wanted(line):
            continue
        parsed += 1
        if parsed > MAX_SAMPLES or time.thread_time() - started > MAX_SECONDS:
            raise UnreadableError(f"more than {parsed - 1} lines, of which each takes its time")
        yield from _parse(line)


def _lines(names: frozenset[str]) -> re.Pattern[str]:
    alternatives = "|".join(re.escape(name) for name in sorted(names))
    return re.compile(rf"^(?:{alternatives})[{{ \t].*$", re.MULTILINE)


def _parse(line: str) -> Iterator[Sample]:
    """One line, by itself: a line that is broken spoils no other."""
    try:
        for family in text_string_to_metric_families(line):
            yield from family.samples
    except (ValueError, IndexError):
        return
