"""The EndpointSlices of external upstreams as values, and what an operator that comes later reads from them.

A value that is wanted equals the value parsed from what is there (`resources.kube_objects.parse_slice`)
where nothing is to be written. Why they are as they are: names start with the Service's, `ready` is always
explicit and the port has the Service port's name, because gateways' controllers want it so; one slice for
each family and port, for a slice has one list of ports; FQDN slices are not used, since kube-proxy and most
gateways pass them over; no weights, because consumers merge an address that is named twice.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from upstream_guard.core.allowance import is_address
from upstream_guard.core.external import Slot, Slots
from upstream_guard.core.model import (
    EndpointSlice,
    Guard,
    ObjectRef,
    Service,
    ServicePort,
    SliceEndpoint,
)
from upstream_guard.core.names import MANAGED_BY
from upstream_guard.core.resolution import Wanted, family_of

MAX_ENDPOINTS: Final = 100
"""Endpoints of one slice, as the EndpointSlice controller has it."""


def plan_slices(
    guard: Guard, service: Service, port: ServicePort, slots: Slots
) -> tuple[EndpointSlice, ...]:
    """The slices that should be there.

    Args:
        guard: The guard, which owns them.
        service: Its Service.
        port: The Service port that the upstreams serve.
        slots: The addresses.
    """
    used = sorted(
        slots.values(),
        key=lambda s: (family_of(s.wanted.address), s.wanted.port, s.wanted.address),
    )
    slices: list[EndpointSlice] = []
    for (family, number), group in groupby(
        used, key=lambda s: (family_of(s.wanted.address), s.wanted.port)
    ):
        members = list(group)
        for start in range(0, len(members), MAX_ENDPOINTS):
            name = _name(service, family, number, start // MAX_ENDPOINTS)
            chunk = members[start : start + MAX_ENDPOINTS]
            slices.append(_slice(guard, name, port, family, number, chunk))
    return tuple(slices)


def is_ours(slice_: EndpointSlice) -> bool:
    """An operator of ours keeps it, as the list of external upstreams."""
    return slice_.managed_by == MANAGED_BY and bool(slice_.record)


def all_ready(slice_: EndpointSlice) -> EndpointSlice:
    """The slice as it is left where nobody decides any more: every address is to be used."""
    endpoints = tuple(
        SliceEndpoint(e.addresses, ready=True, serving=True, terminating=False)
        for e in slice_.endpoints
    )
    return EndpointSlice(
        slice_.ref,
        slice_.service,
        slice_.address_type,
        slice_.ports,
        endpoints,
        slice_.managed_by,
        slice_.owner,
        slice_.record,
    )


def read_slices(slices: Iterable[EndpointSlice]) -> dict[str, Slot]:
    """What an operator published: the addresses, and whether they were listed; times are 0.

    What cannot be read, because somebody else wrote it, is passed over.
    """
    found: dict[str, Slot] = {}
    for slice_ in slices:
        if not is_ours(slice_) or not slice_.ports:
            continue
        number = slice_.ports[0][1]
        ready = {address: e.ready for e in slice_.endpoints for address in e.addresses}
        for one in _read_record(slice_.record, number):
            if one.address in ready:
                found[one.key] = Slot(one, ready[one.address], 0.0)
    return found


def app_protocol_of(slice_: EndpointSlice) -> str:
    """The `appProtocol` of a slice's port; empty where it has none."""
    return str(_load(slice_.record).get("appProtocol") or "")


def _name(service: Service, family: str, number: int, index: int) -> str:
    more = f"-{index + 1}" if index else ""
    return f"{service.ref.name}-external-{family.lower()}-{number}{more}"


def _slice(
    guard: Guard, name: str, port: ServicePort, family: str, number: int, slots: list[Slot]
) -> EndpointSlice:
    return EndpointSlice(
        ref=ObjectRef(guard.ref.namespace, name),
        service=guard.service,
        address_type=family,
        ports=((port.name, number),),
        endpoints=tuple(
            SliceEndpoint(
                (slot.wanted.address,),
                ready=bool(slot.listed),
                serving=bool(slot.listed),
                terminating=False,
            )
            for slot in slots
        ),
        managed_by=MANAGED_BY,
        owner=guard.uid,
        record=_record(port, slots),
    )


def _record(port: ServicePort, slots: list[Slot]) -> str:
    """Without times, so that a steady DNS writes nothing."""
    addresses = [
        [s.wanted.address, s.wanted.upstream, s.wanted.name, s.wanted.priority] for s in slots
    ]
    body = {"appProtocol": port.app_protocol, "addresses": addresses}
    return json.dumps(body, separators=(",", ":"))


def _load(record: str) -> Mapping[str, Any]:
    try:
        body = json.loads(record)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _read_record(record: str, number: int) -> Iterable[Wanted]:
    entries = _load(record).get("addresses")
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case [str(address), str(upstream), str(name), int(priority)] if is_address(address):
                yield Wanted(address, number, upstream, name, priority)
            case _:
                continue
