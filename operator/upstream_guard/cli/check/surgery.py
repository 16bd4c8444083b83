"""Changes to a YAML text that leave every other character as it is: comments, quotes, order, blank lines.

A text is edited where its nodes stand, and the result is parsed again: unless it then says exactly
what it should, nothing is changed. So an edit that cannot be made cleanly is refused, never guessed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from upstream_guard.cli.check.documents import Flaw, read_documents
from upstream_guard.cli.check.writing import block, flow

Json = Any

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class SurgeryError(Exception):
    """The text cannot be edited cleanly; the message says why."""


@dataclass(frozen=True, slots=True, order=True)
class _Edit:
    """Replace the characters from `begin` to `end`."""

    begin: int
    end: int
    text: str


def edit_documents(text: str, wanted: Mapping[int, Json]) -> str:
    r"""A text in which some documents say something else.

    Args:
        text: YAML, with `\n` or `\r\n` as line ends.
        wanted: What they are to say, by their index.

    Raises:
        SurgeryError: It cannot be done without touching anything else.
    """
    before = _values(text)
    roots = list(yaml.compose_all(text, Loader=_Loader))
    if not wanted.keys() <= set(range(len(before))) or len(before) != len(roots):
        raise SurgeryError("its documents cannot be told apart")
    editor = _Editor(text, indented=any(map(_indents_lists, roots)))
    edits = [e for n, new in wanted.items() for e in editor.edits(roots[n], before[n], new)]
    after = _with(text, edits)
    if _values(after) != [wanted.get(n, value) for n, value in enumerate(before)]:
        raise SurgeryError("anchors, merge keys or its layout stand in the way")
    return after


def _with(text: str, edits: Iterable[_Edit]) -> str:
    parts: list[str] = []
    at = 0
    for edit in sorted(edits):
        parts += (text[at : edit.begin], edit.text)
        at = edit.end
    return "".join([*parts, text[at:]])


def append_document(text: str, value: Json) -> str:
    """A text with one more document at its end.

    Raises:
        SurgeryError: It cannot be done without changing the others.
    """
    newline = _newline(text)
    joint = "" if not text or text.endswith("\n") else newline
    after = f"{text}{joint}---{newline}{block(value).replace(chr(10), newline)}"
    if _values(after) != [*_values(text), value]:
        raise SurgeryError("a document cannot be added at its end")
    return after


def _values(text: str) -> list[Json]:
    """What the documents say; every limit on depth and size is checked by this."""
    flaws: list[Flaw] = []
    values = [document.value for document in read_documents(text, flaws)]
    if any(flaw.fatal for flaw in flaws):
        raise SurgeryError("one of its documents cannot be read")
    return values


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


class _Editor:
    """Compares what a node says with what it is to say, and edits where they differ."""

    def __init__(self, text: str, *, indented: bool) -> None:
        self._text = text
        self._indented = indented
        self._newline = _newline(text)
        self._starts = [0]
        while (end := text.find("\n", self._starts[-1])) >= 0:
            self._starts.append(end + 1)

    def edits(self, node: yaml.Node, old: Json, new: Json) -> Iterator[_Edit]:
        """What to change in the characters of `node`."""
        if old == new and type(old) is type(new):
            return
        if _is_block(node, yaml.MappingNode) and isinstance(old, dict) and isinstance(new, dict):
            yield from self._mapping(node, old, new)
        elif _is_block(node, yaml.SequenceNode) and isinstance(old, list) and isinstance(new, list):
            yield from self._sequence(node, old, new)
        else:
            yield self._replace(node, new)

    def _replace(self, node: yaml.Node, new: Json) -> _Edit:
        begin, end = node.start_mark.index, node.end_mark.index
        if _is_block(node, yaml.CollectionNode) or "\n" in self._text[begin:end]:
            raise SurgeryError("a value over several lines would have to be replaced")
        blank = "" if begin != end or self._text[begin - 1 : begin].isspace() else " "
        return _Edit(begin, end, blank + flow(new))

    def _mapping(self, node: yaml.Node, old: Json, new: Json) -> Iterator[_Edit]:
        nodes = {key.value: (key, value) for key, value in node.value}
        for key, was in old.items():
            if key not in nodes:
                raise SurgeryError("a merge key brings in what would have to be changed")
            if key in new:
                yield from self.edits(nodes[key][1], was, new[key])
            else:
                yield self._removal(node, *nodes[key])
        added = {key: value for key, value in new.items() if key not in old}
        if added:
            indent = node.value[0][0].start_mark.column
            yield self._insertion(self._end_line(node), self._block(added), indent)

    def _removal(self, node: yaml.Node, key: yaml.Node, value: yaml.Node) -> _Edit:
        line = key.start_mark.line
        before = self._text[self._starts[line] : key.start_mark.index]
        if len(node.value) == 1 or before.strip():
            raise SurgeryError("a field that shares its line would have to be removed")
        return _Edit(self._starts[line], self._line_start(self._end_line_of(key, value)), "")

    def _sequence(self, node: yaml.Node, old: list[Json], new: list[Json]) -> Iterator[_Edit]:
        if len(new) < len(old):
            raise SurgeryError("an entry of a list would have to be removed")
        for child, was, now in zip(node.value, old, new, strict=False):
            yield from self.edits(child, was, now)
        added = new[len(old) :]
        if added:
            yield self._insertion(self._end_line(node), self._block(added), node.start_mark.column)

    def _block(self, value: Json) -> str:
        return block(value, indented=self._indented)

    def _insertion(self, line: int, written: str, indent: int) -> _Edit:
        at = self._line_start(line)
        lines = [f"{' ' * indent}{text}{self._newline}" for text in written.splitlines()]
        joint = self._newline if at and self._text[at - 1] != "\n" else ""
        return _Edit(at, at, joint + "".join(lines))

    def _line_start(self, line: int) -> int:
        return self._starts[line] if line < len(self._starts) else len(self._text)

    def _end_line_of(self, key: yaml.Node, value: yaml.Node) -> int:
        """The line after a field's last one."""
        if value.start_mark.index == value.end_mark.index:
            return int(key.end_mark.line) + 1
        return self._end_line(value)

    def _end_line(self, node: yaml.Node) -> int:
        if _is_block(node, yaml.MappingNode):
            return self._end_line_of(*node.value[-1])
        if _is_block(node, yaml.SequenceNode):
            return self._end_line(node.value[-1])
        if isinstance(node, yaml.ScalarNode) and node.style in {"|", ">"}:
            return self._end_of_block_scalar(node)
        return int(node.end_mark.line) + 1

    def _end_of_block_scalar(self, node: yaml.Node) -> int:
        """Its mark is where the next token stands: blank lines and comments before that are not its own."""
        line: int = node.end_mark.line + bool(node.end_mark.column)
        while line - 1 > node.start_mark.line and not self._line(line - 1).strip():
            line -= 1
        return line

    def _line(self, line: int) -> str:
        return self._text[self._line_start(line) : self._line_start(line + 1)]


def _indents_lists(node: yaml.Node) -> bool:
    """Whether a document writes lists further to the right than their field."""
    waiting = [node]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if not _is_block(current, yaml.CollectionNode) or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, yaml.SequenceNode):
            waiting += current.value
            continue
        for key, value in current.value:
            if _is_block(value, yaml.SequenceNode):
                return bool(value.start_mark.column > key.start_mark.column)
            waiting.append(value)
    return False


def _is_block(node: yaml.Node, kind: type[yaml.Node]) -> bool:
    return isinstance(node, kind) and not getattr(node, "flow_style", False) and bool(node.value)
