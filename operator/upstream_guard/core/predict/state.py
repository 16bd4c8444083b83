"""What a prediction is made from: workloads, Services, routes and their surroundings. All frozen.

The same values come from manifests (`upstream-guard check`) and from a running cluster (the
operator), so that one engine serves both. Durations are seconds. What was not said is None or
empty; Kubernetes' own defaults are already filled in where a field says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from upstream_guard.core.model import ContainerPort, DrainPolicy, Guard, ObjectRef, Service
from upstream_guard.core.predict.estimate import UNKNOWN_ZERO, Estimate
from upstream_guard.core.tuning import GatewayProfile


class HookKind(StrEnum):
    """What a preStop hook or a kubelet probe does."""

    SLEEP = "sleep"
    EXEC = "exec"
    HTTP = "httpGet"
    TCP = "tcpSocket"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class KubeProbe:
    """A readiness, liveness or startup probe as declared, with the API's defaults filled in.

    Attributes:
        kind: What it does; never `SLEEP`.
        port: Number or name; None for `EXEC`.
        path: For `HTTP`.
        scheme: `HTTP` or `HTTPS`.
        command: For `EXEC`.
    """

    kind: HookKind
    port: int | str | None = None
    path: str = "/"
    scheme: str = "HTTP"
    command: tuple[str, ...] = ()
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    failure_threshold: int = 3
    success_threshold: int = 1


@dataclass(frozen=True, slots=True)
class PreStop:
    """A preStop hook.

    Attributes:
        kind: What it does.
        seconds: How long it takes, where that can be read (`sleep`, or `sleep N` in a command).
        command: For `EXEC`.
    """

    kind: HookKind
    seconds: float | None = None
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod template.

    Attributes:
        sidecar: An init container with `restartPolicy: Always`: SIGTERM after the main containers.
        path: Where it stands in the manifest, e.g. `spec.template.spec.containers[0]`.
    """

    name: str
    image: str = ""
    ports: tuple[ContainerPort, ...] = ()
    readiness: KubeProbe | None = None
    liveness: KubeProbe | None = None
    startup: KubeProbe | None = None
    pre_stop: PreStop | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    sidecar: bool = False
    path: str = ""


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """What the pods of a workload look like.

    Attributes:
        spread: A topology spread constraint or an anti-affinity keeps replicas on several nodes.
        node_bound: `nodeName`, or a nodeSelector by hostname: all replicas on one node.
        gated: Declares the guard's readiness gate.
        configs: ConfigMaps and Secrets it uses, as `ConfigMap/name`.
        claims: PersistentVolumeClaims it mounts; of a StatefulSet also its volumeClaimTemplates.
        path: Where the pod spec stands in the manifest, e.g. `spec.template.spec`.
    """

    labels: Mapping[str, str]
    containers: tuple[Container, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    grace_period: float = 30.0
    grace_given: bool = False
    gated: bool = False
    spread: bool = False
    node_bound: bool = False
    host_network: bool = False
    configs: frozenset[str] = frozenset()
    claims: frozenset[str] = frozenset()
    path: str = "spec.template.spec"


class StrategyKind(StrEnum):
    """How a workload replaces its pods."""

    ROLLING = "RollingUpdate"
    RECREATE = "Recreate"
    ON_DELETE = "OnDelete"


@dataclass(frozen=True, slots=True)
class Strategy:
    """A workload's update strategy.

    Attributes:
        max_surge: A number or a percentage such as `25%`.
        max_unavailable: As `max_surge`.
    """

    kind: StrategyKind = StrategyKind.ROLLING
    max_surge: int | str = "25%"
    max_unavailable: int | str = "25%"


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, StatefulSet, DaemonSet, ReplicaSet or bare Pod.

    Attributes:
        kind: As the API spells it.
        replicas: Wanted; for a DaemonSet the number of nodes where known.
        ordered: A StatefulSet with `OrderedReady`: one pod after the other.
        deadline: `progressDeadlineSeconds`.
        match_labels: Its selector's labels; expressions are not kept.
        annotations: Its own.
    """

    kind: str
    ref: ObjectRef
    template: PodTemplate
    replicas: int = 1
    replicas_given: bool = True
    strategy: Strategy = field(default_factory=Strategy)
    min_ready: float = 0.0
    ordered: bool = False
    deadline: float = 600.0
    match_labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """`deployment/shop`, as kubectl takes it."""
        return f"{self.kind.lower()}/{self.ref.name}"


@dataclass(frozen=True, slots=True)
class Expression:
    """One `matchExpressions` entry."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A label selector; an empty one selects everything, None elsewhere stands for nothing."""

    labels: Mapping[str, str] = field(default_factory=dict)
    expressions: tuple[Expression, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it selects something with these labels; an unknown operator selects nothing."""
        return all(labels.get(k) == v for k, v in self.labels.items()) and all(
            _matches(e, labels) for e in self.expressions
        )


def _matches(expression: Expression, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.key)
    match expression.operator:
        case "In":
            return value in expression.values
        case "NotIn":
            return value not in expression.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return False


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget; numbers or percentages, None where not given."""

    ref: ObjectRef
    selector: LabelSelector
    min_available: int | str | None = None
    max_unavailable: int | str | None = None


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """A HorizontalPodAutoscaler.

    Attributes:
        target: `kind/name`, lower-case kind.
        scale_down_window: `behavior.scaleDown.stabilizationWindowSeconds`.
    """

    ref: ObjectRef
    target: str
    min_replicas: int = 1
    max_replicas: int = 1
    scale_down_window: float = 300.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Who may connect, of one NetworkPolicy ingress rule; None selects by nothing of that sort."""

    pods: LabelSelector | None = None
    namespaces: LabelSelector | None = None
    cidr: str = ""


@dataclass(frozen=True, slots=True)
class IngressRule:
    """One ingress rule: no peers means everybody, no ports means every port."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[tuple[int | str, int], ...] = ()
    """(first port or name, last port); the same number twice for a single one, 0 for a name."""


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """A NetworkPolicy, as far as it concerns connections to pods."""

    ref: ObjectRef
    selector: LabelSelector
    ingress: tuple[IngressRule, ...] = ()
    isolates_ingress: bool = True


@dataclass(frozen=True, slots=True)
class Quota:
    """A ResourceQuota: hard limits and what is used of them, e.g. `pods`, `requests.cpu`."""

    ref: ObjectRef
    hard: Mapping[str, float] = field(default_factory=dict)
    used: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Backend:
    """One place where a route sends requests.

    Attributes:
        namespace: Of the Service; the route's own where it names none.
        port: Number or name; None where the route names none.
        path: Where it stands in the route's manifest.
        weight: Of an HTTPRoute's backendRef.
        request_timeout: Seconds, where the rule that leads here sets one; None otherwise.
    """

    namespace: str
    service: str
    port: int | str | None = None
    path: str = ""
    weight: int = 1
    kind: str = "Service"
    request_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class RouteState:
    """An Ingress, HTTPRoute or GRPCRoute.

    Attributes:
        gateway: IngressClass, or the parent Gateways as `namespace/name`, comma-separated.
        request_timeout: Seconds, where the route sets one (the shortest of its rules, in a `State` of
            those that lead to its Service), infinite where it says "never"; None otherwise.
        grpc: A GRPCRoute, or an Ingress annotated for gRPC backends.
        backend_tls: The gateway is told to speak TLS to the backend.
        sticky: The route or its annotations ask for session affinity.
    """

    kind: str
    ref: ObjectRef
    gateway: str
    backends: tuple[Backend, ...]
    hosts: tuple[str, ...] = ()
    request_timeout: float | None = None
    grpc: bool = False
    backend_tls: bool = False
    sticky: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grant:
    """A ReferenceGrant: routes of these namespaces and kinds may refer to these objects here."""

    ref: ObjectRef
    sources: tuple[tuple[str, str], ...]
    """(kind, namespace)."""
    targets: tuple[tuple[str, str], ...]
    """(kind, name); an empty name allows all."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A Service, with what the admission model does not need of it."""

    service: Service
    external_name: str = ""
    client_ip_affinity: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)
    headless: bool = False

    @property
    def ref(self) -> ObjectRef:
        """The Service's name."""
        return self.service.ref


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod that runs now; only known of a running cluster."""

    ref: ObjectRef
    uid: str
    node: str
    ready: bool
    terminating: bool
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node; only known of a running cluster."""

    name: str
    zone: str = ""
    ready: bool = True
    schedulable: bool = True


class Shutdown(StrEnum):
    """What an app does on SIGTERM."""

    EXITS = "exits"
    """Ends at once: requests in flight are reset."""
    DRAINS = "drains"
    """Stops listening at once, finishes what is in flight, ends (Go `Shutdown`, gunicorn, uvicorn)."""
    LINGERS = "lingers"
    """Keeps accepting for a while, then ends (an app that does its own sleeping)."""
    IGNORES = "ignores"
    """Serves on until SIGKILL at the end of the grace period."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AppFacts:
    """What is known of the app in the pods of one Service.

    Attributes:
        start: From the container's start to its first served request.
        shutdown: What it does on SIGTERM.
        linger: For `LINGERS`: how long it keeps accepting.
        drain: From SIGTERM to its end, with requests in flight.
        response: How long a typical request takes.
        slow_response: How long its slowest legitimate request takes; zero where unknown.
        keepalive_idle: After how long it closes an idle connection; None where unknown.
        readiness_lies: Seconds by which its readiness probe succeeds before it serves.
        serves_kept: For `DRAINS`: it goes on answering on connections that are open, idle ones too, until it
            ends (Node.js before 19: `server.close()`). Others close idle ones at once.
    """

    start: Estimate
    shutdown: Shutdown = Shutdown.UNKNOWN
    linger: Estimate = UNKNOWN_ZERO
    drain: Estimate = UNKNOWN_ZERO
    response: Estimate = UNKNOWN_ZERO
    slow_response: Estimate = UNKNOWN_ZERO
    keepalive_idle: float | None = None
    readiness_lies: Estimate = UNKNOWN_ZERO
    serves_kept: bool = False


@dataclass(frozen=True, slots=True)
class GuardFacts:
    """How a guard protects this Service; absent where none does.

    Attributes:
        gates: New pods wait for the operator's gate, failing ones are ejected.
        pre_stop: Seconds of sleep that new pods get, 0 for none.
        probe_interval: Seconds.
        eject: From failure to the EndpointSlice without the pod.
        drain: What the guard asks for, so that `Auto` can be settled once the gateways are known.
        min_healthy_percent: Of the endpoints, those that it keeps listed.
    """

    gates: bool = True
    pre_stop: float = 0.0
    probe_interval: float = 0.5
    eject: Estimate = UNKNOWN_ZERO
    drain: DrainPolicy = field(default_factory=DrainPolicy)
    min_healthy_percent: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A resource of ours that cannot be used as it is written.

    Attributes:
        kind: `UpstreamGuard` or `GatewayProfile`.
        ref: Its name; a GatewayProfile has no namespace.
        faults: The path of each field that is wrong, and what is wrong with it.
    """

    kind: str
    ref: ObjectRef
    faults: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class State:
    """One Service and everything that decides whether requests to it fail.

    Attributes:
        service: The Service.
        workloads: What it selects, most replicas first; empty where nothing is known to match.
        routes: That lead to it.
        budgets: Of the namespace, that select a pod of the workloads.
        autoscalers: Of the workloads.
        policies: NetworkPolicies of the namespace that select a pod of the workloads.
        quotas: Of the namespace.
        grants: ReferenceGrants of the namespace.
        pods: Now running; empty where unknown.
        nodes: Of the cluster; empty where unknown.
        neighbours: Workloads of the namespace, whose labels may be what the selector means; only of a
            Service that selects none.
        complete: Whether absent means absent (a cluster), or may exist elsewhere (manifests).
        kubelet_shutdown_grace: `shutdownGracePeriod` of the kubelets; None where unknown.
    """

    service: ServiceState
    workloads: tuple[Workload, ...] = ()
    routes: tuple[RouteState, ...] = ()
    budgets: tuple[Budget, ...] = ()
    autoscalers: tuple[Autoscaler, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    quotas: tuple[Quota, ...] = ()
    grants: tuple[Grant, ...] = ()
    pods: tuple[PodState, ...] = ()
    nodes: tuple[NodeState, ...] = ()
    neighbours: tuple[Workload, ...] = ()
    guard: GuardFacts | None = None
    complete: bool = False
    kubelet_shutdown_grace: float | None = None

    @property
    def workload(self) -> Workload | None:
        """The one that a change happens to, unless it says otherwise."""
        return self.workloads[0] if self.workloads else None


class ChangeKind(StrEnum):
    """What happens to a service."""

    ROLLOUT = "rollout"
    SCALE_IN = "scale-in"
    POD_DELETION = "pod-deletion"
    NODE_DRAIN = "node-drain"
    NODE_LOSS = "node-loss"
    CRASH = "crash"
    GATEWAY_RESTART = "gateway-restart"
    CONFIG_CHANGE = "config-change"
    """A ConfigMap or Secret whose change restarts the pods: a rollout with another trigger."""
    CERTIFICATE_EXPIRY = "certificate-expiry"
    EDIT = "edit"
    """The Service or a route as it is written now: what is wrong is wrong from the moment it is applied."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change to predict.

    Attributes:
        kind: What happens.
        to_replicas: For `SCALE_IN`: how many are left.
        node: For `NODE_DRAIN` and `NODE_LOSS`; empty picks the node with most pods.
        pods: How many pods go at once, where the kind does not say; 0 derives it.
        restarts: For `CRASH`: earlier restarts within the back-off's memory.
        expires_in: For `CERTIFICATE_EXPIRY`: seconds until then.
        replaces: For a `ROLLOUT` that has begun: the template of the pods that go; None where it is
            that of the workload.
    """

    kind: ChangeKind
    to_replicas: int = 0
    node: str = ""
    pods: int = 0
    restarts: int = 0
    expires_in: float | None = None
    replaces: PodTemplate | None = None


@dataclass(frozen=True, slots=True)
class World:
    """All that was read: from files, or from a cluster.

    Attributes:
        states: One for each Service.
        services: Every Service.
        routes: Every route.
        grants: Every ReferenceGrant.
        workloads: Every workload, whether or not a Service selects it.
        guards: Every valid guard, in force or not.
        profiles: Every valid GatewayProfile.
        refused: Guards and GatewayProfiles that are not valid.
        ingress_classes: `spec.controller` by IngressClass, as `gateways.discover` wants it.
        gateway_controllers: `spec.controllerName` of the class by Gateway (`namespace/name`).
        complete: Whether absent means absent (a cluster), or may exist elsewhere (manifests).
    """

    states: tuple[State, ...] = ()
    services: Mapping[ObjectRef, ServiceState] = field(default_factory=dict)
    routes: tuple[RouteState, ...] = ()
    grants: tuple[Grant, ...] = ()
    workloads: tuple[Workload, ...] = ()
    guards: tuple[Guard, ...] = ()
    profiles: tuple[GatewayProfile, ...] = ()
    refused: tuple[Refused, ...] = ()
    ingress_classes: Mapping[str, str] = field(default_factory=dict)
    gateway_controllers: Mapping[str, str] = field(default_factory=dict)
    complete: bool = False
