"""What the demo hears of the running operator, against an API server made up here."""

import asyncio
from typing import Any, cast

import pytest
from tests.core.test_demo_telling import EVENT
from tests.edges.test_demo_mirror import FakeApi

from upstream_guard.kube.client import ApiError, KubeClient
from upstream_guard.lab.demo.hearing import Hearing
from upstream_guard.lab.model import LabError

Json = dict[str, Any]


def event(uid: str, version: int, **fields: object) -> Json:
    return {**EVENT, "metadata": {"uid": uid, "resourceVersion": str(version)}, **fields}


async def test_it_takes_down_what_is_told_while_it_listens(until: Any) -> None:
    api = FakeApi(event("old", 1))
    async with Hearing(cast("KubeClient", api), "prod", "shop") as hearing:
        for item in (
            event("a", 2),
            event("b", 3, regarding={"name": "cart"}),
            event("c", 4, reason="RisksFound"),
            event("d", 5, action="PredictScaleIn"),
        ):
            api.events.put_nowait(("ADDED", item))
        await until(lambda: len(hearing.told) == 2)
        assert [told.action for told in hearing.told] == ["PredictRollout", "PredictScaleIn"]
        again = {"count": 2, "lastObservedTime": "2026-11-26T07:00:05.000000Z"}
        api.events.put_nowait(("MODIFIED", event("a", 6, series=again)))
        api.events.put_nowait(("MODIFIED", event("a", 7, series=again)))
        await until(lambda: len(hearing.told) == 3)
    assert hearing.told[2].written > hearing.told[0].written
    assert hearing.told[0].seen <= hearing.told[2].seen


async def test_a_broken_watch_tells_nothing_twice(until: Any) -> None:
    api = FakeApi()
    async with Hearing(cast("KubeClient", api), "prod", "shop") as hearing:
        api.events.put_nowait(("ADDED", event("a", 2)))
        await until(lambda: len(hearing.told) == 1)
        api.items = [event("a", 2), event("b", 3)]
        api.events.put_nowait(ApiError(410, "Expired", "too old"))
        await until(lambda: len(hearing.told) == 2)
        await asyncio.sleep(0)
        assert len(hearing.told) == 2


async def test_it_waits_to_be_told_and_not_for_ever() -> None:
    api = FakeApi()
    async with Hearing(cast("KubeClient", api), "prod", "shop") as hearing:
        with pytest.raises(LabError, match="to tell of a window of shop"):
            await hearing.until_told(0.05)
        api.events.put_nowait(("ADDED", event("a", 2)))
        await hearing.until_told(5)
        assert len(hearing.told) == 1
