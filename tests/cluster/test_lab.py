"""The embedded cluster is a real one, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from upstream_guard.lab import nodes, plan, process
from upstream_guard.lab.images import UPSTREAM_IMAGE, build_upstream_image
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import Cluster, LabError, LabNode, LabSpec
from upstream_guard.lab.report import QuietReporter

pytestmark = pytest.mark.cluster

NAMESPACE = "lab-test"
NODES = 3
"""As many as the lab of these tests has; each is to run a pod."""
MANIFEST = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {NAMESPACE}}}
spec:
  replicas: {NODES}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: DoNotSchedule
          labelSelector: {{matchLabels: {{app: web}}}}
      containers:
        - name: web
          image: {UPSTREAM_IMAGE}
          imagePullPolicy: Never
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {NAMESPACE}}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""


def until(what: str, question: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(0.05)
    pytest.fail(f"{what} within {seconds} s")


def kubectl(cluster: Cluster, *args: str, text: str | None = None) -> str:
    command = cluster.kubectl_command(*args)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(cluster: Cluster, *args: str) -> Any:
    return json.loads(kubectl(cluster, "-n", NAMESPACE, "get", *args, "-o", "json"))


def fetch(url: str, timeout: float = 1.0) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as answer:
            return answer.read().decode()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Iterator[str]:
    """URL of a Service with a pod on each node."""
    LocalProvider(cluster.state_dir).load_image(cluster, build_upstream_image(), QuietReporter())
    kubectl(cluster, "apply", "-f", "-", text=MANIFEST)
    kubectl(cluster, "-n", NAMESPACE, "rollout", "status", "deployment/web", "--timeout=60s")
    url = f"http://{get(cluster, 'service', 'web')['spec']['clusterIP']}/"
    until("the Service answered", lambda: fetch(url))
    yield url
    kubectl(cluster, "delete", "namespace", NAMESPACE, "--wait=true", "--timeout=60s")


def endpoints(cluster: Cluster) -> dict[str, bool]:
    """Address → ready."""
    items = get(cluster, "endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
    return {
        endpoint["addresses"][0]: endpoint["conditions"]["ready"]
        for item in items
        for endpoint in item["endpoints"] or ()
    }


def pids(name: str) -> set[int]:
    return {p.pid for p in process.marked() if p.name == name}


def test_up_twice_is_one_cluster(cluster: Cluster) -> None:
    before = pids("control-plane")
    again = LocalProvider(cluster.state_dir).up(
        LabSpec(cluster.state_dir, nodes=len(cluster.nodes)), QuietReporter()
    )
    assert again == cluster
    assert before
    assert pids("control-plane") == before


def test_another_number_of_nodes_is_refused(cluster: Cluster) -> None:
    spec = LabSpec(cluster.state_dir, nodes=len(cluster.nodes) + 1)
    with pytest.raises(LabError, match="lab down"):
        LocalProvider(cluster.state_dir).up(spec, QuietReporter())


def test_status_sees_ready_nodes_in_zones(cluster: Cluster) -> None:
    status = LocalProvider(cluster.state_dir).status()
    assert status.up
    assert status.version.startswith("v1.")
    zones = [(True, f"zone-{letter}") for letter in "abc"]
    assert [(n.ready, n.zone) for n in status.nodes] == zones
    assert all(runs for _, runs in status.processes)


def test_pods_run_on_each_node_and_are_listed(cluster: Cluster, web: str) -> None:
    pods = get(cluster, "pods")["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {node.name for node in cluster.nodes}
    assert endpoints(cluster) == {pod["status"]["podIP"]: True for pod in pods}


def test_this_machine_reaches_pods_and_service(cluster: Cluster, web: str) -> None:
    names = {pod["metadata"]["name"]: pod for pod in get(cluster, "pods")["items"]}
    for name, pod in names.items():
        assert name in fetch(f"http://{pod['status']['podIP']}:8080/")
    reached: set[str] = set()

    def both() -> bool:
        reached.update(name for name in names if name in fetch(web))
        return reached == set(names)

    until("every pod answered through the Service", both)


def test_pods_reach_service_api_server_and_this_machine(cluster: Cluster, web: str) -> None:
    pod = get(cluster, "pods")["items"][0]
    pid = nodes.container_pids(pod["status"]["containerStatuses"][0]["containerID"])[0]
    script = (
        "import socket, sys\n"
        "for host, port in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    socket.create_connection((host, int(port)), 2).close()\n"
    )
    service = web.removeprefix("http://").strip("/")
    targets = [service, "80", plan.API_SERVICE_ADDRESS, "443", cluster.host_address, "6443"]
    command = ["nsenter", f"--target={pid}", "--net", sys.executable, "-c", script, *targets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_logs_and_audit_log_are_there(cluster: Cluster, web: str) -> None:
    assert "listening" in kubectl(cluster, "-n", NAMESPACE, "logs", "deployment/web")
    verbs = {json.loads(line)["verb"] for line in cluster.audit_log.read_text().splitlines()}
    assert "create" in verbs
    assert not verbs & {"get", "list", "watch"}


def test_a_lost_node_takes_its_pods_and_nothing_else(cluster: Cluster, web: str) -> None:
    lost: LabNode = cluster.nodes[0]
    addresses = {p["spec"]["nodeName"]: p["status"]["podIP"] for p in get(cluster, "pods")["items"]}
    here, gone = addresses[cluster.nodes[1].name], addresses[lost.name]
    with nodes.lost(lost):
        assert not fetch(f"http://{gone}:8080/")
        assert fetch(f"http://{here}:8080/")
        until("the Service answered from the other nodes", lambda: fetch(web))
    until("the node's pod came back", lambda: fetch(f"http://{gone}:8080/"))
    nodes.flush_conntrack(cluster)


def test_a_killed_container_is_started_again(cluster: Cluster, web: str) -> None:
    def first_pod() -> Any:
        return get(cluster, "pods")["items"][0]

    container = first_pod()["status"]["containerStatuses"][0]
    os.kill(nodes.container_pids(container["containerID"])[0], signal.SIGKILL)

    def restarted() -> bool:
        now = first_pod()["status"]["containerStatuses"][0]
        return now["restartCount"] > container["restartCount"] and now["ready"]

    until("the container was started again", restarted)
