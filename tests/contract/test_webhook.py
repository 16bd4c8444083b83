"""The webhook as an API server meets it: a real operator with exactly the rights of `deploy/`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from upstream_guard.core.names import (
    ANNOTATION_INJECTED,
    GATE,
    OPERATOR_NAMESPACE,
    SERVICE_ACCOUNT,
    WEBHOOK_SECRET,
)
from upstream_guard.lab.ports import spare_ports

ROOT = Path(__file__).parents[2]
SECONDS = 40


def poll(what, check, seconds=SECONDS):
    """The first true value of `check()`."""
    deadline = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def server(own_apiserver):
    own_apiserver.install(ROOT / "deploy")
    for name in ("shop", "other"):
        own_apiserver.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        own_apiserver.apply(service(name))
    own_apiserver.apply(guard())
    return own_apiserver


def service(namespace):
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": {"selector": {"app": "shop"}, "ports": ports},
    }


def guard(**spec):
    return {
        "apiVersion": "upstreamguard.io/v1alpha1",
        "kind": "UpstreamGuard",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"targetRef": {"kind": "Service", "name": "shop"}, **spec},
    }


def create(server, namespace="shop", app="shop", part_of="shop", **spec):
    """A pod as it comes out of admission; nothing is stored."""
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "new",
            "namespace": namespace,
            "labels": {"app": app, "app.kubernetes.io/part-of": part_of},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "shop:1"}],
            **spec,
        },
    }
    result = server.kubectl(
        *("create", "--dry-run=server", "-o", "json", "-f", "-"), stdin=json.dumps(body)
    )
    assert result.ok, result.err
    return json.loads(result.out)


def gated(pod):
    return {"conditionType": GATE} in pod["spec"].get("readinessGates", [])


@pytest.fixture(scope="module")
def account(server, tmp_path_factory):
    """A kubeconfig of the operator's ServiceAccount."""
    token = server.kubectl("create", "token", SERVICE_ACCOUNT, "-n", OPERATOR_NAMESPACE)
    assert token.ok, token.err
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.out.strip()}
    path = tmp_path_factory.mktemp("account") / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


class Operator:
    def __init__(self, process, http_port, log):
        self.process, self.http_port, self.log = process, http_port, log

    def ask(self, path):
        url = f"http://127.0.0.1:{self.http_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def running(account, tmp_path):
    http_port, webhook_port = spare_ports(2)
    log = tmp_path / "operator.log"
    command = [
        *(sys.executable, "-m", "upstream_guard.cli", "run", "--bind=127.0.0.1"),
        *(f"--http-port={http_port}", f"--webhook-port={webhook_port}"),
        "--webhook-host=127.0.0.1",
    ]
    environment = {
        **os.environ,
        "KUBECONFIG": str(account),
        "PYTHONPATH": str(ROOT / "operator"),
    }
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=out, env=environment)
    operator = Operator(process, http_port, log)
    try:
        poll(
            f"the operator leads:\n{log.read_text()}",
            lambda: "upstream_guard_leading 1.0" in operator.ask("/metrics"),
        )
        yield operator
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                operator.kill()


def test_pods_are_injected_while_it_lives_and_plain_when_it_is_dead(server, account, tmp_path):
    with running(account, tmp_path) as operator:
        pod = poll("a pod is injected", lambda: (p := create(server)) and gated(p) and p)
        sleep = pod["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert sleep >= 1
        assert pod["spec"]["terminationGracePeriodSeconds"] == 30 + sleep
        record = json.loads(pod["metadata"]["annotations"][ANNOTATION_INJECTED])
        assert record["preStop"]["sleepSeconds"] == sleep
        assert "shop/shop" in record["reason"]

        assert not gated(create(server, namespace="other")), "no guard there"
        assert not gated(create(server, app="bank")), "not selected by the guard's Service"
        assert not gated(create(server, hostNetwork=True))
        assert not gated(create(server, part_of="upstream-guard")), "the operator's own pods"
        short = create(server, terminationGracePeriodSeconds=0)
        assert short["spec"]["terminationGracePeriodSeconds"] >= sleep

        secret = server.kubectl("get", "secret", WEBHOOK_SECRET, "-n", OPERATOR_NAMESPACE)
        assert secret.ok, secret.err
        assert "forbidden" not in operator.log.read_text().lower()
        operator.kill()
        started = time.monotonic()
        assert not gated(create(server)), "nobody answers, so the pod is as its owner wrote it"
        assert time.monotonic() - started < 3
        first = configurations(server)

    with running(account, tmp_path):
        poll("a pod is injected again", lambda: gated(create(server)))
        second = configurations(server)
        assert bundle(first) == bundle(second), "the certificates outlive a process"
        guard_gone = server.kubectl("delete", "ug", "shop", "-n", "shop")
        assert guard_gone.ok, guard_gone.err
        poll("without guards no namespace matches", lambda: selected(server) == [NOWHERE])
        server.apply(guard())
        poll("and with one it does again", lambda: selected(server) == ["shop"])


NOWHERE = "none.upstream-guard.invalid"


def configurations(server):
    result = server.kubectl("get", "mutatingwebhookconfiguration", "upstream-guard", "-o", "json")
    return json.loads(result.out)["webhooks"][0]


def bundle(webhook):
    return webhook["clientConfig"]["caBundle"]


def selected(server):
    return configurations(server)["namespaceSelector"]["matchExpressions"][0]["values"]
