"""HAProxy with the time-outs of Debian's example configuration and its own defaults otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from upstream_guard.lab.gateways import support
from upstream_guard.lab.gateways.plain import (
    DNS_SECONDS,
    REVISION_HEADER,
    UNROUTED,
    PlainGateway,
    Setup,
    Spawn,
    parse_upstream,
)
from upstream_guard.lab.model import Reporter
from upstream_guard.lab.packages import Need
from upstream_guard.lab.ports import LOOPBACK


@dataclass(frozen=True, slots=True)
class Haproxy:
    """The product."""

    name: str = "haproxy"
    title: str = "HAProxy, plain, to a ClusterIP"
    default_port: int = 8380
    contained: bool = False
    config_file: str = "haproxy.cfg"
    resolves: bool = True

    def needs(self) -> tuple[Need, ...]:
        """Debian's haproxy, whose service is not used."""
        return (Need("haproxy", program="haproxy", service="haproxy"),)

    def program(self, say: Reporter) -> Path:
        """The program."""
        del say
        return self.program_path()

    def program_path(self) -> Path:
        """Where it is installed."""
        return support.program("haproxy")

    def config(self, setup: Setup) -> str:
        """One backend per route; a host that is not known gets 421.

        The name of a backend is its host, so logs and metrics read well.
        """
        routes = sorted(setup.routes.items())
        rules = "\n".join(
            f"  use_backend {host} if {{ hdr(host) -i {host} }}" for host, _ in routes
        )
        backends = "\n".join(
            f"backend {host}\n  server upstream {_server(upstream)}" for host, upstream in routes
        )
        used = sorted({parse_upstream(upstream).resolver for _, upstream in routes} - {""})
        sections = "\n".join(map(_section, used))
        return f"""\
global
  log stdout format raw local0
defaults
  log global
  mode http
  option dontlognull
  timeout connect 5s
  timeout client 50s
  timeout server 50s
frontend metrics
  bind {LOOPBACK}:{setup.admin_port}
  no log
  http-request use-service prometheus-exporter if {{ path /metrics }}
  stats enable
  stats uri /stats
  stats show-legends
frontend gateway
  option httplog
  bind {LOOPBACK}:{setup.port} backlog 4096
{rules}
  default_backend unrouted
{sections}
backend unrouted
  http-request return status {UNROUTED} hdr {REVISION_HEADER} {setup.revision}
{backends}
"""

    def command(self, program: Path, setup: Setup) -> list[str]:
        """One process, in the foreground."""
        return [str(program), "-db", "-f", str(setup.folder / self.config_file)]

    def reload(self, setup: Setup, pids: Sequence[int], spawn: Spawn) -> None:
        """Start another process, which takes the port over and lets the old one finish.

        The master-worker mode reloads itself, but not reliably in quick succession: with 2.6 a
        signal during a reload killed the master, and its socket's `reload` left it hanging.
        """
        command = self.command(self.program_path(), setup)
        spawn([*command, *(["-sf", *map(str, pids)] if pids else [])])

    def metrics_url(self, setup: Setup) -> str:
        """Its own exporter."""
        return f"http://{LOOPBACK}:{setup.admin_port}/metrics"

    def admin_url(self, setup: Setup) -> str:
        """Its statistics page."""
        return f"http://{LOOPBACK}:{setup.admin_port}/stats"


def _server(upstream: str) -> str:
    to = parse_upstream(upstream)
    if to.resolver:
        # Without an answer at its start it begins without the server, and takes it up later.
        section = _resolvers(to.resolver)
        return f"{to.address} resolvers {section} resolve-prefer ipv4 init-addr none"
    return f"{to.address} ssl verify none" if to.secured else to.address


def _section(resolver: str) -> str:
    """About a DNS server. Of what it says last known good addresses hold a second, by default half a minute."""
    holds = "\n".join(
        f"  hold {kind} {DNS_SECONDS}s" for kind in ("valid", "nx", "timeout", "refused", "other")
    )
    return f"""\
resolvers {_resolvers(resolver)}
  nameserver lab {resolver}
  resolve_retries 2
  timeout resolve {DNS_SECONDS}s
  timeout retry {DNS_SECONDS}s
{holds}"""


def _resolvers(resolver: str) -> str:
    """Name of the section about a DNS server."""
    return f"dns-{resolver.replace(':', '-')}"


ADDON = PlainGateway(Haproxy())
