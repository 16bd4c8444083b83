"""Writes the EndpointSlices of external upstreams: compared first, one guard at a time, new before old."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from upstream_guard.core.admission import Decision
from upstream_guard.core.model import EndpointSlice, Guard, ObjectRef
from upstream_guard.core.names import FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL
from upstream_guard.core.slices import is_ours
from upstream_guard.kube.client import APPLY, ApiError, KubeClient, pause_before_retry
from upstream_guard.kube.state import ClusterState
from upstream_guard.resources.kube_objects import parse_slice
from upstream_guard.resources.slices import build_slice

logger = logging.getLogger(__name__)

OVERLAY_SECONDS = 10.0
"""A write that the watch has not shown by then was undone by somebody before we could see it."""
NOT_FOUND = 404
COLLECTION = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"


@dataclass(slots=True)
class _Job:
    """What one guard wants."""

    guard: Guard
    slices: tuple[EndpointSlice, ...] = ()
    decisions: list[Decision] = field(default_factory=list)
    """What the slices say that was not told yet."""
    kick: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class SliceWriter:
    """Makes a Service's slices what they should be, and says what was done."""

    def __init__(
        self,
        client: KubeClient,
        state: ClusterState,
        clock: Callable[[], float],
        on_written: Callable[[ObjectRef, tuple[Decision, ...]], None],
        recheck: Callable[[ObjectRef], None],
    ) -> None:
        """Wire it.

        Args:
            client: The API server.
            state: What there is.
            clock: Unix seconds.
            on_written: Told of the decisions that the slices show from now on: guard, decisions.
            recheck: Called when a guard's slices should be compared again.
        """
        self._client = client
        self._state = state
        self._clock = clock
        self._on_written = on_written
        self._recheck = recheck
        self._jobs: dict[ObjectRef, _Job] = {}
        self._overlay: dict[ObjectRef, tuple[EndpointSlice | None, float]] = {}
        """By slice: what we wrote (None: deleted) and when; until the watch shows it."""

    def want(
        self, guard: Guard, slices: tuple[EndpointSlice, ...], decisions: tuple[Decision, ...]
    ) -> None:
        """Have a guard's slices written soon, if they differ from what is there."""
        job = self._jobs.get(guard.ref)
        if job is None:
            job = self._jobs[guard.ref] = _Job(guard)
        job.guard, job.slices = guard, slices
        job.decisions.extend(decisions)
        job.kick.set()
        idle = job.task is None or job.task.done()
        if idle and (job.decisions or not self._settled(job)):
            job.task = asyncio.create_task(self._work(job), name=f"slices {guard.ref}")

    def forget(self, guard: ObjectRef) -> None:
        """Write nothing more for a guard; what is there stays."""
        job = self._jobs.pop(guard, None)
        if job is not None and job.task is not None:
            job.task.cancel()

    def abandon(self) -> None:
        """Write nothing more at all: somebody else may control by now."""
        for guard in list(self._jobs):
            self.forget(guard)

    async def settle(self, timeout: float) -> None:
        """Wait for writes under way, for at most `timeout` seconds; for the end of the process."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def there(self, service: ObjectRef) -> dict[str, EndpointSlice]:
        """Our slices of a Service as they will be seen once our writes have come back, by name."""
        found = {s.ref.name: s for s in self._state.slices_of(service) if is_ours(s)}
        for ref, (slice_, at) in list(self._overlay.items()):
            if self._clock() - at > OVERLAY_SECONDS or found.get(ref.name) == slice_:
                del self._overlay[ref]
            elif ref.namespace == service.namespace and slice_ is None:
                found.pop(ref.name, None)
            elif slice_ is not None and ObjectRef(ref.namespace, slice_.service) == service:
                found[ref.name] = slice_
        return found

    def _settled(self, job: _Job) -> bool:
        return self.there(job.guard.service_ref) == {s.ref.name: s for s in job.slices}

    async def _work(self, job: _Job) -> None:
        attempt = 0
        while True:
            job.kick.clear()
            told = tuple(job.decisions)
            try:
                await self._bring_about(job)
            except ApiError as error:
                attempt += 1
                level = logging.WARNING if attempt == 1 else logging.DEBUG
                logger.log(level, "Slices of guard %s not written: %s", job.guard.ref, error)
                await pause_before_retry(attempt, random.random())  # noqa: S311  # jitter
                continue
            attempt = 0
            del job.decisions[: len(told)]
            if told:
                self._on_written(job.guard.ref, told)
            if not job.kick.is_set():
                return

    async def _bring_about(self, job: _Job) -> None:
        """Write what is missing or different, then delete what is too many: never less in between."""
        there = self.there(job.guard.service_ref)
        wanted = {s.ref.name: s for s in job.slices}
        for name, slice_ in wanted.items():
            if there.get(name) != slice_:
                await self._apply(job.guard, slice_, known=name in there)
        for name in sorted(there.keys() - wanted.keys()):
            await self._delete(there[name].ref)

    async def _apply(self, guard: Guard, slice_: EndpointSlice, *, known: bool) -> None:
        path = f"{COLLECTION.format(slice_.ref.namespace)}/{slice_.ref.name}"
        if not known:
            await self._check_free(path)
        written = await self._client.patch(
            path,
            build_slice(slice_, guard.ref.name),
            content_type=APPLY,
            params={"fieldManager": FIELD_MANAGER, "force": "true"},
        )
        self._overlay[slice_.ref] = (parse_slice(written), self._clock())
        asyncio.get_running_loop().call_later(OVERLAY_SECONDS + 1, self._recheck, guard.ref)

    async def _check_free(self, path: str) -> None:
        """A slice of that name that somebody else keeps is never touched."""
        try:
            found = await self._client.get(path)
        except ApiError as error:
            if error.status == NOT_FOUND:
                return
            raise
        labels = found["metadata"].get("labels") or {}
        if labels.get(MANAGED_BY_LABEL) != MANAGED_BY:
            raise ApiError(
                409, "NameTaken", f"{path} is somebody else's; delete it, or rename the Service"
            )

    async def _delete(self, ref: ObjectRef) -> None:
        try:
            await self._client.delete(f"{COLLECTION.format(ref.namespace)}/{ref.name}")
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
        self._overlay[ref] = (None, self._clock())
