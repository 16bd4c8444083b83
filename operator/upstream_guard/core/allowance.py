"""Which external names and addresses guards may use: an administrator's list, and what is never possible.

A tenant who may write a guard could otherwise have the gateway, and the operator's probes, talk to what
he himself cannot reach (the class of CVE-2021-25740): another tenant's pod, a node, the cloud's metadata
service. So nothing is possible that the list does not name, a name as well as its address must be in
it, and the cluster's own addresses are refused whatever it says. Addresses are judged after each
resolution and before each publication, since whoever owns a name may change what it points to.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_PATTERN: Final = re.compile(rf"\*|(\*\.)?{_LABEL}(\.{_LABEL})*", re.ASCII)
MAX_NAME: Final = 253

_NEVER: Final[tuple[tuple[str, str], ...]] = (
    ("0.0.0.0/8", "means this host"),
    ("127.0.0.0/8", "is a loopback address"),
    ("169.254.0.0/16", "is a link-local address, where clouds keep their metadata service"),
    ("224.0.0.0/4", "is a multicast address"),
    ("240.0.0.0/4", "is reserved"),
    # Metadata and host services of clouds that are not link-local (Alibaba, Azure, Oracle, AWS).
    ("100.100.100.200/32", "is the address of a cloud's metadata service"),
    ("168.63.129.16/32", "is the address of a cloud's host service"),
    ("192.0.0.192/32", "is the address of a cloud's metadata service"),
    ("fd00:ec2::/32", "is the address of a cloud's metadata service"),
    ("::/128", "means this host"),
    ("::1/128", "is a loopback address"),
    ("fe80::/10", "is a link-local address"),
    ("fec0::/10", "is a site-local address"),
    ("ff00::/8", "is a multicast address"),
    # Ways to write an IPv4 address that would lead round the rules for it.
    ("::/96", "is an IPv4 address in the clothes of IPv6"),
    ("::ffff:0:0/96", "is an IPv4 address in the clothes of IPv6"),
)
"""Ranges that no list can allow, and why; the first that matches gives the words."""

_NETWORKS: Final = tuple((ip_network(text), why) for text, why in _NEVER)
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
"""Prefixes of RFC 6052 and RFC 8215: a translator turns the last 32 bits into an IPv4 destination."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """What an administrator allows. Empty means nothing.

    Attributes:
        names: Lower case: a whole name, `*.example.com` (any depth below, not `example.com` itself),
            or `*`.
        ranges: Address ranges.
    """

    names: tuple[str, ...] = ()
    ranges: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Premises:
    """The cluster's own addresses, which are never an external upstream.

    Attributes:
        ranges: With what each is, e.g. `the range of Services`.
        addresses: Single ones, as text, with what each is, e.g. `a pod's address`.
        known: Whether nodes and ranges could be read, or were given. Where not, no address can be
            told from one of the cluster.
    """

    ranges: tuple[tuple[Network, str], ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)
    known: bool = True


def parse_name_pattern(text: str) -> str:
    """A pattern of `AllowList.names`, in its plain form.

    Raises:
        ValueError: It is none; the message says what is.
    """
    plain = text.strip().lower()
    if plain != "*.":  # a slip, which must not come to mean every name
        plain = plain.removesuffix(".")
    if len(plain) > MAX_NAME or not _PATTERN.fullmatch(plain):
        raise ValueError(
            f"{text[:60]!r} is no name: use api.example.com, *.example.com for every name below it, "
            "or * for every name"
        )
    return plain


def parse_range(text: str) -> Network:
    """A range such as `203.0.113.0/24`, or a single address.

    Raises:
        ValueError: It is none; the message says what is.
    """
    try:
        return ip_network(text.strip())
    except ValueError as error:
        raise ValueError(
            f"{text[:60]!r} is no range of addresses: {error}; use 203.0.113.0/24 or 2001:db8::/32"
        ) from None


def refuse_name(allow: AllowList, name: str) -> str:
    """Why a name must not be asked for; empty where it may.

    An address in the place of a name is judged by `refuse_address` alone.
    """
    if is_address(name):
        return ""
    plain = name.lower().removesuffix(".")
    if any(_matches(pattern, plain) for pattern in allow.names):
        return ""
    return (
        f"no --allow-upstream-names of the operator covers the name {plain}; "
        "an administrator decides which names are possible"
    )


def refuse_address(allow: AllowList, premises: Premises, address: str) -> str:
    """Why an address must not be published or probed; empty where it may."""
    try:
        found = ip_address(address)
    except ValueError:
        return f"{address[:60]!r} is no address"
    for meant in (found, *_embedded(found)):
        why = _never(meant) or _own(premises, meant)
        if why:
            return f"{address} {why}, which is never an external upstream, whatever is allowed"
    if not premises.known:
        return (
            f"{address} cannot be told from an address of the cluster, because this operator may not "
            "read nodes; an administrator can name the cluster's ranges with --cluster-ranges"
        )
    if any(_within(found, network) for network in allow.ranges):
        return ""
    return (
        f"no --allow-upstream-ranges of the operator covers {address}; "
        "an administrator decides which ranges are possible"
    )


def is_address(name: str) -> bool:
    """An IP address stands in the place of a name."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def premises_of(
    ranges: Iterable[tuple[str, str]], addresses: Mapping[str, str], *, known: bool
) -> Premises:
    """Premises from what the API says; what is no range there counts as none."""
    found: list[tuple[Network, str]] = []
    for text, what in ranges:
        try:
            found.append((ip_network(text, strict=False), what))
        except ValueError:
            continue
    return Premises(tuple(found), addresses, known)


def _matches(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) >= len(pattern)
    return name == pattern


def _never(address: Address) -> str:
    return next((why for network, why in _NETWORKS if _within(address, network)), "")


def _own(premises: Premises, address: Address) -> str:
    what = premises.addresses.get(str(address), "")
    if not what:
        what = next((w for network, w in premises.ranges if _within(address, network)), "")
    return f"belongs to the cluster ({what})" if what else ""


def _embedded(address: Address) -> tuple[Address, ...]:
    """The IPv4 destinations that a router or translator may make of an IPv6 address."""
    if isinstance(address, IPv4Address):
        return ()
    found: list[Address] = []
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    if any(address in network for network in _NAT64):
        found.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return tuple(found)


def _within(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network
