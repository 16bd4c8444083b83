"""Which names and addresses an external upstream may have: each refusal, and its words."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.allowance import (
    AllowList,
    Premises,
    parse_name_pattern,
    parse_range,
    premises_of,
    refuse_address,
    refuse_name,
)

EVERYTHING = AllowList(("*",), (ip_network("0.0.0.0/0"), ip_network("::/0")))
PREMISES = premises_of(
    [("10.244.1.0/24", "pods of a node"), ("10.96.0.0/12", "Services"), ("fd00:10::/64", "pods")],
    {"192.0.2.10": "a node's address", "198.51.100.7": "a pod's address"},
    known=True,
)


def test_by_default_nothing_is_allowed():
    assert "--allow-upstream-names" in refuse_name(AllowList(), "api.example.com")
    assert "--allow-upstream-ranges" in refuse_address(AllowList(), Premises(), "203.0.113.7")


@pytest.mark.parametrize(
    ("pattern", "name", "allowed"),
    [
        ("api.example.com", "api.example.com", True),
        ("api.example.com", "API.Example.com.", True),
        ("api.example.com", "xapi.example.com", False),
        ("*.example.com", "api.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "_https._tcp.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "badexample.com", False),
        ("*.example.com", "example.com.evil.net", False),
        ("*", "anything.at.all", True),
    ],
)
def test_names(pattern: str, name: str, allowed: bool):
    assert (refuse_name(AllowList((pattern,)), name) == "") is allowed


@pytest.mark.parametrize(
    "text",
    ["", ".", "*.", "a*.example.com", "*.*.com", "http://example.com", "a b", "-", "x" * 300],
)
def test_what_is_no_pattern_is_said(text: str):
    with pytest.raises(ValueError, match="is no name"):
        parse_name_pattern(text)


def test_patterns_are_stored_in_one_form():
    assert parse_name_pattern(" *.Example.COM. ") == "*.example.com"


@pytest.mark.parametrize("text", ["", "example.com", "203.0.113.7/24", "1.2.3.4/33", "::/129"])
def test_what_is_no_range_is_said(text: str):
    with pytest.raises(ValueError, match="is no range"):
        parse_range(text)


def test_a_single_address_is_a_range():
    assert parse_range("203.0.113.7") == ip_network("203.0.113.7/32")


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "this host"),
        ("::", "this host"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "host service"),
        ("fd00:ec2::254", "metadata"),
        ("::ffff:10.244.1.5", "clothes"),
        ("::10.244.1.5", "clothes"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b::af4:105", "belongs to the cluster (pods of a node)"),
        ("2002:0af4:0105::1", "belongs to the cluster (pods of a node)"),
        ("2001:0:4136:e378:8000:63bf:f50b:fefa", "belongs to the cluster"),
        ("10.244.1.5", "belongs to the cluster (pods of a node)"),
        ("10.96.0.1", "belongs to the cluster (Services)"),
        ("fd00:10::7", "belongs to the cluster (pods)"),
        ("192.0.2.10", "a node's address"),
        ("198.51.100.7", "a pod's address"),
    ],
)
def test_never_whatever_the_list_says(address: str, word: str):
    said = refuse_address(EVERYTHING, PREMISES, address)
    assert word in said
    assert "never an external upstream" in said


@pytest.mark.parametrize(
    "address", ["203.0.113.7", "10.0.0.1", "2001:db8::7", "64:ff9b::cb00:7107"]
)
def test_what_the_list_covers_is_allowed(address: str):
    assert refuse_address(EVERYTHING, PREMISES, address) == ""


def test_ranges_of_one_family_say_nothing_of_the_other():
    allow = AllowList((), (ip_network("0.0.0.0/0"),))
    assert refuse_address(allow, PREMISES, "203.0.113.7") == ""
    assert "--allow-upstream-ranges" in refuse_address(allow, PREMISES, "2001:db8::7")


def test_an_address_in_the_place_of_a_name_needs_a_range_only():
    assert refuse_name(AllowList(), "203.0.113.7") == ""
    assert (
        refuse_address(AllowList((), (parse_range("203.0.113.0/24"),)), PREMISES, "203.0.113.7")
        == ""
    )


def test_without_sight_of_the_nodes_nothing_is_allowed():
    said = refuse_address(EVERYTHING, Premises(known=False), "203.0.113.7")
    assert "--cluster-ranges" in said


def test_what_is_no_address_is_refused():
    assert "no address" in refuse_address(EVERYTHING, PREMISES, "api.example.com")


def test_nonsense_in_the_clusters_own_ranges_is_passed_over():
    premises = premises_of([("nonsense", "pods"), ("10.1.2.3/16", "pods")], {}, known=True)
    assert "belongs" in refuse_address(EVERYTHING, premises, "10.1.9.9")


@given(st.ip_addresses())
def test_no_address_of_the_cluster_gets_through(address):
    inside = any(
        address.version == network.version and address in network for network, _ in PREMISES.ranges
    )
    if inside or address.is_loopback or address.is_link_local or address.is_multicast:
        assert refuse_address(EVERYTHING, PREMISES, str(address))
