"""Applies decisions to pods: one write per pod at a time, and only the latest decision counts."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from upstream_guard.core.admission import Decision
from upstream_guard.core.model import Pod
from upstream_guard.kube.client import ApiError, KubeClient, pause_before_retry
from upstream_guard.kube.gates import write_gate

logger = logging.getLogger(__name__)

HOLD_OFF_SECONDS = 5.0
"""After a refused write the pod is left alone for so long: it may be gone, or we may lack a right."""


OVERLAY_SECONDS = 10.0
"""A write that the watch has not shown by then was undone by somebody before we could see it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A decision on its way."""

    pod: Pod
    decision: Decision
    ordered_at: float


class GateWriter:
    """Writes gates in the background and knows what pods will look like when the writes are seen."""

    def __init__(
        self,
        client: KubeClient,
        clock: Callable[[], float],
        on_written: Callable[[Order], None],
        on_refused: Callable[[Pod], None],
    ) -> None:
        """Wire it.

        Args:
            client: The API server.
            clock: Unix seconds.
            on_written: Called with each order that was carried out.
            on_refused: Called when a pod whose gate was not written may be decided over again.
        """
        self._client = client
        self._clock = clock
        self._on_written = on_written
        self._on_refused = on_refused
        self._orders: dict[str, Order] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._expected: dict[str, Decision] = {}
        self._changed_at: dict[str, float] = {}
        self._held_until: dict[str, float] = {}

    def submit(self, pod: Pod, decision: Decision) -> bool:
        """Have a decision written soon; it replaces one that waits for the same pod.

        Returns:
            Whether it will be; False for a while after the API server refused one.
        """
        uid = pod.uid
        if self._held_until.get(uid, 0.0) > self._clock():
            return False
        self._orders[uid] = Order(pod, decision, self._clock())
        self._expected[uid] = decision
        # From here on: an older change must not make the kubelet look late for this one.
        self._changed_at[uid] = self._clock()
        if uid not in self._tasks:
            task = asyncio.create_task(self._work(uid), name=f"gate {pod.ref}")
            self._tasks[uid] = task
        return True

    def overlay(self, pod: Pod) -> Pod:
        """The pod as it will be seen once our writes have come back in the watch."""
        expected = self._expected.get(pod.uid)
        if expected is None:
            return pod
        writing = pod.uid in self._tasks
        late = self._clock() - self._changed_at.get(pod.uid, 0.0) > OVERLAY_SECONDS
        if pod.gate == expected.gate or (late and not writing):
            if not writing:
                del self._expected[pod.uid]
            return pod
        return replace(pod, gate=expected.gate, gate_reason=expected.reason.value)

    def changed_at(self, uid: str) -> float:
        """When this process changed the pod's gate last; 0 where it did not."""
        return self._changed_at.get(uid, 0.0)

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._orders.pop(uid, None)
        for memory in (self._expected, self._changed_at, self._held_until):
            memory.pop(uid, None)

    def abandon(self) -> None:
        """Write nothing more, not even what is under way: somebody else may control by now."""
        self._orders.clear()
        for task in self._tasks.values():
            task.cancel()

    async def settle(self, timeout: float) -> None:
        """Wait for writes under way, for at most `timeout` seconds; for the end of the process."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=timeout)

    async def _work(self, uid: str) -> None:
        try:
            while (order := self._orders.pop(uid, None)) is not None:
                await self._write(order)
        finally:
            self._tasks.pop(uid, None)

    async def _write(self, order: Order) -> None:
        uid = order.pod.uid
        attempt = 0
        while uid not in self._orders:
            try:
                found = await self._patch(order)
            except ApiError as error:
                if error.transient:
                    attempt += 1
                    await pause_before_retry(attempt, random.random())  # noqa: S311  # jitter
                    continue
                logger.warning("Gate of pod %s not written: %s", order.pod.ref, error)
                found = False
            if uid not in self._expected:
                return  # the pod went meanwhile; nothing is to be kept of it
            if found:
                logger.info(
                    "Pod %s %s: %s: %s (%.0f ms after the verdict)",
                    order.pod.ref,
                    "listed" if order.decision.gate else "taken out",
                    order.decision.reason.value,
                    order.decision.message,
                    1000 * (self._clock() - order.ordered_at),
                )
                self._changed_at[uid] = self._clock()
                self._on_written(order)
            else:
                self._hold_off(order.pod)
            return

    def _hold_off(self, pod: Pod) -> None:
        self._expected.pop(pod.uid, None)
        self._held_until[pod.uid] = self._clock() + HOLD_OFF_SECONDS
        asyncio.get_running_loop().call_later(HOLD_OFF_SECONDS, self._end_hold, pod)

    def _end_hold(self, pod: Pod) -> None:
        if self._held_until.pop(pod.uid, None) is not None:
            self._on_refused(pod)

    async def _patch(self, order: Order) -> bool:
        pod, decision = order.pod, order.decision
        return await write_gate(
            self._client,
            pod.ref,
            pod.uid,
            value=decision.gate,
            reason=decision.reason.value,
            message=decision.message,
            now=self._clock(),
            not_ready=decision.force_not_ready,
        )
