"""How the operator was called."""

from dataclasses import dataclass, field

from upstream_guard.controller.external import ExternalOptions
from upstream_guard.core.names import OPERATOR_NAMESPACE


@dataclass(frozen=True, slots=True)
class Options:
    """How `upstream-guard run` was called.

    Attributes:
        kubeconfig: A path, or None for the default or in-cluster credentials.
        context: A context of it.
        namespace: Guard only this namespace; None means all.
        operator_namespace: Where Lease and Secret live.
        identity: Who we are in the Lease.
        http_port: For /metrics, /healthz and /readyz; 0 picks one.
        webhook_port: For admission; 0 picks one, None serves none.
        webhook_host: Address by which the API server reaches us outside the cluster; empty means
            through the Service.
        bind: Address to listen on; empty means all.
        external: What external upstreams are possible.
        dns_servers: Who is asked for them; empty means those of /etc/resolv.conf.
        canary: Whether gateways are measured.
        canary_address: Address by which gateways reach us; empty means `webhook_host`.
        canary_port: For the canary's endpoint `a`, and the next one for `b`; 0 picks two.
    """

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    operator_namespace: str = OPERATOR_NAMESPACE
    identity: str = ""
    http_port: int = 8080
    webhook_port: int | None = 9443
    webhook_host: str = ""
    bind: str = ""
    external: ExternalOptions = field(default_factory=ExternalOptions)
    dns_servers: tuple[tuple[str, int], ...] = ()
    canary: bool = True
    canary_address: str = ""
    canary_port: int = 0
