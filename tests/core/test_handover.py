"""Old pods whose hooks are too short leave before their successors are listed."""

from dataclasses import dataclass, field, replace

import pytest
from tests.core.test_admission import NOW, SERVING, changes, failing, member, only, pod, scene

from upstream_guard.core.admission import Scene, decide
from upstream_guard.core.handover import LEAVE_SECONDS, STAY_OUT_SECONDS
from upstream_guard.core.model import ListMode, Pod, UpstreamListPolicy
from upstream_guard.core.reasons import Reason

LACKS = 3.0
OUT = LACKS + LEAVE_SECONDS


def of(deployment: str, revision: int, uid: str, **changes_) -> Pod:
    """A pod of a Deployment's revision, made in the order of revisions."""
    made = pod(uid, **changes_)
    return replace(
        made,
        template=f"{deployment}-{revision}",
        owner=("ReplicaSet", f"{deployment}-{revision}"),
        labels={"app": "shop", "pod-template-hash": str(revision)},
        created=NOW - 60 + revision,
    )


def old(uid: str, **changes_) -> Pod:
    return of("shop", 1, uid, **changes_)


def new(uid: str, **changes_) -> Pod:
    return of("shop", 2, uid, **{"gate": None, **changes_})


def aside(uid: str) -> Pod:
    return old(uid, gate=False, gate_reason="EndpointSteppedAside")


def begun(*pods: Pod, lacks: float = LACKS, changed: float = 0.0, **options) -> Scene:
    """All of them serve; the hooks of the first revision are too short."""
    members = [member(p, SERVING, gate_changed_at=changed) for p in pods]
    short = {p.uid: lacks for p in pods if p.template.endswith("-1") and lacks}
    return replace(scene(*members, **options), short_hooks=short)


THREE = [old(u) for u in "abc"]


def test_an_old_pod_leaves_first_and_its_successor_waits():
    outcome = decide(begun(*THREE, new("n")), NOW)
    decision = only(outcome)
    assert (decision.uid, decision.gate, decision.reason) == (
        "a",
        False,
        Reason.ENDPOINT_STEPPED_ASIDE,
    )
    assert {a.uid: a.reason for a in outcome.absences} == {
        "a": Reason.ENDPOINT_STEPPED_ASIDE, "n": Reason.ENDPOINT_WAITING,
    }  # fmt: skip
    assert outcome.revisit_at == NOW + OUT


def test_its_successor_is_listed_when_it_has_been_out_for_what_its_hook_lacks():
    made = begun(aside("a"), *THREE[1:], new("n"), changed=NOW)
    waiting = decide(made, NOW + OUT - 0.1)
    assert changes(waiting) == {}
    assert waiting.revisit_at == NOW + OUT
    assert changes(decide(made, NOW + OUT)) == {"n": True}


def test_it_stays_out_until_the_rollout_deletes_it_and_comes_back_if_that_does_not_happen():
    members = [
        member(aside("a"), SERVING, gate_changed_at=NOW),
        *(member(p, SERVING) for p in THREE[1:]),
        member(new("n", gate=True), SERVING, gate_changed_at=NOW + OUT),
        member(new("m"), SERVING),
    ]
    made = replace(scene(*members), short_hooks=dict.fromkeys("abc", LACKS))
    outcome = decide(made, NOW + OUT + 1)
    assert changes(outcome) == {}
    assert {a.uid for a in outcome.absences} == {"a", "m"}
    back = decide(made, NOW + OUT + STAY_OUT_SECONDS)
    assert {d.uid: d.reason for d in back.decisions} == {
        "a": Reason.ENDPOINT_RESTORED, "m": Reason.ENDPOINT_ADMITTED,
    }  # fmt: skip


def test_it_comes_back_when_the_new_pod_is_gone_or_fails():
    for others in ([], [member(new("n"), failing())]):
        members = [member(aside("a"), SERVING), *(member(p, SERVING) for p in THREE[1:]), *others]
        made = replace(scene(*members), short_hooks=dict.fromkeys("abc", LACKS))
        assert only(decide(made, NOW)).reason is Reason.ENDPOINT_RESTORED


def test_the_next_operator_goes_on_by_when_it_was_no_longer_ready():
    gone = replace(aside("a"), ready_since=NOW)
    made = begun(gone, *THREE[1:], new("n"))
    assert changes(decide(made, NOW + 1)) == {}
    assert changes(decide(made, NOW + OUT)) == {"n": True}


def test_no_new_pod_waits_for_longer_than_its_admit_timeout():
    late = new("n", containers_ready_since=NOW - 30)
    assert changes(decide(begun(*THREE, late), NOW)) == {"n": True}
    made = begun(aside("a"), *THREE[1:], new("n"), lacks=60.0, changed=NOW)
    assert decide(made, NOW + 1).revisit_at == NOW + 25
    assert changes(decide(made, NOW + 25)) == {"n": True}


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (begun(*THREE, new("n"), lacks=0.0), "the hooks suffice"),
        (begun(*THREE, new("n"), percent=100), "a floor needs them all"),
        (begun(old("a"), new("n")), "it is the only one"),
        (begun(*THREE, of("shop", 1, "n", gate=None)), "it replaces none: it is of their template"),
        (begun(*THREE, of("other", 2, "n", gate=None)), "it is of another Deployment"),
        (begun(*(replace(p, owner=("StatefulSet", "shop-1")) for p in THREE), new("n")), "a StatefulSet's"),
        (begun(of("shop", 3, "b"), of("shop", 3, "c"), of("shop", 2, "n", gate=None)), "it is the older one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_new_pod_is_listed_at_once_where(made, why):
    assert changes(decide(made, NOW)) == {"n": True}, why


def test_a_guard_that_only_observes_takes_nobody_out():
    observes = UpstreamListPolicy(ListMode.OBSERVE)
    members = [member(p, SERVING, policy=observes) for p in (*THREE, new("n"))]
    made = replace(scene(*members), short_hooks=dict.fromkeys("abc", LACKS))
    assert changes(decide(made, NOW)) == {"n": True}


@dataclass
class Rollout:
    """A Deployment of three with maxSurge 1 and maxUnavailable 0, as its controller goes about it.

    kubernetes 1.35, pkg/controller/deployment/rolling.go: new pods as far as the surge goes; old ones as far as
    enough are available, those first that are not ready.
    """

    now: float = NOW
    pods: dict[str, Pod] = field(default_factory=lambda: {u: old(u) for u in "abc"})
    changed: dict[str, float] = field(default_factory=dict)
    out_for: list[float] = field(default_factory=list)
    fewest: int = 3

    def step(self) -> None:
        self.now += 0.1
        self._decide()
        self.pods = {
            u: replace(p, ready=p.containers_ready and bool(p.gate)) for u, p in self.pods.items()
        }
        listed = [p for p in self.pods.values() if p.ready]
        self.fewest = min(self.fewest, len(listed))
        olds = sorted(
            (p for p in self.pods.values() if p.template == "shop-1"), key=lambda p: p.ready
        )
        if olds and len(self.pods) < 4:
            fresh = new(f"n{self.now:.1f}", containers_ready_since=self.now)
            self.pods[fresh.uid] = replace(fresh, created=self.now)
        elif (
            olds and len(listed) >= 3 and all(p.ready for p in self.pods.values() if p not in olds)
        ):
            gone = olds[0]
            self.out_for.append(self.now - self.changed.get(gone.uid, self.now))
            del self.pods[gone.uid]

    def _decide(self) -> None:
        members = [
            member(p, SERVING, gate_changed_at=self.changed.get(u, 0.0))
            for u, p in self.pods.items()
        ]
        short = {u: LACKS for u, p in self.pods.items() if p.template == "shop-1"}
        for d in decide(replace(scene(*members), short_hooks=short), self.now).decisions:
            self.pods[d.uid] = replace(self.pods[d.uid], gate=d.gate, gate_reason=d.reason.value)
            self.changed[d.uid] = self.now


def test_in_a_rollout_every_old_pod_has_been_out_for_what_its_hook_lacks():
    rollout = Rollout()
    while len(rollout.out_for) < 3:
        rollout.step()
        assert rollout.now < NOW + 20
    assert min(rollout.out_for) >= LACKS
    assert rollout.fewest == 2
