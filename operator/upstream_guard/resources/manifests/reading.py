"""Readers: JSON that nobody has checked in, well-typed values out.

A reader returns None for what it does not want, which then counts as absent. Built from readers, a
`record` gives a plain dict in which every key that is there has the right type, so that what comes
after it asks with `get` alone. `mistakes_in` tells what a reader has passed over.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.state import Expression, LabelSelector
from upstream_guard.resources.durations import seconds_of
from upstream_guard.resources.kube_objects import Json
from upstream_guard.resources.wording import quote

Reader = Callable[[object], Any]

EMPTY: Final[Json] = {}
DEFAULT_NAMESPACE: Final = "default"
"""Of an object that names none, as kubectl's context has it unless changed."""

_MAX_WHOLE: Final = 2**31 - 1
_PERCENT: Final = re.compile(r"[0-9]{1,9}%", re.ASCII)
_QUANTITY: Final = re.compile(
    r"(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?", re.ASCII
)
_SCALES: Final[Mapping[str, float]] = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    **{letter: 1000.0**power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)},
}


def text(value: object) -> str | None:
    """Text."""
    return value if isinstance(value, str) else None


def flag(value: object) -> bool | None:
    """True or false."""
    return value if isinstance(value, bool) else None


def whole(value: object) -> int | None:
    """A whole number from 0 to 2³¹ - 1, as all of Kubernetes' counts and seconds are."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON knows one sort of number.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_WHOLE:
        return value
    return None


def port(value: object) -> int | str | None:
    """A port's number or name."""
    if isinstance(value, str):
        return value or None
    number = whole(value)
    return number if number is not None and 1 <= number <= 65535 else None


def port_number(value: object) -> int | None:
    """A port's number."""
    found = port(value)
    return found if isinstance(found, int) else None


def share(value: object) -> int | str | None:
    """A number of pods, or a percentage such as `25%`."""
    if isinstance(value, str):
        return value if _PERCENT.fullmatch(value) else None
    return whole(value)


def quantity(value: object) -> float | None:
    """A resource quantity such as `500m`, `2Gi` or 4."""
    if isinstance(value, str):
        return _parse_quantity(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return _finite(value)


def _parse_quantity(written: str) -> float | None:
    matched = _QUANTITY.fullmatch(written)
    if matched is None:
        return None
    digits, suffix, exponent = matched.groups()
    return _finite(float(f"{digits}e{exponent or 0}") * _SCALES.get(suffix, 1.0))


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def texts(value: object) -> dict[str, str] | None:
    """Text by name, such as labels; entries that are not text are left out."""
    if not isinstance(value, Mapping):
        return None
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}


def quantities(value: object) -> dict[str, float] | None:
    """Quantities by name."""
    if not isinstance(value, Mapping):
        return None
    read = {k: quantity(v) for k, v in value.items() if isinstance(k, str)}
    return {k: v for k, v in read.items() if v is not None}


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    """What `record` makes: the reader of each field by its name."""

    fields: tuple[tuple[str, Reader], ...]

    def __call__(self, value: object) -> Any:
        if not isinstance(value, dict | Mapping):
            return None
        found: dict[str, Any] = {}
        for name, reader in self.fields:
            raw = value.get(name)
            if raw is not None and (kept := reader(raw)) is not None:
                found[name] = kept
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Many:
    """What `many` makes: the reader of each entry."""

    item: Reader

    def __call__(self, value: object) -> Any:
        if not isinstance(value, list | tuple):
            return None
        read = self.item
        return [kept for raw in value if (kept := read(raw)) is not None]


class _Slots(_Many):
    """What `slots` makes."""

    __slots__ = ()

    def __call__(self, value: object) -> Any:
        if not isinstance(value, list | tuple):
            return None
        return [self.item(raw) or EMPTY for raw in value]


class _Resource(_Record):
    """What `resource` makes."""

    __slots__ = ()

    def __call__(self, value: object) -> Any:
        found = _Record.__call__(self, value)
        return found if found and "metadata" in found else None


def record(**fields: Reader) -> Reader:
    """A reader of an object with these fields; others are passed over."""
    return _Record(tuple(fields.items()))


def many(item: Reader) -> Reader:
    """A reader of a list; entries that are not wanted are left out."""
    return _Many(item)


def slots(item: Reader) -> Reader:
    """As `many` for objects, but every entry keeps its index: an unwanted one becomes an empty object."""
    return _Slots(item)


words: Final = many(text)
"""A list of text."""

_METADATA: Final = record(
    name=text,
    generateName=text,
    namespace=text,
    uid=text,
    labels=texts,
    annotations=texts,
    creationTimestamp=text,
    deletionTimestamp=text,
    ownerReferences=many(record(kind=text, name=text, controller=flag)),
)


def metadata(value: object) -> dict[str, Any] | None:
    """An object's metadata, its namespace filled in; nothing where it has no name."""
    found: dict[str, Any] | None = _METADATA(value)
    name = found and (found.get("name") or found.get("generateName"))
    if not found or not name:
        return None
    found["name"] = name
    found["namespace"] = found.get("namespace") or DEFAULT_NAMESPACE
    return found


def resource(**fields: Reader) -> Reader:
    """A reader of a whole object, with its metadata; None for one without a name."""
    return _Resource((("metadata", metadata), *fields.items()))


def ref_of(obj: Json) -> ObjectRef:
    """The name of an object that a `resource` has read."""
    found = obj["metadata"]
    return ObjectRef(found["namespace"], found["name"])


def annotations_of(obj: Json) -> Mapping[str, str]:
    """The annotations of an object that a `resource` has read."""
    found: Mapping[str, str] = obj["metadata"].get("annotations", EMPTY)
    return found


def controller_kind(obj: Json) -> str:
    """The kind of what controls an object that a `resource` has read; empty where nothing does."""
    owners = obj["metadata"].get("ownerReferences", ())
    return next((o.get("kind", "") for o in owners if o.get("controller")), "")


_SELECTOR: Final = record(
    matchLabels=texts, matchExpressions=many(record(key=text, operator=text, values=words))
)


def selector(value: object) -> LabelSelector | None:
    """A label selector."""
    found: Json | None = _SELECTOR(value)
    if found is None:
        return None
    return LabelSelector(
        found.get("matchLabels", EMPTY),
        tuple(
            Expression(e.get("key", ""), e.get("operator", ""), tuple(e.get("values", ())))
            for e in found.get("matchExpressions", ())
        ),
    )


_MADE_OF: Final[Mapping[Reader, Reader]] = {metadata: _METADATA, selector: _SELECTOR}
_EXPECTED: Final[Mapping[Reader, str]] = {
    text: "text",
    flag: "true or false",
    whole: f"a whole number from 0 to {_MAX_WHOLE}",
    port: "a port's number or name",
    port_number: "a port's number, from 1 to 65535",
    share: "a whole number, or a percentage such as 25%",
    quantity: "a quantity such as 500m or 2Gi",
}
_ENTRIES: Final[Mapping[Reader, Reader]] = {texts: text, quantities: quantity}


Mistakes = Sequence[tuple[str, str]]
"""The path of each field, with a dot or bracket before it, and what is wrong with it."""


def mistakes_in(value: object, reader: Reader) -> Mistakes:
    """What a reader passes over because it has the wrong type, though Kubernetes would refuse it.

    Args:
        value: What is read.
        reader: A reader of this module, or one built from them; fields that it does not know are
            not looked at.
    """
    expected = _EXPECTED.get(reader)
    if expected is not None:
        if reader(value) is not None or _is_left_out(value):
            return ()
        return [("", f"must be {expected}, not {quote(value)}")]
    if reader in _ENTRIES:
        return _mistaken_entries(value, _ENTRIES[reader])
    inside = _MADE_OF.get(reader, reader)
    if isinstance(inside, _Record):
        return _mistaken_fields(value, inside.fields)
    return _mistaken_items(value, inside.item) if isinstance(inside, _Many) else ()


def _mistaken_fields(value: object, fields: Iterable[tuple[str, Reader]]) -> Mistakes:
    if not isinstance(value, dict | Mapping):
        return [("", f"must be an object, not {quote(value)}")]
    found: list[tuple[str, str]] = []
    for name, reader in fields:
        raw = value.get(name)
        # Most fields are right and have nothing inside: not worth a call.
        if raw is None or (reader in _EXPECTED and reader(raw) is not None):
            continue
        found += [(f".{name}{path}", what) for path, what in mistakes_in(raw, reader)]
    return found


def _mistaken_items(value: object, reader: Reader) -> Mistakes:
    if not isinstance(value, list | tuple):
        return [("", f"must be a list, not {quote(value)}")]
    return [
        (f"[{index}]{path}", what)
        for index, raw in enumerate(value)
        if raw is not None
        for path, what in mistakes_in(raw, reader)
    ]


def _mistaken_entries(value: object, reader: Reader) -> Mistakes:
    if not isinstance(value, dict | Mapping):
        return [("", f"must be an object, not {quote(value)}")]
    return [
        (f'["{name}"]', f"must be {_EXPECTED[reader]}, not {quote(raw)}")
        for name, raw in value.items()
        if raw is not None and reader(raw) is None
    ]


def _is_left_out(value: object) -> bool:
    """Go writes 0 and empty text for what is not there."""
    return value in (0, "") and not isinstance(value, bool)


def seconds(written: str | None, bare: float = 1.0) -> float | None:
    """Seconds of a duration such as `1m30s`; None where it is none.

    Args:
        written: The duration.
        bare: Seconds that a number without a unit counts, e.g. 0.001 for milliseconds.
    """
    if written is None:
        return None
    if written.isascii() and written.isdecimal() and len(written) <= 12:
        return int(written) * bare
    if written == "infinity":
        return math.inf
    return seconds_of(written)
