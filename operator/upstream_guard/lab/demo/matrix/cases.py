"""Which services the matrix tries, drawn from a seed. Pure: the same seed gives the same cases.

Half of them are built to be safe, a third to be borderline (a hook, probe or grace period within 30 %
of what is just enough), the rest to fail clearly. The generator knows what is enough from
measurements of its own kind (`JUST_ENOUGH`), never from the predictor, which it is there to test.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final, TypeVar

from upstream_guard.core.predict.state import ChangeKind

Value = TypeVar("Value")


class Margin(StrEnum):
    """How far a case was built from what is just enough."""

    SAFE = "safe"
    BORDERLINE = "borderline"
    UNSAFE = "unsafe"


class Probe(StrEnum):
    """The readiness probe."""

    NONE = "none"
    HTTP = "http"
    """The traffic's port, a path that tells the truth."""
    TCP = "tcp"
    """The traffic's port."""
    ELSEWHERE = "elsewhere"
    """Another port, which answers from the process's first moment."""


class Hook(StrEnum):
    """The preStop hook."""

    NONE = "none"
    SLEEP = "sleep"
    """Kubernetes' own; whole seconds."""
    EXEC = "exec"
    """A command, which knows fractions of a second and may be longer than the grace period."""


class Ending(StrEnum):
    """What the app does on SIGTERM."""

    EXITS = "exits"
    DRAINS = "drains"
    """Stops listening at once, finishes what is in flight."""
    REFUSES = "refuses"
    """Stops listening at once, finishes what is in flight, ends after a fixed time."""
    LINGERS = "lingers"
    """Goes on for a fixed time, then drains."""
    IGNORES = "ignores"


@dataclass(frozen=True, slots=True)
class Case:
    """One service, and what happens to it. Times are seconds.

    Attributes:
        seed: Of the whole matrix.
        number: Within it, from 1.
        gateway: In front.
        margin: As built, which the predictor is not told.
        risk: What was built in, a key of `risks.RISKS`; empty for a safe case.
        to_replicas: How many are left; differs from `replicas` for a scale-in only.
        period: Of the probe.
        lie: So long after it listens, the app answers nothing but its health check.
        hook_seconds: 0 without a hook.
        surge: `maxSurge`, or -1 for `Recreate`.
        unavailable: `maxUnavailable`.
        start: From the process's start until it listens.
        response: How long an answer takes.
        linger: For `REFUSES` and `LINGERS`.
    """

    seed: int
    number: int
    gateway: str
    margin: Margin
    risk: str
    change: ChangeKind
    replicas: int = 3
    to_replicas: int = 3
    probe: Probe = Probe.HTTP
    period: int = 1
    lie: float = 0.0
    hook: Hook = Hook.NONE
    hook_seconds: float = 0.0
    grace: int = 30
    surge: int | str = "25%"
    unavailable: int | str = "25%"
    start: float = 1.0
    response: float = 0.0
    ending: Ending = Ending.EXITS
    linger: float = 0.0

    @property
    def recreates(self) -> bool:
        """Whether its strategy is `Recreate`."""
        return self.surge == RECREATE

    @property
    def kill(self) -> float:
        """Seconds from the deletion to SIGKILL, where the hook is as long as it says."""
        hook = min(self.hook_seconds, self.grace)
        return hook + max(self.grace - hook, KUBELET_LEAST)

    def __str__(self) -> str:
        return f"{self.gateway} · {self.number} · {self.change} · {self.risk or 'safe'}"


RECREATE: Final = -1
KUBELET_LEAST: Final = 2.0
"""Seconds between SIGTERM and SIGKILL that the kubelet grants whatever the grace period says."""
CLUSTER_IP_NEEDS: Final = 1.1
CONTOUR_NEEDS: Final = 0.1
JUST_ENOUGH: Final[Mapping[str, float]] = {"contour": CONTOUR_NEEDS}
"""Seconds after a deletion for which a gateway may still send to the pod, where a rollout deletes it.

Measured on Kubernetes 1.35 with the propagation canary; through a ClusterIP kube-proxy's
`minSyncPeriod` of 1 s decides, whatever the product.
"""
GATEWAYS: Final = ("nginx", "contour", "haproxy", "caddy")
"""Those whose behaviour in a change was measured well enough to draw cases for them."""
EVERY: Final = frozenset(GATEWAYS)
NOT_CADDY: Final = EVERY - {"caddy"}
"""Caddy reuses connections, so that a new pod gets few requests, and repeats what fails on a used one."""
NOT_HAPROXY: Final = EVERY - {"haproxy"}
"""HAProxy tries a connection three times more, a second apart, and so waits short gaps out."""
PLAIN: Final = NOT_CADDY - {"haproxy"}
CLUSTER_IP: Final = frozenset({"nginx"})
"""Neither: what a pod behind kube-proxy does, clients see."""
SOON: Final = frozenset({"contour", "haproxy"})
"""Hide most of what a pod does that stops as soon as it is told; Contour forgets it almost at once."""
NEAR: Final = (0.7, 1.3)
BLOCK: Final = (Margin.SAFE,) * 3 + (Margin.BORDERLINE,) * 2 + (Margin.UNSAFE,)
"""Every six cases have this mixture, so that any number of cases is balanced."""
REPLACING: Final = (ChangeKind.ROLLOUT, ChangeKind.ROLLOUT, ChangeKind.POD_DELETION)
"""Changes that bring new pods."""
STOPPING: Final = (
    ChangeKind.ROLLOUT, ChangeKind.ROLLOUT, ChangeKind.SCALE_IN, ChangeKind.POD_DELETION,
    ChangeKind.NODE_DRAIN,
)  # fmt: skip
"""Changes that stop pods, as often as they are tried."""

Parts = dict[str, object]
Recipe = Callable[["_Draw"], Parts]
Row = tuple[str, Recipe, frozenset[str]]
"""Risk, recipe, and the gateways behind which it does what it is meant to."""


def generate(seed: int, number: int, gateways: Sequence[str]) -> tuple[Case, ...]:
    """Draw cases; the first ones of a larger number are those of a smaller.

    Args:
        seed: Any number; recorded in each case.
        number: How many, > 0.
        gateways: That take turns.

    Raises:
        ValueError: no gateway, one that is not known, or no case was asked for.
    """
    if not gateways or number < 1:
        raise ValueError("a matrix needs at least one gateway and one case")
    if unknown := set(gateways) - EVERY:
        raise ValueError(f"the matrix does not know {', '.join(sorted(unknown))}")
    margins = _cycle(_dice(f"{seed}/margins"), BLOCK)
    decks = {margin: _Deck(_dice(f"{seed}/{margin}"), RECIPES[margin]) for margin in Margin}
    found = []
    for index in range(number):
        gateway = gateways[index % len(gateways)]
        margin = next(margins)
        risk, recipe = decks[margin].draw(gateway)
        draw = _Draw(_dice(f"{seed}/{index}"), gateway)
        found.append(_case(seed, index + 1, margin, risk, draw, recipe))
    return tuple(found)


def _dice(seed: str) -> Random:
    return Random(seed)  # noqa: S311 (it has to be repeatable, not secret)


def _cycle(random: Random, values: Sequence[Value]) -> Iterator[Value]:
    """All values again and again, each time in another order."""
    while True:
        shuffled = list(values)
        random.shuffle(shuffled)
        yield from shuffled


class _Deck:
    """Recipes in a shuffled order; each is drawn once before any is drawn again, where it fits."""

    def __init__(self, random: Random, rows: Sequence[Row]) -> None:
        self._random = random
        self._rows = rows
        self._left: list[Row] = []

    def draw(self, gateway: str) -> tuple[str, Recipe]:
        """The first one left that fits; none left that does begins another round."""
        if not any(gateway in fits for _, _, fits in self._left):
            again = list(self._rows)
            self._random.shuffle(again)
            self._left += again
        row = next(row for row in self._left if gateway in row[2])
        self._left.remove(row)
        return row[:2]


@dataclass(frozen=True, slots=True)
class _Draw:
    """One case's dice."""

    random: Random
    gateway: str

    @property
    def need(self) -> float:
        return JUST_ENOUGH.get(self.gateway, CLUSTER_IP_NEEDS)

    def near(self, enough: float) -> float:
        """Within 30 % of what is just enough."""
        return self.between(enough * NEAR[0], enough * NEAR[1])

    def between(self, low: float, high: float) -> float:
        return round(self.random.uniform(low, high), 2)

    def one_of(self, values: Sequence[Value]) -> Value:
        return self.random.choice(values)

    def start(self) -> float:
        """Mostly short, for every replica of every rollout waits for it."""
        return self.between(0.2, 4.0) if self.random.random() < 0.25 else self.between(0.2, 1.5)

    def true_probe(self) -> Parts:
        return {
            "probe": self.one_of((Probe.HTTP, Probe.TCP)),
            "period": self.one_of((1, 1, 1, 2, 2, 5)),
        }

    def ample_hook(self) -> int:
        """Whole seconds that cover the gateway's need one and a half times, with some to spare."""
        return self.one_of((2, 3, 4) if self.need > 1 else (1, 2, 3))

    def any_ending(self) -> Parts:
        """An ending that does no harm once the gateway has forgotten the pod."""
        ending = self.one_of((Ending.EXITS, Ending.DRAINS, Ending.REFUSES, Ending.LINGERS))
        return {"ending": ending, "linger": 1.0 if ending in LINGERING else 0.0}

    def change(self, changes: Sequence[ChangeKind], least: int = 2) -> Parts:
        """A change, and replicas that it can happen to."""
        change = self.one_of(changes)
        replicas = max(least, self.one_of((1, 2, 2, 3, 3, 4)))
        if change is not ChangeKind.ROLLOUT:
            replicas = max(2, replicas)
        left = self.random.randint(1, replicas - 1) if change is ChangeKind.SCALE_IN else replicas
        return {"change": change, "replicas": replicas, "to_replicas": left}

    def rolling(self, replicas: object) -> Parts:
        """A strategy that leaves a pod listed at all times."""
        several: list[tuple[int | str, int | str]] = [(0, 1), (1, 1)]
        always: list[tuple[int | str, int | str]] = [("25%", "25%"), (1, 0), ("100%", 0)]
        surge, unavailable = self.one_of(always + (several if replicas != 1 else []))
        return {"surge": surge, "unavailable": unavailable}


LINGERING: Final = frozenset({Ending.REFUSES, Ending.LINGERS})


def _case(seed: int, number: int, margin: Margin, risk: str, draw: _Draw, recipe: Recipe) -> Case:
    parts = recipe(draw)
    strategy = {} if "surge" in parts else draw.rolling(parts.get("replicas", 3))
    start = {} if "start" in parts else {"start": draw.start()}
    return Case(seed, number, draw.gateway, margin, risk, **{**start, **strategy, **parts})  # type: ignore[arg-type]


def _careful(draw: _Draw) -> Parts:
    """A probe that tells the truth, a hook that is long enough, an answer that takes no time."""
    hook = draw.ample_hook()
    spare = hook - draw.need - 0.6
    response = draw.between(0.1, spare) if spare > 0.2 and draw.random.random() < 0.4 else 0.0
    return {
        **draw.change(STOPPING, least=1), **draw.true_probe(), **draw.any_ending(),
        "hook": Hook.SLEEP, "hook_seconds": hook, "response": response,
    }  # fmt: skip


def _patient_app(draw: _Draw) -> Parts:
    """No hook, and the app itself goes on long enough."""
    linger = draw.between(draw.need * 1.6 + 0.5, draw.need * 1.6 + 2.0)
    return {
        **draw.change(STOPPING, least=1), **draw.true_probe(),
        "ending": Ending.LINGERS, "linger": linger, "response": draw.one_of((0.0, 0.0, 0.4)),
    }  # fmt: skip


def _deaf_app(draw: _Draw) -> Parts:
    """No hook, and an app that serves on until it is killed, well after the gateway forgot it."""
    return {
        **draw.change(STOPPING, least=1), **draw.true_probe(),
        "ending": Ending.IGNORES, "grace": draw.one_of((4, 5)),
    }  # fmt: skip


def _no_new_pods(draw: _Draw) -> Parts:
    """No readiness probe, and a change that starts no pod."""
    return {
        **draw.change((ChangeKind.SCALE_IN,)), **draw.any_ending(),
        "probe": Probe.NONE, "hook": Hook.SLEEP, "hook_seconds": draw.ample_hook(),
    }  # fmt: skip


def _elsewhere_no_new_pods(draw: _Draw) -> Parts:
    """A probe that would lie about a new pod, and a change that starts none."""
    return {**_no_new_pods(draw), "probe": Probe.ELSEWHERE}


def _long_drain(draw: _Draw) -> Parts:
    """Long answers, and a grace period with room for them."""
    return {
        **draw.change(STOPPING, least=1), **draw.true_probe(),
        "hook": Hook.SLEEP, "hook_seconds": draw.ample_hook(), "response": draw.between(1.0, 2.5),
        "ending": draw.one_of((Ending.DRAINS, Ending.DRAINS, Ending.LINGERS)), "linger": 1.0,
        "grace": draw.one_of((15, 30)),
    }  # fmt: skip


def _hook_ok(draw: _Draw) -> Parts:
    return {"hook": Hook.SLEEP, "hook_seconds": draw.ample_hook(), **draw.any_ending()}


def _no_probe(draw: _Draw) -> Parts:
    parts = {**draw.change(REPLACING, least=2), **_hook_ok(draw)}
    return {**parts, "probe": Probe.NONE, "start": draw.between(2.0, 4.0)}


def _probe_elsewhere(draw: _Draw) -> Parts:
    return {**_no_probe(draw), "probe": Probe.ELSEWHERE, "period": draw.one_of((1, 2))}


def _lying(draw: _Draw) -> Parts:
    parts = {**draw.change(REPLACING, least=2), **_hook_ok(draw)}
    return {**parts, "lie": draw.between(2.5, 4.0), "start": draw.between(0.2, 0.8)}


def _recreate(draw: _Draw) -> Parts:
    parts = {**draw.true_probe(), **draw.any_ending(), "replicas": draw.one_of((2, 3, 4))}
    hook = {"hook": Hook.SLEEP, "hook_seconds": 1} if draw.random.random() < 0.5 else {}
    return {
        **parts, **hook, "to_replicas": parts["replicas"], "change": ChangeKind.ROLLOUT,
        "surge": RECREATE, "period": draw.one_of((1, 2)), "start": draw.between(0.5, 2.5),
    }  # fmt: skip


def _all_unavailable(draw: _Draw) -> Parts:
    parts = _recreate(draw)
    return {**parts, "surge": 0, "unavailable": "100%", "start": draw.between(1.5, 3.0)}


def _single(draw: _Draw) -> Parts:
    return {
        **draw.true_probe(), **draw.any_ending(), "change": ChangeKind.POD_DELETION, "replicas": 1,
        "to_replicas": 1, "period": draw.one_of((1, 2)), "start": draw.between(2.0, 4.0),
    }  # fmt: skip


def _no_hook(draw: _Draw) -> Parts:
    """Through a ClusterIP the pod is asked for a second more."""
    return {
        **draw.change((ChangeKind.ROLLOUT,), least=2), **draw.true_probe(),
        "ending": draw.one_of((Ending.EXITS, Ending.DRAINS, Ending.REFUSES)), "linger": 1.0,
    }  # fmt: skip


def _short_hook(draw: _Draw) -> Parts:
    hook = draw.between(draw.need * 0.2, draw.need * 0.5)
    return {**_no_hook(draw), "hook": Hook.EXEC, "hook_seconds": hook}


def _near_hook(draw: _Draw) -> Parts:
    parts = {**draw.change((ChangeKind.ROLLOUT,), least=1), **draw.true_probe()}
    return {
        **parts,
        "hook": Hook.EXEC,
        "hook_seconds": draw.near(draw.need),
        "ending": Ending.EXITS,
    }


def _near_linger(draw: _Draw) -> Parts:
    parts = {**draw.change((ChangeKind.ROLLOUT,), least=1), **draw.true_probe()}
    return {**parts, "ending": Ending.LINGERS, "linger": draw.near(draw.need)}


def _near_start(draw: _Draw) -> Parts:
    """No readiness probe, and an app that starts about as fast as the gateway learns of it.

    From the container's start to the gateway's first request: the kubelet's look at its containers
    (each second), the EndpointSlice, and the gateway.
    """
    parts = {**draw.change(REPLACING, least=2), **_hook_ok(draw), "probe": Probe.NONE}
    return {**parts, "start": draw.near(0.5 + draw.need / 2)}


def _near_lie(draw: _Draw) -> Parts:
    """Readiness runs ahead of serving by about what the probe's period and the gateway take."""
    parts = {**draw.change(REPLACING, least=2), **_hook_ok(draw)}
    return {**parts, "lie": draw.near(0.5 + draw.need / 2), "start": draw.between(0.2, 1.5)}


def _killed(draw: _Draw, ending: Ending, over: float | None) -> Parts:
    """Answers that end after SIGKILL by `over` seconds, or about with it."""
    parts: Parts = {
        **draw.change(STOPPING), **draw.true_probe(), "ending": ending,
        "hook": Hook.SLEEP, "hook_seconds": 2 if draw.need > 1 else 1,
        "grace": 3 if draw.need > 1 else 2,
    }  # fmt: skip
    left = parts["hook_seconds"] + KUBELET_LEAST - draw.need  # type: ignore[operator]
    return {**parts, "response": round(left + over, 2) if over else draw.near(left)}


def _short_grace(draw: _Draw) -> Parts:
    return _killed(draw, Ending.DRAINS, draw.between(1.0, 1.6))


def _near_grace(draw: _Draw) -> Parts:
    return _killed(draw, Ending.DRAINS, None)


def _deaf_and_killed(draw: _Draw) -> Parts:
    return _killed(draw, Ending.IGNORES, draw.between(1.0, 1.6))


def _near_deaf(draw: _Draw) -> Parts:
    return _killed(draw, Ending.IGNORES, None)


def _drops(draw: _Draw) -> Parts:
    """The hook lets the gateway forget the pod, and SIGTERM cuts off what is still in flight."""
    hook = draw.ample_hook()
    over = round(hook - draw.need + draw.between(0.8, 1.6), 2)
    parts = {**draw.change(STOPPING), **draw.true_probe(), "ending": Ending.EXITS}
    return {**parts, "hook": Hook.SLEEP, "hook_seconds": hook, "response": over}


def _near_drops(draw: _Draw) -> Parts:
    parts = _drops(draw)
    return {**parts, "response": draw.near(parts["hook_seconds"] - draw.need)}  # type: ignore[operator]


def _hook_cut_off(draw: _Draw) -> Parts:
    """The grace period ends during the hook, with requests in flight that SIGTERM cuts off."""
    return {
        **draw.change(STOPPING), **draw.true_probe(), "hook": Hook.EXEC, "hook_seconds": 8,
        "grace": 2, "ending": Ending.EXITS, "response": round(2.8 + draw.between(0.0, 0.8), 2),
    }  # fmt: skip


def _crash(draw: _Draw) -> Parts:
    parts = {**draw.true_probe(), **_hook_ok(draw), "start": draw.between(0.5, 3.0)}
    replicas = draw.one_of((2, 3, 4))
    return {
        **parts, "change": ChangeKind.CRASH, "replicas": replicas, "to_replicas": replicas,
        "period": draw.one_of((1, 2)),
    }  # fmt: skip


RECIPES: Final[Mapping[Margin, Sequence[Row]]] = {
    Margin.SAFE: (
        ("", _careful, EVERY),
        ("", _careful, EVERY),
        ("", _patient_app, EVERY),
        ("", _deaf_app, EVERY),
        ("", _no_new_pods, EVERY),
        ("", _elsewhere_no_new_pods, EVERY),
        ("", _long_drain, EVERY),
    ),
    Margin.BORDERLINE: (
        ("pre-stop-too-short", _near_hook, EVERY - SOON),
        ("pre-stop-too-short", _near_hook, EVERY - SOON),
        ("no-pre-stop", _near_linger, EVERY),
        ("no-pre-stop", _no_hook, SOON),
        ("no-readiness-probe", _near_start, EVERY),
        ("ready-before-serving", _near_lie, EVERY),
        ("grace-shorter-than-drain", _near_grace, EVERY),
        ("sigterm-ignored", _near_deaf, EVERY),
        ("sigterm-drops-requests", _near_drops, EVERY),
    ),
    Margin.UNSAFE: (
        ("no-readiness-probe", _no_probe, PLAIN),
        ("readiness-probe-elsewhere", _probe_elsewhere, PLAIN),
        ("ready-before-serving", _lying, NOT_CADDY),
        ("recreate-strategy", _recreate, NOT_HAPROXY),
        ("max-unavailable", _all_unavailable, EVERY),
        ("single-replica", _single, NOT_HAPROXY),
        ("no-pre-stop", _no_hook, CLUSTER_IP),
        ("pre-stop-too-short", _short_hook, CLUSTER_IP),
        ("pre-stop-exceeds-grace", _hook_cut_off, NOT_CADDY),
        ("grace-shorter-than-drain", _short_grace, NOT_CADDY),
        ("sigterm-ignored", _deaf_and_killed, NOT_CADDY),
        ("sigterm-drops-requests", _drops, NOT_CADDY),
        ("crash", _crash, PLAIN),
    ),
}
"""What is built: risk, recipe, and behind which gateways clients see what it does."""
