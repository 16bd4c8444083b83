"""Replicas added for a drain and put back, against a scripted API server."""

from dataclasses import replace

import pytest
from tests.edges.test_engine import Cluster, guard, node, service

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.names import GATE
from upstream_guard.resources.kube_objects import parse_pod
from upstream_guard.resources.live import parse_live_deployment
from upstream_guard.resources.manifests import parse_budget

SHOP = ObjectRef("prod", "shop")
PATH = "/apis/apps/v1/namespaces/prod/deployments/shop"


def pod(name="shop-1", *, on="n1", terminating=False):
    ready = [{"type": kind, "status": "True"} for kind in ("ContainersReady", "Ready", GATE)]
    made = parse_pod(
        {
            "metadata": {
                "namespace": "prod",
                "name": name,
                "uid": f"u-{name}",
                "labels": {"app": "shop"},
                "ownerReferences": [
                    {"controller": True, "kind": "ReplicaSet", "name": "shop-rs", "uid": "rs"}
                ],
            },
            "spec": {
                "nodeName": on,
                "readinessGates": [{"conditionType": GATE}],
                "containers": [{"name": "app"}],
            },
            "status": {"podIP": "198.18.0.1", "conditions": ready},
        }
    )
    return replace(made, terminating=terminating)


class Drained(Cluster):
    """One Deployment of one pod on node n1, and the API server's idea of it."""

    def __init__(self, api, background):
        super().__init__(api, background)
        self.replicas, self.manager, self.refuse, self.version = 1, "kubectl", 0, 1
        api.handler = self.answer
        self.state.owners[ObjectRef("prod", "shop-rs")] = "deployment/shop"
        self.workload = None
        self.show()

    async def answer(self, request, body):
        if request.path == PATH:
            return 200, self.deployment()
        if request.path == f"{PATH}/scale":
            if self.refuse:
                return self.api.failure(self.refuse)
            assert body["metadata"]["resourceVersion"] == str(self.version)
            self.replicas = body["spec"]["replicas"]
            self.version += 1
            self.show()
        return 200, {}

    def deployment(self):
        owned = {"f:spec": {"f:replicas": {}}}
        return {
            "metadata": {
                "namespace": "prod",
                "name": "shop",
                "resourceVersion": str(self.version),
                "managedFields": [{"manager": self.manager, "fieldsV1": owned}],
            },
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": "shop"}},
                "template": {
                    "metadata": {"labels": {"app": "shop"}},
                    "spec": {"containers": [{"name": "app", "image": "shop"}]},
                },
            },
        }

    def show(self):
        """What the watch would."""
        old, self.workload = self.workload, parse_live_deployment(self.deployment())
        self.state.surroundings._workload(old, self.workload)

    def scaled(self):
        return [
            body["spec"]["replicas"]
            for verb, path, _, body in self.api.requests
            if path == f"{PATH}/scale" and verb == "PATCH"
        ]

    def surge(self):
        return self.app._statuses.current(SHOP).get("drain", {}).get("surge")


@pytest.fixture
async def cluster(api, background):
    made = Drained(api, background)
    made.engine.activate()
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"namespace": "prod", "name": "shop"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "shop"}}},
    }
    made.state.surroundings._rule(None, parse_budget(budget))
    for name in ("n1", "n2"):
        made.state._node(None, node(name))
    yield made
    made.engine.abandon()


def cordoned(name):
    return replace(node(name), unschedulable=True)


async def drain(cluster, until, **spec):
    cluster.see(service(), pod(), guard(drain={"surgeBeforeEvict": True, **spec}))
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    cluster.state._node(node("n1"), cordoned("n1"))


async def test_a_replica_is_remembered_then_added_and_put_back_after_the_drain(cluster, until):
    await drain(cluster, until)
    await until(lambda: cluster.scaled() == [2])
    order = [path for verb, path, _, body in cluster.api.requests if verb == "PATCH"]
    first = next(i for i, path in enumerate(order) if path.endswith("/scale"))
    assert any(path.endswith("/upstreamguards/shop/status") for path in order[:first])
    assert cluster.surge()["from"] == 1
    await until(lambda: cluster.surge() and cluster.surge()["added"])
    cluster.state._pod(None, pod("shop-2", on="n2"))
    cluster.state._pod(pod(), pod(terminating=True))
    await until(lambda: cluster.scaled() == [2, 1])
    await until(lambda: cluster.surge() is None)
    assert {"ReplicaAdded", "ReplicaPutBack"} <= set(cluster.told())


async def test_no_replica_is_added_where_a_gitops_tool_would_put_it_back(cluster, until):
    cluster.manager = "argocd-controller"
    await drain(cluster, until)
    await until(lambda: "SurgeSkipped" in cluster.told())
    assert cluster.scaled() == []
    assert cluster.surge() is None


async def test_without_the_right_to_scale_it_says_which_manifest_gives_it(cluster, until):
    cluster.refuse = 403
    await drain(cluster, until)
    await until(lambda: "SurgeSkipped" in cluster.told())
    notes = [body["note"] for body in cluster.api.bodies("POST")]
    assert any("deploy/surge" in note for note in notes)
    await until(lambda: cluster.surge() is None)


async def test_nothing_is_scaled_unless_the_guard_asks_for_it(cluster, until):
    await drain(cluster, until, surgeBeforeEvict=False)
    cluster.state._pod(None, pod("shop-2", on="n2"))
    await until(lambda: "2/" in str(cluster.app._statuses.current(SHOP)) or True)
    assert cluster.scaled() == []


async def test_what_a_dead_controller_added_is_put_back_by_the_next(cluster, until):
    cluster.replicas = 2
    cluster.show()
    remembered = {"workload": "deployment/shop", "node": "n1", "from": 1, "added": True}
    body = guard(drain={"surgeBeforeEvict": True})
    body["status"] = {"drain": {"surge": remembered}}
    cluster.see(service(), pod("shop-2", on="n2"), body)
    await until(lambda: cluster.scaled() == [1])
