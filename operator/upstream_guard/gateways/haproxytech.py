"""HAProxy's own ingress controller: synchronises every 5 s."""

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
    # Of the configuration in its image.
    connect_timeout=5.0,
    read_timeout=50.0,
)


def _names(known: Known) -> Iterator[str]:
    """Its code (`GetBackendName`)."""
    for port in known.ports:
        yield f"{known.service.namespace}_svc_{known.service.name}_{port.name or port.number}"


ADAPTER = haproxy_stats.adapter(
    _names,
    PodSigns(
        # Of its manifests and of its chart.
        labels=({"run": "haproxy-ingress"}, {"app.kubernetes.io/name": "kubernetes-ingress"}),
        port=1024,
        # The statistics page is on the port of the metrics, without a password, addresses included.
        admin_port=1024,
    ),
)

PROFILE = Profile(
    controller="haproxytech",
    detach_seconds=5.0,
    attach_seconds=5.0,
    evidence=Evidence.BUILTIN,
    source="haproxytech's code: sync period 5 s; not measured",
    # HAProxy says 503 for a refused connection.
    bad_statuses=(502, 503, 504),
    ingress_controllers=("haproxy.org/ingress-controller*",),
    ingress_classes=("haproxy",),
    gateway_controllers=("haproxy.org/*",),
    behaviour=BEHAVIOUR,
    adapter=ADAPTER,
)
