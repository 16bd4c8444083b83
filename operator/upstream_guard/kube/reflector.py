"""List, then watch, for ever: keeps a dictionary of parsed objects in step with the API server."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from upstream_guard.kube.client import ApiError, Json, KubeClient, pause_before_retry

logger = logging.getLogger(__name__)

T = TypeVar("T")

FORBIDDEN = 403
ABSENT = frozenset({404, FORBIDDEN})
"""An optional resource is not there, or we may not read it; RBAC answers before the API is looked up."""
ABSENT_RETRY_SECONDS = 30.0
"""How often an optional resource (a CRD that is not installed) is asked for again."""
ABSENT_FIRST_RETRY_SECONDS = 0.5
"""After the first refusal, doubled with each one: RBAC that was just applied, or an API server that has
just started, refuses for a moment what it then allows, and until then nothing of it is seen."""

METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"


class Reflector(Generic[T]):
    """One resource, cluster-wide or in one namespace.

    `on_change(old, new)` is called for real changes only: two objects that parse to equal values
    are the same, so heartbeats and managedFields noise cost nothing downstream.
    """

    def __init__(
        self,
        client: KubeClient,
        path: str,
        parse: Callable[[Json], T],
        on_change: Callable[[T | None, T | None], None],
        *,
        params: Mapping[str, str] | None = None,
        optional: bool = False,
        metadata_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._path = path
        self._clock = clock
        self._heard = clock()
        self._parse = parse
        self._on_change = on_change
        self._params = dict(params or {})
        self._optional = optional
        self._metadata_only = metadata_only
        self.items: dict[str, T] = {}
        """Parsed objects by UID."""
        self.denied = False
        """The last answer was that we may not read it."""
        self.synced = asyncio.Event()
        """Set once the first list is in (or the optional resource is known to be absent)."""

    @property
    def resource(self) -> str:
        """Its plural name."""
        return self._path.rpartition("/")[2]

    @property
    def age(self) -> float:
        """Seconds since the API server last said something of it, be it that it is not there."""
        return self._clock() - self._heard

    async def run(self) -> None:
        """Follow the resource until cancelled; errors are retried with back-off and jitter."""
        attempt, absent = 0, 0
        while True:
            try:
                version = await self._list()
                attempt, absent = 0, 0
                await self._follow(version)
            except ApiError as error:
                if error.status in ABSENT and self._optional:
                    self._absent(error)
                    await asyncio.sleep(_absent_seconds(absent, random.random()))  # noqa: S311  # jitter
                    absent += 1
                    continue
                attempt += 1
                if error.status == 410:
                    await pause_before_retry(attempt, random.random())  # noqa: S311  # jitter
                    continue
                level = logging.WARNING if attempt in {1, 10, 100} else logging.DEBUG
                logger.log(level, "Watch of %s failed, will retry: %s", self._path, error)
                await pause_before_retry(attempt, random.random())  # noqa: S311  # jitter

    def _absent(self, error: ApiError) -> None:
        if error.status == FORBIDDEN and not self.denied:
            logger.warning("%s is left out, since it may not be read: %s", self._path, error)
        self.denied = error.status == FORBIDDEN
        self._heard = self._clock()
        self._replace_all({})

    async def _list(self) -> str:
        objects, version = await self._client.list_pages(
            self._path, self._params, accept=METADATA_LIST if self._metadata_only else None
        )
        self.denied = False
        self._heard = self._clock()
        self._replace_all({str(o["metadata"]["uid"]): self._parse(o) for o in objects})
        return version

    async def _follow(self, version: str) -> None:
        """Watch, and watch again from the last version seen, until the server says 410."""
        attempt = 0
        accept = METADATA if self._metadata_only else None
        while True:
            try:
                async for kind, obj in self._client.watch(
                    self._path, version, self._params, accept=accept
                ):
                    attempt = 0
                    self._heard = self._clock()
                    version = str(obj["metadata"]["resourceVersion"])
                    if kind != "BOOKMARK":
                        self._apply(kind, obj)
            except ApiError as error:
                if not error.transient:
                    raise
            # Also where the server ended it in peace: it may do so at once, again and again.
            attempt += 1
            await pause_before_retry(attempt, random.random())  # noqa: S311  # jitter

    def _apply(self, kind: str, obj: Json) -> None:
        uid = str(obj["metadata"]["uid"])
        if kind == "DELETED":
            old = self.items.pop(uid, None)
            if old is not None:
                self._on_change(old, None)
            return
        self._set(uid, self._parse(obj))

    def _set(self, uid: str, new: T) -> None:
        old = self.items.get(uid)
        if old != new:
            self.items[uid] = new
            self._on_change(old, new)

    def _replace_all(self, fresh: Mapping[str, T]) -> None:
        for uid in [uid for uid in self.items if uid not in fresh]:
            self._on_change(self.items.pop(uid), None)
        for uid, new in fresh.items():
            self._set(uid, new)
        self.synced.set()


def _absent_seconds(attempt: int, jitter: float) -> float:
    """How long to wait after so many refusals before this one; `jitter` in [0, 1) takes off up to a third."""
    doubled = ABSENT_FIRST_RETRY_SECONDS * 2.0 ** min(attempt, 10)
    return min(ABSENT_RETRY_SECONDS, doubled) * (1 - jitter / 3)
