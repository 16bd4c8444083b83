"""One pod's life as the gateway and the app see it: when it is listed, and when it serves."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from upstream_guard.core.predict.draws import Draw
from upstream_guard.core.predict.play import Play
from upstream_guard.core.predict.state import Shutdown

FOREVER: Final = math.inf

MIN_SHUTDOWN: Final = 2.0
"""Least seconds between SIGTERM and SIGKILL, whatever the hook took (kubelet, `killContainer`)."""
FIRST_BACKOFF: Final = 10.0
MAX_BACKOFF: Final = 300.0
"""Seconds that a container waits before its second and later restarts (kubelet's CrashLoopBackOff)."""
ANSWER: Final = 0.03
"""Seconds from a probe to the pod's new status, which is a change of its own: a pod that is ready when it is
noticed first shows as not ready (seen in the lab: 0.01 to 0.05 s)."""
START_CUT: Final = 1.0
"""Seconds by which `initialDelaySeconds` may end too soon: the kubelet counts it from the container's start cut to whole
seconds (Kubernetes 1.35: pkg/kubelet/status, `normalizeStatus`; prober, `worker.doProbe`)."""
KILL_NOTICE: Final = 0.05
"""Seconds from the end of a process until its last container is known to be gone."""


class Fault(StrEnum):
    """Why requests to a listed endpoint fail."""

    NOT_YET = "not-yet"
    """Listed before it serves."""
    LYING = "lying"
    """Listed while it answers probes, but not yet requests."""
    NO_MORE = "no-more"
    """Listed after it has stopped."""
    CRASHED = "crashed"
    """Its container ended by itself."""
    LOST = "lost"
    """Its node is silent."""
    EMPTY = "empty"
    """Nobody is listed."""
    LAST = "last"
    """Nobody is listed, and the pods that were asked instead while they stopped do not serve any more."""
    DROPPED = "dropped"
    """It ended with requests in flight."""
    KILLED = "killed"
    """It was killed with requests in flight."""


class Number:
    """The dimension of each uncertain number, so that no two move together."""

    CREATE = 1
    START = 2
    TICK = 3
    SLICE = 4
    ATTACH = 5
    DETACH = 6
    STOP = 7
    LINGER = 8
    DRAIN = 9
    RESPONSE = 10
    LIES = 11
    DELIST = 12
    RESTART = 13
    EJECT = 14
    GATE = 15
    RECONCILE = 16
    EVICT = 17
    NOTICE = 18
    BUSY = 19
    PHASE = 20
    CUT = 21


@dataclass(slots=True)
class Life:
    """One pod, or one container's life in it. Times are seconds from the change's beginning.

    Attributes:
        ready_at: When it becomes ready; minus infinity for those that were there before.
        shown: When the EndpointSlice first shows it as not ready, which the gateway has no use for, but
            kube-proxy takes as a change like any other; infinite where it is ready at once.
        listed: When the EndpointSlice lists it.
        delisted: When the EndpointSlice drops it, or shows it as terminating.
        removed: When the EndpointSlice no longer shows it at all, a change for kube-proxy as well.
        forgotten: When the gateway has taken that up; until then it may ask the pod if there is no other.
        used_from: When the gateway begins to send requests to it.
        used_until: When the gateway stops to.
        listens_from: When it accepts connections.
        serves_from: When it answers.
        serves_until: When it no longer does.
        gone: When its last container has ended.
        late: Why requests fail that come after `serves_until`.
        lost_from: Requests sent to it from then on are still under way when it ends, and are lost.
        drop: Why they are lost.
        terminating: When it was deleted.
    """

    ready_at: float = -FOREVER
    shown: float = FOREVER
    listed: float = -FOREVER
    delisted: float = FOREVER
    removed: float = FOREVER
    forgotten: float = FOREVER
    used_from: float = -FOREVER
    used_until: float = FOREVER
    listens_from: float = -FOREVER
    serves_from: float = -FOREVER
    serves_until: float = FOREVER
    gone: float = FOREVER
    late: Fault = Fault.NO_MORE
    lost_from: float = FOREVER
    drop: Fault = Fault.DROPPED
    terminating: float = FOREVER


def bystanders(play: Play) -> list[Life]:
    """The pods of other workloads behind the Service, which the change leaves alone."""
    return [Life() for _ in range(play.others)]


def born(play: Play, draw: Draw, at: float, pod: int) -> Life:
    """A new pod, decided for at `at`."""
    started = at + draw.of(play.platform.create, Number.CREATE, pod)
    return _started(play, draw, started, pod)


def _started(play: Play, draw: Draw, started: float, pod: int) -> Life:
    serves = started + draw.of(play.app.start, Number.START)
    noticed = started + draw.of(play.platform.notice, Number.NOTICE, pod)
    ready = _ready(play, draw, started, noticed, serves, pod)
    to_slice = draw.of(play.platform.ready_to_slice, Number.SLICE, pod)
    listed = ready + to_slice
    at_once = not (play.readying.probed or play.readying.gated)
    shown = FOREVER if at_once else noticed + to_slice
    lies = draw.of(play.readying.lies, Number.LIES) if not play.readying.elsewhere else 0.0
    return Life(
        ready_at=ready, shown=shown, listed=listed, listens_from=serves - lies, serves_from=serves
    )


def _ready(
    play: Play, draw: Draw, started: float, noticed: float, serves: float, pod: int
) -> float:
    """When the pod counts as ready: by the kubelet's probe, and by the guard's gate."""
    readying = play.readying
    ready = noticed
    if readying.probed:
        delay = max(0.0, readying.initial_delay - START_CUT * draw.quantile(Number.CUT, pod))
        passes = max(started + delay, serves - draw.of(readying.lies, Number.LIES))
        if readying.startup_period:
            # Its worker ticks since the pod was bound, some time before its container started.
            begun = started - 0.2 - 0.8 * draw.quantile(Number.TICK, pod)
            started_up = _next_tick(begun, readying.startup_period, passes)
            ready = max(noticed, started_up)  # which makes the kubelet ask for readiness at once
        else:
            ready = _next_tick(noticed, readying.period, passes)
        ready += ANSWER + (readying.successes - 1) * readying.period
    if readying.gated:
        seen = serves + readying.gate_interval * (0.5 + draw.quantile(Number.GATE, pod))
        ready = max(ready, seen)
    return ready


def _next_tick(begun: float, period: float, passes: float) -> float:
    """The first probe that passes, of those at `begun` and every `period` seconds after it.

    The kubelet asks at once when it notices that a container runs, and from then on every period, whatever
    its probe worker did before (Kubernetes 1.35: pkg/kubelet/prober, `UpdatePodStatus` triggers a run, and
    `worker.run` resets its ticker; seen in the lab, where pods became ready whole periods after that).
    """
    if passes <= begun:
        return begun
    return begun + math.ceil((passes - begun) / period) * period


def end(play: Play, draw: Draw, life: Life, at: float, pod: int) -> None:
    """Delete a pod at `at`: the list forgets it while the kubelet stops it."""
    stopping, app = play.stopping, play.app
    life.terminating = at
    to_slice = draw.of(play.platform.ready_to_slice, Number.SLICE, pod)
    life.delisted = at + to_slice
    told = at + draw.of(play.platform.stop, Number.STOP, pod)
    hook = stopping.hook or 0.0
    sigterm = told + min(hook, stopping.grace)
    killed = sigterm + max(stopping.grace - hook, MIN_SHUTDOWN)
    response = draw.of(app.response, Number.RESPONSE, pod)
    stops, drains = _on_sigterm(play, draw, sigterm, killed)
    life.serves_until = min(life.serves_until, stops)
    needs = max(response, draw.of(app.drain, Number.DRAIN)) if drains else 0.0
    ended = min(life.serves_until + needs, killed)
    life.gone = ended + KILL_NOTICE
    life.removed = life.gone + to_slice
    life.lost_from = (killed if drains else life.serves_until) - response
    if play.pool_seconds > 0 and drains and app.serves_kept:
        # Requests come on connections that are open already, and those last as long as the process.
        life.serves_until = ended
    exits = app.shutdown is Shutdown.EXITS
    life.drop = Fault.DROPPED if exits else Fault.KILLED


def _on_sigterm(play: Play, draw: Draw, sigterm: float, killed: float) -> tuple[float, bool]:
    """(when the app stops accepting, whether it then finishes what is under way)."""
    match play.app.shutdown:
        case Shutdown.LINGERS:
            return min(sigterm + draw.of(play.app.linger, Number.LINGER), killed), True
        case Shutdown.IGNORES:
            return killed, False
        case Shutdown.EXITS:
            return sigterm, False
        case _:
            return sigterm, True


def crash(play: Play, draw: Draw, life: Life, pod: int) -> Life:
    """A pod's container ends at 0 and is started again; returns the life that follows in the pod."""
    life.serves_until = 0.0
    life.late = Fault.CRASHED
    life.lost_from, life.drop = -draw.of(play.app.response, Number.RESPONSE, pod), Fault.CRASHED
    noticed = draw.of(play.platform.exit_delist, Number.DELIST, pod)
    if play.stopping.eject is not None:
        noticed = min(noticed, draw.of(play.stopping.eject, Number.EJECT, pod))
    life.delisted = noticed
    pause = 0.0
    if play.restarts > 0:
        pause = min(MAX_BACKOFF, FIRST_BACKOFF * 2.0 ** min(play.restarts - 1, 10))
    restarted = noticed + pause + 0.3 * draw.quantile(Number.RESTART, pod)
    return _started(play, draw, restarted, pod)


def lose(play: Play, draw: Draw, life: Life, pod: int) -> None:
    """A pod's node falls silent at 0."""
    life.serves_until = 0.0
    life.late = Fault.LOST
    life.lost_from, life.drop = -draw.of(play.app.response, Number.RESPONSE, pod), Fault.LOST
    noticed = draw.of(play.platform.node_delist, Number.DELIST)
    if play.stopping.eject is not None:
        noticed = min(noticed, draw.of(play.stopping.eject, Number.EJECT, pod))
    life.delisted = noticed
