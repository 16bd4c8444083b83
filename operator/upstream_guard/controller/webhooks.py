"""Runs the admission server: certificates, registration, and the decisions behind it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from upstream_guard.controller.drains import DrainAdvisor
from upstream_guard.controller.guards import GuardBook
from upstream_guard.controller.options import Options
from upstream_guard.core.names import WEBHOOK_SERVICE
from upstream_guard.kube.client import ApiError, KubeClient
from upstream_guard.metrics import Metrics
from upstream_guard.resources.guard import parse_guard
from upstream_guard.resources.schema import GuardError
from upstream_guard.webhook.keeper import CertKeeper, load, server_context
from upstream_guard.webhook.registration import WebhookAddress, register
from upstream_guard.webhook.server import WebhookServer

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 60.0
"""How often certificates and registration are looked at (read, and written only if they differ).

Whoever applies `deploy/` again resets the namespaces of the registration: injection is back after this time at most.
"""
RETRY_SECONDS = 5.0


class WebhookRunner:
    """Serves admission on every replica; the one that controls also keeps the registration."""

    def __init__(
        self,
        client: KubeClient,
        options: Options,
        drains: DrainAdvisor,
        book: GuardBook,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._options = options
        self._book = book
        self._metrics = metrics
        self._controlling = False
        self._kick = asyncio.Event()
        self._namespaces: frozenset[str] = frozenset()
        namespace = options.operator_namespace
        service = f"{WEBHOOK_SERVICE}.{namespace}"
        self._keeper = CertKeeper(
            client,
            namespace,
            (f"{service}.svc", service, *((options.webhook_host,) if options.webhook_host else ())),
        )
        self._context = server_context()
        self._server = WebhookServer(drains.inject, problems_of, self._context, self._observe)
        self.problem = "the webhook does not serve yet" if options.webhook_port is not None else ""
        """Why admission does not work; empty where it does (or is switched off)."""

    def take_control(self) -> None:
        """This replica controls: it keeps the registration from now on."""
        self._controlling = True
        self._kick.set()

    def namespaces_changed(self) -> None:
        """Guards came or went."""
        namespaces = self._book.namespaces()
        if namespaces != self._namespaces:
            self._namespaces = namespaces
            self._kick.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        if self._options.webhook_port is None:
            await asyncio.get_running_loop().create_future()
        port = 0
        try:
            while True:
                pause = REFRESH_SECONDS
                try:
                    port = await self._refresh(port)
                except ApiError as error:
                    logger.warning("Webhook not in force, will retry: %s", error)
                    self.problem = str(error) if not port else ""
                    pause = RETRY_SECONDS
                await self._wait(pause)
        finally:
            await self._server.stop()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._kick.wait()
        except TimeoutError:
            return
        finally:
            self._kick.clear()

    async def _refresh(self, port: int) -> int:
        bundle = await self._keeper.refresh()
        await asyncio.to_thread(load, self._context, bundle)
        if not port:
            wanted = self._options.webhook_port or 0
            port = await self._server.start(self._options.bind, wanted)
            logger.info("Serving admission on port %d", port)
        self.problem = ""
        if self._controlling:
            address = self._address(port)
            namespaces = sorted(self._book.namespaces())
            if await register(self._client, address, bundle.ca_bundle, namespaces):
                logger.info(
                    "Webhook registered for namespaces: %s", ", ".join(namespaces) or "none"
                )
        return port

    def _address(self, port: int) -> WebhookAddress:
        host = self._options.webhook_host
        if host:
            return WebhookAddress(url=f"https://{host}:{port}")
        return WebhookAddress(namespace=self._options.operator_namespace)

    def _observe(self, webhook: str, outcome: str, seconds: float) -> None:
        del seconds
        self._metrics.webhook_requests.labels(webhook, outcome).inc()


def problems_of(body: Mapping[str, Any]) -> Sequence[str]:
    """What is wrong with an UpstreamGuard, each with its path."""
    try:
        parse_guard(body)
    except GuardError as error:
        return [str(problem) for problem in error.problems]
    return []
