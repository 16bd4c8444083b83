"""Apache httpd: mod_proxy_http with its defaults."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Answer
from upstream_guard.gateways.httpd import ANSWERS
from upstream_guard.lab.conformance.engines.model import first_line
from upstream_guard.lab.conformance.model import QUICK_SECONDS, Case, Route, Setup, Source, Speaks
from upstream_guard.lab.gateways import httpd
from upstream_guard.lab.model import Reporter
from upstream_guard.lab.packages import Need
from upstream_guard.lab.ports import LOOPBACK

_MODULES: Final = (
    *httpd.MODULES, "proxy_http2", "http2", "proxy_balancer", "lbmethod_byrequests",
    "slotmem_shm", "socache_shmcb", "ssl",
)  # fmt: skip
_SCHEMES: Final = {Speaks.TLS: "https", Speaks.H2C: "h2c"}
_CODE: Final = re.compile(r"\bAH\d+: (?:HTTP: )?[a-zA-Z ]+")


@dataclass(frozen=True, slots=True)
class Httpd:
    """The product."""

    name: str = "httpd"
    config_file: str = "httpd.conf"

    @property
    def answers(self) -> Mapping[Cause, Answer]:
        """With the pods' addresses as members."""
        return ANSWERS

    def needs(self) -> tuple[Need, ...]:
        """Debian's apache2."""
        return httpd.Httpd().needs()

    def program(self, say: Reporter) -> Path:
        """The program."""
        return httpd.Httpd().program(say)

    def version(self, program: Path) -> str:
        """As `apache2 -v` says it."""
        return first_line([program, "-v"]).removeprefix("Server version: ")

    def refuses(self, case: Case) -> str:
        """Its name is resolved by the machine, which answers for itself."""
        if case.source is Source.SILENT_DNS:
            return "takes the machine's resolver"
        return ""

    def config(self, setup: Setup) -> str:
        """A virtual host for each route."""
        hosts = "\n".join(_virtual_host(setup, route) for route in setup.routes)
        return f"{httpd.preamble(setup.folder, setup.port, _MODULES)}\n{hosts}\n"

    def command(self, program: Path, setup: Setup) -> list[str]:
        """In the foreground."""
        return httpd.command(program, setup.folder / self.config_file)

    def markers(self, lines: Sequence[str]) -> list[str]:
        """The error log's messages, as far as they are words."""
        found = (_CODE.search(line) for line in lines)
        return [match[0].strip() for match in found if match]


def _virtual_host(setup: Setup, route: Route) -> str:
    scheme = _SCHEMES.get(route.case.speaks, "http")
    lines = [f"ServerName {route.host}"]
    if route.case.speaks is Speaks.TLS:
        lines += [
            "SSLProxyEngine on",
            "SSLProxyVerify require",
            f"SSLProxyCACertificateFile {setup.authority}",
        ]
    seconds = f"{QUICK_SECONDS:g}"
    options = f" connectiontimeout={seconds} timeout={seconds}" if route.case.quick else ""
    targets = [f"{route.name}:80"] if route.name else list(route.addresses)
    if route.case.speaks is Speaks.TLS:
        # It looks for the URL's host among the certificate's DNS names, never its addresses.
        targets = [target.replace(LOOPBACK, "localhost") for target in targets]
    if len(targets) == 1:
        lines += [f"ProxyPass / {scheme}://{targets[0]}/{options}"]
    else:
        # A balancer without members is refused; one whose only member is disabled is as empty.
        members = [f"{scheme}://{target}{options}" for target in targets]
        members = members or [f"http://{LOOPBACK}:9 status=+D"]
        listed = "\n".join(f"    BalancerMember {member}" for member in members)
        balancer = f"balancer://{route.host}"
        lines += [
            f"<Proxy {balancer}>\n{listed}\n  </Proxy>",
            f"ProxyPass / {balancer}/",
        ]
    body = "\n".join(f"  {line}" for line in lines)
    return f"<VirtualHost {LOOPBACK}:{setup.port}>\n{body}\n</VirtualHost>"


ENGINE = Httpd()
