"""The status writer against an API server: compared first, rarely, the latest wins, and it outlives guards."""

import asyncio
import time

import pytest

from upstream_guard.controller.guards import GuardBook
from upstream_guard.controller.statuses import (
    GATHER_SECONDS,
    WRITE_SECONDS,
    StatusWriter,
    status_patch,
)
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.names import API_VERSION

SHOP, CART = ObjectRef("prod", "shop"), ObjectRef("prod", "cart")


def guard(ref, status=None):
    return {
        "apiVersion": API_VERSION,
        "kind": "UpstreamGuard",
        "metadata": {"namespace": ref.namespace, "name": ref.name, "uid": f"u-{ref.name}"},
        "spec": {"targetRef": {"name": ref.name}},
        "status": status or {},
    }


@pytest.fixture
async def book():
    made = GuardBook()
    made.put(guard(SHOP, {"summary": {"endpoints": "1/1"}, "old": 1}))
    made.put(guard(CART))
    return made


@pytest.fixture
async def writer(api, book, background):
    async def accept(request, body):
        return 200, body

    api.handler = accept
    made = StatusWriter(api.client, book)
    background(made.run())
    return made


def test_the_patch_from_one_status_to_another():
    assert status_patch({"a": 1, "b": {"c": 1}, "d": 1}, {"a": 1, "b": {"c": 2}}) == {
        "b": {"c": 2},
        "d": None,
    }
    assert status_patch({"a": [1]}, {"a": [1]}) == {}


async def test_writes_the_difference_to_the_status_of_that_very_guard(api, writer, until):
    writer.want(SHOP, {"summary": {"endpoints": "2/2"}})
    await until(lambda: api.requests)
    verb, path, _, body = api.requests[0]
    assert verb == "PATCH"
    assert path.endswith("/namespaces/prod/upstreamguards/shop/status")
    assert body == {
        "metadata": {"uid": "u-shop"},
        "status": {"summary": {"endpoints": "2/2"}, "old": None},
    }


async def test_an_equal_status_is_not_written(api, writer, until):
    writer.want(SHOP, {"summary": {"endpoints": "1/1"}, "old": 1})
    writer.want(CART, {"summary": {}})
    await until(lambda: writer.current(CART) == {"summary": {}})
    assert len(api.requests) == 1


async def test_at_most_one_write_per_second_and_the_latest_wins(api, writer, until):
    began = time.monotonic()
    for number in range(200):
        writer.want(SHOP, {"n": number})
        await asyncio.sleep(0)
    await until(lambda: writer.current(SHOP) == {"n": 199})
    for number in range(200, 400):
        writer.want(SHOP, {"n": number})
        await asyncio.sleep(0)
    await until(lambda: writer.current(SHOP) == {"n": 399})
    writes = api.bodies("PATCH")
    assert len(writes) == 2
    assert time.monotonic() - began >= WRITE_SECONDS


async def test_what_changes_together_is_written_together(api, writer, until):
    began = time.monotonic()
    writer.want(SHOP, {"n": 1})
    await asyncio.sleep(0)
    writer.want(SHOP, {"n": 2})
    await until(lambda: api.requests)
    assert time.monotonic() - began >= GATHER_SECONDS
    assert [b["status"]["n"] for b in api.bodies("PATCH")] == [2]


async def test_nothing_is_kept_of_a_guard_that_is_not_known(api, book, writer, until):
    writer.want(ObjectRef("prod", "nobody"), {"n": 1})
    await until(lambda: not writer._wanted)
    assert not writer._not_before
    assert not api.requests


async def test_a_status_wanted_back_while_another_is_being_written_is_not_lost(api, writer, until):
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(request, body):
        arrived.set()
        await go.wait()
        return 200, body

    api.handler = slow
    before = writer.current(SHOP)
    writer.want(SHOP, {"n": 1})
    await arrived.wait()
    writer.want(SHOP, before)
    go.set()
    await until(lambda: len(api.requests) == 2)
    await until(lambda: writer.current(SHOP) == before)


async def test_a_failed_write_is_tried_again(api, writer, until):
    good, answers = api.handler, iter([500])

    async def once(request, body):
        status = next(answers, None)
        return api.failure(status) if status else await good(request, body)

    api.handler = once
    writer.want(SHOP, {"n": 1})
    await until(lambda: writer.current(SHOP) == {"n": 1})
    assert len(api.requests) == 2


async def test_guards_that_go_while_others_are_written_do_not_end_the_writer(
    api, writer, book, until
):
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(request, body):
        arrived.set()
        await go.wait()
        return 200, body

    api.handler = slow
    writer.want(SHOP, {"n": 1})
    writer.want(CART, {"n": 1})
    await arrived.wait()
    for ref in (SHOP, CART):
        book.remove(ref)
        writer.forget(ref)
    go.set()
    book.put(guard(CART))
    writer.want(CART, {"n": 2})
    await until(lambda: writer.current(CART) == {"n": 2})
    assert SHOP not in writer._written
    assert SHOP not in writer._not_before


def test_what_an_inner_object_no_longer_has_is_taken_out_of_it():
    old = {"drain": {"mode": "Enforce", "surge": {"from": 1}}, "risks": [1], "gone": {"a": 1}}
    new = {"drain": {"mode": "Enforce"}, "risks": [1]}
    assert status_patch(old, new) == {"drain": {"surge": None}, "gone": None}
    assert status_patch(new, new) == {}
