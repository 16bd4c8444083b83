"""What `deploy/` grants is what the operator needs, and nothing that it does not."""

import json
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from upstream_guard.core.names import (
    GATE,
    LEASE,
    OPERATOR_NAMESPACE,
    SERVICE_ACCOUNT,
    WEBHOOK_CONFIGURATION,
    WEBHOOK_SECRET,
    WEBHOOK_SERVICE,
)
from upstream_guard.kube.client import APPLY, MERGE, STRATEGIC_MERGE
from upstream_guard.webhook.registration import MUTATE_PODS, VALIDATE_GUARDS, namespace_selector

ROOT = Path(__file__).parents[2]
ACCOUNT = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{SERVICE_ACCOUNT}"
POLICY_SECONDS = 30


def render(apiserver, folder):
    done = subprocess.run(
        [apiserver.kubectl_path, "kustomize", ROOT / folder],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="session")
def installed(apiserver):
    """The API server with `deploy/` applied, twice: the second time changes nothing."""
    manifests = render(apiserver, "deploy")
    apiserver.apply(manifests)
    apiserver.apply(manifests)
    apiserver.apply(POD)
    status = {"status": STATUS}
    result = apiserver.kubectl(
        "patch", "pod", "shop", "--subresource=status", "--type=merge", "-p", json.dumps(status)
    )
    assert result.ok, result.err
    return apiserver


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "shop",
        "namespace": "default",
        "labels": {"app": "shop"},
        "finalizers": ["example.com/keep"],
    },
    "spec": {
        "automountServiceAccountToken": False,
        "readinessGates": [{"conditionType": GATE}],
        "containers": [{"name": "app", "image": "shop:1"}],
    },
}
STATUS = {
    "phase": "Running",
    "podIP": "198.18.1.7",
    "podIPs": [{"ip": "198.18.1.7"}],
    "conditions": [
        {"type": "Initialized", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ],
    "containerStatuses": [
        {
            "name": "app",
            "ready": True,
            "restartCount": 0,
            "image": "shop:1",
            "imageID": "",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
    ],
}


def condition(kind, status, message="of upstream-guard"):
    return {
        "type": kind,
        "status": status,
        "message": message,
        "lastTransitionTime": "2026-01-02T00:00:00Z",
    }


def patch_status(server, patch, content_type=STRATEGIC_MERGE, query=""):
    path = f"/api/v1/namespaces/default/pods/shop/status{query}"
    return server.patch(path, patch, content_type, user=ACCOUNT)


def conditions(*items):
    return {"status": {"conditions": list(items)}}


@pytest.fixture
def enforced(installed):
    """The server once the policy is in force: it is compiled a moment after it is written."""
    deadline = time.monotonic() + POLICY_SECONDS
    forged = {"status": {"podIP": "198.18.9.9"}}
    while True:
        result = patch_status(installed, forged, query="?dryRun=All")
        if "least-power" in result.err:
            return installed
        assert time.monotonic() < deadline, f"the policy never came into force: {result}"
        time.sleep(0.1)


@pytest.mark.parametrize(
    "patch",
    [
        conditions(condition(GATE, "True")),
        conditions(condition(GATE, "False")),
        conditions(condition("Ready", "False")),
    ],
    ids=["gate-true", "gate-false", "ready-false"],
)
def test_the_operators_own_writes_pass(enforced, patch):
    result = patch_status(enforced, patch)
    assert result.ok, result.err


def forged_address(ip):
    # podIPs merges by its key, so the old address must go, or validation refuses it before policy.
    return {"status": {"podIP": ip, "podIPs": [{"$patch": "replace"}, {"ip": ip}]}}


FORGED = {
    "podIP": forged_address("198.18.9.9"),
    "phase": {"status": {"phase": "Failed"}},
    "reason": {"status": {"reason": "Evicted"}},
    "containers": {"status": {"containerStatuses": [{"name": "app", "ready": False}]}},
    "ready-true": conditions(condition("Ready", "True")),
    "ready-unknown": conditions(condition("Ready", "Unknown")),
    "containers-ready": conditions(condition("ContainersReady", "False")),
    "foreign-gate": conditions(condition("example.com/other", "True")),
    "beside-ours": conditions(condition(GATE, "True"), condition("Initialized", "False")),
    "removal": conditions({"$patch": "delete", "type": "Initialized"}),
    "labels": {"metadata": {"labels": {"app": "bank"}}},
    "annotations": {"metadata": {"annotations": {"a": "b"}}},
    "finalizers": {"metadata": {"finalizers": ["example.com/other"]}},
}


@pytest.mark.parametrize("patch", FORGED.values(), ids=FORGED.keys())
def test_everything_else_in_a_pods_status_is_refused(enforced, patch):
    result = patch_status(enforced, patch)
    assert not result.ok
    assert "upstream-guard may" in result.err


def test_a_merge_patch_that_wipes_the_other_conditions_is_refused(enforced):
    result = patch_status(enforced, conditions(condition(GATE, "True")), MERGE)
    assert not result.ok
    assert "may remove no condition" in result.err


def test_the_policy_compiles_without_warnings_and_binds_nobody_else(enforced):
    policy = enforced.kubectl("get", "validatingadmissionpolicy", "-o", "json")
    for item in json.loads(policy.out)["items"]:
        assert not item.get("status", {}).get("typeChecking", {}).get("expressionWarnings")
    path = "/api/v1/namespaces/default/pods/shop/status"
    other = enforced.patch(path, forged_address("198.18.1.8"), STRATEGIC_MERGE)
    assert other.ok, other.err


def slice_of(name, managed_by, service="shop", **fields):
    labels = {"kubernetes.io/service-name": service}
    if managed_by:
        labels["endpointslice.kubernetes.io/managed-by"] = managed_by
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80}],
        "endpoints": [{"addresses": ["203.0.113.7"]}],
        **fields,
    }


def apply_slice(server, body):
    name = body["metadata"]["name"]
    path = f"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{name}"
    query = "?fieldManager=upstream-guard&force=true"
    return server.patch(path + query, body, APPLY, user=ACCOUNT)


@pytest.fixture
def sliced(enforced):
    """The server once the policy for slices is in force, with a slice of somebody else."""
    enforced.apply(slice_of("foreign", "endpointslice-controller.k8s.io"))
    deadline = time.monotonic() + POLICY_SECONDS
    while True:
        result = apply_slice(enforced, slice_of("probe", "somebody"))
        if "only EndpointSlices that it manages" in result.err:
            return enforced
        assert time.monotonic() < deadline, f"the policy never came into force: {result}"
        time.sleep(0.1)


def test_the_operator_writes_slices_of_its_own(sliced):
    for service_ready in (True, False):
        endpoint = {"addresses": ["203.0.113.7"], "conditions": {"ready": service_ready}}
        result = apply_slice(sliced, slice_of("own", "upstream-guard", endpoints=[endpoint]))
        assert result.ok, result.err
    assert sliced.kubectl("delete", "endpointslice", "own", user=ACCOUNT).ok


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (slice_of("new", ""), "it manages itself"),
        (slice_of("new", "endpointslice-controller.k8s.io"), "it manages itself"),
        (slice_of("foreign", "upstream-guard"), "it manages itself"),
        (slice_of("moved", "upstream-guard", service="bank"), "to another Service"),
        (
            slice_of(
                "names",
                "upstream-guard",
                addressType="FQDN",
                endpoints=[{"addresses": ["api.example.com"]}],
            ),
            "names in the place of addresses",
        ),
    ],
    ids=["unlabelled", "in-anothers-name", "taken-over", "moved", "names"],
)
def test_the_operator_writes_no_other_slices(sliced, body, word):
    if body["metadata"]["name"] == "moved":
        assert apply_slice(sliced, slice_of("moved", "upstream-guard")).ok
    result = apply_slice(sliced, body)
    assert not result.ok
    assert word in result.err


def test_the_operator_deletes_no_slice_of_others(sliced):
    result = sliced.kubectl("delete", "endpointslice", "foreign", user=ACCOUNT)
    assert "it manages itself" in result.err


ALLOWED = [
    *(
        (verb, resource, "--all-namespaces")
        for verb in ("get", "list", "watch")
        for resource in (
            "pods",
            "services",
            "nodes",
            "namespaces",
            "endpointslices.discovery.k8s.io",
            "ingresses.networking.k8s.io",
            "ingressclasses.networking.k8s.io",
            "deployments.apps",
            "replicasets.apps",
            "statefulsets.apps",
            "daemonsets.apps",
            "upstreamguards.upstreamguard.io",
            "gatewayprofiles.upstreamguard.io",
            "customresourcedefinitions.apiextensions.k8s.io",
        )
    ),
    ("patch", "pods/status", "-n", "default"),
    ("patch", "upstreamguards.upstreamguard.io/status", "-n", "default"),
    *(
        (verb, "endpointslices.discovery.k8s.io", "-n", "default")
        for verb in ("create", "patch", "delete")
    ),
    ("list", "servicecidrs.networking.k8s.io"),
    ("create", "events.events.k8s.io", "-n", "default"),
    ("patch", "events.events.k8s.io", "-n", "default"),
    ("create", "leases.coordination.k8s.io", "-n", OPERATOR_NAMESPACE),
    ("get", f"leases.coordination.k8s.io/{LEASE}", "-n", OPERATOR_NAMESPACE),
    ("update", f"leases.coordination.k8s.io/{LEASE}", "-n", OPERATOR_NAMESPACE),
    ("create", "secrets", "-n", OPERATOR_NAMESPACE),
    ("get", f"secrets/{WEBHOOK_SECRET}", "-n", OPERATOR_NAMESPACE),
    ("update", f"secrets/{WEBHOOK_SECRET}", "-n", OPERATOR_NAMESPACE),
    *(
        (verb, resource, "-n", OPERATOR_NAMESPACE)
        for verb in ("create", "patch", "delete")
        for resource in (
            "services",
            "endpointslices.discovery.k8s.io",
            "ingresses.networking.k8s.io",
        )
    ),
    *(
        (verb, f"{kind}webhookconfigurations.admissionregistration.k8s.io/{WEBHOOK_CONFIGURATION}")
        for verb in ("get", "update")
        for kind in ("mutating", "validating")
    ),
]
REFUSED = [
    *((verb, "pods", "-n", "default") for verb in ("create", "update", "patch", "delete")),
    ("update", "pods/status", "-n", "default"),
    *(
        ("create", f"pods/{sub}", "-n", "default")
        for sub in ("exec", "eviction", "binding", "portforward", "ephemeralcontainers")
    ),
    ("patch", "pods/ephemeralcontainers", "-n", "default"),
    ("patch", "pods/resize", "-n", "default"),
    *((verb, "services", "-n", "default") for verb in ("create", "patch", "delete")),
    ("update", "endpointslices.discovery.k8s.io", "-n", "default"),
    ("deletecollection", "endpointslices.discovery.k8s.io", "-n", "default"),
    *((v, "ingresses.networking.k8s.io", "-n", "default") for v in ("create", "patch")),
    ("patch", "deployments.apps", "-n", "default"),
    ("patch", "upstreamguards.upstreamguard.io", "-n", "default"),
    ("get", "secrets", "-n", OPERATOR_NAMESPACE),
    ("list", "secrets", "-n", OPERATOR_NAMESPACE),
    ("create", "secrets", "-n", "default"),
    ("get", f"secrets/{WEBHOOK_SECRET}", "-n", "default"),
    ("update", "leases.coordination.k8s.io/other", "-n", OPERATOR_NAMESPACE),
    ("create", "mutatingwebhookconfigurations.admissionregistration.k8s.io"),
    ("update", "mutatingwebhookconfigurations.admissionregistration.k8s.io/other"),
    ("delete", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ("patch", "nodes"),
    ("impersonate", "users"),
]


@pytest.mark.parametrize("question", ALLOWED, ids=" ".join)
def test_the_operator_may_do_what_it_does(installed, question):
    result = installed.kubectl("auth", "can-i", *split(question), user=ACCOUNT)
    assert result.out.strip() == "yes", result


@pytest.mark.parametrize("question", REFUSED, ids=" ".join)
def test_the_operator_may_do_nothing_else(installed, question):
    result = installed.kubectl("auth", "can-i", *split(question), user=ACCOUNT)
    assert result.out.strip() == "no", result


def split(question):
    """kubectl takes `pods/status` as a resource and a name; its flag says what is meant."""
    verb, resource, *rest = question
    kind, _, part = resource.partition("/")
    subresources = {"status", "exec", "eviction", "binding", "portforward"}
    if part in subresources | {"ephemeralcontainers", "resize"}:
        return [verb, kind, f"--subresource={part}", *rest]
    return [verb, resource, *rest]


def test_the_webhooks_are_shipped_inert_and_fail_open(apiserver):
    objects = list(yaml.safe_load_all(render(apiserver, "deploy")))
    hooks = {
        o["kind"]: o["webhooks"] for o in objects if o["kind"].endswith("WebhookConfiguration")
    }
    (pods,) = hooks["MutatingWebhookConfiguration"]
    (guards,) = hooks["ValidatingWebhookConfiguration"]
    assert pods["namespaceSelector"] == namespace_selector([])
    assert pods["clientConfig"]["service"]["path"] == MUTATE_PODS
    assert guards["clientConfig"]["service"]["path"] == VALIDATE_GUARDS
    for hook in (pods, guards):
        assert (hook["failurePolicy"], hook["timeoutSeconds"]) == ("Ignore", 1)
        assert hook["clientConfig"]["service"]["name"] == WEBHOOK_SERVICE
        assert "caBundle" not in hook["clientConfig"]


def test_every_object_is_labelled_for_uninstall(apiserver):
    for item in yaml.safe_load_all(render(apiserver, "deploy")):
        labels = item["metadata"].get("labels", {})
        assert labels.get("app.kubernetes.io/part-of") == "upstream-guard", item["metadata"]["name"]


NAMESPACED_ACCOUNT = f"system:serviceaccount:default:{SERVICE_ACCOUNT}"


def test_an_installation_for_one_namespace_has_rights_there_only(installed):
    installed.apply(render(installed, "deploy/namespaced"))
    for question, answer in {
        ("list", "pods", "-n", "default"): "yes",
        ("patch", "pods/status", "-n", "default"): "yes",
        ("update", f"leases.coordination.k8s.io/{LEASE}", "-n", "default"): "yes",
        ("list", "gatewayprofiles.upstreamguard.io"): "yes",
        ("list", "pods", "-n", "kube-system"): "no",
        ("patch", "pods/status", "-n", "kube-system"): "no",
        ("patch", "endpointslices.discovery.k8s.io", "-n", "default"): "yes",
        ("patch", "endpointslices.discovery.k8s.io", "-n", "kube-system"): "no",
        ("get", f"secrets/{WEBHOOK_SECRET}", "-n", "default"): "no",
    }.items():
        result = installed.kubectl("auth", "can-i", *split(question), user=NAMESPACED_ACCOUNT)
        assert result.out.strip() == answer, question
    path = "/api/v1/namespaces/default/pods/shop/status"
    deadline = time.monotonic() + POLICY_SECONDS
    while True:
        forged = forged_address("198.18.9.9")
        result = installed.patch(
            f"{path}?dryRun=All", forged, STRATEGIC_MERGE, user=NAMESPACED_ACCOUNT
        )
        if "least-power-default" in result.err:
            return
        assert time.monotonic() < deadline, f"the policy never came into force: {result}"
        time.sleep(0.1)


DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "shop", "namespace": "default"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "shop"}},
        "template": {
            "metadata": {"labels": {"app": "shop"}},
            "spec": {"containers": [{"name": "app", "image": "shop:1"}]},
        },
    },
}


def test_replicas_may_be_changed_only_where_an_admin_allows_it_and_nothing_else_with_them(
    installed,
):
    installed.apply(DEPLOYMENT)
    path = "/apis/apps/v1/namespaces/default/deployments/shop"
    more = {"spec": {"replicas": 2}}

    def patch(where, body):
        return installed.patch(where, body, MERGE, user=ACCOUNT)

    assert patch(f"{path}/scale", more).code == 403
    installed.apply(render(installed, "deploy/surge"))
    try:
        deadline = time.monotonic() + POLICY_SECONDS
        while not (result := patch(f"{path}/scale", more)).ok and time.monotonic() < deadline:
            time.sleep(0.1)
        assert json.loads(result.out)["spec"]["replicas"] == 2
        stale = {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 3}}
        assert patch(f"{path}/scale", stale).code == 409
        assert patch(path, more).code == 403
    finally:
        installed.kubectl("delete", "clusterrole,clusterrolebinding", "upstream-guard-surge")
