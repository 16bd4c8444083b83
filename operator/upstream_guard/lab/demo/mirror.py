"""A live copy of one collection of the API, to wait for what it will hold."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from upstream_guard.kube.client import ApiError, KubeClient
from upstream_guard.lab.model import LabError

Json = dict[str, Any]
Objects = Mapping[str, Json]
"""Objects by UID."""

RETRY_SECONDS = 0.2


class Mirror:
    """Follows one collection while its context is open.

    Args:
        client: of the cluster.
        path: the collection's, e.g. `/api/v1/namespaces/shop/pods`.
        label_selector: which objects; all where empty.
        on_change: called with the Unix time and the objects after each change.
    """

    def __init__(
        self,
        client: KubeClient,
        path: str,
        label_selector: str = "",
        on_change: Callable[[float, Objects], None] = lambda _at, _objects: None,
    ) -> None:
        self._client = client
        self._path = path
        self._params = {"labelSelector": label_selector} if label_selector else {}
        self._on_change = on_change
        self._objects: dict[str, Json] = {}
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def objects(self) -> Objects:
        """What is there now."""
        return self._objects

    async def __aenter__(self) -> Self:
        version = await self._list()
        self._task = asyncio.create_task(self._follow(version))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def until(
        self, holds: Callable[[Objects], bool], what: str, seconds: float = 60.0
    ) -> None:
        """Wait until `holds` is true of the objects.

        Args:
            holds: asked after each change.
            what: for the error message, as in `waited 60 s for {what}`.
            seconds: how long at most.

        Raises:
            LabError: it did not come true in time.
        """
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: holds(self._objects))
        except TimeoutError:
            raise LabError(
                f"waited {seconds:g} s for {what}, and it did not happen; "
                f"`kubectl get --raw {self._path}` shows what is there"
            ) from None

    async def _list(self) -> str:
        items, version = await self._client.list_pages(self._path, self._params)
        self._objects = {item["metadata"]["uid"]: item for item in items}
        await self._notify()
        return version

    async def _follow(self, version: str) -> None:
        while True:
            try:
                async for kind, item in self._client.watch(self._path, version, self._params):
                    version = item["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        await self._apply(kind, item)
            except ApiError:
                await asyncio.sleep(RETRY_SECONDS)
                with suppress(ApiError):
                    version = await self._list()

    async def _apply(self, kind: str, item: Json) -> None:
        uid = item["metadata"]["uid"]
        if kind == "DELETED":
            self._objects.pop(uid, None)
        else:
            self._objects[uid] = item
        await self._notify()

    async def _notify(self) -> None:
        self._on_change(time.time(), self._objects)
        async with self._changed:
            self._changed.notify_all()
