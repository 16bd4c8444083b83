"""Routes: whether they lead to a Service and port that exist, and may."""

from collections.abc import Iterator

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.rules.reporting import report
from upstream_guard.core.predict.state import Backend, RouteState, World
from upstream_guard.core.predict.window import Finding, Severity


def missing_services(world: World) -> Iterator[Finding]:
    """Backends whose Service is not there."""
    peopled = {ref.namespace for ref in world.services} | {
        workload.ref.namespace for workload in world.workloads
    }
    for route in world.routes:
        for backend in route.backends:
            target = ObjectRef(backend.namespace, backend.service)
            if backend.kind == "Service" and target not in world.services:
                yield _missing(world, route, backend, peopled)


def _missing(world: World, route: RouteState, backend: Backend, peopled: set[str]) -> Finding:
    severity = Severity.WARNING if backend.namespace in peopled else Severity.INFO
    return report(
        "route-to-nowhere",
        (route.kind, route.ref, backend.path),
        f"it leads to Service `{backend.namespace}/{backend.service}`, which "
        + ("does not exist" if world.complete else "is not among the given objects"),
        "which Service is meant cannot be told from here",
        severity=Severity.ERROR if world.complete else severity,
    )
