"""nginx as Debian ships it: HTTP/1.0 to the upstream, a new connection each, no shared state."""

import grp
import os
import pwd
import signal
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

_NAME_BYTES = 512
"""For the longest host: name and namespace of a Service. By default a cache line, too little for 58 characters."""
_TEMP_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True, slots=True)
class Nginx:
    """The product."""

    name: str = "nginx"
    title: str = "nginx, plain, to a ClusterIP"
    default_port: int = 8180
    contained: bool = True
    config_file: str = "nginx.conf"
    resolves: bool = True

    def needs(self) -> tuple[Need, ...]:
        """Debian's nginx, whose service is not used."""
        return (Need("nginx", program="nginx", service="nginx"),)

    def program(self, say: Reporter) -> Path:
        """The program."""
        del say
        return support.program("nginx")

    def config(self, setup: Setup) -> str:
        """One server per route; a host that is not known gets 421."""
        temp = "\n".join(f"  {t}_temp_path temp/{t};" for t in _TEMP_FOLDERS)
        servers = "\n".join(
            _server(setup, host, upstream) for host, upstream in sorted(setup.routes.items())
        )
        return f"""\
{preamble()}
http {{
{temp}
  server_names_hash_bucket_size {_NAME_BYTES};
  log_format upstream '$msec $host "$request" $status upstream=$upstream_addr '
    'upstream_status=$upstream_status upstream_time=$upstream_response_time time=$request_time';
  access_log access.log upstream;
  server {{
    listen {LOOPBACK}:{setup.port} default_server backlog=4096;
    add_header {REVISION_HEADER} {setup.revision} always;
    return {UNROUTED};
  }}
{servers}
}}
"""

    def command(self, program: Path, setup: Setup) -> list[str]:
        """In the foreground, with a prefix of its own."""
        for name in _TEMP_FOLDERS:
            (setup.folder / "temp" / name).mkdir(parents=True, exist_ok=True)
        prefix, config = f"{setup.folder}/", str(setup.folder / self.config_file)
        return [str(program), "-p", prefix, "-c", config, "-e", "stderr", "-g", "daemon off;"]

    def reload(self, setup: Setup, pids: Sequence[int], spawn: Spawn) -> None:
        """Make the main process read its configuration again."""
        del setup, spawn
        support.send(pids, signal.SIGHUP)

    def metrics_url(self, setup: Setup) -> str:
        """None: nginx has no Prometheus metrics; its access log names the upstream's status."""
        del setup
        return ""

    def admin_url(self, setup: Setup) -> str:
        """Nginx tells nobody."""
        del setup
        return ""


def preamble() -> str:
    """What every configuration begins with.

    Workers run as whoever started it: another user may not be able to enter the folder.
    """
    user = pwd.getpwuid(os.geteuid())
    group = grp.getgrgid(user.pw_gid)
    return f"""\
user {user.pw_name} {group.gr_name};
worker_processes auto;
pid nginx.pid;
error_log stderr notice;
events {{
  worker_connections 4096;
}}"""


def _server(setup: Setup, host: str, upstream: str) -> str:
    to = parse_upstream(upstream)
    # With a variable it asks DNS again and again; a name alone is resolved when it starts.
    resolving = f"""\
    resolver {to.resolver} valid={DNS_SECONDS}s ipv6=off;
    set $named {to.address};
"""
    return f"""\
  server {{
    listen {LOOPBACK}:{setup.port};
    server_name {host};
{resolving if to.resolver else ""}\
    location / {{
      proxy_pass {"https" if to.secured else "http"}://{"$named" if to.resolver else to.address};
    }}
  }}"""


ADDON = PlainGateway(Nginx())
