"""The DNS of a lab whose gateways go by names: what a cluster's own says of Services."""

from upstream_guard.lab.demo.stage import Stage, kubectl
from upstream_guard.lab.gateways import ServiceTarget
from upstream_guard.lab.model import Cluster
from upstream_guard.lab.nameserver import Nameserver

KNOWN = ServiceTarget("default", "kubernetes")
"""By this one the operator sees that a DNS server is the cluster's."""


def dns_name(stage: Stage) -> str:
    """Of the service on this stage."""
    return ServiceTarget(stage.namespace, stage.name).dns_name


async def publish(server: Nameserver, cluster: Cluster, target: ServiceTarget) -> None:
    """Have DNS know a Service.

    Raises:
        LabError: there is no such Service.
    """
    address = await kubectl(
        cluster, "--namespace", target.namespace, "get", "service", target.name,
        "--output=jsonpath={.spec.clusterIP}",
    )  # fmt: skip
    server.records[target.dns_name] = {"A": [address]}
