"""How long stopping pods keep serving, for one gateway and for several."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.model import DrainPolicy
from upstream_guard.core.tuning import (
    CLUSTER_IP,
    MEASURED_MARGIN,
    Evidence,
    GatewayFacts,
    advise_drain,
    recommended_patch,
)

AUTO = DrainPolicy()


def gateway(name: str, detach: float, **changes: object) -> GatewayFacts:
    facts = GatewayFacts(name, name, detach, detach, False, Evidence.BUILTIN, f"{name}'s code")
    return replace(facts, **changes)


ENVOY = gateway("contour", 0.03, margin_seconds=MEASURED_MARGIN)
SLOW = gateway("slow", 5.0)


def test_measured_gateway_gets_a_small_margin() -> None:
    advice = advise_drain(AUTO, [ENVOY])
    assert (advice.pre_stop, advice.evidence, advice.shortfall) == (1, Evidence.BUILTIN, 0.0)
    assert advice.reason == (
        "preStop 1 s: contour (contour) may use a pod for 0.03 s after its deletion, and 0.5 s of "
        "margin (builtin: contour's code)"
    )


def test_without_a_gateway_kube_proxy_is_assumed() -> None:
    advice = advise_drain(AUTO, [])
    assert advice.pre_stop == 2
    assert "no gateway was found, so kube-proxy is assumed" in advice.reason
    assert "1.19 s" in advice.reason


def test_the_slowest_of_several_counts() -> None:
    advice = advise_drain(AUTO, [ENVOY, SLOW])
    assert advice.pre_stop == 7
    assert "slow (slow), the slowest of 2 gateways," in advice.reason


def test_kube_proxy_counts_where_the_gateway_goes_through_it() -> None:
    assert advise_drain(AUTO, [replace(ENVOY, via_cluster_ip=True)]).pre_stop == 2
    assert advise_drain(AUTO, [ENVOY], cluster_ip_clients=True).pre_stop == 2
    assert advise_drain(AUTO, [SLOW], cluster_ip_clients=True).pre_stop == 7


def test_a_measurement_goes_before_the_assumption_of_kube_proxy() -> None:
    measured = replace(ENVOY, detach_seconds=0.2, via_cluster_ip=True, evidence=Evidence.MEASURED)
    assert advise_drain(AUTO, [measured]).pre_stop == 1


def test_max_pre_stop_caps_and_says_what_is_missing() -> None:
    advice = advise_drain(AUTO, [gateway("aws-alb", 70.0)])
    assert advice.pre_stop == 60
    assert advice.shortfall == pytest.approx(11.5)
    assert "72 s would be needed but maxPreStop is 60 s" in advice.reason
    assert "raise spec.drain.maxPreStop" in advice.reason


def test_the_users_number_wins_and_is_judged() -> None:
    enough = advise_drain(DrainPolicy(pre_stop=8.5), [SLOW])
    assert (enough.pre_stop, enough.evidence, enough.shortfall) == (9, Evidence.SPEC, 0.0)
    assert enough.reason == "preStop 9 s is set in spec.drain.preStop"
    short = advise_drain(DrainPolicy(pre_stop=3), [SLOW])
    assert short.pre_stop == 3
    assert short.shortfall == pytest.approx(3.5)
    assert "wants 7 s with a margin" in short.reason


@pytest.mark.parametrize(
    ("configured", "own", "grace"),
    [(None, 30, 32), (None, 0, 2), (45.0, 30, 45), (20.0, 30, 30), (1.0, 1, 3), (10.2, 5, 11)],
)
def test_grace_period(configured: float | None, own: int, grace: int) -> None:
    advice = advise_drain(DrainPolicy(grace_period=configured), [])
    assert advice.pre_stop == 2
    assert advice.grace_for(own) == grace


def test_recommended_patch_reaches_every_container() -> None:
    advice = advise_drain(AUTO, [SLOW])
    patch = json.loads(recommended_patch(advice, ["app", "sidecar"], 20))
    pod = patch["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 27
    assert pod["containers"] == [
        {"name": name, "lifecycle": {"preStop": {"sleep": {"seconds": 7}}}}
        for name in ("app", "sidecar")
    ]


def test_no_hook_is_recommended_where_none_is_needed() -> None:
    advice = advise_drain(DrainPolicy(pre_stop=0), [])
    assert (
        "containers"
        not in json.loads(recommended_patch(advice, ["app"]))["spec"]["template"]["spec"]
    )


FACTS = st.builds(
    gateway,
    st.sampled_from(["a", "b", "c"]),
    st.floats(0, 600),
    via_cluster_ip=st.booleans(),
    evidence=st.sampled_from(Evidence),
)
POLICIES = st.builds(
    DrainPolicy,
    pre_stop=st.none() | st.floats(0, 600),
    grace_period=st.none() | st.floats(1, 3600),
    max_pre_stop=st.floats(1, 600),
)


@given(
    policy=POLICIES,
    gateways=st.lists(FACTS, max_size=3, unique_by=lambda g: g.name),
    own=st.integers(0, 3600),
)
def test_what_always_holds(policy: DrainPolicy, gateways: list[GatewayFacts], own: int) -> None:
    advice = advise_drain(policy, gateways)
    assert advice == advise_drain(policy, reversed(gateways))
    grace = advice.grace_for(own)
    assert grace >= own
    assert grace >= advice.pre_stop  # the API server refuses a longer sleep
    if policy.pre_stop is None:
        assert advice.pre_stop <= policy.max_pre_stop
        covered = advice.pre_stop + advice.shortfall + 1e-6
        assert all(covered >= g.needed_seconds for g in gateways)


def test_cluster_ip_is_two_seconds() -> None:
    assert CLUSTER_IP.needed_seconds == pytest.approx(1.69)
