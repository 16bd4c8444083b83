"""Carries out what `core.surge` plans: reads Deployments, scales them, and remembers in guards' statuses."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from upstream_guard.controller.guards import GuardEntry
from upstream_guard.core.assessment import Situation
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.state import Autoscaler, Budget
from upstream_guard.core.reasons import Reason
from upstream_guard.core.surge import (
    SurgePlan,
    SurgeRecord,
    SurgeStep,
    SurgeView,
    gitops_manager,
    one_deployment,
    plan_surge,
)
from upstream_guard.kube.client import MERGE, ApiError, KubeClient
from upstream_guard.kube.state import ClusterState
from upstream_guard.resources.status import parse_surge

logger = logging.getLogger(__name__)

Json = Mapping[str, Any]
Tell = Callable[[GuardEntry, Reason, str], None]

AGAIN_SECONDS: Final = 1.0
"""How soon it is looked again while a record is being written, or after a refused write."""
FORBIDDEN: Final = 403


@dataclass(slots=True)
class _Memory:
    record: SurgeRecord | None
    given_up: tuple[str, str] = ("", "")
    """Workload and node for which it was tried and is not tried again."""
    skipped: str = ""
    """What was said of a surge that cannot help."""


class Surger:
    """One replica more for Deployments that would lose their last pod to a drain."""

    def __init__(
        self,
        client: KubeClient,
        state: ClusterState,
        clock: Callable[[], float],
        tell: Tell,
        current: Callable[[ObjectRef], Json],
        mark: Callable[[ObjectRef], None],
    ) -> None:
        """Wire it.

        Args:
            client: The API server.
            state: The cluster.
            clock: Unix seconds.
            tell: Tells of a guard what was done, and why.
            current: A guard's status as it is written.
            mark: Has a guard evaluated soon.
        """
        self._client = client
        self._state = state
        self._clock = clock
        self._tell = tell
        self._current = current
        self._mark = mark
        self._memories: dict[ObjectRef, _Memory] = {}
        self._tasks: dict[ObjectRef, asyncio.Task[None]] = {}

    def consider(self, entry: GuardEntry, situation: Situation) -> SurgeRecord | None:
        """Take the next step for a guard in force; what its status has to remember."""
        wanted = situation.guard.drain.surge_before_evict
        memory = self._memories.get(entry.ref)
        if memory is None:
            record = parse_surge(entry.status)
            if record is None and not wanted:
                return None
            memory = self._memories[entry.ref] = _Memory(record)
        if entry.ref not in self._tasks:
            view = self._view(situation)
            plan = plan_surge(view, memory.record, self._clock(), wanted=wanted)
            self._take(entry, memory, plan)
        return memory.record

    def forget(self, entry: GuardEntry) -> None:
        """A guard is gone: what it added goes with it."""
        memory = self._memories.pop(entry.ref, None)
        if memory is not None and memory.record is not None and entry.ref not in self._tasks:
            record = memory.record
            self._start(entry, self._scale(entry, record, record.base + 1, record.base))

    def abandon(self) -> None:
        """Write nothing more: another replica may control by now, and it has the status to go on from."""
        for task in self._tasks.values():
            task.cancel()

    def _view(self, situation: Situation) -> SurgeView:
        service = situation.service
        owners = {p.uid: self._state.workload_of(p) for p in situation.pods}
        workload = one_deployment(tuple(owners.values()))
        pods = tuple(p for p in situation.pods if owners[p.uid] == workload)
        around = self._state.surroundings
        sights = around.workloads(service.ref.namespace)
        replicas = next((s.workload.replicas for s in sights if s.text == workload), None)
        rules = around.rules(service.ref.namespace)
        return SurgeView(
            workload=workload,
            replicas=replicas if workload else None,
            pods=pods,
            draining=frozenset(
                n.name for n in self._state.nodes.values() if n.unschedulable or n.leaving
            ),
            budgets=tuple(
                r
                for r in rules
                if isinstance(r, Budget) and any(r.selector.matches(p.labels) for p in pods)
            ),
            autoscalers=tuple(r for r in rules if isinstance(r, Autoscaler)),
        )

    def _take(self, entry: GuardEntry, memory: _Memory, plan: SurgePlan) -> None:
        record = plan.record
        match plan.step:
            case SurgeStep.NONE:
                memory.given_up, memory.skipped = ("", ""), ""
            case SurgeStep.SKIP:
                self._skip(entry, memory, plan.message)
            case SurgeStep.REMEMBER if record is not None:
                self._begin(entry, memory, record, plan.message)
            case SurgeStep.ADD if record is not None:
                self._add(entry, record)
            case SurgeStep.WAIT if record is not None:
                memory.record = replace(record, added=True)
            case SurgeStep.PUT_BACK if record is not None:
                self._start(entry, self._put_back(entry, record, plan.message))
            case SurgeStep.FORGET if record is not None:
                self._let_go(entry, memory, record, plan.message)

    def _begin(self, entry: GuardEntry, memory: _Memory, record: SurgeRecord, message: str) -> None:
        given_up = memory.given_up == (record.workload, record.node)
        if not given_up and not self._taken(entry, record):
            self._start(entry, self._remember(entry, memory, record, message))

    def _taken(self, entry: GuardEntry, record: SurgeRecord) -> bool:
        """Another guard does it for the same Deployment."""
        return any(
            ref != entry.ref
            and ref.namespace == entry.ref.namespace
            and memory.record is not None
            and memory.record.workload == record.workload
            for ref, memory in self._memories.items()
        )

    def _skip(self, entry: GuardEntry, memory: _Memory, message: str) -> None:
        if message != memory.skipped:
            memory.skipped = message
            self._tell(entry, Reason.SURGE_SKIPPED, message)

    def _let_go(
        self, entry: GuardEntry, memory: _Memory, record: SurgeRecord, message: str
    ) -> None:
        memory.record = None
        memory.given_up = (record.workload, record.node)
        if message:
            self._tell(entry, Reason.SURGE_SKIPPED, message)

    def _add(self, entry: GuardEntry, record: SurgeRecord) -> None:
        if parse_surge(self._current(entry.ref)) != record:
            self._look_again(entry.ref)  # it is not written yet
            return
        self._start(entry, self._scale(entry, record, record.base, record.base + 1))

    async def _remember(
        self, entry: GuardEntry, memory: _Memory, record: SurgeRecord, message: str
    ) -> None:
        deployment = await self._client.get(_path(entry.ref.namespace, record.workload))
        tool = gitops_manager(_managers(deployment))
        if tool:
            memory.given_up = (record.workload, record.node)
            words = f"{tool} sets the replicas of {record.workload} and would put them back"
            self._skip(entry, memory, f"{words}, so none is added before the drain: run two there")
            return
        memory.record = record
        self._tell(entry, Reason.REPLICA_ADDED, message)

    async def _put_back(self, entry: GuardEntry, record: SurgeRecord, message: str) -> None:
        if await self._scale(entry, record, record.base + 1, record.base):
            self._tell(entry, Reason.REPLICA_PUT_BACK, message)

    async def _scale(self, entry: GuardEntry, record: SurgeRecord, now: int, then: int) -> bool:
        """From `now` to `then` replicas, unless it was changed meanwhile; whether it was done."""
        path = _path(entry.ref.namespace, record.workload)
        deployment = await self._client.get(path)
        if (deployment.get("spec") or {}).get("replicas", 1) != now:
            return False
        version = deployment["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": then}}
        await self._client.patch(f"{path}/scale", body, content_type=MERGE)
        logger.info("%s in %s: %d to %d replicas", record.workload, entry.ref.namespace, now, then)
        return True

    def _start(self, entry: GuardEntry, work: Coroutine[Any, Any, object]) -> None:
        name = f"surge {entry.ref}"
        self._tasks[entry.ref] = asyncio.create_task(self._run(entry, work), name=name)

    async def _run(self, entry: GuardEntry, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except ApiError as error:
            self._failed(entry, error)
        finally:
            self._tasks.pop(entry.ref, None)
        self._look_again(entry.ref)

    def _failed(self, entry: GuardEntry, error: ApiError) -> None:
        logger.warning("Deployment of guard %s not scaled: %s", entry.ref, error)
        memory = self._memories.get(entry.ref)
        if error.status == FORBIDDEN and memory is not None and memory.record is not None:
            # Not allowed to add, so nothing was added: there is nothing to put back either.
            memory.given_up = (memory.record.workload, memory.record.node)
            memory.record = None
            words = (
                "the operator may not scale Deployments: `kubectl apply -k deploy/surge` allows it"
            )
            self._skip(entry, memory, words)

    def _look_again(self, ref: ObjectRef) -> None:
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._mark, ref)


def _path(namespace: str, workload: str) -> str:
    name = workload.removeprefix("deployment/")
    return f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"


def _managers(deployment: Json) -> list[tuple[str, bool]]:
    """Each field manager, and whether it owns `spec.replicas`."""
    entries = (deployment.get("metadata") or {}).get("managedFields") or ()
    return [
        (
            str(entry.get("manager") or ""),
            "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {}),
        )
        for entry in entries
        if not entry.get("subresource")
    ]
