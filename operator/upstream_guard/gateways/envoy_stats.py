"""Envoy's statistics and its admin API, for every product that has Envoy inside.

Seen on Envoy 1.38-1.40 with upstreams that refuse, reset, close early, talk nonsense, stay silent and
are missing: `upstream_rq` counts each request once, by the status that its client got, those that
Envoy answered itself included, and no attempt that was tried again.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from upstream_guard.core.evidence import Failure
from upstream_guard.core.holding import address_of
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

LABEL: Final = "envoy_cluster_name"
_ENDPOINT_LABEL: Final = "envoy_endpoint_address"
_CLUSTER: Final = "envoy_cluster_"

_ANSWERS: Final = "upstream_rq"
_CONNECT_FAIL: Final = "upstream_cx_connect_fail"
_CONNECT_TIMEOUT: Final = "upstream_cx_connect_timeout"
_HEALTHY: Final = "membership_healthy"
_FAILURES: Final[Mapping[str, Failure]] = {
    _CONNECT_TIMEOUT: Failure.CONNECT_TIMEOUT,
    "upstream_cx_destroy_remote_with_active_rq": Failure.RESPONSE,
    "upstream_cx_protocol_error": Failure.PROTOCOL,
    "upstream_rq_timeout": Failure.TIMEOUT,
    "upstream_rq_per_try_timeout": Failure.TIMEOUT,
    "upstream_cx_none_healthy": Failure.EMPTY,
    "upstream_rq_pending_overflow": Failure.OVERFLOW,
    "upstream_rq_retry": Failure.RETRY,
}
_ENDPOINT_HEALTHY: Final = "endpoint_healthy"
_ENDPOINT_FAILURES: Final[Mapping[str, Failure]] = {
    "endpoint_cx_connect_fail": Failure.CONNECT,
    "endpoint_rq_timeout": Failure.TIMEOUT,
}
_UPTIME: Final = "envoy_server_uptime"

SERIES: Final = frozenset(
    _CLUSTER + name
    for name in (
        _ANSWERS,
        _CONNECT_FAIL,
        _HEALTHY,
        _ENDPOINT_HEALTHY,
        *_FAILURES,
        *_ENDPOINT_FAILURES,
    )
)
_FILTER: Final = (
    r"^cluster\..*\.(upstream_rq_\d+|upstream_rq_(timeout|per_try_timeout|pending_overflow|retry)|"
    r"upstream_cx_(connect_fail|connect_timeout|destroy_remote_with_active_rq|protocol_error|"
    r"none_healthy)|membership_healthy|endpoint\..*(healthy|cx_connect_fail|rq_timeout))$|"
    r"^server\.uptime$"
)
QUERY: Final = f"usedonly&filter={quote(_FILTER)}"
"""Lets Envoy send a hundredth of its statistics."""

CLUSTERS: Final = "/clusters?format=json"
MAX_CLUSTERS: Final = 20_000
_USABLE: Final = frozenset({"HEALTHY", "DEGRADED", "UNKNOWN", ""})
"""`eds_health_status` of an endpoint that Envoy may pick."""


def adapter(names: Callable[[Known], Iterable[str]], pods: PodSigns | None = None) -> Adapter:
    """The adapter of a product that calls its clusters so."""
    return Adapter(
        label=LABEL,
        series=SERIES,
        count=count,
        process=frozenset({_UPTIME}),
        names=names,
        query=QUERY,
        list_paths=(CLUSTERS,),
        read_lists=read_lists,
        list_samples=list_samples,
        pods=pods,
    )


def count(samples: Iterable["Sample"], directory: Directory, tally: Tally) -> None:
    """Add up Envoy's cluster statistics."""
    for sample in samples:
        if sample.name == _UPTIME:
            tally.uptime(sample.value)
            continue
        service = directory.by_name(sample.labels.get(LABEL, ""))
        if service is None:
            continue
        name = sample.name.removeprefix(_CLUSTER)
        endpoint = sample.labels.get(_ENDPOINT_LABEL, "")
        if name == _ANSWERS:
            tally.answered(service, sample.labels.get("envoy_response_code", ""), sample.value)
        elif name == _HEALTHY:
            tally.usable(service, sample.value)
        elif name == _CONNECT_FAIL:
            tally.failed(service, Failure.CONNECT, sample.value)
        elif name in _FAILURES:
            tally.failed(service, _FAILURES[name], sample.value)
            if name == _CONNECT_TIMEOUT:
                # Envoy counts a time-out as a failed connection as well.
                tally.excluded(service, Failure.CONNECT, sample.value)
        elif endpoint and name in _ENDPOINT_FAILURES:
            tally.failed(service, _ENDPOINT_FAILURES[name], sample.value, endpoint)


def list_samples(samples: Iterable["Sample"], directory: Directory) -> Listing:
    """The endpoints that Envoy counts one by one.

    It does so with `per_endpoint_stats` (Envoy Gateway: `enablePerEndpointStats`), and then the
    upstream list can be read where the admin API cannot.
    """
    builder = ListingBuilder()
    for sample in samples:
        if sample.name != _CLUSTER + _ENDPOINT_HEALTHY:
            continue
        service = directory.by_name(sample.labels.get(LABEL, ""))
        address = sample.labels.get(_ENDPOINT_LABEL, "")
        if service is not None and address and not directory.is_cluster_ip(address):
            builder.endpoint(service, address, usable=sample.value == 1)
    return builder.listing()


class _Socket(msgspec.Struct):
    address: str = ""
    port_value: int = 0


class _Address(msgspec.Struct):
    socket_address: _Socket | None = None


class _Host(msgspec.Struct):
    address: _Address | None = None
    health_status: dict[str, Any] = {}


class _Cluster(msgspec.Struct):
    name: str = ""
    observability_name: str = ""
    host_statuses: list[_Host] = []


class _Clusters(msgspec.Struct):
    cluster_statuses: list[_Cluster] = []


_decode: Final = msgspec.json.Decoder(_Clusters).decode


def read_lists(documents: Mapping[str, bytes], directory: Directory) -> Listing:
    """The endpoints of `/clusters?format=json`.

    Raises:
        msgspec.DecodeError: It is not that document.
    """
    builder = ListingBuilder()
    for cluster in _decode(documents[CLUSTERS]).cluster_statuses[:MAX_CLUSTERS]:
        _read_cluster(cluster, directory, builder)
    return builder.listing()


def _read_cluster(cluster: _Cluster, directory: Directory, builder: ListingBuilder) -> None:
    name = cluster.observability_name or cluster.name
    hosts = [
        (address_of(socket.address, socket.port_value), host)
        for host in cluster.host_statuses
        if host.address and (socket := host.address.socket_address)
    ]
    named = directory.by_name(name)
    for address, host in hosts:
        service = named or directory.by_address(address)
        if named is None:
            builder.name(name, service)
        if service is not None and not directory.is_cluster_ip(address):
            builder.endpoint(service, address, usable=_usable(host.health_status))
    if named is not None and not any(directory.is_cluster_ip(address) for address, _ in hosts):
        builder.holds(named)


def _usable(status: Mapping[str, Any]) -> bool:
    """Whether Envoy may pick it, panic mode apart. False conditions are left out of the document."""
    if str(status.get("eds_health_status", "")) not in _USABLE:
        return False
    return not any(
        value is True and key.startswith(("failed_", "pending_")) for key, value in status.items()
    )
