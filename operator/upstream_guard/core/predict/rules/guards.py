"""Our own resources: guards and GatewayProfiles that would be refused, or would not take effect."""

import difflib
from collections.abc import Iterator
from typing import Final

from upstream_guard.core.acceptance import Acceptance, judge
from upstream_guard.core.model import Guard, ObjectRef
from upstream_guard.core.names import GUARD_KIND
from upstream_guard.core.predict.rules.reporting import in_object, report
from upstream_guard.core.predict.rules.routes import peopled_namespaces
from upstream_guard.core.predict.state import World
from upstream_guard.core.predict.window import Finding, Severity
from upstream_guard.core.reasons import Reason

_UNKNOWN: Final = "what is meant cannot be told from here"
_PATHS: Final = {
    Reason.PORT_NOT_FOUND: "spec.targetRef.sectionName",
    Reason.CONFLICTED: "spec.targetRef",
    Reason.HAS_SELECTOR: "spec.upstreams",
}
"""The field that is to blame for a guard that is not accepted, where it is not the target's name."""


def invalid(world: World) -> Iterator[Finding]:
    """Fields that the API server, or the operator, refuses."""
    for refused in world.refused:
        risk = "invalid-guard" if refused.kind == GUARD_KIND else "invalid-gateway-profile"
        for path, message in refused.faults:
            yield report(
                risk,
                in_object(refused.kind, refused.ref, path),
                f"{path}: {message}" if path else message,
                _UNKNOWN,
            )


def not_accepted(world: World) -> Iterator[Finding]:
    """Valid guards whose Service is not there, or cannot be guarded like this."""
    by_service: dict[ObjectRef, list[Guard]] = {}
    for guard in world.guards:
        by_service.setdefault(guard.service_ref, []).append(guard)
    peopled = peopled_namespaces(world)
    for target, guards in by_service.items():
        service = world.services.get(target)
        for guard in guards:
            if service is None:
                yield _without_service(world, guard, known=target.namespace in peopled)
                continue
            acceptance = judge(guard, service.service, [g for g in guards if g is not guard])
            if not acceptance.accepted:
                yield _report(guard, acceptance, Severity.ERROR)


def _report(guard: Guard, acceptance: Acceptance, severity: Severity) -> Finding:
    path = _PATHS.get(acceptance.reason, "spec.targetRef.name")
    where = in_object(GUARD_KIND, guard.ref, path)
    message = acceptance.message.removeprefix(f"{path}: ")
    return report("guard-not-accepted", where, message, _UNKNOWN, severity=severity)


def _without_service(world: World, guard: Guard, *, known: bool) -> Finding:
    """Among manifests a Service may be missing because another chart brings it."""
    if world.complete:
        return _report(guard, judge(guard, None, ()), Severity.ERROR)
    target = guard.service_ref
    names = [ref.name for ref in world.services if ref.namespace == target.namespace]
    near = difflib.get_close_matches(target.name, names, 1, 0.8)
    hint = f" (there is `{near[0]}`)" if near else ""
    message = f"it guards Service `{target}`, which is not among the given objects{hint}"
    acceptance = Acceptance(False, Reason.SERVICE_NOT_FOUND, message)
    return _report(guard, acceptance, Severity.WARNING if known else Severity.INFO)
