"""`--fix`: the remedies as a diff of the user's files, written on request, else as patches to apply."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from upstream_guard.cli.check.analysis import Found, object_of
from upstream_guard.cli.check.documents import read_documents
from upstream_guard.cli.check.objects import Located
from upstream_guard.cli.check.patching import PatchError, applied, plain
from upstream_guard.cli.check.surgery import SurgeryError, append_document, edit_documents
from upstream_guard.cli.check.writing import block
from upstream_guard.core.predict.review import Problem
from upstream_guard.core.predict.window import PatchKind, Remedy

Json = Any


@dataclass(frozen=True, slots=True)
class Repair:
    """A remedy, and the object in the user's sources that it changes or stands beside."""

    remedy: Remedy
    risk: str
    located: Located | None


_Repairs = Sequence[tuple[Repair, Located]]


@dataclass(slots=True)
class Plan:
    """What a fix changes.

    Attributes:
        files: New text by path.
        old: Their text before.
        patches: Remedies that could not be put into a file, each with the reason.
    """

    files: dict[str, str] = field(default_factory=dict)
    old: dict[str, str] = field(default_factory=dict)
    patches: list[tuple[Repair, str]] = field(default_factory=list)


def repairs_of(found: Iterable[Found]) -> Iterator[Repair]:
    """Every remedy once for each file; of several that set the same number the larger is taken."""
    chosen: dict[tuple[str, ...], Repair] = {}
    for one in found:
        for remedy, risk in _remedies(one.problem):
            located = _located(one, remedy)
            source = located.source.name if located is not None else ""
            patch = remedy.patch
            key = (source, remedy.kind, str(remedy.ref), remedy.patch_kind, _shape(patch))
            known = chosen.get(key)
            if known is None or _weight(patch) > _weight(known.remedy.patch):
                chosen[key] = Repair(remedy, risk, located)
    yield from chosen.values()


def _located(one: Found, remedy: Remedy) -> Located | None:
    """The object that the remedy changes; for a new one the object that it is made for."""
    located = object_of(one.objects, remedy.kind, remedy.ref)
    if located is None and remedy.patch_kind is PatchKind.CREATE:
        finding = one.problem.finding
        return object_of(one.objects, finding.kind, finding.ref)
    return located


def _remedies(problem: Problem) -> Iterator[tuple[Remedy, str]]:
    if problem.finding.remedy is not None:
        yield problem.finding.remedy, problem.finding.risk
    for window in problem.windows:
        if window.remedy is not None:
            yield window.remedy, window.risk


def _shape(patch: object) -> str:
    """The patch without its numbers: what two remedies for two gateways have in common."""
    return repr(_without_numbers(plain(patch)))


def _without_numbers(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _without_numbers(part) for key, part in sorted(value.items())}
    if isinstance(value, list):
        return [_without_numbers(part) for part in value]
    return "#" if isinstance(value, int | float) and not isinstance(value, bool) else value


def _weight(value: object) -> float:
    """The sum of its numbers."""
    if isinstance(value, Mapping):
        return sum(_weight(part) for part in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return sum(_weight(part) for part in value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def plan(repairs: Iterable[Repair]) -> Plan:
    """Put remedies into the texts of their files, as far as that leaves everything else alone."""
    made = Plan()
    files: dict[str, list[tuple[Repair, Located]]] = {}
    for repair in repairs:
        located = repair.located
        if located is None:
            made.patches.append((repair, "the object is not among the files"))
        elif not located.source.writable:
            made.patches.append((repair, f"it was read from {located.source.name}"))
        else:
            files.setdefault(located.source.name, []).append((repair, located))
    for path, of_file in files.items():
        try:
            text = _editable(path)
        except (OSError, SurgeryError) as error:
            made.patches += [(repair, f"{path} stays as it is: {error}") for repair, _ in of_file]
        else:
            _File(path, text, made).change(of_file)
    return made


def _editable(path: str) -> str:
    raw = Path(path).read_bytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise SurgeryError("it is not UTF-8") from error
    if text.startswith("\ufeff") or path.endswith(".json"):
        raise SurgeryError("only YAML without a byte order mark is edited")
    return text


class _File:
    """One file that is being changed."""

    def __init__(self, path: str, text: str, made: Plan) -> None:
        self._path = path
        self._text = text
        self._made = made
        self._values = [document.value for document in read_documents(text, [])]

    def change(self, repairs: Iterable[tuple[Repair, Located]]) -> None:
        """Put what can be put into the plan's files, and the rest into its patches."""
        before = self._text
        by_document: dict[int, list[tuple[Repair, Located]]] = {}
        created: list[Repair] = []
        for repair, located in repairs:
            if repair.remedy.patch_kind is PatchKind.CREATE:
                created.append(repair)
            elif located.document < len(self._values):
                by_document.setdefault(located.document, []).append((repair, located))
            else:
                self._refuse([repair], SurgeryError("it has changed meanwhile"))
        self._edit(self._wanted(by_document), by_document)
        for repair in created:
            try:
                self._text = append_document(self._text, plain(repair.remedy.patch))
            except SurgeryError as error:
                self._refuse([repair], error)
        if self._text != before:
            self._made.old[self._path] = before
            self._made.files[self._path] = self._text

    def _wanted(self, by_document: Mapping[int, _Repairs]) -> dict[int, Json]:
        """What the documents are to say."""
        wanted: dict[int, Json] = {}
        for number, repairs in by_document.items():
            for repair, located in repairs:
                value = wanted.get(number, self._values[number])
                try:
                    wanted[number] = _patched(value, located.inside, repair.remedy)
                except PatchError as error:
                    self._refuse([repair], error)
        return wanted

    def _edit(self, wanted: Mapping[int, Json], by_document: Mapping[int, _Repairs]) -> None:
        """All at once, for each edit parses the file; one by one where one of them cannot be made."""
        try:
            self._text = edit_documents(self._text, wanted)
        except SurgeryError as error:
            for number, value in wanted.items():
                if len(wanted) > 1:
                    self._edit({number: value}, by_document)
                else:
                    self._refuse([repair for repair, _ in by_document[number]], error)

    def _refuse(self, repairs: Iterable[Repair], error: Exception) -> None:
        reason = f"{self._path} stays as it is here: {error}"
        self._made.patches += [(repair, reason) for repair in repairs]


def _patched(whole: Json, inside: str, remedy: Remedy) -> Json:
    """A document, or one item of a List, patched."""
    if not inside:
        return applied(whole, remedy)
    index = int(inside.removeprefix("items[").removesuffix("]"))
    items = whole["items"]
    return {**whole, "items": [*items[:index], applied(items[index], remedy), *items[index + 1 :]]}


def base_of(made: Plan, here: Path) -> Path:
    """The folder that the paths of a diff count from.

    That is `here` if it has all the files, for there a user runs `git apply` or `patch`, which refuse
    absolute paths and `..`; else the git work tree around it, else the root folder.
    """
    folders = {real(path).parent for path in made.files}
    around = [here, *(up for up in (here, *here.parents) if (up / ".git").exists())][:2]
    return next(
        (base for base in around if all(f.is_relative_to(base) for f in folders)), Path(here.anchor)
    )


def real(path: str) -> Path:
    """The absolute path, without `..` and links to folders, which git does not follow."""
    return Path(path).parent.resolve() / Path(path).name


def diff(made: Plan, base: Path) -> str:
    """The changes as a unified diff, ready for `git apply` or `patch -p1` in the folder `base`."""
    return "".join(
        _diff(real(path).relative_to(base).as_posix(), made.old[path], new)
        for path, new in made.files.items()
    )


def _diff(name: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


_OPTION: Final[Mapping[PatchKind, str]] = {
    PatchKind.STRATEGIC: "strategic",
    PatchKind.MERGE: "merge",
    PatchKind.JSON: "json",
}


def patch_text(repair: Repair, reason: str) -> str:
    """A patch as YAML, with what it is for and how it is applied in comments."""
    remedy = repair.remedy
    where = f"-n {remedy.ref.namespace} " if remedy.ref.namespace else ""
    option = _OPTION.get(remedy.patch_kind)
    apply = (
        f"kubectl {where}patch {remedy.kind.lower()} {remedy.ref.name} --type {option} "
        "--patch-file FILE"
        if option
        else "kubectl apply -f FILE"
    )
    body = block(plain(remedy.patch))
    head = f"{repair.risk}: {remedy.reason}\n{reason}\n{apply}"
    comments = "".join(f"# {line}\n" for line in head.splitlines())
    return f"---\n{comments}{body}"


def write(made: Plan) -> Iterator[tuple[str, str]]:
    """Write the files; yields path and error text, empty where it went well."""
    for path, text in made.files.items():
        try:
            Path(path).write_bytes(text.encode())
        except OSError as error:
            yield path, f"cannot be written: {error.strerror or error}"
        else:
            yield path, ""
