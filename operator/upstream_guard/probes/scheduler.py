"""The probe loop: one heap says what is due, one sweep ends what takes too long, one timer drives both."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ProbeProtocol, ProbeResult
from upstream_guard.probes import grpc, http, tcp, tls
from upstream_guard.probes.connection import Connection, Poller
from upstream_guard.probes.exchange import Exchange, Prepare, ProbeTarget, Verdict
from upstream_guard.probes.failures import connect_failure
from upstream_guard.probes.schedule import Deadlines, Schedule
from upstream_guard.probes.stats import SchedulerStats

PROBERS: Final[dict[ProbeProtocol, Prepare]] = {
    ProbeProtocol.HTTP: http.prepare,
    ProbeProtocol.HTTPS: tls.over(http.prepare),
    ProbeProtocol.TCP: tcp.prepare,
    ProbeProtocol.GRPC: grpc.prepare,
}
"""Every protocol's prober."""

_TICK = 0.002
"""Shortest timer, in seconds. Below 1 ms uvloop spins; probes that start together wake the machine once, not each."""

_SWEEP = 0.010
"""While probes are under way the loop is looked at this often: the grain of time-outs and of lag measurement."""

_LAG_FLOOR = 0.005
"""A timer this late, in seconds, is an ordinary busy loop, not lag."""

_LAG_SHARE = 0.25
"""The share of a probe's time-out that the loop may have lost before its failure counts for nothing."""

_REPEAT_PAUSE = 0.05
"""Seconds before a delayed probe is repeated: a loop that is late gets no more work at once."""

_BURST = 64
"""Most probes started in one go, so that their answers are read in between."""

_TIMELESS = frozenset({Cause.REFUSED, Cause.UNREACHABLE, Cause.BLOCKED, Cause.CONNECT_TIMEOUT})
"""Failures that the kernel knows by itself: true however late they are read.

A SYN without an answer is one: the kernel takes the answer whether or not the loop is there. Discarded for
the loop's lateness, as an app's late answer must be, a lost node would never be found on a busy machine: each
time-out lasts long enough for its share of lateness.
"""


@dataclass(slots=True)
class _Entry:
    target: ProbeTarget
    make: Callable[[], Exchange]
    running: Connection | None = field(default=None)
    again: bool = False
    """A probe was asked for while one was under way."""


class ProbeScheduler:
    """Probes every target at its interval, each at a random phase, none twice at once.

    All methods are for the event loop's own thread. Results are delivered synchronously; the callback may call any
    method of the scheduler.
    """

    def __init__(
        self,
        on_result: Callable[[str, ProbeResult], None],
        *,
        max_in_flight: int = 1000,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """Make a scheduler; nothing is probed before `run`.

        Args:
            on_result: Gets a target's key and each result.
            max_in_flight: Most probes (so: sockets) at a time; what is due beyond that waits.
            clock: Gives `ProbeResult.at`.
            rng: Source of the jitter.
        """
        self.stats = SchedulerStats()
        self._on_result = on_result
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._schedule = Schedule(rng or random.Random())  # noqa: S311 - spreads load, keeps no secret
        self._deadlines: Deadlines[Connection] = Deadlines(_SWEEP)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: Poller
        self._timer: asyncio.TimerHandle | None = None
        self._wake = 0.0
        self._lag = 0.0
        self._forgiven = False

    def set_target(self, key: str, target: ProbeTarget) -> None:
        """Add a target, or change one; an unchanged one keeps its phase.

        A change ends the probe under way without a result.

        Raises:
            ValueError: The spec cannot be probed (an impossible header, say).
        """
        entry = self._entries.get(key)
        if entry is not None and entry.target == target:
            return
        make = PROBERS[target.spec.protocol](target)
        if entry is None:
            self._entries[key] = _Entry(target, make)
            self._schedule.add(key, target.spec.interval, time.monotonic())
        else:
            entry.target, entry.make = target, make
            self._abort(entry)
            self._schedule.add(key, target.spec.interval, time.monotonic())
        self._arm()

    def discard(self, key: str) -> None:
        """Forget a target, if it is known; its running probe is aborted and no result delivered."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._schedule.discard(key)
            self._abort(entry)

    def probe_soon(self, key: str) -> None:
        """Probe a target now, or as soon as its running probe has ended; an unknown key is none of our business."""
        entry = self._entries.get(key)
        if entry is None:
            return
        if entry.running is not None:
            entry.again = True
            return
        self._schedule.advance(key, time.monotonic())
        self._arm()

    async def run(self) -> None:
        """Probe until cancelled; cancelling aborts every probe under way and delivers nothing more.

        Raises:
            RuntimeError: It runs already.
        """
        if self._loop is not None:
            raise RuntimeError("the probe scheduler runs already")
        self._loop = asyncio.get_running_loop()
        self._poller = Poller()
        self._poller.attach(self._loop)
        self._arm()
        try:
            await self._loop.create_future()
        finally:
            self._stop()
            self._poller.close()

    def _stop(self) -> None:
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic()
        for key, entry in self._entries.items():
            if entry.running is not None:
                self._abort(entry)
                self._schedule.add(key, entry.target.spec.interval, now)

    def _abort(self, entry: _Entry) -> None:
        connection, entry.running, entry.again = entry.running, None, False
        if connection is not None:
            self.stats.in_flight -= 1
            connection.abort()

    def _arm(self) -> None:
        """Set the one timer to the next thing to do, where it is not set to something earlier."""
        if self._loop is None:
            return
        now = time.monotonic()
        wake = self._next_wake(now)
        if wake is None or (self._timer is not None and self._wake <= wake):
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = max(wake - now, _TICK)
        self._wake = now + delay
        self._timer = self._loop.call_later(delay, self._tick)

    def _next_wake(self, now: float) -> float | None:
        full = self.stats.in_flight >= self._max_in_flight
        due = None if full else self._schedule.next_due()
        if self.stats.in_flight:
            sweep = now + _SWEEP
            return sweep if due is None else min(due, sweep)
        return due

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        lag = self.stats.loop_lag = max(0.0, now - self._wake)
        late = lag > _LAG_FLOOR
        if late:
            self._lag += lag
        # After a pause of the loop, answers may wait unread in the sockets: read them before calling them missing.
        self._forgiven = late and not self._forgiven
        if not self._forgiven:
            for connection in self._deadlines.pop_expired(now):
                connection.time_out()
        self._start_due(now)
        self._poller.poll()  # on the same node a connection stands at once
        self._arm()

    def _start_due(self, now: float) -> None:
        for _ in range(min(_BURST, self._max_in_flight - self.stats.in_flight)):
            popped = self._schedule.pop(now)
            if popped is None:
                return
            self._start(*popped)

    def _start(self, key: str, due: float) -> None:
        entry = self._entries[key]
        now = time.monotonic()
        connection = Connection(key, entry.make(), self._ended, due=due, started=now, lag=self._lag)
        entry.running = connection
        self.stats.sent += 1
        self.stats.in_flight += 1
        self.stats.lateness.observe(now - due)
        self._deadlines.add(connection, now + entry.target.spec.timeout)
        error = connection.open(entry.target, self._poller)
        if error is not None:
            self._ended(connection, connect_failure(error))

    def _ended(self, connection: Connection, verdict: Verdict | None) -> None:
        now = time.monotonic()
        key = connection.key
        entry = self._entries[key]
        spec = entry.target.spec
        again, entry.running, entry.again = entry.again, None, False
        self.stats.in_flight -= 1
        if verdict is None:
            self.stats.local_errors += 1
            self._schedule.again(key, spec.interval, now, now)
        elif not verdict.ok and self._was_delayed(connection, verdict, now, spec.timeout):
            self.stats.delayed += 1
            self._schedule.advance(key, now + _REPEAT_PAUSE)
        else:
            self._schedule.again(key, spec.interval, connection.due, now)
            if again:
                self._schedule.advance(key, now)
            self._deliver(key, verdict, now - connection.started)
        # A timer is always set while a probe is under way, and soon enough for what comes next.
        if self._timer is None:
            self._arm()

    def _was_delayed(
        self, connection: Connection, verdict: Verdict, now: float, timeout: float
    ) -> bool:
        if verdict.cause in _TIMELESS:
            return False
        overdue = max(0.0, now - self._wake) if self._timer is not None else 0.0
        return self._lag + overdue - connection.lag > timeout * _LAG_SHARE

    def _deliver(self, key: str, verdict: Verdict, latency: float) -> None:
        self.stats.delivered += 1
        self._on_result(
            key,
            ProbeResult(
                at=self._clock(),
                ok=verdict.ok,
                cause=verdict.cause,
                latency=latency,
                detail=verdict.detail,
                status=verdict.status,
            ),
        )
