"""A plain nginx that sends to the Service's ClusterIP."""

from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.gateways.families import NGINX_PAGES, NGINX_TO_CLUSTER_IP
from upstream_guard.gateways.profile import through_cluster_ip

PROFILE = through_cluster_ip(
    "nginx",
    Behaviour(
        answers=NGINX_TO_CLUSTER_IP,
        pages=NGINX_PAGES,
        # Upstream connections are kept by default since 1.29.7, and before with `keepalive`.
        keepalive_idle=60.0,
        connect_timeout=60.0,
        read_timeout=60.0,
    ),
)
