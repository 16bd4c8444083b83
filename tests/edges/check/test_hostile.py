"""Any object, any field of any type: findings or a message, never a traceback."""

import copy
import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.cli.check.command import command
from upstream_guard.resources.manifests import PARSERS

LABELS = {"app": "a"}
POD = {
    "metadata": {"labels": LABELS, "annotations": {"x": "y"}},
    "spec": {
        "terminationGracePeriodSeconds": 30,
        "initContainers": [{"name": "i", "restartPolicy": "Always", "image": "i"}],
        "containers": [
            {
                "name": "c",
                "image": "c:1",
                "command": ["sh", "-c", "run"],
                "args": ["x"],
                "env": [{"name": "A", "value": "b"}],
                "envFrom": [{"configMapRef": {"name": "m"}}],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5},
                "livenessProbe": {"tcpSocket": {"port": 8080}, "failureThreshold": 1},
                "startupProbe": {"exec": {"command": ["true"]}},
                "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
                "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}},
            }
        ],
        "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 1}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}},
        "nodeSelector": {"kubernetes.io/hostname": "n"},
        "readinessGates": [{"conditionType": "upstreamguard.io/serving"}],
        "volumes": [{"name": "v", "configMap": {"name": "m"}}],
    },
}
META = {
    "name": "a",
    "namespace": "n",
    "labels": LABELS,
    "annotations": {"upstreamguard.io/ignore": "crash: x"},
}
SELECTOR = {
    "matchLabels": LABELS,
    "matchExpressions": [{"key": "app", "operator": "In", "values": ["a"]}],
}
BACKEND = {"service": {"name": "a", "port": {"number": 80}}}
OBJECTS: list[dict[str, Any]] = [
    {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": META, "spec": {
        "replicas": 2, "selector": SELECTOR, "template": POD, "minReadySeconds": 1, "progressDeadlineSeconds": 60,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}}},
    {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": META, "spec": {
        "replicas": 2, "selector": SELECTOR, "template": POD, "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}}}},
    {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": META, "spec": {"selector": SELECTOR, "template": POD}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": META, "spec": POD["spec"], "status": {
        "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"restartCount": 1}]}},
    {"apiVersion": "v1", "kind": "Service", "metadata": META, "spec": {
        "selector": LABELS, "type": "ClusterIP", "clusterIP": "10.0.0.1", "sessionAffinity": "ClientIP",
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "kubernetes.io/h2c"}]}},
    {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": META, "spec": {
        "ingressClassName": "nginx", "defaultBackend": BACKEND, "tls": [{"hosts": ["a"]}],
        "rules": [{"host": "a", "http": {"paths": [{"path": "/", "backend": BACKEND}]}}]}},
    {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "nginx"}, "spec": {
        "controller": "k8s.io/ingress-nginx"}},
    {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": META, "spec": {
        "parentRefs": [{"name": "g", "namespace": "n"}], "hostnames": ["a"], "rules": [{
            "timeouts": {"request": "5s"}, "backendRefs": [{"name": "a", "port": 80, "weight": 1, "namespace": "m"}]}]}},
    {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": META, "spec": {
        "gatewayClassName": "c"}},
    {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "c"}, "spec": {
        "controllerName": "projectcontour.io/x"}},
    {"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": META, "spec": {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "n"}],
        "to": [{"group": "", "kind": "Service", "name": "a"}]}},
    {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": META, "spec": {
        "minAvailable": "50%", "selector": SELECTOR}},
    {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": META, "spec": {
        "scaleTargetRef": {"kind": "Deployment", "name": "a"}, "minReplicas": 1, "maxReplicas": 5,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}},
    {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": META, "spec": {
        "podSelector": SELECTOR, "policyTypes": ["Ingress"], "ingress": [{
            "from": [{"podSelector": SELECTOR}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "ports": [{"port": 80, "endPort": 90}]}]}},
    {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": META, "spec": {"hard": {"pods": "3", "requests.cpu": "1"}},
     "status": {"used": {"pods": "3"}}},
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"unschedulable": True},
     "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
    {"apiVersion": "upstreamguard.io/v1alpha1", "kind": "UpstreamGuard", "metadata": META, "spec": {
        "targetRef": {"kind": "Service", "name": "a"}}},
]  # fmt: skip
STRANGE: tuple[object, ...] = (
    None, True, -1, 0, 10**30, 1e308, float("inf"), float("nan"), "", "x", "-5%", "1e9", "\x85\u2028\ud7ff", "a" * 5000,
    [], {}, [[]], [None], [1, "a"], {"a": None}, {"": {}}, [{}], [{"name": None}],
)  # fmt: skip


def places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Where something stands in an object."""
    if path:
        yield path
    entries = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in entries:
        yield from places(part, (*path, key))


def changed(value: Any, path: tuple[object, ...], new: object) -> Any:
    made = copy.deepcopy(value)
    target = made
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = new
    return made


def run(text: str, *args: str) -> None:
    result = CliRunner().invoke(command, ["-", *args], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in {0, 1, 2}
    assert "Traceback" not in result.output


def test_every_kind_is_in_the_set() -> None:
    read = {(o["apiVersion"].rpartition("/")[0], o["kind"]) for o in OBJECTS}
    assert read <= set(PARSERS)
    assert len(read) > 15


@pytest.mark.parametrize("index", range(len(OBJECTS)), ids=lambda index: OBJECTS[index]["kind"])
def test_strange_values_in_every_field(index: int) -> None:
    chance = random.Random(index)
    others = [o for n, o in enumerate(OBJECTS) if n != index]
    for path in places(OBJECTS[index]):
        strange = changed(OBJECTS[index], path, chance.choice(STRANGE))
        run(
            json.dumps({"apiVersion": "v1", "kind": "List", "items": [strange, *others]}),
            "-o",
            "json",
        )


picks = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 10_000), st.sampled_from(STRANGE)), max_size=8
)


@given(picks=picks, output=st.sampled_from(["table", "json", "sarif", "github", "junit", "fix"]))
def test_several_strange_values_at_once(picks: list[tuple[int, int, object]], output: str) -> None:
    objects = copy.deepcopy(OBJECTS)
    for which, where, new in picks:
        index = which % len(objects)
        found = list(places(objects[index]))
        if found:
            objects[index] = changed(objects[index], found[where % len(found)], new)
    text = yaml.safe_dump_all(objects)
    run(text, *(["--fix"] if output == "fix" else ["-o", output]))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(kind=st.sampled_from(sorted(PARSERS)), spec=values, metadata=values)
def test_random_specs(kind: tuple[str, str], spec: object, metadata: object) -> None:
    group, name = kind
    version = f"{group}/v1" if group else "v1"
    meta = metadata if metadata is not None else {"name": "a"}
    both = [
        {"apiVersion": version, "kind": name, "metadata": meta, "spec": spec},
        {"apiVersion": version, "kind": name, "metadata": {"name": "a"}, "spec": spec},
    ]
    run(yaml.safe_dump_all(both), "-o", "json")


@given(raw=st.binary(max_size=400))
def test_random_bytes(raw: bytes) -> None:
    result = CliRunner().invoke(command, ["-"], input=raw)
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_thousand_apps_behind_a_thousand_services_end() -> None:
    both = "".join(
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d{n}}}\nspec: {{selector: {{matchLabels: "
        "{a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}}\n---\n"
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: s{n}}}\nspec: {{selector: {{a: b}}, ports: [{{port: 80}}]}}\n---\n"
        for n in range(300)
    )
    begin = time.process_time()
    result = CliRunner().invoke(command, ["-", "-q", "--fail-on", "never"], input=both)
    assert result.exit_code == 0
    assert time.process_time() - begin < 30
    assert (
        "Service default/s0 has 300 workloads"
        in CliRunner().invoke(command, ["-"], input=both).stderr
    )
