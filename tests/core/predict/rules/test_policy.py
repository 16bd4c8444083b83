"""Rules about NetworkPolicies."""

import pytest
from tests.core.predict.factories import (
    allow,
    ingress,
    policy,
    service,
    state,
    workload,
)
from tests.core.predict.factories import (
    port as service_port,
)
from tests.core.predict.rules.looking import only, risks, severity

from upstream_guard.core.predict.state import GuardFacts, IngressRule, LabelSelector, Peer
from upstream_guard.core.predict.window import PatchKind, Severity

ANYWHERE = LabelSelector({})
SAME_NAMESPACE = Peer(pods=LabelSelector({"app": "client"}))
OPERATOR = Peer(namespaces=LabelSelector({"kubernetes.io/metadata.name": "upstream-guard-system"}))
OTHERS = Peer(namespaces=LabelSelector({"team": "web"}))
GUARDED = GuardFacts(pre_stop=10.0)


def test_pods_that_nobody_may_connect_to() -> None:
    found = only("policy-blocks-gateway", state(policies=(policy(),), complete=True))
    assert found.severity is Severity.ERROR
    assert "allows nobody to connect to port 8080" in found.message
    assert found.remedy is not None
    assert found.remedy.patch_kind is PatchKind.CREATE
    assert severity("policy-blocks-gateway", state(policies=(policy(),))) is Severity.WARNING


@pytest.mark.parametrize(
    ("rules", "blocked"),
    [
        ((allow(),), False),
        ((allow(ports=(8080,)),), False),
        ((allow(ports=("http",)),), False),
        ((IngressRule(ports=((8000, 9000),)),), False),
        ((allow(OTHERS),), False),
        ((allow(Peer(cidr="10.0.0.0/8")),), False),
        ((allow(SAME_NAMESPACE),), True),
        ((allow(ports=(80,)),), True),
        ((allow(ports=("web",)),), True),
        ((allow(SAME_NAMESPACE), allow(OTHERS)), False),
        ((allow(OTHERS, ports=(9090,)), allow(SAME_NAMESPACE)), True),
    ],
)
def test_rules_for_gateways(rules: tuple[IngressRule, ...], blocked: bool) -> None:
    found = state(policies=(policy(*rules),), routes=(ingress(),))
    assert ("policy-blocks-gateway" in risks(found)) is blocked


def test_policies_add_up() -> None:
    both = (policy(name="deny"), policy(allow(OTHERS)))
    assert risks(state(policies=both, routes=(ingress(),))) == set()


def test_a_service_without_routes_may_be_for_its_neighbours_alone() -> None:
    assert risks(state(policies=(policy(allow(SAME_NAMESPACE)),))) == set()


def test_a_rule_with_the_services_port_is_pointed_out() -> None:
    found = only("policy-blocks-gateway", state(policies=(policy(allow(ports=(80,))),)))
    assert "port 80, which it allows, is the Service's" in found.message


def test_policies_for_egress_do_not_isolate() -> None:
    assert risks(state(policies=(policy(isolates_ingress=False),))) == set()


def test_pods_on_the_host_network_are_not_subject_to_policies() -> None:
    on_host = workload(template={"host_network": True})
    assert risks(state(on_host, policies=(policy(),))) == set()


@pytest.mark.parametrize(
    ("peer", "blocked"),
    [
        (OTHERS, True),
        (OPERATOR, False),
        (Peer(namespaces=ANYWHERE), False),
        (Peer(pods=LabelSelector({"app": "x"}), namespaces=ANYWHERE), True),
        (
            Peer(
                pods=LabelSelector({"app.kubernetes.io/name": "upstream-guard"}),
                namespaces=ANYWHERE,
            ),
            False,
        ),
        (Peer(cidr="0.0.0.0/0"), False),
    ],
)
def test_rules_for_the_operator(peer: Peer, blocked: bool) -> None:
    guarded = state(policies=(policy(allow(peer)),), guard=GUARDED)
    assert ("policy-blocks-operator" in risks(guarded)) is blocked
    assert "policy-blocks-operator" not in risks(state(policies=(policy(allow(peer)),)))


def test_the_remedy_lets_the_operator_in() -> None:
    guarded = state(
        policies=(policy(allow(OTHERS)),), guard=GUARDED, service=service(service_port())
    )
    found = only("policy-blocks-operator", guarded)
    assert found.remedy is not None
    spec = found.remedy.patch["spec"]  # type: ignore[call-overload]
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "upstream-guard-system"}}
    assert spec["ingress"] == [
        {
            "from": [{"namespaceSelector": selector}],
            "ports": [{"protocol": "TCP", "port": 8080}],
        }
    ]
