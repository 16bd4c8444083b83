"""Caddy: `reverse_proxy` with its defaults."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Answer
from upstream_guard.gateways.caddy import ANSWERS
from upstream_guard.lab import tools
from upstream_guard.lab.conformance.certificates import NAME
from upstream_guard.lab.conformance.engines.model import first_line
from upstream_guard.lab.conformance.model import QUICK_SECONDS, Case, Route, Setup, Speaks
from upstream_guard.lab.gateways.caddy import Caddy as Product
from upstream_guard.lab.model import Reporter
from upstream_guard.lab.packages import Need
from upstream_guard.lab.ports import LOOPBACK

_ADDRESSES: Final = re.compile(r"[\d.]+:\d+(->[\d.]+:\d+)?")
_OF_THE_MOMENT: Final = re.compile(r': current time.*| \(possibly.*|:? ".*')


@dataclass(frozen=True, slots=True)
class Caddy:
    """The product."""

    name: str = "caddy"
    config_file: str = "Caddyfile"

    @property
    def answers(self) -> Mapping[Cause, Answer]:
        """With the pods' addresses as upstreams."""
        return ANSWERS

    def needs(self) -> tuple[Need, ...]:
        """Nothing: it is built from its Go module."""
        return Product().needs()

    def program(self, say: Reporter) -> Path:
        """The program, built if need be."""
        return Product().program(say)

    def version(self, program: Path) -> str:
        """As `caddy version` says it; one built as a dependency does not know, but is pinned."""
        if program == tools.cached_path("caddy"):
            return f"caddy {tools.version('caddy')}"
        return f"caddy {first_line([program, 'version']).partition(' ')[0]}"

    def refuses(self, case: Case) -> str:
        """Nothing."""
        del case
        return ""

    def config(self, setup: Setup) -> str:
        """A handler for each route."""
        routes = "\n".join(_route(setup, index, route) for index, route in enumerate(setup.routes))
        return f"""\
{{
	admin off
	auto_https off
	persist_config off
	storage file_system {setup.folder}/data
}}
http://:{setup.port} {{
	bind {LOOPBACK}
{routes}
}}
"""

    def command(self, program: Path, setup: Setup) -> list[str]:
        """In the foreground."""
        config = str(setup.folder / self.config_file)
        return [str(program), "run", "--config", config, "--adapter", "caddyfile"]

    def markers(self, lines: Sequence[str]) -> list[str]:
        """The messages of its error log, without addresses, times and what the upstream sent."""
        found = []
        for line in lines:
            if not line.startswith("{"):
                continue
            entry = json.loads(line)
            if str(entry.get("logger", "")).startswith("http"):
                words = str(entry.get("error") or entry.get("msg", ""))
                found.append(_ADDRESSES.sub("…", _OF_THE_MOMENT.sub("", words)))
        return found


def _route(setup: Setup, index: int, route: Route) -> str:
    scheme = {Speaks.TLS: "https://", Speaks.H2C: "h2c://"}.get(route.case.speaks, "")
    targets = [f"{route.name}:80"] if route.name else route.addresses
    to = " ".join(f"{scheme}{target}" for target in targets)
    transport = "\n".join(f"\t\t\t\t{line}" for line in _transport(setup, route))
    block = f"\t\t\ttransport http {{\n{transport}\n\t\t\t}}\n" if transport else ""
    return f"""\
	@route{index} host {route.host}
	handle @route{index} {{
		reverse_proxy {to} {{
{block}		}}
	}}"""


def _transport(setup: Setup, route: Route) -> list[str]:
    lines = []
    if route.case.quick:
        seconds = f"{QUICK_SECONDS:g}s"
        lines += [f"dial_timeout {seconds}", f"response_header_timeout {seconds}"]
    if route.case.speaks is Speaks.TLS:
        lines += [f"tls_trust_pool file {setup.authority}", f"tls_server_name {NAME}"]
    if route.name:
        lines += [f"resolvers {setup.resolver}"]
    return lines


ENGINE = Caddy()
