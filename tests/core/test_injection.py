"""Injection: what the webhook adds to a pod never breaks it, and never takes from the user."""

import copy
import json

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.injection import NOTHING, InjectionRequest, inject
from upstream_guard.core.names import ANNOTATION_INJECTED, GATE


def pod(*containers, **spec):
    body = {"metadata": {"generateName": "shop-"}, "spec": {"containers": list(containers), **spec}}
    body["spec"]["containers"] = body["spec"]["containers"] or [{"name": "app", "image": "shop"}]
    return body


def apply(body, request):
    result = inject(body, request)
    return jsonpatch.JsonPatch(list(result.patch)).apply(copy.deepcopy(body)), result


def hook(body, index=0):
    return body["spec"]["containers"][index].get("lifecycle", {}).get("preStop")


def test_a_plain_pod_gets_gate_hook_grace_and_an_explanation():
    body, result = apply(pod(), InjectionRequest(pre_stop=2, reason="nginx: detach 1.2 s"))
    assert body["spec"]["readinessGates"] == [{"conditionType": GATE}]
    assert hook(body) == {"sleep": {"seconds": 2}}
    assert body["spec"]["terminationGracePeriodSeconds"] == 32
    assert json.loads(body["metadata"]["annotations"][ANNOTATION_INJECTED]) == {
        "readinessGate": GATE,
        "preStop": {"sleepSeconds": 2, "containers": ["app"]},
        "gracePeriodSeconds": {"from": 30, "to": 32},
        "reason": "nginx: detach 1.2 s",
    }
    assert result.notes == ()


def test_every_regular_container_gets_the_hook_and_no_init_container():
    sidecar = {"name": "proxy", "restartPolicy": "Always"}
    body, _ = apply(
        pod({"name": "a"}, {"name": "b"}, initContainers=[sidecar]), InjectionRequest(pre_stop=3)
    )
    assert hook(body, 0) == hook(body, 1) == {"sleep": {"seconds": 3}}
    assert body["spec"]["initContainers"] == [sidecar]


@pytest.mark.parametrize(
    ("own", "note"),
    [
        ({"sleep": {"seconds": 1}}, "sleep of 1 s is kept, but the gateway needs 5 s"),
        ({"exec": {"command": ["nginx", "-s", "quit"]}}, "preStop exec is kept"),
        ({"httpGet": {"port": 8080}}, "preStop httpGet is kept"),
    ],
)
def test_a_users_own_hook_is_kept_and_judged(own, note):
    body, result = apply(
        pod({"name": "app", "lifecycle": {"preStop": own}}), InjectionRequest(pre_stop=5)
    )
    assert hook(body) == own
    assert "terminationGracePeriodSeconds" not in body["spec"]
    assert note in result.notes[0]


def test_a_users_long_enough_sleep_needs_no_note():
    own = {"name": "app", "lifecycle": {"preStop": {"sleep": {"seconds": 9}}}}
    assert inject(pod(own), InjectionRequest(pre_stop=5, gate=False)) == NOTHING


def test_post_start_is_not_lost():
    own = {"name": "app", "lifecycle": {"postStart": {"exec": {"command": ["warm"]}}}}
    body, _ = apply(pod(own), InjectionRequest(pre_stop=5))
    assert body["spec"]["containers"][0]["lifecycle"] == {
        "postStart": {"exec": {"command": ["warm"]}},
        "preStop": {"sleep": {"seconds": 5}},
    }


@pytest.mark.parametrize("skip", ["hostNetwork", "mirror", "terminating"])
def test_pods_that_are_left_alone(skip):
    body = pod()
    if skip == "hostNetwork":
        body["spec"]["hostNetwork"] = True
    elif skip == "mirror":
        body["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    else:
        body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    result = inject(body, InjectionRequest(pre_stop=5))
    assert result.patch == ()
    assert "left alone" in result.notes[0]


def test_recommend_changes_only_the_gate_and_says_what_it_would_do():
    body, result = apply(
        pod(), InjectionRequest(pre_stop=5, drain_enforced=False, reason="nginx: detach 1.2 s")
    )
    assert hook(body) is None
    assert "terminationGracePeriodSeconds" not in body["spec"]
    assert body["spec"]["readinessGates"]
    assert result.notes == (
        (
            "recommended: lifecycle.preStop.sleep.seconds 5 on app and "
            "terminationGracePeriodSeconds 35 (nginx: detach 1.2 s)"
        ),
    )


def test_without_sleep_support_there_is_no_hook_and_no_longer_grace():
    body, result = apply(pod(), InjectionRequest(pre_stop=5, sleep_supported=False))
    assert hook(body) is None
    assert "terminationGracePeriodSeconds" not in body["spec"]
    assert "1.30" in result.notes[0]


def test_an_explicit_grace_period_caps_the_sleep_not_the_users_own():
    body, result = apply(
        pod(terminationGracePeriodSeconds=0), InjectionRequest(pre_stop=10, grace_period=4)
    )
    assert (hook(body), body["spec"]["terminationGracePeriodSeconds"]) == (
        {"sleep": {"seconds": 4}},
        4,
    )
    assert "cut from 10 s to 4 s" in result.notes[0]
    body, _ = apply(
        pod(terminationGracePeriodSeconds=60), InjectionRequest(pre_stop=10, grace_period=4)
    )
    assert body["spec"]["terminationGracePeriodSeconds"] == 60


def test_a_container_added_between_passes_is_covered_and_grace_counted_once():
    once, _ = apply(pod(), InjectionRequest(pre_stop=5))
    once["spec"]["containers"].append({"name": "mesh"})
    twice, result = apply(once, InjectionRequest(pre_stop=5))
    assert hook(twice, 1) == {"sleep": {"seconds": 5}}
    assert twice["spec"]["terminationGracePeriodSeconds"] == 35
    assert result.notes == ()


def test_a_copied_pod_gets_the_new_number_and_keeps_its_longer_grace():
    old, _ = apply(pod(), InjectionRequest(pre_stop=20))
    new, _ = apply(old, InjectionRequest(pre_stop=2))
    assert hook(new) == {"sleep": {"seconds": 2}}
    assert new["spec"]["terminationGracePeriodSeconds"] == 50


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"preStop":{"containers":3}}'])
def test_a_forged_annotation_does_no_harm(text):
    body = pod(terminationGracePeriodSeconds=10)
    body["metadata"]["annotations"] = {ANNOTATION_INJECTED: text}
    patched, _ = apply(body, InjectionRequest(pre_stop=5))
    assert patched["spec"]["terminationGracePeriodSeconds"] == 15


hooks = st.one_of(
    st.none(),
    st.just({}),
    st.builds(lambda s: {"preStop": {"sleep": {"seconds": s}}}, st.integers(0, 40)),
    st.just({"preStop": {"exec": {"command": ["x"]}}, "postStart": {"exec": {"command": ["y"]}}}),
    st.just({"postStart": {"httpGet": {"port": 1}}}),
)


@st.composite
def pods(draw):
    containers = [
        {"name": f"c{i}", **({} if (h := draw(hooks)) is None else {"lifecycle": h})}
        for i in range(draw(st.integers(1, 3)))
    ]
    spec = {"containers": containers}
    if draw(st.booleans()):
        # The API server has already refused a sleep above the pod's own grace period.
        longest = max((_sleep(c) or 0 for c in containers), default=0)
        spec["terminationGracePeriodSeconds"] = draw(st.integers(longest, 600))
    elif any((_sleep(c) or 0) > 30 for c in containers):
        spec["terminationGracePeriodSeconds"] = 40
    if draw(st.booleans()):
        spec["readinessGates"] = draw(
            st.lists(st.sampled_from([{"conditionType": GATE}, {"conditionType": "x/y"}]))
        )
    body = {"spec": spec}
    if draw(st.booleans()):
        body["metadata"] = {"annotations": draw(st.sampled_from([None, {}, {"a/b": "c"}]))}
    if draw(st.booleans()):
        forged = {
            "preStop": {"sleepSeconds": draw(st.integers(0, 9)), "containers": ["c0", "c1"]},
            "gracePeriodSeconds": {
                "from": draw(st.integers(0, 600)),
                "to": draw(st.integers(0, 600)),
            },
        }
        body["metadata"] = {"annotations": {ANNOTATION_INJECTED: json.dumps(forged)}}
    body.setdefault("metadata", {})
    return body


def _sleep(container):
    return ((container.get("lifecycle") or {}).get("preStop") or {}).get("sleep", {}).get("seconds")


requests = st.builds(
    InjectionRequest,
    pre_stop=st.one_of(st.none(), st.integers(0, 120)),
    gate=st.booleans(),
    reason=st.text(max_size=20),
    drain_enforced=st.booleans(),
    sleep_supported=st.booleans(),
    grace_period=st.one_of(st.none(), st.integers(0, 120)),
)


@given(pods(), requests)
def test_whatever_the_pod_the_patch_is_safe(body, request):
    patched, _ = apply(body, request)
    spec = patched["spec"]
    grace = spec.get("terminationGracePeriodSeconds", 30)
    assert grace >= body["spec"].get("terminationGracePeriodSeconds", 30)
    gates = [g["conditionType"] for g in spec.get("readinessGates", [])]
    before = [g["conditionType"] for g in body["spec"].get("readinessGates", [])]
    assert gates == before or gates == [*before, GATE]
    assert GATE in gates or not request.gate
    for new, old in zip(spec["containers"], body["spec"]["containers"], strict=True):
        assert (_sleep(new) or 0) <= grace
        for field, value in (old.get("lifecycle") or {}).items():
            if field != "preStop" or "exec" in value:
                assert new["lifecycle"][field] == value
    again = inject(patched, request)
    assert again.patch == ()
