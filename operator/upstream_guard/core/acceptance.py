"""Whether a guard can be put in force, and why not."""

from collections.abc import Iterable
from dataclasses import dataclass

from upstream_guard.core.model import Guard, Service
from upstream_guard.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The Accepted condition: its status, reason and message."""

    accepted: bool
    reason: Reason
    message: str


def judge(guard: Guard, service: Service | None, rivals: Iterable[Guard]) -> Acceptance:
    """Judge a guard that parsed well.

    Args:
        guard: The guard.
        service: The Service that it names, if there is one.
        rivals: Other valid guards that name the same Service.
    """
    if service is None:
        return _no(
            Reason.SERVICE_NOT_FOUND,
            f"spec.targetRef.name: there is no Service {guard.service_ref}; create it, or correct the name",
        )
    problem = _service_problem(guard, service)
    if problem is not None:
        return problem
    # One that cannot be in force itself stands in nobody's way.
    able = [r for r in rivals if _service_problem(r, service) is None]
    elder = min(
        (r for r in able if _precedence(r) < _precedence(guard)), key=_precedence, default=None
    )
    if elder is not None:
        return _no(
            Reason.CONFLICTED,
            f"spec.targetRef: guard {elder.ref} already speaks for Service {service.ref}; delete one of them",
        )
    return Acceptance(True, Reason.ACCEPTED, f"guards Service {service.ref}")


def in_force(service: Service, guards: Iterable[Guard]) -> Guard | None:
    """The one guard that speaks for a Service, of all valid ones that name it."""
    rivals = tuple(guards)
    for guard in rivals:
        others = [g for g in rivals if g.ref != guard.ref]
        if judge(guard, service, others).accepted:
            return guard
    return None


def _service_problem(guard: Guard, service: Service) -> Acceptance | None:
    if service.type == "ExternalName":
        return _no(
            Reason.EXTERNAL_NAME,
            f"Service {service.ref} is an ExternalName: a DNS alias has no endpoints to guard",
        )
    if not service.selector and not guard.upstreams:
        return _no(
            Reason.NO_SELECTOR,
            f"Service {service.ref} has no selector, so it has no pods to guard; give it one, or name "
            "external upstreams in spec.upstreams",
        )
    if service.selector and guard.upstreams:
        return _no(
            Reason.HAS_SELECTOR,
            f"spec.upstreams: Service {service.ref} selects pods, and a list has one source; remove "
            "spec.upstreams, or name a Service without selector in spec.targetRef",
        )
    if guard.section is not None and not _has_port(service, guard.section):
        known = ", ".join(f"{p.name or '(unnamed)'} ({p.number})" for p in service.ports) or "none"
        return _no(
            Reason.PORT_NOT_FOUND,
            f"spec.targetRef.sectionName: Service {service.ref} has no port {guard.section[:63]!r}; "
            f"its ports: {known[:500]}",
        )
    return None


def _has_port(service: Service, section: str) -> bool:
    return any(section in {p.name, str(p.number)} for p in service.ports)


def _precedence(guard: Guard) -> tuple[float, str]:
    """Older first, then by name, as the Gateway API resolves conflicts (GEP-713)."""
    return guard.created, guard.ref.name


def _no(reason: Reason, message: str) -> Acceptance:
    return Acceptance(False, reason, message)
