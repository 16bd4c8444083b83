"""The composition root: everything the operator consists of is made and wired here, once."""

import asyncio
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from upstream_guard.controller.canary import CanaryOptions, CanaryRunner
from upstream_guard.controller.canary_ways import reachable_address
from upstream_guard.controller.closer import CloserLooks
from upstream_guard.controller.detection import Detection
from upstream_guard.controller.drains import DrainAdvisor
from upstream_guard.controller.engine import Engine
from upstream_guard.controller.external import Externals
from upstream_guard.controller.external_news import ExternalNews
from upstream_guard.controller.gateway_meter import GatewayMeter
from upstream_guard.controller.gateway_targets import GatewayFinder
from upstream_guard.controller.gateway_watch import GatewayWatch
from upstream_guard.controller.guards import GuardBook
from upstream_guard.controller.handlers import make_registry, make_settings
from upstream_guard.controller.http import StatusServer
from upstream_guard.controller.measurements import Measurements
from upstream_guard.controller.name_looks import NameLooks
from upstream_guard.controller.narrator import Narrator
from upstream_guard.controller.options import Options
from upstream_guard.controller.predictions import Predictions
from upstream_guard.controller.route_probes import RouteProbes
from upstream_guard.controller.scoring import Scoring
from upstream_guard.controller.statuses import StatusWriter
from upstream_guard.controller.surger import Surger
from upstream_guard.controller.sweep import Sweeper
from upstream_guard.controller.webhooks import WebhookRunner
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.names import (
    API_VERSION,
    GUARD_PLURAL,
    LEASE,
    PROFILE_PLURAL,
)
from upstream_guard.gateways.client import GatewayClient
from upstream_guard.kube.client import ApiError, KubeClient, pause_before_retry
from upstream_guard.kube.events import EventRecorder
from upstream_guard.kube.lease import Elector
from upstream_guard.kube.state import ClusterState
from upstream_guard.metrics import Metrics, resource_of
from upstream_guard.probes.dns import Resolver
from upstream_guard.resources.profile import parse_profile
from upstream_guard.resources.schema import ProfileError

logger = logging.getLogger(__name__)

LAG_PERIOD = 0.1
PREDICT_AGAIN_SECONDS = 1.0
CANARY_AGAIN_SECONDS = 30.0
SETTLE_SECONDS = 3.0
"""What writes under way, and then events, may take at the end of the process."""
UNHEALTHY_LAG_SECONDS = 10.0


class App:
    """One replica of the operator."""

    def __init__(self, options: Options, client: KubeClient, minor: int) -> None:
        self.options = options
        self.metrics = Metrics()
        self._client = client
        client.on_write = self._count_write
        identity = options.identity or f"{socket.gethostname()}-{os.getpid()}"
        self.book = GuardBook()
        self._recorder = EventRecorder(client, identity, time.time)
        self._statuses = StatusWriter(client, self.book)
        self.elector = Elector(
            client, options.operator_namespace, LEASE, identity, time.monotonic, time.time
        )
        self._narrator = Narrator(self._recorder, self._statuses, self.metrics, time.time)
        self.engine = Engine(client, self.book, self.metrics, self._narrator, time.time)
        self.scoring = Scoring(self.metrics, time.time)
        self.predictions = Predictions(
            self.book,
            self.metrics,
            time.time,
            self._narrator.foretold,
            self.engine.mark,
            self.scoring,
            self.engine.churn,
        )
        self.detection = Detection(
            self.book,
            self.metrics,
            time.time,
            self._narrator.window,
            self.engine.mark,
            self.predictions,
            self.engine.tracker,
            self.scoring,
        )
        self.routes = RouteProbes(
            self.metrics, self.detection.hurried, self.detection.route, self.engine.mark
        )
        self.closer = CloserLooks(
            self.routes.asks,
            self.engine.tracker.path,
            self.engine.tracker.tls,
            self.detection.closer,
            time.time,
        )
        self.detection.look_closer = self.closer.want
        resolver = Resolver(options.dns_servers)
        self.names = NameLooks(resolver, self.detection.named, time.time)
        self.detection.ask_name = self.names.want
        self.state = ClusterState(client, self.engine, options.namespace)
        self.measurements = Measurements()
        self.drains = DrainAdvisor(
            self.state, self.book, lambda: self.elector.fresh, minor, self.measurements
        )
        self.predictions.attach(self.state, injects=options.webhook_port is not None)
        surger = Surger(
            client,
            self.state,
            time.time,
            self._narrator.tell_of,
            self._statuses.current,
            self.engine.mark,
        )
        self.engine.attach(self.state, self.drains, self.predictions, self.routes, surger)
        self.engine.attach_detection(self.detection)
        self.predictions.observe_rate(self.detection.rate)
        self._attach_externals(client, resolver)
        self._attach_gateways()
        self._sweeper = Sweeper(client, self.state, self._recorder, time.time)
        self._webhooks = WebhookRunner(client, options, self.drains, self.book, self.metrics)
        self._http = StatusServer(
            self.metrics.registry, self._unhealthy, self._unready, self._collect
        )
        self._stop = asyncio.Event()
        self._beat = time.monotonic()
        self._leading = False

    def _attach_externals(self, client: KubeClient, resolver: Resolver) -> None:
        self.externals = Externals(
            client,
            resolver,
            self.options.external,
            self.book,
            self.engine.tracker,
            ExternalNews(self._narrator, self.metrics),
            self.metrics,
            time.time,
            self.engine.mark,
            self.state,
        )
        self.externals.look = self.detection.look_outside
        self.engine.attach_externals(self.externals)

    def _attach_gateways(self) -> None:
        """Have the gateways' own view read, and told to metrics."""
        self._gateway_client = GatewayClient()
        self.gateways = GatewayWatch(self._gateway_client, time.time, random.random)
        GatewayMeter(self.metrics, self.book.of_service).attach(self.gateways)
        self.gateways.listen(on_delta=self.detection.metrics, on_view=self.detection.view)
        self.detection.hurry = self.gateways.hurry
        self.engine.listed = self.gateways.listed
        self._finder = GatewayFinder(
            self.state,
            self.book,
            self.drains.gateways,
            lambda service: (d.endpoint for d in self.gateways.departures(service)),
        )

    # What kopf calls.

    def guard_seen(self, body: dict[str, Any], *, deleted: bool) -> None:
        """Take in an UpstreamGuard."""
        metadata = body["metadata"]
        ref = ObjectRef(metadata["namespace"], metadata["name"])
        before = self.book.get(ref)
        if deleted:
            # kopf handles each UID on its own: a successor of the same name may have come first.
            if before is not None and before.uid == metadata["uid"]:
                self.book.remove(ref)
                self.engine.guard_removed(before)
        else:
            entry = self.book.put(body)
            self.measurements.inherit(entry.status)
            if before is None or before.generation != entry.generation or before.uid != entry.uid:
                self.engine.guard_put(entry, before)
        self._webhooks.namespaces_changed()

    def profile_seen(self, body: dict[str, Any], *, deleted: bool) -> None:
        """Take in a GatewayProfile."""
        name = str(body["metadata"]["name"])
        self.book.profiles.pop(name, None)
        if not deleted:
            try:
                self.book.profiles[name] = parse_profile(body)
            except ProfileError as error:
                logger.warning("GatewayProfile %s ignored: %s", name, error)
        self.engine.cluster()

    # The life of a replica.

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            LeaseLostError: The Lease was lost; the process must end.
            OSError: A port is taken.
        """
        http_port = await self._http.start(self.options.bind, self.options.http_port)
        logger.info("Serving /metrics, /healthz and /readyz on port %d", http_port)
        await self._prefill()
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in {
                "events": self._recorder.run(),
                "statuses": self._statuses.run(),
                "state": self.state.run(),
                "lease": self.elector.run(),
                "webhook": self._webhooks.run(),
                "sweep": self._sweep(),
                "lead": self._lead(),
                "gateways": self._watch_gateways(),
                "lag": self._watch_lag(),
                "predict": self._predict(),
                "canary": self._measure(),
                "kopf": self._run_kopf(),
                "stop": self._stop.wait(),
            }.items()
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self._wind_down()
        finally:
            self.engine.abandon()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.closer.close()
            self.names.close()
            await self._http.stop()
            await self._gateway_client.close()

    async def _wind_down(self) -> None:
        logger.info("Stopping")
        await self.engine.settle(SETTLE_SECONDS)
        await self._recorder.drain(SETTLE_SECONDS)
        await self.elector.release()

    async def _watch_gateways(self) -> None:
        """Read the gateways' own view while this replica controls; mistakes there stay there."""
        await self.elector.acquired.wait()
        await self.state.wait_synced()
        while True:
            work = asyncio.create_task(self.gateways.run(self._finder.targets), name="gateways")
            try:
                await asyncio.wait([work])
            finally:
                work.cancel()
            logger.error("Reading gateways failed, and begins again", exc_info=work.exception())
            await asyncio.sleep(PREDICT_AGAIN_SECONDS)

    async def _prefill(self) -> None:
        """Know every guard before the first decision: a pod without a known guard would go free."""
        scope = f"/namespaces/{self.options.namespace}" if self.options.namespace else ""
        attempt = 0
        while True:
            try:
                guards, _ = await self._client.list_pages(
                    f"/apis/{API_VERSION}{scope}/{GUARD_PLURAL}"
                )
                profiles, _ = await self._client.list_pages(f"/apis/{API_VERSION}/{PROFILE_PLURAL}")
                break
            except ApiError as error:
                attempt += 1
                if attempt in {1, 20}:
                    logger.warning("Guards cannot be listed yet (are the CRDs there?): %s", error)
                await pause_before_retry(attempt, random.random())  # noqa: S311  # jitter
        for body in guards:
            self.guard_seen(body, deleted=False)
        for body in profiles:
            self.profile_seen(body, deleted=False)

    async def _lead(self) -> None:
        await self.elector.acquired.wait()
        await self.state.wait_synced()
        self._leading = True
        logger.info("Controlling %d guards", len(self.book))
        self._webhooks.take_control()
        self.engine.activate()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.engine.tracker.scheduler.run())
            group.create_task(self._ask_routes())
            group.create_task(self.names.run())

    async def _sweep(self) -> None:
        """Stand by: when nobody controls, open the gates without a verdict."""
        while True:
            await asyncio.sleep(self.elector.times.renew_every)
            if not self._leading and self.elector.abandoned and self.state.synced:
                await self._sweeper.release_all()

    async def _run_kopf(self) -> None:
        ready = asyncio.Event()
        namespaces = [self.options.namespace] if self.options.namespace else []
        guard = asyncio.create_task(self._own_signals(ready))
        settings = make_settings()
        settings.scanning.disabled = bool(namespaces)
        try:
            await kopf.operator(
                registry=make_registry(self, self._log_in),
                settings=settings,
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                ready_flag=ready,
                # Its own choice needs a user name, and the user of a container mostly has none.
                identity=self.elector.identity,  # type: ignore[arg-type]  # a NewType, and private
            )
        finally:
            guard.cancel()

    async def _log_in(self) -> kopf.ConnectionInfo:
        return await connection_info(self._client.configuration)

    async def _own_signals(self, ready: asyncio.Event) -> None:
        """Take the signals back from kopf: at the end, our own order of things counts."""
        await ready.wait()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    async def _predict(self) -> None:
        """Predict in the background: guarding goes on, whatever mistake a prediction meets."""
        while True:
            work = asyncio.create_task(self.predictions.run(), name="predictions")
            try:
                await asyncio.wait([work])
            finally:
                work.cancel()
            logger.error("A prediction failed, and was left out", exc_info=work.exception())
            await asyncio.sleep(PREDICT_AGAIN_SECONDS)

    async def _ask_routes(self) -> None:
        """Ask through gateways: guarding goes on, whatever mistake that meets."""
        while True:
            work = asyncio.create_task(self.routes.run(), name="route probes")
            try:
                await asyncio.wait([work])
            finally:
                work.cancel()
            logger.error("Route probes failed, and begin again", exc_info=work.exception())
            await asyncio.sleep(PREDICT_AGAIN_SECONDS)

    async def _measure(self) -> None:
        """Measure gateways in the background, as long as we control; mistakes there stay there."""
        await self.elector.acquired.wait()
        await self.state.wait_synced()
        while self.options.canary:
            work = asyncio.create_task(self._canary_runner().run(), name="canaries")
            try:
                await asyncio.wait([work])
            finally:
                work.cancel()
            logger.error("Measuring gateways failed, will retry", exc_info=work.exception())
            await asyncio.sleep(CANARY_AGAIN_SECONDS)
        await self._stop.wait()

    def _canary_runner(self) -> CanaryRunner:
        options = self.options
        return CanaryRunner(
            self._client,
            self.state,
            CanaryOptions(
                namespace=options.operator_namespace,
                address=reachable_address(options.canary_address or options.webhook_host),
                bind=options.bind,
                port=options.canary_port,
            ),
            self.measurements,
            self.metrics,
            lambda: self.drains.canaries(options.operator_namespace),
            self.engine.cluster,
        )

    async def _watch_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_PERIOD
            await asyncio.sleep(LAG_PERIOD)
            self._beat = time.monotonic()
            self.metrics.loop_lag.observe(max(0.0, loop.time() - due))

    # What others ask.

    def _count_write(self, verb: str, path: str, status: int) -> None:
        code = f"{status // 100}xx" if status else "none"
        self.metrics.api_writes.labels(verb, resource_of(path), code).inc()

    def _unhealthy(self) -> str:
        silent = time.monotonic() - self._beat
        return f"event loop silent for {silent:.0f} s" if silent > UNHEALTHY_LAG_SECONDS else ""

    def _unready(self) -> str:
        if not self.state.synced:
            return "the cluster's state is not complete yet"
        return self._webhooks.problem

    def _collect(self) -> None:
        self._narrator.count_conditions()
        self.metrics.leading.set(1 if self._leading else 0)
        if self.elector.age is not None:
            self.metrics.lease_age.set(self.elector.age)
        for resource, age in self.state.ages().items():
            self.metrics.watch_age.labels(resource).set(age)
        self.metrics.probes_delayed.set(self.engine.tracker.scheduler.stats.delayed)


async def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """The same server and credentials for kopf's own connections."""
    header = await configuration.get_api_key_with_prefix("BearerToken") or ""
    scheme, _, token = header.partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme if token else None,
        token=token or None,
    )


def server_minor(version: Mapping[str, Any]) -> int:
    """The minor version from /version; providers append a plus sign."""
    digits = "".join(c for c in str(version.get("minor") or "") if c.isdigit())
    return int(digits or 0)
