"""Every rule by its ID: what users see in findings, events and `upstream-guard explain`.

An ID is a promise: baselines, suppressions and scripts match on it, so none is renamed. Each has a
page of the same name (`upstream-guard explain ID`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.window import Severity


@dataclass(frozen=True, slots=True)
class RiskInfo:
    """One rule.

    Attributes:
        title: What is wrong, in a few words, e.g. `No readiness probe`.
        cause: What failed requests mostly meet.
        severity: At its usual.
        source: Where the fact behind it comes from: KEP, RFC section, product's code or document.
    """

    title: str
    cause: Cause
    severity: Severity
    source: str


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
_C = Cause
_PODS: Final = "Kubernetes, Pod Lifecycle: container probes, termination of pods"
_SERVICES: Final = "Kubernetes, Service: selectors, targetPort, EndpointSlices"
_DISRUPTIONS: Final = "Kubernetes, Disruptions; Eviction API"
_DEPLOYMENTS: Final = "Kubernetes, Deployments: strategy"
_RESOURCES: Final = "the CRDs of Upstream Guard, docs/reference/crd.md"
_GATEWAY: Final = "Gateway API specification"

RISKS: Final[Mapping[str, RiskInfo]] = MappingProxyType(
    {
        "no-readiness-probe": RiskInfo("No readiness probe", _C.REFUSED, _W, _PODS),
        "readiness-probe-elsewhere": RiskInfo(
            "The readiness probe asks another port or server than traffic meets", _C.REFUSED, _W, _PODS
        ),
        "ready-before-serving": RiskInfo(
            "Pods are ready before they serve", _C.REFUSED, _W, _PODS
        ),
        "readiness-equals-liveness": RiskInfo(
            "Liveness asks the same as readiness and is as impatient", _C.REFUSED, _I, _PODS
        ),
        "recreate-strategy": RiskInfo(
            "All pods stop before new ones start", _C.NO_ENDPOINTS, _W, _DEPLOYMENTS
        ),
        "max-unavailable": RiskInfo(
            "A rollout may take every pod away at once", _C.NO_ENDPOINTS, _W, _DEPLOYMENTS
        ),
        "single-replica": RiskInfo(
            "One replica: nothing can take its place", _C.NO_ENDPOINTS, _W, _DISRUPTIONS
        ),
        "no-replicas": RiskInfo("No replicas", _C.NO_ENDPOINTS, _W, _DEPLOYMENTS),
        "min-ready-seconds": RiskInfo(
            "Old pods stop before the gateway knows the new ones", _C.NO_ENDPOINTS, _W, _DEPLOYMENTS
        ),
        "no-pre-stop": RiskInfo(
            "Pods stop before the gateway has forgotten them", _C.STALE_UPSTREAM, _W, _PODS
        ),
        "pre-stop-too-short": RiskInfo(
            "The preStop hook is shorter than the gateway needs", _C.STALE_UPSTREAM, _W, _PODS
        ),
        "pre-stop-exceeds-grace": RiskInfo(
            "The grace period ends during the preStop hook", _C.RESET, _W, _PODS
        ),
        "grace-shorter-than-drain": RiskInfo(
            "The grace period ends before the app has drained", _C.RESET, _W, _PODS
        ),
        "sigterm-drops-requests": RiskInfo(
            "The app drops requests in flight on SIGTERM", _C.RESET, _W, _PODS
        ),
        "sigterm-ignored": RiskInfo("SIGTERM does not reach the app", _C.RESET, _I, _PODS),
        "sidecar-order": RiskInfo(
            "A proxy container stops before the app", _C.REFUSED, _W, "KEP-753, sidecar containers"
        ),
        "no-disruption-budget": RiskInfo(
            "No PodDisruptionBudget: a drain may take every pod at once", _C.NO_ENDPOINTS, _W, _DISRUPTIONS
        ),
        "disruption-budget-blocks": RiskInfo(
            "The PodDisruptionBudget allows no eviction", _C.NO_ENDPOINTS, _W, _DISRUPTIONS
        ),
        "disruption-budget-useless": RiskInfo(
            "The PodDisruptionBudget protects nothing", _C.NO_ENDPOINTS, _I, _DISRUPTIONS
        ),
        "autoscaler-below-budget": RiskInfo(
            "The autoscaler may go below the PodDisruptionBudget", _C.NO_ENDPOINTS, _W, _DISRUPTIONS
        ),
        "one-node": RiskInfo(
            "All replicas may run on one node", _C.UNREACHABLE, _W,
            "Kubernetes, Pod Topology Spread Constraints",
        ),
        "node-shutdown": RiskInfo(
            "Nodes shut down without draining", _C.REFUSED, _I, "KEP-2000, graceful node shutdown"
        ),
        "node-loss": RiskInfo(
            "A lost node stays listed", _C.CONNECT_TIMEOUT, _I, "Kubernetes, Nodes: node controller"
        ),
        "crash": RiskInfo("A crashed container stays listed", _C.REFUSED, _I, _PODS),
        "gateway-restart": RiskInfo(
            "The gateway itself restarts", _C.REFUSED, _I, "the gateway's documentation"
        ),
        "certificate-expiry": RiskInfo(
            "The upstream's certificate expires", _C.TLS, _E, "RFC 5280 section 4.1.2.5"
        ),
        "target-port-unserved": RiskInfo(
            "No container listens on the targetPort", _C.REFUSED, _E, _SERVICES
        ),
        "named-port-mismatch": RiskInfo(
            "No container has a port of that name", _C.NO_ENDPOINTS, _E, _SERVICES
        ),
        "selector-matches-nothing": RiskInfo(
            "The Service selects no pods", _C.NO_ENDPOINTS, _E, _SERVICES
        ),
        "selector-matches-two-apps": RiskInfo(
            "The Service selects pods of two apps", _C.REFUSED, _W, _SERVICES
        ),
        "route-to-nowhere": RiskInfo(
            "A route leads to a Service or port that does not exist", _C.NO_ENDPOINTS, _E, _GATEWAY
        ),
        "missing-reference-grant": RiskInfo(
            "A route crosses namespaces without a ReferenceGrant", _C.NO_ENDPOINTS, _E, _GATEWAY
        ),
        "protocol-mismatch": RiskInfo(
            "Gateway and app speak different protocols", _C.PROTOCOL_MISMATCH, _E,
            "KEP-3726, appProtocol; RFC 9113 section 3",
        ),
        "keepalive-race": RiskInfo(
            "The app closes idle connections before the gateway does", _C.KEEPALIVE_RACE, _W,
            "RFC 9112 section 9.3.1 and 9.5",
        ),
        "gateway-timeout": RiskInfo(
            "The gateway gives up before the app answers", _C.READ_TIMEOUT, _W, "RFC 9110 section 15.6.5"
        ),
        "policy-blocks-gateway": RiskInfo(
            "A NetworkPolicy keeps the gateway out", _C.BLOCKED, _W, "Kubernetes, Network Policies"
        ),
        "policy-blocks-operator": RiskInfo(
            "A NetworkPolicy keeps the operator out", _C.BLOCKED, _I, "Kubernetes, Network Policies"
        ),
        "external-name": RiskInfo(
            "The Service is an alias for a name that must resolve", _C.DNS, _W,
            "Kubernetes, Service: ExternalName",
        ),
        "session-affinity": RiskInfo(
            "Sessions are pinned to pods that stop", _C.STALE_UPSTREAM, _I, _SERVICES
        ),
        "invalid-guard": RiskInfo(
            "The guard is not valid, so it protects nothing", _C.STALE_UPSTREAM, _E, _RESOURCES
        ),
        "guard-not-accepted": RiskInfo(
            "The guard cannot take effect, so it protects nothing", _C.STALE_UPSTREAM, _E, _RESOURCES
        ),
        "invalid-gateway-profile": RiskInfo(
            "The GatewayProfile is not valid, so it is not used", _C.STALE_UPSTREAM, _E, _RESOURCES
        ),
        "quota-blocks-surge": RiskInfo(
            "The quota leaves no room for a surge pod", _C.NO_ENDPOINTS, _W, "Kubernetes, Resource Quotas"
        ),
        "grace-capped": RiskInfo(
            "An admission policy caps the grace period", _C.RESET, _I,
            "Kubernetes, Validating Admission Policy",
        ),
    }
)  # fmt: skip
"""What each ID means."""
