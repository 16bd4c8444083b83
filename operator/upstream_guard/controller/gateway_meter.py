"""What gateways counted, and which endpoints they still hold, as metrics of the operator."""

from collections.abc import Callable, Iterable

from upstream_guard.controller.gateway_watch import GatewayWatch
from upstream_guard.core.evidence import GatewayDelta, UpstreamView
from upstream_guard.core.holding import Detach, stale
from upstream_guard.core.model import Guard, ObjectRef
from upstream_guard.metrics import Metrics


class GatewayMeter:
    """Listens to a `GatewayWatch`, and feeds metrics only."""

    def __init__(self, metrics: Metrics, guards: Callable[[ObjectRef], Iterable[Guard]]) -> None:
        """Wire it.

        Args:
            metrics: What is fed.
            guards: The guards of a Service.
        """
        self._metrics = metrics
        self._guards = guards
        self._watch: GatewayWatch | None = None

    def attach(self, watch: GatewayWatch) -> None:
        """Listen to it."""
        self._watch = watch
        watch.listen(
            on_scrape=self.scraped,
            on_delta=self.counted,
            on_view=self.seen,
            on_detach=self.detached,
        )

    def scraped(self, gateway: str, result: str) -> None:
        """A gateway was looked at."""
        self._metrics.gateway_scrapes.labels(gateway, result).inc()

    def counted(self, delta: GatewayDelta) -> None:
        """A gateway counted requests of a Service."""
        if delta.endpoint:
            return
        for guard in self._guards(delta.service):
            ref = guard.ref
            self._count_from_zero(guard, delta)
            for status, number in delta.statuses.items():
                code = f"{status // 100}xx" if delta.classes_only else str(status)
                self._metrics.gateway_requests.labels(
                    ref.namespace, ref.name, delta.gateway, code
                ).inc(number)

    def _count_from_zero(self, guard: Guard, delta: GatewayDelta) -> None:
        """Failures: what begins with its first increment looks to Prometheus as if there had been none."""
        codes = {"5xx"} if delta.classes_only else map(str, guard.detection.error_statuses)
        for code in codes:
            self._metrics.gateway_requests.labels(
                guard.ref.namespace, guard.ref.name, delta.gateway, code
            )

    def seen(self, view: UpstreamView) -> None:
        """A gateway's upstream list was read."""
        if self._watch is None:
            return
        gone = self._watch.departures(view.service)
        held = {
            endpoint
            for other in self._watch.views(view.service)
            if other.gateway == view.gateway
            for endpoint in stale(other, gone)
        }
        for guard in self._guards(view.service):
            self._metrics.gateway_stale_endpoints.labels(
                guard.ref.namespace, guard.ref.name, view.gateway
            ).set(len(held))

    def detached(self, detach: Detach) -> None:
        """A replica let go of an endpoint."""
        self._metrics.gateway_observed_detach.labels(detach.gateway).observe(detach.seconds)
