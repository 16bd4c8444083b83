"""Which gateways the operator wants to measure, and what it takes for a reason to do so now."""

import pytest

from upstream_guard.controller.app import App
from upstream_guard.controller.options import Options
from upstream_guard.core.canary import CanaryPlan
from upstream_guard.core.model import EndpointSlice, ObjectRef, SliceEndpoint
from upstream_guard.core.names import API_VERSION
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.resources.kube_objects import parse_service

KUBE_PROXY = (GatewayKind.CLUSTER_IP, "ClusterIP")


@pytest.fixture
async def app(api):
    made = App(Options(webhook_port=None), api.client, 35)
    for name in ("shop", "blog"):
        see(made, name)
    return made


def see(app, name):
    spec = {"selector": {"app": name}, "ports": [{"port": 80}], "clusterIP": "198.19.0.1"}
    metadata = {"namespace": "prod", "name": name, "uid": f"s-{name}"}
    app.state._service(None, parse_service({"metadata": metadata, "spec": spec}))
    app.guard_seen(
        {
            "apiVersion": API_VERSION,
            "kind": "UpstreamGuard",
            "metadata": {**metadata, "uid": f"g-{name}", "generation": 1},
            "spec": {"targetRef": {"name": name}},
        },
        deleted=False,
    )


def list_pods(app, service, *addresses, ready=True):
    ref = ObjectRef("prod", f"{service}-1")
    endpoints = tuple(SliceEndpoint((a,), ready, True, False) for a in addresses)
    app.state._slice(None, EndpointSlice(ref, service, "IPv4", (("http", 80),), endpoints))


async def behind_kube_proxy(app):
    candidate = (await app.drains.canaries())[KUBE_PROXY]
    assert isinstance(candidate.plan, CanaryPlan)
    return candidate.pods


async def test_pods_that_come_or_go_behind_any_service_are_seen(app):
    list_pods(app, "shop", "198.18.0.1")
    seen = [await behind_kube_proxy(app)]
    list_pods(app, "shop", "198.18.0.1", "198.18.0.2")
    seen.append(await behind_kube_proxy(app))
    list_pods(app, "blog", "198.18.0.1", "198.18.0.2")
    seen.append(await behind_kube_proxy(app))
    list_pods(app, "shop", "198.18.0.2")
    seen.append(await behind_kube_proxy(app))
    assert len(set(seen)) == 4


async def test_a_pod_that_is_ejected_and_restored_is_no_reason_to_measure(app):
    list_pods(app, "shop", "198.18.0.1", "198.18.0.2")
    before = await behind_kube_proxy(app)
    list_pods(app, "shop", "198.18.0.2", "198.18.0.1", ready=False)
    assert await behind_kube_proxy(app) == before
