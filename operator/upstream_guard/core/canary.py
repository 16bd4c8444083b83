"""The propagation canary: how a gateway is measured, when, and what is made of it. Pure.

A canary is a Service without selector whose two endpoints, `a` and `b`, are the operator itself, and a
route to it. One of them is listed. A *toggle* does what a rollout of one pod does: it lists the other one,
and a few milliseconds later takes the first away, while requests through the gateway tell which of them
answers. So one toggle gives an attach and a detach, and the detach is *paired* with another endpoint
change: kube-proxy waits a second after each, and a detach in a quiet cluster would not show it.

Times are seconds; `at` and `now` are of one monotonic clock, except where Unix seconds are said.
"""

import hashlib
import math
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from upstream_guard.core.latency import Measured, latencies
from upstream_guard.core.names import CANARY_DOMAIN
from upstream_guard.core.tuning import MIN_SAMPLES, STAY, GatewayKind, canary_margin

PAIR_SECONDS: Final = 0.02
"""From the attach to the detach: longer than kube-proxy takes to begin its sync, shorter than a sync."""
QUIET_SECONDS: Final = 2.0
"""Silence after which an endpoint counts as forgotten. Before the toggle it got every request."""
REACH_SECONDS: Final = 5.0
"""How long the way through the gateway may be closed before the toggle is left out."""
GIVE_UP_SECONDS: Final = 120.0
"""After this long an endpoint that is still used counts as detached then."""
LOST_SECONDS: Final = 30.0
"""Silence of both endpoints after which the way through the gateway is lost, and nothing was learned."""
KEPT_SECONDS: Final = 10.0
"""How much longer than a new one a kept connection may live before the canary ends it itself."""
KEPT_EVERY: Final = 4
"""Each so-many-th toggle looks at kept connections."""
WARM_UP: Final = 12
"""Requests before the toggle that show whether the gateway keeps connections."""

FAST_PERIOD: Final = 0.02
"""Between two requests while something may happen: the resolution of what is measured."""
SLOW_PERIOD: Final = 0.05
"""Between two requests while nothing is expected any more."""
SEARCH_PERIOD: Final = 0.25
"""Between two requests while no way through the gateway is found."""
FAST_SECONDS: Final = 0.3
"""How long after the last sign of the endpoint requests are still fast."""

MAX_SAMPLES: Final = 300
"""Toggles remembered: with 300, their maximum is above the true 99th percentile with 95 %."""
_MAX_LABEL: Final = 63
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class Endpoint(StrEnum):
    """The two endpoints of a canary."""

    A = "a"
    B = "b"

    @property
    def other(self) -> "Endpoint":
        """The one that it takes turns with."""
        return Endpoint.B if self is Endpoint.A else Endpoint.A


class Absence(StrEnum):
    """In which state an endpoint is that must not be used, as the API knows it."""

    ABSENT = "absent"
    NOT_READY = "not-ready"
    TERMINATING = "terminating"
    """Not ready, still serving: what a deleted pod is until it ends."""


class Connections(StrEnum):
    """Which connections to the endpoints a toggle looks at."""

    NEW = "new"
    """The endpoints end each connection after one response."""
    KEPT = "kept-alive"
    """The endpoints leave them open, and the gateway may use them again."""


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """One gateway that is to be measured, and how.

    Attributes:
        kind: What `gateway` names.
        gateway: As `GatewayFacts.name`.
        host: Host header that leads to the canary, which no user has.
        url: Where the gateway is asked; empty where its route's status must tell.
        expected: The detach latency that is assumed so far, seconds.
        keeps: Whether kept connections can be looked at: not where the operator itself is the client.
        requests_per_minute: What it may cost, at most; ≥ 60.
    """

    kind: GatewayKind
    gateway: str
    host: str
    url: str = ""
    expected: float = 2.0
    keeps: bool = True
    requests_per_minute: int = 1200

    @property
    def key(self) -> tuple[GatewayKind, str]:
        """By which gateways are told apart."""
        return self.kind, self.gateway

    @property
    def service(self) -> str:
        """Name of its Service, and of its route."""
        return canary_name(self.kind, self.gateway)


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A gateway that cannot be measured, and why, in words that do not change by themselves."""

    kind: GatewayKind
    gateway: str
    reason: str

    @property
    def key(self) -> tuple[GatewayKind, str]:
        """As of a plan."""
        return self.kind, self.gateway


@dataclass(frozen=True, slots=True)
class Candidate:
    """A gateway that leads to guarded Services.

    Attributes:
        plan: How it is measured, or why it is not.
        pods: Changes when pods come or go behind it; says nothing else.
    """

    plan: CanaryPlan | Unmeasured
    pods: int = 0


def canary_name(kind: GatewayKind, gateway: str) -> str:
    """The name of a gateway's canary: a DNS label, different for each gateway.

    People must know that of a GatewayProfile in advance, so it is readable where the profile's own name
    is a short label; what has to be changed gets a part of its hash.
    """
    prefix = f"canary-{kind.value.lower()}-"
    room = _MAX_LABEL - len(prefix)
    if len(gateway) <= room and _LABEL.fullmatch(gateway):
        return prefix + gateway
    digest = hashlib.sha256(gateway.encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", gateway.lower())[: room - 9].strip("-")
    return f"{prefix}{readable}-{digest}" if readable else f"{prefix}{digest}"


def canary_host(kind: GatewayKind, gateway: str) -> str:
    """A host name of the canary's own, in a domain that nobody can have (RFC 2606)."""
    return f"{canary_name(kind, gateway)}.{CANARY_DOMAIN}"


# One toggle.


class Act(StrEnum):
    """What the canary does next."""

    ASK = "ask"
    ATTACH = "attach"
    DETACH = "detach"
    END_KEPT = "end-kept"
    """Have the endpoint end its connections, as an app does when it stops."""
    DONE = "done"
    FAIL = "fail"
    """No way to the endpoint that is listed, mostly before anything was changed: nothing was learned."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of ours that reached an endpoint.

    Attributes:
        at: When.
        endpoint: Which.
        reused: Whether its connection had carried a request before.
    """

    at: float
    endpoint: Endpoint
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Toggle:
    """One toggle, as far as it has come. 0.0 means "not yet", None "never seen".

    Attributes:
        started: When the first request was sent.
        outgoing: The endpoint that is listed at the start, and not at the end.
        absence: How it is taken away.
        connections: What is looked at.
        expected: The detach latency that is assumed so far.
        warmed: Requests that reached `outgoing` before anything was changed.
        reused: Whether one of those came on a connection that was kept.
        attach_at: When the write that lists the other one was sent.
        detach_at: When the write that takes `outgoing` away was sent.
        first_in: When the first request reached the other one.
        last_new: When the last request on a new connection reached `outgoing` after `detach_at`.
        last_kept: As `last_new`, on a kept connection.
        ended_at: When kept connections were ended by the endpoint.
    """

    started: float
    outgoing: Endpoint
    absence: Absence
    connections: Connections = Connections.NEW
    expected: float = 2.0
    warmed: int = 0
    reused: bool = False
    attach_at: float = 0.0
    detach_at: float = 0.0
    first_in: float | None = None
    last_new: float | None = None
    last_kept: float | None = None
    ended_at: float = 0.0

    @property
    def incoming(self) -> Endpoint:
        """The endpoint that is listed at the end."""
        return self.outgoing.other

    @property
    def last_out(self) -> float:
        """The last sign that `outgoing` is still used."""
        return max(self.detach_at, self.last_new or 0.0, self.last_kept or 0.0)


def arrived(toggle: Toggle, arrival: Arrival) -> Toggle:
    """The toggle after a request reached an endpoint."""
    if arrival.endpoint is toggle.incoming:
        fresh = toggle.first_in is None and toggle.attach_at > 0
        return replace(toggle, first_in=arrival.at) if fresh else toggle
    if not toggle.attach_at:
        return replace(toggle, warmed=toggle.warmed + 1, reused=toggle.reused or arrival.reused)
    if not toggle.detach_at:
        return toggle
    if arrival.reused:
        return replace(toggle, last_kept=arrival.at)
    return replace(toggle, last_new=arrival.at)


def next_act(toggle: Toggle, now: float) -> Act:
    """What is to be done now."""
    if not toggle.attach_at:
        return _before(toggle, now)
    if not toggle.detach_at:
        return Act.DETACH
    return _after(toggle, now)


def _after(toggle: Toggle, now: float) -> Act:
    """What is to be done while the endpoint is watched."""
    since, silent = now - toggle.detach_at, now - toggle.last_out
    if toggle.first_in is None and silent >= LOST_SECONDS:
        return Act.FAIL
    if (toggle.first_in is not None and silent >= QUIET_SECONDS) or since >= GIVE_UP_SECONDS:
        return Act.DONE
    sticking = toggle.connections is Connections.KEPT and not toggle.ended_at
    if sticking and since >= toggle.expected + KEPT_SECONDS:
        return Act.END_KEPT
    return Act.ASK


def keeps_client(toggle: Toggle, rounds: int) -> bool:
    """Whether the requests of a round keep their connection to the gateway.

    Each second one where kept connections are looked at: HAProxy goes on with a connection to an endpoint only for a
    client that goes on with its own (`http-reuse safe`), Caddy and Envoy for anybody.
    """
    return toggle.connections is Connections.KEPT and rounds % 2 == 1


def ask_period(toggle: Toggle, now: float) -> float:
    """Seconds to the next request: quick where something may be seen, slow where not."""
    if not toggle.attach_at:
        return SLOW_PERIOD if toggle.warmed else SEARCH_PERIOD
    expecting = toggle.first_in is None or now - toggle.last_out < FAST_SECONDS
    return FAST_PERIOD if expecting and now - toggle.detach_at < QUIET_SECONDS else SLOW_PERIOD


def _before(toggle: Toggle, now: float) -> Act:
    wanted = WARM_UP if toggle.connections is Connections.KEPT else 1
    if toggle.warmed >= wanted:
        return Act.ATTACH
    return Act.FAIL if now - toggle.started >= REACH_SECONDS else Act.ASK


@dataclass(frozen=True, slots=True)
class Sample:
    """What one toggle found. None: this toggle does not say.

    Attributes:
        at: When it ended, Unix seconds.
        attach: Seconds.
        detach: Seconds, of new connections.
        kept: Seconds, of kept connections that ended with the list.
        sticks: Whether a kept connection outlived the list; None where none was kept.
    """

    at: float
    attach: float | None = None
    detach: float | None = None
    kept: float | None = None
    sticks: bool | None = None


def sample_of(toggle: Toggle, at: float) -> Sample:
    """What a toggle found that is done.

    Args:
        toggle: The toggle.
        at: Unix seconds.
    """
    attach = None if toggle.first_in is None else max(0.0, toggle.first_in - toggle.attach_at)
    if toggle.connections is Connections.NEW:
        return Sample(at, attach, toggle.last_out - toggle.detach_at)
    if not toggle.reused and toggle.last_kept is None:
        return Sample(at)
    if toggle.ended_at:
        return Sample(at, sticks=True)
    return Sample(at, kept=toggle.last_out - toggle.detach_at, sticks=False)


def measured(samples: tuple[Sample, ...]) -> Measured | None:
    """What the samples amount to, oldest first; None while no detach is among them."""
    detach = latencies(s.detach for s in samples if s.detach is not None)
    if detach is None:
        return None
    return Measured(
        detach,
        latencies(s.attach for s in samples if s.attach is not None),
        latencies(s.kept for s in samples if s.kept is not None),
        any(s.sticks for s in samples),
        max(s.at for s in samples),
    )


def succeed(told: Measured, own: Measured) -> Measured:
    """What counts while a restarted canary has few samples: what was told, unless it is worse by now."""
    if own.detach.samples >= min(MIN_SAMPLES, told.detach.samples):
        return own
    if own.decisive.p99 <= told.decisive.p99:
        return told
    p99 = own.decisive.p99
    worse = replace(told.decisive, p99=p99, max=max(p99, told.decisive.max))
    return replace(told, detach=worse, kept=None, sticks=told.sticks, last=own.last)


# When.

FIRST_BURST: Final = 30
"""Toggles at the start, of which a fourth looks at kept connections. Each makes every kube-proxy sync."""
CHANGE_BURST: Final = 12
"""Toggles after the gateway changed, or the operator started anew."""
SURPRISE_BURST: Final = 6
"""Toggles after one that took much longer than all before."""
BURST_GAP: Final = 0.5
FIRST_INTERVAL: Final = 15.0
MAX_INTERVAL: Final = 3600.0
"""Between two toggles at most. In peace nothing needs the number: hooks are sized when pods are made."""
BUSY_INTERVAL: Final = 240.0
"""Between two toggles at most while pods come and go behind the gateway: one that slowed down is noticed within
five minutes, before many hooks are sized by an old number."""
GLANCE_INTERVAL: Final = 240.0
"""Between two requests in peace that change nothing, and show a gateway of another version."""
FIRST_RETRY: Final = 5.0
MAX_RETRY: Final = 300.0
"""Between two tries where no way through the gateway is found. Such a try writes nothing."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a gateway is measured next.

    Attributes:
        next_at: Not before.
        burst: Toggles that still follow one another.
        interval: Seconds between two after the burst.
        failures: Tries in a row that found no way.
        toggles: Done so far; it decides which kind is next.
        measured_at: When the last toggle ended.
    """

    next_at: float = 0.0
    burst: int = FIRST_BURST
    interval: float = FIRST_INTERVAL
    failures: int = 0
    toggles: int = 0
    measured_at: float = 0.0


def at_once(pace: Pace, now: float, burst: int = CHANGE_BURST) -> Pace:
    """The gateway was reloaded, upgraded or scaled, or surprised us: measure it now."""
    if pace.burst >= burst:
        return replace(pace, interval=FIRST_INTERVAL)
    return replace(pace, next_at=now, burst=burst, interval=FIRST_INTERVAL)


def stirred(pace: Pace, now: float) -> Pace:
    """Pods came or went behind the gateway: what is known of it must not be old now.

    A way that is closed is not tried more often for that.
    """
    if pace.burst or pace.failures:
        return pace
    soon = max(now, pace.measured_at + BUSY_INTERVAL)
    return replace(
        pace, next_at=min(pace.next_at, soon), interval=min(pace.interval, BUSY_INTERVAL)
    )


def after_toggle(
    pace: Pace, now: float, requests: int, seconds: float, per_minute: int, jitter: float
) -> Pace:
    """The pace after a toggle.

    Args:
        pace: Before.
        now: When the toggle ended.
        requests: That it took.
        seconds: That it took.
        per_minute: Requests allowed a minute.
        jitter: From 0 to 1.
    """
    saving = max(0.0, requests * 60.0 / per_minute - seconds)
    done = replace(pace, failures=0, toggles=pace.toggles + 1, measured_at=now)
    if pace.burst > 1:
        return replace(done, burst=pace.burst - 1, next_at=now + max(BURST_GAP, saving))
    pause = max(saving, pace.interval * (0.9 + jitter / 10))
    later = min(MAX_INTERVAL, pace.interval * 2)
    return replace(done, burst=0, interval=later, next_at=now + pause)


def after_failure(pace: Pace, now: float, jitter: float) -> Pace:
    """The pace after a try that found no way, and changed nothing."""
    pause = min(MAX_RETRY, FIRST_RETRY * 2.0 ** min(pace.failures, 10))
    return replace(pace, failures=pace.failures + 1, next_at=now + pause * (0.9 + jitter / 10))


def next_kind(pace: Pace, *, keeps: bool) -> tuple[Absence, Connections]:
    """How the next toggle takes its endpoint away, and what it looks at: each in its turn."""
    turn = pace.toggles
    if keeps and turn % KEPT_EVERY == KEPT_EVERY - 1:
        return tuple(Absence)[turn // KEPT_EVERY % 3], Connections.KEPT
    return tuple(Absence)[turn % 3], Connections.NEW


def is_surprise(sample: Sample, before: Measured | None) -> bool:
    """Whether a toggle took so much longer than 99 of 100 before that the gateway may have changed.

    Not than all before: one that was slow by chance, days ago, would hide a gateway that became slow.
    """
    if before is None or sample.detach is None:
        return False
    return sample.detach > before.detach.p99 * 1.25 + 0.1


# What is told.

MILESTONES: Final = (1, 10, 20)
"""Numbers of samples that are worth a write of every guard's status: those of the first burst, in which the preStop
settles. Later ones make the same number a little surer, and are told where that asks for another preStop."""
RETELL_SECONDS: Final = 24 * 3600.0


def is_news(told: Measured | None, found: Measured, now: float) -> bool:
    """Whether a measurement differs so much from what the status says that it is worth a write.

    Args:
        told: As in the status.
        found: As it is.
        now: Unix seconds.
    """
    if told is None or told.sticks != found.sticks or (told.kept is None) != (found.kept is None):
        return True
    if _differ(told.decisive.p99, found.decisive.p99) or now - told.last >= RETELL_SECONDS:
        return True
    if _asked_for(told) != _asked_for(found):
        return True
    if told.attach and found.attach and _differ(told.attach.p99, found.attach.p99):
        return True
    return any(told.detach.samples < mark <= found.detach.samples for mark in MILESTONES)


def _asked_for(found: Measured) -> tuple[int, int]:
    """The whole seconds of preStop that it raises to, and those that it stays at."""
    needed = found.decisive.p99 + canary_margin(found)
    return math.ceil(needed), math.ceil(needed + STAY)


def _differ(told: float, found: float) -> bool:
    return abs(told - found) > max(0.03, 0.1 * told)
