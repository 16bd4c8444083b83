"""One look at a gateway: from what it answered to values."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
from prometheus_client.samples import Sample

from upstream_guard.core.counting import Reading
from upstream_guard.core.model import ObjectRef
from upstream_guard.gateways.adapter import Adapter, Directory, Known, Listing, Tally
from upstream_guard.gateways.exposition import UnreadableError, parse_samples

MAX_QUOTE: Final = 80


def read_metrics(
    adapter: Adapter,
    page: str,
    known: Iterable[Known],
    learned: Mapping[str, ObjectRef],
    at: float,
) -> tuple[Reading, Listing]:
    """What a page of metrics says of the Services that are known.

    Args:
        adapter: Of the gateway.
        page: In the Prometheus text format.
        known: The guarded Services behind it.
        learned: Names from its upstream list.
        at: When it was read.

    Raises:
        UnreadableError: It is more than can be parsed.
    """
    entries = tuple(known)
    directory = Directory(entries, adapter.names, learned)
    wanted = _filter(adapter, adapter.values(entries, directory))
    samples = parse_samples(page, adapter.series | adapter.process, wanted)
    return read_samples(adapter, samples, directory, at)


def read_samples(
    adapter: Adapter, samples: Iterable[Sample], directory: Directory, at: float
) -> tuple[Reading, Listing]:
    """What samples say, wherever they come from."""
    found = tuple(samples)
    tally = Tally(at)
    adapter.count(found, directory, tally)
    listing = adapter.list_samples(found, directory) if adapter.list_samples else Listing()
    return tally.reading(directory.services), listing


def read_lists(adapter: Adapter, documents: Mapping[str, bytes], known: Iterable[Known]) -> Listing:
    """What the documents of an admin API say of the Services that are known.

    Raises:
        UnreadableError: They are not what the product answers.
    """
    if adapter.read_lists is None:
        return Listing()
    try:
        return adapter.read_lists(documents, Directory(known, adapter.names))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnreadableError(
            f"not this product's upstream list: {str(error)[:MAX_QUOTE]}"
        ) from None


def _filter(adapter: Adapter, values: frozenset[str] | None) -> Callable[[str], bool]:
    """Whether a line can matter: it has one of the values, or tells when the process started."""
    if values is None:
        return lambda _: True
    label = re.compile(rf'[{{,]{re.escape(adapter.label)}="([^"]*)"')

    def wanted(line: str) -> bool:
        found = label.search(line)
        return line.startswith(process) if found is None else found[1] in values

    process = tuple(adapter.process)
    return wanted
