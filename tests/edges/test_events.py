"""The recorder against an API server: one object per story, then a series on it."""

import time

import pytest

from upstream_guard.kube.events import (
    MAX_QUEUE,
    PATIENCE_SECONDS,
    SERIES_SECONDS,
    SERIES_WRITE_SECONDS,
    Event,
    EventRecorder,
    Subject,
)
from upstream_guard.kube.gates import rfc3339_micro

SUBJECT = Subject("upstreamguard.io/v1alpha1", "UpstreamGuard", "prod", "shop", "u1")


def event(note="it happened", reason="EndpointEjected", **more):
    return Event(SUBJECT, "Warning", reason, "Eject", note, **more)


@pytest.fixture
async def recorder(api, clock):
    api.status = 201

    async def answer(request, body):
        if api.status >= 400:
            return api.failure(api.status)
        return api.status, body

    api.handler = answer
    return EventRecorder(api.client, "replica-1", clock)


async def tell(recorder, *events):
    for one in events:
        recorder.tell(one)
    await recorder.drain(5.0)


async def test_the_first_telling_creates_an_event(api, recorder):
    await tell(recorder, event("x" * 5000))
    (body,) = api.bodies("POST")
    assert body["reason"] == "EndpointEjected"
    assert body["regarding"]["uid"] == "u1"
    assert len(body["note"]) == 1024
    assert api.requests[0][1] == "/apis/events.k8s.io/v1/namespaces/prod/events"


async def test_an_event_has_the_time_at_which_it_was_told(api, recorder, clock):
    told = clock.now
    recorder.tell(event())
    clock.now += 60
    await recorder.drain(5.0)
    (body,) = api.bodies("POST")
    assert body["eventTime"] == rfc3339_micro(told)


async def test_what_tells_of_the_list_waits_until_the_list_has_changed(
    api, recorder, until, background
):
    background(recorder.run())
    began = time.monotonic()
    recorder.tell(event(patient=True))
    await until(lambda: api.requests)
    assert time.monotonic() - began >= PATIENCE_SECONDS


async def test_a_clock_set_back_does_not_hold_events(api, recorder, clock, until, background):
    background(recorder.run())
    recorder.tell(event(patient=True))
    clock.now -= 3600
    await until(lambda: api.requests)


async def test_a_story_told_often_is_counted_and_written_rarely(api, recorder, clock):
    await tell(recorder, event())
    for _ in range(50):
        clock.now += 1
        await tell(recorder, event())
    patches = api.bodies("PATCH")
    assert len(patches) == 50 // SERIES_WRITE_SECONDS
    assert patches[0]["series"]["count"] == 31
    assert len(api.bodies("POST")) == 1


async def test_a_series_changes_nothing_else(api, recorder, clock):
    await tell(recorder, event())
    clock.now += SERIES_WRITE_SECONDS + 1
    await tell(recorder, event("in other words"))
    (patch,) = api.bodies("PATCH")
    assert set(patch) == {"series"}


async def test_where_words_matter_other_words_are_another_story(api, recorder):
    await tell(recorder, *(event(note, worded=True) for note in ("40 lost", "70 lost", "40 lost")))
    assert [body["note"] for body in api.bodies("POST")] == ["40 lost", "70 lost"]


async def test_a_count_that_was_not_written_is_owed(
    api, recorder, clock, background, until, monkeypatch
):
    monkeypatch.setattr("upstream_guard.kube.events.OWED_SECONDS", 0.01)
    background(recorder.run())
    for _ in range(3):
        recorder.tell(event())
    await until(lambda: api.bodies("POST"))
    clock.now += SERIES_WRITE_SECONDS + 1
    await until(lambda: api.bodies("PATCH"))
    (patch,) = api.bodies("PATCH")
    assert patch["series"]["count"] == 3


async def test_a_story_not_told_for_long_is_a_new_one(api, recorder, clock):
    await tell(recorder, event())
    clock.now += SERIES_SECONDS + 1
    await tell(recorder, event())
    assert len(api.bodies("POST")) == 2


async def test_other_reasons_are_other_stories(api, recorder):
    await tell(recorder, event(), event(reason="EndpointRestored"))
    assert len(api.bodies("POST")) == 2


async def test_an_event_that_somebody_deleted_is_made_anew(api, recorder, clock):
    await tell(recorder, event())
    good = api.handler

    async def gone(request, body):
        return api.failure(404) if request.method == "PATCH" else await good(request, body)

    api.handler = gone
    clock.now += SERIES_WRITE_SECONDS + 1
    await tell(recorder, event("again"))
    assert [body["note"] for body in api.bodies("POST")] == ["it happened", "again"]


async def test_a_refused_event_is_dropped_and_the_next_one_written(api, recorder):
    api.status = 403
    await tell(recorder, event())
    api.status = 201
    await tell(recorder, event(reason="EndpointRestored"))
    assert [body["reason"] for body in api.bodies("POST")] == [
        "EndpointEjected",
        "EndpointRestored",
    ]


async def test_transient_failures_are_retried(api, recorder):
    good, answers = api.handler, iter([500, 429])

    async def busy(request, body):
        status = next(answers, None)
        return api.failure(status) if status else await good(request, body)

    api.handler = busy
    await tell(recorder, event())
    assert len(api.bodies("POST")) == 3


async def test_telling_never_blocks_and_a_full_queue_drops(recorder, caplog):
    for _ in range(MAX_QUEUE + 1):
        recorder.tell(event())
    assert "the queue is full" in caplog.text
