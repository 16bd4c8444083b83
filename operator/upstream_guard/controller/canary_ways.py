"""Where a gateway is asked: its replicas where they can be known, else the address that its users take."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from upstream_guard.core.canary import CanaryPlan
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.kube.client import KubeClient
from upstream_guard.kube.state import ClusterState
from upstream_guard.resources.canary import PORT

Json = Mapping[str, Any]

MAX_REPLICAS: Final = 4
"""Replicas that are asked in turn: more would blur when the slowest of them followed."""
GATEWAYS: Final = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/gateways/{}"
INGRESSES: Final = "/apis/networking.k8s.io/v1/namespaces/{}/ingresses/{}"
SERVICES: Final = "/api/v1/services"


@dataclass(frozen=True, slots=True)
class Front:
    """How a gateway is reached.

    Attributes:
        urls: Its addresses as users take them, each with its port.
        service: The Service behind which its replicas are; None where that is not known.
        port: Name and number of that Service's port.
    """

    urls: tuple[str, ...]
    service: ObjectRef | None = None
    port: tuple[str, int] = ("", PORT)


class WayFinder:
    """Finds out where gateways are reached."""

    def __init__(self, client: KubeClient, state: ClusterState) -> None:
        self._client = client
        self._state = state

    async def find(self, plan: CanaryPlan, service: Json) -> Front:
        """Where a gateway is; without any URL where that cannot be known.

        Args:
            plan: The gateway's canary.
            service: The canary's Service, as the API server has it.

        Raises:
            ApiError: The API server refused, or could not be reached.
        """
        if plan.url:
            return Front((plan.url.rstrip("/"),))
        if plan.kind is GatewayKind.CLUSTER_IP:
            address = str((service.get("spec") or {}).get("clusterIP") or "")
            return Front((_url(address, PORT),) if _is_address(address) else ())
        addresses, port = await self._addresses(plan, service["metadata"]["namespace"])
        if not addresses:
            return Front(())
        behind = await self._service_of(addresses, port)
        urls = tuple(_url(address, port) for address in addresses)
        return Front(urls, *behind) if behind else Front(urls)

    def urls(self, front: Front) -> tuple[str, ...]:
        """Where to ask now: each replica, or the common address where no replica is known."""
        if front.service is None:
            return front.urls
        name, number = front.port
        found = {
            _url(address, port)
            for slice_ in self._state.slices_of(front.service)
            for port_name, port in slice_.ports
            if port_name == name or (not name and port == number)
            for endpoint in slice_.endpoints
            if endpoint.ready and not endpoint.terminating
            for address in endpoint.addresses[:1]
        }
        return tuple(sorted(found))[:MAX_REPLICAS] or front.urls

    async def _addresses(self, plan: CanaryPlan, namespace: str) -> tuple[tuple[str, ...], int]:
        if plan.kind is GatewayKind.GATEWAY:
            where, _, name = plan.gateway.partition("/")
            gateway = await self._client.get(GATEWAYS.format(where, name))
            return gateway_addresses(gateway)
        ingress = await self._client.get(INGRESSES.format(namespace, plan.service))
        return ingress_addresses(ingress), PORT

    async def _service_of(
        self, addresses: Iterable[str], port: int
    ) -> tuple[ObjectRef, tuple[str, int]] | None:
        """The Service that has one of these addresses, and its port of that number."""
        wanted = set(addresses)
        services, _ = await self._client.list_pages(SERVICES)
        for service in services:
            if wanted & set(service_addresses(service)):
                ports = (service.get("spec") or {}).get("ports") or ()
                chosen = next((p for p in ports if p.get("port") == port), None)
                if chosen is not None:
                    metadata = service["metadata"]
                    ref = ObjectRef(metadata["namespace"], metadata["name"])
                    target = chosen.get("targetPort")
                    number = target if isinstance(target, int) else port
                    return ref, (str(chosen.get("name") or ""), number)
        return None


def ingress_addresses(ingress: Json) -> tuple[str, ...]:
    """What the controller of an Ingress says where it is reached."""
    balancer: Json = (ingress.get("status") or {}).get("loadBalancer") or {}
    found = (i.get("ip") or i.get("hostname") for i in balancer.get("ingress") or ())
    return tuple(str(address) for address in found if address)


def gateway_addresses(gateway: Json) -> tuple[tuple[str, ...], int]:
    """What a Gateway says where it is reached, and the port of its first listener in clear."""
    status: Json = gateway.get("status") or {}
    listeners = (gateway.get("spec") or {}).get("listeners") or ()
    ports = [li.get("port") for li in listeners if li.get("protocol") == "HTTP"]
    addresses = tuple(str(a["value"]) for a in status.get("addresses") or () if a.get("value"))
    return (addresses, int(ports[0])) if ports else ((), PORT)


def service_addresses(service: Json) -> tuple[str, ...]:
    """Every address at which a Service is reached."""
    spec: Json = service.get("spec") or {}
    cluster = spec.get("clusterIPs") or [spec.get("clusterIP")]
    found = [*cluster, *(spec.get("externalIPs") or ()), *ingress_addresses(service)]
    return tuple(str(address) for address in found if address and address != "None")


def _url(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def reachable_address(text: str) -> str:
    """An address that an EndpointSlice may hold; empty where the text is none.

    The API server refuses loopback, link-local, multicast and unspecified addresses.
    """
    try:
        host = text if _is_address(text) else urlsplit(f"//{text}").hostname
    except ValueError:
        return ""
    if not host or not _is_address(host):
        return ""
    address = ipaddress.ip_address(host)
    useless = (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )
    return "" if useless else str(address)
