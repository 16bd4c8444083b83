"""Apache httpd as Debian ships it: mod_proxy_http with its defaults, the event MPM."""

import grp
import os
import pwd
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upstream_guard.lab.gateways import support
from upstream_guard.lab.gateways.plain import (
    REVISION_HEADER,
    UNROUTED,
    PlainGateway,
    Setup,
    Spawn,
    parse_upstream,
)
from upstream_guard.lab.model import LabError, Reporter
from upstream_guard.lab.packages import Need
from upstream_guard.lab.ports import LOOPBACK

MODULES: Final = ("mpm_event", "authz_core", "headers", "alias", "proxy", "proxy_http")
_MODULE_FOLDERS: Final = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules")


@dataclass(frozen=True, slots=True)
class Httpd:
    """The product."""

    name: str = "httpd"
    title: str = "Apache httpd, plain, to a ClusterIP"
    default_port: int = 8580
    contained: bool = False
    config_file: str = "httpd.conf"
    resolves: bool = False

    def needs(self) -> tuple[Need, ...]:
        """Debian's apache2, whose service is not used."""
        return (Need("apache2", program="apache2", service="apache2"),)

    def program(self, say: Reporter) -> Path:
        """The program."""
        del say
        return support.program("apache2")

    def config(self, setup: Setup) -> str:
        """One virtual host per route; a host that is not known gets 421."""
        hosts = "\n".join(
            _virtual_host(setup, host, upstream) for host, upstream in sorted(setup.routes.items())
        )
        return f"""\
{preamble(setup.folder, setup.port, MODULES)}
LogFormat "%{{msec}}t %V \\"%r\\" %>s %{{us}}T" upstream
<VirtualHost {LOOPBACK}:{setup.port}>
  ServerName unrouted
  Header always set {REVISION_HEADER} {setup.revision}
  Redirect {UNROUTED} /
</VirtualHost>
{hosts}
"""

    def command(self, program: Path, setup: Setup) -> list[str]:
        """In the foreground."""
        return command(program, setup.folder / self.config_file)

    def reload(self, setup: Setup, pids: Sequence[int], spawn: Spawn) -> None:
        """Make the main process read its configuration again; old workers finish."""
        del setup, spawn
        support.send(pids, signal.SIGUSR1)

    def metrics_url(self, setup: Setup) -> str:
        """None: httpd has no Prometheus metrics."""
        del setup
        return ""

    def admin_url(self, setup: Setup) -> str:
        """Apache tells nobody."""
        del setup
        return ""


def preamble(folder: Path, port: int, modules: Sequence[str]) -> str:
    """What every configuration begins with. Errors go to standard error, each with its Host.

    Raises:
        LabError: the modules are nowhere.
    """
    modules_folder = _modules_folder()
    loads = "\n".join(
        f"LoadModule {module}_module {modules_folder}/mod_{module}.so" for module in modules
    )
    return f"""\
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/httpd.pid
Listen {LOOPBACK}:{port}
ServerName {LOOPBACK}
{loads}
{_user()}
ErrorLog /proc/self/fd/2
ErrorLogFormat "[%{{cu}}t] [%{{Host}}i] %M"
"""


def command(program: Path, config: Path) -> list[str]:
    """The command line that runs it in the foreground."""
    return [str(program), "-f", str(config), "-D", "FOREGROUND"]


def _user() -> str:
    """Whom its workers run as; httpd refuses to serve as root."""
    if os.geteuid() != 0:
        return ""
    user = pwd.getpwnam("nobody")
    return f"User {user.pw_name}\nGroup {grp.getgrgid(user.pw_gid).gr_name}"


def _modules_folder() -> str:
    for folder in _MODULE_FOLDERS:
        if Path(folder).is_dir():
            return folder
    raise LabError(f"httpd's modules are in none of {', '.join(_MODULE_FOLDERS)}")


def _virtual_host(setup: Setup, host: str, upstream: str) -> str:
    to = parse_upstream(upstream)
    if to.secured:
        raise LabError("the lab's httpd goes to services in clear only")
    return f"""\
<VirtualHost {LOOPBACK}:{setup.port}>
  ServerName {host}
  CustomLog {setup.folder}/access.log upstream
  ProxyPass / http://{to.address}/
</VirtualHost>"""


ADDON = PlainGateway(Httpd())
