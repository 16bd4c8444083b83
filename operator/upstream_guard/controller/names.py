"""Follows the names of one guard's external upstreams: asks DNS when it is time, and remembers."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final, Protocol

from upstream_guard.core.allowance import AllowList
from upstream_guard.core.model import Upstream
from upstream_guard.core.resolution import (
    Known,
    Question,
    Reply,
    due,
    learn,
    next_time,
    questions,
)
from upstream_guard.metrics import Metrics

logger = logging.getLogger(__name__)

MAX_PARALLEL: Final = 50
"""Questions under way at a time, of all guards."""
MIN_PAUSE: Final = 0.01
RESTART_SECONDS: Final = 1.0
"""After a mistake of ours."""


class Asks(Protocol):
    """Who answers questions; never raises."""

    async def ask(self, question: Question) -> Reply:
        """How one question ends."""


class NameFollower:
    """One guard's names. `memory` is what decisions are made from."""

    def __init__(
        self,
        resolver: Asks,
        allow: AllowList,
        metrics: Metrics,
        limit: asyncio.Semaphore,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Wire it; nothing is asked before `follow`.

        Args:
            resolver: Who answers.
            allow: Names that may be asked for.
            metrics: Where questions are counted.
            limit: How many questions may be under way.
            on_change: Called after each round of answers, whatever they were.
            clock: Unix seconds.
        """
        self._resolver = resolver
        self._allow = allow
        self._metrics = metrics
        self._limit = limit
        self._on_change = on_change
        self._clock = clock
        self._upstreams: tuple[Upstream, ...] = ()
        self._families: tuple[str, ...] = ()
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.memory: dict[Question, Known] = {}

    def follow(self, upstreams: tuple[Upstream, ...], families: tuple[str, ...]) -> None:
        """Ask for exactly these from now on."""
        if (upstreams, families) != (self._upstreams, self._families):
            self._upstreams, self._families = upstreams, families
            self._kick.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="names")
            self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        """Ask nothing more."""
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A mistake of ours must not go unheard, nor end the following: the next evaluation begins anew."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Following names failed, and begins anew", exc_info=error)
            asyncio.get_running_loop().call_later(RESTART_SECONDS, self._on_change)

    async def _run(self) -> None:
        while True:
            self._kick.clear()
            while pending := due(self._asked(), self.memory, self._clock()):
                await self._ask_all(pending)
            self._on_change()
            pause = next_time(self._asked(), self.memory, self._clock()) - self._clock()
            try:
                async with asyncio.timeout(max(MIN_PAUSE, pause)):
                    await self._kick.wait()
            except TimeoutError:
                continue

    def _asked(self) -> tuple[Question, ...]:
        return questions(self._upstreams, self.memory, self._allow, self._families)

    async def _ask_all(self, pending: tuple[Question, ...]) -> None:
        replies = await asyncio.gather(*(self._ask(question) for question in pending))
        now = self._clock()
        for question, reply in zip(pending, replies, strict=True):
            self._metrics.dns_lookups.labels(reply.result.value).inc()
            jitter = random.random()  # noqa: S311  # jitter
            self.memory[question] = learn(self.memory.get(question), reply, now, jitter)
        asked = set(self._asked())
        for question in self.memory.keys() - asked:
            del self.memory[question]

    async def _ask(self, question: Question) -> Reply:
        async with self._limit:
            return await self._resolver.ask(question)
