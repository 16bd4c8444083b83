"""Which external addresses are listed, and the slices that say so."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.allowance import AllowList, Premises
from upstream_guard.core.causes import Cause
from upstream_guard.core.external import (
    Slot,
    choose,
    permitted,
    refusals_of_names,
    update_slots,
)
from upstream_guard.core.health import Health, Verdict
from upstream_guard.core.model import (
    Guard,
    ObjectRef,
    Service,
    ServicePort,
    Upstream,
    UpstreamListPolicy,
)
from upstream_guard.core.reasons import Reason
from upstream_guard.core.resolution import (
    LookupResult,
    Question,
    RecordType,
    Reply,
    Target,
    Wanted,
    learn,
)
from upstream_guard.core.slices import (
    MAX_ENDPOINTS,
    all_ready,
    app_protocol_of,
    plan_slices,
    read_slices,
)

NOW = 1_000_000.0
API = Upstream("api.example.com", 443)
GUARD = Guard(
    ObjectRef("prod", "api"),
    "g1",
    1,
    100.0,
    "payments",
    upstream_list=UpstreamListPolicy(admit_timeout=30.0),
    upstreams=(API,),
)
PORT = ServicePort("https", 443, 443, app_protocol="https")
SERVICE = Service(ObjectRef("prod", "payments"), "s1", {}, "ClusterIP", "None", (PORT,))

SERVING = Health(Verdict.SERVING, NOW, ever_served=True)
REFUSED = Health(Verdict.FAILING, NOW, failures=2, cause=Cause.REFUSED, detail="refused")
SILENT = Health(Verdict.FAILING, NOW, failures=2, cause=Cause.CONNECT_TIMEOUT, detail="silent")
UNKNOWN = Health()


def want(last: int, *, priority: int = 0, port: int = 443) -> Wanted:
    return Wanted(f"203.0.113.{last}", port, API.key, "api.example.com", priority)


def slots(*lasts: int, listed: bool | None = True, **fields) -> dict[str, Slot]:
    found = [Slot(want(last), listed, NOW - 100, **fields) for last in lasts]
    return {slot.wanted.key: slot for slot in found}


def key(last: int) -> str:
    return want(last).key


def choose_with(known, healths, now: float = NOW, *, served: bool = True, guard: Guard = GUARD):
    return choose(guard, known, {key(n): h for n, h in healths.items()}, now, service_served=served)


def ready(choice) -> list[int]:
    return sorted(int(k.split(":")[0].split(".")[3]) for k, s in choice.slots.items() if s.listed)


# Admission and ejection, as for pods


def test_a_new_address_waits_until_it_is_seen_to_serve():
    known = update_slots(slots(1), [want(1), want(2)], NOW)
    choice = choose_with(known, {1: SERVING})
    assert ready(choice) == [1]
    assert choice.revisit_at == NOW + 30
    choice = choose_with(known, {1: SERVING, 2: SERVING})
    assert ready(choice) == [1, 2]
    (decision,) = choice.decisions
    assert (decision.uid, decision.reason) == (key(2), Reason.ENDPOINT_ADMITTED)


def test_an_address_that_nobody_sees_is_listed_after_admit_timeout():
    known = update_slots({}, [want(1)], NOW)
    assert ready(choose_with(known, {}, served=False)) == []
    choice = choose_with(known, {1: SILENT}, NOW + 30, served=False)
    assert ready(choice) == [1]
    assert choice.decisions[0].reason is Reason.ADMITTED_UNSEEN


def test_an_address_that_refuses_is_ejected_and_restored():
    choice = choose_with(slots(1, 2, 3), {1: SERVING, 2: REFUSED, 3: SERVING})
    assert ready(choice) == [1, 3]
    assert choice.decisions[0].cause is Cause.REFUSED
    back = choose_with(choice.slots, {1: SERVING, 2: SERVING, 3: SERVING})
    assert ready(back) == [1, 2, 3]
    assert back.decisions[0].reason is Reason.ENDPOINT_RESTORED


def test_below_the_floor_nothing_more_is_ejected():
    choice = choose_with(slots(1, 2, 3, 4), {1: REFUSED, 2: REFUSED, 3: REFUSED, 4: SERVING})
    assert len(ready(choice)) == 2
    assert choice.outcome.floors_reached == ("Service prod/payments",)


def test_where_nothing_serves_the_probes_are_distrusted():
    choice = choose_with(slots(1, 2), {1: REFUSED, 2: SILENT})
    assert ready(choice) == [1, 2]
    assert choice.outcome.blind


def test_a_probe_that_never_succeeded_ejects_nobody():
    assert ready(choose_with(slots(1, 2), {1: REFUSED, 2: UNKNOWN}, served=False)) == [1, 2]


# Addresses that DNS no longer names


def test_an_old_address_stays_until_the_new_one_serves():
    known = update_slots(slots(1), [want(2)], NOW)
    choice = choose_with(known, {1: SERVING})
    assert ready(choice) == [1]
    choice = choose_with(choice.slots, {1: SERVING, 2: SERVING}, NOW + 0.6)
    assert ready(choice) == [2]
    assert set(choice.slots) == {key(2)}


@pytest.mark.parametrize("health", [REFUSED, SILENT, UNKNOWN])
def test_an_old_address_goes_after_admit_timeout_at_the_latest(health):
    known = update_slots(slots(1), [want(2)], NOW)
    choice = choose_with(known, {1: SERVING, 2: health}, NOW + 29.9)
    assert ready(choice) == [1]
    assert choice.revisit_at == pytest.approx(NOW + 30)
    assert ready(choose_with(choice.slots, {1: SERVING, 2: health}, NOW + 30)) == [2]


def test_an_old_address_goes_at_once_where_others_are_listed():
    known = update_slots(slots(1, 2), [want(2), want(3)], NOW)
    choice = choose_with(known, {1: SERVING, 2: SERVING})
    assert set(choice.slots) == {key(2), key(3)}


def test_an_old_address_stays_where_nothing_is_known_of_the_new_name():
    known = update_slots(slots(1), [], NOW)
    assert ready(choose_with(known, {1: SERVING}, NOW + 1e6)) == [1]


def test_an_address_that_comes_back_is_new_in_time_only():
    known = update_slots(update_slots(slots(1), [want(2)], NOW), [want(1)], NOW + 5)
    assert known[key(1)] == Slot(want(1), True, NOW + 5)


# SRV priorities


def levels(*, listed=(True, True, None)) -> dict[str, Slot]:
    found = (want(1, priority=10), want(2, priority=10), want(3, priority=20))
    return {w.key: Slot(w, state, NOW - 100) for w, state in zip(found, listed, strict=True)}


def test_only_the_best_priority_is_listed():
    choice = choose_with(levels(), {1: SERVING, 2: SERVING, 3: SERVING})
    assert (ready(choice), choice.active) == ([1, 2], 10)
    assert key(3) in choice.slots


def test_the_next_priority_takes_over_when_all_of_the_best_fail_and_gives_back():
    choice = choose_with(levels(), {1: REFUSED, 2: REFUSED, 3: SERVING})
    assert (ready(choice), choice.active) == ([3], 20)
    assert {d.uid: d.gate for d in choice.decisions} == {
        key(1): False,
        key(2): False,
        key(3): True,
    }
    back = choose_with(choice.slots, {1: SERVING, 2: REFUSED, 3: SERVING})
    assert (ready(back), back.active) == ([1], 10)


def test_a_priority_of_which_nothing_serves_takes_nothing_over():
    choice = choose_with(levels(), {1: REFUSED, 2: REFUSED, 3: REFUSED})
    assert (ready(choice), choice.active) == ([1, 2], 10)


# Never empty


@given(
    st.lists(st.sampled_from([SERVING, REFUSED, SILENT, UNKNOWN]), min_size=4, max_size=4),
    st.sets(st.integers(1, 4), min_size=1),
    st.sets(st.integers(1, 4)),
    st.lists(st.sampled_from([0, 10]), min_size=4, max_size=4),
    st.integers(1, 100),
    st.booleans(),
    st.floats(0, 100),
)
def test_a_list_that_had_an_address_is_never_empty(
    healths, before, after, priorities, percent, served, later
):
    policy = replace(GUARD.upstream_list, min_healthy_percent=percent)
    guard = replace(GUARD, upstream_list=policy)
    wanted_now = [want(n, priority=priorities[n - 1]) for n in after]
    seen = dict(enumerate(healths, 1))
    known = update_slots(slots(*before), wanted_now, NOW)
    choice = choose_with(known, seen, served=served, guard=guard)
    assert ready(choice)
    again = choose_with(
        update_slots(choice.slots, wanted_now, NOW + later),
        seen,
        NOW + later,
        served=served,
        guard=guard,
    )
    assert ready(again)


# What is allowed


def test_what_is_not_allowed_is_neither_published_nor_probed():
    allow = AllowList(("*.example.com",), (ip_network("203.0.113.0/30"),))
    wanted_now = [want(1), want(9), Wanted("203.0.113.2", 443, "x", "evil.net")]
    kept, refused = permitted(wanted_now, allow, Premises())
    assert kept == (want(1),)
    assert [r.subject for r in refused] == ["203.0.113.9", "203.0.113.2"]
    assert "--allow-upstream-ranges" in refused[0].why
    assert "--allow-upstream-names" in refused[1].why


def test_names_are_refused_before_they_are_asked_and_targets_once_they_are_known():
    srv = Upstream(srv="_https._tcp.example.com")
    record = Reply(
        LookupResult.ANSWER,
        30.0,
        targets=(Target(1, "a.example.com", 443), Target(1, "kubernetes.default.svc", 443)),
    )
    memory = {Question(srv.srv, RecordType.SRV): learn(None, record, NOW, 0.0)}
    found = refusals_of_names([API, srv], memory, AllowList(("*.example.com",)))
    assert [(r.upstream, r.subject) for r in found] == [(srv.key, "kubernetes.default.svc")]
    assert [r.subject for r in refusals_of_names([API], {}, AllowList())] == ["api.example.com"]


# Slices


def plan(known):
    return plan_slices(GUARD, SERVICE, PORT, known)


def test_a_slice_for_each_family_and_port():
    known = update_slots(
        {},
        [want(1), want(2), want(1, port=8443), Wanted("2001:db8::1", 443, API.key, "n")],
        NOW,
    )
    assert [(s.ref.name, s.address_type, s.ports, len(s.endpoints)) for s in plan(known)] == [
        ("payments-external-ipv4-443", "IPv4", (("https", 443),), 2),
        ("payments-external-ipv4-8443", "IPv4", (("https", 8443),), 1),
        ("payments-external-ipv6-443", "IPv6", (("https", 443),), 1),
    ]
    assert {s.service for s in plan(known)} == {"payments"}
    assert {s.owner for s in plan(known)} == {"g1"}


def test_a_slice_has_at_most_100_endpoints():
    lots = [Wanted(f"203.0.{n // 250}.{n % 250}", 443, API.key, "n") for n in range(250)]
    found = plan(update_slots({}, lots, NOW))
    assert [len(s.endpoints) for s in found] == [MAX_ENDPOINTS, MAX_ENDPOINTS, 50]
    assert len({s.ref.name for s in found}) == 3


def test_the_order_of_answers_writes_nothing():
    one = plan(update_slots({}, [want(1), want(2)], NOW))
    other = plan(update_slots({}, [want(2), want(1)], NOW + 60))
    assert one == other


def test_what_is_published_can_be_read_back():
    known = slots(1) | slots(2, listed=False)
    found = read_slices(plan(known))
    assert {k: (s.wanted, s.listed) for k, s in found.items()} == {
        key(1): (want(1), True),
        key(2): (want(2), False),
    }
    assert app_protocol_of(plan(known)[0]) == "https"


@pytest.mark.parametrize(
    "record",
    [
        "",
        "nonsense",
        "[]",
        '{"addresses": 3}',
        '{"addresses": [1, ["203.0.113.1"], ["name", "u", "n", 0], ["203.0.113.7", "u", "n", "0"]]}',
        '{"addresses": [["203.0.113.200", "u", "n", 0]]}',
    ],
)
def test_what_others_wrote_is_passed_over(record):
    (good,) = plan(slots(1))
    assert read_slices([replace(good, record=record)]) == {}
    assert read_slices([replace(good, managed_by="somebody")]) == {}
    assert read_slices([replace(good, ports=())]) == {}


def test_what_nobody_decides_over_is_ready():
    (slice_,) = plan(slots(1) | slots(2, listed=False))
    assert [e.ready for e in all_ready(slice_).endpoints] == [True, True]
    assert all_ready(all_ready(slice_)) == all_ready(slice_)
