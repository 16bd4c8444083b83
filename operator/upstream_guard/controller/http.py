"""/metrics, /healthz and /readyz over plain HTTP."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class StatusServer:
    """What Prometheus and the kubelet ask."""

    def __init__(
        self,
        registry: CollectorRegistry,
        healthy: Callable[[], str],
        ready: Callable[[], str],
        collect: Callable[[], None],
    ) -> None:
        """Wire it.

        Args:
            registry: What `/metrics` shows.
            healthy: Says what is wrong with the process; empty where nothing is.
            ready: Says what it waits for; empty where it can serve.
            collect: Brings gauges up to date before each scrape.
        """
        self._registry = registry
        self._healthy = healthy
        self._ready = ready
        self._collect = collect
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises:
            OSError: The port is taken.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", lambda _: _answer(self._healthy()))
        app.router.add_get("/readyz", lambda _: _answer(self._ready()))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, host or None, port).start()
        bound: int = runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, _: web.Request) -> web.Response:
        self._collect()
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


async def _answer(problem: str) -> web.Response:
    return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)
