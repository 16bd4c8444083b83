"""A live copy of a collection, against an API server made up here."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from upstream_guard.kube.client import ApiError, KubeClient
from upstream_guard.lab.demo.mirror import Mirror
from upstream_guard.lab.model import LabError


def item(uid: str, version: int = 1) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "resourceVersion": str(version)}}


class FakeApi:
    """Lists `items`, then sends what is put into `events`; an exception ends that watch."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items = list(items)
        self.events: asyncio.Queue[tuple[str, dict[str, Any]] | ApiError] = asyncio.Queue()
        self.watched: list[str] = []

    async def list_pages(
        self, path: str, params: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], str]:
        return list(self.items), "7"

    async def watch(
        self, path: str, resource_version: str, params: Mapping[str, str] | None = None
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        self.watched.append(resource_version)
        while True:
            event = await self.events.get()
            if isinstance(event, ApiError):
                raise event
            yield event


def mirror(api: FakeApi, **more: Any) -> Mirror:
    return Mirror(cast("KubeClient", api), "/api/v1/pods", **more)


async def test_it_follows_what_comes_and_goes() -> None:
    api, seen = FakeApi(item("a")), []
    async with mirror(api, on_change=lambda at, objects: seen.append(len(objects))) as live:
        assert set(live.objects) == {"a"}
        api.events.put_nowait(("ADDED", item("b", 8)))
        api.events.put_nowait(("BOOKMARK", item("", 9)))
        api.events.put_nowait(("DELETED", item("a", 10)))
        await live.until(lambda objects: set(objects) == {"b"}, "b alone", 5)
    assert seen == [1, 2, 1]


async def test_a_broken_watch_starts_again_from_a_new_list() -> None:
    api = FakeApi(item("a"))
    async with mirror(api) as live:
        api.items = [item("c")]
        api.events.put_nowait(ApiError(410, "Expired", "too old"))
        await live.until(lambda objects: set(objects) == {"c"}, "c alone", 5)
        api.events.put_nowait(("ADDED", item("d", 12)))
        await live.until(lambda objects: "d" in objects, "d", 5)
    assert api.watched == ["7", "7"]


async def test_what_never_comes_is_said_in_words() -> None:
    async with mirror(FakeApi()) as live:
        with pytest.raises(LabError, match=r"waited 0\.05 s for Godot"):
            await live.until(bool, "Godot", 0.05)
