"""Each remedy, applied to the manifests, ends its finding; applied again, it changes nothing."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from upstream_guard.cli.check.patching import applied
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.rules import inspect
from upstream_guard.core.predict.state import AppFacts, Shutdown
from upstream_guard.core.predict.window import Finding, PatchKind, Remedy
from upstream_guard.core.tuning import Evidence, GatewayKind
from upstream_guard.gateways import PROFILES
from upstream_guard.gateways.behaviour import model_of
from upstream_guard.resources.manifests import read_world

Json = dict[str, Any]
Objects = dict[str, Json]
"""Manifests by kind: there is one of each."""

LABELS = {"app": "shop"}
GATEWAYS: tuple[Gateway, ...] = (
    model_of(PROFILES["ingress-nginx"].facts("nginx", GatewayKind.INGRESS_CLASS)),
    model_of(PROFILES["contour"].facts("edge/public", GatewayKind.GATEWAY)),
)
START = Estimate(0.9, 1.0, 1.1, Evidence.MEASURED, "seen")


def facts(**app: Any) -> Facts:
    return Facts(app=AppFacts(start=START, **app))


def seconds(value: float) -> Estimate:
    return Estimate.exactly(value, Evidence.MEASURED)


def named(kind: str, api: str, spec: Json) -> Json:
    metadata = {"name": "shop", "namespace": "prod"}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}


def sound() -> Objects:
    container = {
        "name": "app",
        "image": "example.org/shop:1",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/alive", "port": "http"}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 10}}},
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": LABELS},
    }
    pods = {
        "containers": [container],
        "terminationGracePeriodSeconds": 60,
        "topologySpreadConstraints": [spread],
    }
    ingress_port = {"service": {"name": "shop", "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": ingress_port}
    return {
        "Deployment": named(
            "Deployment",
            "apps/v1",
            {
                "replicas": 2,
                "selector": {"matchLabels": LABELS},
                "template": {"metadata": {"labels": LABELS}, "spec": pods},
            },
        ),
        "Service": named(
            "Service",
            "v1",
            {"selector": LABELS, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        ),
        "Ingress": named(
            "Ingress",
            "networking.k8s.io/v1",
            {"ingressClassName": "nginx", "rules": [{"http": {"paths": [path]}}]},
        ),
        "PodDisruptionBudget": named(
            "PodDisruptionBudget",
            "policy/v1",
            {"maxUnavailable": 1, "selector": {"matchLabels": LABELS}},
        ),
    }


def autoscaler(least: int, most: int) -> Json:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
    spec = {"scaleTargetRef": target, "minReplicas": least, "maxReplicas": most}
    return named("HorizontalPodAutoscaler", "autoscaling/v2", spec)


def http_route(namespace: str) -> Json:
    backend = {"name": "shop", "namespace": "prod", "port": 80}
    spec = {
        "parentRefs": [{"name": "public", "namespace": "edge"}],
        "rules": [{"backendRefs": [backend]}],
    }
    route = named("HTTPRoute", "gateway.networking.k8s.io/v1", spec)
    route["metadata"]["namespace"] = namespace
    return route


def policy(*ingress: Json) -> Json:
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": list(ingress)}
    return named("NetworkPolicy", "networking.k8s.io/v1", spec)


def deployment(objects: Objects) -> Json:
    spec: Json = objects["Deployment"]["spec"]
    return spec


def pods(objects: Objects) -> Json:
    spec: Json = deployment(objects)["template"]["spec"]
    return spec


def app(objects: Objects) -> Json:
    first: Json = pods(objects)["containers"][0]
    return first


def service_port(objects: Objects) -> Json:
    first: Json = objects["Service"]["spec"]["ports"][0]
    return first


def backend(objects: Objects) -> Json:
    rule = objects["Ingress"]["spec"]["rules"][0]
    found: Json = rule["http"]["paths"][0]["backend"]["service"]
    return found


def pre_stop(**hook: Any) -> Json:
    return {"lifecycle": {"preStop": hook}}


def tls_probe() -> Json:
    action = {"path": "/ready", "port": "http", "scheme": "HTTPS"}
    return {"httpGet": action, "periodSeconds": 1}


Spoil = Callable[[Objects], object]
SPOILT: list[tuple[str, Spoil]] = [
    ("no-readiness-probe", lambda o: app(o).pop("readinessProbe")),
    (
        "readiness-probe-elsewhere",
        lambda o: app(o).update(readinessProbe={"tcpSocket": {"port": 9000}}),
    ),
    (
        "readiness-probe-elsewhere",
        lambda o: app(o).update(readinessProbe={"tcpSocket": {"port": "web"}}),
    ),
    (
        "ready-before-serving",
        lambda o: o["Service"]["spec"].update(publishNotReadyAddresses=True),
    ),
    (
        "ready-before-serving",
        lambda o: app(o).update(readinessProbe={"exec": {"command": ["true"]}}),
    ),
    (
        "readiness-equals-liveness",
        lambda o: app(o).update(livenessProbe=app(o)["readinessProbe"]),
    ),
    ("no-pre-stop", lambda o: app(o).pop("lifecycle")),
    ("pre-stop-too-short", lambda o: app(o).update(pre_stop(sleep={"seconds": 1}))),
    (
        "pre-stop-too-short",
        lambda o: app(o).update(pre_stop(exec={"command": ["sh", "-c", "sleep 1; nginx -s quit"]})),
    ),
    ("pre-stop-exceeds-grace", lambda o: pods(o).update(terminationGracePeriodSeconds=10)),
    ("pre-stop-exceeds-grace", lambda o: app(o).update(pre_stop(sleep={"seconds": 90}))),
    ("grace-shorter-than-drain", lambda o: pods(o).update(terminationGracePeriodSeconds=0)),
    ("sigterm-ignored", lambda o: app(o).update(command=["sh", "-c", "cd /srv && ./serve"])),
    (
        "sidecar-order",
        lambda o: pods(o)["containers"].append({"name": "envoy", "image": "envoy:1"}),
    ),
    ("recreate-strategy", lambda o: deployment(o).update(strategy={"type": "Recreate"})),
    (
        "max-unavailable",
        lambda o: deployment(o).update(
            strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}}
        ),
    ),
    ("single-replica", lambda o: deployment(o).update(replicas=1)),
    ("single-replica", lambda o: o.update(Autoscaler=autoscaler(1, 4))),
    ("no-replicas", lambda o: deployment(o).update(replicas=0)),
    ("no-disruption-budget", lambda o: o.pop("PodDisruptionBudget")),
    (
        "disruption-budget-blocks",
        lambda o: o["PodDisruptionBudget"]["spec"].update(maxUnavailable=0),
    ),
    (
        "disruption-budget-useless",
        lambda o: o["PodDisruptionBudget"]["spec"].update(maxUnavailable="100%"),
    ),
    (
        "autoscaler-below-budget",
        lambda o: (
            o["PodDisruptionBudget"]["spec"].update(maxUnavailable=None, minAvailable=2),
            o.update(Autoscaler=autoscaler(2, 8)),
        ),
    ),
    ("one-node", lambda o: pods(o).pop("topologySpreadConstraints")),
    ("named-port-mismatch", lambda o: service_port(o).update(targetPort="web")),
    ("target-port-unserved", lambda o: service_port(o).update(targetPort=9000)),
    ("selector-matches-nothing", lambda o: o["Service"]["spec"].update(selector={"app": "store"})),
    ("route-to-nowhere", lambda o: backend(o).update(port={"number": 8080})),
    ("route-to-nowhere", lambda o: backend(o).update(port={"name": "web"})),
    ("missing-reference-grant", lambda o: o.update(HTTPRoute=http_route("web"))),
    ("protocol-mismatch", lambda o: app(o).update(readinessProbe=tls_probe())),
    ("policy-blocks-gateway", lambda o: o.update(NetworkPolicy=policy())),
    (
        "policy-blocks-gateway",
        lambda o: o.update(NetworkPolicy=policy({"from": [{"podSelector": {}}]})),
    ),
    ("keepalive-race", lambda o: app(o).update(command=["uvicorn", "shop:app"])),
    (
        "quota-blocks-surge",
        lambda o: o.update(Quota=named("ResourceQuota", "v1", {"hard": {"pods": "2"}})),
    ),
]


def findings(objects: Objects, known: Facts) -> list[Finding]:
    (state,) = read_world(objects.values()).states
    return list(inspect(state, GATEWAYS, known))


def mended(objects: Objects, remedy: Remedy) -> Objects:
    """The manifests with a remedy; what it makes anew is added."""
    if remedy.patch_kind is PatchKind.CREATE:
        return {**objects, f"new {remedy.kind}": applied({}, remedy)}
    key = next(
        key
        for key, obj in objects.items()
        if obj["kind"] == remedy.kind
        and obj["metadata"]["name"] == remedy.ref.name
        and obj["metadata"]["namespace"] == remedy.ref.namespace
    )
    return {**objects, key: applied(objects[key], remedy)}


def assert_mended(objects: Objects, risk: str, known: Facts) -> None:
    found = [finding for finding in findings(objects, known) if finding.risk == risk]
    assert found
    for finding in found:
        assert finding.remedy is not None, finding.no_remedy
        after = mended(objects, finding.remedy)
        assert mended(after, finding.remedy) == after
        objects = after
    assert risk not in {finding.risk for finding in findings(objects, known)}


def test_the_sound_manifests_have_no_findings() -> None:
    assert findings(sound(), facts()) == []


@pytest.mark.parametrize(
    ("risk", "spoil"), SPOILT, ids=[f"{n}-{risk}" for n, (risk, _) in enumerate(SPOILT)]
)
def test_remedies_mend_what_is_wrong(risk: str, spoil: Spoil) -> None:
    objects = copy.deepcopy(sound())
    spoil(objects)
    assert_mended(objects, risk, facts())


@pytest.mark.parametrize(
    ("risk", "app_facts"),
    [
        ("grace-shorter-than-drain", {"drain": seconds(55.0)}),
        ("sigterm-drops-requests", {"shutdown": Shutdown.EXITS, "response": seconds(9.0)}),
        ("ready-before-serving", {"readiness_lies": seconds(1.0)}),
        ("gateway-timeout", {"slow_response": seconds(70.0)}),
    ],
)
def test_remedies_follow_what_is_known_of_the_app(risk: str, app_facts: dict[str, Any]) -> None:
    objects = sound()
    if risk == "gateway-timeout":
        objects["HTTPRoute"] = http_route("prod")
    assert_mended(objects, risk, facts(**app_facts))
