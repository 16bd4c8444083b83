"""HAProxy: its own defaults, and the time-outs of Debian's example, for it has none of its own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Answer
from upstream_guard.gateways.families import HAPROXY
from upstream_guard.lab.conformance.certificates import NAME
from upstream_guard.lab.conformance.engines.model import first_line
from upstream_guard.lab.conformance.model import QUICK_SECONDS, Case, Route, Setup, Speaks
from upstream_guard.lab.gateways.haproxy import Haproxy as Product
from upstream_guard.lab.model import Reporter
from upstream_guard.lab.packages import Need
from upstream_guard.lab.ports import LOOPBACK

_HTTP_LOG: Final = re.compile(r"/-?\d+ (-?\d+) \+?\d+ - - (\S{4}) \S+/\S+/\S+/\S+/(\+?\d+) ")
_FINE: Final = ("----", "CD--")
"""No trouble, and a client that leaves after its answer."""


@dataclass(frozen=True, slots=True)
class Haproxy:
    """The product."""

    name: str = "haproxy"
    config_file: str = "haproxy.cfg"

    @property
    def answers(self) -> Mapping[Cause, Answer]:
        """With the pods' addresses as servers."""
        return HAPROXY

    def needs(self) -> tuple[Need, ...]:
        """Debian's haproxy."""
        return Product().needs()

    def program(self, say: Reporter) -> Path:
        """The program."""
        return Product().program(say)

    def version(self, program: Path) -> str:
        """As `haproxy -v` says it."""
        return first_line([program, "-v"]).partition(" - ")[0]

    def refuses(self, case: Case) -> str:
        """Nothing."""
        del case
        return ""

    def config(self, setup: Setup) -> str:
        """A backend for each route, named after its host."""
        rules = "\n".join(
            f"  use_backend {r.host} if {{ hdr(host) -i {r.host} }}" for r in setup.routes
        )
        backends = "\n".join(_backend(setup, route) for route in setup.routes)
        return f"""\
global
  log stdout format raw local0
defaults
  log global
  mode http
  option httplog
  timeout connect 5s
  timeout client 80s
  timeout server 50s
resolvers lab
  nameserver lab {setup.resolver}
frontend gateway
  bind {LOOPBACK}:{setup.port}
{rules}
{backends}
"""

    def command(self, program: Path, setup: Setup) -> list[str]:
        """One process, in the foreground."""
        return [str(program), "-db", "-f", str(setup.folder / self.config_file)]

    def markers(self, lines: Sequence[str]) -> list[str]:
        """Termination state, and retries where there were any."""
        found = []
        for line in lines:
            match = _HTTP_LOG.search(line)
            if match and (match[2] not in _FINE or match[3] != "0"):
                retries = match[3].lstrip("+")
                found.append(match[2] + (f" after {retries} retries" if retries != "0" else ""))
        return found


def _backend(setup: Setup, route: Route) -> str:
    lines = [f"backend {route.host}"]
    if route.case.quick:
        lines += [f"  timeout connect {QUICK_SECONDS:g}s", f"  timeout server {QUICK_SECONDS:g}s"]
    options = _options(setup, route)
    targets = [f"{route.name}:80"] if route.name else route.addresses
    lines += [f"  server s{n} {target}{options}" for n, target in enumerate(targets, start=1)]
    return "\n".join(lines)


def _options(setup: Setup, route: Route) -> str:
    words = ""
    if route.case.speaks is Speaks.TLS:
        words += f" ssl verify required ca-file {setup.authority} sni str({NAME}) verifyhost {NAME}"
    if route.case.speaks is Speaks.H2C:
        words += " proto h2"
    if route.name:
        words += " resolvers lab init-addr none"
    return words


ENGINE = Haproxy()
