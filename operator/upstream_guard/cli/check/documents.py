"""YAML and JSON text to values that know where each field stands. Bounded in time and memory.

The parser's events are turned into values and positions in one pass, so that a text is parsed once,
and so that depth, number of values and alias expansion are checked before memory is spent on them.
Scalars mean what they mean to Kubernetes (its JSON conversion): keys are text, a date is text, `1:30`
is text, `yes` and `on` are true.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn

import yaml

Json = Any
"""None, bool, int, float, str, list or dict with text keys."""

MAX_BYTES: Final = 32 * 1024 * 1024
"""Of one file or stream."""
MAX_DOCUMENT: Final = 12 * 1024 * 1024
"""Characters of one document. etcd takes 1.5 MB; a `kind: List` may hold many objects."""
MAX_VALUES: Final = 2_000_000
"""Scalars, lists and mappings of one document, what aliases repeat included."""
MAX_DEPTH: Final = 100
"""Lists and mappings in one another. The deepest fields of Kubernetes' own kinds are at about 20."""
MAX_BROKEN: Final = 20
"""Broken documents of one text after which the rest is left."""

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Scalar: Final = yaml.ScalarEvent
_Alias: Final = yaml.AliasEvent
_COLUMNS: Final = 1 << 12

_TAG: Final = "tag:yaml.org,2002:"
_TEXT_TAGS: Final = frozenset({"!", f"{_TAG}str", f"{_TAG}binary", f"{_TAG}timestamp"})
_PLAIN_TAGS: Final = frozenset(f"{_TAG}{name}" for name in ("int", "float", "bool", "null"))
_COLLECTION_TAGS: Final = frozenset({"!", f"{_TAG}map", f"{_TAG}seq"})

_INTEGER: Final = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def _spellings(*words: str) -> list[str]:
    return [spelled for word in words for spelled in (word, word.capitalize(), word.upper())]


_WORDS: Final[Mapping[str, Json]] = {
    **dict.fromkeys(["", "~", *_spellings("null")]),
    **dict.fromkeys(_spellings("true", "yes", "on"), True),
    **dict.fromkeys(_spellings("false", "no", "off"), False),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], float("inf")),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], float("-inf")),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], float("nan")),
}


class Branch(NamedTuple):
    """Where a list or mapping stands, and its entries."""

    at: int
    entries: "dict[str, Place] | list[Place]"


Place = int | Branch
"""A packed line and column; of a mapping's field those of its key."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    Attributes:
        value: What it says.
        place: Where its fields stand.
        number: Its index in the text, counting from 0, empty ones included.
        refused: Tags that only some programs understand, each with its position; their values
            are read as if they had none.
    """

    value: Json
    place: Place
    number: int
    refused: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong with a text.

    Attributes:
        line: From 1; 0 where it is about the whole.
        column: From 1; 0 where it is about the whole.
        text: What is wrong, and what to do.
        fatal: Whether something could not be read.
    """

    line: int
    column: int
    text: str
    fatal: bool = True


class _BrokenError(Exception):
    """A document cannot be read: a flaw, and the line (from 0) where it was noticed."""

    def __init__(self, flaw: Flaw, line: int) -> None:
        super().__init__(flaw.text)
        self.flaw = flaw
        self.line = line


def line_and_column(place: Place) -> tuple[int, int]:
    """Both from 1."""
    packed = place if isinstance(place, int) else place.at
    return packed // _COLUMNS + 1, packed % _COLUMNS + 1


_STEP: Final = re.compile(r'\["([^"]*)"\]|\[([^\]]*)\]|([^.\[]+)')


def steps_of(path: str) -> list[str]:
    """`spec.containers[0].env["a.b"]` as `spec`, `containers`, `0`, `env`, `a.b`."""
    return [quoted or index or name for quoted, index, name in _STEP.findall(path)]


def locate(place: Place, path: str) -> Place:
    """Where a field stands; where it is absent, the deepest field on the way that is there."""
    for step in steps_of(path):
        found = _entry(place, step)
        if found is None:
            break
        place = found
    return place


def _entry(place: Place, step: str) -> Place | None:
    if isinstance(place, int):
        return None
    if isinstance(place.entries, dict):
        return place.entries.get(step)
    if step.isdecimal() and int(step) < len(place.entries):
        return place.entries[int(step)]
    return None


def decode(raw: bytes) -> str:
    """Bytes as text.

    Raises:
        ValueError: They are not UTF-8 or are not text; says where.
    """
    if raw[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return raw.decode("utf-16")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"byte {raw[error.start]:#04x} in line {line} is not UTF-8; save the file as UTF-8"
        ) from error
    if "\0" in text:
        raise ValueError("it has NUL bytes: this is not a text file")
    return text


def read_documents(text: str, flaws: list[Flaw]) -> Iterator[Document]:
    """The documents of a YAML or JSON text; after a broken one reading goes on at the next `---`.

    Args:
        text: The text.
        flaws: What is wrong is appended here.
    """
    first_line, number = 0, 0
    for _ in range(MAX_BROKEN):
        reader = _Reader(text, first_line, number, flaws)
        try:
            yield from reader.documents()
        except _BrokenError as broken:
            if (whole := _as_json(text)) is not None:
                yield Document(whole, Branch(0, {}), number)
                return
            flaws.append(broken.flaw)
            start = max(broken.line, reader.document_line + 1) - first_line
        else:
            return
        lines = text.split("\n")
        skipped = _next_document(lines, start)
        if skipped is None:
            return
        text, first_line, number = (
            "\n".join(lines[skipped:]),
            first_line + skipped,
            reader.number + 1,
        )
    flaws.append(Flaw(first_line + 1, 1, f"{MAX_BROKEN} broken documents; the rest is left"))


def _next_document(lines: list[str], start: int) -> int | None:
    return next((n for n in range(max(1, start), len(lines)) if lines[n].startswith("---")), None)


def _as_json(text: str) -> Json:
    """JSON is not quite a subset of YAML (surrogate escapes, long keys); None where it is neither."""
    if text.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


class _Reader:
    """Reads one text from its beginning to its end, or to the first mistake."""

    def __init__(self, text: str, first_line: int, number: int, flaws: list[Flaw]) -> None:
        self._text = text
        self._first_line = first_line
        self._flaws = flaws
        self._anchors: dict[str, tuple[Json, Place, int]] = {}
        self._open: set[str] = set()
        self._refused: list[tuple[str, int, int]] = []
        self._count = 0
        self._start = 0
        self.number = number
        self.document_line = first_line

    def documents(self) -> Iterator[Document]:
        """Every document that can be read.

        Raises:
            _BrokenError: At the first that cannot.
        """
        try:
            # The reader looks at characters before anything is parsed, so it may raise here.
            self._events = _Loader(self._text)
            self._next = self._events.get_event
            yield from self._documents()
        except yaml.reader.ReaderError as error:
            raise self._unreadable(error) from error
        except yaml.MarkedYAMLError as error:
            raise self._misspelt(error) from error

    def _documents(self) -> Iterator[Document]:
        self._next()
        while not isinstance(event := self._next(), yaml.StreamEndEvent):
            self._anchors.clear()
            self._open.clear()
            self._refused = []
            self._count = 0
            self._start = event.start_mark.index
            self.document_line = self._first_line + event.start_mark.line
            root = self._next()
            value, place = self._value(root, self._pack(root.start_mark), 0)
            self._next()
            yield Document(value, place, self.number, tuple(self._refused))
            self.number += 1

    def _value(self, event: Any, at: int, depth: int) -> tuple[Json, Place]:
        """What an event begins, and its place: `at`, where the field that holds it stands."""
        kind = type(event)
        if kind is _Scalar:
            self._spend(1, event)
            value = self._scalar(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = (value, at, 1)
            return value, at
        if kind is not _Alias:
            return self._collection(event, at, depth)
        value, place = self._alias(event)
        return value, at if isinstance(place, int) else Branch(at, place.entries)

    def _collection(self, event: Any, at: int, depth: int) -> tuple[Json, Place]:
        self._spend(1, event)
        if depth >= MAX_DEPTH:
            self._fail(event, f"nested more than {MAX_DEPTH} deep; no Kubernetes object is")
        if event.tag is not None and event.tag not in _COLLECTION_TAGS:
            self._refuse(event)
        before = self._count
        if event.anchor is not None:
            self._open.add(event.anchor)
        read = self._mapping if type(event) is yaml.MappingStartEvent else self._sequence
        value, entries = read(depth + 1)
        place = Branch(at, entries)
        if event.anchor is not None:
            self._open.discard(event.anchor)
            self._anchors[event.anchor] = (value, place, 1 + self._count - before)
        return value, place

    def _sequence(self, depth: int) -> tuple[list[Json], list[Place]]:
        values: list[Json] = []
        places: list[Place] = []
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            value, place = self._value(event, self._pack(event.start_mark), depth)
            values.append(value)
            places.append(place)
        return values, places

    def _mapping(self, depth: int) -> tuple[dict[str, Json], dict[str, Place]]:
        values: dict[str, Json] = {}
        places: dict[str, Place] = {}
        merged: list[tuple[Json, Place, Any]] = []
        following = self._next
        while type(event := following()) is not yaml.MappingEndEvent:
            key = self._key(event)
            at = self._pack(event.start_mark)
            inner = following()
            if type(inner) is _Scalar and inner.tag is inner.anchor is None:
                # Two values of three: not worth a call.
                self._count += 1
                value: Json = plain(inner.value) if inner.implicit[0] else inner.value
                place: Place = at
            else:
                value, place = self._value(inner, at, depth)
            if key in values:
                self._note(event, f"the field {key!r} is there twice; the last one counts")
            if key == "<<" and _is_unquoted(event):
                merged.append((value, place, event))
            else:
                values[key] = value
                places[key] = place
        for value, place, event in merged:
            self._merge(values, places, (value, place), event)
        return values, places

    def _key(self, event: Any) -> str:
        if type(event) is _Alias:
            key, _ = self._alias(event)
        elif type(event) is _Scalar:
            key = self._field_name(event)
        else:
            key = None
        if not isinstance(key, str):
            advice = _advice(self._text, event.start_mark.line)
            self._fail(event, f"a field's name must be text, not a list or mapping{advice}")
        return key

    def _field_name(self, event: Any) -> str:
        """As it is written: Kubernetes takes `1` and `on` as text here."""
        self._spend(1, event)
        name: str = event.value
        if event.tag is not None and event.tag not in _TEXT_TAGS and event.tag not in _PLAIN_TAGS:
            self._refuse(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = (name, self._pack(event.start_mark), 1)
        return name

    def _merge(
        self,
        values: dict[str, Json],
        places: dict[str, Place],
        source: tuple[Json, Place],
        event: Any,
    ) -> None:
        """A merge key: what the mapping does not say itself it takes from others, the first first."""
        value, place = source
        if isinstance(value, list) and isinstance(place, Branch):
            for index, part in enumerate(value):
                self._merge(values, places, (part, _entry(place, str(index)) or place), event)
            return
        if not isinstance(value, dict) or not isinstance(place, Branch):
            self._fail(event, "`<<` takes a mapping, or a list of mappings")
        for key, part in value.items():
            if key not in values:
                self._spend(1, event)
                values[key] = part
                places[key] = _entry(place, key) or place.at

    def _alias(self, event: Any) -> tuple[Json, Place]:
        found = self._anchors.get(event.anchor)
        if found is None:
            if event.anchor in self._open:
                self._fail(event, f"*{event.anchor} stands in what it repeats")
            self._fail(event, f"*{event.anchor} repeats nothing: there is no &{event.anchor} above")
        value, place, count = found
        self._spend(count, event)
        return value, place

    def _scalar(self, event: Any) -> Json:
        tag = event.tag
        if tag is None:
            return plain(event.value) if event.implicit[0] else event.value
        if tag in _PLAIN_TAGS:
            return plain(event.value)
        if tag not in _TEXT_TAGS:
            self._refuse(event)
        return event.value

    def _spend(self, count: int, event: Any) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            self._fail(
                event,
                f"more than {MAX_VALUES:,} values (aliases count as what they repeat); split it",
            )
        if event.end_mark.index - self._start > MAX_DOCUMENT:
            self._fail(event, f"this document has more than {MAX_DOCUMENT:,} characters; split it")

    def _refuse(self, event: Any) -> None:
        mark = event.start_mark
        tag = event.tag.replace(_TAG, "!!")
        self._refused.append((tag, self._first_line + mark.line + 1, mark.column + 1))

    def _pack(self, mark: Any) -> int:
        line: int = self._first_line + mark.line
        column: int = mark.column
        return line * _COLUMNS + (column if column < _COLUMNS else _COLUMNS - 1)

    def _note(self, event: Any, text: str) -> None:
        if len(self._flaws) < 1000:
            self._flaws.append(self._flaw(event.start_mark, text, fatal=False))

    def _flaw(self, mark: Any, text: str, *, fatal: bool = True) -> Flaw:
        return Flaw(self._first_line + mark.line + 1, mark.column + 1, text, fatal)

    def _fail(self, event: Any, text: str) -> NoReturn:
        line = self._first_line + event.start_mark.line
        raise _BrokenError(self._flaw(event.start_mark, text), line)

    def _misspelt(self, error: yaml.MarkedYAMLError) -> _BrokenError:
        mark = error.problem_mark or error.context_mark
        text = str(error.problem or error.context or "not YAML")
        if error.problem and error.context and error.context_mark:
            where = self._first_line + error.context_mark.line + 1
            text = f"{text} ({error.context}, line {where}, column {error.context_mark.column + 1})"
        line, column = (mark.line, mark.column) if mark else (0, 0)
        text = f"not valid YAML: {text}{_advice(self._text, line)}"
        return _BrokenError(
            Flaw(self._first_line + line + 1, column + 1, text), self._first_line + line
        )

    def _unreadable(self, error: yaml.reader.ReaderError) -> _BrokenError:
        # The offset is one of bytes with libyaml, of characters without.
        before = self._text.encode()[: error.position].decode(errors="ignore")
        line = before.count("\n")
        column = len(before) - (before.rfind("\n") + 1) + 1
        character = error.character
        code = character if isinstance(character, int) else ord(str(character)[:1] or "\0")
        text = f"not valid YAML: the control character {code:#04x} is not allowed; remove it"
        return _BrokenError(
            Flaw(self._first_line + line + 1, column, text), self._first_line + line
        )


def _is_unquoted(event: Any) -> bool:
    return type(event) is _Scalar and bool(event.implicit[0])


def _advice(text: str, line: int) -> str:
    """What usually is behind a mistake in such a line."""
    lines = text.split("\n")
    around = "\n".join(lines[max(0, line - 1) : line + 1])
    if "{{" in around:
        return "; this looks like a Helm template: pass what `helm template` prints"
    if "\t" in around:
        return "; YAML does not allow tabs as indentation"
    return ""


@lru_cache(maxsize=16_384)
def plain(text: str) -> Json:
    """What an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] not in "-+.0123456789" or len(text) > 100:
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _integer(text: str) -> Json:
    digits = text.replace("_", "").lower()
    sign, body = (-1, digits[1:]) if digits[0] == "-" else (1, digits.removeprefix("+"))
    base = {"0x": 16, "0b": 2, "0o": 8}.get(body[:2], 10)
    if base == 10 and len(body) > 1 and body[0] == "0":
        base = 8
    try:
        value = sign * int(body, base)
    except ValueError:
        return float(digits) if _FLOAT.fullmatch(digits) else text
    return value if -(2**63) <= value < 2**64 else float(value)
