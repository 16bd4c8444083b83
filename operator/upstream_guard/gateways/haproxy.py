"""A plain HAProxy that sends to the Service's ClusterIP."""

from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.gateways import haproxy_stats
from upstream_guard.gateways.families import HAPROXY_PAGES, HAPROXY_TO_CLUSTER_IP
from upstream_guard.gateways.profile import through_cluster_ip

ADAPTER = haproxy_stats.adapter(lambda _: ())
"""Its backends have names of the user's own: the statistics page says where they lead."""

PROFILE = through_cluster_ip(
    "haproxy",
    Behaviour(
        answers=HAPROXY_TO_CLUSTER_IP,
        # Half of the idle connections are closed every 5 s (`pool-purge-delay`); the rest live longer.
        keepalive_idle=5.0,
        # Its error files have no `Server` header, and it leaves the app\'s alone.
        bare_pages=True,
        pages=HAPROXY_PAGES,
        # `retries 3`, a second apart; it has no time-outs but those that are configured.
        refused_retries=3,
        retry_pause=1.0,
    ),
    adapter=ADAPTER,
)
