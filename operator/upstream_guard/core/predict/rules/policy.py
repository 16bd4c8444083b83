"""NetworkPolicies: whether gateways and the operator may connect to the pods."""

from collections.abc import Callable, Iterator
from typing import Final

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.names import OPERATOR_NAMESPACE
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.rules.reporting import create, in_object, report
from upstream_guard.core.predict.rules.serving import Target, targets
from upstream_guard.core.predict.state import IngressRule, NetworkPolicy, Peer, State, Workload
from upstream_guard.core.predict.window import Finding, Remedy, Severity

NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
"""Kubernetes gives it to every namespace, with the namespace's name."""
_OPERATOR_LABELS: Final = {
    "app.kubernetes.io/name": "upstream-guard",
    "app.kubernetes.io/part-of": "upstream-guard",
}
"""Of the operator's pods, as `deploy/` has them."""

Judge = Callable[[Peer], bool]


def policy_blocks_gateway(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """Pods that no gateway may connect to, as far as a gateway's place is known.

    Gateways mostly run in a namespace of their own, so a rule that could admit another namespace
    or an address outside is taken to admit them. Who may connect inside a namespace is its own
    business, unless a route leads here.
    """
    for workload, target, policies in _isolated(state):
        if not _admits(policies, target, lambda _: True):
            told = "allows nobody"
        elif state.routes and not _admits(policies, target, _could_be_a_gateway):
            told = "allows only pods of the same namespace"
        else:
            continue
        names = ", ".join(f"`{policy.ref.name}`" for policy in policies[:3])
        noun = "NetworkPolicy" if len(policies) == 1 else "NetworkPolicies"
        yield report(
            "policy-blocks-gateway",
            in_object("NetworkPolicy", policies[0].ref, "spec.ingress"),
            f"{noun} {names} {told} to connect to port {target.number} of `{workload.text}`"
            + _wrong_port(policies, target),
            _allowance(state, target, "from-gateways", {}, "narrow it to the gateway's namespace"),
            severity=Severity.ERROR
            if state.complete and told == "allows nobody"
            else Severity.WARNING,
        )


def _isolated(state: State) -> Iterator[tuple[Workload, Target, tuple[NetworkPolicy, ...]]]:
    """Each port that traffic comes to in pods that policies isolate, with these policies."""
    for workload in state.workloads:
        labels = workload.template.labels
        policies = tuple(
            p for p in state.policies if p.isolates_ingress and p.selector.matches(labels)
        )
        if not policies or workload.template.host_network:
            continue
        for target in targets(state, workload):
            if target.number is not None:
                yield workload, target, policies


def _admits(policies: tuple[NetworkPolicy, ...], target: Target, judge: Judge) -> bool:
    """Whether any rule of any policy lets somebody whom `judge` accepts connect: they add up."""
    return any(
        _has_port(rule, target) and (not rule.peers or any(judge(peer) for peer in rule.peers))
        for policy in policies
        for rule in policy.ingress
    )


def _has_port(rule: IngressRule, target: Target) -> bool:
    """Ports of a policy are the pods', by number, range or the container's name for it."""
    if not rule.ports:
        return True
    names = {
        port.name
        for port in (target.container.ports if target.container is not None else ())
        if port.number == target.number
    }
    number = target.number or 0
    return any(
        first in names if isinstance(first, str) else first <= number <= max(first, last)
        for first, last in rule.ports
    )


def _could_be_a_gateway(peer: Peer) -> bool:
    return peer.namespaces is not None or bool(peer.cidr)


def _wrong_port(policies: tuple[NetworkPolicy, ...], target: Target) -> str:
    """A hint where a rule names the Service's port instead of the pods'."""
    ports = {first for p in policies for rule in p.ingress for first, _ in rule.ports}
    if target.port.number in ports and target.port.number != target.number:
        return f" (port {target.port.number}, which it allows, is the Service's, not the pods')"
    return ""


def _allowance(
    state: State, target: Target, suffix: str, labels: dict[str, str], then: str
) -> Remedy:
    """One more policy, for policies add up: who comes from these namespaces may connect."""
    selector: dict[str, object] = {"matchLabels": labels} if labels else {}
    name = f"{state.service.ref.name}-{suffix}"[:253]
    return create(
        "NetworkPolicy",
        ObjectRef(state.service.ref.namespace, name),
        "networking.k8s.io/v1",
        {
            "podSelector": {"matchLabels": dict(state.service.service.selector)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"namespaceSelector": selector}],
                    "ports": [{"protocol": "TCP", "port": target.number}],
                }
            ],
        },
        f"policies add up, and this one opens port {target.number}: {then}",
    )


def policy_blocks_operator(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """Pods that the operator may not probe, though a guard asks it to."""
    if state.guard is None:
        return
    for workload, target, policies in _isolated(state):
        if _admits(policies, target, _could_be_the_operator):
            continue
        yield report(
            "policy-blocks-operator",
            in_object("NetworkPolicy", policies[0].ref, "spec.ingress"),
            f"NetworkPolicy `{policies[0].ref.name}` keeps the operator (namespace "
            f"{OPERATOR_NAMESPACE}) from probing port {target.number} of `{workload.text}`: the guard "
            "cannot tell whether its pods serve",
            _allowance(
                state,
                target,
                "from-upstream-guard",
                {NAMESPACE_LABEL: OPERATOR_NAMESPACE},
                "the operator can probe the pods",
            ),
        )


def _could_be_the_operator(peer: Peer) -> bool:
    """Whether it selects the operator's namespace and pods; an address range may hold their IPs."""
    if peer.cidr:
        return True
    if peer.namespaces is None:
        return False
    return peer.namespaces.matches({NAMESPACE_LABEL: OPERATOR_NAMESPACE}) and (
        peer.pods is None or peer.pods.matches(_OPERATOR_LABELS)
    )
