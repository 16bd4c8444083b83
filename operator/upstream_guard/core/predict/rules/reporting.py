"""Findings and the patches of their remedies, put together."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.predict.state import ChangeKind, Container, State, Workload
from upstream_guard.core.predict.window import Finding, PatchKind, Remedy, Severity

STOPS: Final = frozenset(
    {
        ChangeKind.ROLLOUT,
        ChangeKind.CONFIG_CHANGE,
        ChangeKind.SCALE_IN,
        ChangeKind.POD_DELETION,
        ChangeKind.NODE_DRAIN,
    }
)
"""Changes in which pods are stopped in an orderly way."""
ROLLOUTS: Final = frozenset({ChangeKind.ROLLOUT, ChangeKind.CONFIG_CHANGE})
"""Changes in which every pod is replaced."""

Where = tuple[str, ObjectRef, str]
"""An object's kind and name, and the path of a field in it."""
Patch = Mapping[str, Any] | tuple[Mapping[str, Any], ...]
Mend = Remedy | str
"""What mends a finding, or in words why nothing does."""


def report(
    risk: str,
    where: Where,
    message: str,
    mend: Mend,
    changes: Iterable[ChangeKind] = (),
    severity: Severity | None = None,
    cause: Cause | None = None,
) -> Finding:
    """Put a finding together; severity and cause are those of the risk unless given.

    Args:
        risk: ID, a key of `RISKS`.
        where: The object's kind, its name, and the field's path in it.
        message: One sentence.
        mend: What mends it, or why nothing does.
        changes: In which changes it bites.
        severity: Where it is not the risk's usual one.
        cause: Where it is not the risk's usual one.
    """
    info = RISKS[risk]
    kind, ref, path = where
    return Finding(
        risk=risk,
        severity=severity or info.severity,
        kind=kind,
        ref=ref,
        path=path,
        message=message,
        cause=cause or info.cause,
        changes=frozenset(changes),
        remedy=mend if isinstance(mend, Remedy) else None,
        no_remedy=mend if isinstance(mend, str) else "",
    )


def in_workload(workload: Workload, path: str) -> Where:
    """A field of a workload."""
    return workload.kind, workload.ref, path


def in_container(workload: Workload, container: Container, field: str) -> Where:
    """A field of a container."""
    path = container.path or f"{workload.template.path}.containers"
    return workload.kind, workload.ref, f"{path}.{field}"


def in_service(state: State, path: str) -> Where:
    """A field of the Service."""
    return "Service", state.service.ref, path


def in_object(kind: str, ref: ObjectRef, path: str) -> Where:
    """A field of any other object."""
    return kind, ref, path


def nest(path: str, value: object) -> dict[str, Any]:
    """`nest("spec.template", 1)` is `{"spec": {"template": 1}}`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value) if isinstance(value, Mapping) else {}


def pointer(path: str) -> str:
    """`spec.rules[0].http` as a JSON pointer: `/spec/rules/0/http`."""
    return "/" + path.replace("[", ".").replace("]", "").replace(".", "/")


def create(kind: str, ref: ObjectRef, api: str, spec: Mapping[str, Any], reason: str) -> Remedy:
    """A new object."""
    manifest = {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "spec": dict(spec),
    }
    return Remedy(kind, ref, PatchKind.CREATE, manifest, reason)


def merge(where: Where, patch: Patch, reason: str) -> Remedy:
    """A JSON merge patch of the object that a finding is about."""
    return Remedy(where[0], where[1], PatchKind.MERGE, patch, reason)


def edit(where: Where, operations: Iterable[Mapping[str, Any]], reason: str) -> Remedy:
    """A JSON patch (RFC 6902) of the object that a finding is about."""
    return Remedy(where[0], where[1], PatchKind.JSON, tuple(operations), reason)


def strategic(where: Where, patch: Patch, reason: str) -> Remedy:
    """A strategic merge patch of the object that a finding is about."""
    return Remedy(where[0], where[1], PatchKind.STRATEGIC, patch, reason)


def pod_patch(workload: Workload, fields: Mapping[str, Any], reason: str) -> Remedy:
    """A strategic merge patch of a workload's pod spec."""
    patch = nest(workload.template.path, dict(fields))
    return Remedy(workload.kind, workload.ref, PatchKind.STRATEGIC, patch, reason)


def container_patch(
    workload: Workload, container: Container, fields: Mapping[str, Any], reason: str
) -> Remedy:
    """A strategic merge patch of one container; its name is the merge key."""
    group = "initContainers" if container.sidecar else "containers"
    return pod_patch(workload, {group: [{"name": container.name, **fields}]}, reason)
