"""What a gateway of the lab is, whichever product it may be."""

from dataclasses import dataclass
from typing import Final, Protocol

from upstream_guard.lab import plan
from upstream_guard.lab.model import Cluster, Reporter
from upstream_guard.lab.packages import Need

TLS_PORT: Final = 443
"""Of the lab's Services that speak TLS."""


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """A Service that a gateway shall lead to."""

    namespace: str
    name: str
    port: int = 80
    """The Service's port, not the pods'."""
    tls: bool = False
    """Gateways go there by TLS, and verify nothing."""
    resolver: str = ""
    """DNS server, `address:port`, that a plain gateway asks for the Service's name; empty: it goes by the ClusterIP."""

    @property
    def dns_name(self) -> str:
        """The Service's name in the cluster's DNS."""
        return f"{self.name}.{self.namespace}.svc.{plan.CLUSTER_DOMAIN}"

    @property
    def host(self) -> str:
        """The Host header that selects it at every gateway; `.test` is nobody's real domain."""
        return f"{self.name}.{self.namespace}.test"


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A gateway that is up."""

    name: str
    address: str
    """IP address it serves on."""
    port: int
    metrics_url: str = ""
    """Prometheus metrics; "" where the product has none."""
    admin_url: str = ""
    """Where it tells its upstream list, as in `GatewayProfile.spec.admin`; "" where it does not."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """Where a Service is served."""

    address: str
    port: int
    host: str
    """The Host header that selects the Service."""

    @property
    def url(self) -> str:
        """To be requested with `host` as the Host header."""
        return f"http://{self.address}:{self.port}/"


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """What is there now."""

    name: str
    up: bool
    detail: str
    """One line for people."""


class GatewayAddon(Protocol):
    """A gateway that the lab can put in front of Services.

    All methods are idempotent, and none looks at another gateway.
    """

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def title(self) -> str:
        """What it is, in one line."""

    def needs(self) -> tuple[Need, ...]:
        """Operating-system packages it stands on."""

    def up(self, cluster: Cluster, say: Reporter) -> RunningGateway:
        """Start it, or return the one that runs.

        Raises:
            LabError: what is missing or in the way.
        """

    def expose(self, cluster: Cluster, target: ServiceTarget) -> Exposure:
        """Lead `target.host` to the Service; returns when the gateway knows the route.

        Raises:
            LabError: if the gateway is not up, or the Service or its port does not exist.
        """

    def unexpose(self, cluster: Cluster, target: ServiceTarget) -> None:
        """Take the route away. No route is no error."""

    def down(self, cluster: Cluster, say: Reporter) -> None:
        """Stop it and remove what it put into the cluster and onto the machine."""

    def status(self, cluster: Cluster) -> GatewayStatus:
        """What is there now; changes nothing."""
