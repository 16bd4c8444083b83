"""The canary's objects on a real API server, with the rights and under the policy of `deploy/`."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from upstream_guard.controller.canary_objects import CanaryObjects
from upstream_guard.core.canary import Absence, CanaryPlan, Endpoint, canary_host
from upstream_guard.core.names import OPERATOR_NAMESPACE, SERVICE_ACCOUNT
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.kube.client import KubeClient
from upstream_guard.lab.process import end
from upstream_guard.resources.canary import canary_route, canary_service

ROOT = Path(__file__).parents[2]
ADDRESS = "198.18.0.9"
SECONDS = 90
KINDS = "services,endpointslices,ingresses"
CANARY = "app.kubernetes.io/component=canary"
PLAN = CanaryPlan(
    GatewayKind.INGRESS_CLASS, "contour", canary_host(GatewayKind.INGRESS_CLASS, "contour")
)
PLAIN = CanaryPlan(GatewayKind.PROFILE, "edge", "ug.example.com", "http://198.18.0.1")


def poll(what, condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def ours(server):
    done = server.kubectl("get", KINDS, "-n", OPERATOR_NAMESPACE, "-l", CANARY, "-o", "name")
    assert done.ok, done.err
    return sorted(done.out.split())


@pytest.fixture(scope="module")
def installed(own_apiserver):
    result = own_apiserver.kubectl("apply", "--server-side", "-k", str(ROOT / "deploy"))
    assert result.ok, result.err
    return own_apiserver


@pytest.fixture(scope="module")
def account(installed, tmp_path_factory):
    """A kubeconfig with the rights that `deploy/` gives, and no others."""
    token = installed.kubectl("create", "token", SERVICE_ACCOUNT, "-n", OPERATOR_NAMESPACE)
    assert token.ok, token.err
    config = json.loads(installed.kubectl("config", "view", "--raw", "-o", "json").out)
    config["users"][0]["user"] = {"token": token.out.strip()}
    path = tmp_path_factory.mktemp("account") / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
async def objects(account):
    client = await KubeClient.connect(str(account))
    made = CanaryObjects(client, OPERATOR_NAMESPACE, ADDRESS)
    made.ports = {Endpoint.A: 18001, Endpoint.B: 18002}
    yield made
    await made.keep_only([])
    await client.close()


async def test_the_objects_are_accepted_toggled_and_removed(installed, objects):
    states = {Endpoint.A: None, Endpoint.B: Absence.ABSENT}
    service = await objects.set_up(PLAN, states)
    assert service["spec"]["clusterIP"].startswith("198.18.0.")
    await objects.set_up(PLAIN, states)
    assert ours(installed) == [
        "endpointslice.discovery.k8s.io/canary-gatewayprofile-edge-a",
        "endpointslice.discovery.k8s.io/canary-gatewayprofile-edge-b",
        "endpointslice.discovery.k8s.io/canary-ingressclass-contour-a",
        "endpointslice.discovery.k8s.io/canary-ingressclass-contour-b",
        "ingress.networking.k8s.io/canary-ingressclass-contour",
        "service/canary-gatewayprofile-edge",
        "service/canary-ingressclass-contour",
    ]
    assert await objects.is_there(service)
    for state in (*Absence, None):
        await objects.list_endpoint(service, Endpoint.B, state)
        shown = installed.kubectl(
            *("get", "endpointslice", f"{PLAN.service}-b", "-n", OPERATOR_NAMESPACE, "-o", "json")
        )
        conditions = [e["conditions"] for e in json.loads(shown.out).get("endpoints") or ()]
        assert [c["ready"] for c in conditions] == ([] if state is Absence.ABSENT else [not state])
    again = await objects.set_up(PLAN, states)
    assert again["metadata"]["uid"] == service["metadata"]["uid"]
    assert again["spec"]["clusterIP"] == service["spec"]["clusterIP"]

    await objects.keep_only([PLAIN.service])
    assert all("edge" in name for name in ours(installed))
    await objects.keep_only([])
    assert ours(installed) == []
    assert not await objects.is_there(service)


def test_the_policy_leaves_nothing_to_take_over(installed):
    account = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{SERVICE_ACCOUNT}"

    def attempt(body):
        args = ("create", "--dry-run=server", "-f", "-")
        return installed.kubectl(*args, stdin=json.dumps(body), user=account)

    made = canary_service(PLAN, OPERATOR_NAMESPACE)
    made["metadata"]["uid"] = "00000000-0000-0000-0000-000000000001"
    route = canary_route(PLAN, made)
    theirs = canary_route(replace(PLAN, host="shop.example.com"), made)
    poll("the policy is in force", lambda: not attempt(theirs).ok)
    refused = attempt(theirs)
    assert "only hosts below upstream-guard.invalid" in refused.err
    assert attempt(route).ok, attempt(route).err
    caught = {**route, "spec": {**route["spec"], "defaultBackend": {"service": {"name": "x", "port": {"number": 80}}}}}  # fmt: skip
    assert "only hosts below" in attempt(caught).err
    assert "labelled" in attempt({**route, "metadata": {**route["metadata"], "labels": {}}}).err
    assert attempt(made).ok, attempt(made).err
    for extra in ({"externalIPs": ["198.18.7.7"]}, {"selector": {"a": "b"}}, {"type": "NodePort"}):
        greedy = {**made, "spec": {**made["spec"], **extra}}
        assert "only ClusterIP Services" in attempt(greedy).err, extra
    assert installed.kubectl(
        "create", "--dry-run=server", "-f", "-", stdin=json.dumps(theirs)
    ).ok, "nobody else is affected"


@contextlib.contextmanager
def operator(kubeconfig, log):
    """A real operator process with the account's rights."""
    command = [sys.executable, "-m", "upstream_guard.cli", "run", "--kubeconfig", str(kubeconfig)]
    command += ["--bind=127.0.0.1", "--http-port=0", "--no-webhook", f"--canary-address={ADDRESS}"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stderr=out, env=os.environ, start_new_session=True)
    try:
        yield process
    finally:
        if not end(process, 20):
            pytest.fail("the operator did not stop within 20 s of SIGTERM")


def test_the_operator_measures_while_there_are_guards(installed, account, tmp_path):
    for body in (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": "contour"},
            "spec": {"controller": "projectcontour.io/ingress-controller"},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "shop", "namespace": "shop"},
            "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "shop", "namespace": "shop"},
            "spec": {
                "ingressClassName": "contour",
                "defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}},
            },
        },
        {
            "apiVersion": "upstreamguard.io/v1alpha1",
            "kind": "UpstreamGuard",
            "metadata": {"name": "shop", "namespace": "shop"},
            "spec": {"targetRef": {"kind": "Service", "name": "shop"}},
        },
    ):
        installed.apply(body)
    log = tmp_path / "operator.log"

    def status():
        shown = json.loads(installed.kubectl("get", "ug", "shop", "-n", "shop", "-o", "json").out)
        return shown.get("status") or {}

    def told(kind):
        found = (g for g in status().get("gateways") or () if g["kind"] == kind)
        return next(found, {}).get("canary", "")

    with operator(account, log):
        poll("both canaries", lambda: len(ours(installed)) == 7)
        # Nobody serves the Ingress here, nor the ClusterIP: the built-in numbers stay, and it is said.
        poll("a word on Contour", lambda: "no address of it is known" in told("IngressClass"))
        poll("a word on kube-proxy", lambda: "not measured now" in told("ClusterIP"))
        assert status()["drain"]["evidence"] == "builtin"
        assert installed.kubectl("delete", "ug", "shop", "-n", "shop").ok
        poll("they go with the last guard", lambda: ours(installed) == [])
    assert "Traceback" not in log.read_text()
