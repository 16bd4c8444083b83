"""What is deployed in each variant, as manifests. Pure.

All three run the same app with the same settings; they differ only in what a team has to know.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from upstream_guard.core import names

Json = dict[str, Any]

IMAGE: Final = "upstream-guard.local/upstream:dev"
SERVERS_IMAGE: Final = "upstream-guard.local/servers:dev"
"""Of the samples that are not Go."""
APP_PORT: Final = 8080
CONTROL_PORT: Final = 8081
"""Where the sample takes commands, out of the traffic's way."""
HEALTH_PATH: Final = "/healthz"
APP_LABEL: Final = "app.kubernetes.io/name"

TUNED_PERIOD_SECONDS: Final = 1
TUNED_PRE_STOP_SECONDS: Final = 5
DEFAULT_GRACE_SECONDS: Final = 30
"""What Kubernetes gives a pod that says nothing."""
APP_SECONDS: Final = 10
"""What is left for the app where a hook would use up the default grace period."""


@dataclass(frozen=True, slots=True)
class App:
    """A server of the samples, run with the settings that it comes with.

    Attributes:
        name: What users call it.
        image: It is in there.
        args: Which of the image's servers.
        env: What it is told beside, by name.
        obeys: Whether it fails on command, and tells how it is.
    """

    name: str
    image: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    obeys: bool = False


GO: Final = App("go", IMAGE, obeys=True)
GO_GRACEFUL: Final = App("go-graceful", IMAGE, env=(("FAULT", "graceful"),), obeys=True)
"""As Go is meant to be written: on SIGTERM `http.Server.Shutdown`, which closes idle connections and finishes requests."""
APPS: Final[Mapping[str, App]] = {
    app.name: app
    for app in (
        GO,
        GO_GRACEFUL,
        *(App(name, SERVERS_IMAGE, (name,)) for name in ("node", "gunicorn", "uvicorn")),
    )
}


class Variant(StrEnum):
    """How a service is protected."""

    PLAIN = "plain"
    """No readiness probe, no hook."""
    TUNED = "tuned"
    """What a careful team writes today: a readiness probe each second, preStop sleep 5."""
    GUARDED = "guarded"
    """`PLAIN` and an UpstreamGuard."""


def deployment(
    variant: Variant,
    *,
    namespace: str,
    name: str,
    replicas: int,
    start_delay: float,
    app: App = GO,
    hook: int = TUNED_PRE_STOP_SECONDS,
) -> Json:
    """The Deployment of one run.

    Args:
        variant: what the pods carry of their own.
        namespace: where.
        name: of the Deployment, and the value of its pods' name label.
        replicas: how many pods.
        start_delay: seconds from process start until the app listens.
        app: which server.
        hook: whole seconds of the preStop sleep of `Variant.TUNED`; 0 is none.
    """
    labels = {APP_LABEL: name}
    container: Json = {
        "name": "app",
        "image": app.image,
        **({"args": list(app.args)} if app.args else {}),
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": APP_PORT}],
        "env": [
            {"name": "START_DELAY_SECONDS", "value": f"{start_delay:g}"},
            *({"name": key, "value": value} for key, value in app.env),
        ],
    }
    if variant is Variant.TUNED:
        container["readinessProbe"] = {
            "httpGet": {"path": HEALTH_PATH, "port": "http"},
            "periodSeconds": TUNED_PERIOD_SECONDS,
        }
        if hook:
            container["lifecycle"] = {"preStop": {"sleep": {"seconds": hook}}}
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
                "spec": {
                    "containers": [container],
                    "topologySpreadConstraints": [spread],
                    **_grace(variant, hook),
                },
            },
        },
    }


def _grace(variant: Variant, hook: int) -> Json:
    """A grace period of its own only where a hook would leave the app none of the default."""
    needed = hook + APP_SECONDS
    if variant is not Variant.TUNED or needed <= DEFAULT_GRACE_SECONDS:
        return {}
    return {"terminationGracePeriodSeconds": needed}


def pre_stop(pods: Iterable[Json]) -> float:
    """The shortest preStop sleep that these pods carry, seconds; 0 where one has none."""
    return min(
        (_sleep(container) for pod in pods for container in pod["spec"]["containers"]), default=0.0
    )


def _sleep(container: Json) -> float:
    hook = (container.get("lifecycle") or {}).get("preStop") or {}
    return float((hook.get("sleep") or {}).get("seconds", 0))


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
