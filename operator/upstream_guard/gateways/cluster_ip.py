"""A plain nginx, HAProxy, Apache or Caddy that sends to the Service's ClusterIP: kube-proxy picks the pod."""

from upstream_guard.core.tuning import CLUSTER_IP
from upstream_guard.gateways.profile import Profile

PROFILE = Profile(
    controller=CLUSTER_IP.controller,
    detach_seconds=CLUSTER_IP.detach_seconds,
    attach_seconds=CLUSTER_IP.attach_seconds,
    evidence=CLUSTER_IP.evidence,
    source=CLUSTER_IP.source,
    bad_statuses=CLUSTER_IP.bad_statuses,
    via_cluster_ip=True,
    margin_seconds=CLUSTER_IP.margin_seconds,
)
