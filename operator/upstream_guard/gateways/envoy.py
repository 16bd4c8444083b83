"""A plain Envoy that sends to the Service's ClusterIP."""

from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.gateways import envoy_stats
from upstream_guard.gateways.families import ENVOY, ENVOY_PAGES, to_cluster_ip
from upstream_guard.gateways.profile import through_cluster_ip

ADAPTER = envoy_stats.adapter(lambda _: ())
"""Its clusters have names of the user's own: the admin API says where they lead."""

PROFILE = through_cluster_ip(
    "envoy",
    Behaviour(
        answers=to_cluster_ip(ENVOY),
        pages=ENVOY_PAGES,
        # Its documentation: an hour. Measured: 5 s to connect, 15 s for a response.
        keepalive_idle=3600.0,
        reuses=True,
        connect_timeout=5.0,
        read_timeout=15.0,
    ),
    adapter=ADAPTER,
)
