"""Contour with Envoy: a controller that reads EndpointSlices, and a proxy that goes to pods directly.

Both run on this machine beside the cluster, with the lab's administrator kubeconfig. xDS between them
is in clear on the loopback address.
"""

import contextlib
import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from upstream_guard.lab import tools
from upstream_guard.lab.gateways import envoy, support
from upstream_guard.lab.gateways.model import (
    Exposure,
    GatewayStatus,
    RunningGateway,
    ServiceTarget,
)
from upstream_guard.lab.gateways.plain import ADMIN_OFFSET
from upstream_guard.lab.model import Cluster, LabError, Reporter
from upstream_guard.lab.packages import Need
from upstream_guard.lab.ports import LOOPBACK, free_port, free_ports

DEFAULT_PORT: Final = 8280
INGRESS_CLASS: Final = "contour"
CONTROLLER: Final = "projectcontour.io/ingress-controller"
MANAGED: Final = {"app.kubernetes.io/managed-by": "upstream-guard-lab"}
UNROUTED: Final = 404
"""What Envoy answers to a host that it does not know."""
_STATE_FILE = "gateway.json"
_CONFIG_FILE = "contour.yaml"
"""For what Contour has no flag."""
_PROCESSES = ("contour", "envoy")
"""The second is fed by the first."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the two programs listen, all on the loopback address."""

    http: int
    https: int
    stats: int
    xds: int
    contour_metrics: int
    contour_health: int
    contour_debug: int
    admin: int = 0
    """What Envoy's admin interface shows on its own pod's loopback address; 0 shows it nowhere."""


@dataclass(frozen=True, slots=True)
class Contour:
    """The gateway."""

    name: str = "contour"
    title: str = "Contour with Envoy, to pods"

    def needs(self) -> tuple[Need, ...]:
        """Nothing: Contour is built from its Go module, Envoy comes from PyPI."""
        return ()

    def up(self, cluster: Cluster, say: Reporter) -> RunningGateway:
        """Start both programs, or return the gateway that runs.

        Raises:
            LabError: if Envoy is missing, or one does not listen in time.
        """
        with support.locked(cluster, self.name):
            ports = self._load(cluster)
            if ports is None or not self._runs(cluster, ports):
                ports = self._start(cluster, say)
            return self._running(ports)

    def expose(self, cluster: Cluster, target: ServiceTarget) -> Exposure:
        """Make an Ingress for the Service; returns when Envoy knows the route.

        Raises:
            LabError: if the gateway is not up, or the Service or its port does not exist.
        """
        ports = self._load(cluster)
        if ports is None or not self._runs(cluster, ports):
            raise LabError(f"the gateway {self.name} is not up")
        support.get_service(cluster, target)
        support.kubectl(cluster, "apply", "--filename=-", stdin=json.dumps(ingress(target)))
        support.wait_for(
            lambda: support.ask(ports.http, target.host).status not in {0, UNROUTED},
            support.ROUTE_SECONDS,
            f"{self.name} to know the route to {target.host}",
        )
        return Exposure(LOOPBACK, ports.http, target.host)

    def unexpose(self, cluster: Cluster, target: ServiceTarget) -> None:
        """Delete the Ingress. None there is no error."""
        support.kubectl(
            cluster, "delete", "ingress", ingress_name(target), f"--namespace={target.namespace}",
            "--ignore-not-found",
        )  # fmt: skip

    def down(self, cluster: Cluster, say: Reporter) -> None:
        """Stop both programs, delete the Ingresses made here and the class. The CRDs stay.

        A cluster that does not answer is no error: what was in it goes with it.
        """
        pids = [pid for name in _PROCESSES for pid in support.main_pids(cluster, name)]
        if self._load(cluster) is None and not pids:
            return
        with support.locked(cluster, self.name), say.step(f"Stopping the gateway {self.name}"):
            for name in reversed(_PROCESSES):
                support.stop(cluster, name)
            selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())
            with contextlib.suppress(LabError):
                support.kubectl(
                    cluster, "delete", "ingresses,ingressclasses", "--all-namespaces",
                    f"--selector={selector}", "--ignore-not-found",
                )  # fmt: skip
            support.remove_folder(cluster, self.name)

    def status(self, cluster: Cluster) -> GatewayStatus:
        """What is there now; changes nothing."""
        ports = self._load(cluster)
        if ports is None:
            return GatewayStatus(self.name, up=False, detail="not started")
        missing = [name for name in _PROCESSES if not support.main_pids(cluster, name)]
        if missing:
            detail = f"was started, and {' and '.join(missing)} is not running"
            return GatewayStatus(self.name, up=False, detail=detail)
        return GatewayStatus(self.name, up=True, detail=f"{LOOPBACK}:{ports.http}")

    def _start(self, cluster: Cluster, say: Reporter) -> Ports:
        if not cluster.nodes:
            raise LabError(
                f"{self.name} goes to pods directly, and this machine has no way to the pods of a "
                f"{cluster.provider} cluster; use --provider local, or another gateway"
            )
        proxy, contour = envoy.envoy_program(), tools.tool_path("contour", say)
        crds = crds_file(say)
        for name in reversed(_PROCESSES):
            support.stop(cluster, name)
        ports = _choose_ports()
        with say.step(f"Starting the gateway {self.name} on {LOOPBACK}:{ports.http}"):
            folder = support.folder(cluster, self.name)
            folder.mkdir(parents=True, exist_ok=True)
            support.write(folder / _STATE_FILE, json.dumps(asdict(ports), indent=2))
            config = yaml.safe_dump({"network": {"admin-port": ports.admin}})
            support.write(folder / _CONFIG_FILE, config)
            envoy.install_crds(cluster, crds)
            envoy.apply(cluster, [ingress_class()])
            support.start(cluster, "contour", contour_command(contour, cluster, ports))
            support.until_listening(cluster, "contour", ports.xds)
            _bootstrap(contour, folder, ports)
            command = envoy.envoy_command(proxy, folder, "projectcontour", "--log-level", "info")
            support.start(cluster, "envoy", command)
            # The listener for statistics always is among what Contour tells Envoy; the one for
            # requests only comes with the first route.
            support.until_listening(cluster, "envoy", ports.stats)
        return ports

    def _load(self, cluster: Cluster) -> Ports | None:
        path = support.folder(cluster, self.name) / _STATE_FILE
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Ports(**json.loads(path.read_text(encoding="utf-8")))
        return None

    def _runs(self, cluster: Cluster, ports: Ports) -> bool:
        return all(support.main_pids(cluster, name) for name in _PROCESSES) and support.listens(
            ports.stats
        )

    def _running(self, ports: Ports) -> RunningGateway:
        metrics = f"http://{LOOPBACK}:{ports.stats}/stats/prometheus"
        admin = f"http://{LOOPBACK}:{ports.admin}"
        return RunningGateway(self.name, LOOPBACK, ports.http, metrics, admin)


def contour_command(program: Path, cluster: Cluster, ports: Ports) -> list[str]:
    """The command line of the controller."""
    address = LOOPBACK
    access_log = support.folder(cluster, "contour") / "access.log"
    return [
        str(program),
        "serve",
        f"--kubeconfig={cluster.kubeconfig}",
        f"--config-path={support.folder(cluster, 'contour') / _CONFIG_FILE}",
        "--insecure",
        "--disable-leader-election",
        f"--xds-address={address}",
        f"--xds-port={ports.xds}",
        f"--http-address={address}",
        f"--http-port={ports.contour_metrics}",
        f"--health-address={address}",
        f"--health-port={ports.contour_health}",
        f"--debug-http-address={address}",
        f"--debug-http-port={ports.contour_debug}",
        f"--stats-address={address}",
        f"--stats-port={ports.stats}",
        f"--envoy-service-http-address={address}",
        f"--envoy-service-http-port={ports.http}",
        f"--envoy-service-https-address={address}",
        f"--envoy-service-https-port={ports.https}",
        f"--envoy-http-access-log={access_log}",
        f"--ingress-status-address={address}",
        f"--ingress-class-name={INGRESS_CLASS}",
    ]


def ingress_name(target: ServiceTarget) -> str:
    """Of the Ingress that is made for a Service."""
    return f"lab-{target.name}"


def ingress(target: ServiceTarget) -> dict[str, Any]:
    """The Ingress that leads to a Service."""
    backend = {"service": {"name": target.name, "port": {"number": target.port}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": ingress_name(target),
            "namespace": target.namespace,
            "labels": MANAGED,
        },
        "spec": {
            "ingressClassName": INGRESS_CLASS,
            "rules": [{"host": target.host, "http": {"paths": [path]}}],
        },
    }


def ingress_class() -> dict[str, Any]:
    """The class by which others find out which controller serves these Ingresses."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": INGRESS_CLASS, "labels": MANAGED},
        "spec": {"controller": CONTROLLER},
    }


def crds_file(say: Reporter) -> Path:
    """Contour's CRDs, from the Go module that the program was built from.

    Raises:
        LabError: if the module cannot be had.
    """
    kept = tools.cached_path("contour").with_name("contour-crds.yaml")
    if kept.exists():
        return kept
    with say.step("Fetching Contour's CRDs"):
        tool = tools.TOOLS["contour"]
        module = envoy.module_folder(tool.pin, tools.MODULES / tool.module, say)
        source = module / "examples" / "contour" / "01-crds.yaml"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, kept)
    return kept


def _bootstrap(contour: Path, folder: Path, ports: Ports) -> None:
    """Write Envoy's own configuration, by Contour's hand."""
    command = [
        str(contour),
        "bootstrap",
        f"--admin-address={folder / 'admin.sock'}",
        f"--xds-address={LOOPBACK}",
        f"--xds-port={ports.xds}",
        str(folder / "envoy.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"`contour bootstrap` failed: {done.stderr.strip()}")


def _choose_ports() -> Ports:
    http = free_port(DEFAULT_PORT)
    others = free_ports(DEFAULT_PORT + ADMIN_OFFSET, 7)
    return Ports(http, *others)


ADDON = Contour()
