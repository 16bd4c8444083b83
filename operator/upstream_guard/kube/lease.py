"""The Lease that decides which replica controls."""

import asyncio
import logging
import math
import random
from collections.abc import Callable

from upstream_guard.core.leadership import (
    LeaseRecord,
    LeaseTimes,
    Observation,
    Step,
    is_fresh,
    must_sweep,
    next_step,
    observe_lease,
)
from upstream_guard.kube.client import ApiError, Json, KubeClient
from upstream_guard.kube.gates import rfc3339_micro

logger = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """Another replica may control by now: this process must end at once."""


class Elector:
    """Keeps one Lease observed, and held where it can be."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        times: LeaseTimes | None = None,
    ) -> None:
        self._client = client
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self.identity = identity
        self._clock = clock
        self._wall = wall_clock
        self.times = times or LeaseTimes()
        self._seen: Observation | None = None
        self._lease: Json | None = None
        self._renewed_at = float("-inf")
        self._looked_at = float("-inf")
        self.acquired = asyncio.Event()

    @property
    def fresh(self) -> bool:
        """Somebody, this replica or another, controls now."""
        return is_fresh(self._seen, self.times, self._clock())

    @property
    def age(self) -> float | None:
        """Seconds since the Lease was last seen to be renewed; None where it was never looked at."""
        return None if self._seen is None else self._clock() - self._seen.since

    @property
    def abandoned(self) -> bool:
        """The Lease was not renewed for the time after which a standby must open the gates."""
        now = self._clock()
        # A replica that was itself stopped for a while must look before it judges.
        looked = now - self._looked_at < self.times.duration
        return looked and must_sweep(self._seen, self.times, now)

    async def run(self) -> None:
        """Observe, take, renew, until cancelled.

        Raises:
            LeaseLostError: It was held and is not any more.
        """
        while True:
            try:
                async with asyncio.timeout(min(self.times.renew_every * 2, self._left())):
                    await self._turn()
            except (ApiError, TimeoutError) as error:
                logger.debug("Lease not reached: %s", error)
            if self._left() <= 0:
                raise LeaseLostError(f"the Lease could not be renewed for {self.times.give_up:g} s")
            spread = 0.9 + 0.2 * random.random()  # noqa: S311  # jitter
            await asyncio.sleep(min(self.times.renew_every * spread, self._left()))

    def _left(self) -> float:
        """Seconds for which this replica may go on without a renewal; no end where it holds none.

        Every wait is cut to it: looked at only between waits, it could be over by a slow request and a
        pause more, and a rival would control beside us.
        """
        if not self.acquired.is_set():
            return math.inf
        return self._renewed_at + self.times.give_up - self._clock()

    async def release(self) -> None:
        """Give the Lease up, so that a standby need not wait for it to expire."""
        if not self.acquired.is_set() or self._lease is None:
            return
        lease = {**self._lease, "spec": {**self._lease["spec"], "holderIdentity": ""}}
        try:
            await self._client.replace(f"{self._collection}/{self._name}", lease)
        except ApiError as error:
            logger.info("Lease not released, a standby will wait for it to expire: %s", error)

    async def _turn(self) -> None:
        self._lease = await self._read()
        self._looked_at = self._clock()
        self._seen = observe_lease(self._seen, _record(self._lease), self._clock())
        step = next_step(self._seen, self.identity, self.times, self._clock())
        if self.acquired.is_set() and step is not Step.RENEW:
            raise LeaseLostError("another replica holds the Lease")
        if step is Step.WAIT:
            return
        await self._write(step)

    async def _read(self) -> Json | None:
        try:
            return await self._client.get(f"{self._collection}/{self._name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _write(self, step: Step) -> None:
        asked_at = self._clock()
        lease = self._desired(step)
        try:
            if step is Step.CREATE:
                self._lease = await self._client.create(self._collection, lease)
            else:
                self._lease = await self._client.replace(f"{self._collection}/{self._name}", lease)
        except ApiError as error:
            if error.status == 409:
                return
            raise
        self._seen = observe_lease(self._seen, _record(self._lease), asked_at)
        self._renewed_at = asked_at
        if not self.acquired.is_set():
            logger.info("Lease %s acquired by %s", self._name, self.identity)
            self.acquired.set()

    def _desired(self, step: Step) -> Json:
        now = rfc3339_micro(self._wall())
        old = self._lease or {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": {},
        }
        before = old.get("spec") or {}
        spec = {
            **before,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self.times.duration),
            "renewTime": now,
        }
        if step is not Step.RENEW:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(before.get("leaseTransitions") or 0) + 1
        return {**old, "spec": spec}


def _record(lease: Json | None) -> LeaseRecord | None:
    if lease is None:
        return None
    spec = lease.get("spec") or {}
    return LeaseRecord(
        str(spec.get("holderIdentity") or ""),
        f"{spec.get('renewTime')}/{spec.get('leaseTransitions')}",
    )
