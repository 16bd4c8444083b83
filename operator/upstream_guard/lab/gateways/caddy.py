"""Caddy with its defaults, without certificates."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from upstream_guard.lab import tools
from upstream_guard.lab.gateways import support
from upstream_guard.lab.gateways.plain import (
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
class Caddy:
    """The product."""

    name: str = "caddy"
    title: str = "Caddy, plain, to a ClusterIP"
    default_port: int = 8480
    contained: bool = False
    config_file: str = "Caddyfile"
    resolves: bool = True

    def needs(self) -> tuple[Need, ...]:
        """Nothing: it is built from its Go module."""
        return ()

    def program(self, say: Reporter) -> Path:
        """The program, built if need be."""
        return tools.tool_path("caddy", say)

    def config(self, setup: Setup) -> str:
        """One site per route; a host that is not known gets 421.

        Metrics by host, or they would not tell one route's requests from another's.
        """
        routes = "\n".join(
            _site(host, setup.port, upstream) for host, upstream in sorted(setup.routes.items())
        )
        return f"""\
{{
	admin {LOOPBACK}:{setup.admin_port}
	auto_https off
	persist_config off
	storage file_system {setup.folder}/data
	metrics {{
		per_host
	}}
}}
{routes}
http://:{setup.port} {{
	bind {LOOPBACK}
	log
	header {REVISION_HEADER} {setup.revision}
	respond {UNROUTED}
}}
"""

    def command(self, program: Path, setup: Setup) -> list[str]:
        """In the foreground; a known file and adapter is what it reloads on a signal."""
        config = str(setup.folder / self.config_file)
        return [str(program), "run", "--config", config, "--adapter", "caddyfile"]

    def reload(self, setup: Setup, pids: Sequence[int], spawn: Spawn) -> None:
        """Make the main process read its configuration again."""
        del setup, spawn
        support.send(pids, signal.SIGUSR1)

    def metrics_url(self, setup: Setup) -> str:
        """Served by its admin API."""
        return f"http://{LOOPBACK}:{setup.admin_port}/metrics"

    def admin_url(self, setup: Setup) -> str:
        """Its admin API."""
        return f"http://{LOOPBACK}:{setup.admin_port}"


def _site(host: str, port: int, upstream: str) -> str:
    # Caddy takes the scheme from the address, and verifies unless told otherwise.
    to = parse_upstream(upstream)
    options = []
    if to.secured:
        options.append("tls_insecure_skip_verify")
    if to.resolver:
        # It asks for each connection, and keeps connections: those it has would serve on for minutes.
        options += [f"resolvers {to.resolver}", "keepalive off"]
    lines = "".join(f"\n\t\t\t{option}" for option in options)
    transport = f" {{\n\t\ttransport http {{{lines}\n\t\t}}\n\t}}" if options else ""
    scheme = "https://" if to.secured else ""
    return f"""\
http://{host}:{port} {{
	bind {LOOPBACK}
	log
	reverse_proxy {scheme}{to.address}{transport}
}}"""


ADDON = PlainGateway(Caddy())
