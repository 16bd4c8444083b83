"""`upstreamList.admitVia: Gateway`: old pods serve until the gateways know the new ones."""

from collections.abc import Iterable
from dataclasses import replace

from upstream_guard.core.model import AdmitVia, UpstreamListPolicy
from upstream_guard.core.tuning import GatewayFacts


def old_pods_cover_attach(
    policy: UpstreamListPolicy, gateways: Iterable[GatewayFacts]
) -> tuple[GatewayFacts, ...]:
    """The gateways by how long an old pod must serve, where that is more than they need to forget it.

    A gateway that has not yet taken up the new pods sends to the old ones. Where its way from the
    EndpointSlice is the same for both, it forgets none before; but its latencies vary from one update to
    the next, and the slower of the two is the bound.

    Args:
        policy: `spec.upstreamList`.
        gateways: The gateways in front.
    """
    if policy.admit_via is AdmitVia.ENDPOINT:
        return tuple(gateways)
    return tuple(_covering(gateway) for gateway in gateways)


def _covering(gateway: GatewayFacts) -> GatewayFacts:
    if gateway.attach_seconds <= gateway.detach_seconds:
        return gateway
    source = f"admitVia Gateway: it may take so long to use a new pod; {gateway.source}"
    return replace(gateway, detach_seconds=gateway.attach_seconds, source=source)
