"""One matrix on one cluster: each gateway works its cases off, several gateways at the same time."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from upstream_guard.controller.churn import Churn
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.names import SERVICE_NAME_LABEL
from upstream_guard.kube.client import KubeClient, KubeError
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.matrix.cases import Case
from upstream_guard.lab.demo.matrix.results import Result
from upstream_guard.lab.demo.matrix.trials import Trials
from upstream_guard.lab.demo.mirror import Mirror, Objects
from upstream_guard.lab.demo.runner import Exposed
from upstream_guard.lab.demo.session import Expose, own_namespace
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.model import Cluster, LabError

SLICES_PATH: Final = "/apis/discovery.k8s.io/v1/endpointslices"
TRIES = 2
"""A case that could not be done is tried again at the end."""


class Progress(Protocol):
    """Told what is going on."""

    def doing(self, case: Case, text: str) -> None:
        """What is being done for a case."""

    def done(self, result: Result) -> None:
        """A case has ended."""

    def failed(self, case: Case, why: str) -> None:
        """A case could not be done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a session needs to know."""

    cases: Sequence[Case]
    """Still to do."""
    rate: float
    expose: Expose
    flush: Callable[[], None]
    forget: Callable[[Sequence[str]], None]
    jobs: int
    """Cases at the same time, at least 1. One keeps about one core busy: where more run than there are cores,
    pods start late, and what is measured is the machine."""
    with_remedies: bool = False
    keep: bool = False
    """Leave the namespace behind."""


@dataclass(frozen=True, slots=True)
class _Turns:
    """What the gateways take turns at."""

    running: asyncio.Semaphore
    draining: asyncio.Lock


async def conduct(
    cluster: Cluster, client: KubeClient, plan: Plan, progress: Progress
) -> list[Case]:
    """Do all cases; each result is handed to `progress.done`, so none is lost to Ctrl-C.

    Returns:
        Cases that could not be done.
    """
    queues: dict[str, deque[tuple[Case, int]]] = {}
    for case in plan.cases:
        queues.setdefault(case.gateway, deque()).append((case, 1))
    turns = _Turns(asyncio.Semaphore(plan.jobs), asyncio.Lock())
    await asyncio.to_thread(plan.flush)
    async with AsyncExitStack() as stack:
        namespace = await stack.enter_async_context(own_namespace(cluster, keep=plan.keep))
        stages = {}
        for gateway in queues:
            stage = Stage(cluster, client, namespace, f"shop-{gateway}")
            await stage.apply(variants.service(namespace=namespace, name=stage.name))
            await stack.enter_async_context(stage)
            exposure = await asyncio.to_thread(plan.expose, gateway, namespace, stage.name)
            stages[gateway] = (stage, exposure)
        churn = await stack.enter_async_context(_churn(client))
        async with asyncio.TaskGroup() as group:
            workers = [
                group.create_task(_work(queue, *stages[gateway], plan, turns, churn, progress))
                for gateway, queue in queues.items()
            ]
        return [case for worker in workers for case in worker.result()]


async def _work(
    queue: deque[tuple[Case, int]],
    stage: Stage,
    exposure: Exposed,
    plan: Plan,
    turns: _Turns,
    churn: Churn,
    progress: Progress,
) -> list[Case]:
    """One gateway's cases, one after another."""
    given_up = []
    while queue:
        case, tries = queue.popleft()
        trials = Trials(
            rate=plan.rate,
            forget=plan.forget,
            draining=turns.draining,
            busy=lambda service: churn.of_others(service, time.time()),
            with_remedies=plan.with_remedies,
            say=partial(progress.doing, case),
        )
        try:
            async with turns.running:
                progress.done(await trials.run(case, stage, exposure))
        except (LabError, KubeError) as error:
            progress.failed(case, str(error))
            if tries < TRIES:
                queue.append((case, tries + 1))
            else:
                given_up.append(case)
    return given_up


@asynccontextmanager
async def _churn(client: KubeClient) -> AsyncIterator[Churn]:
    """Follows the changes of all EndpointSlices, as the operator does."""
    churn = Churn()
    versions: dict[str, str] = {}

    def changed(at: float, objects: Objects) -> None:
        for uid, item in objects.items():
            meta = item["metadata"]
            if versions.get(uid) != meta["resourceVersion"]:
                versions[uid] = meta["resourceVersion"]
                name = (meta.get("labels") or {}).get(SERVICE_NAME_LABEL, "")
                churn.saw(ObjectRef(meta["namespace"], name), at)

    async with Mirror(client, SLICES_PATH, on_change=changed):
        yield churn
