"""Caddy's own view: its metrics, its configuration and its upstreams."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from upstream_guard.core.model import ObjectRef
from upstream_guard.gateways.adapter import Adapter, Directory, Listing, ListingBuilder, Tally

if TYPE_CHECKING:  # it brings an HTTP server with it, which `check` has no use for
    from prometheus_client.samples import Sample

_ANSWERS = "caddy_http_request_duration_seconds_count"
_SERVERS = "/config/apps/http/servers"
_UPSTREAMS = "/reverse_proxy/upstreams"
_PROXY = "reverse_proxy"
_OTHER = "_other"
"""The label of all hosts that no route of a server names."""
_ANSWERING = frozenset({_PROXY, "static_response", "file_server", "error"})
"""Handlers that answer, so that no later one gets the request."""
_MAX_DEPTH = 20


def _count(samples: Iterable["Sample"], directory: Directory, tally: Tally) -> None:
    """Caddy's code (`metrics.go`): once for each request and each route of a server that it meets.

    No label says where a request went: the configuration has to, see `_read_lists`.
    """
    for sample in samples:
        if sample.name != _ANSWERS:
            tally.since(sample.value)
            continue
        labels = sample.labels
        name = _name(labels.get("server", ""), labels.get("handler", ""), labels.get("host"))
        service = directory.by_name(name)
        if service is not None:
            tally.answered(service, labels.get("code", ""), sample.value)


def _name(server: str, handler: str, host: str | None) -> str:
    """What identifies the requests of one row; the host is there with `metrics { per_host }`."""
    return " ".join((server, handler, *(() if host is None else (host.lower(),))))


@dataclass(frozen=True, slots=True)
class _Route:
    """One route of a server.

    Attributes:
        handler: What Caddy's metrics call it: its first handler.
        hosts: That it is for; empty stands for all.
        conditional: Whether it also asks for more than the host.
        leads: Services that it leads to, None for everything else that answers.
    """

    handler: str
    hosts: frozenset[str]
    conditional: bool
    leads: frozenset[ObjectRef | None]


class _Upstream(msgspec.Struct):
    address: str = ""


_decode_upstreams = msgspec.json.Decoder(list[_Upstream]).decode
_decode_servers = msgspec.json.Decoder(dict[str, dict[str, Any]] | None).decode


def _read_lists(documents: Mapping[str, bytes], directory: Directory) -> Listing:
    """The upstreams in use, and which rows of the metrics are whose requests.

    Raises:
        msgspec.DecodeError: It is not what Caddy answers.
    """
    builder = ListingBuilder()
    for upstream in _decode_upstreams(documents[_UPSTREAMS]):
        service = directory.by_address(upstream.address)
        if service is not None and not directory.is_cluster_ip(upstream.address):
            builder.endpoint(service, upstream.address, usable=True)
    for server, config in (_decode_servers(documents[_SERVERS]) or {}).items():
        routes = [_route(r, directory) for r in _dicts(config.get("routes"))]
        for name, service in _rows(server, routes):
            builder.name(name, service)
    return builder.listing()


def _rows(server: str, routes: list[_Route]) -> Iterator[tuple[str, ObjectRef | None]]:
    for route in routes:
        for lead in route.leads:
            yield _name(server, route.handler, None), lead
    for host in {_OTHER, *(host for route in routes for host in route.hosts)}:
        for route in routes:
            if route.hosts and host not in route.hosts:
                continue
            for lead in route.leads:
                yield _name(server, route.handler, host), lead
            if not route.conditional and route.leads:
                break  # nothing is left for later routes


def _route(config: Mapping[str, Any], directory: Directory) -> _Route:
    matchers = _dicts(config.get("match"))
    handlers = _dicts(config.get("handle"))
    hosts = [set(map(str.lower, _texts(m.get("host")))) for m in matchers]
    return _Route(
        handler=str(handlers[0].get("handler") or "") if handlers else "",
        hosts=frozenset().union(*hosts) if all(hosts) else frozenset(),
        conditional=any(key != "host" for m in matchers for key in m),
        leads=frozenset(_leads(handlers, directory, 0)),
    )


def _leads(
    handlers: Iterable[Mapping[str, Any]], directory: Directory, depth: int
) -> Iterator[ObjectRef | None]:
    for handler in handlers:
        kind = handler.get("handler")
        if kind == _PROXY:
            dials = [str(u.get("dial") or "") for u in _dicts(handler.get("upstreams"))]
            yield from (directory.by_address(dial) for dial in dials or ("",))
        elif kind == "subroute":
            if depth > _MAX_DEPTH:
                yield None
                continue
            for route in _dicts(handler.get("routes")):
                yield from _leads(_dicts(route.get("handle")), directory, depth + 1)
        elif kind in _ANSWERING:
            yield None


def _dicts(value: object) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


ADAPTER = Adapter(
    label="server",
    series=frozenset({_ANSWERS}),
    count=_count,
    narrows=False,
    list_paths=(_SERVERS, _UPSTREAMS),
    read_lists=_read_lists,
)
