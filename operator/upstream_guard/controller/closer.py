"""Asks endpoints themselves as users ask, while requests fail at a gateway and every probe is good.

A health check says what it was written for. Host and path are those of a route that leads to the Service,
by GET, and only paths are asked of which `core/routes.py` says that it changes nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from upstream_guard.controller.errands import Errands
from upstream_guard.core.evidence import CloserLook, RouteKey, RouteSample
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.routes import Ask
from upstream_guard.probes.route import RouteProber

LIMIT: Final = 16
"""Requests under way at once, for all guards."""


class CloserLooks:
    """Makes the requests that detection wants, one at a time for each endpoint."""

    def __init__(
        self,
        asks: Callable[[ObjectRef], tuple[Ask, ...]],
        probe_path: Callable[[ObjectRef], str],
        secure: Callable[[ObjectRef], bool],
        on_look: Callable[[ObjectRef, CloserLook], None],
        clock: Callable[[], float],
    ) -> None:
        """Wire it.

        Args:
            asks: What is asked through gateways for a guard.
            probe_path: By which its endpoints are probed; empty where not by HTTP.
            secure: Whether its endpoints speak TLS.
            on_look: Told what came of each request.
            clock: Gives Unix seconds.
        """
        self._asks = asks
        self._probe_path = probe_path
        self._secure = secure
        self._on_look = on_look
        self._prober = RouteProber(clock=clock)
        self._tasks: Errands[tuple[ObjectRef, str]] = Errands(LIMIT)

    def want(self, guard: ObjectRef, addresses: tuple[str, ...]) -> None:
        """Ask these endpoints of a guard; those that are being asked already are left alone."""
        users = as_users_ask(self._asks(guard), self._probe_path(guard))
        if users is None:
            return
        for address in addresses:
            ask = direct_ask(address, users, tls=self._secure(guard))
            work = partial(self._look, guard, address, ask)
            self._tasks.start((guard, address), f"A closer look at {address}", work)

    def close(self) -> None:
        """Tear down what is under way."""
        self._tasks.close()
        self._prober.close()

    async def _look(self, guard: ObjectRef, address: str, ask: Ask) -> None:
        sample = await self._prober.ask(ask, 0, reuse=False)
        self._prober.drop(ask.key)
        if sample is not None:
            self._on_look(guard, look_of(address, sample))


def as_users_ask(asks: Iterable[Ask], probe_path: str) -> RouteKey | None:
    """Host and path of a user's request; None where endpoints are probed so already, or not by HTTP."""
    for ask in asks:
        path = ask.users_path or ask.key.path
        if probe_path and ask.method == "GET" and path != probe_path:
            return replace(ask.key, path=path)
    return None


def direct_ask(address: str, users: RouteKey, *, tls: bool) -> Ask:
    """The request of a user, sent to an endpoint, `10.0.0.7:8080`, instead of the gateway."""
    host, _, port = address.rpartition(":")
    # The address in the place of a route keeps the connections of two endpoints apart.
    key = RouteKey("", address, users.host, users.path, tls)
    return Ask(key, (host.strip("[]"),), int(port))


def look_of(address: str, sample: RouteSample) -> CloserLook:
    """What came of it."""
    return CloserLook(
        sample.done, address, sample.key.path, sample.status, sample.cause, sample.detail
    )
