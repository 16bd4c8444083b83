"""`upstream-guard uninstall` on a real API server, with no operator alive."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from upstream_guard.controller.uninstall import RELEASE_REASON, closed_gates
from upstream_guard.core.canary import CanaryPlan, Endpoint
from upstream_guard.core.names import GATE, LEASE, OPERATOR_NAMESPACE, WEBHOOK_SECRET
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.resources.canary import canary_route, canary_service, canary_slice

ROOT = Path(__file__).parents[2]
SECONDS = 60
KINDS = (
    "crd,clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding,"
    "mutatingwebhookconfiguration,validatingwebhookconfiguration"
)
OWN_KINDS = (
    "deployment,service,endpointslice,ingress,role,rolebinding,serviceaccount,pdb,lease,secret"
)


def uninstall(server, *args):
    command = [sys.executable, "-m", "upstream_guard.cli", "uninstall", *args]
    return subprocess.run(
        [*command, "--kubeconfig", str(server.kubeconfig)],
        cwd=ROOT / "operator",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def pod(name, gate=None, *, gated=True, **metadata):
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", **metadata},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "shop:1"}],
        },
    }
    if gated:
        body["spec"]["readinessGates"] = [{"conditionType": GATE}]
    conditions = [{"type": "Ready", "status": "False"}]
    if gate is not None:
        conditions.append({"type": GATE, "status": gate})
    return body, {"status": {"phase": "Running", "conditions": conditions}}


PODS = [
    pod("closed", "False"),
    pod("never-written"),
    pod("open", "True"),
    pod("plain", gated=False),
    pod("leaving", "False", finalizers=["example.com/keep"]),
]


def poll(what, condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@pytest.fixture
def installed(own_apiserver):
    server = own_apiserver
    # Where CRDs and guards come in one go the first may not be served yet; here are no guards yet.
    server.install(ROOT / "deploy")
    server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    for body, status in PODS:
        server.apply(body)
        path = f"/api/v1/namespaces/shop/pods/{body['metadata']['name']}/status"
        assert server.patch(path, status, "application/strategic-merge-patch+json").ok
    assert server.kubectl("delete", "pod", "leaving", "-n", "shop", "--wait=false").ok
    server.apply(guard())
    put_external_slice(server)
    apply_canary(server)
    space = {"namespace": OPERATOR_NAMESPACE}
    server.apply(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE, **space},
        }
    )
    server.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": WEBHOOK_SECRET, **space}}
    )
    server.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "foreign", **space}})
    return server


def put_external_slice(server):
    name = ("endpointslice", "pay-external-ipv4-443", "-n", "shop")
    assert server.kubectl("delete", *name, "--ignore-not-found").ok
    server.apply(external_slice(server))


def external_slice(server):
    found = server.kubectl("get", "ug", "shop", "-n", "shop", "-o", "json")
    owner = {
        "apiVersion": "upstreamguard.io/v1alpha1",
        "kind": "UpstreamGuard",
        "name": "shop",
        "uid": json.loads(found.out)["metadata"]["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "pay-external-ipv4-443",
            "namespace": "shop",
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "upstream-guard",
                "kubernetes.io/service-name": "pay",
            },
            "annotations": {"upstreamguard.io/upstreams": "{}"},
            "ownerReferences": [owner],
        },
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": 443}],
        "endpoints": [
            {"addresses": ["203.0.113.1"], "conditions": {"ready": True}},
            {"addresses": ["203.0.113.2"], "conditions": {"ready": False}},
        ],
    }


def listed(server):
    """What is left of the list of external upstreams: owners, and readiness by address."""
    name = ("endpointslice", "pay-external-ipv4-443", "-n", "shop", "-o", "json")
    found = json.loads(server.kubectl("get", *name).out)
    ready = {e["addresses"][0]: e["conditions"]["ready"] for e in found["endpoints"]}
    return len(found["metadata"].get("ownerReferences", ())), ready


def apply_canary(server):
    """What the operator may have left behind while it measured."""
    plan = CanaryPlan(GatewayKind.INGRESS_CLASS, "contour", "canary.upstream-guard.invalid")
    server.apply(canary_service(plan, OPERATOR_NAMESPACE))
    shown = server.kubectl("get", "service", plan.service, "-n", OPERATOR_NAMESPACE, "-o", "json")
    service = json.loads(shown.out)
    for endpoint in Endpoint:
        server.apply(canary_slice(service, endpoint, "198.18.0.9", 18001, None))
    server.apply(canary_route(plan, service))


def guard():
    return {
        "apiVersion": "upstreamguard.io/v1alpha1",
        "kind": "UpstreamGuard",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"targetRef": {"kind": "Service", "name": "shop"}},
    }


def gates(server):
    pods = json.loads(server.kubectl("get", "pods", "-n", "shop", "-o", "json").out)["items"]
    return {
        item["metadata"]["name"]: next(
            (c for c in item["status"].get("conditions", ()) if c["type"] == GATE), {}
        )
        for item in pods
    }


def finish_namespaces(server, stop):
    """What the namespace controller would do."""
    path = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}"
    while not stop.wait(0.2):
        found = server.kubectl("get", "--raw", path)
        if found.ok and '"Terminating"' in found.out:
            body = {**json.loads(found.out), "spec": {"finalizers": []}}
            server.kubectl(
                "replace", "--raw", f"{path}/finalize", "-f", "-", stdin=json.dumps(body)
            )


@pytest.fixture
def namespace_controller(own_apiserver):
    stop = threading.Event()
    thread = threading.Thread(target=finish_namespaces, args=(own_apiserver, stop))
    thread.start()
    yield
    stop.set()
    thread.join()


def ours(server, kinds, *args):
    label = "app.kubernetes.io/part-of=upstream-guard"
    return server.kubectl("get", kinds, "-l", label, "-o", "name", *args).out.split()


def test_from_rehearsal_to_nothing_left(installed, namespace_controller):
    server = installed
    before = ours(server, KINDS), ours(server, OWN_KINDS, "-n", OPERATOR_NAMESPACE), gates(server)

    rehearsal = uninstall(server, "--dry-run")
    assert rehearsal.returncode == 0, rehearsal.stdout + rehearsal.stderr
    assert "gate of pod shop/closed would be opened" in rehearsal.stdout
    assert "Namespace upstream-guard-system would be deleted" in rehearsal.stdout
    after = ours(server, KINDS), ours(server, OWN_KINDS, "-n", OPERATOR_NAMESPACE), gates(server)
    assert after == before, "a dry run changes nothing"
    assert listed(server) == (1, {"203.0.113.1": True, "203.0.113.2": False})

    unconfirmed = uninstall(server)
    assert unconfirmed.returncode == 2
    assert "--yes" in unconfirmed.stderr

    done = uninstall(server, "--yes", f"--timeout={SECONDS}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = gates(server)
    for name in ("closed", "never-written"):
        assert found[name]["status"] == "True"
        assert found[name]["reason"] == RELEASE_REASON
    assert found["open"] == before[2]["open"]
    assert found["plain"] == {}
    assert found["leaving"]["status"] == "False"
    ready = server.kubectl(
        *("get", "pod", "closed", "-n", "shop", "-o"),
        "jsonpath={.status.conditions[?(@.type=='Ready')].status}",
    )
    assert ready.out == "False", "the other conditions are the kubelet's"
    assert ours(server, KINDS) == []
    assert ours(server, OWN_KINDS, "-n", OPERATOR_NAMESPACE) == []
    assert not server.kubectl("get", "namespace", OPERATOR_NAMESPACE).ok
    assert server.kubectl("get", "namespace", "shop").ok
    assert listed(server) == (0, {"203.0.113.1": True, "203.0.113.2": True})

    again = uninstall(server, "--yes")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 gates opened, 0 objects deleted." in again.stdout


def test_kept_crds_keep_the_guards(installed, namespace_controller):
    done = uninstall(installed, "--yes", "--keep-crds")
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed.kubectl("get", "ug", "shop", "-n", "shop").ok
    assert len(ours(installed, KINDS)) == 2
    assert listed(installed) == (1, {"203.0.113.1": True, "203.0.113.2": True})


def test_no_cluster_and_no_rights_end_in_words(own_apiserver, tmp_path):
    config = tmp_path / "config"
    text = own_apiserver.kubeconfig.read_text()
    config.write_text(text.replace(own_apiserver.url, "https://127.0.0.1:1"))

    class Elsewhere:
        kubeconfig = config

    for change in ("", "wrong-token"):
        if change:
            config.write_text(text.replace("token: ", "token: wrong"))
        done = uninstall(Elsewhere, "--yes")
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ")
        assert "Traceback" not in done.stderr + done.stdout


def test_finished_pods_are_left_alone():
    held = {
        "metadata": {"namespace": "a", "name": "b", "uid": "c"},
        "spec": {"readinessGates": [{"conditionType": GATE}]},
        "status": {"phase": "Running"},
    }
    assert [str(p.ref) for p in closed_gates([held])] == ["a/b"]
    assert closed_gates([{**held, "status": {"phase": "Succeeded"}}]) == ()


def documented(word):
    blocks = (ROOT / "docs" / "uninstall.md").read_text().split("```sh\n")
    (loop,) = (
        part for b in blocks if "go-template" in (part := b.split("```")[0]) and word in part
    )
    return loop


def test_the_documented_kubectl_loop_leaves_external_upstreams(own_apiserver, tmp_path):
    server = own_apiserver
    server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    assert server.kubectl("apply", "--server-side", "-k", str(ROOT / "crds")).ok
    poll("the CRDs are served", lambda: server.kubectl("get", "ug", "-A").ok)
    server.apply(guard())
    put_external_slice(server)
    (tmp_path / "kubectl").symlink_to(server.kubectl_path)
    subprocess.run(
        ["sh", "-ec", documented("endpointslice")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "KUBECONFIG": str(server.kubeconfig)},
        check=True,
        timeout=60,
        capture_output=True,
    )
    assert listed(server) == (0, {"203.0.113.1": True, "203.0.113.2": True})


def test_the_documented_kubectl_loop_opens_every_gate(own_apiserver, tmp_path):
    server = own_apiserver
    server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    for body, status in (PODS[0], PODS[1], PODS[3]):
        server.apply(body)
        path = f"/api/v1/namespaces/shop/pods/{body['metadata']['name']}/status"
        assert server.patch(path, status, "application/strategic-merge-patch+json").ok
    loop = documented("readinessGates")
    (tmp_path / "kubectl").symlink_to(server.kubectl_path)
    subprocess.run(
        ["sh", "-ec", loop],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "KUBECONFIG": str(server.kubeconfig)},
        check=True,
        timeout=60,
        capture_output=True,
    )
    found = gates(server)
    assert found["closed"]["status"] == found["never-written"]["status"] == "True"
    assert found["plain"] == {}
