"""How long stopping pods keep serving, for one gateway and for several."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.latency import Latencies, Measured
from upstream_guard.core.model import DrainPolicy
from upstream_guard.core.tuning import (
    CANARY_MARGIN,
    CLUSTER_IP,
    MEASURED_MARGIN,
    MIN_SAMPLES,
    Evidence,
    GatewayFacts,
    GatewayKind,
    advise_drain,
    canary_margin,
    recommended_patch,
    with_measurement,
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


# With measurements of the canary.


def found(detach: float, samples: int = 30, **changes: object) -> Measured:
    of = Latencies(samples, detach / 2, detach, detach, detach)
    return replace(Measured(of, Latencies(samples, 0.1, 0.1, 0.2, 0.2)), **changes)


def test_a_measurement_replaces_what_was_assumed() -> None:
    facts = with_measurement(SLOW, found(0.4))
    assert (facts.detach_seconds, facts.attach_seconds) == (0.4, 0.2)
    assert facts.evidence is Evidence.MEASURED
    advice = advise_drain(AUTO, [facts])
    assert (advice.pre_stop, advice.evidence) == (2, Evidence.MEASURED)
    assert advice.reason == (
        "preStop 2 s: slow (slow) may use a pod for 0.4 s after its deletion, and 0.62 s of margin "
        "(measured: 30 toggles of the canary, each right after another endpoint change, their maximum; "
        "with 26 % confidence 99 of 100 are not slower)"
    )


def test_few_samples_replace_nothing() -> None:
    facts = with_measurement(SLOW, found(0.4, MIN_SAMPLES - 1))
    assert replace(facts, measured=None) == SLOW
    assert facts.measured is not None


def test_not_measured_says_why() -> None:
    facts = with_measurement(SLOW, None, "no address is known")
    assert facts == replace(SLOW, canary="no address is known")


def test_an_admins_number_is_raised_and_never_lowered() -> None:
    said = replace(SLOW, evidence=Evidence.PROFILE)
    assert with_measurement(said, found(1.0)).detach_seconds == 5.0
    assert with_measurement(said, found(9.0)).detach_seconds == 9.0


def test_the_margin_shrinks_with_the_samples_to_what_every_pod_needs() -> None:
    margins = [canary_margin(found(1.15, n)) for n in (10, 30, 60, 100, 300)]
    assert margins == sorted(margins, reverse=True)
    assert margins[0] == pytest.approx(CANARY_MARGIN + 0.452, abs=0.001)
    assert margins[-1] == pytest.approx(CANARY_MARGIN, abs=0.03)
    assert canary_margin(found(10.0)) > canary_margin(found(1.0))


@pytest.mark.parametrize("samples", [10, 30, 300])
def test_kube_proxy_as_measured_in_the_lab_asks_for_two_seconds(samples: int) -> None:
    measured = with_measurement(CLUSTER_IP, found(1.154, samples))
    advice = advise_drain(AUTO, [ENVOY], cluster_ip_clients=True, kube_proxy=measured)
    assert advice.pre_stop == 2
    assert "kube-proxy, which picks the pods behind the ClusterIP," in advice.reason


def test_a_fast_kube_proxy_lets_proxies_in_front_of_it_be_fast() -> None:
    nginx = replace(CLUSTER_IP, name="edge", kind=GatewayKind.PROFILE, controller="nginx")
    quick = with_measurement(CLUSTER_IP, found(0.1, 60))
    assert advise_drain(AUTO, [nginx]).pre_stop == 2
    assert advise_drain(AUTO, [nginx], cluster_ip_clients=True, kube_proxy=quick).pre_stop == 1


def test_connections_that_only_the_app_can_end_are_told_and_not_waited_for() -> None:
    kept = Latencies(9, 60.0, 70.0, 75.0, 75.0)
    facts = with_measurement(SLOW, found(1.0, kept=kept, sticks=True))
    assert advise_drain(AUTO, [facts]).pre_stop == 2
    assert "kept-alive connections stay until the app ends them" in facts.source
    ended = with_measurement(SLOW, found(1.0, kept=Latencies(9, 1.0, 2.0, 3.0, 3.0)))
    assert advise_drain(AUTO, [ended]).pre_stop == 5
    assert "kept-alive connections ended within 3 s" in ended.source


@pytest.mark.parametrize(
    ("need", "before", "after"),
    [
        (1.6, None, 2),
        (1.9, 2, 2),
        (2.3, 2, 2),  # the margin is thinner than wished, and still whole where it matters
        (2.5, 2, 3),
        (1.9, 3, 3),  # too near to the edge
        (1.7, 3, 2),
        (0.5, 3, 1),
        (6.0, 2, 6),
    ],
)
def test_small_differences_change_nothing(need: float, before: int | None, after: int) -> None:
    measured = with_measurement(SLOW, found(0.4))
    facts = replace(measured, detach_seconds=need - 0.6, margin_seconds=0.6)
    advice = advise_drain(AUTO, [facts], before=before)
    assert advice.pre_stop == after
    kept = after != math.ceil(need)
    assert ("is too near to" in advice.reason) == kept
    assert facts.detach_seconds + CANARY_MARGIN <= advice.pre_stop


def test_what_is_not_measured_has_no_memory() -> None:
    assert advise_drain(AUTO, [SLOW], before=8).pre_stop == 7


def test_the_limit_counts_for_measured_numbers_as_well() -> None:
    facts = with_measurement(SLOW, found(90.0))
    advice = advise_drain(AUTO, [facts])
    assert advice.pre_stop == 60
    assert advice.shortfall > 30


def test_the_reason_fits_the_annotation_of_a_pod() -> None:
    facts = with_measurement(SLOW, found(1.0, 298, sticks=True))
    assert len(advise_drain(AUTO, [facts]).reason) < 470
