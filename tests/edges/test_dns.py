"""The resolver against a real DNS server on loopback: answers, and each way in which DNS fails."""

import time

import pytest

from upstream_guard.core.resolution import LookupResult, Question, RecordType, Target
from upstream_guard.lab.nameserver import NEGATIVE_TTL, Fault, Nameserver
from upstream_guard.probes.dns import Resolver, parse_server

RECORDS = {
    "api.example.com": {"A": ["203.0.113.10", "203.0.113.9"], "AAAA": ["2001:db8::1"]},
    "v4.example.com": {"A": ["203.0.113.9"]},
    "alias.example.com": {"CNAME": ["api.example.com"]},
    "_https._tcp.example.com": {"SRV": ["10 5 443 A.example.com", "20 0 8443 b.example.com"]},
    "_none._tcp.example.com": {"SRV": ["0 0 0 ."]},
}


@pytest.fixture
def server():
    with Nameserver(RECORDS, ttl=42) as running:
        yield running


@pytest.fixture
def resolver(server):
    return Resolver([server.address], try_seconds=0.3, lookup_seconds=0.9)


def a(name: str) -> Question:
    return Question(name, RecordType.A)


async def test_addresses_come_sorted_with_their_ttl(resolver):
    reply = await resolver.ask(a("api.example.com"))
    assert (reply.result, reply.ttl) == (LookupResult.ANSWER, 42.0)
    assert reply.addresses == ("203.0.113.9", "203.0.113.10")
    reply = await resolver.ask(Question("api.example.com", RecordType.AAAA))
    assert reply.addresses == ("2001:db8::1",)


async def test_an_alias_is_followed(resolver):
    reply = await resolver.ask(a("alias.example.com"))
    assert reply.addresses == ("203.0.113.9", "203.0.113.10")


async def test_a_changed_ttl_is_seen(server, resolver):
    server.ttl = 3
    assert (await resolver.ask(a("api.example.com"))).ttl == 3.0


async def test_srv_records_come_in_lower_case_with_priorities(resolver):
    reply = await resolver.ask(Question("_https._tcp.example.com", RecordType.SRV))
    assert sorted(reply.targets) == [
        Target(10, "a.example.com", 443),
        Target(20, "b.example.com", 8443),
    ]


async def test_an_srv_record_may_say_that_there_is_nothing(resolver):
    reply = await resolver.ask(Question("_none._tcp.example.com", RecordType.SRV))
    assert (reply.result, reply.targets) == (LookupResult.NO_DATA, ())


@pytest.mark.parametrize(
    ("question", "result"),
    [
        (Question("v4.example.com", RecordType.AAAA), LookupResult.NO_DATA),
        (a("nobody.example.com"), LookupResult.NO_NAME),
    ],
)
async def test_negative_answers_are_told_apart_and_have_a_ttl(resolver, question, result):
    reply = await resolver.ask(question)
    assert (reply.result, reply.ttl) == (result, float(NEGATIVE_TTL))


@pytest.mark.parametrize(
    ("fault", "result", "word"),
    [
        (Fault.SERVFAIL, LookupResult.SERVER_FAILURE, "SERVFAIL"),
        (Fault.REFUSED, LookupResult.ERROR, "REFUSED"),
        (Fault.SILENT, LookupResult.TIMEOUT, "no answer"),
        (Fault.NONSENSE, LookupResult.TIMEOUT, "no answer"),
    ],
)
async def test_failures_are_told_apart_and_bounded(server, resolver, fault, result, word):
    server.fault = fault
    started = time.monotonic()
    reply = await resolver.ask(a("api.example.com"))
    assert (reply.result, reply.addresses) == (result, ())
    assert word in reply.detail
    assert len(reply.detail) <= 200
    assert time.monotonic() - started < 3


async def test_a_server_that_is_gone_is_a_failure(server, resolver):
    server.stop()
    reply = await resolver.ask(a("api.example.com"))
    assert reply.result in {LookupResult.TIMEOUT, LookupResult.ERROR}
    server.start()
    assert (await resolver.ask(a("api.example.com"))).result is LookupResult.ANSWER


async def test_the_second_server_is_asked_where_the_first_fails(server):
    with Nameserver() as broken:
        broken.fault = Fault.SERVFAIL
        both = Resolver([broken.address, server.address], try_seconds=0.3, lookup_seconds=0.9)
        assert (await both.ask(a("api.example.com"))).result is LookupResult.ANSWER


async def test_names_are_absolute(server, resolver, tmp_path):
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\nsearch svc.cluster.local\noptions ndots:5\n")
    configured = Resolver(resolv_conf=conf)
    configured._resolver.nameservers = resolver._resolver.nameservers
    await configured.ask(a("nobody.example.com"))
    assert {name for name, _, _ in server.asked} == {"nobody.example.com"}


async def test_without_a_configuration_every_question_ends_with_words(tmp_path):
    reply = await Resolver(resolv_conf=tmp_path / "none").ask(a("api.example.com"))
    assert reply.result is LookupResult.ERROR
    assert "names no DNS server" in reply.detail


async def test_a_name_that_cannot_be_asked_is_an_error(resolver):
    reply = await resolver.ask(a("a" * 64 + ".example.com"))
    assert reply.result is LookupResult.ERROR


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("10.96.0.10", ("10.96.0.10", 53)),
        ("10.96.0.10:5353", ("10.96.0.10", 5353)),
        ("fd00::a", ("fd00::a", 53)),
        ("[fd00::a]:5353", ("fd00::a", 5353)),
        ("[fd00::a]", ("fd00::a", 53)),
    ],
)
def test_servers_by_address(text, server):
    assert parse_server(text) == server


@pytest.mark.parametrize(
    "text", ["", "dns.example.com", "10.96.0.10:0", "10.96.0.10:99999", "1.2.3.4:x"]
)
def test_what_is_no_server_is_said(text):
    with pytest.raises(ValueError, match="is no DNS server"):
        parse_server(text)
