"""Two looks at a Service: which change has begun, and when it is over."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.live import (
    JOIN_SECONDS,
    LONGEST,
    LONGEST_DRAIN,
    Begun,
    PodSight,
    Sight,
    WorkloadSight,
    begin,
    deadline,
    is_over,
    under_way,
)
from upstream_guard.core.predict.state import (
    Change,
    ChangeKind,
    Container,
    NodeState,
    PodTemplate,
    PreStop,
    Strategy,
    StrategyKind,
    Workload,
)
from upstream_guard.core.predict.state import HookKind as Hook

NOW = 1000.0
SHOP = ObjectRef("prod", "shop")
TEXT = "deployment/shop"


def workload(replicas=3, kind="Deployment", **changes) -> WorkloadSight:
    declared = Workload(
        kind, SHOP, PodTemplate({"app": "shop"}, (Container("app"),)), replicas=replicas
    )
    strategy = changes.pop("strategy", declared.strategy)
    template = changes.pop("declares", declared.template)
    base = WorkloadSight(
        replace(declared, strategy=strategy, template=template),
        uid="w",
        template="v1",
        generation=1,
        observed=1,
        total=replicas,
        updated=replicas,
        available=replicas,
    )
    return replace(base, **changes)


def pod(name, node="n1", **changes) -> PodSight:
    return replace(PodSight(name, TEXT, node, ready=True, terminating=False), **changes)


PODS = (pod("a"), pod("b"), pod("c", "n2"))
NODES = {"n1": NodeState("n1"), "n2": NodeState("n2")}
CALM = Sight(SHOP, (workload(),), PODS, NODES, written=("v1",))


def kinds(found):
    return [(b.change.kind, b.subject) for b in found]


def without(sight: Sight, *uids: str) -> Sight:
    return replace(sight, pods=tuple(p for p in sight.pods if p.uid not in uids))


def changed(sight: Sight, uid: str, **changes) -> Sight:
    pods = tuple(replace(p, **changes) if p.uid == uid else p for p in sight.pods)
    return replace(sight, pods=pods)


def node(sight: Sight, name: str, **changes) -> Sight:
    return replace(sight, nodes={**sight.nodes, name: replace(sight.nodes[name], **changes)})


ROLLING = replace(CALM, workloads=(workload(template="v2", generation=2),))


def test_the_first_look_and_a_steady_cluster_show_no_change() -> None:
    assert begin(None, ROLLING, (), NOW) == ()
    assert begin(CALM, CALM, (), NOW) == ()


def test_a_new_template_is_a_rollout_before_any_pod_changes() -> None:
    (found,) = begin(CALM, ROLLING, (), NOW)
    assert kinds([found]) == [(ChangeKind.ROLLOUT, TEXT)]
    assert found.before == CALM.workloads[0].workload
    assert found.at == NOW


def test_the_pods_that_go_stop_as_the_old_template_says() -> None:
    hook = PreStop(Hook.SLEEP, 5.0)
    mended = PodTemplate({"app": "shop"}, (Container("app", pre_stop=hook),))
    after = replace(CALM, workloads=(workload(template="v2", declares=mended),))
    (found,) = begin(CALM, after, (), NOW)
    assert found.change.replaces == CALM.workloads[0].workload.template
    restart = PodTemplate({"app": "shop"}, (Container("app"),), annotations={"at": "now"})
    after = replace(CALM, workloads=(workload(template="v2", declares=restart),))
    (found,) = begin(CALM, after, (), NOW)
    assert found.change.replaces is None


@pytest.mark.parametrize(
    "still",
    [
        workload(template="v2", paused=True, updated=0),
        workload(template="v2", strategy=Strategy(StrategyKind.ON_DELETE)),
        workload(template="v2", replicas=0),
        workload(template="v2", uid="other"),
        workload(replicas=5, total=3, available=3),
    ],
)
def test_what_replaces_no_pod_is_no_rollout(still) -> None:
    before = replace(CALM, workloads=(workload(replicas=still.workload.replicas),))
    if still.workload.replicas == 5:
        before = CALM
    assert begin(before, replace(CALM, workloads=(still,)), (), NOW) == ()


def test_a_paused_rollout_begins_when_it_is_resumed() -> None:
    held = replace(CALM, workloads=(workload(template="v2", paused=True, updated=0),))
    free = replace(CALM, workloads=(workload(template="v2", generation=3, updated=0),))
    assert kinds(begin(held, free, (), NOW)) == [(ChangeKind.ROLLOUT, TEXT)]


def test_a_rollouts_own_deletions_are_no_changes_of_their_own() -> None:
    rollout = begin(CALM, ROLLING, (), NOW)
    assert begin(ROLLING, changed(ROLLING, "a", terminating=True), rollout, NOW + 1) == ()
    assert begin(ROLLING, without(ROLLING, "a"), rollout, NOW + 1) == ()
    # Nor where the operator did not see it begin: the workload's own status shows it.
    half = replace(CALM, workloads=(workload(template="v2", total=4, updated=1),))
    assert begin(half, changed(half, "a", terminating=True), (), NOW) == ()


def test_template_and_deletion_in_one_look_are_one_rollout() -> None:
    found = begin(CALM, changed(ROLLING, "a", terminating=True), (), NOW)
    assert kinds(found) == [(ChangeKind.ROLLOUT, TEXT)]


def test_fewer_replicas_are_a_scale_in_from_what_there_was() -> None:
    fewer = replace(CALM, workloads=(workload(replicas=1, total=3, generation=2),))
    (found,) = begin(CALM, fewer, (), NOW)
    assert found.change == Change(ChangeKind.SCALE_IN, to_replicas=1)
    assert found.before.replicas == 3
    assert begin(fewer, changed(fewer, "a", terminating=True), (found,), NOW) == ()


def test_a_daemonset_on_fewer_nodes_was_not_scaled() -> None:
    before = replace(CALM, workloads=(workload(3, "DaemonSet"),))
    after = replace(CALM, workloads=(workload(2, "DaemonSet"),))
    assert begin(before, after, (), NOW) == ()


def test_deleted_pods_are_one_change_by_workload() -> None:
    after = changed(changed(CALM, "a", terminating=True), "c", terminating=True)
    (found,) = begin(CALM, after, (), NOW)
    assert (found.change, found.subject) == (Change(ChangeKind.POD_DELETION, pods=2), TEXT)


def test_pods_deleted_one_after_the_other_join_for_a_while() -> None:
    first = changed(CALM, "a", terminating=True)
    ongoing = begin(CALM, first, (), NOW)
    second = changed(first, "b", terminating=True)
    assert begin(first, second, ongoing, NOW + JOIN_SECONDS - 0.1) == ()
    late = begin(first, second, ongoing, NOW + JOIN_SECONDS)
    assert kinds(late) == [(ChangeKind.POD_DELETION, TEXT)]


def test_a_pod_that_vanishes_was_deleted_unless_it_lives_elsewhere() -> None:
    gone = without(CALM, "a")
    assert kinds(begin(CALM, gone, (), NOW)) == [(ChangeKind.POD_DELETION, TEXT)]
    assert begin(CALM, replace(gone, elsewhere=frozenset({"a"})), (), NOW) == ()


def test_a_terminating_pod_that_goes_is_nothing_new() -> None:
    leaving = changed(CALM, "a", terminating=True)
    assert begin(leaving, without(leaving, "a"), (), NOW) == ()


def test_a_cordon_announces_the_drain() -> None:
    cordoned = node(CALM, "n1", schedulable=False)
    (found,) = begin(CALM, cordoned, (), NOW)
    assert (found.change.kind, found.change.node, found.change.pods) == (
        ChangeKind.NODE_DRAIN,
        "n1",
        2,
    )
    assert begin(cordoned, changed(cordoned, "a", terminating=True), (found,), NOW) == ()
    other = changed(cordoned, "c", terminating=True)
    assert kinds(begin(cordoned, other, (found,), NOW)) == [(ChangeKind.POD_DELETION, TEXT)]


def test_evictions_from_a_node_cordoned_long_ago_are_a_drain() -> None:
    cordoned = node(CALM, "n1", schedulable=False)
    (found,) = begin(cordoned, changed(cordoned, "a", terminating=True), (), NOW)
    assert found.change == Change(ChangeKind.NODE_DRAIN, node="n1", pods=2)


def test_a_cordon_of_a_node_without_evictable_pods_is_nothing() -> None:
    daemons = tuple(replace(p, workload="daemonset/shop") for p in PODS)
    calm = replace(CALM, pods=daemons)
    assert begin(calm, node(calm, "n1", schedulable=False), (), NOW) == ()
    empty = replace(CALM, pods=(pod("c", "n2"),))
    assert begin(empty, node(empty, "n1", schedulable=False), (), NOW) == ()


def test_a_node_that_is_not_ready_is_lost_and_explains_its_pods() -> None:
    silent = node(CALM, "n1", ready=False)
    (found,) = begin(CALM, silent, (), NOW)
    assert found.change == Change(ChangeKind.NODE_LOSS, node="n1", pods=2)
    later = changed(changed(silent, "a", terminating=True), "b", ends=1)
    assert begin(silent, later, (found,), NOW) == ()


def test_a_container_that_ends_in_a_ready_pod_is_a_crash() -> None:
    dead = changed(CALM, "a", ends=1, ready=False)
    (found,) = begin(CALM, dead, (), NOW)
    assert (found.change, found.subject) == (Change(ChangeKind.CRASH, pods=1), TEXT)
    starting = changed(CALM, "a", ready=False)
    assert begin(starting, changed(starting, "a", ends=1), (), NOW) == ()
    stopping = changed(CALM, "a", ends=1, terminating=True)
    assert kinds(begin(CALM, stopping, (), NOW)) == [(ChangeKind.POD_DELETION, TEXT)]


def test_only_recent_ends_delay_the_next_start() -> None:
    before = changed(CALM, "a", ends=3, since=NOW - 60)
    (found,) = begin(before, changed(before, "a", ends=4), (), NOW)
    assert found.change.restarts == 3
    before = changed(CALM, "a", ends=3, since=NOW - 3600)
    (found,) = begin(before, changed(before, "a", ends=4), (), NOW)
    assert found.change.restarts == 0


def test_what_is_written_anew_is_an_edit() -> None:
    found = begin(CALM, replace(CALM, written=("v2",)), (), NOW)
    assert kinds(found) == [(ChangeKind.EDIT, "service/shop")]


def begun(kind, subject=TEXT, **change) -> Begun:
    return Begun(Change(kind, **change), subject, NOW)


@pytest.mark.parametrize(
    "unfinished",
    [
        ROLLING,
        replace(CALM, workloads=(workload(template="v2", updated=1),)),
        replace(CALM, workloads=(workload(template="v2", total=4),)),
        replace(CALM, workloads=(workload(template="v2", available=2),)),
        changed(CALM, "a", terminating=True),
    ],
)
def test_a_rollout_lasts_until_the_last_old_pod_is_gone(unfinished) -> None:
    rollout = begun(ChangeKind.ROLLOUT)
    assert not is_over(rollout, unfinished, NOW + 1)
    assert is_over(rollout, CALM, NOW + 1)
    assert is_over(rollout, replace(CALM, workloads=(), pods=()), NOW + 1)
    assert is_over(rollout, unfinished, NOW + LONGEST)


def test_a_crash_lasts_until_every_pod_is_ready_again() -> None:
    crash = begun(ChangeKind.CRASH)
    assert not is_over(crash, changed(CALM, "a", ready=False), NOW)
    assert is_over(crash, CALM, NOW)


def test_a_drain_lasts_while_the_node_is_closed_and_has_pods() -> None:
    drain = begun(ChangeKind.NODE_DRAIN, "node/n1", node="n1")
    closed = node(CALM, "n1", schedulable=False)
    assert not is_over(drain, closed, NOW)
    assert is_over(drain, without(closed, "a", "b"), NOW)
    assert is_over(drain, CALM, NOW)
    assert is_over(drain, replace(closed, nodes={}), NOW)
    assert is_over(drain, closed, NOW + LONGEST_DRAIN)


def test_a_lost_node_is_lost_until_it_is_back_or_empty() -> None:
    loss = begun(ChangeKind.NODE_LOSS, "node/n1", node="n1")
    silent = node(CALM, "n1", ready=False)
    assert not is_over(loss, silent, NOW)
    assert is_over(loss, CALM, NOW)
    assert is_over(loss, without(silent, "a", "b"), NOW)


def test_an_edit_is_over_with_time_only() -> None:
    edit = begun(ChangeKind.EDIT, "service/shop")
    assert not is_over(edit, CALM, NOW + LONGEST - 1)
    assert is_over(edit, CALM, deadline(edit))


sights = st.builds(
    Sight,
    st.just(SHOP),
    st.lists(
        st.builds(
            workload,
            replicas=st.integers(0, 4),
            template=st.sampled_from(["v1", "v2"]),
            paused=st.booleans(),
            observed=st.integers(0, 2),
            total=st.integers(0, 4),
            updated=st.integers(0, 4),
        ),
        max_size=1,
    ).map(tuple),
    st.lists(
        st.builds(
            PodSight,
            uid=st.sampled_from("abcd"),
            workload=st.sampled_from([TEXT, "pod/x"]),
            node=st.sampled_from(["n1", "n2", ""]),
            ready=st.booleans(),
            terminating=st.booleans(),
            ends=st.integers(0, 3),
        ),
        max_size=4,
        unique_by=lambda p: p.uid,
    ).map(tuple),
    st.fixed_dictionaries(
        {
            name: st.builds(
                NodeState, st.just(name), ready=st.booleans(), schedulable=st.booleans()
            )
            for name in ("n1", "n2")
        }
    ),
)


@given(sights, sights)
def test_any_two_looks_give_each_change_once_and_none_twice(before, after) -> None:
    found = begin(before, after, (), NOW)
    assert len({b.key for b in found}) == len(found)
    assert begin(after, after, found, NOW) == ()
    for one in found:
        assert is_over(one, after, deadline(one))


HALFWAY = workload(generation=2, observed=2, total=4, updated=2, available=3)


def test_a_rollout_that_began_while_nobody_looked_is_told_by_the_first_look() -> None:
    seen = replace(CALM, workloads=(HALFWAY,))
    (begun,) = under_way(seen, (), NOW)
    assert (begun.change.kind, begun.subject, begun.at) == (ChangeKind.ROLLOUT, TEXT, NOW)
    assert under_way(seen, (begun,), NOW + 1) == ()
    assert begin(seen, seen, (begun,), NOW + 1) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"updated": 4},
        {"stalled": True},
        {"paused": True},
        {"strategy": Strategy(StrategyKind.ON_DELETE)},
        {"total": 0, "updated": 0, "observed": 0},
    ],
)
def test_what_is_settled_new_stalled_or_not_to_roll_is_no_change(changes) -> None:
    assert under_way(CALM, (), NOW) == ()
    assert under_way(replace(CALM, workloads=(replace(HALFWAY, **_flat(changes)),)), (), NOW) == ()


def _flat(changes):
    strategy = changes.get("strategy")
    if strategy is None:
        return changes
    return {"workload": replace(HALFWAY.workload, strategy=strategy)}
