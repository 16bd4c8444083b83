"""The Service itself: what it selects, where its ports lead, and whom it binds to whom."""

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Final

from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.rules.reporting import (
    STOPS,
    Mend,
    in_object,
    in_service,
    report,
    strategic,
)
from upstream_guard.core.predict.rules.serving import (
    Target,
    endpoints,
    probe_port,
    regular,
    targets,
)
from upstream_guard.core.predict.state import Container, State, Workload
from upstream_guard.core.predict.window import Finding, Severity


def selector_matches_nothing(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A selector with which no known workload goes together."""
    selector = state.service.service.selector
    if not selector or state.workloads or state.pods or state.service.external_name:
        return
    if any(_will_match(selector, workload) for workload in state.neighbours):
        return
    near = _near_miss(state)
    severity = Severity.INFO if near is None else Severity.WARNING
    told = "nothing known has all of the labels " + _labels(selector)
    if near is not None:
        told += f"; `{near.text}`, which comes nearest, has {_labels(near.template.labels)}"
    where = in_service(state, "spec.selector")
    yield report(
        "selector-matches-nothing",
        where,
        told,
        _selector_of(state, near),
        severity=Severity.ERROR if state.complete else severity,
    )


_CONTROLLERS_LABELS: Final = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "controller-revision-hash",
        "pod-template-generation",
        "pod-template-hash",
        "rollouts-pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
    }
)
"""Labels that controllers add to pods, and that no template has."""


def _will_match(selector: Mapping[str, str], workload: Workload) -> bool:
    """Whether the pods will have every label, some of which their controller may add."""
    own = {key: value for key, value in selector.items() if key not in _CONTROLLERS_LABELS}
    labels = workload.template.labels
    return bool(own) and all(labels.get(key) == value for key, value in own.items())


_VAGUE_LABELS: Final = frozenset(
    {
        "app.kubernetes.io/part-of",
        "app.kubernetes.io/managed-by",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/version",
        "heritage",
        "release",
        "chart",
        "helm.sh/chart",
        "environment",
        "env",
        "tier",
        "version",
    }
)
"""Labels that many apps of one release share: they say nothing about which one is meant."""


def _near_miss(state: State) -> Workload | None:
    """The neighbour that the selector most likely means: of the Service's name, or of like labels."""
    for workload in state.neighbours:
        if workload.ref.name == state.service.ref.name:
            return workload
    selector = state.service.service.selector
    return next((w for w in state.neighbours if _is_like(selector, w.template.labels)), None)


def _is_like(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether they differ by what looks like a slip: another component of the same app is no slip."""
    shared = {key for key, value in selector.items() if labels.get(key) == value}
    if not shared - _VAGUE_LABELS or not selector.keys() <= labels.keys():
        return False
    return all(
        difflib.SequenceMatcher(None, selector[key], labels[key]).ratio() >= _SIMILAR
        for key in selector.keys() - shared - _VAGUE_LABELS
    )


_SIMILAR: Final = 0.6
"""Of two label values: `web` and `website`, `frontend` and `front-end`."""


def _labels(labels: Mapping[str, str]) -> str:
    shown = ", ".join(f"{key}={value}" for key, value in sorted(labels.items())[:6])
    return f"`{shown}`" if shown else "none"


def _selector_of(state: State, near: Workload | None) -> Mend:
    if near is None or not near.match_labels:
        return "which pods are meant cannot be told from here"
    old = state.service.service.selector
    selector: dict[str, str | None] = {key: None for key in old if key not in near.match_labels}
    selector |= near.match_labels
    return strategic(
        in_service(state, "spec.selector"),
        {"spec": {"selector": selector}},
        f"it selects the pods of `{near.text}`",
    )


def selector_matches_two_apps(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """Pods of different programs behind one Service: only some of them know the requests."""
    workloads = [workload for workload in state.workloads if workload.replicas > 0]
    if len(workloads) < 2:
        return
    first = workloads[0]
    other = next((w for w in workloads[1:] if _is_another_app(state, first, w)), None)
    if other is None:
        return
    is_clear = _serves(state, first) != _serves(state, other)
    yield report(
        "selector-matches-two-apps",
        in_service(state, "spec.selector"),
        f"the selector {_labels(state.service.service.selector)} matches pods of `{first.text}` and "
        f"of `{other.text}`, which run different programs",
        _narrowed(state, workloads),
        severity=Severity.WARNING if is_clear else Severity.INFO,
    )


def _is_another_app(state: State, one: Workload, other: Workload) -> bool:
    """Whether they run other programs, or one program that only one of them lets requests come to.

    Two versions of one image are a canary; `reviews-v1` and `reviews-v2` are two versions as well.
    """
    if _serves(state, one) != _serves(state, other):
        return True
    programs = [{_program(c) for c in regular(workload)} for workload in (one, other)]
    names = [{c.name for c in regular(workload)} for workload in (one, other)]
    return not programs[0] & programs[1] and not names[0] & names[1]


def _serves(state: State, workload: Workload) -> bool:
    """Whether one of its containers declares a port that the Service leads to."""
    return any(target.declared for target in targets(state, workload))


_VERSION: Final = re.compile(r"[-_.]?v?\d+(\.\d+)*$")


def _program(container: Container) -> str:
    """The image's own name, without registry, tag and a version at its end."""
    name = container.image.split("@")[0].rpartition("/")[2].split(":")[0]
    return _VERSION.sub("", name) or name


def _narrowed(state: State, workloads: list[Workload]) -> Mend:
    """The selector with a label that only the one workload has which serves its port."""
    fit = [w for w in workloads if _serves(state, w)]
    fit = fit if len(fit) == 1 else [w for w in fit if w.ref.name == state.service.ref.name]
    if len(fit) != 1:
        return "which of the apps is meant cannot be told: add a label that only its pods have"
    meant = fit[0]
    others = [w for w in workloads if w is not meant]
    for key, value in sorted((meant.match_labels or meant.template.labels).items()):
        if all(other.template.labels.get(key) != value for other in others):
            return strategic(
                in_service(state, "spec.selector"),
                {"spec": {"selector": {key: value}}},
                f"only pods of `{meant.text}` have the label {key}={value}",
            )
    return f"give the pods of `{meant.text}` a label of their own, and select by it"


def target_port_unserved(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A numeric targetPort, while every port that the containers declare is another one.

    `containerPort` is information only: a port that nobody declares may be served all the same.
    """
    for workload in state.workloads:
        declared = [p for c in workload.template.containers for p in c.ports]
        for target in targets(state, workload):
            number = target.number
            if target.declared or number is None or not declared or _is_meant(workload, number):
                continue
            numbers = ", ".join(str(p.number) for p in declared[:6])
            numbers += f" and {len(declared) - 6} more" if len(declared) > 6 else ""
            port = "only port" if len(declared) == 1 else "only ports"
            yield report(
                "target-port-unserved",
                in_service(state, f"spec.ports[{target.index}].targetPort"),
                f"targetPort {number} is declared by no container of `{workload.text}`, which declare "
                f"{port} {numbers}: unless something listens there all the same, every connection "
                "is refused",
                _to_declared(state, workload, target),
                severity=Severity.WARNING,
            )


def _is_meant(workload: Workload, number: int) -> bool:
    """Whether a probe asks the port, or a command, an argument or a variable names it."""
    containers = workload.template.containers
    probes = ((c, p) for c in containers for p in (c.readiness, c.liveness, c.startup) if p)
    if any(probe_port(probe, container) == number for container, probe in probes):
        return True
    words = (w for c in containers for w in (*c.command, *c.args, *c.env.values()))
    return any(re.search(rf"(?<!\d){number}(?!\d)", word) for word in words)


def _to_declared(state: State, workload: Workload, target: Target) -> Mend:
    """The one port that the containers declare; its name where it has one."""
    declared = [p for c in regular(workload) for p in c.ports]
    if len(declared) != 1:
        return "which of the containers' ports is meant cannot be told: name it in targetPort"
    port = declared[0]
    entry = {"port": target.port.number, "targetPort": port.name or port.number}
    return strategic(
        in_service(state, "spec.ports"),
        {"spec": {"ports": [entry]}},
        f"port {port.number} is the only one that the containers of `{workload.text}` declare",
    )


def named_port_mismatch(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A targetPort by a name that no container has: such pods are not listed for this port."""
    for workload in state.workloads:
        for target in targets(state, workload):
            if target.number is not None or not regular(workload):
                continue
            others = len(state.workloads) > 1
            names = sorted({p.name for c in workload.template.containers for p in c.ports} - {""})
            has = f"only `{'`, `'.join(names[:6])}`" if names else "no named port"
            yield report(
                "named-port-mismatch",
                in_service(state, f"spec.ports[{target.index}].targetPort"),
                f"no container of `{workload.text}` has a port named `{target.port.target}` (there is "
                f"{has}), so its pods are not listed for port {target.port.number}",
                _to_declared(state, workload, target),
                severity=Severity.WARNING if others else Severity.ERROR,
            )


def external_name(state: State, _gateways: tuple[Gateway, ...], _facts: Facts) -> Iterator[Finding]:
    """An alias: whether the name resolves decides about every request."""
    name = state.service.external_name
    if not name:
        return
    where = in_service(state, "spec.externalName")
    if _is_address(name):
        yield report(
            "external-name",
            where,
            f"externalName `{name}` is an address, but DNS takes it for a name, which does not resolve",
            "use a Service without selector and an EndpointSlice with this address",
            severity=Severity.ERROR,
        )
        return
    route = next((r for r in state.routes if r.kind != "Ingress"), None)
    told = f"the Service is an alias for `{name}`: when that does not resolve, every request fails"
    if route is not None:
        told = (
            f"{route.kind} `{route.ref}` leads to an alias for `{name}`: the Gateway API advises "
            "gateways not to follow an ExternalName"
        )
    is_bare = "." not in name.rstrip(".")
    if is_bare:
        told = (
            f"externalName `{name}` has no dot, and an alias is resolved without the cluster's search "
            "domains"
        )
    yield report(
        "external-name",
        where,
        told,
        "whether a name resolves cannot be seen from here; guard an external upstream instead",
        severity=Severity.WARNING if is_bare or route is not None else Severity.INFO,
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def session_affinity(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """Clients that are bound to one pod lose it with each rollout."""
    if endpoints(state) <= 1:
        return
    sticky = next((route for route in state.routes if route.sticky), None)
    if sticky is None and not state.service.client_ip_affinity:
        return
    where = (
        in_object("Service", state.service.ref, "spec.sessionAffinity")
        if sticky is None
        else in_object(
            sticky.kind, sticky.ref, "metadata.annotations" if sticky.annotations else ""
        )
    )
    who = "sessionAffinity ClientIP binds" if sticky is None else f"{sticky.kind} binds"
    yield report(
        "session-affinity",
        where,
        f"{who} clients of Service `{state.service.ref.name}` to one pod each: they follow it until "
        "it is gone, and lose what it kept for them",
        "whether the app needs it cannot be seen; sessions kept outside of the pods need none",
        STOPS,
    )
