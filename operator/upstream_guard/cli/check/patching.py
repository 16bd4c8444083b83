"""Patches applied to manifests, as the API server would apply them.

Strategic merge knows from the API's types by which field the entries of a list are told apart; of
those types only the fields that remedies touch are kept here (k8s.io/api, `patchMergeKey`).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

from upstream_guard.core.predict.window import PatchKind, Remedy

Json = Any

_MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "conditions": ("type",),
    "ports": ("containerPort", "port"),
}
"""Field to the merge keys of its entries. `ports`: containers merge by containerPort, Services by port."""

_DIRECTIVE: Final = "$patch"


class PatchError(Exception):
    """The patch does not fit the object; the message says where."""


def applied(value: Json, remedy: Remedy) -> Json:
    """A patched copy of an object.

    Raises:
        PatchError: The patch names what is not there, or is of no known sort.
    """
    target = copy.deepcopy(value)
    patch = copy.deepcopy(plain(remedy.patch))
    match remedy.patch_kind:
        case PatchKind.STRATEGIC:
            return _strategic(target, patch)
        case PatchKind.MERGE:
            return _merge(target, patch)
        case PatchKind.JSON:
            return _operations(target, patch)
        case PatchKind.CREATE:
            return patch


def plain(value: object) -> Json:
    """Frozen mappings and tuples as dicts and lists, which every YAML and JSON writer knows."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(v) for v in value]
    return value


def _merge(target: Json, patch: Json) -> Json:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _strategic(target: Json, patch: Json) -> Json:
    if not isinstance(patch, dict):
        return patch
    patch = dict(patch)
    directive = patch.pop(_DIRECTIVE, None)
    if directive == "replace" or not isinstance(target, dict):
        target = {}
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, list):
            merged[key] = _strategic_list(key, merged.get(key), value)
        elif isinstance(value, dict) and value.get(_DIRECTIVE) == "delete":
            merged.pop(key, None)
        else:
            merged[key] = _strategic(merged.get(key), value)
    return merged


def _strategic_list(field: str, target: Json, patch: list[Json]) -> list[Json]:
    """Entries are merged by the field's key; a list without one is replaced."""
    keys = _merge_keys(field, patch)
    old = target if isinstance(target, list) else []
    if not keys:
        return patch
    merged = list(old)
    for entry in patch:
        index = next(
            (n for n, e in enumerate(merged) if _identity(e, keys) == _identity(entry, keys)), None
        )
        if entry.get(_DIRECTIVE) == "delete":
            merged[:] = [e for n, e in enumerate(merged) if n != index]
        elif index is None:
            merged.append(_strategic({}, entry))
        else:
            merged[index] = _strategic(merged[index], entry)
    return merged


def _merge_keys(field: str, patch: list[Json]) -> tuple[str, ...]:
    """The keys that every entry of the patch has; none where the list is to be replaced."""
    if not all(isinstance(entry, dict) for entry in patch):
        return ()
    keys = _MERGE_KEYS.get(field, ())
    if field == "ports":
        return next(((key,) for key in keys if all(key in entry for entry in patch)), ())
    return keys


def _identity(entry: Json, keys: tuple[str, ...]) -> tuple[Json, ...] | None:
    return tuple(entry.get(key) for key in keys) if isinstance(entry, dict) else None


def _operations(target: Json, operations: Json) -> Json:
    """RFC 6902, as far as remedies use it: add, remove, replace, test."""
    for operation in operations:
        pointer = str(operation["path"])
        steps = [s.replace("~1", "/").replace("~0", "~") for s in pointer.split("/")[1:]]
        if not steps:
            raise PatchError("a JSON patch of the whole object is not applied here")
        parent = target
        for step in steps[:-1]:
            parent = _child(parent, step, pointer)
        _operate(parent, steps[-1], operation, pointer)
    return target


def _child(parent: Json, step: str, pointer: str) -> Json:
    if isinstance(parent, dict) and step in parent:
        return parent[step]
    if isinstance(parent, list) and step.isdecimal() and int(step) < len(parent):
        return parent[int(step)]
    raise PatchError(f"the object has no {pointer}")


def _operate(parent: Json, step: str, operation: Mapping[str, Json], pointer: str) -> None:
    if operation["op"] != "add":
        present = _child(parent, step, pointer)
        if operation["op"] == "test" and present != operation["value"]:
            raise PatchError(f"{pointer} is not what the patch expects")
    key: Json = int(step) if isinstance(parent, list) and step.isdecimal() else step
    match operation["op"]:
        case "add" if isinstance(parent, list):
            parent.insert(len(parent) if step == "-" else _index(step, pointer), operation["value"])
        case "add" | "replace" if isinstance(parent, dict | list):
            parent[key] = operation["value"]
        case "remove":
            del parent[key]
        case "test":
            pass
        case _:
            raise PatchError(f"the operation {operation['op']} at {pointer} is not applied here")


def _index(step: str, pointer: str) -> int:
    if not step.isdecimal():
        raise PatchError(f"{pointer} is no position in a list")
    return int(step)
