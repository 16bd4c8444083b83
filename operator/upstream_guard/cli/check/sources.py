"""Files, folders, globs, stdin and kustomize folders to Kubernetes objects."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from upstream_guard.cli.check.documents import MAX_BYTES, Flaw, decode, read_documents
from upstream_guard.cli.check.objects import (
    Located,
    Location,
    Source,
    Trouble,
    is_object,
    objects_of,
    trouble_of,
)

STDIN: Final = "-"
_ENDINGS: Final = (".yaml", ".yml", ".json")
_KUSTOMIZE_SECONDS: Final = 120.0
_NO_OBJECT: Final = "no Kubernetes object in it: no document has both apiVersion and kind"
"""Nothing to check is an error, or a pipeline whose input got lost would pass for ever."""


@dataclass(slots=True)
class Inputs:
    """What was read.

    Attributes:
        objects: Every Kubernetes object, in the order of reading.
        troubles: What could not be read, or is worth a word.
        documents: How many documents were read, whatever they are.
        notes: What a reader of the result should know.
        complete: Whether what is absent here is absent, and not just elsewhere.
    """

    objects: list[Located] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    documents: int = 0
    notes: list[str] = field(default_factory=list)
    complete: bool = False


def read_all(paths: Iterable[str], kustomizations: Iterable[str]) -> Inputs:
    """Everything from files, folders, globs and `-`, and from folders that kubectl renders.

    Nothing is raised: what cannot be read is told in `Inputs.troubles`.
    """
    inputs = Inputs()
    seen: dict[str, bool] = {}
    named = dict.fromkeys(paths)
    if STDIN in named:
        del named[STDIN]
        _read_stdin(inputs)
    empty = [given for given in named if not _read_given(given, seen, inputs)]
    for given in empty:
        if len(empty) == len(named):
            inputs.troubles.append(Trouble(Location(given), _NO_OBJECT))
        else:  # A shell makes *.yaml of everything, also of what is no manifest.
            inputs.notes.append(f"{given}: {_NO_OBJECT}")
    for folder in kustomizations:
        _kustomize(folder, inputs)
    return inputs


def _read_stdin(inputs: Inputs) -> None:
    if not _read(sys.stdin.buffer.read(MAX_BYTES + 1), Source("stdin", "stdin"), inputs):
        text = "standard input has no Kubernetes object; did the command before the pipe fail?"
        inputs.troubles.append(Trouble(Location("stdin"), text))


def _read_given(given: str, seen: dict[str, bool], inputs: Inputs) -> bool:
    """What one argument stands for, but no file twice.

    Args:
        given: A file, a folder or a glob.
        seen: What `_read_file` returned for each file that was read.
        inputs: Goes on here.

    Returns:
        False where it stands for files, and there is no Kubernetes object in any of them.
    """
    files = list(_expand(given, inputs))
    for path in files:
        if path not in seen:
            seen[path] = _read_file(path, inputs)
    return not files or any(seen[path] for path in files)


def _expand(given: str, inputs: Inputs) -> Iterator[str]:
    """The files that one argument stands for."""
    try:
        is_folder, is_there = Path(given).is_dir(), Path(given).exists()
    except OSError:
        is_folder, is_there = False, True  # Opening it will say what is wrong with it.
    if is_folder:
        yield from _folder(given, inputs)
    elif is_there or not glob.has_magic(given):
        yield given
    else:
        yield from _matches(given, inputs)


def _matches(pattern: str, inputs: Inputs) -> Iterator[str]:
    # Path.glob takes no absolute patterns.
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    files = [match for match in matches if not Path(match).is_dir()]
    if not files:
        inputs.troubles.append(Trouble(Location(pattern), "no file matches this pattern"))
    yield from files


def _folder(folder: str, inputs: Inputs) -> Iterator[str]:
    """Manifests below a folder; hidden folders and the templates of Helm charts are left out."""
    count = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if "Chart.yaml" in files and "templates" in folders:
            folders[:] = [f for f in folders if f not in {"templates", "charts", "crds"}]
            inputs.notes.append(
                f"{parent} is a Helm chart, its templates were left out: "
                f"helm template {parent} | upstream-guard check -"
            )
        for name in sorted(files):
            if name.endswith(_ENDINGS):
                count += 1
                yield str(Path(parent) / name)
    if not count:
        text = f"no {', '.join('*' + ending for ending in _ENDINGS)} in this folder"
        inputs.troubles.append(Trouble(Location(folder), text))


def _read_file(path: str, inputs: Inputs) -> bool:
    """Returns what `_read` does."""
    source = Source(path, str(Path(path).parent), writable=True)
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        text = f"cannot be read: {error.strerror or error}"
        inputs.troubles.append(Trouble(Location(path), text))
        return True
    return _read(raw, source, inputs)


def _read(raw: bytes, source: Source, inputs: Inputs) -> bool:
    """Read a text.

    Returns:
        False where all of it was read and there is no Kubernetes object in it, not even of a kind
        that is passed over.
    """
    if len(raw) > MAX_BYTES:
        text = f"larger than {MAX_BYTES // 1024 // 1024} MiB; split it"
        inputs.troubles.append(Trouble(Location(source.name), text))
        return True
    try:
        text = decode(raw)
    except ValueError as error:
        inputs.troubles.append(Trouble(Location(source.name), str(error)))
        return True
    flaws: list[Flaw] = []
    has_object = False
    for document in read_documents(text, flaws):
        inputs.documents += document.value is not None
        has_object |= is_object(document.value)
        inputs.objects.extend(objects_of(document, source, inputs.troubles))
    inputs.troubles.extend(trouble_of(flaw, source) for flaw in flaws)
    return has_object or any(flaw.fatal for flaw in flaws)


def _kustomize(folder: str, inputs: Inputs) -> None:
    """What `kubectl kustomize` makes of a folder; its lines mean nothing to the user."""
    import subprocess  # noqa: PLC0415 - few need it, and it takes as long as a hundred manifests

    name = f"kustomize {folder}"
    command = ["kubectl", "kustomize", folder]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_KUSTOMIZE_SECONDS)
    except FileNotFoundError:
        text = "kubectl is not installed, and -k needs it; or pass what kustomize prints with `-`"
        inputs.troubles.append(Trouble(Location(name), text))
        return
    except subprocess.TimeoutExpired:
        text = f"`{' '.join(command)}` took longer than {_KUSTOMIZE_SECONDS:.0f} s"
        inputs.troubles.append(Trouble(Location(name), text))
        return
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()[-1000:]
        text = f"`{' '.join(command)}` failed: {words}"
        inputs.troubles.append(Trouble(Location(name), text))
        return
    if not _read(done.stdout, Source(name, name, has_lines=False), inputs):
        inputs.troubles.append(Trouble(Location(name), _NO_OBJECT))
