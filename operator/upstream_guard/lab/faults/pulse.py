"""Whether the operator is there: a trial without it says nothing, and must not look like a wrong cause.

What is taken for a sign of life is what a user of the cluster has as well: the Lease that is renewed, and
the guard's status. Of an operator that the lab itself has started its process is looked at in addition,
for one that was started again holds the Lease of its predecessor.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from upstream_guard.core import names
from upstream_guard.kube.client import ApiError, KubeClient
from upstream_guard.lab import process, replicas
from upstream_guard.lab.model import LabError
from upstream_guard.lab.replicas import Replica

Json = Mapping[str, Any]

SETTLE_SECONDS: Final = 5.0
"""How long a controller must have been in control: it looks at every guard first."""
POLL_SECONDS: Final = 0.25
LEASE_PATH: Final = (
    f"/apis/coordination.k8s.io/v1/namespaces/{names.OPERATOR_NAMESPACE}/leases/{names.LEASE}"
)


@dataclass(frozen=True, slots=True)
class Pulse:
    """Who controls. It was the same operator all the time where this is the same at both ends.

    Attributes:
        holder: Of the Lease.
        transitions: Of the Lease, so far.
        pid: Of its process, where the lab has started it; else 0.
    """

    holder: str
    transitions: int
    pid: int = 0


def pulse_of(lease: Json, crew: Sequence[Replica], now: float) -> Pulse | None:
    """Who controls by the Lease, at a Unix time; None where nobody does."""
    holder = replicas.lease_holder(dict(lease), now)
    mine = next((replica for replica in crew if replica.name == holder), None)
    if not holder or (mine is None and crew) or (mine and not process.alive(mine.pid)):
        return None
    transitions = int((lease.get("spec") or {}).get("leaseTransitions") or 0)
    return Pulse(holder, transitions, mine.pid if mine else 0)


def unready(guard: Json, pods: int) -> str:
    """Why windows of a guard would not be seen yet, by its status; empty where they would be.

    Args:
        guard: As the API has it.
        pods: How many are to be listed and serving.
    """
    return next(_lacking(guard, pods), "")


def _lacking(guard: Json, pods: int) -> Iterator[str]:
    status, generation = guard.get("status") or {}, guard["metadata"].get("generation")
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    for kind in ("Accepted", "Healthy"):
        condition = conditions.get(kind) or {}
        if condition.get("status") != "True" or condition.get("observedGeneration") != generation:
            words = condition.get("message") or condition.get("reason") or "not said yet"
            yield f"its guard is not {kind}: {words}"
    counts = status.get("endpoints") or {}
    for key in ("serving", "listed"):
        if counts.get(key) != pods:
            yield f"it sees {counts.get(key, 0)} of {pods} endpoints {key}"
    asked = [r for r in status.get("routes") or () if r.get("url") and not r.get("problem")]
    if not asked:
        problems = [r["problem"] for r in status.get("routes") or () if r.get("problem")]
        yield f"it asks no route: {'; '.join(problems) or 'none is known'}"
    if any(not window.get("closed") for window in status.get("windows") or ()):
        yield "a window is still open"


@dataclass(slots=True)
class Operator:
    """The operator, as trials need it.

    Attributes:
        client: Of the cluster.
        crew: Its processes as they are now, where the lab has started it; else empty.
    """

    client: KubeClient
    crew: Sequence[Replica] = ()
    _since: tuple[Pulse, float] | None = field(default=None)
    """The last pulse, and since when it is so (monotonic)."""

    async def pulse(self) -> Pulse | None:
        """Who controls now; None where nobody does."""
        try:
            lease = await self.client.get(LEASE_PATH)
        except ApiError:
            return None
        found = pulse_of(lease, self.crew, time.time())
        if found is None:
            self._since = None
        elif self._since is None or self._since[0] != found:
            self._since = (found, time.monotonic())
        return found

    async def until_attentive(self, lacking: Callable[[], str], seconds: float) -> Pulse:
        """Wait until the operator controls, has done so for a while, and nothing is lacking.

        Args:
            lacking: Says what is; empty where nothing is.
            seconds: How long at most.

        Raises:
            LabError: it did not come about in time; the message says what was lacking last.
        """
        deadline = time.monotonic() + seconds
        while True:
            found, why = await self._look(lacking)
            if found is not None and not why:
                return found
            if time.monotonic() > deadline:
                raise LabError(f"waited {seconds:g} s for the operator: {why}")
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self, lacking: Callable[[], str]) -> tuple[Pulse | None, str]:
        found = await self.pulse()
        if found is None or self._since is None:
            return None, "no replica of it holds a fresh Lease"
        if not await self._answers(found):
            return None, f"{found.holder} is not ready"
        if time.monotonic() - self._since[1] < SETTLE_SECONDS:
            return None, f"{found.holder} has only just taken control"
        return found, lacking()

    async def _answers(self, found: Pulse) -> bool:
        """Whether the process says that it knows the cluster; one that is not ours is believed."""
        mine = next((replica for replica in self.crew if replica.name == found.holder), None)
        if mine is None:
            return True
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
                answer = await client.get(f"http://127.0.0.1:{mine.http_port}/readyz")
        except httpx.TransportError:
            return False
        return answer.is_success
