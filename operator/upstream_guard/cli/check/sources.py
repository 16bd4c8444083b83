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
    objects_of,
    trouble_of,
)

STDIN: Final = "-"
_ENDINGS: Final = (".yaml", ".yml", ".json")
_KUSTOMIZE_SECONDS: Final = 120.0


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
    seen: set[str] = set()
    for given in paths:
        if given == STDIN:
            _read(sys.stdin.buffer.read(MAX_BYTES + 1), Source("stdin", "stdin"), inputs)
            continue
        for path in _expand(given, inputs):
            if path not in seen:
                seen.add(path)
                _read_file(path, inputs)
    for folder in kustomizations:
        _kustomize(folder, inputs)
    return inputs


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
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not found:
        inputs.troubles.append(Trouble(Location(pattern), "no file matches this pattern"))
    yield from (match for match in found if not Path(match).is_dir())


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


def _read_file(path: str, inputs: Inputs) -> None:
    source = Source(path, str(Path(path).parent), writable=True)
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        text = f"cannot be read: {error.strerror or error}"
        inputs.troubles.append(Trouble(Location(path), text))
        return
    _read(raw, source, inputs)


def _read(raw: bytes, source: Source, inputs: Inputs) -> None:
    if len(raw) > MAX_BYTES:
        text = f"larger than {MAX_BYTES // 1024 // 1024} MiB; split it"
        inputs.troubles.append(Trouble(Location(source.name), text))
        return
    try:
        text = decode(raw)
    except ValueError as error:
        inputs.troubles.append(Trouble(Location(source.name), str(error)))
        return
    flaws: list[Flaw] = []
    for document in read_documents(text, flaws):
        inputs.documents += document.value is not None
        inputs.objects.extend(objects_of(document, source, inputs.troubles))
    inputs.troubles.extend(trouble_of(flaw, source) for flaw in flaws)


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
    _read(done.stdout, Source(name, name, has_lines=False), inputs)
