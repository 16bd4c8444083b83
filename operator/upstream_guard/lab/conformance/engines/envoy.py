"""Envoy from a static configuration that leaves everything at its defaults."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Answer
from upstream_guard.gateways.families import ENVOY
from upstream_guard.lab.conformance.certificates import NAME
from upstream_guard.lab.conformance.engines.model import first_line
from upstream_guard.lab.conformance.model import QUICK_SECONDS, Case, Route, Setup, Speaks
from upstream_guard.lab.gateways.envoy import envoy_program
from upstream_guard.lab.model import Reporter
from upstream_guard.lab.packages import Need
from upstream_guard.lab.ports import LOOPBACK

Json = dict[str, Any]

_TYPE: Final = "type.googleapis.com/envoy.extensions"
_OURS: Final = '{"host"'
_FLUSH_MILLISECONDS: Final = 100


@dataclass(frozen=True, slots=True)
class Envoy:
    """The product."""

    name: str = "envoy"
    config_file: str = "envoy.json"

    @property
    def answers(self) -> Mapping[Cause, Answer]:
        """Of Envoy, whoever configures it."""
        return ENVOY

    def needs(self) -> tuple[Need, ...]:
        """Nothing: it comes from PyPI."""
        return ()

    def program(self, say: Reporter) -> Path:
        """The program."""
        del say
        return envoy_program()

    def version(self, program: Path) -> str:
        """The release in what `envoy --version` says."""
        words = first_line([program, "--version"]).split("/")
        return f"envoy {words[-4]}" if len(words) > 3 else ""

    def refuses(self, case: Case) -> str:
        """Nothing."""
        del case
        return ""

    def config(self, setup: Setup) -> str:
        """A virtual host and a cluster for each route."""
        clusters = [_cluster(setup, route) for route in setup.routes]
        return json.dumps(
            {"static_resources": {"listeners": [_listener(setup)], "clusters": clusters}}, indent=1
        )

    def command(self, program: Path, setup: Setup) -> list[str]:
        """In the foreground, by itself on the machine."""
        return [
            str(program),
            *("--config-path", str(setup.folder / self.config_file)),
            *("--log-level", "error"),
            *("--file-flush-interval-msec", str(_FLUSH_MILLISECONDS)),
            "--disable-hot-restart",
        ]

    def markers(self, lines: Sequence[str]) -> list[str]:
        """Response flags and details, of answers that Envoy made itself or cut short."""
        found = []
        for line in lines:
            if not line.startswith(_OURS):
                continue
            entry = json.loads(line)
            if entry["flags"] != "-":
                details, _, reason = str(entry["details"]).partition("{")
                # After a bar come addresses and errors of the moment.
                words = reason.partition("|")[0].rstrip("}") or details
                found.append(f"{entry['flags']} {words}")
        return found


def _listener(setup: Setup) -> Json:
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {"virtual_hosts": [_virtual_host(route) for route in setup.routes]},
        "access_log": [
            {
                "name": "envoy.access_loggers.stdout",
                "typed_config": {
                    "@type": f"{_TYPE}.access_loggers.stream.v3.StdoutAccessLog",
                    "log_format": {
                        "text_format_source": {
                            "inline_string": '{"host":"%REQ(:AUTHORITY)%",'
                            '"flags":"%RESPONSE_FLAGS%","details":"%RESPONSE_CODE_DETAILS%"}\n'
                        }
                    },
                },
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "address": _address(f"{LOOPBACK}:{setup.port}"),
        "filter_chains": [{"filters": filters}],
    }


def _virtual_host(route: Route) -> Json:
    action: Json = {"cluster": route.host}
    if route.case.quick:
        action["timeout"] = f"{QUICK_SECONDS:g}s"
    rule = {"match": {"prefix": "/"}, "route": action}
    return {"name": route.host, "domains": [route.host], "routes": [rule]}


def _cluster(setup: Setup, route: Route) -> Json:
    targets = [f"{route.name}:80"] if route.name else list(route.addresses)
    endpoints = [{"endpoint": {"address": _address(target)}} for target in targets]
    cluster: Json = {
        "name": route.host,
        "type": "STRICT_DNS" if route.name else "STATIC",
        "load_assignment": {
            "cluster_name": route.host,
            "endpoints": [{"lb_endpoints": endpoints}] if endpoints else [],
        },
    }
    if route.case.quick:
        # Half a second before the whole request's time-out, which would be what is seen otherwise.
        cluster["connect_timeout"] = f"{QUICK_SECONDS / 2:g}s"
    if route.name:
        # Otherwise it serves nobody until every name was asked for once.
        cluster["wait_for_warm_on_init"] = False
        cluster["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": f"{_TYPE}.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [_address(setup.resolver)],
            },
        }
    if route.case.speaks is Speaks.TLS:
        cluster["transport_socket"] = _tls(setup)
    if route.case.speaks is Speaks.H2C:
        options = {
            "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        }
    return cluster


def _tls(setup: Setup) -> Json:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": NAME,
            "common_tls_context": {
                "validation_context": {
                    "trusted_ca": {"filename": str(setup.authority)},
                    "match_typed_subject_alt_names": [
                        {"san_type": "DNS", "matcher": {"exact": NAME}}
                    ],
                }
            },
        },
    }


def _address(text: str) -> Json:
    address, _, port = text.rpartition(":")
    return {"socket_address": {"address": address, "port_value": int(port)}}


ENGINE = Envoy()
