"""Names that other programs see: written into clusters, so each is a promise. Constants only."""

from typing import Final

GROUP: Final = "upstreamguard.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

GUARD_KIND: Final = "UpstreamGuard"
GUARD_PLURAL: Final = "upstreamguards"
PROFILE_KIND: Final = "GatewayProfile"
PROFILE_PLURAL: Final = "gatewayprofiles"

GATE: Final = "upstreamguard.io/serving"
"""The readiness gate, and the type of the pod condition that opens it."""
ANNOTATION_INJECTED: Final = "upstreamguard.io/injected"
"""JSON on a pod: what the webhook added to it, and why."""

FIELD_MANAGER: Final = "upstream-guard"
COMPONENT: Final = "upstream-guard"
"""The reporting component of events."""
LEASE: Final = "upstream-guard"
"""Name of the controller's Lease, in the operator's namespace."""
OPERATOR_NAMESPACE: Final = "upstream-guard-system"
"""Where `deploy/` installs the operator."""
TOKEN_FOLDER: Final = "/etc/upstream-guard/tokens"  # noqa: S105 (a folder's name, no token)
"""Where a GatewayProfile's token files are mounted."""
SERVICE_ACCOUNT: Final = "upstream-guard"

WEBHOOK_CONFIGURATION: Final = "upstream-guard"
"""Name of both the mutating and the validating webhook configuration."""
WEBHOOK_SERVICE: Final = "upstream-guard-webhook"
WEBHOOK_SECRET: Final = "upstream-guard-webhook-cert"  # noqa: S105 (a Secret's name, not its content)

PROBE_HEADER: Final = "upstream-guard-probe"
"""On every request of ours through a gateway, with the value `1`: access logs show who asks."""

PART_OF_LABEL: Final = "app.kubernetes.io/part-of"
PART_OF: Final = "upstream-guard"
"""Value of the part-of label on every object that the operator's installation owns."""

SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
"""On an EndpointSlice: the Service that it belongs to."""

MANAGED_BY_LABEL: Final = "endpointslice.kubernetes.io/managed-by"
"""On an EndpointSlice: who keeps it, so that others leave it alone."""
MANAGED_BY: Final = "upstream-guard"
"""Value of that label on slices of our own."""
ANNOTATION_UPSTREAMS: Final = "upstreamguard.io/upstreams"
"""JSON on the EndpointSlice of an external upstream: which upstream each address is of."""
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
CANARY: Final = "canary"
"""Value of the component label on the objects of propagation canaries."""
CANARY_DOMAIN: Final = "upstream-guard.invalid"
"""Host names of canaries end so: `.invalid` is nobody's (RFC 2606)."""
CANARY_ENDPOINT_HEADER: Final = "X-Upstream-Guard-Endpoint"
"""Of a canary's response: which endpoint answered."""
CANARY_TOKEN_HEADER: Final = "X-Upstream-Guard-Canary"  # noqa: S105 (a header's name)
"""Of a canary's request: tells the operator's own requests from anybody else's."""
