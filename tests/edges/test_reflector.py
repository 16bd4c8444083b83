"""The reflector against an API server: what it asks for, and what it passes on."""

import asyncio
import json
import time

import pytest
from aiohttp import web
from kubernetes.aio.config import ConfigException

from upstream_guard.kube.client import backoff_seconds
from upstream_guard.kube.reflector import Reflector

PATH = "/api/v1/pods"


def obj(name, version, value="a"):
    return {"metadata": {"uid": name, "name": name, "resourceVersion": version}, "value": value}


class Server:
    """One list, and watches that say what a test puts into `events`; None ends a watch."""

    def __init__(self, api):
        self.api = api
        self.items = [obj("one", "1")]
        self.version = "5"
        self.events = asyncio.Queue()
        self.list_failure = None
        api.handler = self.answer

    async def answer(self, request, body):
        if "watch" in request.query:
            return await self.watch(request)
        if self.list_failure:
            return self.api.failure(self.list_failure)
        return 200, {"metadata": {"resourceVersion": self.version}, "items": self.items}

    async def watch(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        while (event := await self.events.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    def say(self, kind, document):
        self.events.put_nowait({"type": kind, "object": document})

    @property
    def lists(self):
        return sum("watch" not in query for _, _, query, _ in self.api.requests)

    @property
    def watched_from(self):
        return [q["resourceVersion"] for _, _, q, _ in self.api.requests if "watch" in q]


@pytest.fixture
async def server(api):
    return Server(api)


@pytest.fixture
async def changes():
    return []


@pytest.fixture
def reflector(api, changes, background):
    def start(**options):
        made = Reflector(
            api.client,
            PATH,
            lambda o: o["value"],
            lambda old, new: changes.append((old, new)),
            **options,
        )
        background(made.run())
        return made

    return start


async def test_lists_then_passes_real_changes_on(server, reflector, changes, until):
    pods = reflector()
    await pods.synced.wait()
    assert changes == [(None, "a")]
    server.say("MODIFIED", obj("one", "6"))  # a heartbeat: parsed, it is the same
    server.say("MODIFIED", obj("one", "7", "b"))
    server.say("ADDED", obj("two", "8", "c"))
    server.say("DELETED", obj("one", "9", "b"))
    await until(lambda: len(changes) == 4)
    assert changes[1:] == [("a", "b"), (None, "c"), ("b", None)]
    assert pods.items == {"two": "c"}


async def test_resumes_from_the_last_version_seen_bookmarks_included(server, reflector, until):
    reflector()
    server.say("BOOKMARK", {"metadata": {"resourceVersion": "77"}})
    server.events.put_nowait(None)
    await until(lambda: len(server.watched_from) == 2)
    assert server.watched_from == ["5", "77"]
    assert server.lists == 1


async def test_knows_since_when_the_server_is_silent(server, reflector, clock, until):
    pods = reflector(clock=clock)
    clock.now += 100
    await pods.synced.wait()
    assert (pods.resource, pods.age) == ("pods", 0)
    clock.now += 60
    assert pods.age == 60
    server.say("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    await until(lambda: pods.age == 0)
    server.list_failure = 403
    server.say("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"})
    lists = server.lists
    clock.now += 60
    await until(lambda: server.lists > lists + 1)
    assert pods.age == 60


async def test_lists_again_when_its_version_is_too_old(server, reflector, changes, until):
    pods = reflector()
    await pods.synced.wait()
    server.items, server.version = [obj("two", "90", "c")], "99"
    server.say("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})
    await until(lambda: len(server.watched_from) == 2)
    assert server.watched_from == ["5", "99"]
    assert changes == [(None, "a"), ("a", None), (None, "c")]


async def test_watches_that_end_at_once_are_not_repeated_in_a_hot_loop(server, reflector, until):
    for _ in range(3):
        server.events.put_nowait(None)
    began = time.monotonic()
    reflector()
    await until(lambda: len(server.watched_from) == 4)
    assert time.monotonic() - began >= sum(backoff_seconds(n, 0.0) for n in (1, 2, 3))


@pytest.mark.parametrize("status", [404, 403])
async def test_an_optional_resource_may_be_absent_or_not_for_us(server, reflector, changes, status):
    server.list_failure = status
    gateways = reflector(optional=True)
    await gateways.synced.wait()
    assert gateways.items == {}
    assert changes == []


@pytest.mark.parametrize("status", [404, 403])
async def test_what_was_absent_for_a_moment_is_soon_known(
    server, reflector, changes, until, status
):
    """Right after its RBAC was applied, an API server still refuses for a moment."""
    server.list_failure = status
    began = time.monotonic()
    reflector(optional=True)
    await until(lambda: server.lists == 1)
    server.list_failure = None
    await until(lambda: changes == [(None, "a")])
    assert time.monotonic() - began < 5.0


async def test_what_stays_absent_is_asked_for_ever_more_rarely(server, reflector, until):
    server.list_failure = 404
    began = time.monotonic()
    reflector(optional=True)
    await until(lambda: server.lists == 4)
    assert time.monotonic() - began >= (0.5 + 1 + 2) * 2 / 3


async def test_a_needed_resource_is_asked_for_until_it_can_be_read(server, reflector, until):
    server.list_failure = 403
    pods = reflector()
    await until(lambda: server.lists >= 2)
    assert not pods.synced.is_set()
    server.list_failure = None
    await pods.synced.wait()


async def test_an_answer_that_is_not_json_is_no_answer(api, server, reflector, until):
    good = api.handler

    async def portal(request, body):
        api.handler = good
        return web.Response(text="<html>please log in")

    api.handler = portal
    pods = reflector()
    await until(pods.synced.is_set)
    assert server.lists == 2


async def test_a_token_that_cannot_be_refreshed_is_tried_again(api, server, reflector, until):
    failures = iter([ConfigException("Token file exists but empty."), OSError("no such file")])

    def refresh(configuration):
        error = next(failures, None)
        if error:
            raise error

    api.client.configuration.refresh_api_key_hook = refresh
    pods = reflector()
    await until(pods.synced.is_set)
