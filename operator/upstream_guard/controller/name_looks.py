"""Asks the cluster's DNS for a guarded Service's name, while requests fail at a gateway and every probe is good.

Plain gateways mostly lead to a Service by its name, and resolve it again and again. What DNS says counts only
once it has been seen to know this cluster: an operator outside it may ask a server that knows no Service.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from upstream_guard.controller.errands import Errands
from upstream_guard.core.evidence import NameLook
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.resolution import LookupResult, Question, RecordType, Reply

KNOWN: Final = ObjectRef("default", "kubernetes")
"""A Service that every cluster has."""
AGAIN_SECONDS: Final = 15.0
"""How often DNS is asked for that one, until it knows it; more often at first."""
PATIENCE_SECONDS: Final = 2.0
"""A question that takes longer has been answered too late for users; DNS may be back by then, and nobody would know."""
LIMIT: Final = 16
"""Questions under way at once, for all guards."""
_FOUND: Final = frozenset({LookupResult.ANSWER, LookupResult.NO_DATA})
"""A name without an A record may have another address."""


class Resolves(Protocol):
    """Who answers questions."""

    @property
    def cluster_domain(self) -> str:
        """The cluster's own domain."""

    async def ask(self, question: Question) -> Reply:
        """How one question ends; never raises."""


class NameLooks:
    """Asks what detection wants to know, one question at a time for each Service."""

    def __init__(
        self,
        resolver: Resolves,
        on_look: Callable[[ObjectRef, NameLook], None],
        clock: Callable[[], float],
    ) -> None:
        """Wire it.

        Args:
            resolver: Who answers.
            on_look: Told what came of each question.
            clock: Gives Unix seconds.
        """
        self._resolver = resolver
        self._on_look = on_look
        self._clock = clock
        self._tasks: Errands[ObjectRef] = Errands(LIMIT)
        self.trusted = False
        """DNS was seen to know this cluster."""

    async def run(self) -> None:
        """Find out whether DNS knows this cluster; returns when it does."""
        pause = AGAIN_SECONDS / 16
        while (await self._ask(KNOWN)).fault:
            await asyncio.sleep(pause)
            pause = min(2 * pause, AGAIN_SECONDS)
        self.trusted = True

    def want(self, service: ObjectRef) -> None:
        """Ask for a Service's name, unless that is being done."""
        if self.trusted:
            self._tasks.start(service, f"Asking for {service}", partial(self._look, service))

    def close(self) -> None:
        """Drop what is under way."""
        self._tasks.close()

    async def _look(self, service: ObjectRef) -> None:
        self._on_look(service, await self._ask(service))

    async def _ask(self, service: ObjectRef) -> NameLook:
        name = f"{service.name}.{service.namespace}.svc.{self._resolver.cluster_domain}"
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reply = await self._resolver.ask(Question(name, RecordType.A))
        except TimeoutError:
            return NameLook(self._clock(), name, "no answer")
        # What follows a colon is of one server and one try.
        fault = "" if reply.result in _FOUND else reply.detail.partition(":")[0] or reply.result
        return NameLook(self._clock(), name, fault)
