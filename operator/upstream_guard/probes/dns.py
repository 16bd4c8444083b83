"""Asks DNS: one question at a time, with bounded time-outs, and told apart how it ended.

Names are absolute: no search domain is tried, so that a guard's `api.example.com` never means
`api.example.com.svc.cluster.local`. What a cache in between has kept comes with what remains of its TTL.
"""

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final, cast

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from upstream_guard.core.resolution import LookupResult, Question, RecordType, Reply, Target

DNS_PORT: Final = 53
TRY_SECONDS: Final = 1.0
"""How long one server gets to answer once."""
LOOKUP_SECONDS: Final = 3.0
"""How long a question may take with all servers and repetitions."""
RESOLV_CONF: Final = Path("/etc/resolv.conf")
CLUSTER_DOMAIN: Final = "cluster.local"
"""What nearly every cluster calls itself (kubelet, `clusterDomain`)."""
_MAX_DETAIL: Final = 200


def parse_server(text: str) -> tuple[str, int]:
    """`10.96.0.10`, `10.96.0.10:5353` or `[fd00::a]:53` as address and port.

    Raises:
        ValueError: It is none of these; the message says what is.
    """
    host, port = text.strip(), ""
    if host.startswith("["):
        host, _, port = host[1:].partition("]")
        port = port.removeprefix(":")
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    try:
        address = str(ip_address(host))
        number = int(port) if port else DNS_PORT
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise ValueError(
            f"{text[:60]!r} is no DNS server: use an address, such as 10.96.0.10 or 10.96.0.10:5353"
        )
    return address, number


class Resolver:
    """Questions to the servers of a `resolv.conf`, or to given ones."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]] = (),
        *,
        resolv_conf: Path = RESOLV_CONF,
        try_seconds: float = TRY_SECONDS,
        lookup_seconds: float = LOOKUP_SECONDS,
    ) -> None:
        """Make a resolver; nothing is asked yet.

        Args:
            servers: Addresses and ports, asked in this order; empty means those of `resolv_conf`.
            resolv_conf: Read once. Where it cannot be read, every question ends with an error.
            try_seconds: How long one server gets to answer once.
            lookup_seconds: How long one question may take.
        """
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._problem = ""
        if servers:
            self._resolver.nameservers = [
                dns.nameserver.Do53Nameserver(address, port) for address, port in servers
            ]
        else:
            self._read(resolv_conf)
        self._resolver.timeout = try_seconds
        self._resolver.lifetime = lookup_seconds

    def _read(self, resolv_conf: Path) -> None:
        try:
            self._resolver.read_resolv_conf(str(resolv_conf))
        except (OSError, dns.resolver.NoResolverConfiguration) as error:
            self._problem = f"{resolv_conf} names no DNS server: {error}"

    @property
    def cluster_domain(self) -> str:
        """The cluster's own domain: what the kubelet wrote into a pod's `resolv.conf`, or the usual one.

        It writes `search NAMESPACE.svc.DOMAIN svc.DOMAIN DOMAIN` (kubernetes.io, DNS for Services and Pods).
        """
        names = (name.to_text(omit_final_dot=True) for name in self._resolver.search)
        found = (name.removeprefix("svc.") for name in names if name.startswith("svc."))
        return next(found, CLUSTER_DOMAIN)

    async def ask(self, question: Question) -> Reply:
        """How one question ends; never raises."""
        if self._problem:
            return Reply(LookupResult.ERROR, detail=self._problem)
        try:
            name = dns.name.from_text(question.name)
            answer = await self._resolver.resolve(
                name, question.type.value, search=False, raise_on_no_answer=False
            )
        except dns.resolver.NXDOMAIN as error:
            return _no_name((error.kwargs.get("responses") or {}).get(name))
        except dns.resolver.LifetimeTimeout as error:
            return Reply(LookupResult.TIMEOUT, detail=_detail("no answer", error))
        except dns.resolver.NoNameservers as error:
            return _refused(error)
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return Reply(LookupResult.ERROR, detail=_detail(type(error).__name__, error))
        return _reply(question, answer)


def _reply(question: Question, answer: dns.resolver.Answer) -> Reply:
    ttl = float(answer.chaining_result.minimum_ttl)
    if answer.rrset is None:
        return Reply(LookupResult.NO_DATA, ttl, detail=f"no {question.type.value} record")
    if question.type is RecordType.SRV:
        targets = tuple(_target(cast("SRV", record)) for record in answer.rrset)
        if any(target.name for target in targets):
            return Reply(LookupResult.ANSWER, ttl, targets=tuple(t for t in targets if t.name))
        # RFC 2782: a target of "." says that the service is decidedly not available.
        return Reply(LookupResult.NO_DATA, ttl, detail="the SRV record says that there is none")
    addresses = sorted({ip_address(record.to_text()) for record in answer.rrset}, key=int)
    return Reply(LookupResult.ANSWER, ttl, tuple(map(str, addresses)))


def _target(record: SRV) -> Target:
    name = record.target.to_text(omit_final_dot=True).lower()
    return Target(record.priority, "" if name == "." else name, record.port)


def _no_name(response: dns.message.QueryMessage | None) -> Reply:
    ttl = 0.0
    if response is not None:
        with suppress(dns.exception.DNSException):
            ttl = float(response.resolve_chaining().minimum_ttl)
    return Reply(LookupResult.NO_NAME, ttl, detail="no such name")


def _refused(error: dns.resolver.NoNameservers) -> Reply:
    """Every server answered, and none with an answer."""
    codes = [
        entry[4].rcode()
        for entry in error.kwargs.get("errors") or ()
        if isinstance(entry[4], dns.message.Message)
    ]
    failed = dns.rcode.SERVFAIL in codes
    result = LookupResult.SERVER_FAILURE if failed else LookupResult.ERROR
    words = ", ".join(dict.fromkeys(dns.rcode.to_text(code) for code in codes))
    return Reply(result, detail=words or _detail("no usable answer", error))


def _detail(what: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{what}: {text}"[:_MAX_DETAIL] if text else what
