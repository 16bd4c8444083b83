"""Runs the demo's cells: deploy, load, change, count, clean up."""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import httpx

from upstream_guard.core.predict.score import Prediction
from upstream_guard.lab.demo import tally, variants
from upstream_guard.lab.demo.hearing import Hearing
from upstream_guard.lab.demo.report import Run
from upstream_guard.lab.demo.scenarios import Scenario
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.tally import Record
from upstream_guard.lab.demo.variants import GO, TUNED_PRE_STOP_SECONDS, App, Variant
from upstream_guard.lab.model import LabError

BEFORE_SECONDS = 2.0
"""Steady load before the change."""
KNOWN_SECONDS = 12.0
"""The same where the operator shall tell of it: it reads a gateway's counters every 5 s, and two readings make a rate."""
AFTER_SECONDS = 3.0
"""Steady load after its end and after every pod serves."""
REQUEST_SECONDS = 10.0
"""A request without an answer after this long has failed, as most clients would have it."""
ROUTE_SECONDS = 60.0
"""How long a gateway may take to route to a new Deployment before the demo gives up."""
CALM_ANSWERS = 20
"""So many answers in a row must be good before a run begins."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run to do."""

    gateway: str
    scenario: Scenario
    variant: Variant
    repeat: int
    app: App = GO
    hook: int = TUNED_PRE_STOP_SECONDS
    """Whole seconds of the preStop sleep of a tuned service."""

    def __str__(self) -> str:
        what = self.scenario.name if self.app is GO else f"{self.scenario.name} ({self.app.name})"
        return f"{self.gateway} · {what} · {self.variant} · {self.repeat}"


class Exposed(Protocol):
    """Where a gateway serves a Service."""

    @property
    def address(self) -> str:
        """IP address."""

    @property
    def port(self) -> int:
        """TCP port."""

    @property
    def host(self) -> str:
        """The Host header that selects the route."""


class Guarding(Protocol):
    """What brings a service under guard, and releases it."""

    async def guard(self, stage: Stage) -> None:
        """Create the guard and wait until pods made from now on are protected."""

    async def look_on(self, stage: Stage) -> None:
        """Create a guard that changes nothing, and wait until the operator follows the service."""

    async def look(self, stage: Stage) -> None:
        """Take note of what a user would see of the guard now."""

    async def release(self, stage: Stage) -> None:
        """Delete the guard."""


Foresee = Callable[[Cell, Stage], Awaitable[Prediction | None]]
"""Predicts a cell's change just before it; None where it is one that nobody can foresee."""


def cells(
    gateways: Sequence[str],
    scenarios: Sequence[Scenario],
    chosen: Sequence[Variant],
    repeats: int,
    apps: Sequence[App] = (GO,),
) -> list[Cell]:
    """All runs, with variants next to each other so that they meet the same machine."""
    return [
        Cell(gateway, scenario, variant, repeat, app)
        for gateway in gateways
        for scenario in scenarios
        for app in apps
        for repeat in range(1, repeats + 1)
        for variant in chosen
    ]


@dataclass(frozen=True, slots=True)
class Runner:
    """Does one cell after another on one stage per gateway.

    Args:
        rate: requests a second.
        flush: makes the machine forget connections to pods that are gone (conntrack).
        guarding: needed for guarded cells only.
        say: told what is going on, for the progress bar.
        foresee: predicts each change; None where no prediction was asked for.
        listen: let the operator follow every service, those without a guard of their own by one that
            only looks on, and take down what it tells of each change. Needs `guarding`.
        kept: share of the requests, from 0 to 1, that go over kept-alive connections.
    """

    rate: float
    flush: Callable[[], None]
    guarding: Guarding | None
    say: Callable[[str], None]
    foresee: Foresee | None = None
    listen: bool = False
    kept: float = 0.0

    async def run(self, cell: Cell, stage: Stage, exposure: Exposed) -> Run:
        """Do one cell; the Deployment and guard are gone afterwards, whatever happened.

        Raises:
            LabError: the cluster did not do in time what the run needs.
        """
        try:
            await self._deploy(cell, stage)
            self.say("waiting for steady answers")
            await asyncio.to_thread(self.flush)
            await until_calm(exposure)
            run = await self.measure(cell, stage, exposure)
        except BaseException:
            with suppress(LabError):  # what went wrong before this matters more
                await self._clear(cell, stage)
            raise
        await self._clear(cell, stage)
        return run

    async def _deploy(self, cell: Cell, stage: Stage) -> None:
        scenario = cell.scenario
        if cell.variant is Variant.GUARDED:
            if self.guarding is None:
                raise LabError("a guarded run needs the operator")
            self.say("creating the guard")
            await self.guarding.guard(stage)
        elif self.listen and self.guarding is not None:
            self.say("creating a guard that only looks on")
            await self.guarding.look_on(stage)
        self.say(f"deploying {scenario.replicas} replicas")
        await stage.apply(
            variants.deployment(
                cell.variant,
                namespace=stage.namespace,
                name=stage.name,
                replicas=scenario.replicas,
                start_delay=scenario.start_delay,
                app=cell.app,
                hook=cell.hook,
            )
        )
        await stage.until_serving(scenario.replicas)

    async def measure(self, cell: Cell, stage: Stage, exposure: Exposed) -> Run:
        """Do a cell's change alone, under load, on a service that stands.

        Raises:
            LabError: the cluster did not do in time what the run needs.
        """
        async with (
            mixed_load_on(exposure, self.rate, self.kept) as load,
            self._hearing(stage) as hearing,
        ):
            self.say("load before the change")
            await asyncio.sleep(KNOWN_SECONDS if self.listen else BEFORE_SECONDS)
            prediction = await self.foresee(cell, stage) if self.foresee else None
            pre_stop = variants.pre_stop(stage.pods())
            self.say(cell.scenario.title)
            change_started = time.time()
            await cell.scenario.change(stage)
            change_ended = time.time()
            self.say("until every pod serves")
            await stage.until_serving(cell.scenario.replicas_after)
            await asyncio.sleep(AFTER_SECONDS)
            if cell.variant is Variant.GUARDED and self.guarding is not None:
                await self.guarding.look(stage)
            self.say("waiting for the last answers")
            records = await load.stop()
        made = make_run(cell, records, stage.listed, change_started, change_ended)
        run = replace(made, pre_stop=pre_stop, kept_failed=load.kept_failed)
        if hearing is not None:
            run = replace(run, told=hearing.told)
        if prediction is None:
            return run
        until = run.load_started + len(records) / self.rate
        return replace(run, prediction=replace(prediction, began=change_started, until=until))

    def _hearing(self, stage: Stage) -> AbstractAsyncContextManager[Hearing | None]:
        if not self.listen:
            return nullcontext()
        return Hearing(stage.client, stage.namespace, stage.name)

    async def _clear(self, cell: Cell, stage: Stage) -> None:
        self.say("cleaning up")
        await stage.kubectl("delete", stage.deployment, "--ignore-not-found", "--wait=false")
        if self.guarding is not None and (self.listen or cell.variant is Variant.GUARDED):
            await self.guarding.release(stage)
        await stage.clear_pods()
        stage.listed.clear()


def make_run(
    cell: Cell,
    records: Sequence[Record],
    listed: Sequence[tuple[float, int]],
    change_started: float,
    change_ended: float,
) -> Run:
    """Put one run's findings together.

    Args:
        cell: what was run.
        records: of every request.
        listed: (Unix time, endpoints listed) after each change of the list, in order.
        change_started: Unix time.
        change_ended: Unix time.
    """
    sent = sorted(record.sent for record in records)
    start, end = (sent[0], sent[-1]) if sent else (change_started, change_ended)
    before = [(start, count) for at, count in listed if at <= start][-1:]
    during = [(at, count) for at, count in listed if start < at <= end]
    return Run(
        gateway=cell.gateway,
        scenario=cell.scenario.name,
        variant=cell.variant,
        repeat=cell.repeat,
        tally=tally.tally(records),
        load_started=start,
        change_started=change_started,
        change_ended=change_ended,
        failures=tuple(sorted(record.sent for record in records if record.failed)),
        listed=tuple(before + during),
        app=cell.app.name,
    )


class Load:
    """The load generator's process and its results."""

    def __init__(self, process: asyncio.subprocess.Process, out: Path) -> None:
        self._process = process
        self._out = out

    async def stop(self) -> list[Record]:
        """Stop sending, wait for the answers that are under way, read the results."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        async with asyncio.timeout(REQUEST_SECONDS + 20):
            _, err = await self._process.communicate()
        if self._process.returncode != 0:
            raise LabError(f"the load generator failed: {err.decode().strip()[-500:]}")
        lines = self._out.read_text(encoding="utf-8").splitlines()
        return [tally.decode(line) for line in lines]

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        with suppress(ProcessLookupError):
            self._process.kill()


@asynccontextmanager
async def load_on(
    exposure: Exposed, rate: float, *, keep_alive: bool = False
) -> AsyncIterator[Load]:
    """Load on the exposed service while the context is open.

    Args:
        exposure: where it is served.
        rate: requests a second.
        keep_alive: reuse connections instead of a new one for each request.
    """
    with tempfile.TemporaryDirectory(prefix="upstream-guard-load-") as folder:
        out = Path(folder) / "load.jsonl"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "upstream_guard.lab.load",
            "--url", f"http://{exposure.address}:{exposure.port}/", "--host", exposure.host,
            "--rate", f"{rate:g}", "--timeout", f"{REQUEST_SECONDS:g}", "--out", str(out),
            *(["--keep-alive"] if keep_alive else []),
            stderr=asyncio.subprocess.PIPE, env=_import_path(), start_new_session=True,
        )  # fmt: skip
        load = Load(process, out)
        try:
            await _until_written(process, out)
            yield load
        finally:
            load.kill()
            await process.wait()


@dataclass(slots=True)
class MixedLoad:
    """Load on new and on kept connections at the same time."""

    new: Load | None
    kept: Load | None
    kept_failed: int = 0
    """Requests on kept connections that failed; known after `stop`."""

    async def stop(self) -> list[Record]:
        """As `Load.stop`, of both."""
        both = (self.new, self.kept)
        new, kept = await asyncio.gather(*(_records(load) for load in both))
        self.kept_failed = sum(record.failed for record in kept)
        return new + kept


async def _records(load: Load | None) -> list[Record]:
    return await load.stop() if load else []


@asynccontextmanager
async def mixed_load_on(exposure: Exposed, rate: float, kept: float) -> AsyncIterator[MixedLoad]:
    """As `load_on`, a share of it on connections that the clients keep.

    Args:
        exposure: where the service is served.
        rate: requests a second, both together.
        kept: the share, from 0 to 1.
    """
    async with AsyncExitStack() as stack:

        async def begin(share: float, *, keep_alive: bool) -> Load | None:
            if not share:
                return None
            return await stack.enter_async_context(
                load_on(exposure, rate * share, keep_alive=keep_alive)
            )

        new = await begin(1 - kept, keep_alive=False)
        yield MixedLoad(new, await begin(kept, keep_alive=True))


async def _until_written(process: asyncio.subprocess.Process, out: Path) -> None:
    async with asyncio.timeout(20):
        while process.returncode is None:
            if _size(out):
                return
            await asyncio.sleep(0.02)
    raise LabError("the load generator ended before its first request")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _import_path() -> dict[str, str]:
    """Our own import path for a child, which may have been set up without installation."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


async def until_calm(exposure: Exposed, slow: float = 0.0) -> None:
    """Wait until the gateway answers well several times in a row, a new connection each.

    Args:
        exposure: where it serves.
        slow: seconds that a good answer takes; slow ones are asked for at once, not in turn.

    Raises:
        LabError: it did not within `ROUTE_SECONDS`, with its last answer.
    """
    url = f"http://{exposure.address}:{exposure.port}/"
    headers = {"Host": exposure.host, "Connection": "close"}
    at_once = CALM_ANSWERS if slow else 1
    good, last = 0, "no answer"

    async def ask(client: httpx.AsyncClient) -> str:
        try:
            answer = await client.get(url, headers=headers, timeout=2 + slow)
        except httpx.TransportError as error:
            return f"{type(error).__name__}: {error}"
        return f"HTTP {answer.status_code}"

    try:
        async with asyncio.timeout(ROUTE_SECONDS), httpx.AsyncClient(trust_env=False) as client:
            while good < CALM_ANSWERS:
                answers = await asyncio.gather(*(ask(client) for _ in range(at_once)))
                bad = [answer for answer in answers if not _is_good(answer)]
                good = 0 if bad else good + at_once
                last = bad[0] if bad else answers[-1]
                if not good:
                    await asyncio.sleep(0.1)
    except TimeoutError:
        raise LabError(
            f"the gateway at {url} (Host: {exposure.host}) did not answer steadily "
            f"within {ROUTE_SECONDS:g} s; its last answer was: {last}"
        ) from None


def _is_good(answer: str) -> bool:
    status = answer.removeprefix("HTTP ")
    return status.isdigit() and int(status) < 500
