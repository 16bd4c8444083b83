"""Objects to findings: worlds, the gateways in front of each Service, and what the engine says."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

from upstream_guard.cli.check.objects import Located, Location, ObjectKey, Trouble
from upstream_guard.cli.check.report import RANKS
from upstream_guard.core.model import ObjectRef, Route
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.review import Problem, review
from upstream_guard.core.predict.rules import inspect_guards, inspect_routes
from upstream_guard.core.predict.state import (
    LabelSelector,
    RouteState,
    State,
    Workload,
    World,
)
from upstream_guard.core.tuning import CLUSTER_IP, GatewayFacts, GatewayKind
from upstream_guard.gateways import PROFILES, discover
from upstream_guard.gateways.behaviour import model_of
from upstream_guard.resources.manifests import read_world, settle_drain

MOST: Final[Mapping[str, int]] = {
    "workloads": 20,
    "routes": 100,
    "budgets": 100,
    "autoscalers": 100,
    "policies": 100,
    "quotas": 100,
}
"""Fields of a state, and how much of each is looked at. More is no manifest of this world, and the time
that rules take grows with the square of it."""

Tracker = Callable[[Sequence[State]], Iterable[State]]
"""Passes states on, and may show how far it is."""


@dataclass(frozen=True, slots=True)
class Question:
    """How objects are checked.

    Attributes:
        facts: What is known of app, platform and load.
        gateways: Products to assume in front of every Service; empty finds them by the routes.
        complete: Whether absent means absent (a cluster), or may exist elsewhere (manifests).
        now: Unix seconds.
    """

    facts: Facts
    gateways: tuple[str, ...] = ()
    complete: bool = False
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, and the objects among which it was found."""

    problem: Problem
    objects: Mapping[ObjectKey, Located]


def analyse(
    objects: Sequence[Located],
    question: Question,
    troubles: list[Trouble],
    track: Tracker = iter,
) -> tuple[list[Found], int]:
    """Check objects.

    Args:
        objects: Them.
        question: How.
        troubles: Objects that are there twice are told here.
        track: Called with the Services of each world.

    Returns:
        Findings, each once, and how many Services were looked at.
    """
    parts = [_by_key(part, troubles) for part in worlds(objects)]
    read = [
        read_world([o.value for o in known.values()], complete=question.complete) for known in parts
    ]
    found: list[Found] = []
    for known, world in zip(parts, _aware(read), strict=True):
        states = [_bounded(state, troubles) for state in world.states]
        problems = [p for state in track(states) for p in _review(state, world, question)]
        problems += [Problem(finding) for finding in inspect_routes(world)]
        problems += [Problem(finding) for finding in inspect_guards(world)]
        found += [Found(problem, known) for problem in _once(problems)]
    return found, sum(len(world.states) for world in read)


def _aware(read: Sequence[World]) -> list[World]:
    """The worlds, each with what the others hold and it may refer to.

    A route may lead to a Service of another folder, a Gateway may be of a class of another folder
    or be spoken of by its GatewayProfile, and a Service may mean pods of another folder.
    """
    if len(read) < 2:
        return list(read)
    services = {ref: service for world in read for ref, service in world.services.items()}
    classes = {name: c for world in read for name, c in world.ingress_classes.items()}
    gateways = {name: c for world in read for name, c in world.gateway_controllers.items() if c}
    workloads = tuple(workload for world in read for workload in world.workloads)
    profiles = {profile.name: profile for world in read for profile in world.profiles}
    return [
        replace(
            world,
            states=tuple(_with_strangers(state, workloads) for state in world.states),
            services=services | dict(world.services),
            ingress_classes=classes | dict(world.ingress_classes),
            gateway_controllers=dict(world.gateway_controllers) | gateways,
            profiles=tuple((profiles | {p.name: p for p in world.profiles}).values()),
        )
        for world in read
    ]


def _with_strangers(state: State, workloads: Iterable[Workload]) -> State:
    """A Service without pods of its own folder, with those of other folders that it selects."""
    selector = LabelSelector(state.service.service.selector)
    if state.workloads or not selector.labels:
        return state
    namespace = state.service.ref.namespace
    selected = tuple(
        workload
        for workload in workloads
        if workload.ref.namespace == namespace and selector.matches(workload.template.labels)
    )
    return replace(state, neighbours=state.neighbours + selected)


def worlds(objects: Sequence[Located]) -> Iterator[list[Located]]:
    """Objects that may be applied together.

    An object that is defined twice (overlays, examples) cannot be both: each folder is then taken for
    itself, and where that is not enough, each file.
    """
    if _is_unique(objects):
        yield list(objects)
        return
    for folder in _split(objects, lambda o: o.source.folder):
        if _is_unique(folder):
            yield folder
        else:
            yield from _split(folder, lambda o: o.source.name)


def _is_unique(objects: Sequence[Located]) -> bool:
    return len({o.key for o in objects}) == len(objects)


def _split(objects: Sequence[Located], by: Callable[[Located], str]) -> Iterator[list[Located]]:
    for _, part in groupby(sorted(objects, key=by), by):
        yield list(part)


def _by_key(objects: Iterable[Located], troubles: list[Trouble]) -> dict[ObjectKey, Located]:
    known: dict[ObjectKey, Located] = {}
    for located in objects:
        if located.key in known:
            text = f"{located.key} is also in {known[located.key].location()}; this one counts"
            troubles.append(Trouble(located.location(), text, fatal=False))
        known[located.key] = located
    return known


def _review(state: State, world: World, question: Question) -> tuple[Problem, ...]:
    gateways = _gateways(state, world, question.gateways)
    if state.guard is not None:
        state = replace(state, guard=settle_drain(state.guard, gateways))
    return review(state, _models(gateways), question.facts, question.now)


@lru_cache(maxsize=1024)
def _models(gateways: tuple[GatewayFacts, ...]) -> tuple[Gateway, ...]:
    return tuple(model_of(facts) for facts in gateways)


def _bounded(state: State, troubles: list[Trouble]) -> State:
    """The state without what is too much of one sort; says so."""
    cut: dict[str, Any] = {}
    for name, most in MOST.items():
        found = getattr(state, name)
        if len(found) > most:
            cut[name] = found[:most]
            text = f"Service {state.service.ref} has {len(found)} {name}: {most} are looked at"
            troubles.append(Trouble(Location(""), text, fatal=False))
    return replace(state, **cut) if cut else state


def _gateways(state: State, world: World, products: Iterable[str]) -> tuple[GatewayFacts, ...]:
    chosen = tuple(PROFILES[name].facts(name, GatewayKind.PROFILE) for name in products)
    if chosen:
        return chosen
    found = discover(
        state.service.ref,
        map(_route, state.routes),
        world.ingress_classes,
        world.gateway_controllers,
        world.profiles,
    )
    return found or (CLUSTER_IP,)


def _route(route: RouteState) -> Route:
    return Route(
        kind=route.kind,
        ref=route.ref,
        services=frozenset(
            ObjectRef(b.namespace, b.service) for b in route.backends if b.kind == "Service"
        ),
        hosts=route.hosts,
        gateway_class=route.gateway,
    )


def _once(problems: Iterable[Problem]) -> Iterator[Problem]:
    """One finding for each ID, object and field: a workload behind two Services is met twice."""
    merged: dict[tuple[str, str, ObjectRef, str], Problem] = {}
    for problem in problems:
        finding = problem.finding
        key = (finding.risk, finding.kind, finding.ref, finding.path)
        merged[key] = _merge(merged[key], problem) if key in merged else problem
    yield from merged.values()


def _merge(one: Problem, other: Problem) -> Problem:
    worse = min(one, other, key=lambda problem: RANKS[problem.finding.severity])
    more = tuple(w for w in other.windows if w not in one.windows)
    return replace(worse, windows=one.windows + more)


def object_of(objects: Mapping[ObjectKey, Located], kind: str, ref: ObjectRef) -> Located | None:
    """The object of a reference; one that names no namespace may be meant too."""
    return objects.get(ObjectKey(kind, ref.namespace, ref.name)) or objects.get(
        ObjectKey(kind, "", ref.name)
    )
