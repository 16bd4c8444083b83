"""Each gateway of the lab carries requests to pods, and follows what happens to them."""

import json
import uuid
from collections.abc import Iterator

import pytest

from upstream_guard.lab import images, tools
from upstream_guard.lab.demo import variants
from upstream_guard.lab.gateways import GATEWAYS, ServiceTarget, support
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import Cluster
from upstream_guard.lab.report import RichReporter

pytestmark = pytest.mark.cluster

SECONDS = 60.0
ON_DEMAND = ("envoy-gateway",)
"""`lab build` leaves these out."""


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[ServiceTarget]:
    """A Service with one pod of the sample upstream behind it, in a namespace of its own."""
    say = RichReporter()
    archive = images.build_upstream_image(say)
    LocalProvider(cluster.state_dir).load_image(cluster, archive, say)
    namespace = f"gateways-{uuid.uuid4().hex[:6]}"
    support.kubectl(cluster, "create", "namespace", namespace)
    try:
        manifests = [
            variants.deployment(
                variants.Variant.TUNED, namespace=namespace, name="shop", replicas=1, start_delay=0
            ),
            variants.service(namespace=namespace, name="shop"),
        ]
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        support.kubectl(cluster, "apply", "--filename=-", stdin=document)
        support.kubectl(
            cluster, "rollout", "status", "deployment/shop", f"--namespace={namespace}",
            f"--timeout={SECONDS:g}s",
        )  # fmt: skip
        yield ServiceTarget(namespace, "shop")
    finally:
        support.kubectl(cluster, "delete", "namespace", namespace, "--wait=false")


@pytest.fixture(params=list(GATEWAYS))
def name(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """A gateway's name; one that was not up before is stopped afterwards."""
    gateway = GATEWAYS[request.param]
    if request.param in ON_DEMAND and not tools.cached_path(request.param).exists():
        pytest.skip(f"{request.param} takes minutes to build; `lab up --gateway` does")
    before = gateway.status(cluster).up
    yield request.param
    if not before:
        gateway.down(cluster, RichReporter())
        assert not support.main_pids(cluster, request.param)


def test_a_gateway_carries_requests_to_a_pod(
    name: str, cluster: Cluster, shop: ServiceTarget
) -> None:
    gateway = GATEWAYS[name]
    running = gateway.up(cluster, RichReporter())
    exposure = gateway.expose(cluster, shop)
    try:
        assert exposure.port == running.port
        # kube-proxy may take a second to know a Service.
        support.wait_for(
            lambda: (
                support.ask(exposure.port, exposure.host, address=exposure.address).status == 200
            ),
            10,
            "an answer",
        )
        for _ in range(20):
            assert support.ask(exposure.port, exposure.host, address=exposure.address).status == 200
        assert support.ask(exposure.port, "nobody.test", address=exposure.address).status in {
            404,
            421,
        }
    finally:
        gateway.unexpose(cluster, shop)
    support.wait_for(
        lambda: (
            support.ask(exposure.port, exposure.host, address=exposure.address).status
            in {0, 404, 421}
        ),
        10,
        "the route to be gone",
    )
