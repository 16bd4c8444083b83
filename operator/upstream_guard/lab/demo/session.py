"""One demo on one cluster: a namespace of its own, a service per gateway, one run after another."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from upstream_guard.kube.client import KubeClient
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.events import UserEvent, user_events
from upstream_guard.lab.demo.report import Run
from upstream_guard.lab.demo.runner import Cell, Exposed, Foresee, Guarding, Runner
from upstream_guard.lab.demo.stage import Stage, kubectl
from upstream_guard.lab.model import Cluster, LabError

Json = dict[str, Any]

Expose = Callable[[str, str, str], Exposed]
"""(gateway, namespace, service) to where the gateway serves it. Blocking; called in a thread."""


class Progress(Protocol):
    """Told what is going on."""

    def doing(self, cell: Cell | None, text: str) -> None:
        """What is being done, and for which run."""

    def done(self, run: Run) -> None:
        """A run has ended."""


@dataclass(frozen=True, slots=True)
class Conduct:
    """What a session needs to know."""

    cells: Sequence[Cell]
    rate: float
    expose: Expose
    flush: Callable[[], None]
    guarding: Guarding | None
    keep: bool = False
    """Leave the namespace behind."""
    foresee: Foresee | None = None
    """Predicts each change; None where no prediction was asked for."""
    listen: bool = False
    """Take down what the operator tells of each change; needs `guarding`."""
    kept: float = 0.0
    """Share of the requests that go over kept-alive connections."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a session found."""

    namespace: str
    events: list[UserEvent]


async def conduct(
    cluster: Cluster, client: KubeClient, plan: Conduct, progress: Progress
) -> Outcome:
    """Do all runs; each is handed to `progress.done` as it ends, so none is lost to Ctrl-C.

    Raises:
        LabError: a run could not be done.
    """
    async with AsyncExitStack() as stack:
        namespace = await stack.enter_async_context(own_namespace(cluster, keep=plan.keep))
        stages: dict[str, tuple[Stage, Exposed]] = {}
        for cell in plan.cells:
            if cell.gateway not in stages:
                progress.doing(None, f"a service behind {cell.gateway}")
                stage = Stage(cluster, client, namespace, f"shop-{cell.gateway}")
                stages[cell.gateway] = (stage, await _expose(stack, stage, cell.gateway, plan))
            stage, exposure = stages[cell.gateway]
            runner = Runner(
                rate=plan.rate,
                flush=plan.flush,
                guarding=plan.guarding,
                say=partial(progress.doing, cell),
                foresee=plan.foresee,
                listen=plan.listen,
                kept=plan.kept,
            )
            progress.done(await runner.run(cell, stage, exposure))
        return Outcome(namespace, await _events(cluster, namespace))


async def _expose(stack: AsyncExitStack, stage: Stage, gateway: str, plan: Conduct) -> Exposed:
    await stage.apply(variants.service(namespace=stage.namespace, name=stage.name))
    await stack.enter_async_context(stage)
    return await asyncio.to_thread(plan.expose, gateway, stage.namespace, stage.name)


@asynccontextmanager
async def own_namespace(cluster: Cluster, *, keep: bool) -> AsyncIterator[str]:
    """A namespace that nobody else uses, while the context is open."""
    name = f"ug-demo-{secrets.token_hex(2)}"
    await kubectl(cluster, "create", "namespace", name)
    try:
        yield name
    finally:
        if not keep:
            with suppress(LabError):  # what went wrong before this matters more
                await asyncio.shield(kubectl(cluster, "delete", "namespace", name, "--wait=false"))


async def _events(cluster: Cluster, namespace: str) -> list[UserEvent]:
    text = await kubectl(cluster, "--namespace", namespace, "get", "events", "--output=json")
    items: list[Json] = json.loads(text)["items"]
    return user_events(items)
