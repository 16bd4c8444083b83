"""The operator against a real API server: real sockets as endpoints, the test plays kubelet."""

import contextlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from upstream_guard.core.names import GATE
from upstream_guard.lab.ports import spare_ports

DEADLINE = 20.0
CRDS = Path(__file__).parents[2] / "crds"


def poll(what: str, check, deadline: float = DEADLINE):
    """The first true value of `check()`; fails the test after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"not within {deadline} s: {what}")
        time.sleep(0.05)


@dataclass
class Endpoint:
    """A real HTTP server on a loopback address of its own; `stop` makes it refuse."""

    address: str
    port: int
    server: http.server.ThreadingHTTPServer | None = field(default=None)

    def start(self) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer((self.address, self.port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


class Cluster:
    """One namespace of the API server, with pods that the test keeps."""

    def __init__(self, api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        (self.port,) = spare_ports(1)
        self.endpoints: dict[str, Endpoint] = {}
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})

    def service(self, name: str = "shop") -> None:
        self.api.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {
                    "selector": {"app": name},
                    "ports": [{"name": "http", "port": 80, "targetPort": self.port}],
                },
            }
        )

    def guard(self, name: str = "shop", **spec) -> None:
        target = {"targetRef": {"kind": "Service", "name": name}}
        self.api.apply(
            {
                "apiVersion": "upstreamguard.io/v1alpha1",
                "kind": "UpstreamGuard",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": target | spec,
            }
        )

    def pod(self, name: str, *, app: str = "shop", serve: bool = True, gate=None) -> Endpoint:
        address = f"127.0.{len(self.endpoints) + 1}.{os.getpid() % 200 + 1}"
        endpoint = Endpoint(address, self.port)
        self.endpoints[name] = endpoint
        if serve:
            endpoint.start()
        self.api.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": self.namespace,
                    "labels": {"app": app, "pod-template-hash": "one"},
                },
                "spec": {
                    "nodeName": "node-1",
                    "readinessGates": [{"conditionType": GATE}],
                    "containers": [{"name": "app", "image": "none.invalid/app"}],
                },
            }
        )
        self.kubelet(name, address, gate=gate)
        return endpoint

    def kubelet(self, name: str, address: str, *, gate=None) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        conditions = [
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": now},
            {"type": "Ready", "status": "False", "lastTransitionTime": now},
        ]
        if gate is not None:
            conditions.append({"type": GATE, "status": str(gate), "lastTransitionTime": now})
        patch = {
            "status": {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "conditions": conditions,
            }
        }
        result = self.api.kubectl(
            "patch",
            "pod",
            name,
            "-n",
            self.namespace,
            "--subresource=status",
            "-p",
            json.dumps(patch),
        )
        assert result.ok, result.err

    def gate(self, name: str) -> str:
        pod = self.get("pod", name)
        conditions = (pod.get("status") or {}).get("conditions") or []
        return next((c["status"] for c in conditions if c["type"] == GATE), "")

    def get(self, kind: str, name: str) -> dict:
        result = self.api.kubectl("get", kind, name, "-n", self.namespace, "-o", "json")
        return json.loads(result.out) if result.ok else {}

    def condition(self, name: str, kind: str) -> dict:
        status = self.get("ug", name).get("status") or {}
        return next((c for c in status.get("conditions") or () if c["type"] == kind), {})

    def events(self) -> list[dict]:
        result = self.api.kubectl("get", "events.events.k8s.io", "-n", self.namespace, "-o", "json")
        return json.loads(result.out)["items"]

    def reasons(self) -> set[str]:
        return {e["reason"] for e in self.events()}


@contextlib.contextmanager
def operator(api, *args: str, port: int | None = None):
    """A real operator process; yields it with `.metrics()`."""
    port = port or spare_ports(1)[0]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "upstream_guard.cli",
            "run",
            "--kubeconfig",
            str(api.kubeconfig),
            "--bind=127.0.0.1",
            f"--http-port={port}",
            "--no-webhook",
            *args,
        ],
        start_new_session=True,
    )

    def ask(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    process.ask = ask
    try:
        poll("the operator leads", lambda: "upstream_guard_leading 1.0" in ask("/metrics"), 40)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail("the operator did not stop within 15 s of SIGTERM")


@pytest.fixture(scope="module")
def api(apiserver):
    for crd in sorted(CRDS.glob("*.yaml")):
        if crd.name != "kustomization.yaml":
            apiserver.apply(crd.read_text())
    for name in ("upstream-guard-system",):
        apiserver.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    poll("the CRDs are served", lambda: apiserver.kubectl("get", "ug", "-A").ok)
    return apiserver


@pytest.fixture
def cluster(api, request):
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    made = Cluster(api, name)
    yield made
    api.kubectl("delete", "ug", "--all", "-n", name)
    api.kubectl("delete", "pods", "--all", "-n", name, "--force", "--grace-period=0")
    for endpoint in made.endpoints.values():
        endpoint.stop()


def test_admits_what_serves_and_ejects_what_refuses(api, cluster):
    cluster.service()
    cluster.guard()
    with operator(api):
        first, _, _ = (cluster.pod(name) for name in ("a", "b", "c"))
        for name in "abc":
            poll(f"{name} is admitted", lambda name=name: cluster.gate(name) == "True")
        first.stop()
        poll("a is ejected", lambda: cluster.gate("a") == "False", 5)
        assert cluster.gate("b") == cluster.gate("c") == "True"
        poll("the event", lambda: "EndpointEjected" in cluster.reasons())
        poll("Healthy=False", lambda: cluster.condition("shop", "Healthy").get("status") == "False")
        first.start()
        poll("a is restored", lambda: cluster.gate("a") == "True")
        poll("Healthy=True", lambda: cluster.condition("shop", "Healthy").get("status") == "True")
        assert cluster.condition("shop", "Accepted")["status"] == "True"


def test_never_empties_a_list(api, cluster):
    cluster.service()
    cluster.guard()
    with operator(api) as process:
        endpoints = [cluster.pod(name) for name in ("a", "b", "c", "d")]
        for name in "abcd":
            poll(f"{name} is admitted", lambda name=name: cluster.gate(name) == "True")
        for endpoint in endpoints:
            endpoint.stop()
        poll("all are seen failing", lambda: 'cause="refused"' in process.ask("/metrics"), 10)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert [cluster.gate(name) for name in "abcd"].count("True") >= 2
        poll("blindness is told", lambda: "OperatorBlind" in cluster.reasons())
        for endpoint in endpoints:
            endpoint.start()
        for name in "abcd":
            poll(f"{name} is back", lambda name=name: cluster.gate(name) == "True")


def test_keeps_a_refusing_newcomer_out_and_says_so(api, cluster):
    cluster.service()
    cluster.guard(upstreamList={"admitTimeout": "2s"})
    with operator(api):
        cluster.pod("a")
        cluster.pod("b")
        poll("a and b are admitted", lambda: cluster.gate("a") == cluster.gate("b") == "True")
        cluster.pod("new", serve=False)
        poll("it is told", lambda: "EndpointKeptOut" in cluster.reasons(), 10)
        assert cluster.gate("new") != "True"


def test_admits_unseen_where_nothing_was_ever_seen(api, cluster):
    cluster.service()
    cluster.guard(upstreamList={"admitTimeout": "2s"})
    with operator(api):
        cluster.pod("a", serve=False)
        poll("a is admitted all the same", lambda: cluster.gate("a") == "True", 10)
        poll("with an event", lambda: "AdmittedUnseen" in cluster.reasons())


def test_deleting_the_guard_frees_the_pods(api, cluster):
    cluster.service()
    cluster.guard(upstreamList={"admitTimeout": "10m"})
    with operator(api):
        cluster.pod("a", serve=False)
        cluster.pod("b", serve=False, gate=False)
        poll("the guard is known", lambda: cluster.condition("shop", "Accepted"))
        started = time.monotonic()
        assert api.kubectl("delete", "ug", "shop", "-n", cluster.namespace, "--timeout=5s").ok
        for name in "ab":
            poll(f"{name} is free", lambda name=name: cluster.gate(name) == "True", 5)
        assert time.monotonic() - started < 5


def test_frees_pods_whose_guard_went_while_nobody_looked(api, cluster):
    cluster.service()
    cluster.pod("a", serve=False, gate=False)
    with operator(api):
        poll("a is free", lambda: cluster.gate("a") == "True")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"targetRef": {"kind": "Service", "name": "nobody"}}, "ServiceNotFound"),
        (
            {"targetRef": {"kind": "Service", "name": "shop", "sectionName": "https"}},
            "PortNotFound",
        ),
    ],
)
def test_says_why_a_guard_is_not_accepted_once(api, cluster, spec, reason):
    cluster.service()
    cluster.guard(**spec)
    with operator(api):
        poll("the condition", lambda: cluster.condition("shop", "Accepted").get("reason") == reason)
        poll("the event", lambda: "GuardNotAccepted" in cluster.reasons())
    with operator(api):
        assert cluster.condition("shop", "Accepted")["status"] == "False"
        told = [e for e in cluster.events() if e["reason"] == "GuardNotAccepted"]
        assert len(told) == 1
        assert "series" not in told[0]


def test_the_older_of_two_guards_is_in_force(api, cluster):
    cluster.service()
    cluster.guard()
    with operator(api):
        poll("the first", lambda: cluster.condition("shop", "Accepted").get("status") == "True")
        time.sleep(1.1)  # creationTimestamp has whole seconds
        api.apply(
            {
                "apiVersion": "upstreamguard.io/v1alpha1",
                "kind": "UpstreamGuard",
                "metadata": {"name": "a-second", "namespace": cluster.namespace},
                "spec": {"targetRef": {"kind": "Service", "name": "shop"}},
            }
        )
        poll(
            "the second is told",
            lambda: cluster.condition("a-second", "Accepted").get("reason") == "Conflicted",
        )
        assert cluster.condition("shop", "Accepted")["status"] == "True"
        assert api.kubectl("delete", "ug", "shop", "-n", cluster.namespace).ok
        poll(
            "the second takes over",
            lambda: cluster.condition("a-second", "Accepted").get("status") == "True",
        )


def test_a_standby_takes_over_and_a_steady_cluster_gets_no_writes(api, cluster):
    cluster.service()
    cluster.guard()
    first, second = cluster.pod("a"), cluster.pod("b")
    (port,) = spare_ports(1)

    def metrics() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    with contextlib.ExitStack() as stack:
        leader = stack.enter_context(operator(api, "--identity=leader"))
        standby = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "upstream_guard.cli",
                "run",
                "--kubeconfig",
                str(api.kubeconfig),
                "--bind=127.0.0.1",
                f"--http-port={port}",
                "--no-webhook",
                "--identity=standby",
            ],
        )
        stack.callback(standby.wait, 15)
        stack.callback(standby.terminate)
        for name in "ab":
            poll(f"{name} is admitted", lambda name=name: cluster.gate(name) == "True")
        poll("the standby stands by", lambda: "upstream_guard_leading 0.0" in metrics(), 40)
        leader.send_signal(signal.SIGKILL)
        leader.wait()
        poll("the standby leads", lambda: "upstream_guard_leading 1.0" in metrics(), 20)
        first.stop()
        poll("the standby ejects", lambda: cluster.gate("a") == "False")
        first.start()
        poll("and restores", lambda: cluster.gate("a") == "True")
        poll("peace", lambda: cluster.condition("shop", "Healthy").get("status") == "True")
        before = _writes(metrics())
        end = time.monotonic() + 6
        while time.monotonic() < end:
            time.sleep(0.5)
        assert _writes(metrics()) == before
        assert second.server is not None


def _writes(text: str) -> dict[str, float]:
    """API writes by series, the Lease's left out."""
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("upstream_guard_api_writes_total") and "leases" not in line
    }


def deployment(namespace: str, port: int, replicas: int = 3) -> dict:
    """A Deployment that nobody controls; without probe and hook, so that each change loses requests."""
    app = {"name": "app", "image": "none.invalid/app", "ports": [{"containerPort": port}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {"containers": [app]},
            },
        },
    }


def complete(cluster) -> None:
    """The Deployment's status, as its controller writes it at the end of a rollout."""
    found = cluster.get("deployment", "shop")
    wanted = found["spec"]["replicas"]
    numbers = {"replicas": wanted, "updatedReplicas": wanted, "availableReplicas": wanted}
    status = {"observedGeneration": found["metadata"]["generation"], **numbers}
    status["readyReplicas"] = wanted
    result = cluster.api.kubectl(
        "patch", "deployment", "shop", "-n", cluster.namespace,
        "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}),
    )  # fmt: skip
    assert result.ok, result.err


def predictions(cluster) -> list[dict]:
    return (cluster.get("ug", "shop").get("status") or {}).get("predictions") or []


@pytest.mark.parametrize(
    ("command", "change", "action"),
    [
        (("rollout", "restart", "deployment/shop"), "rollout", "PredictRollout"),
        (("scale", "deployment/shop", "--replicas=1"), "scale-in", "PredictScaleIn"),
    ],
)
def test_a_change_is_told_from_its_spec(api, cluster, command, change, action, record_property):
    cluster.service()
    api.apply(deployment(cluster.namespace, cluster.port))
    complete(cluster)
    for name in "abc":
        cluster.pod(name)
    with operator(api):
        cluster.guard(upstreamList={"mode": "Observe"}, drain={"mode": "Off"})
        poll("the standing risks", lambda: "RisksFound" in cluster.reasons())
        poll("the review", lambda: (cluster.get("ug", "shop").get("status") or {}).get("risks"))
        assert cluster.condition("shop", "AtRisk")["status"] == "True"
        assert "WindowPredicted" not in cluster.reasons()

        result = api.kubectl("-n", cluster.namespace, *command)
        assert result.ok, result.err
        written = time.time()
        event = poll(
            "the event",
            lambda: next((e for e in cluster.events() if e["reason"] == "WindowPredicted"), None),
        )
        told = datetime.fromisoformat(event["eventTime"]).timestamp()
        record_property("seconds_after_kubectl_returned", round(told - written, 3))
        print(f"{change}: told {told - written:+.3f} s after kubectl had returned")
        assert event["action"] == action
        assert event["related"]["name"] == "shop"
        # No pod has changed: nobody controls this Deployment.
        entry = poll("the status", lambda: predictions(cluster))[0]
        assert (entry["change"], entry["subject"]) == (change, "deployment/shop")
        assert entry["began"] <= entry["madeAt"]

        complete(cluster)
        poll("the end", lambda: not predictions(cluster))
        poll("the risks stay", lambda: (cluster.get("ug", "shop")["status"]).get("risks"))
        assert [e["reason"] for e in cluster.events()].count("WindowPredicted") == 1
