"""Does one case: deploy, measure the app, predict, load, change, count, clean up."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.engine import predict
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.score import Prediction, naive_rule
from upstream_guard.core.predict.state import Change, ChangeKind, State
from upstream_guard.core.predict.window import Window
from upstream_guard.lab.demo import scenarios, tally
from upstream_guard.lab.demo.matrix import question, remedies
from upstream_guard.lab.demo.matrix.cases import Case
from upstream_guard.lab.demo.matrix.manifests import manifests
from upstream_guard.lab.demo.matrix.results import Course, Remedied, Result, bounded, observe
from upstream_guard.lab.demo.runner import (
    AFTER_SECONDS,
    BEFORE_SECONDS,
    Exposed,
    load_on,
    until_calm,
)
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.model import LabError

Json = dict[str, Any]

STAYS: Final = frozenset({"Service", "Ingress", "IngressClass"})
"""What all cases of a gateway share."""


@dataclass(frozen=True, slots=True)
class _Act:
    """What is to be done once: a case, with its own manifests or with mended ones."""

    case: Case
    written: tuple[Json, ...]

    @property
    def replicas(self) -> int:
        """How many the manifests ask for."""
        found = [item for item in self.written if item["kind"] == "Deployment"]
        return int(found[0]["spec"]["replicas"])

    @property
    def replicas_after(self) -> int:
        """How many are to serve when it is over."""
        scaled = self.case.change is ChangeKind.SCALE_IN
        return self.case.to_replicas if scaled else self.replicas


@dataclass(frozen=True, slots=True)
class _Asked:
    """Everything about a question to the predictor but the manifests."""

    service: ObjectRef
    case: Case
    change: Change
    facts: Facts
    pods: Sequence[Json]
    nodes: Sequence[str]

    def state(self, written: Sequence[Json]) -> State:
        return question.state_of(written, self.service, self.pods, self.nodes)

    def windows(self, written: Sequence[Json]) -> tuple[Window, ...]:
        gateway = question.gateway_model(self.case.gateway)
        return predict(self.state(written), gateway, self.change, self.facts, time.time())


@dataclass(frozen=True, slots=True)
class Trials:
    """Does one case after another on one stage.

    Args:
        rate: requests a second.
        forget: makes the machine forget connections to pods that are gone, by their addresses.
        draining: held by a case that drains a node, for while one is cordoned nothing can be spread.
        busy: `PlatformFacts.other_changes` for a Service now.
        with_remedies: measure again with the remedies applied, where a window was announced.
        say: told what is going on, for the progress bar.
    """

    rate: float
    forget: Callable[[Sequence[str]], None]
    draining: asyncio.Lock
    busy: Callable[[ObjectRef], float]
    with_remedies: bool
    say: Callable[[str], None] = field(default=lambda _text: None)

    async def run(self, case: Case, stage: Stage, exposure: Exposed) -> Result:
        """Do one case; its Deployment is gone afterwards, whatever happened.

        Raises:
            LabError: the cluster did not do in time what the case needs.
        """
        written = tuple(manifests(case, namespace=stage.namespace, name=stage.name))
        if case.change is not ChangeKind.NODE_DRAIN:
            return await self._both(_Act(case, written), stage, exposure)
        async with self.draining:
            return await self._both(_Act(case, written), stage, exposure)

    async def _both(self, act: _Act, stage: Stage, exposure: Exposed) -> Result:
        asked, course = await self._course(act, stage, exposure)
        result = Result(act.case, naive_rule(asked.state(act.written)), course)
        if not self.with_remedies or not course.prediction.likely:
            return result
        self.say("applying the remedies")
        mended = await remedies.mend(stage.cluster, act.written, asked.windows)
        again = None
        if mended.risks:
            _, again = await self._course(_Act(act.case, mended.written), stage, exposure)
        remedied = Remedied(mended.risks, mended.without, again)
        return Result(act.case, result.naive, course, remedied)

    async def _course(self, act: _Act, stage: Stage, exposure: Exposed) -> tuple[_Asked, Course]:
        addresses: set[str] = set()
        try:
            starts = await self._deploy(act, stage)
            addresses |= _addresses(stage)
            self.say("waiting for steady answers")
            await until_calm(exposure, act.case.response)
            found = await self._measure(act, stage, exposure, starts)
        except BaseException:
            with suppress(LabError):  # what went wrong before this matters more
                await asyncio.shield(self._clear(act, stage, addresses))
            raise
        await self._clear(act, stage, addresses)
        return found

    async def _deploy(self, act: _Act, stage: Stage) -> tuple[float, ...]:
        """Deploy it; returns how long each pod took from its start to its first answer."""
        self.say(f"deploying {act.replicas} replicas")
        await stage.apply(*act.written)
        await stage.until_serving(act.replicas)
        states = [await stage.sample_state(pod) for pod in stage.pods()]
        return tuple(round(state["serving"] - state["started"], 3) for state in states)

    async def _measure(
        self, act: _Act, stage: Stage, exposure: Exposed, starts: tuple[float, ...]
    ) -> tuple[_Asked, Course]:
        case = act.case
        async with load_on(exposure, self.rate) as load:
            self.say("load before the change")
            await asyncio.sleep(BEFORE_SECONDS + case.response)
            asked = self._ask(case, stage, starts)
            windows = asked.windows(act.written)
            self.say(case.change.value)
            made_at = time.time()
            await _CHANGES[case.change](stage, case)
            change_ended = time.time()
            self.say("until every pod serves")
            await stage.until_serving(act.replicas_after)
            await asyncio.sleep(AFTER_SECONDS + case.response)
            until = time.time()
            self.say("waiting for the last answers")
            records = await load.stop()
        prediction = Prediction(
            service=str(asked.service),
            gateway=case.gateway,
            change=case.change,
            made_at=made_at,
            began=made_at,
            windows=bounded(windows, until - made_at, self.rate),
            until=until,
        )
        observed, before = observe(records, prediction)
        total = tally.tally(records)
        course = Course(
            prediction=prediction,
            observed=observed,
            requests=len(records),
            statuses=total.statuses,
            failed_before=before,
            change_seconds=round(change_ended - made_at, 3),
            starts=starts,
            other_changes=asked.facts.platform.other_changes,
            slowest=round(total.slowest, 3),
        )
        return asked, course

    def _ask(self, case: Case, stage: Stage, starts: tuple[float, ...]) -> _Asked:
        node = stage.node_to_drain() if case.change is ChangeKind.NODE_DRAIN else ""
        service = ObjectRef(stage.namespace, stage.name)
        return _Asked(
            service=service,
            case=case,
            change=question.change_of(case, node),
            facts=question.facts_of(case, starts, self.rate, self.busy(service)),
            pods=stage.pods(),
            nodes=[node.name for node in stage.cluster.nodes],
        )

    async def _clear(self, act: _Act, stage: Stage, addresses: set[str]) -> None:
        self.say("cleaning up")
        addresses |= _addresses(stage)
        mine = [item for item in act.written if item["kind"] not in STAYS]
        await stage.delete(*mine)
        await stage.clear_pods()
        stage.listed.clear()
        await asyncio.to_thread(self.forget, sorted(addresses))


def _addresses(stage: Stage) -> set[str]:
    found = (str(pod.get("status", {}).get("podIP", "")) for pod in stage.pods())
    return {address for address in found if address}


async def _rollout(stage: Stage, case: Case) -> None:
    del case
    await scenarios.rollout(stage)


async def _scale_in(stage: Stage, case: Case) -> None:
    await scenarios.scale_in(stage, case.to_replicas)


async def _delete_pod(stage: Stage, case: Case) -> None:
    """Ends when the pod is gone from the API."""
    del case
    pod = stage.pods()[0]
    await stage.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    await stage.until_gone([pod["metadata"]["uid"]])


async def _crash(stage: Stage, case: Case) -> None:
    del case
    await scenarios.crash(stage)


async def _drain(stage: Stage, case: Case) -> None:
    del case
    await scenarios.drain(stage)


_CHANGES: Final[Mapping[ChangeKind, Callable[[Stage, Case], Awaitable[None]]]] = {
    ChangeKind.ROLLOUT: _rollout,
    ChangeKind.SCALE_IN: _scale_in,
    ChangeKind.POD_DELETION: _delete_pod,
    ChangeKind.CRASH: _crash,
    ChangeKind.NODE_DRAIN: _drain,
}
