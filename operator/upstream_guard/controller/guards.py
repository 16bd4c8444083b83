"""The guards that exist, as they were last seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from upstream_guard.core.model import Guard, ObjectRef
from upstream_guard.resources.guard import parse_guard
from upstream_guard.resources.schema import GuardError

if TYPE_CHECKING:
    from upstream_guard.core.tuning import GatewayProfile

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GuardEntry:
    """One UpstreamGuard object: parsed, or with what is wrong with it."""

    ref: ObjectRef
    uid: str
    generation: int
    guard: Guard | None
    problem: str
    status: Json
    """As last seen, to compare with before writing."""


class GuardBook:
    """All guards and gateway profiles, by name and by guarded Service."""

    def __init__(self) -> None:
        self._entries: dict[ObjectRef, GuardEntry] = {}
        self._by_service: dict[ObjectRef, set[ObjectRef]] = {}
        self.profiles: dict[str, GatewayProfile] = {}

    def put(self, body: Json) -> GuardEntry:
        """Take in an object as the API server has it."""
        entry = _read(body)
        self.remove(entry.ref)
        self._entries[entry.ref] = entry
        if entry.guard is not None:
            self._by_service.setdefault(entry.guard.service_ref, set()).add(entry.ref)
        return entry

    def remove(self, ref: ObjectRef) -> GuardEntry | None:
        """Forget a guard; the entry that it had."""
        entry = self._entries.pop(ref, None)
        if entry is not None and entry.guard is not None:
            service = entry.guard.service_ref
            self._by_service[service].discard(ref)
            if not self._by_service[service]:
                del self._by_service[service]
        return entry

    def get(self, ref: ObjectRef) -> GuardEntry | None:
        """The guard of that name."""
        return self._entries.get(ref)

    def of_service(self, service: ObjectRef) -> tuple[Guard, ...]:
        """Valid guards that name the Service, whether or not they are in force."""
        refs = sorted(self._by_service.get(service, ()))
        return tuple(g for ref in refs if (g := self._entries[ref].guard) is not None)

    def namespaces(self) -> frozenset[str]:
        """Namespaces with at least one valid guard."""
        return frozenset(e.ref.namespace for e in self._entries.values() if e.guard is not None)

    def __iter__(self) -> Iterator[GuardEntry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)


def _read(body: Json) -> GuardEntry:
    metadata = body.get("metadata") or {}
    guard: Guard | None = None
    problem = ""
    try:
        guard = parse_guard(body)
    except GuardError as error:
        problem = str(error)
    return GuardEntry(
        ObjectRef(str(metadata.get("namespace") or ""), str(metadata.get("name") or "")),
        str(metadata.get("uid") or ""),
        int(metadata.get("generation") or 0),
        guard,
        problem,
        body.get("status") or {},
    )
