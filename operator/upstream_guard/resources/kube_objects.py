"""Pods, Services, EndpointSlices, routes and nodes: raw API dicts to the core's values.

These run on every watch event, for 10,000 pods: plain dict look-ups, no validation layer. The API
server has validated the objects; what is missing counts as absent, so that an object of another API
version is understood as far as it goes.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from upstream_guard.core.model import (
    ContainerPort,
    ContainerReadiness,
    EndpointSlice,
    Node,
    ObjectRef,
    Pod,
    ProbeProtocol,
    Readiness,
    Route,
    Service,
    ServicePort,
    SliceEndpoint,
)
from upstream_guard.core.names import GATE, SERVICE_NAME_LABEL

Json = Mapping[str, Any]

_ZONE_LABEL: Final = "topology.kubernetes.io/zone"
CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"
"""How an Ingress named its class before `spec.ingressClassName`."""
DEFAULT_CLASS: Final = ""
"""The key under which `gateways.discover` wants the default IngressClass."""
DEFAULT_CLASS_ANNOTATION: Final = "ingressclass.kubernetes.io/is-default-class"
_TEMPLATE_LABELS: Final = ("pod-template-hash", "controller-revision-hash")
_EMPTY: Final[Json] = {}
_DEFAULT_GRACE: Final = 30.0
_FINISHED: Final = frozenset({"Succeeded", "Failed"})


@lru_cache(maxsize=16_384)
def parse_time(text: str | None) -> float:
    """An RFC 3339 time as Unix seconds; 0.0 where it is absent or not a time.

    Cached, since one pod carries the same few strings in each of its events.
    """
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def parse_pod(obj: Json) -> Pod:
    """What decisions need of a v1 Pod."""
    metadata: Json = obj.get("metadata") or _EMPTY
    spec: Json = obj.get("spec") or _EMPTY
    status: Json = obj.get("status") or _EMPTY
    labels: Json = metadata.get("labels") or _EMPTY
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    ready: Json = conditions.get("Ready") or _EMPTY
    containers_ready: Json = conditions.get("ContainersReady") or _EMPTY
    gate: Json | None = conditions.get(GATE)
    owner = _controller(metadata)
    containers: list[Json] = spec.get("containers") or []
    declared = tuple(_container(c) for c in containers)
    statuses: list[Json] = status.get("containerStatuses") or []
    return Pod(
        ref=_ref(metadata),
        uid=metadata.get("uid") or "",
        ip=status.get("podIP") or "",
        node=spec.get("nodeName") or "",
        labels=labels,
        created=parse_time(metadata.get("creationTimestamp")),
        template=_template(metadata, labels, owner),
        owner=(owner.get("kind") or "", owner.get("name") or "") if owner else None,
        ports=tuple(port for c in declared for port in c.ports),
        readiness=next((c.readiness for c in declared if c.readiness), None),
        has_exec_readiness=any(c.has_exec for c in declared),
        gated=any(g.get("conditionType") == GATE for g in spec.get("readinessGates") or ()),
        gate=None if gate is None else gate.get("status") == "True",
        gate_reason="" if gate is None else gate.get("reason") or "",
        ready=ready.get("status") == "True",
        containers_ready=containers_ready.get("status") == "True",
        containers_ready_since=parse_time(containers_ready.get("lastTransitionTime")),
        ready_since=parse_time(ready.get("lastTransitionTime")),
        terminating=bool(metadata.get("deletionTimestamp")),
        finished=status.get("phase") in _FINISHED,
        grace_period=_grace(metadata, spec),
        pre_stop=_describe_hooks(containers),
        annotations=metadata.get("annotations") or _EMPTY,
        containers=declared,
        ends=sum(_ends(s) for s in statuses),
        started=_started(statuses),
    )


def parse_service(obj: Json) -> Service:
    """What decisions need of a v1 Service."""
    metadata: Json = obj.get("metadata") or _EMPTY
    spec: Json = obj.get("spec") or _EMPTY
    annotations: Json = metadata.get("annotations") or _EMPTY
    hints = str(annotations.get("service.kubernetes.io/topology-mode") or "")
    distribution = str(spec.get("trafficDistribution") or "")
    return Service(
        ref=_ref(metadata),
        uid=metadata.get("uid") or "",
        selector=spec.get("selector") or _EMPTY,
        type=spec.get("type") or "ClusterIP",
        cluster_ip=spec.get("clusterIP") or "",
        ports=tuple(
            ServicePort(
                name=p.get("name") or "",
                number=p.get("port") or 0,
                target=p.get("targetPort") or p.get("port") or 0,
                protocol=p.get("protocol") or "TCP",
                app_protocol=p.get("appProtocol") or "",
            )
            for p in spec.get("ports") or ()
        ),
        publish_not_ready=bool(spec.get("publishNotReadyAddresses")),
        internal_local=spec.get("internalTrafficPolicy") == "Local",
        external_local=spec.get("externalTrafficPolicy") == "Local",
        zonal=hints.lower() == "auto" or distribution.startswith("Prefer"),
    )


def parse_slice(obj: Json) -> EndpointSlice:
    """What decisions need of a discovery.k8s.io/v1 EndpointSlice."""
    metadata: Json = obj.get("metadata") or _EMPTY
    labels: Json = metadata.get("labels") or _EMPTY
    return EndpointSlice(
        ref=_ref(metadata),
        service=labels.get(SERVICE_NAME_LABEL) or "",
        address_type=obj.get("addressType") or "IPv4",
        ports=tuple(
            (p.get("name") or "", p["port"])
            for p in obj.get("ports") or ()
            if isinstance(p.get("port"), int)
        ),
        endpoints=tuple(_slice_endpoint(e) for e in obj.get("endpoints") or ()),
    )


def parse_ingress(obj: Json) -> Route:
    """What decisions need of a networking.k8s.io/v1 Ingress; no class gives an empty one."""
    metadata: Json = obj.get("metadata") or _EMPTY
    spec: Json = obj.get("spec") or _EMPTY
    annotations: Json = metadata.get("annotations") or _EMPTY
    ref = _ref(metadata)
    rules: list[Json] = spec.get("rules") or []
    backends = [spec.get("defaultBackend")]
    backends += [
        path.get("backend")
        for rule in rules
        for path in (rule.get("http") or _EMPTY).get("paths") or ()
    ]
    names = {((b or _EMPTY).get("service") or _EMPTY).get("name") for b in backends}
    return Route(
        kind="Ingress",
        ref=ref,
        services=frozenset(ObjectRef(ref.namespace, name) for name in names if name),
        hosts=unique(rule.get("host") for rule in rules),
        gateway_class=spec.get("ingressClassName") or annotations.get(CLASS_ANNOTATION) or "",
    )


def parse_httproute(obj: Json) -> Route:
    """What decisions need of a gateway.networking.k8s.io HTTPRoute."""
    metadata: Json = obj.get("metadata") or _EMPTY
    spec: Json = obj.get("spec") or _EMPTY
    ref = _ref(metadata)
    return Route(
        kind="HTTPRoute",
        ref=ref,
        services=frozenset(
            ObjectRef(backend.get("namespace") or ref.namespace, backend["name"])
            for rule in spec.get("rules") or ()
            for backend in rule.get("backendRefs") or ()
            if backend.get("name") and (backend.get("kind") or "Service") == "Service"
        ),
        hosts=unique(spec.get("hostnames") or ()),
        gateway_class=",".join(
            unique(
                f"{parent.get('namespace') or ref.namespace}/{parent['name']}"
                for parent in spec.get("parentRefs") or ()
                if parent.get("name") and (parent.get("kind") or "Gateway") == "Gateway"
            )
        ),
    )


def parse_node(obj: Json) -> Node:
    """What decisions need of a v1 Node."""
    metadata: Json = obj.get("metadata") or _EMPTY
    spec: Json = obj.get("spec") or _EMPTY
    status: Json = obj.get("status") or _EMPTY
    labels: Json = metadata.get("labels") or _EMPTY
    return Node(
        name=metadata.get("name") or "",
        zone=labels.get(_ZONE_LABEL) or "",
        ready=any(
            c.get("type") == "Ready" and c.get("status") == "True"
            for c in status.get("conditions") or ()
        ),
        unschedulable=bool(spec.get("unschedulable")),
    )


def _ref(metadata: Json) -> ObjectRef:
    return ObjectRef(metadata.get("namespace") or "", metadata.get("name") or "")


def _controller(metadata: Json) -> Json | None:
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            found: Json = owner
            return found
    return None


def _template(metadata: Json, labels: Json, owner: Json | None) -> str:
    """Owner and revision; a bare pod is a template of its own."""
    if owner is None:
        return metadata.get("uid") or ""
    revision = next((labels[key] for key in _TEMPLATE_LABELS if key in labels), "")
    return f"{owner.get('uid') or ''}/{revision}"


def _ends(status: Json) -> int:
    """`restartCount` counts starts, so a container that waits for its restart has ended once more."""
    restarts = int(status.get("restartCount") or 0)
    state: Json = status.get("state") or _EMPTY
    ended = "terminated" in state or "terminated" in (status.get("lastState") or _EMPTY)
    return restarts + 1 if ended and "running" not in state else restarts


def _started(statuses: Iterable[Json]) -> float:
    """When the last container started; 0.0 unless all of them run."""
    running = [((s.get("state") or _EMPTY).get("running") or _EMPTY) for s in statuses]
    times = [parse_time(r.get("startedAt")) for r in running]
    return max(times) if times and all(times) else 0.0


def _grace(metadata: Json, spec: Json) -> float:
    """The deletion's own grace period where one runs, for it is the one that counts."""
    running = metadata.get("deletionGracePeriodSeconds")
    if isinstance(running, int):
        return float(running)
    own = spec.get("terminationGracePeriodSeconds")
    return float(own) if isinstance(own, int) else _DEFAULT_GRACE


def _container(container: Json) -> ContainerReadiness:
    ports = tuple(
        ContainerPort(p.get("name") or "", p["containerPort"])
        for p in container.get("ports") or ()
        if isinstance(p.get("containerPort"), int)
    )
    probe: Json = container.get("readinessProbe") or _EMPTY
    return ContainerReadiness(
        ports=ports,
        readiness=_copy_probe(probe, ports) if probe else None,
        name=container.get("name") or "",
        has_exec=bool(probe.get("exec")),
    )


def _copy_probe(probe: Json, ports: tuple[ContainerPort, ...]) -> Readiness | None:
    http: Json | None = probe.get("httpGet")
    if http:
        https = http.get("scheme") == "HTTPS"
        headers = tuple(
            (h.get("name") or "", h.get("value") or "") for h in http.get("httpHeaders") or ()
        )
        return Readiness(
            protocol=ProbeProtocol.HTTPS if https else ProbeProtocol.HTTP,
            port=_own_port(http.get("port"), ports),
            path=http.get("path") or "/",
            host=next((v for n, v in headers if n.lower() == "host"), http.get("host") or ""),
            headers=tuple((n, v) for n, v in headers if n.lower() != "host"),
        )
    tcp: Json | None = probe.get("tcpSocket")
    if tcp:
        return Readiness(ProbeProtocol.TCP, _own_port(tcp.get("port"), ports))
    grpc: Json | None = probe.get("grpc")
    if grpc:
        port = _own_port(grpc.get("port"), ports)
        return Readiness(ProbeProtocol.GRPC, port, service=grpc.get("service") or "")
    return None


def _own_port(port: object, ports: tuple[ContainerPort, ...]) -> int | str:
    """A named port means the container's own port of that name, as for the kubelet."""
    if isinstance(port, int):
        return port
    return next((own.number for own in ports if own.name == port), str(port or ""))


def _describe_hooks(containers: Iterable[Json]) -> str:
    """The preStop hooks for people, e.g. `sleep 2s`; the distinct ones where containers differ."""
    described = []
    for container in containers:
        hook: Json | None = (container.get("lifecycle") or _EMPTY).get("preStop")
        if not hook:
            continue
        if hook.get("sleep") is not None:
            described.append(f"sleep {(hook['sleep'] or _EMPTY).get('seconds', 0)}s")
        elif hook.get("exec"):
            described.append(f"exec {' '.join(hook['exec'].get('command') or ())[:80]}")
        elif hook.get("httpGet"):
            described.append(f"httpGet {(hook['httpGet'].get('path') or '/')[:80]}")
    return ", ".join(dict.fromkeys(described))


def _slice_endpoint(endpoint: Json) -> SliceEndpoint:
    conditions: Json = endpoint.get("conditions") or _EMPTY
    target: Json = endpoint.get("targetRef") or _EMPTY
    ready = conditions.get("ready") is not False
    serving = conditions.get("serving")
    return SliceEndpoint(
        addresses=tuple(endpoint.get("addresses") or ()),
        ready=ready,
        # The API documents a nil `serving` as "take `ready`".
        serving=ready if serving is None else bool(serving),
        terminating=bool(conditions.get("terminating")),
        pod_uid=(target.get("uid") or "") if target.get("kind") == "Pod" else "",
        node=endpoint.get("nodeName") or "",
        zone=endpoint.get("zone") or "",
    )


def unique(values: Iterable[Any]) -> tuple[str, ...]:
    """The non-empty ones as text, each once, in order."""
    return tuple(dict.fromkeys(str(v) for v in values if v))
