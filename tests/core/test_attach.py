"""Old pods that serve until the gateways use the new ones."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.attach import old_pods_cover_attach
from upstream_guard.core.model import AdmitVia, DrainPolicy, UpstreamListPolicy
from upstream_guard.core.tuning import CLUSTER_IP, Evidence, GatewayFacts, advise_drain

ENDPOINT = UpstreamListPolicy()
GATEWAY = UpstreamListPolicy(admit_via=AdmitVia.GATEWAY)


def gateway(detach: float, attach: float) -> GatewayFacts:
    return GatewayFacts("shop", "slow", detach, attach, False, Evidence.PROFILE, "its profile")


def pre_stop(policy: UpstreamListPolicy, *gateways: GatewayFacts, most: float = 60.0) -> int:
    drain = DrainPolicy(max_pre_stop=most)
    return advise_drain(drain, old_pods_cover_attach(policy, gateways)).pre_stop


def test_a_gateway_that_is_slow_to_attach_is_waited_for_only_where_that_is_asked():
    slow = gateway(detach=2.0, attach=10.0)
    assert pre_stop(ENDPOINT, slow) == 4
    assert pre_stop(GATEWAY, slow) == 12
    (covering,) = old_pods_cover_attach(GATEWAY, [slow])
    assert "to use a new pod" in covering.source


def test_the_slowest_of_all_counts_and_max_pre_stop_holds():
    both = gateway(2.0, 5.0), replace(gateway(7.0, 1.0), name="other")
    assert pre_stop(GATEWAY, *both) == 9
    assert pre_stop(GATEWAY, gateway(2.0, 300.0), most=60.0) == 60


@pytest.mark.parametrize("policy", [ENDPOINT, GATEWAY])
def test_no_gateway_found_changes_nothing(policy):
    assert old_pods_cover_attach(policy, ()) == ()
    assert old_pods_cover_attach(policy, (CLUSTER_IP,)) == (CLUSTER_IP,)


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_pod_is_never_stopped_earlier_for_it(detach, attach):
    made = gateway(detach, attach)
    assert pre_stop(GATEWAY, made) >= pre_stop(ENDPOINT, made)
