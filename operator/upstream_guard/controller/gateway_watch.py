"""Watches the gateways in front of guarded Services: what they count, and which endpoints they hold."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from upstream_guard.controller.gateway_reader import Look, ReplicaReader
from upstream_guard.controller.gateway_targets import Target
from upstream_guard.core.evidence import GatewayDelta, UpstreamView
from upstream_guard.core.holding import (
    Departure,
    Detach,
    Whereabouts,
    departures,
    detached,
    whereabouts,
)
from upstream_guard.core.model import ObjectRef
from upstream_guard.gateways.adapter import Known
from upstream_guard.gateways.client import GatewayClient, ReadError, host_of, resolve

logger = logging.getLogger(__name__)

PEACE_SECONDS: Final = 5.0
"""Between two looks at a target."""
HURRY_SECONDS: Final = 1.0
"""The same while a change or a suspicion lasts."""
HURRY_FOR_SECONDS: Final = 15.0
"""How long a change makes haste, unless it is asked for again."""
JITTER: Final = 0.1
"""Part of an interval by which it varies, so that looks do not fall together."""
MAX_BACKOFF_SECONDS: Final = 60.0
MAX_TARGETS: Final = 256
MAX_LOOKS: Final = 16
"""Under way at a time."""
FIND_SECONDS: Final = 5.0
"""How often targets are looked for."""
RESOLVED_SECONDS: Final = 30.0
"""How long the addresses of a host name are believed."""
MAX_ADDRESSES: Final = 16
"""Read of one host name."""
DEPARTED_SECONDS: Final = 600.0
"""How long an endpoint that left is remembered."""
MAX_DEPARTED: Final = 1_000
"""Remembered of one Service."""

OnDelta = Callable[[GatewayDelta], None]
OnView = Callable[[UpstreamView], None]
OnDetach = Callable[[Detach], None]
OnScrape = Callable[[str, str], None]
"""Takes the gateway and the result of one look at it."""


@dataclass(slots=True)
class _Source:
    """One thing that is read of a target, and how it went lately."""

    name: str
    look: Callable[[], Awaitable[Look]]
    failures: int = 0
    due: float = 0.0
    told: str = ""
    """The problem that was logged; empty where there is none."""


@dataclass(slots=True)
class _Followed:
    reader: ReplicaReader
    sources: tuple[_Source, ...]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None

    @property
    def target(self) -> Target:
        return self.reader.target


class GatewayWatch:
    """One loop for each target. Everything runs on one event loop; texts are parsed beside it."""

    def __init__(
        self,
        client: GatewayClient,
        clock: Callable[[], float],
        random: Callable[[], float],
        *,
        peace: float = PEACE_SECONDS,
        hurry: float = HURRY_SECONDS,
    ) -> None:
        """Wire it.

        Args:
            client: Reads pages.
            clock: Unix seconds.
            random: A number in [0, 1).
            peace: Seconds between two looks.
            hurry: The same in haste.
        """
        self._client = client
        self._clock = clock
        self._random = random
        self._peace = peace
        self._hurry = hurry
        self._on_scrape: list[OnScrape] = []
        self._on_delta: list[OnDelta] = []
        self._on_view: list[OnView] = []
        self._on_detach: list[OnDetach] = []
        self._followed: dict[tuple[str, ...], _Followed] = {}
        self._views: dict[tuple[str, str, ObjectRef], UpstreamView] = {}
        self._ready: dict[ObjectRef, frozenset[str]] = {}
        self._departed: dict[ObjectRef, tuple[Departure, ...]] = {}
        self._hurried: dict[ObjectRef, float] = {}
        self._resolved: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._slots = asyncio.Semaphore(MAX_LOOKS)
        self._left_out = 0

    # What others tell and ask.

    def listen(
        self,
        *,
        on_scrape: OnScrape | None = None,
        on_delta: OnDelta | None = None,
        on_view: OnView | None = None,
        on_detach: OnDetach | None = None,
    ) -> None:
        """Have looks, deltas, views or detaches told."""
        self._on_scrape += [on_scrape] if on_scrape else []
        self._on_delta += [on_delta] if on_delta else []
        self._on_view += [on_view] if on_view else []
        self._on_detach += [on_detach] if on_detach else []

    def hurry(self, service: ObjectRef, seconds: float = HURRY_FOR_SECONDS) -> None:
        """Look at the gateways of a Service once a second for a while, beginning now."""
        now = self._clock()
        begins = self._hurried.get(service, 0.0) <= now
        self._hurried[service] = max(self._hurried.get(service, 0.0), now + seconds)
        if begins:
            for followed in self._followed.values():
                if service in followed.target.services:
                    followed.wake.set()

    def listed(self, service: ObjectRef, ready: frozenset[str]) -> None:
        """The EndpointSlices of a Service list these endpoints as ready now."""
        before = self._ready.get(service)
        if before is None or before == ready:
            return
        self._ready[service] = ready
        now = self._clock()
        known = (d for d in self._departed.get(service, ()) if now - d.at < DEPARTED_SECONDS)
        gone = departures(service, before, ready, known, now)
        self._departed[service] = tuple(sorted(gone, key=lambda d: d.at)[-MAX_DEPARTED:])
        self.hurry(service)

    def departures(self, service: ObjectRef) -> tuple[Departure, ...]:
        """Endpoints that have left the Service's EndpointSlices lately."""
        return self._departed.get(service, ())

    def views(self, service: ObjectRef) -> tuple[UpstreamView, ...]:
        """The last view of each replica of each gateway."""
        return tuple(view for view in self._views.values() if view.service == service)

    def whereabouts(self, gateway: str, departure: Departure) -> Whereabouts:
        """Whether an endpoint has left every replica of a gateway whose list can be read."""
        views = {v.replica: v for v in self.views(departure.service) if v.gateway == gateway}
        replicas = views.keys() | {
            followed.target.replica
            for followed in self._followed.values()
            if followed.target.gateway == gateway and followed.target.admin_url
        }
        return whereabouts(departure, replicas, views)

    # Following.

    async def run(self, find: Callable[[], Iterable[Target]]) -> None:
        """Find targets and read them, until cancelled."""
        try:
            while True:
                self.follow(await self._expand(find()))
                await asyncio.sleep(FIND_SECONDS)
        finally:
            self.follow(())

    def follow(self, targets: Iterable[Target]) -> None:
        """Read exactly these from now on. What is known of the ones that stay is kept."""
        wanted = {target.key: target for target in sorted(targets, key=lambda t: t.key)}
        self._bound(wanted)
        for key in self._followed.keys() - wanted.keys():
            self._drop(self._followed.pop(key))
        for key, target in wanted.items():
            if key in self._followed and not self._failed(self._followed[key]):
                self._followed[key].reader.target = target
            else:
                self._followed[key] = self._start(target)
        self._remember({known.service: known for t in wanted.values() for known in t.known})
        alive = {(f.target.gateway, s) for f in self._followed.values() for s in f.target.services}
        for view in [v for v in self._views.values() if (v.gateway, v.service) not in alive]:
            del self._views[view.gateway, view.replica, view.service]

    def _remember(self, known: Mapping[ObjectRef, Known]) -> None:
        """What is remembered of Services is kept for those that are followed."""
        for kept in (self._ready, self._departed, self._hurried):
            for service in kept.keys() - known.keys():
                kept.pop(service)
        for service, entry in known.items():
            self._ready.setdefault(service, entry.endpoints)

    def _failed(self, followed: _Followed) -> bool:
        """Whether its loop met a mistake of ours: that is told, and it is read anew."""
        task = followed.task
        if task is None or not task.done() or task.cancelled():
            return False
        logger.error(
            "Reading gateway %s at %s failed, and begins anew",
            followed.target.gateway,
            followed.target.replica,
            exc_info=task.exception(),
        )
        return True

    def _bound(self, wanted: dict[tuple[str, ...], Target]) -> None:
        surplus = list(wanted)[MAX_TARGETS:]
        for key in surplus:
            del wanted[key]
        if len(surplus) != self._left_out:
            self._left_out = len(surplus)
            logger.warning(
                "%d replicas of gateways are not read: %d are the most that one operator reads; let "
                "GatewayProfiles name a Prometheus instead",
                len(surplus),
                MAX_TARGETS,
            )

    def _start(self, target: Target) -> _Followed:
        reader = ReplicaReader(target, self._client, self._clock)
        sources = tuple(_Source(name, look) for name, look in reader.looks.items())
        followed = _Followed(reader, sources)
        followed.task = asyncio.get_running_loop().create_task(
            self._read(followed), name=f"gateway {target.gateway} {target.replica}"
        )
        return followed

    def _drop(self, followed: _Followed) -> None:
        if followed.task is not None:
            followed.task.cancel()
        target = followed.target
        for key in [k for k in self._views if k[:2] == (target.gateway, target.replica)]:
            del self._views[key]

    async def _read(self, followed: _Followed) -> None:
        while True:
            # Before the looks: haste that is asked for meanwhile is not lost.
            followed.wake.clear()
            for source in followed.sources:
                if source.due <= self._clock():
                    async with self._slots:
                        await self._look(followed, source)
            pause = self._interval(followed) * (1 - JITTER + 2 * JITTER * self._random())
            try:
                async with asyncio.timeout(pause):
                    await followed.wake.wait()
            except TimeoutError:
                continue

    def _interval(self, followed: _Followed) -> float:
        now = self._clock()
        hurried = any(self._hurried.get(s, 0.0) > now for s in followed.target.services)
        return self._hurry if hurried else self._peace

    async def _look(self, followed: _Followed, source: _Source) -> None:
        target = followed.target
        try:
            look = await source.look()
        except ReadError as error:
            self._scraped(target, error.result)
            source.failures += 1
            longest = min(
                MAX_BACKOFF_SECONDS, self._interval(followed) * 2.0 ** min(source.failures, 10)
            )
            source.due = self._clock() + longest * (0.5 + self._random() / 2)
            if source.told != error.result:
                source.told = error.result
                logger.warning(
                    "The %s of gateway %s cannot be read at %s: %s",
                    source.name, target.gateway, target.replica, error,
                )  # fmt: skip
            return
        self._scraped(target, "ok")
        source.failures, source.due = 0, 0.0
        if source.told:
            source.told = ""
            logger.info(
                "The %s of gateway %s can be read at %s again",
                source.name, target.gateway, target.replica,
            )  # fmt: skip
        self._tell(look)

    def _scraped(self, target: Target, result: str) -> None:
        for on_scrape in self._on_scrape:
            on_scrape(target.gateway, result)

    def _tell(self, look: Look) -> None:
        for delta in look.deltas:
            for on_delta in self._on_delta:
                on_delta(delta)
        for view in look.views:
            key = (view.gateway, view.replica, view.service)
            before, self._views[key] = self._views.get(key), view
            for departure in self._departed.get(view.service, ()):
                detach = detached(departure, before, view)
                if detach is not None:
                    for on_detach in self._on_detach:
                        on_detach(detach)
            for on_view in self._on_view:
                on_view(view)

    async def _expand(self, targets: Iterable[Target]) -> list[Target]:
        """One target for each address of a host name: replicas are read one by one."""
        found: list[Target] = []
        for target in targets:
            host = "" if target.prometheus_url else host_of(target.metrics_url or target.admin_url)
            addresses = await self._addresses(host) if host and not _is_address(host) else ()
            found += [replace(target, address=a) for a in addresses[:MAX_ADDRESSES]] or [target]
        return found

    async def _addresses(self, host: str) -> tuple[str, ...]:
        """As they were last known where DNS fails."""
        now = self._clock()
        at, known = self._resolved.get(host, (0.0, ()))
        if now - at >= RESOLVED_SECONDS:
            known = await resolve(host) or known
            self._resolved[host] = (now, known)
        return known


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
