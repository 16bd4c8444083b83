"""Guards and profiles from dicts: what is accepted, what is refused, and with which words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from upstream_guard.core.model import (
    DrainMode,
    ListMode,
    ObjectRef,
    ProbeProtocol,
    RouteProbeMode,
    RouteProbePolicy,
    Upstream,
    UpstreamTls,
)
from upstream_guard.resources.guard import parse_guard
from upstream_guard.resources.profile import parse_profile
from upstream_guard.resources.schema import (
    MAX_PROBLEMS,
    GuardError,
    Problem,
    ProfileError,
    ResourceError,
)

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data/resources"
EXAMPLES = sorted((ROOT / "deploy/examples").glob("*.yaml"))
REFUSED_GUARDS = yaml.safe_load((DATA / "refused_guards.yaml").read_text())
REFUSED_PROFILES = yaml.safe_load((DATA / "refused_profiles.yaml").read_text())


def guard_of(spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "upstreamguard.io/v1alpha1",
        "kind": "UpstreamGuard",
        "metadata": {
            "name": "shop",
            "namespace": "prod",
            "uid": "u-1",
            "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": long_names(spec),
    }


def long_names(spec: Any) -> Any:
    if spec == {"targetRef": {"name": "LONG"}}:
        return {"targetRef": {"name": "x" * 5000}}
    return spec


def test_shortest_guard_has_every_default() -> None:
    guard = parse_guard(guard_of({"targetRef": {"name": "shop"}}))
    assert guard.ref == ObjectRef("prod", "shop")
    assert guard.service_ref == ObjectRef("prod", "shop")
    assert (guard.uid, guard.generation, guard.created) == ("u-1", 3, 1767323045.0)
    assert guard.probe.protocol is None
    assert (guard.probe.interval, guard.probe.timeout) == (0.5, 0.5)
    assert guard.upstream_list.mode is ListMode.ENFORCE
    assert guard.drain.mode is DrainMode.ENFORCE
    assert (guard.drain.pre_stop, guard.drain.grace_period, guard.drain.max_pre_stop) == (
        None,
        None,
        60.0,
    )
    assert guard.detection.error_statuses == (502, 503, 504)
    assert guard.detection.route_probe == RouteProbePolicy(RouteProbeMode.AUTO, 3.0, 0.1, "", "")


def test_full_example_is_read_field_by_field() -> None:
    guard = parse_guard(yaml.safe_load((ROOT / "deploy/examples/full.yaml").read_text()))
    assert guard.section == "http"
    assert guard.probe.protocol is ProbeProtocol.HTTP
    assert guard.probe.port == 8080
    assert guard.probe.headers == (("X-Probe", "upstream-guard"),)
    assert guard.drain.pre_stop == 5.0
    assert guard.drain.grace_period == 45.0
    assert guard.detection.route_probe.path == "/healthz"


def test_timeout_follows_a_shorter_interval() -> None:
    guard = parse_guard(guard_of({"targetRef": {"name": "shop"}, "probe": {"interval": "200ms"}}))
    assert guard.probe.timeout == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1m30s", 90), ("1.5s", 1.5), ("0.25m", 15), ("100ms", 0.1)]
)
def test_durations(text: str, seconds: float) -> None:
    guard = parse_guard(
        guard_of({"targetRef": {"name": "shop"}, "probe": {"interval": text, "timeout": "50ms"}})
    )
    assert guard.probe.interval == pytest.approx(seconds)


def test_null_counts_as_left_out() -> None:
    spec = {
        "targetRef": {"name": "shop", "sectionName": None},
        "probe": None,
        "drain": {"mode": None},
    }
    assert parse_guard(guard_of(spec)) == parse_guard(guard_of({"targetRef": {"name": "shop"}}))


@pytest.mark.parametrize("case", REFUSED_GUARDS, ids=lambda c: c["name"])
def test_refused_guards(case: dict[str, Any]) -> None:
    with pytest.raises(GuardError) as refused:
        parse_guard(guard_of(case["spec"]))
    messages = [p.message for p in refused.value.problems if p.path == case["path"]]
    assert any(case["message"] in message for message in messages), refused.value.problems
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("case", REFUSED_PROFILES, ids=lambda c: c["name"])
def test_refused_profiles(case: dict[str, Any]) -> None:
    with pytest.raises(ProfileError) as refused:
        parse_profile({"metadata": {"name": "edge"}, "spec": case["spec"]})
    messages = [p.message for p in refused.value.problems if p.path == case["path"]]
    assert any(case["message"] in message for message in messages), refused.value.problems


def test_field_of_another_schema_is_named() -> None:
    with pytest.raises(GuardError) as refused:
        parse_guard(guard_of({"targetRef": {"name": "shop"}, "probe": {"tcpPort": 80}}))
    (problem,) = refused.value.problems
    assert problem.path == "spec.probe.tcpPort"
    assert "not a field of upstreamguard.io/v1alpha1" in problem.message


def test_another_version_or_kind_is_named() -> None:
    body = guard_of({"targetRef": {"name": "shop"}}) | {
        "apiVersion": "upstreamguard.io/v1",
        "kind": "Guard",
    }
    with pytest.raises(GuardError) as refused:
        parse_guard(body)
    assert [p.path for p in refused.value.problems] == ["apiVersion", "kind"]


def test_problems_are_bounded() -> None:
    spec = {"targetRef": {"name": "shop"}} | {f"field{n}" + "x" * 5000: n for n in range(500)}
    with pytest.raises(GuardError) as refused:
        parse_guard(guard_of(spec))
    assert len(refused.value.problems) == MAX_PROBLEMS
    assert refused.value.problems[-1].message == "and 481 more"
    assert len(str(refused.value)) < 1024
    assert str(refused.value).endswith(" more")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_parse(path: Path) -> None:
    for body in yaml.safe_load_all(path.read_text()):
        if body["kind"] == "UpstreamGuard":
            assert parse_guard(body).service in {"shop", "payments"}
        elif body["kind"] == "GatewayProfile":
            assert parse_profile(body).name


def test_upstreams() -> None:
    text = (ROOT / "deploy/examples/external.yaml").read_text()
    _, body = yaml.safe_load_all(text)
    assert parse_guard(body).upstreams == (
        Upstream("api.example.com", 443, tls=UpstreamTls("api.example.com", 14 * 86_400)),
        Upstream(srv="_https._tcp.backup.example.com", tls=UpstreamTls()),
    )


@pytest.mark.parametrize(
    ("upstream", "key"),
    [
        ({"host": "API.Example.com.", "port": 443}, "api.example.com:443"),
        ({"host": "203.0.113.7", "port": 80}, "203.0.113.7:80"),
        ({"host": "2001:DB8::7", "port": 80}, "[2001:db8::7]:80"),
        ({"srv": "_Http._TCP.example.com"}, "_http._tcp.example.com"),
    ],
)
def test_an_upstream_has_one_name(upstream: dict[str, Any], key: str) -> None:
    guard = parse_guard(guard_of({"targetRef": {"name": "shop"}, "upstreams": [upstream]}))
    assert [u.key for u in guard.upstreams] == [key]


def test_a_weight_is_refused_for_no_slice_can_hold_it() -> None:
    upstream = {"host": "api.example.com", "port": 443, "weight": 3}
    with pytest.raises(GuardError, match=r"upstreams\[0\]\.weight: is not a field"):
        parse_guard(guard_of({"targetRef": {"name": "shop"}, "upstreams": [upstream]}))


def test_profile_example() -> None:
    profile = parse_profile(
        yaml.safe_load((ROOT / "deploy/examples/gatewayprofile.yaml").read_text())
    )
    assert profile.services == {ObjectRef("default", "shop")}
    assert profile.via_cluster_ip is True
    assert profile.detach_seconds == pytest.approx(1.2)
    assert profile.bad_statuses == (502, 504)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["Auto", "500ms", "shop", "http"]),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "targetRef",
        "name",
        "kind",
        "group",
        "sectionName",
        "probe",
        "protocol",
        "port",
        "path",
        "host",
        "headers",
        "value",
        "service",
        "interval",
        "timeout",
        "failureThreshold",
        "upstreamList",
        "mode",
        "minHealthyPercent",
        "drain",
        "preStop",
        "gracePeriod",
        "maxPreStop",
        "detection",
        "minRequests",
        "errorStatuses",
        "requestsPerSecond",
        "match",
        "services",
    ]
)
SPECS = st.recursive(JSON, lambda c: st.lists(c) | st.dictionaries(FIELDS, c), max_leaves=12)


def problems_of(
    parse: Callable[[object], object], body: object, error: type[ResourceError]
) -> tuple[Problem, ...] | None:
    """None where the body was accepted."""
    try:
        parse(body)
    except error as refused:
        return refused.problems
    return None


BRIEF = settings(max_examples=60, deadline=None)


@BRIEF
@given(body=JSON | SPECS.map(lambda spec: {"spec": spec}) | st.dictionaries(st.text(), JSON))
def test_arbitrary_json_is_parsed_or_refused(body: object) -> None:
    for parse, error in ((parse_guard, GuardError), (parse_profile, ProfileError)):
        problems = problems_of(parse, body, error)
        assert problems is None or 0 < len(problems) <= MAX_PROBLEMS


@BRIEF
@given(target=SPECS, probe=SPECS, upstream_list=SPECS, drain=st.dictionaries(FIELDS, SPECS))
def test_arbitrary_fields_are_parsed_or_refused(
    target: object, probe: object, upstream_list: object, drain: object
) -> None:
    spec = {"probe": probe, "upstreamList": upstream_list, "drain": drain}
    for target_ref in (target, {"name": "shop"}):
        body = guard_of(spec | {"targetRef": target_ref})
        problems = problems_of(parse_guard, body, GuardError)
        assert problems is None or all(len(str(problem)) < 1000 for problem in problems)
