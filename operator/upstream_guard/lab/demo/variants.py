"""What is deployed in each variant, as manifests. Pure.

All three run the same app with the same settings; they differ only in what a team has to know.
"""

from enum import StrEnum
from typing import Any, Final

from upstream_guard.core import names

Json = dict[str, Any]

IMAGE: Final = "upstream-guard.local/upstream:dev"
APP_PORT: Final = 8080
CONTROL_PORT: Final = 8081
"""Where the sample takes commands, out of the traffic's way."""
HEALTH_PATH: Final = "/healthz"
APP_LABEL: Final = "app.kubernetes.io/name"

TUNED_PERIOD_SECONDS: Final = 1
TUNED_PRE_STOP_SECONDS: Final = 5


class Variant(StrEnum):
    """How a service is protected."""

    PLAIN = "plain"
    """No readiness probe, no hook."""
    TUNED = "tuned"
    """What a careful team writes today: a readiness probe each second, preStop sleep 5."""
    GUARDED = "guarded"
    """`PLAIN` and an UpstreamGuard."""


def deployment(
    variant: Variant, *, namespace: str, name: str, replicas: int, start_delay: float
) -> Json:
    """The Deployment of one run.

    Args:
        variant: what the pods carry of their own.
        namespace: where.
        name: of the Deployment, and the value of its pods' name label.
        replicas: how many pods.
        start_delay: seconds from process start until the app listens.
    """
    labels = {APP_LABEL: name}
    container: Json = {
        "name": "app",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": APP_PORT}],
        "env": [{"name": "START_DELAY_SECONDS", "value": f"{start_delay:g}"}],
    }
    if variant is Variant.TUNED:
        container["readinessProbe"] = {
            "httpGet": {"path": HEALTH_PATH, "port": "http"},
            "periodSeconds": TUNED_PERIOD_SECONDS,
        }
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": TUNED_PRE_STOP_SECONDS}}}
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "topologySpreadConstraints": [spread]},
            },
        },
    }


def service(*, namespace: str, name: str) -> Json:
    """The Service in front of the Deployment of the same name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {APP_LABEL: name}},
        "spec": {
            "selector": {APP_LABEL: name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def guard(*, namespace: str, name: str) -> Json:
    """The shortest guard there is: everything but the target has a default."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.GUARD_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"targetRef": {"kind": "Service", "name": name}},
    }


def onlooker(*, namespace: str, name: str) -> Json:
    """A guard under which nothing is changed: the operator probes, predicts, and says what it would do."""
    made = guard(namespace=namespace, name=name)
    made["spec"] |= {"upstreamList": {"mode": "Observe"}, "drain": {"mode": "Recommend"}}
    return made
