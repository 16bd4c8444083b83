"""Whether a guard is put in force: each reason, with words that name the field."""

from dataclasses import replace

import pytest

from upstream_guard.core.acceptance import judge
from upstream_guard.core.model import Guard, ObjectRef, Service, ServicePort, Upstream
from upstream_guard.core.reasons import Reason

GUARD = Guard(ObjectRef("prod", "shop"), "g1", 1, 100.0, "shop")
SERVICE = Service(
    ref=ObjectRef("prod", "shop"),
    uid="s1",
    selector={"app": "shop"},
    type="ClusterIP",
    cluster_ip="10.0.0.1",
    ports=(ServicePort("web", 80, 8080), ServicePort("", 81, 8081)),
)


def rival(name: str, created: float = 100.0) -> Guard:
    return replace(GUARD, ref=ObjectRef("prod", name), created=created)


def test_accepted():
    assert judge(GUARD, SERVICE, []).reason is Reason.ACCEPTED


def test_headless_services_have_endpoints_too():
    assert judge(GUARD, replace(SERVICE, cluster_ip="None"), []).accepted


@pytest.mark.parametrize(
    ("service", "reason", "word"),
    [
        (None, Reason.SERVICE_NOT_FOUND, "spec.targetRef.name"),
        (replace(SERVICE, type="ExternalName", selector={}), Reason.EXTERNAL_NAME, "ExternalName"),
        (replace(SERVICE, selector={}), Reason.NO_SELECTOR, "selector"),
    ],
)
def test_services_that_cannot_be_guarded(service, reason, word):
    acceptance = judge(GUARD, service, [])
    assert (acceptance.accepted, acceptance.reason) == (False, reason)
    assert word in acceptance.message


EXTERNAL = replace(GUARD, upstreams=(Upstream("api.example.com", 443),))


@pytest.mark.parametrize("address", ["10.0.0.1", "None"])
def test_upstreams_need_a_service_without_selector(address):
    bare = replace(SERVICE, selector={}, cluster_ip=address)
    assert judge(EXTERNAL, bare, []).accepted
    acceptance = judge(EXTERNAL, SERVICE, [])
    assert (acceptance.accepted, acceptance.reason) == (False, Reason.HAS_SELECTOR)
    assert "remove spec.upstreams" in acceptance.message
    assert "spec.upstreams" in judge(GUARD, bare, []).message


def test_an_alias_has_no_endpoints_with_upstreams_either():
    alias = replace(SERVICE, type="ExternalName", selector={})
    assert judge(EXTERNAL, alias, []).reason is Reason.EXTERNAL_NAME


@pytest.mark.parametrize("section", ["web", "80", "81"])
def test_a_port_is_named_by_name_or_number(section):
    assert judge(replace(GUARD, section=section), SERVICE, []).accepted


def test_an_unknown_port_is_answered_with_those_that_exist():
    acceptance = judge(replace(GUARD, section="x" * 5000), SERVICE, [])
    assert acceptance.reason is Reason.PORT_NOT_FOUND
    assert "web (80), (unnamed) (81)" in acceptance.message
    assert len(acceptance.message) < 1000


def test_of_two_guards_the_older_one_is_in_force_then_the_first_by_name():
    older, other = rival("zzz", 50.0), rival("aaa")
    assert judge(GUARD, SERVICE, [older]).reason is Reason.CONFLICTED
    assert "prod/zzz" in judge(GUARD, SERVICE, [older, other]).message
    assert judge(GUARD, SERVICE, [other]).reason is Reason.CONFLICTED
    assert judge(GUARD, SERVICE, [rival("zzz")]).accepted


def test_exactly_one_of_many_is_in_force():
    guards = [rival(name, created) for name in "abc" for created in (1.0,)] + [rival("d", 0.5)]
    accepted = [g for g in guards if judge(g, SERVICE, [r for r in guards if r != g]).accepted]
    assert accepted == [guards[-1]]


def test_an_older_guard_that_cannot_be_in_force_stands_in_nobodys_way():
    older = replace(GUARD, ref=ObjectRef("prod", "older"), created=1.0, section="no-such-port")
    younger = replace(GUARD, ref=ObjectRef("prod", "younger"), created=2.0)
    assert judge(younger, SERVICE, [older]).accepted
    assert not judge(older, SERVICE, [younger]).accepted
