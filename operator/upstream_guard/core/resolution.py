"""What DNS says of external upstreams: what to ask, when to ask again, and what still holds.

Pure. A question is asked when its answer's TTL is over, and not before; a failure is asked again with
back-off. What was once answered is not forgotten because DNS fails: those *last known good* addresses hold
for `HOLD_SECONDS`, and beyond that where otherwise nothing would remain, since a list is never emptied.
A negative answer (no such name, no such record) is held in the same way, for a zone is more often broken
than a service is abandoned by deleting its name; but where a name still has addresses of one family, the
other family's negative answer is believed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from upstream_guard.core.allowance import AllowList, is_address, refuse_name
from upstream_guard.core.model import Upstream

HOLD_SECONDS: Final = 86_400.0
"""How long last known good addresses hold though other upstreams of the guard have newer ones."""
MIN_TTL: Final = 1.0
"""Seconds; what a TTL of 0 counts as, so that no name is asked in a busy loop."""
MAX_TTL: Final = 3_600.0
"""Seconds; an answer may be good for weeks, but nobody waits for weeks after a mistake."""
MAX_NEGATIVE_TTL: Final = 30.0
"""Seconds; whoever has just repaired a zone does not want to wait for the negative TTL."""
SPREAD: Final = 0.5
"""Seconds by which questions are spread at most, and a twentieth of their TTL."""
RETRY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 15.0
MAX_TARGETS: Final = 16
"""Targets of one SRV answer that are followed, the best priorities first."""
MAX_ADDRESSES: Final = 64
"""Addresses of one answer that are used, in their numeric order."""


class RecordType(StrEnum):
    """The types that are asked for."""

    A = "A"
    AAAA = "AAAA"
    SRV = "SRV"


@dataclass(frozen=True, slots=True, order=True)
class Question:
    """One name and type; names in lower case, without a final dot."""

    name: str
    type: RecordType


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """One SRV record (RFC 2782); the weight is not kept, since EndpointSlices hold none."""

    priority: int
    name: str
    port: int


class LookupResult(StrEnum):
    """How a question ended; values are labels of `upstream_guard_dns_lookups_total`."""

    ANSWER = "answer"
    NO_NAME = "nxdomain"
    NO_DATA = "nodata"
    SERVER_FAILURE = "servfail"
    TIMEOUT = "timeout"
    ERROR = "error"
    """Refused, malformed, or no server could be reached."""


_FAMILIES: Final = {"IPv4": RecordType.A, "IPv6": RecordType.AAAA}

NEGATIVE: Final = frozenset({LookupResult.NO_NAME, LookupResult.NO_DATA})
"""Answers that there is nothing; all others but ANSWER are failures to answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """How one question ended.

    Attributes:
        result: What kind of answer.
        ttl: Seconds that the answer, positive or negative, may be kept; 0 for failures.
        addresses: For A and AAAA.
        targets: For SRV.
        detail: For people, e.g. `SERVFAIL from 10.96.0.10`.
    """

    result: LookupResult
    ttl: float = 0.0
    addresses: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one question. Times are Unix seconds.

    Attributes:
        result: Of the last time it was asked.
        addresses: Of the last positive answer.
        targets: The same for SRV.
        good_at: When that was.
        failures: Failures and negative answers in a row.
        ask_at: When to ask next.
        detail: Of the last failure.
    """

    result: LookupResult
    addresses: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    good_at: float = 0.0
    failures: int = 0
    ask_at: float = 0.0
    detail: str = ""

    @property
    def held(self) -> bool:
        """What is known is not what DNS said last."""
        return self.result is not LookupResult.ANSWER


Memory = Mapping[Question, Known]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One address that an upstream has by DNS.

    Attributes:
        address: IP address.
        port: Of the upstream.
        upstream: Its key.
        name: The name behind the address, for Host header and SNI; empty where an address was given.
        priority: Of SRV; lower is better, 0 for hosts.
        held: It is a last known good one.
    """

    address: str
    port: int
    upstream: str
    name: str = ""
    priority: int = 0
    held: bool = False

    @property
    def key(self) -> str:
        """`203.0.113.7:443`; distinct in a list."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


def learn(known: Known | None, reply: Reply, now: float, jitter: float) -> Known:
    """What is known after one more reply.

    Args:
        known: What was known; None at the first time.
        reply: How the question ended.
        now: When, Unix seconds.
        jitter: A random number in [0, 1), so that not all guards ask at once.
    """
    before = known or Known(reply.result)
    if reply.result is LookupResult.ANSWER:
        ttl = min(max(reply.ttl, MIN_TTL), MAX_TTL)
        return Known(
            reply.result,
            reply.addresses[:MAX_ADDRESSES],
            tuple(sorted(reply.targets))[:MAX_TARGETS],
            now,
            0,
            now + ttl + jitter * min(SPREAD, ttl / 20),
        )
    failures = before.failures + 1
    return Known(
        reply.result,
        before.addresses,
        before.targets,
        before.good_at,
        failures,
        now + _pause(reply, failures, jitter),
        reply.detail,
    )


def _pause(reply: Reply, failures: int, jitter: float) -> float:
    """Seconds until a question without a positive answer is asked again."""
    if reply.result in NEGATIVE:
        return min(max(reply.ttl, RETRY_SECONDS), MAX_NEGATIVE_TTL) + jitter * SPREAD
    ceiling = min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** (min(failures, 10) - 1))
    return ceiling * (0.5 + jitter / 2)


def questions(
    upstreams: Iterable[Upstream], memory: Memory, allow: AllowList, families: Iterable[str] = ()
) -> tuple[Question, ...]:
    """Everything that is to be asked for these upstreams, as far as names are allowed.

    An SRV record's targets are asked for once the record is known.

    Args:
        upstreams: The guard's.
        memory: What is known.
        allow: The administrator's list.
        families: `IPv4`, `IPv6`: those that the Service has; empty means both.
    """
    unused = {kind for family, kind in _FAMILIES.items() if families and family not in families}
    found: dict[Question, None] = {}
    for upstream in upstreams:
        for question in _questions_of(upstream, memory, allow):
            if question.type not in unused:
                found[question] = None
    return tuple(found)


def _questions_of(upstream: Upstream, memory: Memory, allow: AllowList) -> Iterator[Question]:
    name = upstream.srv or upstream.host
    if is_address(name) or refuse_name(allow, name):
        return
    if not upstream.srv:
        yield from _families(name)
        return
    question = Question(upstream.srv, RecordType.SRV)
    yield question
    known = memory.get(question)
    for target in known.targets if known else ():
        if not is_address(target.name) and not refuse_name(allow, target.name):
            yield from _families(target.name)


def _families(name: str) -> Iterator[Question]:
    yield Question(name, RecordType.A)
    yield Question(name, RecordType.AAAA)


def due(asked: Iterable[Question], memory: Memory, now: float) -> tuple[Question, ...]:
    """Questions whose time has come."""
    return tuple(q for q in asked if q not in memory or memory[q].ask_at <= now)


def next_time(asked: Iterable[Question], memory: Memory, now: float) -> float:
    """When the next of the questions is due; an hour from now where there are none."""
    times = (memory[q].ask_at if q in memory else now for q in asked)
    return min(times, default=now + MAX_TTL)


def family_of(address: str) -> str:
    """`IPv4` or `IPv6`."""
    return "IPv6" if ":" in address else "IPv4"


def wanted(
    upstreams: Iterable[Upstream], memory: Memory, now: float, families: Iterable[str] = ()
) -> tuple[Wanted, ...]:
    """The addresses that these upstreams have, each address and port once, in a stable order.

    What is held for longer than `HOLD_SECONDS` is left out where something else remains, and so are
    addresses of a family that the Service does not have.
    """
    found: dict[str, tuple[Wanted, bool]] = {}
    for upstream in upstreams:
        for one, expired in _wanted_of(upstream, memory, now):
            if families and family_of(one.address) not in families:
                continue
            known = found.get(one.key)
            if known is None or (known[0].held and not one.held):
                found[one.key] = (one, expired)
    fresh = [one for one, expired in found.values() if not expired]
    chosen = fresh or [one for one, _ in found.values()]
    return tuple(sorted(chosen, key=lambda one: (one.priority, one.key)))


def _wanted_of(upstream: Upstream, memory: Memory, now: float) -> Iterator[tuple[Wanted, bool]]:
    if not upstream.srv:
        yield from _at(upstream, upstream.host, upstream.port, 0, memory, now)
        return
    known = memory.get(Question(upstream.srv, RecordType.SRV))
    if known is None:
        return
    old = known.held and now - known.good_at > HOLD_SECONDS
    for target in known.targets:
        for one, expired in _at(
            upstream, target.name, target.port, target.priority, memory, now, held=known.held
        ):
            yield one, old or expired


def _at(
    upstream: Upstream,
    name: str,
    port: int,
    priority: int,
    memory: Memory,
    now: float,
    *,
    held: bool = False,
) -> Iterator[tuple[Wanted, bool]]:
    """The addresses of one name, and whether each has been held for too long."""
    if is_address(name):
        yield Wanted(name, port, upstream.key, "", priority, held), False
        return
    for known in _answers(name, memory):
        late = known.held and now - known.good_at > HOLD_SECONDS
        for address in known.addresses:
            yield Wanted(address, port, upstream.key, name, priority, held or known.held), late


def _answers(name: str, memory: Memory) -> tuple[Known, ...]:
    """What is known of both families; a negative answer beside a positive one is believed."""
    known = [k for q in _families(name) if (k := memory.get(q)) is not None]
    positive = any(k.addresses and not k.held for k in known)
    return tuple(k for k in known if not (positive and k.result in NEGATIVE))


class UpstreamState(StrEnum):
    """What an upstream is to the guard, as status tells it; the worst first."""

    REFUSED = "Refused"
    UNRESOLVED = "Unresolved"
    LAST_KNOWN_GOOD = "LastKnownGood"
    PENDING = "Pending"
    RESOLVED = "Resolved"


def state_of(upstream: Upstream, memory: Memory, now: float) -> tuple[UpstreamState, str]:
    """How the resolution of one upstream stands, and what DNS said where that is not well."""
    if is_address(upstream.host):
        return UpstreamState.RESOLVED, ""
    found = [one for one, _ in _wanted_of(upstream, memory, now)]
    known = _asked(upstream, memory)
    if found and not any(one.held for one in found):
        return UpstreamState.RESOLVED, ""
    held = any(k is not None and k.held for k in known)
    if not found and not held and None in known:
        return UpstreamState.PENDING, ""
    detail = next((k.detail for k in known if k is not None and k.held and k.detail), "")
    if found:
        return UpstreamState.LAST_KNOWN_GOOD, detail
    return UpstreamState.UNRESOLVED, detail or "there is no address"


def _asked(upstream: Upstream, memory: Memory) -> tuple[Known | None, ...]:
    """What is known of every question of an upstream; None where it was not answered yet."""
    if not upstream.srv:
        return tuple(memory.get(q) for q in _families(upstream.host))
    record = memory.get(Question(upstream.srv, RecordType.SRV))
    names = [t.name for t in record.targets if not is_address(t.name)] if record else []
    return (record, *(memory.get(q) for name in names for q in _families(name)))


def recall(
    upstreams: Iterable[Upstream], records: Iterable[Wanted], now: float
) -> dict[Question, Known]:
    """A memory out of what an earlier operator published: what to fall back on before DNS has answered.

    Every question of it is due.

    Args:
        upstreams: The guard's.
        records: What was published.
        now: Counts as the time of the last good answer, since nobody knows the true one.
    """
    memory: dict[Question, Known] = {}
    by_key = {u.key: u for u in upstreams}
    for record in records:
        upstream = by_key.get(record.upstream)
        if upstream is None or not record.name:
            continue
        kind = RecordType.AAAA if ":" in record.address else RecordType.A
        _recall(memory, Question(record.name, kind), now, address=record.address)
        if upstream.srv:
            target = Target(record.priority, record.name, record.port)
            _recall(memory, Question(upstream.srv, RecordType.SRV), now, target=target)
    return memory


def _recall(
    memory: dict[Question, Known],
    question: Question,
    now: float,
    *,
    address: str = "",
    target: Target | None = None,
) -> None:
    known = memory.get(question, Known(LookupResult.ANSWER, good_at=now))
    addresses = {*known.addresses, *([address] if address else [])}
    targets = {*known.targets, *([target] if target else [])}
    memory[question] = Known(
        LookupResult.ANSWER, tuple(sorted(addresses)), tuple(sorted(targets)), now
    )
