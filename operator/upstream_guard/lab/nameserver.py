"""A small DNS server for labs and tests: the records that it is given, and the ways in which DNS fails.

As a program it answers from a file, and reads it again whenever it changed:

    python -m upstream_guard.lab.nameserver --listen 127.0.0.1:5353 zone.json

    {"ttl": 5, "fault": "", "records": {"api.example.com": {"A": ["203.0.113.7"]}}}
"""

import json
import socketserver
import threading
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import click
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

NEGATIVE_TTL = 7
"""Seconds, of the SOA record in negative answers."""
LIMIT = 1232
"""Bytes of an answer; what is longer is truncated, as by servers that fear fragments."""


class Fault(StrEnum):
    """How DNS fails."""

    NONE = ""
    SERVFAIL = "servfail"
    REFUSED = "refused"
    SILENT = "silent"
    NONSENSE = "nonsense"


class Nameserver:
    """Answers on UDP in a thread of its own; records and fault may be changed at any time.

    Attributes:
        records: Per name (lower case, no final dot) and type, the records' text: addresses, the target
            of a CNAME, `priority weight port target` for SRV.
        ttl: Seconds, of positive answers.
        fault: How it fails.
        asked: What it was asked: name, type and when (monotonic clock), oldest first.
    """

    def __init__(
        self,
        records: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        *,
        ttl: int = 5,
        listen: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.records: dict[str, Mapping[str, Sequence[str]]] = dict(records or {})
        self.ttl = ttl
        self.fault = Fault.NONE
        self.asked: list[tuple[str, str, float]] = []
        self._listen = listen
        self._server: socketserver.ThreadingUDPServer | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the port is known once it was started, and kept when it is started again."""
        return self._listen

    @property
    def server(self) -> str:
        """The same as `address:port`, as resolvers are told."""
        host, port = self._listen
        return f"{host}:{port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to answer."""
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, sock = self.request
                answer = outer.answer(data)
                if answer:
                    sock.sendto(answer, self.client_address)

        server = socketserver.ThreadingUDPServer(self._listen, Handler)
        server.daemon_threads = True
        host, port = server.server_address[:2]
        self._listen = (str(host), int(port))
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Answer no more: the port is closed, as with a process that has ended."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, data: bytes) -> bytes:
        """The bytes to send back; none where it keeps silent."""
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return b""
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, time.monotonic()))
        if self.fault is Fault.SILENT:
            return b""
        if self.fault is Fault.NONSENSE:
            return data[:2] + b"nonsense"
        response = dns.message.make_response(query, recursion_available=True)
        if self.fault:
            response.set_rcode(dns.rcode.from_text(self.fault.value))
        else:
            self._fill(response, name, kind)
        wire = response.to_wire()
        if len(wire) <= LIMIT:
            return wire
        short = dns.message.make_response(query)
        short.flags |= dns.flags.TC
        return short.to_wire()

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        known = self.records.get(name)
        for _ in range(8):  # CNAMEs
            if known is None or kind in known or "CNAME" not in known:
                break
            target = known["CNAME"][0]
            response.answer.append(_rrset(name, self.ttl, "CNAME", [target]))
            name = target.lower().removesuffix(".")
            known = self.records.get(name)
        if known is not None and known.get(kind):
            response.answer.append(_rrset(name, self.ttl, kind, known[kind]))
            return
        if known is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        zone = name.partition(".")[2] or name
        soa = f"ns.{zone}. admin.{zone}. 1 60 60 60 {NEGATIVE_TTL}"
        response.authority.append(_rrset(zone, 60, "SOA", [soa]))


def _rrset(name: str, ttl: int, kind: str, records: Sequence[str]) -> dns.rrset.RRset:
    whole = [f"{r}." if kind in {"CNAME", "SRV"} and not r.endswith(".") else r for r in records]
    return dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *whole)


def _load(server: Nameserver, zone: Path) -> None:
    body: Mapping[str, Any] = json.loads(zone.read_text())
    server.records = dict(body.get("records") or {})
    server.ttl = int(body.get("ttl") or 5)
    server.fault = Fault(body.get("fault") or "")


@click.command()
@click.option("--listen", default="127.0.0.1:5353", show_default=True, help="ADDRESS:PORT")
@click.argument("zone", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(listen: str, zone: Path) -> None:
    """Answer from the JSON file ZONE until stopped."""
    host, _, port = listen.rpartition(":")
    server = Nameserver(listen=(host, int(port)))
    _load(server, zone)
    seen = zone.stat().st_mtime_ns
    with server:
        while True:
            time.sleep(0.05)
            now = zone.stat().st_mtime_ns
            if now != seen:
                _load(server, zone)
                seen = now


if __name__ == "__main__":
    main()
