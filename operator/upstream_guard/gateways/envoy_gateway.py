"""Envoy Gateway: sends every endpoint to Envoy, terminating ones as DRAINING."""

from collections.abc import Iterator

from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways import envoy_stats
from upstream_guard.gateways.adapter import Known, PodSigns
from upstream_guard.gateways.families import ENVOY, ENVOY_PAGES
from upstream_guard.gateways.profile import Profile

BEHAVIOUR = Behaviour(
    answers=ENVOY,
    pages=ENVOY_PAGES,
    keepalive_idle=3600.0,
    # Envoy's default for a response, measured.
    read_timeout=15.0,
    # Envoy gets every endpoint. With more than half of them unhealthy (terminating ones count as such)
    # its panic threshold makes it use all of them: inferred, not tested.
    reads_ready=False,
    serves_terminating=True,
)


def _names(known: Known) -> Iterator[str]:
    """Envoy Gateway's code: a cluster for each rule, or for each backend of it, or for a Service.

    A rule with several backends is one cluster, whose answers are nobody's in particular.
    """
    for route, index, backends in known.rules:
        rule = f"httproute/{route.namespace}/{route.name}/rule/{index}"
        if set(backends) == {known.service}:
            yield rule
        for place, backend in enumerate(backends):
            if backend == known.service:
                yield f"{rule}/backend/{place}"
    for port in known.ports:
        yield f"service/{known.service.namespace}/{known.service.name}/{port.number}"


ADAPTER = envoy_stats.adapter(
    _names,
    PodSigns(
        labels=(),
        port=19001,
        path="/stats/prometheus",
        gateway_label="gateway.envoyproxy.io/owning-gateway-name",
        gateway_namespace_label="gateway.envoyproxy.io/owning-gateway-namespace",
    ),
)

PROFILE = Profile(
    controller="envoy-gateway",
    detach_seconds=0.5,
    attach_seconds=0.5,
    evidence=Evidence.ASSUMED,
    source=(
        "no delay found in its code, 0.5 s assumed and not measured; users reported 30-120 s while "
        "hundreds of pods restarted (envoyproxy/gateway#7366)"
    ),
    bad_statuses=(502, 503, 504),
    gateway_controllers=("gateway.envoyproxy.io/*",),
    behaviour=BEHAVIOUR,
    adapter=ADAPTER,
)
