"""Asks through gateways which endpoint of a canary answers, at a bounded rate."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from upstream_guard.core.names import CANARY_ENDPOINT_HEADER, CANARY_TOKEN_HEADER

TIMEOUT_SECONDS: Final = 2.0
MAX_UNDER_WAY: Final = 64
"""Requests without an answer; no more are sent meanwhile."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request brought.

    Attributes:
        result: `ok` from an endpoint of the canary, `foreign` from somebody else (the gateway itself, as a
            rule), `failed` with a status of 500 or more, or without any.
        detail: What is wrong, in words that do not change by themselves; empty where nothing is.
        server: The `Server` header, by which a gateway's version shows.
    """

    result: str
    detail: str = ""
    server: str = ""


class Asker:
    """Sends requests without waiting for earlier ones."""

    def __init__(
        self,
        token: str,
        on_reply: Callable[[Reply], None],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Wire it.

        Args:
            token: By which the operator knows its own requests.
            on_reply: Called for each request's fate.
            transport: In the place of real connections, for tests.
        """
        self._on_reply = on_reply
        self._clients = {keep: _client(token, keep, transport) for keep in (False, True)}
        self._under_way: set[asyncio.Task[None]] = set()
        self.sent = 0

    def ask(self, url: str, host: str, *, keep: bool = False) -> None:
        """Send a request, on a connection of its own or on one that is kept; `on_reply` is told."""
        if len(self._under_way) >= MAX_UNDER_WAY:
            return
        self.sent += 1
        task = asyncio.create_task(self._ask(url, host, keep))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Drop what is under way and close all connections."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for client in self._clients.values():
            await client.aclose()

    async def _ask(self, url: str, host: str, keep: bool) -> None:
        self._on_reply(await self.look(url, host, keep=keep))

    async def look(self, url: str, host: str, *, keep: bool = False) -> Reply:
        """One request and its fate.

        Args:
            url: Of the gateway.
            host: Host header, and SNI; empty for the URL's own.
            keep: Keep the connection, and take one that was kept.
        """
        named = {"Host": host} if host else {}
        extensions = {"sni_hostname": host} if host else {}
        try:
            response = await self._clients[keep].get(
                f"{url}/", headers=named, extensions=extensions
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Reply("failed", type(error).__name__)
        server = response.headers.get("Server", "")[:100]
        if CANARY_ENDPOINT_HEADER in response.headers:
            return Reply("ok", "", server)
        result = "failed" if response.status_code >= 500 else "foreign"
        return Reply(result, f"status {response.status_code}", server)


def _client(
    token: str, keep: bool, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """One that keeps its connections, or one that does not.

    A connection for each request is the rule: one that is kept would show one worker of the gateway only.
    """
    kept = MAX_UNDER_WAY if keep else 0
    return httpx.AsyncClient(
        transport=transport,
        # A certificate cannot be right for a host that nobody has, and nothing secret is sent.
        verify=False,  # noqa: S501
        trust_env=False,
        timeout=TIMEOUT_SECONDS,
        limits=httpx.Limits(max_connections=MAX_UNDER_WAY, max_keepalive_connections=kept),
        headers={
            CANARY_TOKEN_HEADER: token,
            "User-Agent": "upstream-guard-canary",
            "Connection": "keep-alive" if keep else "close",
        },
    )
