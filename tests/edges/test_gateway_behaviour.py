"""The model of a gateway that predictions are made with: latencies, answers, retries."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.causes import Cause
from upstream_guard.core.latency import Latencies, Measured
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.tuning import (
    CLUSTER_IP,
    Evidence,
    GatewayFacts,
    GatewayKind,
    GatewayProfile,
    with_measurement,
)
from upstream_guard.gateways import PROFILES, discover
from upstream_guard.gateways.behaviour import model_of

SHOP = ObjectRef("prod", "shop")
PLAIN = ("nginx", "haproxy", "caddy", "httpd", "envoy", "cluster-ip")


def built_in(controller: str) -> Gateway:
    return model_of(PROFILES[controller].facts("edge", GatewayKind.INGRESS_CLASS))


def profiled(profile: GatewayProfile) -> Gateway:
    (facts,) = discover(SHOP, [], {}, {}, [replace(profile, services=frozenset({SHOP}))])
    return model_of(facts)


def numbers(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.low, estimate.value, estimate.high


@pytest.mark.parametrize("controller", PLAIN)
def test_who_sends_to_a_cluster_ip_is_as_fast_as_kube_proxy(controller: str) -> None:
    gateway = built_in(controller)
    assert gateway.throttle == 1.0
    assert numbers(gateway.detach) == numbers(gateway.attach) == (0.02, 0.03, 0.06)
    assert gateway.behaviour.serves_terminating
    assert gateway.behaviour.reads_ready


def test_where_no_gateway_was_found_kube_proxy_stands_in() -> None:
    gateway = model_of(CLUSTER_IP)
    assert gateway.throttle == 1.0
    assert gateway.answer(Cause.REFUSED).note == "not known for this gateway"


def test_contour_as_measured() -> None:
    gateway = built_in("contour")
    assert numbers(gateway.detach) == (0.002, 0.005, 0.03)
    assert numbers(gateway.attach) == (0.017, 0.025, 0.075)
    assert gateway.throttle == 0.0
    assert not gateway.behaviour.serves_terminating


@pytest.mark.parametrize(
    "controller", sorted(set(PROFILES) - {*PLAIN, "contour"}), ids=lambda name: name
)
def test_others_take_up_to_their_number(controller: str) -> None:
    gateway, profile = built_in(controller), PROFILES[controller]
    seconds = profile.detach_seconds
    assert numbers(gateway.detach) == (0.0, seconds / 2, seconds)
    assert gateway.attach.high == profile.attach_seconds
    assert gateway.throttle == 0.0
    assert gateway.detach.evidence is profile.evidence


@given(
    controller=st.sampled_from([*PROFILES, "own"]),
    detach=st.none() | st.floats(0, 600),
    attach=st.none() | st.floats(0, 600),
    cluster_ip=st.none() | st.booleans(),
)
def test_what_an_admin_says_is_taken_as_it_is(
    controller: str, detach: float | None, attach: float | None, cluster_ip: bool | None
) -> None:
    said = GatewayProfile(
        "mine",
        controller=controller,
        detach_seconds=detach,
        attach_seconds=attach,
        via_cluster_ip=cluster_ip,
    )
    gateway = profiled(said)
    for estimate in (gateway.detach, gateway.attach):
        assert 0 <= estimate.low <= estimate.value <= estimate.high
    if detach is not None:
        assert numbers(gateway.detach) == (detach, detach, detach)
        assert gateway.detach.evidence is Evidence.PROFILE
    if detach is not None or attach is not None:
        usual = profiled(replace(said, detach_seconds=None, attach_seconds=None))
        assert gateway.throttle == 0.0 or gateway.attach == usual.attach


def test_a_wait_is_neither_lost_nor_counted_twice_when_one_latency_is_given() -> None:
    attach_given = profiled(GatewayProfile("mine", controller="nginx", attach_seconds=0.2))
    assert (attach_given.attach.value, attach_given.throttle) == (0.2, 0.0)
    assert attach_given.attach.evidence is Evidence.PROFILE
    assert numbers(attach_given.detach) == (0.5, 1.03, 1.19)
    detach_given = profiled(GatewayProfile("mine", controller="nginx", detach_seconds=0.2))
    assert numbers(detach_given.attach) == (0.06, 0.5, 1.1)


def test_a_gateway_may_be_told_to_use_the_cluster_ip() -> None:
    gateway = profiled(GatewayProfile("mine", controller="ingress-nginx", via_cluster_ip=True))
    assert gateway.throttle == 1.0
    assert gateway.behaviour.serves_terminating
    assert gateway.behaviour.refused_retries == 0
    assert not gateway.answer(Cause.REFUSED).retried


def test_a_profile_s_time_outs_and_retries_go_before_the_product_s() -> None:
    said = GatewayProfile(
        "mine", controller="contour", connect_timeout=1.0, read_timeout=5.0, keepalive_idle=0.0,
        retries=4,
    )  # fmt: skip
    behaviour = profiled(said).behaviour
    assert (behaviour.connect_timeout, behaviour.read_timeout) == (1.0, 5.0)
    assert (behaviour.keepalive_idle, behaviour.refused_retries) == (0.0, 4)
    assert built_in("contour").behaviour.read_timeout == 15.0


@pytest.mark.parametrize(
    ("controller", "cause", "status"),
    [
        ("nginx", Cause.REFUSED, 502),
        ("nginx", Cause.CONNECT_TIMEOUT, 504),
        ("haproxy", Cause.REFUSED, 503),
        ("haproxy", Cause.KEEPALIVE_RACE, 0),
        ("contour", Cause.REFUSED, 503),
        ("contour", Cause.STALE_UPSTREAM, 503),
        ("contour", Cause.MALFORMED, 502),
        ("traefik", Cause.TLS, 500),
        ("caddy", Cause.CONNECT_TIMEOUT, 502),
        ("skipper", Cause.NO_ENDPOINTS, 502),
        ("f5-nginx", Cause.NO_ENDPOINTS, 502),
        ("ingress-nginx", Cause.NO_ENDPOINTS, 503),
        ("nginx", Cause.NO_ENDPOINTS, 504),
        ("aws-alb", Cause.PROTOCOL_MISMATCH, 505),
        ("httpd", Cause.REFUSED, 503),
        ("httpd", Cause.DNS, 500),
    ],
)
def test_status_by_gateway_and_cause(controller: str, cause: Cause, status: int) -> None:
    assert built_in(controller).answer(cause).status == status


def test_an_answer_that_was_not_tested_says_so() -> None:
    for name in PROFILES:
        for cause, answer in built_in(name).behaviour.answers.items():
            assert answer.evidence in {Evidence.BUILTIN, Evidence.ASSUMED}
            doubted = any(word in answer.note for word in ("not tested", "users reported"))
            assert doubted == (answer.evidence is Evidence.ASSUMED), (name, cause, answer)


@pytest.mark.parametrize(
    ("controller", "retries", "hidden"),
    [
        ("nginx", 0, False),
        ("haproxy", 3, True),
        ("envoy", 0, False),
        ("contour", 0, False),
        ("caddy", 0, False),
        ("traefik", 0, False),
        ("haproxytech", 0, False),
        ("ingress-nginx", 2, True),
        ("f5-nginx", 2, True),
        ("istio", 2, True),
        ("skipper", 1, True),
    ],
)
def test_retries_of_refused_connections(controller: str, retries: int, hidden: bool) -> None:
    gateway = built_in(controller)
    assert gateway.behaviour.refused_retries == retries
    assert gateway.answer(Cause.REFUSED).retried == hidden
    assert gateway.answer(Cause.NO_ENDPOINTS).retried is False


def test_resets_are_retried_by_nginx_only() -> None:
    retrying = {name for name in PROFILES if built_in(name).answer(Cause.RESET).retried}
    assert retrying == {"ingress-nginx", "f5-nginx"}


# As the canary measured.


def measured(facts: GatewayFacts, p50: float, p99: float, samples: int = 40) -> Gateway:
    detach = Latencies(samples, p50, p99, p99, p99)
    attach = Latencies(samples, p50 / 2, p99 / 2, p99 / 2, p99 / 2)
    return model_of(with_measurement(facts, Measured(detach, attach)))


def test_a_measured_gateway_has_the_distribution_that_was_measured() -> None:
    slow = PROFILES["traefik"].facts("edge", GatewayKind.INGRESS_CLASS)
    gateway = measured(slow, 0.8, 1.0)
    assert numbers(gateway.detach) == pytest.approx((0.6, 0.8, 1.0))
    assert numbers(gateway.attach) == pytest.approx((0.3, 0.4, 0.5))
    assert gateway.detach.evidence is Evidence.MEASURED
    assert numbers(measured(slow, 0.8, 1.0, samples=3).detach) == numbers(model_of(slow).detach)


def test_kube_proxy_that_was_measured_as_it_is_known_keeps_its_model() -> None:
    gateway = measured(CLUSTER_IP, 1.03, 1.15)
    assert gateway.throttle == 1.0
    assert numbers(gateway.detach) == (0.02, 0.03, 0.06)
    assert gateway.facts.detach_seconds == 1.15


@pytest.mark.parametrize(("p50", "p99"), [(0.03, 0.1), (4.0, 9.0)])
def test_what_picks_the_pods_otherwise_than_kube_proxy_is_as_it_was_measured(
    p50: float, p99: float
) -> None:
    gateway = measured(CLUSTER_IP, p50, p99)
    assert gateway.throttle == 0.0
    assert gateway.detach.value == p50
    assert gateway.behaviour.serves_terminating
