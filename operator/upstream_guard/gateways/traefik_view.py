"""Traefik's own view: its metrics and its API."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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

_ANSWERS = "traefik_service_requests_total"
_RETRIES = "traefik_service_retries_total"
_UP = "traefik_service_server_up"
_SERVICES = "/api/http/services?per_page=10000"
_OF_GATEWAY = re.compile(r"^.+-svc-(.+)-\d+@kubernetesgateway$")
_SEPARATORS = re.compile(r"[^a-zA-Z0-9]+")


def _normal(text: str) -> str:
    return _SEPARATORS.sub("-", text).strip("-")


def _names(known: Known) -> Iterator[str]:
    """Traefik's code. What IngressRoutes lead to is named by them: the API tells it by addresses."""
    name = f"{known.service.namespace}-{known.service.name}"
    yield f"{_normal(name)}@kubernetesgateway"
    for port in known.ports:
        for text in filter(None, (str(port.number), port.name)):
            yield f"{_normal(f'{name}-{text}')}@kubernetes"


def _name(service: str) -> str:
    """The Gateway provider names a service after route, listener, rule and backend as well."""
    found = _OF_GATEWAY.match(service)
    return f"{found[1]}@kubernetesgateway" if found else service


def _count(samples: Iterable["Sample"], directory: Directory, tally: Tally) -> None:
    """Traefik's code (`prometheus.go`). `server_up` is there with health checks only."""
    for sample in samples:
        service = directory.by_name(_name(sample.labels.get("service", "")))
        if sample.name not in {_ANSWERS, _RETRIES, _UP}:
            tally.since(sample.value)
        elif service is None:
            continue
        elif sample.name == _ANSWERS:
            tally.answered(service, sample.labels.get("code", ""), sample.value)
        elif sample.name == _RETRIES:
            tally.failed(service, Failure.RETRY, sample.value)
        else:
            tally.usable(service, sample.value)


class _Server(msgspec.Struct):
    url: str = ""


class _Balancer(msgspec.Struct):
    servers: list[_Server] = []


class _Service(msgspec.Struct):
    name: str = ""
    load_balancer: _Balancer | None = msgspec.field(default=None, name="loadBalancer")
    server_status: dict[str, str] = msgspec.field(default_factory=dict, name="serverStatus")


_decode = msgspec.json.Decoder(list[_Service]).decode


def _read_lists(documents: Mapping[str, bytes], directory: Directory) -> Listing:
    """The servers of `/api/http/services`.

    Raises:
        msgspec.DecodeError: It is not that document.
    """
    builder = ListingBuilder()
    for service in _decode(documents[_SERVICES]):
        if service.load_balancer is not None:
            _read_service(service, service.load_balancer, directory, builder)
    return builder.listing()


def _read_service(
    service: _Service, balancer: _Balancer, directory: Directory, builder: ListingBuilder
) -> None:
    named = directory.by_name(_name(service.name))
    servers = [(url, _address(url)) for url in (s.url for s in balancer.servers)]
    if named is None:
        for _, address in servers:
            builder.name(service.name, directory.by_address(address))
    if any(directory.is_cluster_ip(address) for _, address in servers):
        return
    if named is not None:
        builder.holds(named)
    for url, address in servers:
        owner = named or directory.by_address(address)
        if owner is not None and address:
            # Without a health check every server is up.
            up = service.server_status.get(url, "UP") == "UP"
            builder.endpoint(owner, address, usable=up)


def _address(url: str) -> str:
    """`host:port` of a server's URL; empty where it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return ""
    return address_of(parts.hostname, port) if parts.hostname else ""


ADAPTER = Adapter(
    label="service",
    series=frozenset({_ANSWERS, _RETRIES, _UP}),
    count=_count,
    names=_names,
    narrows=False,
    list_paths=(_SERVICES,),
    read_lists=_read_lists,
    pods=PodSigns(labels=({"app.kubernetes.io/name": "traefik"},), port=9100),
)
