"""Floors: the whole Service, and the parts of it that traffic may be confined to."""

from dataclasses import replace

import pytest

from upstream_guard.core.model import Node, ObjectRef, Pod, Service
from upstream_guard.core.scene import floors_of

SERVICE = Service(ObjectRef("prod", "shop"), "s1", {"app": "shop"}, "ClusterIP", "10.0.0.1", ())
NODES = {
    name: Node(name, zone, True, False) for name, zone in (("n1", "a"), ("n2", "a"), ("n3", "b"))
}


def pod(uid: str, node: str) -> Pod:
    return Pod(
        ref=ObjectRef("prod", uid),
        uid=uid,
        ip="198.18.0.1",
        node=node,
        labels={},
        created=0.0,
        template="t",
        owner=None,
        ports=(),
        readiness=None,
        has_exec_readiness=False,
        gated=True,
        gate=True,
        ready=True,
        containers_ready=True,
        containers_ready_since=0.0,
        ready_since=0.0,
        terminating=False,
    )


PODS = [pod("1", "n1"), pod("2", "n2"), pod("3", "n3"), pod("4", "")]


def parts(service: Service) -> dict[str, set[str]]:
    floors = floors_of(service, iter(PODS), 50, NODES)
    assert {f.percent for f in floors} == {50}
    assert floors[0].pods == {"1", "2", "3", "4"}
    return {f.name.rsplit(" on ")[-1]: set(f.pods) for f in floors[1:]}


def test_a_service_is_one_list():
    assert parts(SERVICE) == {}


@pytest.mark.parametrize("policy", ["internal_local", "external_local"])
def test_with_policy_local_each_node_has_its_own(policy):
    assert parts(replace(SERVICE, **{policy: True})) == {
        "node n1": {"1"},
        "node n2": {"2"},
        "node n3": {"3"},
    }


def test_with_topology_each_zone_has_its_own():
    assert parts(replace(SERVICE, zonal=True)) == {"zone a": {"1", "2"}, "zone b": {"3"}}


def test_nodes_that_cannot_be_seen_have_no_zone():
    floors = floors_of(replace(SERVICE, zonal=True), PODS, 50, {})
    assert len(floors) == 1


def test_no_pods_no_parts():
    assert len(floors_of(replace(SERVICE, internal_local=True), [], 50, NODES)) == 1
