"""The values that decisions are made from. All frozen; times are Unix seconds, durations seconds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from upstream_guard.core.causes import Cause


class ProbeProtocol(StrEnum):
    """How an endpoint is asked whether it serves."""

    HTTP = "HTTP"
    HTTPS = "HTTPS"
    TCP = "TCP"
    GRPC = "GRPC"


class ListMode(StrEnum):
    """What the operator may do to the upstream list."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


class RouteProbeMode(StrEnum):
    """Whether the operator sends requests of its own through the gateways."""

    AUTO = "Auto"
    OFF = "Off"


class PathMatch(StrEnum):
    """How a route's path is compared with a request's."""

    PREFIX = "Prefix"
    """Path element by path element."""
    EXACT = "Exact"
    PATTERN = "Pattern"
    """A regular expression, or the product's own kind of pattern: no path follows from it."""


class AdmitVia(StrEnum):
    """When a new pod counts as serving, so that old ones may stop."""

    ENDPOINT = "Endpoint"
    """When it answers."""
    GATEWAY = "Gateway"
    """When the gateways send requests to it; see docs/decisions/0022-admit-via.md."""


class DrainMode(StrEnum):
    """What the operator may do to preStop and grace period."""

    ENFORCE = "Enforce"
    RECOMMEND = "Recommend"
    OFF = "Off"


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """A namespaced object's name; `str()` gives the `namespace/name` form that kubectl users know."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ProbeOverrides:
    """`spec.probe` as the user wrote it: None means "from the pods' readinessProbe, else inferred"."""

    protocol: ProbeProtocol | None = None
    port: int | str | None = None
    path: str | None = None
    host: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    service: str | None = None
    """gRPC health service name."""
    interval: float = 0.5
    timeout: float = 0.5
    failure_threshold: int = 2
    success_threshold: int = 2


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """How one endpoint is probed, all questions settled."""

    protocol: ProbeProtocol
    port: int
    path: str = "/"
    host: str = ""
    """Host header and SNI; empty means the endpoint's own address."""
    headers: tuple[tuple[str, str], ...] = ()
    service: str = ""
    interval: float = 0.5
    timeout: float = 0.5
    failure_threshold: int = 2
    success_threshold: int = 2
    status_min: int = 200
    status_max: int = 399
    """Statuses in [status_min, status_max] are a success, as the kubelet's 200-399 are."""


@dataclass(frozen=True, slots=True)
class UpstreamListPolicy:
    """`spec.upstreamList`."""

    mode: ListMode = ListMode.ENFORCE
    min_healthy_percent: int = 50
    admit_timeout: float = 30.0
    admit_via: AdmitVia = AdmitVia.ENDPOINT


def kept_listed(eligible: int, percent: int) -> int:
    """How many of so many eligible endpoints stay listed by a `minHealthyPercent`, whatever their probes say."""
    return max(1, math.ceil(eligible * percent / 100)) if eligible else 0


@dataclass(frozen=True, slots=True)
class DrainPolicy:
    """`spec.drain`. None stands for `Auto`; numbers are seconds."""

    mode: DrainMode = DrainMode.ENFORCE
    pre_stop: float | None = None
    grace_period: float | None = None
    max_pre_stop: float = 60.0
    surge_before_evict: bool = False


DEFAULT_ROUTE_INTERVAL: Final = 3.0
"""Seconds. What only route probes see is off by half of it: docs/decisions/0019-route-probes.md."""


@dataclass(frozen=True, slots=True)
class RouteProbePolicy:
    """`spec.detection.routeProbe`. Empty text means "not said"."""

    mode: RouteProbeMode = RouteProbeMode.AUTO
    interval: float = DEFAULT_ROUTE_INTERVAL
    change_interval: float = 0.1
    path: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class DetectionPolicy:
    """`spec.detection`."""

    min_requests: int = 1
    error_statuses: tuple[int, ...] = (502, 503, 504)
    route_probe: RouteProbePolicy = field(default_factory=RouteProbePolicy)
    requests_per_second: float | None = None
    """What the Service gets where no gateway counts it; None where nobody says."""


DEFAULT_CERTIFICATE_WARNING: Final = 14 * 86_400.0
"""Seconds; a certificate that is renewed at two thirds of 90 days never comes so near its end."""


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """`spec.upstreams[].tls`: the upstream speaks TLS."""

    server_name: str = ""
    """For SNI; empty means the host, or for SRV the target's name."""
    warn_before: float = DEFAULT_CERTIFICATE_WARNING
    """How long before its end a certificate is spoken of, seconds."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One entry of `spec.upstreams`: a host and port, or an SRV name that says both."""

    host: str = ""
    """Lower case, without a final dot; or an IP address."""
    port: int = 0
    srv: str = ""
    """Such as `_https._tcp.example.com`; then host is empty and port 0."""
    tls: UpstreamTls | None = None

    @property
    def key(self) -> str:
        """How it is named in status, events and metrics; distinct within a guard."""
        if self.srv:
            return self.srv
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Guard:
    """One UpstreamGuard, parsed and defaulted."""

    ref: ObjectRef
    uid: str
    generation: int
    created: float
    service: str
    section: str | None = None
    """Service port, by name or number as text; None means every port (the first is probed)."""
    probe: ProbeOverrides = field(default_factory=ProbeOverrides)
    upstream_list: UpstreamListPolicy = field(default_factory=UpstreamListPolicy)
    drain: DrainPolicy = field(default_factory=DrainPolicy)
    detection: DetectionPolicy = field(default_factory=DetectionPolicy)
    upstreams: tuple[Upstream, ...] = ()
    """External upstreams; where there are any, the Service has no pods."""

    @property
    def service_ref(self) -> ObjectRef:
        """The guarded Service."""
        return ObjectRef(self.ref.namespace, self.service)


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """One `ports` entry of a regular container."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Readiness:
    """A container's readinessProbe, as far as a probe from outside can copy it."""

    protocol: ProbeProtocol
    port: int | str
    path: str = "/"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    service: str = ""


@dataclass(frozen=True, slots=True)
class ContainerReadiness:
    """What one regular container declares: its ports, and how the kubelet asks whether it is ready."""

    ports: tuple[ContainerPort, ...]
    readiness: Readiness | None
    """None where there is no readinessProbe, or one that cannot be copied."""
    name: str = ""
    has_exec: bool = False
    """The readinessProbe is a command, which cannot be copied."""


@dataclass(frozen=True, slots=True)
class ContainerStop:
    """How one regular container of a pod that is being deleted ended.

    Attributes:
        container: Its name.
        pre_stop: Seconds that its preStop hook sleeps; 0 without a hook, None for one of unknown length.
        ended: Unix seconds, to the second.
        exit_code: 128 and the signal's number where a signal ended it.
    """

    container: str
    pre_stop: float | None
    ended: float
    exit_code: int


@dataclass(frozen=True, slots=True)
class Pod:
    """What decisions need of a pod."""

    ref: ObjectRef
    uid: str
    ip: str
    node: str
    labels: Mapping[str, str]
    created: float
    template: str
    """What pods of one template share: owner UID and pod-template-hash (or controller revision)."""
    owner: tuple[str, str] | None
    """(kind, name) of the controlling owner."""
    ports: tuple[ContainerPort, ...]
    readiness: Readiness | None
    has_exec_readiness: bool
    gated: bool
    """Declares our readiness gate."""
    gate: bool | None
    """Our condition's status; None where it was never written."""
    gate_reason: str = field(default="", kw_only=True)
    """Our condition's reason: why the gate is as it is."""
    ready: bool
    containers_ready: bool
    containers_ready_since: float
    ready_since: float
    """Last transition of the Ready condition."""
    terminating: bool
    finished: bool = False
    """Succeeded or Failed (evicted, say): it will never serve again."""
    grace_period: float = 30.0
    pre_stop: str = ""
    """Description of the preStop hooks found, e.g. `sleep 2s`; empty where there is none."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[ContainerReadiness, ...] = ()
    """The regular containers, so that a sidecar's probe is not taken for the app's."""
    ends: int = 0
    """How often a container has ended, those that run again included."""
    started: float = 0.0
    """When the last of the containers started, to the second; 0 unless all of them run."""
    deleted_at: float = 0.0
    """When its deletion began, to the second; 0 where it is not being deleted."""
    stops: tuple[ContainerStop, ...] = ()
    """The regular containers that have ended since it is being deleted."""
    other_ips: tuple[str, ...] = ()
    """Further addresses, as of the other family."""


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service."""

    name: str
    number: int
    target: int | str
    protocol: str = "TCP"
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """What decisions need of a Service."""

    ref: ObjectRef
    uid: str
    selector: Mapping[str, str]
    type: str
    cluster_ip: str
    ports: tuple[ServicePort, ...]
    publish_not_ready: bool = False
    internal_local: bool = False
    external_local: bool = False
    zonal: bool = False
    """trafficDistribution or topology hints route by zone."""
    addresses: tuple[str, ...] = ()
    """Every address that leads to it: of the cluster, external ones, of load balancers."""
    families: tuple[str, ...] = ()
    """`IPv4`, `IPv6`; empty where the API does not say."""


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """One endpoint of an EndpointSlice. `ready` None counts as True, as the API documents."""

    addresses: tuple[str, ...]
    ready: bool
    serving: bool
    terminating: bool
    pod_uid: str = ""
    node: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """One EndpointSlice of one Service."""

    ref: ObjectRef
    service: str
    address_type: str
    ports: tuple[tuple[str, int], ...]
    endpoints: tuple[SliceEndpoint, ...]
    managed_by: str = ""
    """Who keeps it, by its label."""
    owner: str = ""
    """UID of the controlling owner; empty where there is none."""
    record: str = ""
    """On one of ours: what its addresses are, for the next operator (`core.external`)."""


@dataclass(frozen=True, slots=True)
class RouteWay:
    """One rule of a route: which requests it takes, and the Service that gets them.

    Attributes:
        service: The Service.
        port: Of the Service, by number or name; empty where not said.
        hosts: That it holds for, which may begin with `*.`; empty stands for every host.
        path: Begins with a slash.
        match: How the path is compared.
        methods: That it holds for; empty stands for every method.
        conditional: Whether it also asks for headers or query parameters.
    """

    service: ObjectRef
    port: int | str = ""
    hosts: tuple[str, ...] = ()
    path: str = "/"
    match: PathMatch = PathMatch.PREFIX
    methods: frozenset[str] = frozenset()
    conditional: bool = False


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where a gateway is reached, by its own status."""

    host: str
    """An IP address, or a name."""
    ports: tuple[int, ...] = ()
    """Empty where the status names none."""


@dataclass(frozen=True, slots=True)
class ParentRef:
    """A Gateway that an HTTPRoute hangs on."""

    gateway: str
    """`namespace/name`."""
    section: str = ""
    """Name of the only listener; empty stands for all of them."""
    port: int | None = None
    """Port of the only listeners; None stands for all of them."""


@dataclass(frozen=True, slots=True)
class Route:
    """An Ingress or HTTPRoute that leads to a Service.

    Attributes:
        kind: `Ingress` or `HTTPRoute`.
        ref: Its name.
        services: That it leads to.
        hosts: That it names.
        gateway_class: Ingress class, or the parent Gateways as `namespace/name`, comma-separated.
        ways: Its rules, those to other Services included.
        tls_hosts: Hosts that an Ingress serves over TLS; an empty one stands for every host.
        addresses: Where an Ingress is served, by its status.
        parents: The Gateways of an HTTPRoute.
        backends: Of an HTTPRoute: for each rule its backends in order, None for what is no Service.
    """

    kind: str
    ref: ObjectRef
    services: frozenset[ObjectRef]
    hosts: tuple[str, ...]
    gateway_class: str
    ways: tuple[RouteWay, ...] = ()
    tls_hosts: tuple[str, ...] = ()
    addresses: tuple[GatewayAddress, ...] = ()
    parents: tuple[ParentRef, ...] = ()
    backends: tuple[tuple[ObjectRef | None, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener of a Gateway that takes HTTP requests."""

    name: str
    port: int
    tls: bool
    """The Gateway ends TLS here; a listener that passes it through is left out."""
    hostname: str = ""
    """May begin with `*.`; empty stands for every host."""


@dataclass(frozen=True, slots=True)
class GatewayObject:
    """A Gateway of the Gateway API."""

    ref: ObjectRef
    gateway_class: str
    listeners: tuple[Listener, ...] = ()
    addresses: tuple[GatewayAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """What decisions need of a Node."""

    name: str
    zone: str
    ready: bool
    unschedulable: bool
    address: str = ""
    """Its internal IP address; empty where it has none."""
    kubelet_port: int = 0
    """Where its kubelet listens; 0 where it does not say."""
    leaving: str = ""
    """The taint that says that it goes away soon; empty where it stays."""
    addresses: tuple[str, ...] = ()
    pod_ranges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One probe's outcome."""

    at: float
    """When it ended, on the clock the caller uses."""
    ok: bool
    cause: Cause | None = None
    latency: float = 0.0
    detail: str = ""
    """For people: at most 200 characters, e.g. `connection refused` or `HTTP 503`."""
    status: int = 0
    """HTTP status, 0 where there was none."""
