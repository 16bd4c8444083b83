"""Gateways that know nothing of Kubernetes: a proxy on this machine that leads to ClusterIPs.

What such a gateway may see of a change is what kube-proxy makes of it. Everything but the routes is
left at the product's defaults, for those are what its users have.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from upstream_guard.lab import packages
from upstream_guard.lab.gateways import support
from upstream_guard.lab.gateways.model import (
    Exposure,
    GatewayStatus,
    RunningGateway,
    ServiceTarget,
)
from upstream_guard.lab.model import Cluster, LabError, Reporter
from upstream_guard.lab.packages import Need
from upstream_guard.lab.ports import LOOPBACK, free_port

UNROUTED: Final = 421
"""What a plain gateway answers to a host that it does not know: Misdirected Request."""
REVISION_HEADER: Final = "X-Lab-Revision"
"""Goes with that answer: the revision of the routes that are in force."""
ADMIN_OFFSET: Final = 1000
"""From a gateway's default port to that of its metrics or admin API."""
RESOLVED_BY: Final = "@"
"""Goes between the name of an upstream and the DNS server that is asked for it."""
SECURED: Final = "https://"
"""Goes before the address of an upstream that speaks TLS."""
DNS_SECONDS: Final = 1
"""How long an answer of DNS holds: as long as the TTL of the lab's own."""
_RESEND_SECONDS: Final = 1.0
"""A reload asked for while another was under way may be lost; it is asked for again."""
_STATE_FILE = "gateway.json"
_SAMPLES: Final = 8

Spawn = Callable[[Sequence[str]], None]
"""Starts a command line as a process of the gateway."""


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a configuration is made from."""

    folder: Path
    port: int
    admin_port: int
    """For metrics or an admin API; also on the loopback address."""
    routes: Mapping[str, str]
    """Host → `address:port` of the upstream, after `https://` where it speaks TLS; or `name:port@resolver`."""

    @property
    def revision(self) -> str:
        """Changes with the routes."""
        text = json.dumps(dict(sorted(self.routes.items())))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Engine(Protocol):
    """One product: how it is configured and started."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def title(self) -> str:
        """What it is, in one line."""

    @property
    def default_port(self) -> int:
        """Taken unless it is occupied."""

    @property
    def contained(self) -> bool:
        """Whether the program overwrites its environment; see `support.start`."""

    @property
    def config_file(self) -> str:
        """Name of the configuration file."""

    @property
    def resolves(self) -> bool:
        """Whether the lab can have it ask a DNS server for names of upstreams."""

    def needs(self) -> tuple[Need, ...]:
        """Operating-system packages it stands on."""

    def program(self, say: Reporter) -> Path:
        """The program, built if need be."""

    def config(self, setup: Setup) -> str:
        """The whole configuration."""

    def command(self, program: Path, setup: Setup) -> list[str]:
        """The command line that runs it in the foreground."""

    def reload(self, setup: Setup, pids: Sequence[int], spawn: Spawn) -> None:
        """Put the configuration in force; connections that are open go on.

        Args:
            setup: What the configuration was made from.
            pids: The running main processes; one as a rule.
            spawn: Starts another process of the gateway.
        """

    def metrics_url(self, setup: Setup) -> str:
        """Prometheus metrics; "" if it has none."""

    def admin_url(self, setup: Setup) -> str:
        """Where it tells its upstream list; "" if it does not."""


@dataclass(frozen=True, slots=True)
class PlainGateway:
    """An `Engine` as a gateway of the lab."""

    engine: Engine

    @property
    def name(self) -> str:
        """What users call it."""
        return self.engine.name

    @property
    def title(self) -> str:
        """What it is, in one line."""
        return self.engine.title

    def needs(self) -> tuple[Need, ...]:
        """Operating-system packages it stands on."""
        return self.engine.needs()

    def up(self, cluster: Cluster, say: Reporter) -> RunningGateway:
        """Start it, or return the one that runs. Routes that it had, it has again.

        Raises:
            LabError: if it does not listen in time, with the last lines of its log.
        """
        with support.locked(cluster, self.name):
            setup = self._load(cluster)
            if setup is None or not self._runs(cluster, setup):
                setup = self._start(cluster, setup.routes if setup else {}, say)
            return self._running(setup)

    def expose(self, cluster: Cluster, target: ServiceTarget) -> Exposure:
        """Lead `target.host` to the Service; returns when the gateway knows the route.

        Raises:
            LabError: if the gateway is not up, or the Service or its port does not exist.
        """
        upstream = f"{SECURED if target.tls else ''}{upstream_address(cluster, target)}"
        if target.resolver:
            if not self.engine.resolves:
                raise LabError(f"the lab's {self.name} goes by addresses only")
            upstream = f"{target.dns_name}:{target.port}{RESOLVED_BY}{target.resolver}"
        with support.locked(cluster, self.name):
            setup = self._need(cluster)
            routes = {**setup.routes, target.host: upstream}
            self._apply(cluster, replace(setup, routes=routes))
        return Exposure(LOOPBACK, setup.port, target.host)

    def unexpose(self, cluster: Cluster, target: ServiceTarget) -> None:
        """Take the route away. No route is no error."""
        with support.locked(cluster, self.name):
            setup = self._load(cluster)
            if setup is None or target.host not in setup.routes:
                return
            routes = {host: to for host, to in setup.routes.items() if host != target.host}
            setup = replace(setup, routes=routes)
            if self._runs(cluster, setup):
                self._apply(cluster, setup)
            else:
                self._write(setup)

    def down(self, cluster: Cluster, say: Reporter) -> None:
        """Stop it and remove its files; its log stays."""
        if self._load(cluster) is None and not self._pids(cluster):
            return
        with support.locked(cluster, self.name), say.step(f"Stopping the gateway {self.name}"):
            support.stop(cluster, self.name, contained=self.engine.contained)
            support.remove_folder(cluster, self.name)

    def status(self, cluster: Cluster) -> GatewayStatus:
        """What is there now; changes nothing."""
        setup = self._load(cluster)
        if setup is None:
            return GatewayStatus(self.name, up=False, detail="not started")
        if not self._runs(cluster, setup):
            return GatewayStatus(self.name, up=False, detail="was started, and is not running")
        detail = f"{LOOPBACK}:{setup.port}, {len(setup.routes)} routes"
        return GatewayStatus(self.name, up=True, detail=detail)

    def _start(self, cluster: Cluster, routes: Mapping[str, str], say: Reporter) -> Setup:
        packages.ensure_packages(self.needs(), say)
        program = self.engine.program(say)
        support.stop(cluster, self.name, contained=self.engine.contained)
        setup = Setup(
            folder=support.folder(cluster, self.name),
            port=free_port(self.engine.default_port),
            admin_port=free_port(self.engine.default_port + ADMIN_OFFSET),
            routes=routes,
        )
        self._write(setup)
        with say.step(f"Starting the gateway {self.name} on {LOOPBACK}:{setup.port}"):
            command = self.engine.command(program, setup)
            support.start(cluster, self.name, command, contained=self.engine.contained)
            support.until_listening(cluster, self.name, setup.port)
            # Only what answers is done with its start, and a signal before would kill it.
            support.wait_for(lambda: self._in_force(setup), support.START_SECONDS, self.name)
        return setup

    def _apply(self, cluster: Cluster, setup: Setup) -> None:
        """Put routes in force; returns when they are."""
        if self._load(cluster) != setup:
            self._write(setup)
        deadline = time.monotonic() + support.ROUTE_SECONDS
        while not self._in_force(setup):
            if time.monotonic() > deadline:
                raise LabError(
                    f"waited {support.ROUTE_SECONDS:g} s for {self.name} to take its new routes; "
                    f"its log is {cluster.logs / support.process_name(self.name)}.log"
                )
            self.engine.reload(
                setup,
                self._pids(cluster),
                lambda argv: support.start(
                    cluster, self.name, argv, contained=self.engine.contained
                ),
            )
            with contextlib.suppress(LabError):
                support.wait_for(lambda: self._in_force(setup), _RESEND_SECONDS, "the routes")

    def _in_force(self, setup: Setup) -> bool:
        """Whether every answer, of old and new processes by turns, is of this revision."""
        return all(
            support.ask(setup.port, "unrouted.test").headers.get(REVISION_HEADER.lower())
            == setup.revision
            for _ in range(_SAMPLES)
        )

    def _write(self, setup: Setup) -> None:
        setup.folder.mkdir(parents=True, exist_ok=True)
        support.write(setup.folder / self.engine.config_file, self.engine.config(setup))
        state = asdict(setup) | {"folder": str(setup.folder)}
        support.write(setup.folder / _STATE_FILE, json.dumps(state, indent=2))

    def _load(self, cluster: Cluster) -> Setup | None:
        path = support.folder(cluster, self.name) / _STATE_FILE
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            raw = json.loads(path.read_text(encoding="utf-8"))
            return Setup(**{**raw, "folder": Path(raw["folder"])})
        return None

    def _need(self, cluster: Cluster) -> Setup:
        setup = self._load(cluster)
        if setup is None or not self._runs(cluster, setup):
            raise LabError(f"the gateway {self.name} is not up")
        return setup

    def _runs(self, cluster: Cluster, setup: Setup) -> bool:
        return bool(self._pids(cluster)) and support.listens(setup.port)

    def _pids(self, cluster: Cluster) -> list[int]:
        return support.main_pids(cluster, self.name, contained=self.engine.contained)

    def _running(self, setup: Setup) -> RunningGateway:
        return RunningGateway(
            self.name,
            LOOPBACK,
            setup.port,
            self.engine.metrics_url(setup),
            self.engine.admin_url(setup),
        )


@dataclass(frozen=True, slots=True)
class Upstream:
    """One upstream of a `Setup`.

    Attributes:
        address: `address:port`, or `name:port` where there is a resolver.
        secured: It speaks TLS.
        resolver: The DNS server that is asked for its name, `address:port`; empty where it has none.
    """

    address: str
    secured: bool
    resolver: str


def parse_upstream(text: str) -> Upstream:
    """An upstream as `Setup.routes` has it."""
    address, _, resolver = text.removeprefix(SECURED).partition(RESOLVED_BY)
    return Upstream(address, text.startswith(SECURED), resolver)


def upstream_address(cluster: Cluster, target: ServiceTarget) -> str:
    """Where this machine reaches a Service through kube-proxy, as `address:port`.

    That is its ClusterIP where the lab routes to it. Elsewhere (kind) it is a node port, which the
    Service is given if it has none.

    Raises:
        LabError: if the Service or its port does not exist, or it has no ClusterIP.
    """
    service = support.get_service(cluster, target)
    address = str(service["spec"].get("clusterIP") or "None")
    if address == "None":
        raise LabError(
            f"Service {target.namespace}/{target.name} has no ClusterIP; "
            "a plain gateway needs one, Contour does not"
        )
    if cluster.nodes:
        return _join(address, target.port)
    return _join(support.node_address(cluster), _node_port(cluster, target, service))


def _node_port(cluster: Cluster, target: ServiceTarget, service: Mapping[str, Any]) -> int:
    if service["spec"].get("type", "ClusterIP") == "ClusterIP":
        support.kubectl(
            cluster, "patch", "service", target.name, f"--namespace={target.namespace}",
            '--patch={"spec":{"type":"NodePort"}}',
        )  # fmt: skip
        service = support.get_service(cluster, target)
    for port in service["spec"]["ports"]:
        if port["port"] == target.port and port.get("nodePort"):
            return int(port["nodePort"])
    raise LabError(f"Service {target.namespace}/{target.name} got no node port")


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
