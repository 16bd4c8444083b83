"""Reads one target again and again, and turns two looks into a difference."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from upstream_guard.controller.gateway_targets import Target
from upstream_guard.core.counting import Reading, Succession, deltas, remembered, succession
from upstream_guard.core.evidence import GatewayDelta, UpstreamView
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.names import TOKEN_FOLDER
from upstream_guard.gateways import profile_of, promql
from upstream_guard.gateways.adapter import Adapter, Directory, Known, Listing
from upstream_guard.gateways.client import (
    GatewayClient,
    Page,
    ReadError,
    host_of,
    joined,
    with_query,
)
from upstream_guard.gateways.exposition import UnreadableError
from upstream_guard.gateways.reading import (
    read_lists,
    read_metrics,
    read_samples,
)

T = TypeVar("T")

MAX_TOKEN: Final = 16_384


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a source has shown."""

    deltas: tuple[GatewayDelta, ...] = ()
    views: tuple[UpstreamView, ...] = ()


class ReplicaReader:
    """One target; keeps what the next look is compared with."""

    def __init__(
        self,
        target: Target,
        client: GatewayClient,
        clock: Callable[[], float],
        tokens: Path = Path(TOKEN_FOLDER),
    ) -> None:
        """Read nothing yet.

        Raises:
            ValueError: Its product has no adapter.
        """
        adapter = profile_of(target.controller).adapter
        if adapter is None:
            raise ValueError(f"{target.controller} shows no view of its own")
        self.target = target
        self._adapter: Adapter = adapter
        self._client = client
        self._clock = clock
        self._tokens = tokens
        self._before: dict[str, Reading] = {}
        self._learned: Mapping[str, ObjectRef] = {}

    @property
    def looks(self) -> Mapping[str, Callable[[], Awaitable[Look]]]:
        """What can be looked at, by name; the list first, since it may teach names that metrics use."""
        target = self.target
        found: dict[str, Callable[[], Awaitable[Look]]] = {}
        if target.admin_url:
            found["upstream list"] = self.look_at_list
        if target.prometheus_url:
            found["Prometheus"] = self.look_at_prometheus
        elif target.metrics_url:
            found["metrics"] = self.look_at_metrics
        return found

    async def look_at_list(self) -> Look:
        """Read the upstream list.

        Raises:
            ReadError: It cannot be read.
        """
        target = self.target
        documents = {}
        for path in self._adapter.list_paths:
            documents[path] = await self._client.read(self._page(joined(target.admin_url, path)))
        at = self._clock()
        listing = await _apart(read_lists, self._adapter, documents, target.known)
        self._learned = listing.names
        return Look(views=listing.views(target.gateway, target.replica, at))

    async def look_at_metrics(self) -> Look:
        """Read the metrics of the replica itself.

        Raises:
            ReadError: They cannot be read.
        """
        target, adapter = self.target, self._adapter
        body = await self._client.read(self._page(with_query(target.metrics_url, adapter.query)))
        at = self._clock()
        reading, listing = await _apart(_read_page, adapter, body, target.known, self._learned, at)
        views = listing.views(target.gateway, target.replica, at)
        return Look(self._compare(target.replica, reading), views)

    async def look_at_prometheus(self) -> Look:
        """Read the metrics of all replicas out of a Prometheus.

        Raises:
            ReadError: It cannot be asked.
        """
        target, adapter = self.target, self._adapter
        if not target.known:
            return Look()
        query = promql.query(adapter, target.known, self._learned)
        page = Page(
            joined(target.prometheus_url.rstrip("/"), promql.PATH),
            address=target.address,
            token=await asyncio.to_thread(self._token),
            form=(("query", query),),
        )
        body = await self._client.read(page)
        at = self._clock()
        readings = await _apart(_read_answer, adapter, body, target.known, self._learned, at)
        found: list[GatewayDelta] = []
        views: list[UpstreamView] = []
        for replica, (reading, listing) in readings.items():
            found += self._compare(replica, reading)
            views += listing.views(target.gateway, replica, at)
        for replica in self._before.keys() - readings.keys():
            del self._before[replica]
        return Look(tuple(found), tuple(views))

    def _compare(self, replica: str, reading: Reading) -> tuple[GatewayDelta, ...]:
        before = self._before.get(replica)
        self._before[replica] = remembered(before, reading)
        if before is None:
            return ()
        if succession(before, reading) is Succession.OTHER:
            raise ReadError(
                "mixed",
                "several replicas answer at this address by turns, so nothing can be counted: name a "
                "headless Service, or leave the URL out so that each pod is read by itself",
            )
        return tuple(deltas(self.target.gateway, replica, before, reading))

    def _page(self, url: str) -> Page:
        own = host_of(self.target.metrics_url or self.target.admin_url)
        return Page(url, self.target.address if host_of(url) == own else "")

    def _token(self) -> str:
        """The token, read anew each time: it may be renewed.

        Raises:
            ReadError: The file cannot be read.
        """
        if not self.target.prometheus_token:
            return ""
        path = self._tokens / self.target.prometheus_token
        try:
            with path.open(encoding="ascii") as file:
                text = file.read(MAX_TOKEN).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ReadError(
                "token", f"the token file {path} cannot be read: {error}"[:200]
            ) from None
        if not text.isprintable():
            raise ReadError("token", f"the token file {path} holds no token")
        return text


async def _apart(function: Callable[..., T], *args: object) -> T:
    """Parse beside the event loop, where probes wait for their turn.

    Raises:
        ReadError: The text is not what was asked for.
    """
    try:
        return await asyncio.to_thread(function, *args)
    except UnreadableError as error:
        raise ReadError("unreadable", str(error)) from None


def _read_page(
    adapter: Adapter,
    body: bytes,
    known: Iterable[Known],
    learned: Mapping[str, ObjectRef],
    at: float,
) -> tuple[Reading, Listing]:
    return read_metrics(adapter, body.decode("utf-8", "replace"), known, learned, at)


def _read_answer(
    adapter: Adapter,
    body: bytes,
    known: Iterable[Known],
    learned: Mapping[str, ObjectRef],
    at: float,
) -> dict[str, tuple[Reading, Listing]]:
    directory = Directory(known, adapter.names, learned)
    return {
        replica: read_samples(adapter, samples, directory, at)
        for replica, samples in promql.read_answer(body).items()
    }
