"""How a change goes: which pods its controller stops and makes, and when."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from upstream_guard.core.predict.draws import Draw
from upstream_guard.core.predict.lives import FOREVER, Life, Number, born, crash, end, lose
from upstream_guard.core.predict.play import Play, Replacement
from upstream_guard.core.predict.state import ChangeKind

MAX_STEPS: Final = 10_000


def run(play: Play, draw: Draw) -> list[Life]:
    """The lives of all pods, old and new, through one future of the change."""
    old = [Life() for _ in range(play.replicas)]
    course = COURSES.get(play.kind)
    return old if course is None else course(play, draw, old)


def _rollout(play: Play, draw: Draw, old: list[Life]) -> list[Life]:
    match play.replacement:
        case Replacement.SURGE:
            return _surge(play, draw, old)
        case Replacement.ALL_AT_ONCE:
            return _recreate(play, draw, old)
        case Replacement.IN_PLACE:
            return _in_place(play, draw, old)
        case Replacement.NONE:
            return old


def _surge(play: Play, draw: Draw, old: list[Life]) -> list[Life]:
    """A Deployment's rolling update (kubernetes/pkg/controller/deployment/rolling.go)."""
    step = draw.of(play.platform.reconcile, Number.RECONCILE)
    wanted = play.replicas
    staying, new, now = list(old), list[Life](), 0.0
    for _ in range(MAX_STEPS):
        room = wanted + play.surge - len(staying) - len(new)
        for _ in range(max(0, min(room, wanted - len(new)))):
            new.append(born(play, draw, now, len(old) + len(new)))
        unavailable = sum(life.ready_at + play.min_ready > now for life in new)
        spare = len(staying) + len(new) - (wanted - play.unavailable) - unavailable
        for _ in range(max(0, min(spare, len(staying)))):
            end(play, draw, staying.pop(), now, len(staying))
        if not staying and len(new) == wanted:
            break
        if len(new) < wanted and len(staying) + len(new) < wanted + play.surge:
            # Pods that are stopping do not count: their successors are made at the next turn.
            now += step
            continue
        coming = [t for life in new if (t := life.ready_at + play.min_ready) > now]
        now = (min(coming) if coming else now) + step
    return old + new


def _recreate(play: Play, draw: Draw, old: list[Life]) -> list[Life]:
    """New pods only once every old one is gone."""
    for pod, life in enumerate(old):
        end(play, draw, life, 0.0, pod)
    gone = max(life.gone for life in old) + draw.of(play.platform.reconcile, Number.RECONCILE)
    return old + [born(play, draw, gone, len(old) + pod) for pod in range(len(old))]


def _in_place(play: Play, draw: Draw, old: list[Life]) -> list[Life]:
    """A StatefulSet or DaemonSet: `unavailable` pods at a time, each gone before its successor."""
    step = draw.of(play.platform.reconcile, Number.RECONCILE)
    lives, now = list(old), 0.0
    width = max(1, play.unavailable)
    for first in range(0, len(old), width):
        batch = list(enumerate(old))[first : first + width]
        for pod, life in batch:
            end(play, draw, life, now, pod)
        made = [born(play, draw, life.gone + step, len(old) + pod) for pod, life in batch]
        lives += made
        now = max(life.ready_at for life in made) + play.min_ready + step
    return lives


def _scale_in(play: Play, draw: Draw, old: list[Life]) -> list[Life]:
    for pod in range(play.going):
        end(play, draw, old[pod], 0.0, pod)
    return old


def _deletion(play: Play, draw: Draw, old: list[Life]) -> list[Life]:
    """Deleted at once, without asking a budget."""
    lives = list(old)
    for pod in range(play.going):
        end(play, draw, old[pod], 0.0, pod)
        lives += _successor(play, draw, old[pod], 0.0, len(old) + pod)
    return lives


def _drain(play: Play, draw: Draw, old: list[Life]) -> list[Life]:
    """Evicted one after the other; a budget makes each wait for the successors of those before."""
    pause = draw.of(play.platform.evict, Number.EVICT)
    lives, recovering, now = list(old), list[float](), 0.0
    if play.evictable <= 0:
        return lives
    for pod in range(play.going):
        recovering = sorted(t for t in recovering if t > now)
        if len(recovering) >= play.evictable:
            now = recovering[len(recovering) - play.evictable]
            if now == FOREVER:
                break
        end(play, draw, old[pod], now, pod)
        made = _successor(play, draw, old[pod], now, len(old) + pod)
        lives += made
        recovering.append(made[0].ready_at if made else FOREVER)
        now += pause
    return lives


def _successor(play: Play, draw: Draw, life: Life, at: float, pod: int) -> list[Life]:
    """What takes the place of a deleted pod; a ReplicaSet does not wait until it is gone."""
    if play.replacement is Replacement.NONE:
        return []
    late = life.gone if play.replacement is Replacement.IN_PLACE else at
    return [born(play, draw, late + draw.of(play.platform.reconcile, Number.RECONCILE), pod)]


def _crash(play: Play, draw: Draw, old: list[Life]) -> list[Life]:
    return old + [crash(play, draw, old[pod], pod) for pod in range(play.going)]


def _node_loss(play: Play, draw: Draw, old: list[Life]) -> list[Life]:
    for pod in range(play.going):
        lose(play, draw, old[pod], pod)
    return old


COURSES: Final[Mapping[ChangeKind, Callable[[Play, Draw, list[Life]], list[Life]]]] = (
    MappingProxyType(
        {
            ChangeKind.ROLLOUT: _rollout,
            ChangeKind.SCALE_IN: _scale_in,
            ChangeKind.POD_DELETION: _deletion,
            ChangeKind.NODE_DRAIN: _drain,
            ChangeKind.NODE_LOSS: _node_loss,
            ChangeKind.CRASH: _crash,
        }
    )
)
"""How each kind of change goes; the others do not touch pods."""
