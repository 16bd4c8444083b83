"""Put a scene together: which pods decide with which, and the floors that hold for them."""

from collections.abc import Iterable, Mapping

from upstream_guard.core.admission import Floor
from upstream_guard.core.model import Node, Pod, Service


def floors_of(
    service: Service, pods: Iterable[Pod], percent: int, nodes: Mapping[str, Node]
) -> tuple[Floor, ...]:
    """The floors of one Service: as a whole, and per node or zone where traffic is routed that way.

    With `internalTrafficPolicy` or `externalTrafficPolicy` `Local` kube-proxy uses only endpoints of
    its own node, with topology hints or a traffic distribution only (or first) those of its zone:
    there the list that can be emptied is the node's or the zone's.
    """
    members = tuple(pods)
    whole = Floor(f"Service {service.ref}", frozenset(p.uid for p in members), percent)
    parts: list[Floor] = []
    if service.internal_local or service.external_local:
        parts += _parts(service, percent, ((p.node, p.uid) for p in members), "node")
    if service.zonal:
        zones = ((nodes[p.node].zone if p.node in nodes else "", p.uid) for p in members)
        parts += _parts(service, percent, zones, "zone")
    return (whole, *parts)


def _parts(
    service: Service, percent: int, placed: Iterable[tuple[str, str]], what: str
) -> list[Floor]:
    by_place: dict[str, set[str]] = {}
    for place, uid in placed:
        if place:
            by_place.setdefault(place, set()).add(uid)
    return [
        Floor(f"Service {service.ref} on {what} {place}", frozenset(uids), percent)
        for place, uids in sorted(by_place.items())
    ]
