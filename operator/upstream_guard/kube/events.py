"""Events, deduplicated as events.k8s.io means it: one object per story, then a series on it."""

import asyncio
import logging
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from upstream_guard.core.names import COMPONENT
from upstream_guard.kube.client import ApiError, Json, KubeClient, pause_before_retry
from upstream_guard.kube.gates import rfc3339_micro

logger = logging.getLogger(__name__)

SERIES_SECONDS = 360.0
"""A story not told again for so long is over; the next telling is a new Event (client-go's 6 min)."""
SERIES_WRITE_SECONDS = 30.0
"""At most one write per story and this time, however often it is told."""
OWED_SECONDS = 5.0
"""How often it is looked whether a count that was not written may be written now."""
PATIENCE_SECONDS = 0.15
"""How long an event waits that follows a change of an upstream list, whose way through the API server comes first."""
MAX_STORIES = 4096
MAX_QUEUE = 1000
MAX_NOTE = 1024
"""The API refuses longer notes."""
MAX_TRIES = 5
NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    def reference(self) -> Json:
        """As a core/v1 ObjectReference."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
        }


@dataclass(frozen=True, slots=True)
class Event:
    """One thing worth telling a user."""

    regarding: Subject
    type: str
    reason: str
    action: str
    note: str
    related: Subject | None = None
    worded: bool = False
    """Other words make another story, for numbers matter: of a series, only the first note is kept."""
    patient: bool = False
    """It may wait a moment for what users depend on."""


@dataclass(frozen=True, slots=True)
class _Told:
    """An event in the queue, and the Unix time at which it was told."""

    event: Event
    at: float


@dataclass(slots=True)
class _Story:
    name: str
    count: int
    last_told: float
    last_written: float


class EventRecorder:
    """Takes events without waiting and writes them in the background.

    Telling never blocks and never fails: where the API server is away for longer than the retries
    last, or the queue is full, the event is dropped and logged.
    """

    def __init__(self, client: KubeClient, instance: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._instance = instance
        self._clock = clock
        self._stories: OrderedDict[tuple[object, ...], _Story] = OrderedDict()
        self._queue: asyncio.Queue[_Told] = asyncio.Queue(MAX_QUEUE)
        self._owed: dict[tuple[object, ...], Event] = {}
        """The last telling of each story that was counted and not written yet."""

    def tell(self, event: Event) -> None:
        """Queue an event."""
        try:
            self._queue.put_nowait(_Told(event, self._clock()))
        except asyncio.QueueFull:
            logger.warning("Event dropped, the queue is full: %s %s", event.reason, event.note)

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            try:
                async with asyncio.timeout(OWED_SECONDS if self._owed else None):
                    told = await self._queue.get()
            except TimeoutError:
                await self._pay()
            else:
                if told.event.patient:
                    waited = self._clock() - told.at
                    await asyncio.sleep(min(PATIENCE_SECONDS, PATIENCE_SECONDS - waited))
                await self._write(told)

    async def drain(self, timeout: float) -> None:
        """Write what is queued, for at most `timeout` seconds; for the end of the process."""
        try:
            async with asyncio.timeout(timeout):
                while not self._queue.empty():
                    await self._write(self._queue.get_nowait())
        except TimeoutError:
            logger.warning("%d events not written before the end", self._queue.qsize())

    async def _write(self, told: _Told) -> None:
        event, now = told.event, told.at
        key = _key(event)
        story = self._stories.get(key)
        try:
            goes_on = story is not None and now - story.last_told <= SERIES_SECONDS
            if story is None or not goes_on or not await self._continue(story, event, now):
                await self._retried(lambda: self._create(key, event, now))
        except ApiError as error:
            logger.warning("Event %s (%s) not written: %s", event.reason, event.note, error)

    async def _pay(self) -> None:
        """Write the counts that are owed and may be written again."""
        now = self._clock()
        for key, event in list(self._owed.items()):
            story = self._stories.get(key)
            if story is not None and now - story.last_written < SERIES_WRITE_SECONDS:
                continue
            del self._owed[key]
            try:
                if story is not None:
                    await self._write_series(story, event)
            except ApiError as error:
                logger.info("Count of event %s not written: %s", event.reason, error)

    async def _create(self, key: tuple[object, ...], event: Event, now: float) -> None:
        namespace = event.regarding.namespace or "default"
        name = f"{event.regarding.name[:200]}.{secrets.token_hex(8)}"
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": rfc3339_micro(now),
            "reportingController": COMPONENT,
            "reportingInstance": self._instance[:128],
            "action": event.action,
            "reason": event.reason,
            "regarding": event.regarding.reference(),
            "note": event.note[:MAX_NOTE],
            "type": event.type,
        }
        if event.related is not None:
            body["related"] = event.related.reference()
        await self._client.create(_collection(namespace), body)
        self._stories[key] = _Story(name, 1, now, now)
        self._stories.move_to_end(key)
        while len(self._stories) > MAX_STORIES:
            self._stories.popitem(last=False)

    async def _continue(self, story: _Story, event: Event, now: float) -> bool:
        """Count one more telling; False where somebody deleted the Event."""
        story.count += 1
        story.last_told = now
        key = _key(event)
        if now - story.last_written < SERIES_WRITE_SECONDS:
            self._owed[key] = event
            return True
        self._owed.pop(key, None)
        try:
            await self._write_series(story, event)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return False
        return True

    async def _write_series(self, story: _Story, event: Event) -> None:
        story.last_written = self._clock()
        series = {"count": story.count, "lastObservedTime": rfc3339_micro(story.last_told)}
        path = f"{_collection(event.regarding.namespace or 'default')}/{story.name}"
        # Nothing but the series of an Event may be changed (Kubernetes: ValidateEventUpdate).
        await self._retried(lambda: self._client.patch(path, {"series": series}))

    async def _retried(self, write: Callable[[], object]) -> None:
        for attempt in range(1, MAX_TRIES + 1):
            try:
                await write()  # type: ignore[misc]  # both writes are coroutines
            except ApiError as error:
                if not error.transient or attempt == MAX_TRIES:
                    raise
                await pause_before_retry(attempt, random.random())  # noqa: S311  # jitter
            else:
                return


def _key(event: Event) -> tuple[object, ...]:
    """What makes two tellings one story: all but the note, unless the event is `worded`."""
    words = event.note if event.worded else ""
    return (event.regarding, event.related, event.type, event.reason, event.action, words)


def _collection(namespace: str) -> str:
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
