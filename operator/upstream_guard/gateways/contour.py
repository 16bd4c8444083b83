"""Contour with Envoy: sends endpoints to Envoy at once, ready ones only."""

from collections.abc import Iterator

from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import MEASURED_MARGIN, Evidence
from upstream_guard.gateways import envoy_stats
from upstream_guard.gateways.adapter import Known, PodSigns
from upstream_guard.gateways.families import ENVOY, ENVOY_PAGES
from upstream_guard.gateways.profile import Profile

_MEASURED = "Contour 1.33 with Envoy, measured on Kubernetes 1.35"

BEHAVIOUR = Behaviour(
    answers=ENVOY,
    pages=ENVOY_PAGES,
    # Envoy's documentation: idle connections are closed after an hour.
    keepalive_idle=3600.0,
    # Contour's documentation: 2 s, and Envoy's 15 s for a response.
    connect_timeout=2.0,
    read_timeout=15.0,
)


def _names(known: Known) -> Iterator[str]:
    """Contour's code (`AltStatName`), and seen in the lab; `_` is in no name of Kubernetes."""
    for port in known.ports:
        yield f"{known.service.namespace}_{known.service.name}_{port.number}"


ADAPTER = envoy_stats.adapter(
    _names,
    PodSigns(
        # Of its example manifests, its provisioner and Bitnami's chart.
        labels=(
            {"app": "envoy"},
            {"app.kubernetes.io/name": "contour", "app.kubernetes.io/component": "envoy"},
        ),
        port=8002,
        path="/stats/prometheus",
        gateway_label="projectcontour.io/owning-gateway-name",
    ),
)

PROFILE = Profile(
    controller="contour",
    detach_seconds=0.03,
    attach_seconds=0.075,
    evidence=Evidence.BUILTIN,
    source=(f"{_MEASURED}: 0.03 s at most, also right after another endpoint change"),
    # Envoy says 503 for what others call 502, 502 for protocol errors.
    bad_statuses=(502, 503, 504),
    ingress_controllers=("projectcontour.io/*",),
    ingress_classes=("contour",),
    gateway_controllers=("projectcontour.io/*",),
    margin_seconds=MEASURED_MARGIN,
    behaviour=BEHAVIOUR,
    adapter=ADAPTER,
    detach=Estimate(0.002, 0.005, 0.03, Evidence.BUILTIN, f"{_MEASURED}: 0.005 s, 0.03 s at most"),
    attach=Estimate(
        0.017, 0.025, 0.075, Evidence.BUILTIN, f"{_MEASURED}: 0.025 s, 0.075 s at most"
    ),
)
