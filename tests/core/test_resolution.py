"""What DNS says: when to ask again, what holds when it fails, and what that makes of the addresses."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.allowance import AllowList
from upstream_guard.core.model import Upstream
from upstream_guard.core.resolution import (
    HOLD_SECONDS,
    MAX_ADDRESSES,
    MAX_RETRY_SECONDS,
    MAX_TARGETS,
    Known,
    LookupResult,
    Question,
    RecordType,
    Reply,
    Target,
    UpstreamState,
    Wanted,
    due,
    learn,
    next_time,
    questions,
    recall,
    state_of,
    wanted,
)

NOW = 1_000_000.0
EVERYTHING = AllowList(("*",), (ip_network("0.0.0.0/0"),))
API = Upstream("api.example.com", 443)
A = Question("api.example.com", RecordType.A)
AAAA = Question("api.example.com", RecordType.AAAA)
FAILED = Reply(LookupResult.SERVER_FAILURE, detail="SERVFAIL")
GONE = Reply(LookupResult.NO_NAME, 300.0, detail="no such name")
NOTHING = Reply(LookupResult.NO_DATA, 5.0, detail="no such record")


def answer(*addresses: str, ttl: float = 30.0) -> Reply:
    return Reply(LookupResult.ANSWER, ttl, tuple(addresses))


def memory(now: float = NOW, **replies: Reply) -> dict[Question, Known]:
    kinds = {"a": A, "aaaa": AAAA}
    return {kinds[kind]: learn(None, reply, now, 0.0) for kind, reply in replies.items()}


def addresses(known, now: float = NOW, upstreams=(API,)) -> list[str]:
    return [one.address for one in wanted(upstreams, known, now)]


# When to ask


@pytest.mark.parametrize(
    ("ttl", "earliest", "latest"),
    [(30.0, 30.0, 30.5), (1.0, 1.0, 1.05), (0.0, 1.0, 1.05), (86_400.0, 3600.0, 3600.5)],
)
def test_an_answer_is_asked_again_when_its_ttl_is_over(ttl, earliest, latest):
    for jitter in (0.0, 0.999):
        asked = learn(None, answer("203.0.113.7", ttl=ttl), NOW, jitter).ask_at - NOW
        assert earliest <= asked <= latest


def test_a_failure_is_asked_again_with_back_off():
    known = learn(None, answer("203.0.113.7"), NOW, 0.0)
    pauses = []
    for _ in range(12):
        known = learn(known, FAILED, NOW, 0.0)
        pauses.append(known.ask_at - NOW)
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == MAX_RETRY_SECONDS / 2
    assert learn(known, answer("203.0.113.8"), NOW, 0.0).failures == 0


@pytest.mark.parametrize(("ttl", "pause"), [(0.0, 1.0), (10.0, 10.0), (900.0, 30.0)])
def test_a_negative_answer_is_asked_again_by_its_own_ttl_within_bounds(ttl, pause):
    assert learn(None, Reply(LookupResult.NO_NAME, ttl), NOW, 0.0).ask_at == NOW + pause


def test_a_host_is_asked_for_both_families_and_only_what_the_service_has():
    assert questions([API], {}, EVERYTHING) == (A, AAAA)
    assert questions([API], {}, EVERYTHING, ["IPv4"]) == (A,)
    assert questions([API], {}, EVERYTHING, ["IPv6", "IPv4"]) == (A, AAAA)


def test_what_is_not_allowed_is_not_asked():
    assert questions([API], {}, AllowList(("other.example.com",))) == ()


def test_an_address_is_nothing_to_ask_for():
    given_ = Upstream("203.0.113.7", 443)
    assert questions([given_], {}, EVERYTHING) == ()
    assert wanted([given_], {}, NOW) == (Wanted("203.0.113.7", 443, "203.0.113.7:443"),)
    assert state_of(given_, {}, NOW)[0] is UpstreamState.RESOLVED


def test_what_is_due_is_what_was_never_asked_or_has_run_out():
    known = memory(a=answer("203.0.113.7", ttl=10.0))
    assert due((A, AAAA), known, NOW) == (AAAA,)
    assert due((A,), known, NOW + 9.9) == ()
    assert due((A,), known, NOW + 10.0) == (A,)
    assert next_time((A, AAAA), known, NOW) == NOW
    assert next_time((A,), known, NOW) == NOW + 10.0
    assert next_time((), known, NOW) > NOW


# What holds


@pytest.mark.parametrize("bad", [FAILED, GONE, NOTHING, Reply(LookupResult.TIMEOUT)])
def test_last_known_good_addresses_hold(bad):
    known = learn(learn(None, answer("203.0.113.7"), NOW, 0.0), bad, NOW + 60, 0.0)
    (one,) = wanted([API], {A: known}, NOW + 60)
    assert (one.address, one.held) == ("203.0.113.7", True)
    state, detail = state_of(API, {A: known}, NOW + 60)
    assert (state, detail) == (UpstreamState.LAST_KNOWN_GOOD, bad.detail)


def test_an_answer_after_a_failure_counts_again():
    known = learn(learn(None, answer("203.0.113.7"), NOW, 0.0), FAILED, NOW, 0.0)
    known = learn(known, answer("203.0.113.8"), NOW + 5, 0.0)
    assert addresses({A: known}) == ["203.0.113.8"]
    assert state_of(API, {A: known}, NOW + 5) == (UpstreamState.RESOLVED, "")


def test_a_negative_answer_is_believed_beside_a_positive_one_of_the_other_family():
    known = memory(a=answer("203.0.113.7"), aaaa=answer("2001:db8::7"))
    known[AAAA] = learn(known[AAAA], NOTHING, NOW, 0.0)
    assert addresses(known) == ["203.0.113.7"]
    known[AAAA] = learn(replace(known[AAAA], addresses=("2001:db8::7",)), FAILED, NOW, 0.0)
    assert addresses(known) == ["203.0.113.7", "2001:db8::7"]


def test_what_is_held_for_a_day_goes_where_something_else_remains():
    other = Upstream("203.0.113.99", 443)
    known = {A: learn(learn(None, answer("203.0.113.7"), NOW, 0.0), FAILED, NOW, 0.0)}
    late = NOW + HOLD_SECONDS + 1
    assert addresses(known, late - 2, (API, other)) == ["203.0.113.7", "203.0.113.99"]
    assert addresses(known, late, (API, other)) == ["203.0.113.99"]
    assert addresses(known, late, (API,)) == ["203.0.113.7"]


def test_nothing_known_is_pending_then_unresolved():
    assert state_of(API, {}, NOW) == (UpstreamState.PENDING, "")
    assert state_of(API, memory(a=FAILED), NOW) == (UpstreamState.UNRESOLVED, "SERVFAIL")
    assert state_of(API, memory(a=NOTHING, aaaa=NOTHING), NOW)[0] is UpstreamState.UNRESOLVED


def test_one_family_that_fails_without_ever_having_answered_is_no_news():
    known = memory(a=answer("203.0.113.7"), aaaa=FAILED)
    assert state_of(API, known, NOW) == (UpstreamState.RESOLVED, "")


@given(
    st.lists(
        st.sampled_from([FAILED, GONE, NOTHING, Reply(LookupResult.TIMEOUT)]),
        min_size=1,
        max_size=9,
    ),
    st.floats(0, 10 * HOLD_SECONDS),
)
def test_no_failure_empties_what_was_once_known(bad, later):
    known = memory(a=answer("203.0.113.7", "203.0.113.8"))
    for reply in bad:
        known = {q: learn(known.get(q), reply, NOW, 0.5) for q in (A, AAAA)}
    assert addresses(known, NOW + later) == ["203.0.113.7", "203.0.113.8"]


def test_answers_are_bounded():
    many = tuple(f"203.0.113.{n}" for n in range(MAX_ADDRESSES + 9))
    assert len(learn(None, answer(*many), NOW, 0.0).addresses) == MAX_ADDRESSES
    targets = tuple(Target(n, f"t{n}.example.com", 1) for n in range(MAX_TARGETS + 9))
    reply = Reply(LookupResult.ANSWER, 1.0, targets=targets[::-1])
    assert learn(None, reply, NOW, 0.0).targets == targets[:MAX_TARGETS]


def test_one_address_of_two_names_is_listed_once_and_not_as_held():
    twin = Upstream("twin.example.com", 443)
    known = memory(a=answer("203.0.113.7"))
    known[A] = learn(known[A], FAILED, NOW, 0.0)
    known[Question("twin.example.com", RecordType.A)] = learn(None, answer("203.0.113.7"), NOW, 0.0)
    (one,) = wanted([API, twin], known, NOW)
    assert (one.upstream, one.held) == ("twin.example.com:443", False)


# SRV

SRV = Upstream(srv="_https._tcp.example.com")
RECORD = Question("_https._tcp.example.com", RecordType.SRV)
TARGETS = (Target(20, "b.example.com", 8443), Target(10, "a.example.com", 443))


def srv_memory() -> dict[Question, Known]:
    known = {RECORD: learn(None, Reply(LookupResult.ANSWER, 30.0, targets=TARGETS), NOW, 0.0)}
    for name, address in (("a", "203.0.113.1"), ("b", "203.0.113.2")):
        question = Question(f"{name}.example.com", RecordType.A)
        known[question] = learn(None, answer(address), NOW, 0.0)
    return known


def test_the_targets_of_a_record_are_asked_once_it_is_known():
    assert questions([SRV], {}, EVERYTHING) == (RECORD,)
    asked = questions([SRV], srv_memory(), EVERYTHING, ["IPv4"])
    assert [q.name for q in asked] == [RECORD.name, "a.example.com", "b.example.com"]


def test_a_target_that_is_not_allowed_is_not_asked():
    allow = AllowList(("_https._tcp.example.com", "a.example.com"))
    asked = questions([SRV], srv_memory(), allow, ["IPv4"])
    assert [q.name for q in asked] == [RECORD.name, "a.example.com"]


def test_a_record_gives_addresses_ports_and_priorities():
    assert wanted([SRV], srv_memory(), NOW) == (
        Wanted("203.0.113.1", 443, SRV.key, "a.example.com", 10),
        Wanted("203.0.113.2", 8443, SRV.key, "b.example.com", 20),
    )
    assert state_of(SRV, srv_memory(), NOW) == (UpstreamState.RESOLVED, "")


def test_a_record_that_fails_holds_its_targets():
    known = srv_memory()
    known[RECORD] = learn(known[RECORD], FAILED, NOW, 0.0)
    assert [w.held for w in wanted([SRV], known, NOW)] == [True, True]
    assert state_of(SRV, known, NOW)[0] is UpstreamState.LAST_KNOWN_GOOD


def test_a_record_of_which_no_target_is_known_is_pending():
    known = {RECORD: srv_memory()[RECORD]}
    assert state_of(SRV, known, NOW)[0] is UpstreamState.PENDING


# After a restart


def test_what_was_published_is_the_last_known_good_of_the_next_operator():
    published = wanted([API, SRV], srv_memory() | memory(a=answer("203.0.113.7")), NOW)
    recalled = recall([API, SRV], published, NOW + 5)
    assert wanted([API, SRV], recalled, NOW + 5) == published
    asked = questions([API, SRV], recalled, EVERYTHING)
    assert set(due(asked, recalled, NOW + 5)) == set(asked)
    failed = {q: learn(recalled.get(q), FAILED, NOW + 5, 0.0) for q in asked}
    assert [w.address for w in wanted([API, SRV], failed, NOW + 6)] == [
        w.address for w in published
    ]


def test_what_was_published_for_another_upstream_is_forgotten():
    assert (
        recall(
            [API],
            [
                Wanted("203.0.113.9", 443, "old.example.com:443", "old"),
            ],
            NOW,
        )
        == {}
    )
