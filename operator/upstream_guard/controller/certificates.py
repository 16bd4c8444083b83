"""Watches when the certificates of one guard's external upstreams end."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Final

from upstream_guard.core.external import Slot
from upstream_guard.core.model import Guard
from upstream_guard.probes.certificates import HandshakeError, certificate_end

logger = logging.getLogger(__name__)

CHECK_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 60.0
"""After a round in which some address showed no certificate."""
MAX_ADDRESSES: Final = 16
"""Addresses of one upstream that are asked in a round."""

Place = tuple[str, str, int, str]
"""Upstream, address, port, server name."""


class CertificateWatch:
    """Asks each address of an upstream with `tls` once an hour, and whenever there is a new one."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        """Wire it.

        Args:
            on_change: Called after each round.
        """
        self._on_change = on_change
        self._places: tuple[Place, ...] = ()
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.ends: dict[str, float] = {}
        """The earliest end by upstream, Unix seconds; without those of which none was seen."""

    def watch(self, guard: Guard, slots: Mapping[str, Slot]) -> None:
        """Watch exactly the upstreams of this guard at these addresses."""
        places = tuple(_places(guard, slots))
        if places == self._places:
            return
        self._places = places
        for gone in self.ends.keys() - {place[0] for place in places}:
            del self.ends[gone]
        self._kick.set()
        if places and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name=f"certificates {guard.ref}")

    def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._places:
            self._kick.clear()
            complete = await self._round(self._places)
            self._on_change()
            pause = (CHECK_SECONDS if complete else RETRY_SECONDS) * (0.9 + random.random() / 5)  # noqa: S311
            try:
                async with asyncio.timeout(pause):
                    await self._kick.wait()
            except TimeoutError:
                continue

    async def _round(self, places: tuple[Place, ...]) -> bool:
        """Ask every place, one after another; whether all showed a certificate."""
        seen: dict[str, list[float]] = {}
        for upstream, address, port, name in places:
            try:
                end = await certificate_end(address, port, name)
            except HandshakeError as error:
                logger.debug("No certificate of %s at %s: %s", upstream, address, error)
            else:
                seen.setdefault(upstream, []).append(end)
        current = {place[0] for place in self._places}
        self.ends.update({k: min(ends) for k, ends in seen.items() if k in current})
        return sum(map(len, seen.values())) == len(places)


def _places(guard: Guard, slots: Mapping[str, Slot]) -> list[Place]:
    found: list[Place] = []
    for upstream in guard.upstreams:
        if upstream.tls is None:
            continue
        own = [s.wanted for _, s in sorted(slots.items()) if s.wanted.upstream == upstream.key]
        found += [
            (upstream.key, one.address, one.port, upstream.tls.server_name or one.name)
            for one in own[:MAX_ADDRESSES]
        ]
    return found
