"""From what is known of a gateway to the model that predictions are made with."""

from dataclasses import replace
from typing import Final, TypeVar

from upstream_guard.core.latency import Latencies
from upstream_guard.core.predict.churn import MIN_SYNC_PERIOD
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.gateway import Behaviour, Gateway
from upstream_guard.core.tuning import Evidence, GatewayFacts
from upstream_guard.gateways import profile_of
from upstream_guard.gateways.profile import Profile

Value = TypeVar("Value")

_MEASURED: Final = "kube-proxy, measured on Kubernetes 1.35"

SYNC: Final = Estimate(0.02, 0.03, 0.06, Evidence.BUILTIN, f"{_MEASURED}: 0.02 to 0.06 s per sync")
"""From the start of a sync to the kernel's new rules; waiting for the sync is not part of it."""

WAIT_AND_DETACH: Final = Estimate(
    0.5, 1.03, 1.19, Evidence.BUILTIN, f"{_MEASURED}: up to 1.19 s during a rollout"
)
"""As `SYNC` and the wait together, where one of the two latencies was given and so has the wait in it."""

WAIT_AND_ATTACH: Final = Estimate(
    0.06, 0.5, 1.1, Evidence.BUILTIN, f"{_MEASURED}: 0.06 s when quiet, up to 1.1 s after another change"
)  # fmt: skip
"""As `WAIT_AND_DETACH`, for an endpoint that is added."""

_GIVEN: Final = frozenset({Evidence.PROFILE, Evidence.MEASURED})


def model_of(facts: GatewayFacts) -> Gateway:
    """The model of one gateway: its product's behaviour, its own latencies where they are known.

    A latency that an admin gave is taken as it is, one that was measured as the distribution it had,
    unless that is kube-proxy's as its model has it. Otherwise a gateway that sends
    to a ClusterIP is as fast as kube-proxy, and one that polls or batches takes between nothing and
    the profile's number.
    """
    profile = profile_of(facts.controller)
    measured = _as_modelled(facts)
    detach_given = facts.evidence in _GIVEN and not measured
    attach_given = facts.attach_seconds != profile.attach_seconds and not measured
    kube_proxy = facts.via_cluster_ip
    throttled = kube_proxy and not (detach_given or attach_given)
    detach, attach = _latencies(facts, profile, throttled=throttled)
    return Gateway(
        facts=facts,
        behaviour=_behaviour(facts, profile),
        attach=_given(facts, facts.attach_seconds, _attach(facts)) if attach_given else attach,
        detach=_given(facts, facts.detach_seconds, _detach(facts)) if detach_given else detach,
        throttle=MIN_SYNC_PERIOD if throttled else 0.0,
    )


def _as_modelled(facts: GatewayFacts) -> bool:
    """Whether kube-proxy was measured to be what its model says: the model knows when it waits, too."""
    found = facts.measured if facts.evidence is Evidence.MEASURED else None
    if found is None or not facts.via_cluster_ip:
        return False
    low, high = MIN_SYNC_PERIOD / 2, WAIT_AND_DETACH.high + MIN_SYNC_PERIOD / 2
    return low <= found.detach.p50 and found.decisive.p99 <= high


def _latencies(
    facts: GatewayFacts, profile: Profile, *, throttled: bool
) -> tuple[Estimate, Estimate]:
    """(detach, attach) where nobody gave them."""
    if facts.via_cluster_ip:
        return (SYNC, SYNC) if throttled else (WAIT_AND_DETACH, WAIT_AND_ATTACH)
    return (
        profile.detach or _up_to(facts, facts.detach_seconds),
        profile.attach or _up_to(facts, facts.attach_seconds),
    )


def _given(facts: GatewayFacts, seconds: float, found: Latencies | None) -> Estimate:
    evidence = facts.evidence if facts.evidence in _GIVEN else Evidence.PROFILE
    if found is None or facts.evidence is not Evidence.MEASURED:
        return Estimate.exactly(seconds, evidence, facts.source)
    low = max(0.0, 2 * found.p50 - found.p90)
    return Estimate(low, found.p50, found.p90, evidence, facts.source)


def _detach(facts: GatewayFacts) -> Latencies | None:
    return facts.measured.decisive if facts.measured else None


def _attach(facts: GatewayFacts) -> Latencies | None:
    return facts.measured.attach if facts.measured else None


def _up_to(facts: GatewayFacts, seconds: float) -> Estimate:
    """A change waits for the next poll or batch, so any time up to `seconds` is as likely."""
    return Estimate(0.0, seconds / 2, seconds, facts.evidence, facts.source)


def _behaviour(facts: GatewayFacts, profile: Profile) -> Behaviour:
    behaviour = profile.behaviour
    if facts.via_cluster_ip != profile.via_cluster_ip:
        behaviour = _without_retries(behaviour)
    if facts.via_cluster_ip:
        # kube-proxy does it for whoever sends to a ClusterIP (KEP-1669, stable in 1.28).
        behaviour = replace(behaviour, serves_terminating=True, reads_ready=True)
    return _overridden(behaviour, facts)


def _without_retries(behaviour: Behaviour) -> Behaviour:
    """Whether a retry meets another pod depends on who picks it, and here somebody else does."""
    answers = {cause: replace(a, retried=False) for cause, a in behaviour.answers.items()}
    return replace(behaviour, answers=answers, refused_retries=0)


def _overridden(behaviour: Behaviour, facts: GatewayFacts) -> Behaviour:
    """What a GatewayProfile says of time-outs, idle connections and retries goes before what is built in."""
    return replace(
        behaviour,
        connect_timeout=_either(facts.connect_timeout, behaviour.connect_timeout),
        read_timeout=_either(facts.read_timeout, behaviour.read_timeout),
        keepalive_idle=_either(facts.keepalive_idle, behaviour.keepalive_idle),
        refused_retries=_either(facts.retries, behaviour.refused_retries),
    )


def _either(said: Value | None, otherwise: Value) -> Value:
    return otherwise if said is None else said
