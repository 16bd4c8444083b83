"""Istio's gateways: istiod waits for 100 ms of quiet, for 10 s at most, and drops terminating endpoints."""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from upstream_guard.core.evidence import Failure
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.adapter import Adapter, Directory, Known, PodSigns, Tally
from upstream_guard.gateways.families import CONNECT_FAILURES, ENVOY, ENVOY_PAGES, retrying
from upstream_guard.gateways.profile import Profile

if TYPE_CHECKING:  # it brings an HTTP server with it, which `check` has no use for
    from prometheus_client.samples import Sample

BEHAVIOUR = Behaviour(
    # Two retries by default, but not after a reset.
    answers=retrying(ENVOY, CONNECT_FAILURES),
    pages=ENVOY_PAGES,
    keepalive_idle=3600.0,
    # Documentation: 10 s to connect, no limit for a response.
    connect_timeout=10.0,
    read_timeout=math.inf,
    refused_retries=2,
)

_ANSWERS = "istio_requests_total"
_FLAGS = {
    # Envoy's response flags.
    "UF": Failure.CONNECT,
    "UC": Failure.RESPONSE,
    "UR": Failure.RESPONSE,
    "UPE": Failure.PROTOCOL,
    "UT": Failure.TIMEOUT,
    "UH": Failure.EMPTY,
    "UO": Failure.OVERFLOW,
    "URX": Failure.RETRY,
}


def _names(known: Known) -> Iterator[str]:
    yield str(known.service)


def _count(samples: Iterable["Sample"], directory: Directory, tally: Tally) -> None:
    """Istio's standard metrics (documentation; not run here).

    What the sidecars of other workloads report as destinations is left out, and so is what Envoy
    itself counts: a gateway does not show it by default.
    """
    for sample in samples:
        if sample.name != _ANSWERS:
            tally.uptime(sample.value)
            continue
        labels = sample.labels
        service = directory.by_name(
            str(
                ObjectRef(
                    labels.get("destination_service_namespace", ""),
                    labels.get("destination_service_name", ""),
                )
            )
        )
        if service is None or labels.get("reporter") != "source":
            continue
        tally.answered(service, labels.get("response_code", ""), sample.value)
        for flag in labels.get("response_flags", "").split(","):
            if flag in _FLAGS:
                tally.failed(service, _FLAGS[flag], sample.value)


ADAPTER = Adapter(
    label="destination_service_name",
    series=frozenset({_ANSWERS}),
    count=_count,
    process=frozenset({"envoy_server_uptime"}),
    names=_names,
    lookup=lambda known: (known.service.name,),
    pods=PodSigns(
        labels=({"istio": "ingressgateway"},),
        port=15020,
        path="/stats/prometheus",
        gateway_label="gateway.networking.k8s.io/gateway-name",
    ),
)

PROFILE = Profile(
    controller="istio",
    detach_seconds=10.0,
    attach_seconds=10.0,
    evidence=Evidence.BUILTIN,
    source=(
        "istiod's code: pushes after 100 ms of quiet and after 10 s at the latest, which a large "
        "rollout reaches; not measured"
    ),
    bad_statuses=(502, 503, 504),
    ingress_controllers=("istio.io/ingress-controller",),
    ingress_classes=("istio",),
    gateway_controllers=("istio.io/*",),
    behaviour=BEHAVIOUR,
    adapter=ADAPTER,
)
