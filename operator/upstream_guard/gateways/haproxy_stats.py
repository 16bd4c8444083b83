"""HAProxy's exporter and its statistics page, for every product that has HAProxy inside.

Seen on HAProxy 2.6 with upstreams that refuse, reset, close early, talk nonsense, stay silent and are
missing: a backend's `http_responses_total` counts each request once, by the class of the status that
its client got, HAProxy's own answers included. `response_errors_total` may count one request twice.
Requests that a reused connection aborts get no status, and are counted nowhere but in the errors.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from upstream_guard.core.evidence import Failure
from upstream_guard.gateways.adapter import (
    Adapter,
    Directory,
    Known,
    Listing,
    ListingBuilder,
    PodSigns,
    Tally,
)

if TYPE_CHECKING:  # it brings an HTTP server with it, which `check` has no use for
    from prometheus_client.samples import Sample

LABEL: Final = "proxy"
_BACKEND: Final = "haproxy_backend_"
_ANSWERS: Final = f"{_BACKEND}http_responses_total"
_ACTIVE: Final = f"{_BACKEND}active_servers"
_FAILURES: Final[Mapping[str, Failure]] = {
    # Time-outs and empty backends included: HAProxy does not tell them apart here.
    f"{_BACKEND}connection_errors_total": Failure.CONNECT,
    f"{_BACKEND}response_errors_total": Failure.RESPONSE,
    f"{_BACKEND}server_aborts_total": Failure.RESPONSE,
    f"{_BACKEND}retry_warnings_total": Failure.RETRY,
    f"{_BACKEND}redispatch_warnings_total": Failure.RETRY,
}
_START: Final = "haproxy_process_start_time_seconds"
SERIES: Final = frozenset({_ANSWERS, _ACTIVE, *_FAILURES})

CSV: Final = ";csv"
"""After the URL of the statistics page: the same as CSV."""
MAX_ROWS: Final = 50_000
_UP: Final = ("UP", "no check")
_NOT_SERVERS: Final = frozenset({"FRONTEND", "BACKEND"})


def adapter(names: Callable[[Known], Iterable[str]], pods: PodSigns | None = None) -> Adapter:
    """The adapter of a product that calls its backends so."""
    return Adapter(
        label=LABEL,
        series=SERIES,
        count=count,
        process=frozenset({_START}),
        names=names,
        list_paths=(CSV,),
        read_lists=read_csv,
        pods=pods,
    )


def count(samples: Iterable["Sample"], directory: Directory, tally: Tally) -> None:
    """Add up the backends' statistics."""
    for sample in samples:
        if sample.name == _START:
            tally.since(sample.value)
            continue
        service = directory.by_name(sample.labels.get(LABEL, ""))
        if service is None:
            continue
        if sample.name == _ANSWERS:
            tally.answered(service, sample.labels.get("code", ""), sample.value)
        elif sample.name == _ACTIVE:
            tally.usable(service, sample.value)
        elif sample.name in _FAILURES:
            tally.failed(service, _FAILURES[sample.name], sample.value)


def read_csv(documents: Mapping[str, bytes], directory: Directory) -> Listing:
    """The servers of the statistics page; their addresses are in it with `stats show-legends`.

    Raises:
        ValueError: It is not that page.
    """
    builder = ListingBuilder()
    proxies: dict[str, list[_Server]] = {}
    for row in _rows(documents[CSV].decode("utf-8", "replace")):
        servers = proxies.setdefault(row["pxname"], [])
        if row["svname"] not in _NOT_SERVERS:
            servers.append(_Server(row.get("addr") or "", row.get("status") or ""))
    for proxy, servers in proxies.items():
        _read_proxy(proxy, servers, directory, builder)
    return builder.listing()


@dataclass(frozen=True, slots=True)
class _Server:
    address: str
    """Empty where the page does not tell."""
    status: str

    @property
    def spare(self) -> bool:
        """A slot that a controller keeps for an endpoint to come."""
        return self.status.startswith("MAINT") and self.address.startswith("127.")

    @property
    def usable(self) -> bool:
        """`UP`, `UP 1/3` and `no check`; not DOWN, MAINT, DRAIN or NOLB."""
        return self.status.startswith(_UP)


def _read_proxy(
    proxy: str, servers: Iterable[_Server], directory: Directory, builder: ListingBuilder
) -> None:
    named = directory.by_name(proxy)
    listed = [server for server in servers if not server.spare]
    if named is None:
        for server in listed:
            builder.name(proxy, directory.by_address(server.address))
    if any(directory.is_cluster_ip(s.address) or not s.address for s in listed):
        return  # whatever kube-proxy picks, or nobody knows
    if named is not None:
        builder.holds(named)
    for server in listed:
        service = named or directory.by_address(server.address)
        if service is not None:
            builder.endpoint(service, server.address, usable=server.usable)


def _rows(text: str) -> Iterator[Mapping[str, str]]:
    head, _, body = text.partition("\n")
    names = head.removeprefix("# ").rstrip().split(",")
    if not {"pxname", "svname", "status"} <= set(names):
        raise ValueError("the page is no HAProxy statistics")
    try:
        for index, row in enumerate(csv.reader(body.splitlines(), strict=True)):
            if index >= MAX_ROWS:
                return
            if len(row) >= 2:
                yield dict(zip(names, row, strict=False))
    except csv.Error as error:
        raise ValueError(f"the page is no HAProxy statistics: {error}") from error
