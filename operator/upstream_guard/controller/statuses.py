"""Writes guards' status: compared first, one write per guard and second at most, the latest wins."""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from typing import Any

from upstream_guard.controller.guards import GuardBook
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.names import API_VERSION, GUARD_PLURAL
from upstream_guard.kube.client import MERGE, ApiError, KubeClient, backoff_seconds

logger = logging.getLogger(__name__)

Json = Mapping[str, Any]

WRITE_SECONDS = 1.0
"""A guard's status is written at most once in this time."""
GATHER_SECONDS = 0.2
"""How long a status waits for what else changes: then a change of an upstream list, of which it tells, is through."""


def status_patch(old: Json, new: Json) -> dict[str, Any]:
    """The merge patch (RFC 7386) from one status to another; empty where they are equal.

    Objects are merged key by key, so what an inner one no longer has must be named as well.
    """
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = status_patch(before, value)
            patch.update({key: inner} if inner else {})
        elif before != value:
            patch[key] = value
    return patch


class StatusWriter:
    """Takes statuses without waiting and writes them in the background."""

    def __init__(self, client: KubeClient, book: GuardBook) -> None:
        self._client = client
        self._book = book
        self._wanted: dict[ObjectRef, Json] = {}
        self._written: dict[ObjectRef, tuple[str, Json]] = {}
        self._not_before: dict[ObjectRef, float] = {}
        self._failures: dict[ObjectRef, int] = {}
        self._writing: set[ObjectRef] = set()
        self._kick = asyncio.Event()

    def want(self, ref: ObjectRef, status: Json) -> None:
        """Have a status written, if it differs from what the cluster has."""
        waits = ref in self._wanted or ref in self._writing
        if self.current(ref) == status and not waits:
            return
        if not waits:
            soon = time.monotonic() + GATHER_SECONDS
            self._not_before[ref] = max(soon, self._not_before.get(ref, 0.0))
        self._wanted[ref] = status
        self._kick.set()

    def current(self, ref: ObjectRef) -> Json:
        """The status as we last wrote it, or else as we last saw it."""
        entry = self._book.get(ref)
        if entry is None:
            return {}
        uid, written = self._written.get(ref, ("", {}))
        return written if uid == entry.uid else entry.status

    def forget(self, ref: ObjectRef) -> None:
        """The guard is gone."""
        for memory in (self._wanted, self._written, self._not_before, self._failures):
            memory.pop(ref, None)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            pause = await self._write_due()
            try:
                async with asyncio.timeout(pause):
                    await self._kick.wait()
            except TimeoutError:
                pass
            self._kick.clear()

    async def _write_due(self) -> float | None:
        """Write what may be written; seconds until the next may be, None where nothing waits."""
        now = time.monotonic()
        for ref in [r for r in self._wanted if self._not_before.get(r, 0.0) <= now]:
            status = self._wanted.pop(ref, None)
            if status is not None:  # the guard may go while another one's status is written
                await self._write(ref, status)
        waits = [self._not_before.get(ref, now) for ref in self._wanted]
        return max(0.05, min(waits) - time.monotonic()) if waits else None

    async def _write(self, ref: ObjectRef, status: Json) -> None:
        entry = self._book.get(ref)
        patch = status_patch(self.current(ref), status)
        if entry is None:
            self.forget(ref)
            return
        if not patch:
            return
        self._not_before[ref] = time.monotonic() + WRITE_SECONDS
        path = f"/apis/{API_VERSION}/namespaces/{ref.namespace}/{GUARD_PLURAL}/{ref.name}/status"
        self._writing.add(ref)
        try:
            await self._client.patch(
                path, {"metadata": {"uid": entry.uid}, "status": patch}, content_type=MERGE
            )
        except ApiError as error:
            self._retry_later(ref, status, error)
        else:
            self._failures.pop(ref, None)
            self._written[ref] = (entry.uid, status)
        finally:
            self._writing.discard(ref)
        if self._book.get(ref) is None:
            self.forget(ref)

    def _retry_later(self, ref: ObjectRef, status: Json, error: ApiError) -> None:
        if error.status in {404, 409}:
            return
        failures = self._failures.get(ref, 0) + 1
        self._failures[ref] = failures
        logger.log(
            logging.WARNING if failures == 1 else logging.DEBUG,
            "Status of guard %s not written, will retry: %s",
            ref,
            error,
        )
        jitter = random.random()  # noqa: S311  # jitter
        self._not_before[ref] = time.monotonic() + WRITE_SECONDS + backoff_seconds(failures, jitter)
        self._wanted.setdefault(ref, status)
