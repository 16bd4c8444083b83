"""The operator in the cluster, installed as a user does it: `kubectl apply -k deploy/`.

The image is built from the Dockerfile, nothing of `deploy/` is left out or changed. One test after
another, on one installation; the last one removes it.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import upstream_guard
from upstream_guard.core import names
from upstream_guard.kube.client import KubeClient
from upstream_guard.lab import nodes, replicas
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.guarding import KubectlGuarding
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.images import build_operator_image, build_upstream_image
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import Cluster
from upstream_guard.lab.report import QuietReporter

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
Record = Callable[[str, object], None]

NAMESPACE = "ug-install"
SERVICE = "shop"
PODS = 3
START_DELAY = 2.0
EJECT_SECONDS = 5.0
TAKEOVER_SECONDS = 30.0
POLL_SECONDS = 0.05
WEBHOOK_PORT = 9443
OPERATOR_LABELS = "app.kubernetes.io/name=upstream-guard,app.kubernetes.io/component=operator"
OWNED = (
    "deployment,service,role,rolebinding,serviceaccount,poddisruptionbudget,crd,clusterrole,"
    "clusterrolebinding,mutatingwebhookconfiguration,validatingwebhookconfiguration,"
    "validatingadmissionpolicy,validatingadmissionpolicybinding,namespace"
)


def kubectl(cluster: Cluster, *args: str) -> str:
    done = subprocess.run(
        cluster.kubectl_command(*args), capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(cluster: Cluster, *args: str) -> Any:
    space = f"--namespace={names.OPERATOR_NAMESPACE}"
    return json.loads(kubectl(cluster, space, "get", *args, "-o", "json"))


def operator_pods(cluster: Cluster) -> list[Json]:
    pods: list[Json] = get(cluster, "pods", "-l", OPERATOR_LABELS)["items"]
    return pods


async def until(what: str, question: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        await asyncio.sleep(POLL_SECONDS)
    pytest.fail(f"not within {seconds:g} s: {what}")


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster after `kubectl apply -k deploy/`."""
    say = QuietReporter()
    provider = LocalProvider(cluster.state_dir)
    for archive in (build_upstream_image(say), build_operator_image(say)):
        provider.load_image(cluster, archive, say)
    replicas.uninstall(cluster, say)
    kubectl(cluster, "apply", f"--kustomize={replicas.manifests_folder()}")
    yield cluster
    kubectl(cluster, "delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
    replicas.uninstall(cluster, say)


@pytest.fixture
async def stage(installed: Cluster) -> AsyncIterator[Stage]:
    """The guarded service, followed."""
    client = await KubeClient.connect(str(installed.kubeconfig), installed.context)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        yield await stack.enter_async_context(Stage(installed, client, NAMESPACE, SERVICE))


def test_both_replicas_become_ready(installed: Cluster, record_property: Record) -> None:
    started = time.monotonic()
    space = f"--namespace={names.OPERATOR_NAMESPACE}"
    kubectl(installed, space, "rollout", "status", "deployment/upstream-guard", "--timeout=120s")
    record_property("seconds_until_ready", round(time.monotonic() - started, 1))
    pods = operator_pods(installed)
    assert len(pods) == 2
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    for pod in pods:
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
        assert not pod["spec"].get("readinessGates"), "the operator never guards itself"


async def test_new_pods_get_gate_and_sleep_through_the_webhook_service(stage: Stage) -> None:
    await asyncio.to_thread(kubectl, stage.cluster, "create", "namespace", NAMESPACE)
    place = {"namespace": NAMESPACE, "name": SERVICE}
    await stage.apply(variants.service(**place))
    await KubectlGuarding(stage.client).guard(stage)
    await stage.apply(
        variants.deployment(Variant.GUARDED, **place, replicas=PODS, start_delay=START_DELAY)
    )
    await stage.until_serving(PODS)

    for pod in stage.pods():
        assert gated(pod)
        (container,) = pod["spec"]["containers"]
        assert container["lifecycle"]["preStop"]["sleep"]["seconds"] >= 1
        assert names.ANNOTATION_INJECTED in pod["metadata"]["annotations"]
    hooks = get(stage.cluster, f"mutatingwebhookconfiguration/{names.WEBHOOK_CONFIGURATION}")
    (hook,) = hooks["webhooks"]
    assert hook["clientConfig"]["service"]["name"] == names.WEBHOOK_SERVICE
    assert "url" not in hook["clientConfig"]


async def test_a_fault_ejects_and_its_end_restores(stage: Stage, record_property: Record) -> None:
    liar = stage.pods()[0]
    uid = liar["metadata"]["uid"]
    await stage.fault(liar, "lying-ready", 8)
    faulted = time.time()
    await until("the faulted pod is out", lambda: uid not in stage.listed_uids(), EJECT_SECONDS)
    record_property("seconds_from_fault_to_out", round(time.time() - faulted, 2))
    print(f"from the fault to the list without the pod: {time.time() - faulted:.2f} s")
    await stage.until_listed(PODS, 30)
    assert stage.listed_uids() == stage.uids()


def is_forgotten(cluster: Cluster, address: str) -> bool:
    """Whether kube-proxy, where the API server's calls go through it, has dropped this webhook.

    Its port is part of the question: the canary's slices keep the address until the next controller
    writes its own.
    """
    inside = ["nsenter", f"--net=/run/netns/{cluster.nodes[0].netns}"]
    rules = subprocess.run(
        [*inside, "nft", "list", "ruleset"], capture_output=True, text=True, check=True, timeout=30
    )
    return f"dnat to {address}:{WEBHOOK_PORT}" not in rules.stdout


async def test_scale_from_0_while_the_controller_is_dead(
    stage: Stage, record_property: Record
) -> None:
    """The standby injects behind the same Service, so new pods wait until it has taken over."""
    await stage.kubectl("scale", stage.deployment, "--replicas=0")
    await stage.until_pods(0)
    lease = get(stage.cluster, "lease", names.LEASE)
    holder = lease["spec"]["holderIdentity"]
    # One replica less, and that one: the kubelet does not start its container again. Its preStop
    # hook holds it for seconds, in which it dies without giving the Lease up.
    space = f"--namespace={names.OPERATOR_NAMESPACE}"
    cost = "controller.kubernetes.io/pod-deletion-cost=-100"
    kubectl(stage.cluster, space, "annotate", "pod", holder, cost)
    kubectl(stage.cluster, space, "scale", "deployment/upstream-guard", "--replicas=1")
    pod = get(stage.cluster, "pod", holder)
    await until("it is to go", lambda: is_leaving(stage.cluster, holder), 10)
    for pid in nodes.container_pids(pod["status"]["containerStatuses"][0]["containerID"]):
        os.kill(pid, signal.SIGKILL)
    killed = time.time()
    # As long as kube-proxy sends calls to the dead replica as well, they fail, and then pods are
    # plain (failurePolicy: Ignore); this is about the time after.
    gone = pod["status"]["podIP"]
    await until("kube-proxy forgot it", lambda: is_forgotten(stage.cluster, gone), 10)

    await stage.kubectl("scale", stage.deployment, f"--replicas={PODS}")
    await until("pods were made", lambda: len(stage.pods()) == PODS)
    gates = sum(map(gated, stage.pods()))
    await until(
        "the pods are listed",
        lambda: len(stage.uids()) == PODS and stage.listed_uids() == stage.uids(),
        TAKEOVER_SECONDS,
    )

    took = time.time() - killed
    record_property("seconds_from_the_kill_to_all_listed", round(took, 1))
    print(f"from the kill to all listed: {took:.1f} s, {gates} of {PODS} pods with a gate")
    assert gates == PODS
    lease = get(stage.cluster, "lease", names.LEASE)
    assert lease["spec"]["holderIdentity"] not in {"", holder}
    kubectl(stage.cluster, space, "scale", "deployment/upstream-guard", "--replicas=2")


async def test_uninstall_removes_everything_and_harms_nobody(stage: Stage) -> None:
    began = time.time()
    done = await asyncio.to_thread(uninstall, stage.cluster)

    assert done.returncode == 0, done.stdout + done.stderr
    left = ("get", OWNED, "--all-namespaces", "-o", "name")
    label = f"--selector={names.PART_OF_LABEL}={names.PART_OF}"
    assert kubectl(stage.cluster, *left, label) == ""
    assert stage.listed_uids() == stage.uids()
    assert len(stage.uids()) == PODS
    assert all(number == PODS for at, number in stage.listed if at > began)


def uninstall(cluster: Cluster) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            sys.executable, "-m", "upstream_guard.cli", "uninstall", "--yes",
            f"--kubeconfig={cluster.kubeconfig}", f"--context={cluster.context}",
        ],
        env={**os.environ, "PYTHONPATH": str(Path(upstream_guard.__file__).parent.parent)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def is_leaving(cluster: Cluster, pod: str) -> bool:
    return "deletionTimestamp" in get(cluster, "pod", pod)["metadata"]


def gated(pod: Json) -> bool:
    gates = pod["spec"].get("readinessGates") or ()
    return any(gate["conditionType"] == names.GATE for gate in gates)
