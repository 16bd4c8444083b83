"""Findings and the patches of their remedies, put together."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

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

Patch = Mapping[str, Any] | tuple[Mapping[str, Any], ...]
Mend = Remedy | str
"""What mends a finding, or in words why nothing does."""


def report(
    risk: str,
    where: tuple[str, ObjectRef, str],
    message: str,
    mend: Mend,
    changes: Iterable[ChangeKind] = (),
    severity: Severity | None = None,
) -> Finding:
    """Put a finding together; its cause, and its severity unless given, are those of the risk.

    Args:
        risk: ID, a key of `RISKS`.
        where: The object's kind, its name, and the field's path in it.
        message: One sentence.
        mend: What mends it, or why nothing does.
        changes: In which changes it bites.
        severity: Where it is not the risk's usual one.
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
        cause=info.cause,
        changes=frozenset(changes),
        remedy=mend if isinstance(mend, Remedy) else None,
        no_remedy=mend if isinstance(mend, str) else "",
    )


def in_workload(workload: Workload, path: str) -> tuple[str, ObjectRef, str]:
    """A field of a workload."""
    return workload.kind, workload.ref, path


def in_container(
    workload: Workload, container: Container, field: str
) -> tuple[str, ObjectRef, str]:
    """A field of a container."""
    path = container.path or f"{workload.template.path}.containers"
    return workload.kind, workload.ref, f"{path}.{field}"


def in_service(state: State, path: str) -> tuple[str, ObjectRef, str]:
    """A field of the Service."""
    return "Service", state.service.ref, path


def nest(path: str, value: object) -> dict[str, Any]:
    """`nest("spec.template", 1)` is `{"spec": {"template": 1}}`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value) if isinstance(value, Mapping) else {}


def strategic(where: tuple[str, ObjectRef, str], patch: Patch, reason: str) -> Remedy:
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
