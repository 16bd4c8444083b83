"""The operator's process with a guard of external upstreams: real DNS, real probes, a private API server.

The API server refuses slices of loopback addresses, so the upstreams listen on this machine's own address.
"""

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from upstream_guard.lab.nameserver import Fault, Nameserver

CRDS = Path(__file__).parents[2] / "crds"


def poll(what, condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return found


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return probe.getsockname()[0]


class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


class Upstream:
    """A server on this machine's address."""

    def __init__(self, address: str) -> None:
        self._server = http.server.ThreadingHTTPServer((address, 0), Quiet)
        self.address, self.port = self._server.server_address[:2]
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def start(self) -> None:
        self._server = http.server.ThreadingHTTPServer((self.address, self.port), Quiet)
        self._serve()


@contextlib.contextmanager
def operator(api, server, *args):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "upstream_guard.cli",
            "run",
            f"--kubeconfig={api.kubeconfig}",
            "--bind=127.0.0.1",
            f"--http-port={port}",
            "--no-webhook",
            "--dns-server={}:{}".format(*server.address),
            *args,
        ],
        start_new_session=True,
    )

    def metrics() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    try:
        poll("the operator leads", lambda: "upstream_guard_leading 1.0" in metrics(), 40)
        yield metrics
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def api(apiserver):
    for crd in sorted(CRDS.glob("*.yaml")):
        if crd.name != "kustomization.yaml":
            apiserver.apply(crd.read_text())
    apiserver.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "upstream-guard-system"}}
    )
    poll("the CRDs are served", lambda: apiserver.kubectl("get", "ug", "-A").ok)
    return apiserver


class Scene:
    """A namespace with a Service without selector, and two upstreams behind one name."""

    def __init__(self, api, namespace, server, upstreams):
        self.api, self.namespace, self.server, self.upstreams = api, namespace, server, upstreams
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        metadata = {"name": "pay", "namespace": namespace}
        ports = [{"name": "http", "port": 80, "appProtocol": "http"}]
        api.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}}
        )
        hosts = [{"host": "api.example.com", "port": u.port} for u in upstreams]
        api.apply(
            {
                "apiVersion": "upstreamguard.io/v1alpha1",
                "kind": "UpstreamGuard",
                "metadata": metadata,
                "spec": {
                    "targetRef": {"name": "pay"},
                    "upstreams": hosts,
                    "probe": {"interval": "200ms"},
                },
            }
        )

    def get(self, *what):
        result = self.api.kubectl("get", *what, "-n", self.namespace, "-o", "json")
        return json.loads(result.out) if result.ok else {}

    def slices(self):
        return self.get("endpointslices").get("items", [])

    def ready(self):
        """By port, whether its one endpoint is ready."""
        return {
            s["ports"][0]["port"]: s["endpoints"][0]["conditions"]["ready"] for s in self.slices()
        }

    def versions(self):
        return {s["metadata"]["name"]: s["metadata"]["resourceVersion"] for s in self.slices()}

    def reasons(self):
        return {e["reason"] for e in self.get("events.events.k8s.io").get("items", [])}

    def condition(self, kind):
        status = self.get("ug", "pay").get("status") or {}
        return next((c["reason"] for c in status.get("conditions", ()) if c["type"] == kind), "")


@pytest.fixture
def scene(api, request):
    address = own_address()
    if not address or address.startswith("127."):
        pytest.skip("this machine has no address besides loopback, which no slice may hold")
    name = f"{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())[:40]}-{os.getpid()}"
    upstreams = [Upstream(address), Upstream(address)]
    with Nameserver({"api.example.com": {"A": [address]}}, ttl=1) as server:
        made = Scene(api, name, server, upstreams)
        made.allowed = (
            "--allow-upstream-names=*.example.com",
            f"--allow-upstream-ranges={address}/32",
        )
        yield made
        api.kubectl("delete", "ug,svc,endpointslices", "--all", "-n", name)
    for upstream in upstreams:
        upstream.stop()


def test_upstreams_are_published_ejected_and_restored(api, scene):
    first, second = scene.upstreams
    both = {first.port: True, second.port: True}
    with operator(api, scene.server, *scene.allowed) as metrics:
        poll("both are listed", lambda: scene.ready() == both)
        for item in scene.slices():
            metadata = item["metadata"]
            assert metadata["name"].startswith("pay-external-ipv4-")
            assert metadata["labels"] == {
                "endpointslice.kubernetes.io/managed-by": "upstream-guard",
                "kubernetes.io/service-name": "pay",
            }
            (owner,) = metadata["ownerReferences"]
            assert owner["uid"] == scene.get("ug", "pay")["metadata"]["uid"]
            assert item["ports"] == [
                {
                    "name": "http",
                    "port": item["ports"][0]["port"],
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ]
        poll("all is well", lambda: scene.condition("Healthy") == "AllServing")
        first.stop()
        poll("it is ejected", lambda: scene.ready() == both | {first.port: False}, 5)
        poll("and told", lambda: "EndpointEjected" in scene.reasons())
        first.start()
        poll("it is restored", lambda: scene.ready() == both, 5)
        versions, asked = scene.versions(), len(scene.server.asked)
        poll("DNS is asked on", lambda: len(scene.server.asked) > asked + 4)
        assert scene.versions() == versions
        assert 'upstream_guard_dns_lookups_total{result="answer"}' in metrics()


def test_dns_may_go_and_the_operator_after_it(api, scene):
    both = {u.port: True for u in scene.upstreams}
    with operator(api, scene.server, *scene.allowed) as metrics:
        poll("both are listed", lambda: scene.ready() == both)
        versions = scene.versions()
        scene.server.stop()
        poll("it is told", lambda: "UpstreamUnresolved" in scene.reasons())
        poll("in status", lambda: scene.condition("AtRisk") == "LastKnownGood")
        assert "upstream_guard_dns_last_known_good{" in metrics()
    # A controller that starts while DNS is away goes on from what was published.
    with operator(api, scene.server, *scene.allowed):
        scene.upstreams[0].stop()
        poll("it ejects", lambda: scene.ready()[scene.upstreams[0].port] is False, 10)
        scene.upstreams[0].start()
        poll("it restores", lambda: scene.ready() == both, 10)
        scene.server.start()
        scene.server.fault = Fault.NONE
        poll("it is told", lambda: "UpstreamResolved" in scene.reasons())
    assert scene.versions().keys() == versions.keys()


def test_nothing_is_published_that_no_administrator_allows(api, scene):
    with operator(api, scene.server):
        poll("it is told", lambda: "UpstreamRefused" in scene.reasons())
        poll("in status", lambda: scene.condition("Programmed") == "NotAllowed")
        assert scene.slices() == []
        asked = {name for name, _, _ in scene.server.asked}
        assert asked <= {"kubernetes.default.svc.cluster.local"}, "whether it is the cluster's DNS"


@pytest.mark.parametrize(
    "flag",
    [
        "--allow-upstream-names=https://example.com",
        "--allow-upstream-ranges=example.com",
        "--cluster-ranges=10.0.0.1/8",
        "--dns-server=dns.example.com",
    ],
)
def test_a_flag_that_cannot_work_is_said_at_once(flag):
    command = [sys.executable, "-m", "upstream_guard.cli", "run", flag]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "Invalid value" in done.stderr
    assert "Traceback" not in done.stderr
