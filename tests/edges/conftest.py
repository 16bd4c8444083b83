"""A small API server on loopback: scripted answers, everything recorded. For tests of kube/ and controller/."""

import asyncio
import json
import time

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from upstream_guard.kube.client import KubeClient

DEADLINE_SECONDS = 5.0


class FakeApi:
    """`handler(request, body)` returns `(status, document)`, or a response that it made itself."""

    def __init__(self):
        self.requests = []
        """(verb, path, query, body), oldest first."""
        self.handler = None
        self.client = None

    async def serve(self, request):
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.requests.append((request.method, request.path, dict(request.query), body))
        answer = await self.handler(request, body)
        if isinstance(answer, web.StreamResponse):
            return answer
        status, document = answer
        return web.json_response(document, status=status)

    def bodies(self, verb):
        return [body for v, _, _, body in self.requests if v == verb]

    @staticmethod
    def failure(status, reason=""):
        return status, {"kind": "Status", "code": status, "reason": reason, "message": "no"}


@pytest.fixture
async def api():
    fake = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    fake.client = KubeClient(ApiClient(configuration))
    yield fake
    await fake.client.close()
    await runner.cleanup()


@pytest.fixture
def until():
    """Wait for something to become true, or fail."""

    async def wait(condition):
        end = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            await asyncio.sleep(0.005)

    return wait


class Clock:
    """Time that a test moves."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def background():
    """Start coroutines that end with the test."""
    tasks = []

    def start(coroutine):
        tasks.append(asyncio.ensure_future(coroutine))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
