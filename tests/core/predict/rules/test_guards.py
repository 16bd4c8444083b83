"""Rules about our own resources."""

from typing import Any

import pytest
from tests.core.predict.factories import SHOP, ref, service, workload

from upstream_guard.core.model import Guard, ObjectRef, Upstream
from upstream_guard.core.predict.rules import inspect_guards
from upstream_guard.core.predict.state import Refused, World
from upstream_guard.core.predict.window import Finding, Severity


def guard(name: str = "shop", target: str = "shop", **fields: Any) -> Guard:
    return Guard(ref=ref(name), uid="u", generation=1, created=0.0, service=target, **fields)


def look(*guards: Guard, **fields: Any) -> tuple[Finding, ...]:
    return inspect_guards(World(guards=guards, services={SHOP: service()}, **fields))


def test_a_guard_that_fits_is_fine() -> None:
    assert look(guard()) == ()


@pytest.mark.parametrize(
    ("of", "complete", "expected"),
    [
        (guard(target="shopp"), True, Severity.ERROR),
        (guard(target="shopp"), False, Severity.WARNING),
        (Guard(ref("g", "other"), "u", 1, 0.0, "shop"), False, Severity.INFO),
    ],
)
def test_a_service_that_is_not_there(of: Guard, complete: bool, expected: Severity) -> None:
    (found,) = look(of, complete=complete)
    assert (found.risk, found.path) == ("guard-not-accepted", "spec.targetRef.name")
    assert found.severity is expected


def test_a_misspelt_name_is_pointed_out_and_a_namespace_with_workloads_is_known() -> None:
    (found,) = look(guard(target="shopp"))
    assert "(there is `shop`)" in found.message
    (found,) = inspect_guards(World(guards=(guard(),), workloads=(workload(),)))
    assert found.severity is Severity.WARNING


@pytest.mark.parametrize(
    ("of", "path"),
    [
        (guard(section="nope"), "spec.targetRef.sectionName"),
        (guard(upstreams=(Upstream("a.example.org", 80),)), "spec.upstreams"),
    ],
)
def test_a_guard_that_does_not_fit_its_service(of: Guard, path: str) -> None:
    (found,) = look(of)
    assert (found.severity, found.path) == (Severity.ERROR, path)
    assert not found.message.startswith("spec.")


def test_of_two_guards_the_later_one_is_told() -> None:
    (found,) = look(guard("b"), guard("a"))
    assert found.ref == ref("b")
    assert "already speaks for" in found.message


def test_each_fault_is_a_finding_at_its_field() -> None:
    broken = Refused("UpstreamGuard", SHOP, (("spec.a", "is wrong"), ("", "and 3 more")))
    profile = Refused("GatewayProfile", ObjectRef("", "edge"), (("spec.match", "is required"),))
    found = inspect_guards(World(refused=(broken, profile)))
    assert [(f.risk, f.path, f.message) for f in found] == [
        ("invalid-guard", "spec.a", "spec.a: is wrong"),
        ("invalid-guard", "", "and 3 more"),
        ("invalid-gateway-profile", "spec.match", "spec.match: is required"),
    ]
