"""nginx: `proxy_pass` with its defaults."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Answer
from upstream_guard.gateways.families import NGINX
from upstream_guard.lab.conformance.certificates import NAME
from upstream_guard.lab.conformance.engines.model import first_line
from upstream_guard.lab.conformance.model import QUICK_SECONDS, Case, Route, Setup, Source, Speaks
from upstream_guard.lab.gateways.nginx import Nginx as Product
from upstream_guard.lab.gateways.nginx import preamble
from upstream_guard.lab.model import Reporter
from upstream_guard.lab.packages import Need
from upstream_guard.lab.ports import LOOPBACK

_ERROR: Final = re.compile(r"\[(?:error|crit|warn)\] .*?\*\d+ (.*?)(?: while |, client: )")
_ACCESS: Final = re.compile(r"^\S+ (\d+) upstream=(\S+)")
_QUOTED: Final = re.compile(r':? ?"[^"]*"?')
_NOISE: Final = "buffered to a temporary file"


@dataclass(frozen=True, slots=True)
class Nginx:
    """The product."""

    name: str = "nginx"
    config_file: str = "nginx.conf"

    @property
    def answers(self) -> Mapping[Cause, Answer]:
        """With the pods' addresses as upstreams."""
        return NGINX

    def needs(self) -> tuple[Need, ...]:
        """Debian's nginx."""
        return Product().needs()

    def program(self, say: Reporter) -> Path:
        """The program."""
        return Product().program(say)

    def version(self, program: Path) -> str:
        """As `nginx -v` says it."""
        return first_line([program, "-v"]).removeprefix("nginx version: ")

    def refuses(self, case: Case) -> str:
        """It speaks HTTP/1 to upstreams."""
        return "speaks no h2c to upstreams" if case.speaks is Speaks.H2C else ""

    def config(self, setup: Setup) -> str:
        """A server for each route."""
        servers = "\n".join(_server(setup, route) for route in setup.routes)
        return f"""\
{preamble()}
http {{
  log_format cell '$host $status upstream=$upstream_status';
  access_log access.log cell;
  client_body_temp_path temp/client_body;
  proxy_temp_path temp/proxy;
  fastcgi_temp_path temp/fastcgi;
  uwsgi_temp_path temp/uwsgi;
  scgi_temp_path temp/scgi;
  resolver {setup.resolver} ipv6=off;
{servers}
}}
"""

    def command(self, program: Path, setup: Setup) -> list[str]:
        """In the foreground, with a prefix of its own."""
        (setup.folder / "temp").mkdir(exist_ok=True)
        prefix, config = f"{setup.folder}/", str(setup.folder / self.config_file)
        return [str(program), "-p", prefix, "-c", config, "-e", "stderr", "-g", "daemon off;"]

    def markers(self, lines: Sequence[str]) -> list[str]:
        """The error log's words; the upstream's status where the access log has an odd one."""
        found = [match[1] for line in lines if (match := _ERROR.search(line))]
        odd = [match[2] for line in lines if (match := _ACCESS.match(line))]
        found += [f"upstream status {word}" for word in odd if word == "009"]
        return [_QUOTED.sub("", words) for words in found if _NOISE not in words]


def _server(setup: Setup, route: Route) -> str:
    lines = [*_time_outs(route), *_tls(setup, route)]
    scheme = "https" if route.case.speaks is Speaks.TLS else "http"
    if route.name:
        lines += [f"set $upstream {route.name};", f"proxy_pass {scheme}://$upstream:80;"]
        block = ""
    else:
        group = f"group-{route.host}"
        lines += [f"proxy_pass {scheme}://{group};"]
        block = _upstream(group, route)
    if route.case.kept:
        lines += ["proxy_http_version 1.1;", 'proxy_set_header Connection "";']
    body = "\n".join(f"      {line}" for line in lines)
    return f"""{block}  server {{
    listen {LOOPBACK}:{setup.port};
    server_name {route.host};
    location / {{
{body}
    }}
  }}"""


def _upstream(group: str, route: Route) -> str:
    servers = [f"server {address};" for address in route.addresses]
    if route.case.source is Source.NOBODY:
        # A group without servers is refused; one whose only server is down is as empty.
        servers = [f"server {LOOPBACK}:9 down;"]
    keep = ["keepalive 8;"] if route.case.kept else []
    return f"  upstream {group} {{ {' '.join([*servers, *keep])} }}\n"


def _time_outs(route: Route) -> list[str]:
    if not route.case.quick:
        return []
    seconds = f"{QUICK_SECONDS:g}s"
    return [f"proxy_connect_timeout {seconds};", f"proxy_read_timeout {seconds};"]


def _tls(setup: Setup, route: Route) -> list[str]:
    if not route.case.verifies:
        return []
    return [
        "proxy_ssl_verify on;",
        f"proxy_ssl_trusted_certificate {setup.authority};",
        "proxy_ssl_server_name on;",
        f"proxy_ssl_name {NAME};",
    ]


ENGINE = Nginx()
