"""What is known, measured or assumed about the app, the cluster and the load. All frozen."""

from dataclasses import dataclass, field
from typing import Final

from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.state import AppFacts
from upstream_guard.core.tuning import Evidence


def _builtin(low: float, value: float, high: float, source: str) -> Estimate:
    return Estimate(low, value, high, Evidence.BUILTIN, source)


_LAB: Final = "measured on Kubernetes 1.35"


@dataclass(frozen=True, slots=True)
class PlatformFacts:
    """How long the parts of Kubernetes take, seconds.

    Attributes:
        create: From the decision for a pod to the start of its container, image present.
        ready_to_slice: From `Ready` (or a deletion) to the EndpointSlice that says so.
        stop: From a deletion to the kubelet's preStop or SIGTERM.
        reconcile: One step of a workload controller.
        notice: From the start of a container until the kubelet takes note of it and asks, or without
            a probe believes, whether it is ready: it looks every second (its PLEG).
        exit_delist: From the end of a container to the EndpointSlice without it.
        node_delist: From a node's silence to the EndpointSlice without its pods.
        evict: Between two evictions of one drain.
        other_changes: Changes of other Services' EndpointSlices a second, which keep kube-proxy busy.
    """

    create: Estimate = field(default=_builtin(0.45, 0.65, 1.4, _LAB))
    ready_to_slice: Estimate = field(default=_builtin(0.015, 0.03, 0.1, _LAB))
    stop: Estimate = field(default=_builtin(0.02, 0.05, 0.2, _LAB))
    reconcile: Estimate = field(default=_builtin(0.01, 0.03, 0.1, _LAB))
    notice: Estimate = field(default=_builtin(0.05, 0.6, 1.2, _LAB))
    exit_delist: Estimate = field(default=_builtin(0.1, 0.45, 1.1, _LAB))
    node_delist: Estimate = field(
        default=Estimate(
            40.0, 45.0, 55.0, Evidence.ASSUMED, "node-monitor-grace-period of 40 to 50 s"
        )
    )
    evict: Estimate = field(default=_builtin(0.0, 0.02, 0.1, _LAB))
    other_changes: float = 0.0


ASSUMED_START: Final = Estimate(
    0.3, 2.0, 10.0, Evidence.ASSUMED, "a start-up of 2 s (0.3 to 10 s) is assumed"
)
"""Of an app of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a prediction knows beside the state and the gateway.

    Attributes:
        app: Of the app behind the Service.
        platform: Of the cluster.
        rate: Requests a second, over all endpoints; > 0.
        rate_evidence: `MEASURED`, `SPEC` (given by the user) or `ASSUMED`.
        samples: How many futures are drawn; more is smoother and slower.
    """

    app: AppFacts = field(default=AppFacts(start=ASSUMED_START))
    platform: PlatformFacts = field(default=PlatformFacts())
    rate: float = 10.0
    rate_evidence: Evidence = Evidence.ASSUMED
    samples: int = 16
