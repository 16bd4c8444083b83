"""Writes and deletes the objects of canaries, all of them in the operator's namespace."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from upstream_guard.core.canary import Absence, CanaryPlan, Endpoint
from upstream_guard.core.names import FIELD_MANAGER
from upstream_guard.kube.client import APPLY, ApiError, KubeClient
from upstream_guard.resources.canary import LABELS, canary_route, canary_service, canary_slice

Json = dict[str, Any]

NOT_FOUND: Final = 404
COLLECTIONS: Final = (
    "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
    "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "/api/v1/namespaces/{}/services",
)
"""Where objects of canaries are, in the order in which they are deleted: first the way, then the goal."""
_BY_KIND: Final = {
    "HTTPRoute": COLLECTIONS[0],
    "Ingress": COLLECTIONS[1],
    "EndpointSlice": COLLECTIONS[2],
    "Service": COLLECTIONS[3],
}


class CanaryObjects:
    """The canaries' objects."""

    def __init__(self, client: KubeClient, namespace: str, address: str) -> None:
        """Wire it.

        Args:
            client: The API server.
            namespace: Of the operator.
            address: Of the operator, as gateways reach it.
        """
        self._client = client
        self.namespace = namespace
        self._address = address
        self.ports: Mapping[Endpoint, int] = {}
        """Where the endpoints listen."""

    async def set_up(self, plan: CanaryPlan, states: Mapping[Endpoint, Absence | None]) -> Json:
        """Apply all objects of a canary; its Service as the API server has it.

        Raises:
            ApiError: The API server refused one, or could not be reached.
        """
        service = await self._apply(canary_service(plan, self.namespace))
        await asyncio.gather(*(self.list_endpoint(service, e, s) for e, s in states.items()))
        route = canary_route(plan, service)
        if route is not None:
            await self._apply(route)
        return service

    async def list_endpoint(self, service: Json, endpoint: Endpoint, state: Absence | None) -> None:
        """List an endpoint of a canary, or take it away in one of the ways.

        Raises:
            ApiError: As above.
        """
        port = self.ports[endpoint]
        await self._apply(canary_slice(service, endpoint, self._address, port, state))

    async def is_there(self, service: Json) -> bool:
        """Whether a canary's Service still is the one that was made.

        Raises:
            ApiError: As above.
        """
        metadata = service["metadata"]
        path = f"{COLLECTIONS[3].format(self.namespace)}/{metadata['name']}"
        try:
            found = await self._client.get(path)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return False
        return bool(found["metadata"].get("uid") == metadata["uid"])

    async def keep_only(self, names: Iterable[str]) -> None:
        """Delete every object of canaries whose Service is not among the names.

        Raises:
            ApiError: As above.
        """
        kept = frozenset(names)
        selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
        for collection in COLLECTIONS:
            path = collection.format(self.namespace)
            for item in await self._list(path, selector):
                name = str(item["metadata"]["name"])
                if not kept & {name, name.rpartition("-")[0]}:
                    await self._delete(f"{path}/{name}")

    async def _list(self, path: str, selector: str) -> list[Json]:
        try:
            items, _ = await self._client.list_pages(path, {"labelSelector": selector})
        except ApiError as error:
            if error.status != NOT_FOUND:  # the Gateway API is not everywhere
                raise
            return []
        return items

    async def _apply(self, body: Json) -> Json:
        collection = _BY_KIND[body["kind"]].format(self.namespace)
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = f"{collection}/{body['metadata']['name']}"
        return await self._client.patch(path, body, content_type=APPLY, params=params)

    async def _delete(self, path: str) -> None:
        try:
            await self._client.delete(path)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
