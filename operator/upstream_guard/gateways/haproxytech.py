"""HAProxy's own ingress controller: synchronises every 5 s."""

from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.families import HAPROXY
from upstream_guard.gateways.profile import Profile

BEHAVIOUR = Behaviour(
    answers=HAPROXY,
    # Half of the idle connections are closed every 5 s (`pool-purge-delay`); the rest live longer.
    keepalive_idle=5.0,
    # Its error files have no `Server` header, and it leaves the app\'s alone.
    bare_pages=True,
    # Of the configuration in its image.
    connect_timeout=5.0,
    read_timeout=50.0,
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
)
