"""Gateways that can be measured. A new one is one file, and one row here."""

from collections.abc import Mapping
from typing import Final

from upstream_guard.lab.conformance.engines import caddy, envoy, haproxy, httpd, nginx
from upstream_guard.lab.conformance.engines.model import Engine

ENGINES: Final[Mapping[str, Engine]] = {
    engine.name: engine
    for engine in (nginx.ENGINE, haproxy.ENGINE, envoy.ENGINE, caddy.ENGINE, httpd.ENGINE)
}

__all__ = ["ENGINES", "Engine"]
