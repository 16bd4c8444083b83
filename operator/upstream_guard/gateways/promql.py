"""A gateway's metrics out of a Prometheus.

Counters are fetched as they stand and subtracted here, as those of a gateway are: `increase()` would
extrapolate to fractions of a request, wants to know how often Prometheus scrapes, and counts a sample
twice in two queries that overlap.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
from prometheus_client.samples import Sample

from upstream_guard.core.model import ObjectRef
from upstream_guard.gateways.adapter import Adapter, Directory, Known
from upstream_guard.gateways.exposition import MAX_SAMPLES, UnreadableError

PATH: Final = "/api/v1/query"
_REPLICA_LABELS: Final = ("instance", "pod")
UNNAMED: Final = "prometheus"
"""The replica of series without an instance."""


def query(
    adapter: Adapter, known: Iterable[Known], learned: Mapping[str, ObjectRef] | None = None
) -> str:
    """The selector for what the adapter reads, of these Services where their label is known."""
    entries = tuple(known)
    values = adapter.values(entries, Directory(entries, adapter.names, learned))
    matchers = [f"__name__=~{_one_of(adapter.series)}"]
    if values is not None:
        matchers.append(f"{adapter.label}=~{_one_of(values)}")
    return f"{{{','.join(matchers)}}}"


def _one_of(values: Iterable[str]) -> str:
    # A JSON string is quoted as PromQL wants it; RE2 knows the escapes of `re.escape`.
    return json.dumps("|".join(re.escape(value) for value in sorted(values)), ensure_ascii=False)


class _Series(msgspec.Struct):
    metric: dict[str, str] = {}
    value: tuple[float, str] = (0.0, "")


class _Data(msgspec.Struct):
    resultType: str = ""  # noqa: N815  # the API's own name
    result: list[_Series] = []


class _Answer(msgspec.Struct):
    status: str = ""
    error: str = ""
    data: _Data | None = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


def read_answer(body: bytes) -> dict[str, tuple[Sample, ...]]:
    """Samples by replica.

    Raises:
        UnreadableError: It is not the answer to a query, or says that the query failed.
    """
    try:
        answer = _decode(body)
    except msgspec.DecodeError as error:
        raise UnreadableError(f"not the answer of a Prometheus: {str(error)[:80]}") from None
    if answer.status != "success" or answer.data is None or answer.data.resultType != "vector":
        raise UnreadableError(f"Prometheus could not answer: {answer.error[:80] or answer.status}")
    found: dict[str, list[Sample]] = {}
    for replica, sample in _samples(answer.data.result[:MAX_SAMPLES]):
        found.setdefault(replica, []).append(sample)
    return {replica: tuple(samples) for replica, samples in found.items()}


def _samples(series: Iterable[_Series]) -> Iterator[tuple[str, Sample]]:
    for one in series:
        try:
            value = float(one.value[1])
        except ValueError:
            continue
        labels = dict(one.metric)
        name = labels.pop("__name__", "")
        replica = next((labels[key] for key in _REPLICA_LABELS if labels.get(key)), UNNAMED)
        yield replica, Sample(name, labels, value)
