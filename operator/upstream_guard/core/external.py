"""Which addresses of external upstreams are listed: the same safeguards as for pods, over names.

An address takes a pod's place in `core.admission.decide`, and its readiness in the slice that of the
gate: new ones wait until they are seen to serve, only hard failures and outliers are ejected, floors hold,
blindness ejects nobody. Three things are its own:

1. An address that DNS no longer names stays as it is until another one is listed in its place, at most
   for `admitTimeout`: whoever owns the name has said that it is over.
2. Of SRV's priorities only one level is listed at a time: the best of which not everything fails. The
   others are published as not ready, so that they are probed and at hand.
3. What is not allowed any more goes at once, even the last: that is an administrator's decision.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from upstream_guard.core.admission import Decision, Floor, Member, Outcome, Scene, View, decide
from upstream_guard.core.allowance import AllowList, Premises, refuse_address, refuse_name
from upstream_guard.core.health import NEVER_PROBED, Health, Verdict
from upstream_guard.core.model import Guard, ObjectRef, Pod, Upstream
from upstream_guard.core.reasons import Reason
from upstream_guard.core.resolution import Memory, Question, RecordType, Wanted


@dataclass(frozen=True, slots=True)
class Slot:
    """One address in the list of a guard.

    Attributes:
        wanted: What it is.
        listed: Whether it is published as ready; None where it never was.
        since: When it was first wanted, Unix seconds.
        left_at: When DNS ceased to name it; 0 while it does.
    """

    wanted: Wanted
    listed: bool | None
    since: float
    left_at: float = 0.0


Slots = Mapping[str, Slot]


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is listed now.

    Attributes:
        slots: Every address to be published, by key, with the new verdicts.
        decisions: What changed, for events; `uid` is the key.
        outcome: The decision over the active addresses.
        revisit_at: When time alone can change it.
        active: The SRV priority that is listed; 0 for hosts.
    """

    slots: Slots
    decisions: tuple[Decision, ...]
    outcome: Outcome
    revisit_at: float
    active: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A name or an address that is not possible, and why."""

    upstream: str
    subject: str
    why: str


def refusals_of_names(
    upstreams: Iterable[Upstream], memory: Memory, allow: AllowList
) -> tuple[Refusal, ...]:
    """The names among the upstreams, and the targets of their SRV records, that must not be asked for."""
    found: list[Refusal] = []
    for upstream in upstreams:
        names = [upstream.srv or upstream.host]
        known = memory.get(Question(upstream.srv, RecordType.SRV)) if upstream.srv else None
        names += [target.name for target in known.targets] if known else []
        for name in names:
            why = refuse_name(allow, name)
            if why:
                found.append(Refusal(upstream.key, name, why))
    return tuple(found)


def permitted(
    wanted: Iterable[Wanted], allow: AllowList, premises: Premises
) -> tuple[tuple[Wanted, ...], tuple[Refusal, ...]]:
    """What may be published and probed, and what not."""
    kept: list[Wanted] = []
    refused: list[Refusal] = []
    for one in wanted:
        why = refuse_name(allow, one.name) if one.name else ""
        why = why or refuse_address(allow, premises, one.address)
        if why:
            refused.append(Refusal(one.upstream, one.address, why))
        else:
            kept.append(one)
    return tuple(kept), tuple(refused)


def update_slots(slots: Slots, wanted: Iterable[Wanted], now: float) -> dict[str, Slot]:
    """The slots with what is wanted now; what is no longer is marked as leaving."""
    current = {one.key: one for one in wanted}
    updated = {
        key: replace(slot, left_at=slot.left_at or now)
        for key, slot in slots.items()
        if key not in current
    }
    for key, one in current.items():
        known = slots.get(key)
        since = known.since if known and not known.left_at else now
        updated[key] = Slot(one, known.listed if known else None, since)
    return updated


def choose(
    guard: Guard,
    slots: Slots,
    healths: Mapping[str, Health],
    now: float,
    *,
    service_served: bool,
) -> Choice:
    """Decide who is listed.

    Args:
        guard: The guard.
        slots: Its addresses.
        healths: What the probes say, by key.
        now: Unix seconds.
        service_served: Some address was once seen serving.
    """
    current = {key: slot for key, slot in slots.items() if not slot.left_at}
    priority = _active_priority(current, healths)
    active = {k: s for k, s in current.items() if s.wanted.priority == priority}
    outcome = decide(_scene(guard, active, healths, service_served=service_served), now)
    opened = {d.uid: d.gate for d in outcome.decisions}
    served = any(opened.get(k, s.listed) for k, s in active.items())
    # Not before one of the better level is listed: a list is never empty in between.
    decisions = [*outcome.decisions, *(_stand_by(current, priority) if served else ())]
    listed = {d.uid: d.gate for d in decisions}
    chosen = {k: replace(s, listed=listed.get(k, s.listed)) for k, s in current.items()}
    filled = any(slot.listed for slot in chosen.values())
    staying = _staying(guard, slots, now, filled=filled, alone=not current)
    ends = [
        slot.left_at + guard.upstream_list.admit_timeout for slot in staying.values() if current
    ]
    return Choice(
        chosen | staying,
        tuple(decisions),
        outcome,
        min([outcome.revisit_at, *ends], default=math.inf),
        priority,
    )


def _active_priority(slots: Slots, healths: Mapping[str, Health]) -> int:
    """The best SRV priority of which not everything fails; the best of all where nothing serves."""
    levels: dict[int, list[Verdict]] = {}
    for key, slot in slots.items():
        verdict = healths.get(key, NEVER_PROBED).verdict
        levels.setdefault(slot.wanted.priority, []).append(verdict)
    order = sorted(levels)
    for index, priority in enumerate(order):
        failing = all(verdict is Verdict.FAILING for verdict in levels[priority])
        if not failing:
            return priority
        if not any(Verdict.SERVING in levels[later] for later in order[index + 1 :]):
            break
    return order[0] if order else 0


def _stand_by(slots: Slots, priority: int) -> list[Decision]:
    """Addresses of other SRV priorities, which are published but not used."""
    return [
        Decision(
            key,
            False,
            Reason.ENDPOINT_EJECTED,
            f"SRV priority {priority} is listed in the place of priority {slot.wanted.priority}",
        )
        for key, slot in sorted(slots.items())
        if slot.wanted.priority != priority and slot.listed
    ]


def _staying(
    guard: Guard, slots: Slots, now: float, *, filled: bool, alone: bool
) -> dict[str, Slot]:
    """Addresses that DNS no longer names, and that stay until others are listed in their place."""
    if filled:
        return {}
    patience = guard.upstream_list.admit_timeout
    return {
        key: slot
        for key, slot in slots.items()
        if slot.left_at and (alone or now < slot.left_at + patience)
    }


def _scene(
    guard: Guard, slots: Slots, healths: Mapping[str, Health], *, service_served: bool
) -> Scene:
    members = tuple(
        Member(
            as_pod(guard, slot),
            (
                View(
                    str(guard.ref),
                    guard.upstream_list,
                    healths.get(key, NEVER_PROBED),
                    service_served,
                    service_served,
                ),
            ),
        )
        for key, slot in sorted(slots.items())
    )
    percent = guard.upstream_list.min_healthy_percent
    return Scene(members, (Floor(f"Service {guard.service_ref}", frozenset(slots), percent),))


def as_pod(guard: Guard, slot: Slot) -> Pod:
    """An address in a pod's place: gated, its containers ready since it is wanted, `Ready` as published."""
    key = slot.wanted.key
    return Pod(
        ref=ObjectRef(guard.ref.namespace, key),
        uid=key,
        ip=slot.wanted.address,
        node="",
        labels={},
        created=slot.since,
        template="",
        owner=None,
        ports=(),
        readiness=None,
        has_exec_readiness=False,
        gated=True,
        gate=slot.listed,
        ready=bool(slot.listed),
        containers_ready=True,
        containers_ready_since=slot.since,
        ready_since=slot.since,
        terminating=False,
    )
