"""The decision over the upstream list: each safeguard, and the invariants for any scene."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.admission import Decision, Floor, Member, Outcome, Scene, View, decide
from upstream_guard.core.causes import Cause
from upstream_guard.core.health import Health, Verdict
from upstream_guard.core.leaving import Reserve
from upstream_guard.core.model import ListMode, ObjectRef, Pod, UpstreamListPolicy
from upstream_guard.core.reasons import Reason

NOW = 1000.0
SERVING = Health(Verdict.SERVING, NOW - 5, ever_served=True)
UNKNOWN = Health()


def failing(cause: Cause = Cause.REFUSED, since: float = NOW - 1) -> Health:
    return Health(Verdict.FAILING, since, cause=cause, detail=cause.value, failures=2)


def pod(
    uid: str, *, gate: bool | None = True, node: str = "n1", ready: bool = True, **changes
) -> Pod:
    base = Pod(
        ref=ObjectRef("prod", uid),
        uid=uid,
        ip="198.18.0.1",
        node=node,
        labels={"app": "shop"},
        created=NOW - 60,
        template="one",
        owner=("ReplicaSet", "shop-1"),
        ports=(),
        readiness=None,
        has_exec_readiness=False,
        gated=True,
        gate=gate,
        ready=ready and bool(gate),
        containers_ready=True,
        containers_ready_since=NOW - 5,
        ready_since=NOW - 5,
        terminating=False,
    )
    return replace(base, **changes)


def member(
    a_pod: Pod,
    health: Health,
    *,
    policy: UpstreamListPolicy | None = None,
    template_served: bool = True,
    service_served: bool = True,
    gate_changed_at: float = 0.0,
) -> Member:
    view = View(
        "prod/shop", policy or UpstreamListPolicy(), health, template_served, service_served
    )
    return Member(a_pod, (view,), gate_changed_at)


def scene(*members: Member, percent: int = 50, extra: tuple[Floor, ...] = ()) -> Scene:
    uids = frozenset(m.pod.uid for m in members)
    return Scene(members, (Floor("Service prod/shop", uids, percent), *extra))


def changes(outcome: Outcome) -> dict[str, bool]:
    return {d.uid: d.gate for d in outcome.decisions}


def only(outcome: Outcome) -> Decision:
    (decision,) = outcome.decisions
    return decision


def test_all_serving_and_listed_needs_nothing():
    outcome = decide(scene(*(member(pod(u), SERVING) for u in "abc")), NOW)
    assert outcome == Outcome(())


def test_one_that_refuses_is_ejected():
    members = [member(pod("a"), failing()), *(member(pod(u), SERVING) for u in "bc")]
    decision = only(decide(scene(*members), NOW))
    assert (decision.uid, decision.gate, decision.reason) == ("a", False, Reason.ENDPOINT_EJECTED)
    assert decision.cause is Cause.REFUSED
    assert "refused" in decision.message


def test_an_ejected_one_that_serves_is_restored():
    members = [member(pod("a", gate=False), SERVING), member(pod("b"), SERVING)]
    decision = only(decide(scene(*members), NOW))
    assert (decision.uid, decision.gate, decision.reason) == ("a", True, Reason.ENDPOINT_RESTORED)


def test_a_new_one_is_admitted_once_it_serves_and_not_before():
    peers = [member(pod(u), SERVING) for u in "bc"]
    fresh = pod("a", gate=None)
    waiting = decide(scene(member(fresh, UNKNOWN), *peers), NOW)
    assert waiting.decisions == ()
    assert waiting.absences[0].reason is Reason.ENDPOINT_WAITING
    assert waiting.revisit_at == fresh.containers_ready_since + 30
    admitted = only(decide(scene(member(fresh, SERVING), *peers), NOW))
    assert (admitted.gate, admitted.reason) == (True, Reason.ENDPOINT_ADMITTED)


def test_a_template_never_seen_to_serve_is_not_ejected():
    members = [member(pod("a"), failing(), template_served=False), member(pod("b"), SERVING)]
    assert decide(scene(*members), NOW).decisions == ()


@pytest.mark.parametrize("cause", [Cause.READ_TIMEOUT, Cause.CONNECT_TIMEOUT])
def test_slowness_ejects_an_outlier_but_never_a_crowd(cause):
    slow = failing(cause)
    outlier = [member(pod("a"), slow), *(member(pod(u), SERVING) for u in "bcd")]
    assert changes(decide(scene(*outlier), NOW)) == {"a": False}
    crowd = [*(member(pod(u), slow) for u in "abc"), *(member(pod(u), SERVING) for u in "de")]
    assert decide(scene(*crowd, percent=20), NOW).decisions == ()


def test_slow_ejections_stay_within_a_fifth():
    slow = failing(Cause.READ_TIMEOUT)
    names = [f"p{i}" for i in range(10)]
    members = [member(pod(u), slow if i < 4 else SERVING) for i, u in enumerate(names)]
    outcome = decide(scene(*members), NOW)
    assert sum(1 for d in outcome.decisions if not d.gate) == 2


def test_a_silent_node_is_one_outlier():
    silent = failing(Cause.CONNECT_TIMEOUT)
    lost = [member(pod(u, node="n2"), silent) for u in "ab"]
    alive = [member(pod(u), SERVING) for u in "cd"]
    assert changes(decide(scene(*lost, *alive), NOW)) == {"a": False, "b": False}


def test_blindness_ejects_nothing_and_takes_back():
    members = [member(pod("a", gate=False), failing()), *(member(pod(u), failing()) for u in "bc")]
    outcome = decide(scene(*members), NOW)
    assert outcome.blind
    assert changes(outcome) == {"a": True}
    assert only(outcome).reason is Reason.OPERATOR_BLIND


def test_a_pod_that_is_still_starting_does_not_make_the_blind_see():
    starting = member(pod("new", gate=None, containers_ready=False), UNKNOWN)
    outcome = decide(scene(starting, *(member(pod(u), failing()) for u in "abc")), NOW)
    assert outcome.blind
    assert outcome.decisions == ()


def test_a_ready_pod_not_yet_judged_leaves_blindness_open():
    fresh = member(pod("new"), UNKNOWN)
    assert not decide(scene(fresh, *(member(pod(u), failing()) for u in "abc")), NOW).blind


def test_a_single_endpoint_is_never_ejected():
    assert decide(scene(member(pod("a"), failing())), NOW).decisions == ()


def test_the_floor_holds_and_is_told():
    members = [*(member(pod(u), failing()) for u in "abc"), member(pod("d"), SERVING)]
    outcome = decide(scene(*members), NOW)
    assert sum(1 for d in outcome.decisions if not d.gate) == 2
    assert outcome.floors_reached == ("Service prod/shop",)


def test_the_floor_of_a_node_holds_as_well():
    node = Floor("Service prod/shop on node n2", frozenset("a"), 50)
    members = [member(pod("a", node="n2"), failing()), *(member(pod(u), SERVING) for u in "bc")]
    assert decide(scene(*members, extra=(node,)), NOW).decisions == ()


def test_the_floor_of_a_service_that_nobody_guards_holds_as_well():
    other = Floor("Service prod/admin", frozenset("a"), 50)
    members = [member(pod("a"), failing()), *(member(pod(u), SERVING) for u in "bc")]
    assert decide(scene(*members, extra=(other,)), NOW).decisions == ()


def test_below_the_floor_the_ejected_come_back():
    members = [
        member(pod("a", gate=False), failing(since=NOW - 9)),
        member(pod("b", gate=False), failing(Cause.READ_TIMEOUT)),
        member(pod("c"), SERVING),
    ]
    outcome = decide(scene(*members), NOW)
    assert changes(outcome) == {"b": True}
    assert only(outcome).reason is Reason.EJECTION_FLOOR_REACHED


def test_one_that_comes_back_makes_no_room_before_it_is_listed():
    members = [
        member(pod("a", gate=False), SERVING),
        member(pod("b"), failing()),
    ]
    assert changes(decide(scene(*members), NOW)) == {"a": True}
    restored = [member(pod("a", ready=False), SERVING), member(pod("b"), failing())]
    assert changes(decide(scene(*restored), NOW)) == {}
    listed = [member(pod("a"), SERVING), member(pod("b"), failing())]
    assert changes(decide(scene(*listed), NOW)) == {"b": False}


def test_terminating_and_ungated_pods_are_left_alone():
    members = [
        member(pod("a", terminating=True), failing()),
        member(pod("b", gated=False, gate=None, ready=True), failing()),
        *(member(pod(u), SERVING) for u in "cd"),
    ]
    assert decide(scene(*members), NOW).decisions == ()


def test_admit_timeout_admits_the_unseen_but_not_the_proven_bad():
    late = NOW + 60
    peers = [member(pod(u), SERVING) for u in "bcd"]
    blind = member(pod("a", gate=None), UNKNOWN, service_served=False)
    unseen = only(decide(scene(blind, *peers), late))
    assert (unseen.gate, unseen.reason) == (True, Reason.ADMITTED_UNSEEN)
    silent = member(pod("a", gate=None), failing(Cause.CONNECT_TIMEOUT))
    assert only(decide(scene(silent, *peers), late)).reason is Reason.ADMITTED_UNSEEN
    bad = decide(scene(member(pod("a", gate=None), failing()), *peers), late)
    assert bad.decisions == ()
    assert bad.absences[0].overdue


def test_a_recreated_service_is_listed_after_admit_timeout_rather_than_empty():
    members = [member(pod(u, gate=None), failing()) for u in "ab"]
    assert decide(scene(*members), NOW).decisions == ()
    outcome = decide(scene(*members), NOW + 60)
    assert sum(outcome.decisions[0].gate for _ in outcome.decisions) == 1


def test_observe_opens_every_gate():
    policy = UpstreamListPolicy(mode=ListMode.OBSERVE)
    members = [
        member(pod(u, gate=g), failing(), policy=policy) for u, g in (("a", None), ("b", False))
    ]
    assert changes(decide(scene(*members), NOW)) == {"a": True, "b": True}


def test_any_one_of_several_guards_may_keep_a_pod_out():
    shared = pod("a")
    views = (
        View("prod/one", UpstreamListPolicy(), SERVING, True, True),
        View("prod/two", UpstreamListPolicy(), failing(), True, True),
    )
    members = (Member(shared, views), *(member(pod(u), SERVING) for u in "bc"))
    assert changes(decide(scene(*members), NOW)) == {"a": False}


@pytest.mark.parametrize(("cause", "patience"), [(Cause.CONNECT_TIMEOUT, 1), (Cause.REFUSED, 3)])
def test_a_silent_kubelet_is_overruled_sooner_where_the_node_is_silent_too(cause, patience):
    stuck = replace(pod("a", gate=False), ready=True)
    peers = [member(pod(u), SERVING) for u in "bc"]
    young = member(stuck, failing(cause), gate_changed_at=NOW - patience + 0.5)
    early = decide(scene(young, *peers), NOW)
    assert early.decisions == ()
    assert early.revisit_at == NOW + 0.5
    old = member(stuck, failing(cause), gate_changed_at=NOW - patience - 0.5)
    assert only(decide(scene(old, *peers), NOW)).force_not_ready


def lost(made: Scene, *nodes: str) -> Outcome:
    return decide(replace(made, lost_nodes=frozenset(nodes)), NOW)


def test_the_endpoints_of_a_lost_node_go_at_once_and_without_the_kubelet():
    once = replace(SERVING, failures=1, cause=Cause.CONNECT_TIMEOUT)
    gone = [member(pod("a", node="n2"), once), member(pod("b", node="n2"), SERVING)]
    alive = [member(pod(u), SERVING) for u in "cd"]
    outcome = lost(scene(*gone, *alive), "n2")
    assert changes(outcome) == {"a": False, "b": False}
    assert {(d.reason, d.force_not_ready) for d in outcome.decisions} == {(Reason.NODE_LOST, True)}
    assert {a.reason for a in outcome.absences} == {Reason.NODE_LOST}


def test_the_floor_holds_for_a_lost_node_too():
    gone = [member(pod(u, node="n2"), SERVING) for u in "abc"]
    outcome = lost(scene(*gone, member(pod("d"), SERVING), percent=75), "n2")
    assert sum(d.gate is False for d in outcome.decisions) == 1
    assert outcome.floors_reached


def test_a_lost_node_is_not_believed_where_nothing_else_is_seen_to_serve():
    gone = member(pod("a", node="n2"), SERVING)
    assert lost(scene(gone, member(pod("b"), failing())), "n2").decisions == ()


def test_what_was_ejected_before_its_node_was_found_lost_waits_for_no_kubelet():
    stuck = replace(pod("a", node="n2", gate=False), ready=True)
    made = scene(member(stuck, failing(Cause.CONNECT_TIMEOUT)), member(pod("b"), SERVING))
    assert only(lost(made, "n2")).force_not_ready


def test_an_endpoint_of_a_node_that_answers_again_is_restored():
    made = scene(member(pod("a", node="n2", gate=False), SERVING), member(pod("b"), SERVING))
    assert lost(made, "n2").decisions == ()
    assert only(lost(made)).reason is Reason.ENDPOINT_RESTORED


def test_observing_only_leaves_the_endpoints_of_a_lost_node():
    policy = UpstreamListPolicy(ListMode.OBSERVE)
    made = scene(member(pod("a", node="n2"), SERVING, policy=policy), member(pod("b"), SERVING))
    assert lost(made, "n2").decisions == ()


SPOT = "aws-node-termination-handler/spot-itn"


def leaving(made: Scene, *nodes: str, reserves: tuple[Reserve, ...] = ()) -> Outcome:
    return decide(replace(made, leaving=dict.fromkeys(nodes, SPOT), reserves=reserves), NOW)


def test_a_serving_endpoint_leaves_ahead_of_its_node():
    members = [member(pod("a", node="n2"), SERVING), *(member(pod(u), SERVING) for u in "bc")]
    outcome = leaving(scene(*members), "n2")
    decision = only(outcome)
    assert (decision.uid, decision.gate, decision.reason) == ("a", False, Reason.NODE_LEAVING)
    assert SPOT in decision.message
    assert not decision.force_not_ready


@pytest.mark.parametrize("health", [UNKNOWN, failing(Cause.READ_TIMEOUT)])
def test_nobody_leaves_ahead_where_too_few_serve_elsewhere(health):
    members = [member(pod("a", node="n2"), SERVING), member(pod("b"), health)]
    assert "a" not in changes(leaving(scene(*members), "n2"))
    alone = [member(pod(u, node="n2"), SERVING) for u in "ab"]
    assert leaving(scene(*alone), "n2").decisions == ()


def test_a_disruption_budget_is_kept_for_the_drain():
    members = [member(pod(u, node="n2"), SERVING) for u in "ab"]
    members += [member(pod(u), SERVING) for u in "cd"]
    made, everyone = scene(*members), frozenset("abcd")
    assert leaving(made, "n2", reserves=(Reserve(everyone, 3),)).decisions == ()
    assert len(leaving(made, "n2", reserves=(Reserve(everyone, 2),)).decisions) == 2


def test_an_endpoint_comes_back_when_its_node_stays_after_all():
    away = member(pod("a", node="n2", gate=False), SERVING)
    made = scene(away, *(member(pod(u), SERVING) for u in "bc"))
    assert leaving(made, "n2").decisions == ()
    assert leaving(made, "n2").absences[0].reason is Reason.NODE_LEAVING
    assert only(leaving(made)).reason is Reason.ENDPOINT_RESTORED


def test_a_new_endpoint_on_a_node_that_goes_is_admitted_so_that_no_rollout_waits_for_it():
    members = [member(pod("a", node="n2", gate=None), SERVING), member(pod("b"), SERVING)]
    assert only(leaving(scene(*members), "n2")).gate is True


HEALTHS = st.sampled_from(
    [
        UNKNOWN,
        SERVING,
        *(failing(c) for c in (Cause.REFUSED, Cause.READ_TIMEOUT, Cause.CONNECT_TIMEOUT)),
    ]
)


@st.composite
def scenes(draw):
    members = []
    for i in range(draw(st.integers(1, 8))):
        a_pod = pod(
            f"p{i}",
            gate=draw(st.sampled_from([True, True, True, False, None])),
            node=draw(st.sampled_from(["n1", "n2"])),
            containers_ready=draw(st.sampled_from([True, True, True, False])),
            terminating=draw(st.sampled_from([False, False, False, True])),
            gated=draw(st.sampled_from([True, True, True, False])),
            ready=draw(st.sampled_from([True, True, True, False])),
            gate_reason=draw(st.sampled_from(["", "EndpointSteppedAside"])),
            template=(template := draw(st.sampled_from(["old", "new"]))),
            created=NOW - (60 if template == "old" else 30),
            labels={"app": "shop", "pod-template-hash": "1"},
        )
        members.append(
            member(
                a_pod,
                draw(HEALTHS),
                template_served=draw(st.booleans()),
                service_served=draw(st.booleans()),
                gate_changed_at=draw(st.sampled_from([0.0, NOW - 20, NOW - 2])),
            )
        )
    short = {m.pod.uid: 3.0 for m in members if draw(st.booleans())}
    gone = draw(st.sampled_from([frozenset(), frozenset(), frozenset({"n2"})]))
    going = draw(st.sampled_from([{}, {}, {"n1": SPOT}]))
    made = scene(*members, percent=draw(st.integers(1, 100)))
    return replace(made, lost_nodes=gone, leaving=going, short_hooks=short)


@given(scenes(), st.floats(NOW - 10, NOW + 100))
def test_no_decision_ever_empties_a_list_or_breaks_a_floor(made, now):
    outcome = decide(made, now)
    gates = changes(outcome)
    eligible = [m for m in made.members if m.pod.containers_ready and not m.pod.terminating]

    def listed(m: Member, *, after: bool) -> bool:
        if not m.pod.gated:
            return m.pod.ready
        return bool(gates.get(m.pod.uid, m.pod.gate) if after else m.pod.gate)

    # As the EndpointSlice has it now: a gate that was just opened is not there yet.
    here = [m for m in eligible if m.pod.ready and m.pod.gate is not False]
    stay = sum(gates.get(m.pod.uid) is not False for m in here)
    was = sum(listed(m, after=False) for m in eligible)
    will = sum(listed(m, after=True) for m in eligible)
    need = max(1, math.ceil(len(eligible) * made.floors[0].percent / 100)) if eligible else 0
    assert will >= min(was, need)
    assert stay >= min(len(here), need)


@given(scenes())
def test_terminating_and_ungated_pods_never_have_a_decision(made):
    untouchable = {m.pod.uid for m in made.members if m.pod.terminating or not m.pod.gated}
    assert not untouchable & set(changes(decide(made, NOW)))


@given(scenes())
def test_decisions_carried_out_come_to_rest(made):
    for _ in range(4):
        decided = {d.uid: d for d in decide(made, NOW).decisions}
        if not decided:
            return
        members = tuple(
            replace(
                m, pod=replace(m.pod, gate=d.gate, gate_reason=d.reason.value), gate_changed_at=NOW
            )
            if (d := decided.get(m.pod.uid))
            else m
            for m in made.members
        )
        # As our `Ready=False` is seen; the kubelet's own follows the gate later, or never.
        forced = {d.uid for d in decide(made, NOW).decisions if d.force_not_ready}
        members = tuple(
            replace(m, pod=replace(m.pod, ready=False)) if m.pod.uid in forced else m
            for m in members
        )
        made = replace(made, members=members)
    pytest.fail(f"still deciding: {changes(decide(made, NOW))}")
