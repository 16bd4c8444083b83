"""Kubernetes objects as read from a source, with where they stand, and what went wrong on the way."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from upstream_guard.cli.check.documents import (
    Document,
    Flaw,
    Json,
    Place,
    line_and_column,
    locate,
)
from upstream_guard.resources.manifests import PARSERS, mistakes_of
from upstream_guard.resources.wording import quote

IGNORE: Final = "upstreamguard.io/ignore"
"""Annotation: `ID: reason; ID: reason`. Findings of these IDs about this object are suppressed."""

CLUSTER_SCOPED: Final = frozenset(
    {"GatewayClass", "GatewayProfile", "IngressClass", "Namespace", "Node"}
)
"""Of the kinds that are looked at."""

MAX_MISTAKES: Final = 20
"""Fields of the wrong type told of one source; a file of another sort may have thousands."""


class ObjectKey(NamedTuple):
    """What identifies an object; the namespace is empty where the manifest names none."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.namespace}/{self.name}"
            if self.namespace
            else f"{self.kind} {self.name}"
        )


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a source. `line` and `column` count from 1, 0 where there are none."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that could not be read, or that is worth a word.

    Attributes:
        location: Where.
        text: What is wrong, and what to do.
        fatal: Whether something was left out, so that the exit code is 2.
    """

    location: Location
    text: str
    fatal: bool = True

    def __str__(self) -> str:
        where = self.location
        column = f":{where.column}" if where.column else ""
        return f"{where}{column}: {self.text}" if where.source else self.text


@dataclass(frozen=True, slots=True)
class Source:
    """Where objects come from.

    Attributes:
        name: For people: a path as the user gave it, `stdin`, or a command's output.
        folder: Of a file, as text; the same as `name` for others.
        has_lines: Whether line numbers mean something to the user.
        writable: Whether it is a file that a fix may be written to.
    """

    name: str
    folder: str = ""
    has_lines: bool = True
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Located:
    """One Kubernetes object.

    Attributes:
        key: Its identity.
        value: All of it.
        source: Where it was read.
        place: Where its fields stand.
        document: Index of its document in the source.
        inside: Path within the document, for items of a List: `items[3]`.
    """

    key: ObjectKey
    value: Mapping[str, Any]
    source: Source
    place: Place
    document: int = 0
    inside: str = ""

    def location(self, path: str = "") -> Location:
        """Of a field, or of the deepest one above it that is there."""
        if not self.source.has_lines:
            return Location(self.source.name)
        place = locate(self.place, path) if path else self.place
        return Location(self.source.name, *line_and_column(place))

    def placed_in(self, namespace: str) -> "Located":
        """The object in this namespace, where it names none."""
        if self.key.namespace or self.key.kind in CLUSTER_SCOPED:
            return self
        metadata = {**self.value["metadata"], "namespace": namespace}
        return replace(
            self,
            key=self.key._replace(namespace=namespace),
            value={**self.value, "metadata": metadata},
        )


def objects_of(document: Document, source: Source, troubles: list[Trouble]) -> Iterator[Located]:
    """The objects of a document that predictions are made from; others are passed over.

    Args:
        document: A document.
        source: Where it was read.
        troubles: Objects that are broken are told here.
    """
    value = document.value
    if not is_object(value):
        return
    found = list(_objects(document, source))
    for tag, line, column in document.refused if found else ():
        location = (
            Location(source.name, line, column) if source.has_lines else Location(source.name)
        )
        troubles.append(Trouble(location, f"the tag {tag} is refused; write the value itself"))
    if not document.refused:
        for located in found:
            yield from _named(located, troubles)


def _objects(document: Document, source: Source) -> Iterator[Located]:
    value, number = document.value, document.number
    items = value.get("items")
    if not value["kind"].endswith("List") or not isinstance(items, list):
        if _is_read(value):
            yield Located(_key(value), value, source, document.place, number)
        return
    entries = locate(document.place, "items")
    # An API's `ServiceList` leaves out what its items are.
    said = {"apiVersion": value["apiVersion"], "kind": value["kind"].removesuffix("List")}
    for index, item in enumerate(items):
        whole = {**said, **item} if isinstance(item, dict) else item
        if is_object(whole) and _is_read(whole):
            place = locate(entries, f"[{index}]")
            yield Located(_key(whole), whole, source, place, number, f"items[{index}]")


def is_object(value: Json) -> bool:
    """Whether a document is a Kubernetes object, of whatever kind."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("kind"), str)
        and isinstance(value.get("apiVersion"), str)
    )


def _is_read(value: Mapping[str, Any]) -> bool:
    return (value["apiVersion"].rpartition("/")[0], value["kind"]) in PARSERS


def _key(value: Mapping[str, Any]) -> ObjectKey:
    metadata = value.get("metadata")
    fields = metadata if isinstance(metadata, dict) else {}
    name, namespace = fields.get("name"), fields.get("namespace")
    return ObjectKey(
        value["kind"],
        namespace if isinstance(namespace, str) else "",
        name if isinstance(name, str) else "",
    )


def _named(located: Located, troubles: list[Trouble]) -> Iterator[Located]:
    """Pass on what has a name; the rest cannot be applied (or is not meant to be)."""
    if located.key.name:
        yield located
        return
    metadata = located.value.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("generateName"), str):
        return
    given = metadata.get("name") if isinstance(metadata, dict) else None
    lacks = f"metadata.name must be text, not {quote(given)}" if given else "no metadata.name"
    text = f"this {located.key.kind} was left out: {lacks}"
    troubles.append(Trouble(located.location("metadata.name"), text, fatal=False))


def tell_mistakes(objects: Iterable[Located], troubles: list[Trouble]) -> None:
    """Say which fields count as absent because Kubernetes would refuse their type.

    Args:
        objects: Objects that no API server has looked at yet.
        troubles: They are told here, the first of each source.
    """
    counts: dict[str, int] = {}
    for located in objects:
        for path, what in mistakes_of(located.value):
            source = located.source.name
            counts[source] = counts.get(source, 0) + 1
            if counts[source] <= MAX_MISTAKES:
                text = f"{path} {what}; Kubernetes refuses it, and here it counts as left out"
                troubles.append(Trouble(located.location(path), text, fatal=False))
    for source, count in counts.items():
        if count > MAX_MISTAKES:
            text = f"{count - MAX_MISTAKES} more fields have a type that Kubernetes refuses"
            troubles.append(Trouble(Location(source), text, fatal=False))


def trouble_of(flaw: Flaw, source: Source) -> Trouble:
    """A flaw of a text, with the text's name."""
    if not source.has_lines:
        return Trouble(Location(source.name), flaw.text, flaw.fatal)
    return Trouble(Location(source.name, flaw.line, flaw.column), flaw.text, flaw.fatal)
