"""The gate writer against an API server: the latest decision counts, and refusals are not for ever."""

import asyncio
from dataclasses import replace

import pytest

from upstream_guard.controller import gate_writer
from upstream_guard.controller.gate_writer import HOLD_OFF_SECONDS, OVERLAY_SECONDS, GateWriter
from upstream_guard.core.admission import Decision
from upstream_guard.core.names import GATE
from upstream_guard.core.reasons import Reason
from upstream_guard.resources.kube_objects import parse_pod

POD = parse_pod(
    {
        "metadata": {"namespace": "prod", "name": "shop-1", "uid": "u1"},
        "spec": {"readinessGates": [{"conditionType": GATE}]},
        "status": {"conditions": [{"type": GATE, "status": "True"}]},
    }
)
OUT = Decision("u1", False, Reason.ENDPOINT_EJECTED, "connection refused")
BACK = Decision("u1", True, Reason.ENDPOINT_RESTORED, "seen to serve")


class Notes:
    def __init__(self):
        self.written, self.refused = [], []


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
async def writer(api, clock, notes):
    async def accept(request, body):
        return 200, {}

    api.handler = accept
    yield (made := GateWriter(api.client, clock, notes.written.append, notes.refused.append))
    made.abandon()


def values(api):
    return [body["status"]["conditions"][0]["status"] for body in api.bodies("PATCH")]


def fail_first(api, *statuses):
    good, answers = api.handler, iter(statuses)

    async def handler(request, body):
        status = next(answers, None)
        return api.failure(status) if status else await good(request, body)

    api.handler = handler


async def test_writes_one_condition_of_that_very_pod(api, writer, notes, until):
    writer.submit(POD, OUT)
    await until(lambda: notes.written)
    verb, path, _, body = api.requests[0]
    assert (verb, path) == ("PATCH", "/api/v1/namespaces/prod/pods/shop-1/status")
    assert body["metadata"] == {"uid": "u1"}
    (condition,) = body["status"]["conditions"]
    assert (condition["type"], condition["status"]) == (GATE, "False")


async def test_both_conditions_of_a_lost_endpoint_go_in_one_patch(api, writer, notes, until):
    writer.submit(POD, replace(OUT, force_not_ready=True))
    await until(lambda: notes.written)
    (body,) = api.bodies("PATCH")
    written = {c["type"]: c for c in body["status"]["conditions"]}
    assert {kind: c["status"] for kind, c in written.items()} == {GATE: "False", "Ready": "False"}
    assert "kubelet" in written["Ready"]["message"]


async def test_an_older_change_does_not_make_the_kubelet_look_late(writer, clock, notes, until):
    writer.submit(POD, OUT)
    await until(lambda: len(notes.written) == 1)
    clock.now += 60
    writer.submit(POD, BACK)
    assert writer.changed_at("u1") == clock.now
    await until(lambda: len(notes.written) == 2)


async def test_the_latest_decision_wins(api, writer, notes, until):
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(request, body):
        arrived.set()
        await go.wait()
        return 200, {}

    api.handler = slow
    writer.submit(POD, OUT)
    await arrived.wait()
    for decision in (BACK, OUT, BACK):
        writer.submit(POD, decision)
    go.set()
    await until(lambda: len(notes.written) == 2)
    assert values(api) == ["False", "True"]


async def test_a_server_error_is_retried(api, writer, notes, until):
    fail_first(api, 500, 503)
    writer.submit(POD, OUT)
    await until(lambda: notes.written)
    assert values(api) == ["False"] * 3


@pytest.mark.parametrize("status", [403, 404, 422])
async def test_a_refusal_holds_off_and_then_the_pod_is_decided_over_again(
    api, writer, notes, clock, until, monkeypatch, status
):
    monkeypatch.setattr(gate_writer, "HOLD_OFF_SECONDS", 0.1)
    fail_first(api, status)
    writer.submit(POD, OUT)
    await until(lambda: "u1" in writer._held_until)
    assert writer.overlay(POD).gate is True, "what was refused is not expected"
    writer.submit(POD, OUT)
    assert len(api.requests) == 1
    await until(lambda: notes.refused)
    writer.submit(POD, OUT)
    await until(lambda: notes.written)
    assert HOLD_OFF_SECONDS == 5.0


async def test_the_overlay_shows_the_pod_as_it_will_be_until_the_watch_does(
    api, writer, notes, clock, until
):
    writer.submit(POD, OUT)
    assert writer.overlay(POD).gate is False
    await until(lambda: notes.written and not writer._tasks)
    assert writer.overlay(POD).gate is False
    seen = replace(POD, gate=False)
    assert writer.overlay(seen) is seen
    assert writer.overlay(POD) is POD, "what comes after is somebody else's doing"
    assert writer.changed_at("u1") == clock.now


async def test_the_overlay_does_not_outlive_a_write_that_the_watch_never_shows(
    writer, notes, clock, until
):
    writer.submit(POD, OUT)
    await until(lambda: notes.written and not writer._tasks)
    clock.now += OVERLAY_SECONDS + 1
    assert writer.overlay(POD) is POD


@pytest.mark.parametrize("status", [200, 404])
async def test_nothing_is_kept_of_a_pod_that_goes_while_its_gate_is_written(
    api, writer, notes, until, status
):
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(request, body):
        arrived.set()
        await go.wait()
        return (200, {}) if status == 200 else api.failure(status)

    api.handler = slow
    writer.submit(POD, OUT)
    await arrived.wait()
    writer.forget("u1")
    go.set()
    await until(lambda: not writer._tasks)
    kept = (writer._orders, writer._expected, writer._changed_at, writer._held_until)
    assert not any(kept)
    assert notes.written == []


async def test_abandoned_writes_are_not_tried_again(api, writer, until):
    fail_first(api, *[500] * 100)
    writer.submit(POD, OUT)
    await until(lambda: api.requests)
    writer.abandon()
    await until(lambda: not writer._tasks)
