"""What a situation amounts to: states, conditions, advice; and the same in, the same out."""

from dataclasses import replace

import pytest

from upstream_guard.core.acceptance import Acceptance
from upstream_guard.core.admission import Absence, Outcome
from upstream_guard.core.assessment import (
    Situation,
    assess,
    assess_rejected,
    injected_pre_stop,
    missing_sleep,
    recommendation,
)
from upstream_guard.core.causes import Cause
from upstream_guard.core.health import Health, Verdict
from upstream_guard.core.model import (
    ContainerReadiness,
    DrainMode,
    DrainPolicy,
    Guard,
    ListMode,
    ObjectRef,
    Pod,
    Service,
    UpstreamListPolicy,
)
from upstream_guard.core.names import ANNOTATION_INJECTED
from upstream_guard.core.predict.window import Severity
from upstream_guard.core.reasons import ConditionType, Reason
from upstream_guard.core.status import ConditionStatus, EndpointState, RiskStatus
from upstream_guard.core.tuning import DrainAdvice, Evidence

GUARD = Guard(ObjectRef("prod", "shop"), "g1", 7, 0.0, "shop")
SERVICE = Service(ObjectRef("prod", "shop"), "s1", {"app": "shop"}, "ClusterIP", "10.0.0.1", ())
SERVING = Health(Verdict.SERVING, ever_served=True)
FAILING = Health(Verdict.FAILING, cause=Cause.REFUSED, detail="connection refused")


def pod(uid: str, **changes) -> Pod:
    base = Pod(
        ref=ObjectRef("prod", uid),
        uid=uid,
        ip="198.18.0.1",
        node="n1",
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
        pre_stop="sleep 5s",
        containers=(ContainerReadiness((), None, "app"),),
    )
    return replace(base, **changes)


def situation(*pods: Pod, health: Health = SERVING, **changes) -> Situation:
    found = pods or (pod("a"), pod("b"))
    base = Situation(
        guard=GUARD,
        service=SERVICE,
        pods=found,
        healths={p.uid: health for p in found},
        outcome=Outcome(()),
        listed=frozenset(p.uid for p in found),
        gateways=(),
        advice=DrainAdvice(5, None, "preStop 5 s: because", Evidence.BUILTIN),
        service_served=True,
        workload="deployment/shop",
    )
    return replace(base, **changes)


def condition(of: Situation, kind: ConditionType):
    found = next(c for c in assess(of).conditions if c.type is kind)
    return found.status, found.reason, found.message


def out(uid: str, reason: Reason, *, overdue: bool = False) -> Outcome:
    return Outcome((), (Absence(uid, reason, "refused", Cause.REFUSED, overdue),))


def guarded(**changes) -> Guard:
    return replace(GUARD, **changes)


def test_all_is_well():
    reasons = {c.type: (c.status.value, c.reason) for c in assess(situation()).conditions}
    assert reasons == {
        ConditionType.ACCEPTED: ("True", Reason.ACCEPTED),
        ConditionType.PROGRAMMED: ("True", Reason.PROGRAMMED),
        ConditionType.HEALTHY: ("True", Reason.ALL_SERVING),
        ConditionType.AT_RISK: ("False", Reason.NO_RISK),
    }
    assert {c.observed_generation for c in assess(situation()).conditions} == {7}


def test_nothing_new_is_the_same_status():
    assert assess(situation()) == assess(situation())


@pytest.mark.parametrize(
    ("one", "outcome", "health", "state"),
    [
        (pod("a", terminating=True), Outcome(()), SERVING, EndpointState.DRAINING),
        (pod("a"), out("a", Reason.ENDPOINT_EJECTED), FAILING, EndpointState.EJECTED),
        (pod("a"), out("a", Reason.ENDPOINT_WAITING), Health(), EndpointState.PENDING),
        (pod("a"), out("a", Reason.ENDPOINT_KEPT_OUT), FAILING, EndpointState.PENDING),
        (
            pod("a"),
            out("a", Reason.ENDPOINT_KEPT_OUT, overdue=True),
            FAILING,
            EndpointState.KEPT_OUT,
        ),
        (pod("a"), Outcome(()), FAILING, EndpointState.FAILING),
        (pod("a"), Outcome(()), Health(), EndpointState.UNKNOWN),
        (pod("a"), Outcome(()), SERVING, EndpointState.SERVING),
    ],
)
def test_states_of_an_endpoint(one, outcome, health, state):
    (endpoint,) = assess(situation(one, outcome=outcome, health=health)).endpoints
    assert endpoint.state is state
    assert bool(endpoint.cause) == (health is FAILING)


def test_addresses_of_both_families():
    pods = pod("a", ip="198.18.0.1"), pod("b", ip="2001:db8::1"), pod("c")
    endpoints = assess(situation(*pods, ports={"a": 80, "b": 80})).endpoints
    assert [e.address for e in endpoints] == ["198.18.0.1:80", "[2001:db8::1]:80", "198.18.0.1"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"service": replace(SERVICE, publish_not_ready=True)}, Reason.PUBLISH_NOT_READY_ADDRESSES),
        (
            {"guard": guarded(upstream_list=UpstreamListPolicy(ListMode.OBSERVE))},
            Reason.OBSERVING,
        ),
        ({"outcome": Outcome((), blind=True)}, Reason.BLIND),
    ],
)
def test_why_nothing_is_programmed(changes, reason):
    status, why, _ = condition(situation(**changes), ConditionType.PROGRAMMED)
    assert (status, why) == (ConditionStatus.FALSE, reason)


def test_pods_younger_than_the_guard_without_its_gate_point_to_the_webhook():
    old, young = pod("a", gated=False, created=5.0), pod("b", gated=False, created=500.0)
    guard = guarded(created=100.0)
    _, _, message = condition(situation(old, young, guard=guard), ConditionType.PROGRAMMED)
    assert "2 of 2 pods have no gate" in message
    assert "1 of them younger than the guard" in message
    _, _, alone = condition(situation(old, guard=guard), ConditionType.PROGRAMMED)
    assert "webhook" not in alone


def test_pods_without_the_gate_and_the_command_that_adopts_them():
    one = situation(pod("a"), pod("b", gated=False), pod("c", gated=False, terminating=True))
    status, reason, message = condition(one, ConditionType.PROGRAMMED)
    assert (status, reason) == (ConditionStatus.FALSE, Reason.UNGATED_PODS)
    assert message.startswith("1 of 2 pods")
    assert "kubectl -n prod rollout restart deployment/shop" in message


@pytest.mark.parametrize(
    ("one", "status", "reason"),
    [
        (situation(pod("a", terminating=True)), "False", Reason.NO_ENDPOINTS),
        (situation(unresolved="no such port"), "Unknown", Reason.PROBE_UNRESOLVED),
        (situation(health=FAILING), "False", Reason.ENDPOINTS_FAILING),
        (situation(health=FAILING, service_served=False), "False", Reason.PROBE_NEVER_SUCCEEDED),
        (
            situation(health=FAILING, outcome=Outcome((), floors_reached=("Service prod/shop",))),
            "False",
            Reason.FLOOR_REACHED,
        ),
        (situation(health=Health()), "Unknown", Reason.PENDING),
    ],
)
def test_health(one, status, reason):
    assert condition(one, ConditionType.HEALTHY)[:2] == (status, reason)


def test_no_pods_at_all():
    empty = replace(situation(), pods=(), healths={}, workload="")
    assert condition(empty, ConditionType.HEALTHY)[1] is Reason.NO_ENDPOINTS
    assert assess(empty).endpoints == ()


BARE = pod("a", pre_stop=""), pod("b", pre_stop="")
INJECTED = {ANNOTATION_INJECTED: '{"preStop":{"sleepSeconds":2,"containers":["app"]}}'}


@pytest.mark.parametrize(
    ("one", "reason", "word"),
    [
        (
            situation(advice=DrainAdvice(5, None, "limited", Evidence.SPEC, 2.0)),
            Reason.DRAIN_TOO_SHORT,
            "limited",
        ),
        (
            situation(pod("a", pre_stop="sleep 2s, sleep 9s"), pod("b")),
            Reason.DRAIN_TOO_SHORT,
            "1 of 2 pods have a preStop hook of their own that sleeps only 2 s, and 5 s",
        ),
        (
            situation(*BARE, guard=guarded(drain=DrainPolicy(DrainMode.OFF))),
            Reason.DRAIN_NOT_ENFORCED,
            "5 s are needed",
        ),
        (situation(*BARE), Reason.PODS_WITHOUT_DRAIN, "rollout restart deployment/shop"),
        (situation(pod("a")), Reason.SINGLE_ENDPOINT, "single"),
    ],
)
def test_risks(one, reason, word):
    status, why, message = condition(one, ConditionType.AT_RISK)
    assert (status, why) == (ConditionStatus.TRUE, reason)
    assert word in message


@pytest.mark.parametrize(
    "one",
    [
        pod("a", pre_stop="exec sleep 1"),
        pod("a", pre_stop="exec sh -c sleep 1s"),
        pod("a", pre_stop="httpGet /stop"),
        pod("a", pre_stop="sleep 2s", annotations=INJECTED),
        pod("a", pre_stop="sleep 2s", terminating=True),
    ],
)
def test_hooks_of_unknown_length_and_ours_are_not_called_too_short(one):
    assert situation(one, pod("b")).short == ()


def test_clusters_without_the_sleep_hook_matter_only_where_it_is_wanted():
    assert situation(*BARE, sleep_supported=False).sleepless
    assert not situation(*BARE).sleepless
    assert not situation(sleep_supported=False).sleepless
    recommend = guarded(drain=DrainPolicy(DrainMode.RECOMMEND))
    assert not situation(*BARE, guard=recommend, sleep_supported=False).sleepless


def test_a_patch_is_recommended_only_where_it_was_asked_for():
    recommend = guarded(drain=DrainPolicy(DrainMode.RECOMMEND))
    assert '"seconds":5' in recommendation(situation(*BARE, guard=recommend))
    assert recommendation(situation(guard=recommend)) == ""
    assert recommendation(situation(*BARE)) == ""


def test_a_rejected_guard_says_so_in_every_condition():
    no = Acceptance(False, Reason.INVALID, "spec.probe.interval: must be a duration")
    status = assess_rejected(GUARD.ref, 7, None, no)
    assert [(c.status.value, c.reason) for c in status.conditions] == [
        ("False", Reason.INVALID),
        ("False", Reason.NOT_ACCEPTED),
        ("Unknown", Reason.NOT_ACCEPTED),
        ("Unknown", Reason.NOT_ACCEPTED),
    ]


def risk(name: str, severity: Severity = Severity.WARNING) -> RiskStatus:
    return RiskStatus(name, severity, "deployment/shop", "", f"{name} it is", "kubectl …")


NO_HOOKS = situation(pod("a", pre_stop=""), pod("b", pre_stop=""))


@pytest.mark.parametrize(
    ("of", "risks", "reason", "words"),
    [
        (
            situation(),
            (risk("no-readiness-probe"),),
            Reason.WINDOWS_PREDICTED,
            "no-readiness-probe",
        ),
        (
            situation(),
            (risk("no-readiness-probe"), risk("one-node")),
            Reason.WINDOWS_PREDICTED,
            "and 1 more",
        ),
        (NO_HOOKS, (risk("no-readiness-probe"),), Reason.PODS_WITHOUT_DRAIN, "preStop"),
        (
            NO_HOOKS,
            (risk("target-port", Severity.ERROR), risk("no-pre-stop")),
            Reason.WINDOWS_PREDICTED,
            "target-port",
        ),
        (situation(pod("a")), (risk("single-replica"),), Reason.SINGLE_ENDPOINT, "single"),
    ],
)
def test_the_worst_of_the_standing_risks_is_the_condition(of, risks, reason, words) -> None:
    status, found, message = condition(replace(of, risks=risks), ConditionType.AT_RISK)
    assert (status, found) == (ConditionStatus.TRUE, reason)
    assert words in message


def test_only_hooks_of_ours_on_every_pod_count() -> None:
    ours = {ANNOTATION_INJECTED: '{"preStop": {}}'}
    injected = pod("a", annotations=ours)
    assert injected_pre_stop([injected, pod("b", pre_stop="sleep 2s", annotations=ours)]) == 2.0
    assert injected_pre_stop([injected, pod("b")]) == 0.0
    assert injected_pre_stop([injected, pod("b", pre_stop="", annotations=ours)]) == 0.0
    assert injected_pre_stop([]) == 0.0


@pytest.mark.parametrize(
    ("hook", "detach", "lacks"),
    [
        ("sleep 2s", 3.2, 2.0),
        ("sleep 2s, sleep 3s", 3.2, 2.0),
        ("", 1.19, 4.0),
        ("sleep 2s", 1.9, 0.0),  # only a margin is missing
        ("sleep 5s", 4.2, 0.0),
        ("exec", 3.2, 0.0),  # it lasts who knows how long
    ],
)
def test_a_hook_lacks_what_gateways_need_and_not_what_is_mere_margin(hook, detach, lacks):
    advice = DrainAdvice(4, None, "", Evidence.MEASURED, detach_seconds=detach)
    assert missing_sleep(pod("a", pre_stop=hook), advice) == lacks
