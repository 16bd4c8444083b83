"""A case as manifests: what is applied to the cluster, and what the predictor reads. Pure."""

from typing import Any, Final

from upstream_guard.core.predict.state import StrategyKind
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.matrix.cases import Case, Ending, Hook, Probe
from upstream_guard.lab.demo.variants import APP_LABEL, APP_PORT, CONTROL_PORT, HEALTH_PATH, IMAGE
from upstream_guard.lab.gateways import contour
from upstream_guard.lab.gateways.model import ServiceTarget

Json = dict[str, Any]

CONTROL_PATH: Final = "/state"
"""Answers on the sample's control port from the process's first moment."""
_ENDINGS: Final = {
    Ending.EXITS: "exit-on-sigterm",
    Ending.DRAINS: "graceful",
    Ending.REFUSES: "stop-listening-on-sigterm",
    Ending.LINGERS: "linger-on-sigterm",
    Ending.IGNORES: "ignore-sigterm",
}


def manifests(case: Case, *, namespace: str, name: str) -> list[Json]:
    """Everything that a user would have written: Deployment, Service, and the Ingress if any."""
    written = [
        deployment(case, namespace=namespace, name=name),
        variants.service(namespace=namespace, name=name),
    ]
    if case.gateway == contour.ADDON.name:
        written += [contour.ingress(ServiceTarget(namespace, name)), contour.ingress_class()]
    return written


def deployment(case: Case, *, namespace: str, name: str) -> Json:
    """The case's Deployment."""
    labels = {APP_LABEL: name}
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": case.grace,
            "containers": [_container(case)],
            "topologySpreadConstraints": [spread],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": case.replicas,
            "selector": {"matchLabels": labels},
            "strategy": _strategy(case),
            "template": template,
        },
    }


def _strategy(case: Case) -> Json:
    if case.recreates:
        return {"type": StrategyKind.RECREATE.value}
    numbers = {"maxSurge": case.surge, "maxUnavailable": case.unavailable}
    return {"type": StrategyKind.ROLLING.value, "rollingUpdate": numbers}


def _container(case: Case) -> Json:
    settings = {
        "START_DELAY_SECONDS": case.start,
        "RESPONSE_DELAY_SECONDS": case.response,
        "LIE_SECONDS": case.lie,
        "LINGER_SECONDS": case.linger,
    }
    env = [{"name": key, "value": f"{value:g}"} for key, value in settings.items()]
    container: Json = {
        "name": "app",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "ports": [
            {"name": "http", "containerPort": APP_PORT},
            {"name": "control", "containerPort": CONTROL_PORT},
        ],
        "env": [*env, {"name": "FAULT", "value": _ENDINGS[case.ending]}],
    }
    if case.probe is not Probe.NONE:
        container["readinessProbe"] = {**_asks(case.probe), "periodSeconds": case.period}
    if case.hook is not Hook.NONE:
        container["lifecycle"] = {"preStop": _hook(case)}
    return container


def _asks(probe: Probe) -> Json:
    if probe is Probe.TCP:
        return {"tcpSocket": {"port": "http"}}
    if probe is Probe.ELSEWHERE:
        return {"httpGet": {"path": CONTROL_PATH, "port": "control"}}
    return {"httpGet": {"path": HEALTH_PATH, "port": "http"}}


def _hook(case: Case) -> Json:
    if case.hook is Hook.SLEEP:
        return {"sleep": {"seconds": int(case.hook_seconds)}}
    return {"exec": {"command": ["sleep", f"{case.hook_seconds:g}"]}}
