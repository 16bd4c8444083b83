"""What the measurements of drains share: rollouts behind gateways that are measured all the while, recorded one by one.

Each of them is one command that can be interrupted and taken up again: what was done is in its JSON file.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from upstream_guard.core.latency import Measured
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.kube.client import ApiError, KubeClient, KubeError
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.bench import Bench, Wish, open_bench
from upstream_guard.lab.demo.events import user_events
from upstream_guard.lab.demo.guarding import KubectlGuarding
from upstream_guard.lab.demo.report import run_json
from upstream_guard.lab.demo.runner import Cell, Exposed, Runner
from upstream_guard.lab.demo.session import own_namespace
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.gateways import GATEWAYS, VIA_CLUSTER_IP
from upstream_guard.lab.gateways.profile import canary_target, gateway_key, gateway_profile
from upstream_guard.lab.model import LabError
from upstream_guard.lab.report import RichReporter
from upstream_guard.resources.status import parse_measurements

Json = dict[str, Any]
Key = tuple[GatewayKind, str]

ISSUE_GATEWAYS: Final = ("nginx", "contour", "envoy-gateway", "haproxy", "caddy")
KUBE_PROXY: Final = (GatewayKind.CLUSTER_IP, "ClusterIP")
ENOUGH_SAMPLES: Final = 20
"""Detaches of a canary's first burst of 30 toggles; a fourth of them looks at kept connections."""
MEASURE_SECONDS: Final = 900.0
"""How long the canaries may take for that."""
OBJECT_SECONDS: Final = 60.0
NOT_FOUND: Final = 404
TRIES: Final = 2


def gateways_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--gateway`, repeatable; those of the issue unless given."""
    return click.option(
        "--gateway",
        "gateways",
        multiple=True,
        type=click.Choice(sorted(GATEWAYS)),
        default=ISSUE_GATEWAYS,
        show_default=True,
        help="Repeatable.",
    )(command)


def json_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--json`, which is also where an interrupted measurement is taken up again."""
    return click.option(
        "--json",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Keep the figures here, and leave out what is there already.",
    )(command)


def kept_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--kept`, the share of requests on connections that clients keep, from 0 to 1."""
    return click.option(
        "--kept",
        type=click.FloatRange(0, 1),
        default=0.5,
        show_default=True,
        help="Share of them over kept-alive client connections.",
    )(command)


class Measurement(click.Command):
    """A command whose errors people can read."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it.

        Raises:
            ClickException: What went wrong in the lab.
        """
        try:
            return super().invoke(ctx)
        except (LabError, KubeError) as error:
            raise click.ClickException(str(error)) from error


class Rows:
    """Results by key, on disk after each one, so that an interrupted measurement can be taken up again.

    Args:
        path: Where; None keeps them in memory only.
        settings: What a file must have been measured with to be taken up.

    Raises:
        LabError: The file is of another measurement.
    """

    def __init__(self, path: Path | None, settings: Json) -> None:
        self._path, self._settings = path, settings
        self._rows: dict[str, Json] = {}
        if path is None or not path.exists():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            same, self._rows = found["settings"] == settings, found["rows"]
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(f"{path} holds no results of this measurement: {error!r}") from error
        if not same:
            raise LabError(
                f"{path} was measured with {found['settings']}, and not with {settings}; give the same flags, "
                "or another --json file"
            )

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> Json:
        return self._rows[key]

    def below(self, prefix: str) -> list[Json]:
        """The results whose key begins so, in the order in which they were added."""
        return [row for key, row in self._rows.items() if key.startswith(prefix)]

    def add(self, key: str, row: Json) -> None:
        """Keep a result."""
        self._rows[key] = row
        if self._path is None:
            return
        text = json.dumps({"settings": self._settings, "rows": self._rows}, indent=1) + "\n"
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self._path)


@dataclass(frozen=True, slots=True)
class Scene:
    """A service behind one gateway, which the operator measures all the while.

    A second guarded Service, without pods, stays behind the gateway: so its canary goes on while the
    first one is guarded, deployed and cleaned up again and again.

    Attributes:
        bench: The lab.
        client: Its API server.
        gateway: As the lab calls it.
        stage: The service that rollouts happen to.
        exposure: Where it is served.
        keeper: The other one.
        guarding: Guards the first.
    """

    bench: Bench
    client: KubeClient
    gateway: str
    stage: Stage
    exposure: Exposed
    keeper: str
    guarding: KubectlGuarding

    async def measured(self) -> dict[Key, Measured]:
        """What the operator tells of the gateway and of kube-proxy now."""
        status = (await self.guard(self.keeper)).get("status") or {}
        return {key: found for key, found, _ in parse_measurements(status) if found is not None}

    async def guard(self, name: str) -> Json:
        """A guard of the scene, as the API has it."""
        found: Json = json.loads(await self.stage.kubectl("get", "ug", name, "--output=json"))
        return found

    async def until_measured(self, samples: int = ENOUGH_SAMPLES) -> dict[Key, Measured]:
        """Wait until so many detaches of the gateway and of kube-proxy are told.

        Raises:
            LabError: They were not in time; with what the guard says instead.
        """
        wanted = (gateway_key(self.gateway), KUBE_PROXY)

        async def done() -> bool:
            found = await self.measured()
            return all(key in found and found[key].detach.samples >= samples for key in wanted)

        try:
            await until(done, MEASURE_SECONDS)
        except TimeoutError:
            status = (await self.guard(self.keeper)).get("status") or {}
            raise LabError(
                f"{self.gateway} and kube-proxy were not measured {samples} times within {MEASURE_SECONDS:g} s; "
                f"the guard says {status.get('gateways')}"
            ) from None
        return await self.measured()

    def runner(self, rate: float, kept: float) -> Runner:
        """Does rollouts at so many requests a second, a share of them on kept client connections."""
        return Runner(
            rate=rate,
            flush=self.bench.flush,
            guarding=self.guarding,
            say=lambda _text: None,
            kept=kept,
        )

    async def rollout(self, runner: Runner, cell: Cell) -> Json:
        """One run, as in the demo's JSON, and what the operator told if it was guarded.

        Raises:
            LabError: It could not be done, in two tries.
        """
        for left in reversed(range(TRIES)):
            began = time.time()
            try:
                run = await runner.run(cell, self.stage, self.exposure)
            except LabError as error:
                if not left:
                    raise
                click.echo(f"  {cell}: {error}; once more", err=True)
            else:
                return run_json(run) | await self.told(cell, began)
        raise AssertionError

    async def told(self, cell: Cell, since: float) -> Json:
        """What the operator says of a guarded service, and what it told since a Unix time."""
        if cell.variant is not variants.Variant.GUARDED:
            return {}
        status = self.guarding.found[self.stage.name].get("status") or {}
        text = await self.stage.kubectl("get", "events", "--output=json")
        mine = [item for item in json.loads(text)["items"] if _is_of(item, self.stage.name, since)]
        return {
            "drain": status.get("drain"),
            "conditions": {
                c["type"]: {key: c.get(key) for key in ("status", "reason", "message")}
                for c in status.get("conditions") or ()
            },
            "risks": [risk.get("risk") for risk in status.get("risks") or ()],
            "events": [f"{event.reason}: {event.message}" for event in user_events(mine)],
        }


def _is_of(event: Json, guard: str, since: float) -> bool:
    about = event.get("involvedObject") or event.get("regarding") or {}
    at = event.get("eventTime") or event.get("lastTimestamp") or ""
    return about.get("name") == guard and str(at) >= time.strftime(
        "%Y-%m-%dT%H:%M:%S", time.gmtime(since)
    )


@contextmanager
def lab(
    gateway: str, *, guarded: bool = True, apps: Sequence[variants.App] = (variants.GO,)
) -> Iterator[Bench]:
    """The lab with one gateway and the operator, as the demo has it; taken down if it was not up."""
    wish = Wish(
        gateways=(gateway,),
        guarded=guarded,
        provider="local",
        context=None,
        keep=False,
        output=Path("demo-out"),
        apps=apps,
    )
    with open_bench(wish, RichReporter()) as bench:
        yield bench


@asynccontextmanager
async def scene(bench: Bench, gateway: str) -> AsyncIterator[Scene]:
    """A service behind a gateway, which is led to its canary; the operator must run."""
    cluster = bench.cluster
    async with AsyncExitStack() as stack:
        client = await KubeClient.connect(str(cluster.kubeconfig), cluster.context)
        stack.push_async_callback(client.close)
        namespace = await stack.enter_async_context(own_namespace(cluster, keep=False))
        stage, keeper = Stage(cluster, client, namespace, f"shop-{gateway}"), f"keep-{gateway}"
        services = (stage.name, keeper)
        await stage.apply(*(variants.service(namespace=namespace, name=name) for name in services))
        await stack.enter_async_context(stage)
        running = await asyncio.to_thread(GATEWAYS[gateway].up, cluster, RichReporter())
        profile = gateway_profile(
            running, [f"{namespace}/{name}" for name in services], canary=True
        )
        if gateway in VIA_CLUSTER_IP:
            # An earlier run may have left one, which the operator is about to delete.
            await _until_canary(client, gateway, there=False)
        await stage.apply(profile)
        stack.push_async_callback(stage.delete, profile)
        exposure, _ = [
            await asyncio.to_thread(bench.expose, gateway, namespace, name) for name in services
        ]
        await stage.apply(variants.guard(namespace=namespace, name=keeper))
        if gateway in VIA_CLUSTER_IP:
            await _until_canary(client, gateway, there=True)
            target = canary_target(gateway)
            await asyncio.to_thread(bench.expose, gateway, target.namespace, target.name)
        yield Scene(bench, client, gateway, stage, exposure, keeper, KubectlGuarding(client))


async def _until_canary(client: KubeClient, gateway: str, *, there: bool) -> None:
    """Wait until the Service of a plain gateway's canary is there, or gone.

    Raises:
        LabError: It is not, in time.
    """
    target = canary_target(gateway)

    async def so() -> bool:
        try:
            await client.get(f"/api/v1/namespaces/{target.namespace}/services/{target.name}")
        except ApiError as error:
            return error.status == NOT_FOUND and not there
        return there

    try:
        await until(so, OBJECT_SECONDS)
    except TimeoutError:
        done = "made" if there else "deleted"
        raise LabError(
            f"the operator has not {done} the canary {target.name} within {OBJECT_SECONDS:g} s"
        ) from None


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: It is not within so many seconds.
    """
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.5)
