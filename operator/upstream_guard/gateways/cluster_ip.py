"""Whatever sends to the Service's ClusterIP, of a product that is not known: kube-proxy picks the pod."""

from upstream_guard.core.tuning import CLUSTER_IP
from upstream_guard.gateways.profile import through_cluster_ip

PROFILE = through_cluster_ip(CLUSTER_IP.controller)
