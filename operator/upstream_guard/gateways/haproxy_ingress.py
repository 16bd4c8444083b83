"""jcmoraisjr's HAProxy Ingress: 200 ms of quiet, and 2 s between updates."""

from collections.abc import Iterator

from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways import haproxy_stats
from upstream_guard.gateways.adapter import Known, PodSigns
from upstream_guard.gateways.families import HAPROXY, HAPROXY_PAGES
from upstream_guard.gateways.profile import Profile

BEHAVIOUR = Behaviour(
    answers=HAPROXY,
    # Half of the idle connections are closed every 5 s (`pool-purge-delay`); the rest live longer.
    keepalive_idle=5.0,
    # Its error files have no `Server` header, and it leaves the app\'s alone.
    bare_pages=True,
    pages=HAPROXY_PAGES,
    # timeout-connect and timeout-server (documentation).
    connect_timeout=5.0,
    read_timeout=50.0,
)


def _names(known: Known) -> Iterator[str]:
    """Its code for Ingresses; what Gateways lead to goes by its addresses."""
    for port in known.ports:
        yield f"{known.service.namespace}_{known.service.name}_{port.target}"


ADAPTER = haproxy_stats.adapter(
    _names,
    PodSigns(
        labels=({"run": "haproxy-ingress"}, {"app.kubernetes.io/name": "haproxy-ingress"}),
        port=9101,
        admin_port=1936,
    ),
)

PROFILE = Profile(
    controller="haproxy-ingress",
    detach_seconds=2.2,
    attach_seconds=2.2,
    evidence=Evidence.BUILTIN,
    source="HAProxy Ingress's code: waits 200 ms, and 2 s between updates; not measured",
    bad_statuses=(502, 503, 504),
    ingress_controllers=("haproxy-ingress.github.io/*",),
    gateway_controllers=("haproxy-ingress.github.io/*",),
    behaviour=BEHAVIOUR,
    adapter=ADAPTER,
)
