"""Pods, Services, EndpointSlices, routes and nodes: raw API dicts to the core's values.

These run on every watch event, for 10,000 pods: plain dict look-ups, no validation layer. The API
server has validated the objects; what is missing counts as absent, so that an object of another API
version is understood as far as it goes.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from upstream_guard.core.leaving import leaving_by
from upstream_guard.core.model import (
    ContainerPort,
    ContainerReadiness,
    ContainerStop,
    EndpointSlice,
    GatewayAddress,
    GatewayObject,
    Listener,
    Node,
    ObjectRef,
    ParentRef,
    PathMatch,
    Pod,
    ProbeProtocol,
    Readiness,
    Route,
    RouteWay,
    Service,
    ServicePort,
    SliceEndpoint,
)
from upstream_guard.core.names import (
    ANNOTATION_UPSTREAMS,
    GATE,
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
)

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
MAX_WAYS: Final = 256
"""Rules kept of one route: only a few of them are ever asked."""
_PATTERN_CHARS: Final = frozenset("*?()[]{}^$|\\+")
"""In an Ingress path of the controller's own kind these make it a pattern."""
_PATH_KINDS: Final = {
    "Prefix": PathMatch.PREFIX,
    "PathPrefix": PathMatch.PREFIX,
    "Exact": PathMatch.EXACT,
}


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
    grace = _grace(metadata, spec)
    deadline = parse_time(metadata.get("deletionTimestamp"))
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
        grace_period=grace,
        pre_stop=_describe_hooks(containers),
        annotations=metadata.get("annotations") or _EMPTY,
        containers=declared,
        ends=sum(_ends(s) for s in statuses),
        started=_started(statuses),
        # The API adds the grace period to the time of the deletion.
        deleted_at=deadline - grace if deadline else 0.0,
        stops=_stops(containers, statuses) if deadline else (),
        other_ips=_other_ips(status),
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
        addresses=_service_addresses(spec, obj.get("status") or _EMPTY),
        families=unique(spec.get("ipFamilies") or ()),
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
        managed_by=labels.get(MANAGED_BY_LABEL) or "",
        owner=str((_controller(metadata) or _EMPTY).get("uid") or ""),
        record=(metadata.get("annotations") or _EMPTY).get(ANNOTATION_UPSTREAMS) or "",
    )


def parse_ingress(obj: Json) -> Route:
    """What decisions need of a networking.k8s.io/v1 Ingress; no class gives an empty one."""
    metadata: Json = obj.get("metadata") or _EMPTY
    spec: Json = obj.get("spec") or _EMPTY
    annotations: Json = metadata.get("annotations") or _EMPTY
    ref = _ref(metadata)
    rules: list[Json] = spec.get("rules") or []
    ways = tuple(_ingress_ways(ref.namespace, spec))
    return Route(
        kind="Ingress",
        ref=ref,
        services=frozenset(way.service for way in ways),
        hosts=unique(rule.get("host") for rule in rules),
        gateway_class=spec.get("ingressClassName") or annotations.get(CLASS_ANNOTATION) or "",
        ways=ways[:MAX_WAYS],
        tls_hosts=tuple(
            dict.fromkeys(
                str(host) for tls in spec.get("tls") or () for host in tls.get("hosts") or ("",)
            )
        ),
        addresses=_ingress_addresses(obj.get("status") or _EMPTY),
    )


def parse_httproute(obj: Json) -> Route:
    """What decisions need of a gateway.networking.k8s.io HTTPRoute."""
    metadata: Json = obj.get("metadata") or _EMPTY
    spec: Json = obj.get("spec") or _EMPTY
    ref = _ref(metadata)
    hosts = unique(spec.get("hostnames") or ())
    ways = tuple(_httproute_ways(ref.namespace, hosts, spec))
    parents = tuple(_parents(ref.namespace, spec))
    return Route(
        kind="HTTPRoute",
        ref=ref,
        services=frozenset(way.service for way in ways),
        hosts=hosts,
        gateway_class=",".join(unique(parent.gateway for parent in parents)),
        ways=ways[:MAX_WAYS],
        parents=parents,
        backends=tuple(
            tuple(_backend(ref.namespace, b) for b in rule.get("backendRefs") or ())
            for rule in spec.get("rules") or ()
        ),
    )


def parse_gateway(obj: Json) -> GatewayObject:
    """What decisions need of a gateway.networking.k8s.io Gateway."""
    metadata: Json = obj.get("metadata") or _EMPTY
    spec: Json = obj.get("spec") or _EMPTY
    status: Json = obj.get("status") or _EMPTY
    return GatewayObject(
        ref=_ref(metadata),
        gateway_class=str(spec.get("gatewayClassName") or ""),
        listeners=tuple(
            Listener(
                name=str(listener.get("name") or ""),
                port=listener["port"],
                tls=listener.get("protocol") == "HTTPS",
                hostname=str(listener.get("hostname") or ""),
            )
            for listener in spec.get("listeners") or ()
            if isinstance(listener.get("port"), int) and _takes_http(listener)
        ),
        addresses=tuple(
            GatewayAddress(str(address["value"]))
            for address in status.get("addresses") or ()
            if address.get("value")
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
        address=next(
            (a["address"] for a in status.get("addresses") or () if a.get("type") == "InternalIP"),
            "",
        ),
        kubelet_port=_kubelet_port(status),
        leaving=leaving_by(str(t.get("key")) for t in spec.get("taints") or ()),
        addresses=unique(
            a.get("address")
            for a in status.get("addresses") or ()
            if str(a.get("type")).endswith("IP")
        ),
        pod_ranges=unique(spec.get("podCIDRs") or (spec.get("podCIDR"),)),
    )


def _ingress_ways(namespace: str, spec: Json) -> Iterator[RouteWay]:
    """Rules in order; what no rule takes goes to the default backend, last."""
    for rule in spec.get("rules") or ():
        hosts = unique([rule.get("host")])
        for path in (rule.get("http") or _EMPTY).get("paths") or ():
            backend: Json = (path.get("backend") or _EMPTY).get("service") or _EMPTY
            if backend.get("name"):
                text, match = _ingress_path(path)
                service = ObjectRef(namespace, backend["name"])
                yield RouteWay(service, _backend_port(backend), hosts, text, match)
    default: Json = (spec.get("defaultBackend") or _EMPTY).get("service") or _EMPTY
    if default.get("name"):
        yield RouteWay(ObjectRef(namespace, default["name"]), _backend_port(default))


def _backend_port(backend: Json) -> int | str:
    port: Json = backend.get("port") or _EMPTY
    found: int | str = port.get("number") or port.get("name") or ""
    return found


def _ingress_path(path: Json) -> tuple[str, PathMatch]:
    """`ImplementationSpecific` is a prefix to most controllers; GCE and ALB end it with a star."""
    text = str(path.get("path") or "/")
    known = _PATH_KINDS.get(str(path.get("pathType")))
    plain = text.removesuffix("*") if known is None else text
    if not text.startswith("/") or not _PATTERN_CHARS.isdisjoint(plain):
        return text, PathMatch.PATTERN
    return plain, known or PathMatch.PREFIX


def _ingress_addresses(status: Json) -> tuple[GatewayAddress, ...]:
    balancer: Json = status.get("loadBalancer") or _EMPTY
    return tuple(
        GatewayAddress(
            str(entry.get("ip") or entry["hostname"]),
            tuple(p["port"] for p in entry.get("ports") or () if isinstance(p.get("port"), int)),
        )
        for entry in balancer.get("ingress") or ()
        if entry.get("ip") or entry.get("hostname")
    )


def _backend(namespace: str, backend: Json) -> ObjectRef | None:
    """The Service that a backendRef names; None where it names something else."""
    if not backend.get("name") or (backend.get("kind") or "Service") != "Service":
        return None
    return ObjectRef(backend.get("namespace") or namespace, backend["name"])


def _httproute_ways(namespace: str, hosts: tuple[str, ...], spec: Json) -> Iterator[RouteWay]:
    for rule in spec.get("rules") or ():
        backends = [
            (service, b.get("port") or "")
            for b in rule.get("backendRefs") or ()
            if (service := _backend(namespace, b)) is not None
        ]
        for condition in rule.get("matches") or (_EMPTY,):
            path: Json = condition.get("path") or _EMPTY
            kind = _PATH_KINDS.get(str(path.get("type") or "PathPrefix"), PathMatch.PATTERN)
            methods = frozenset(unique([condition.get("method")]))
            conditional = bool(condition.get("headers") or condition.get("queryParams"))
            text = str(path.get("value") or "/")
            for service, port in backends:
                yield RouteWay(service, port, hosts, text, kind, methods, conditional)


def _parents(namespace: str, spec: Json) -> Iterator[ParentRef]:
    for parent in spec.get("parentRefs") or ():
        if parent.get("name") and (parent.get("kind") or "Gateway") == "Gateway":
            gateway = f"{parent.get('namespace') or namespace}/{parent['name']}"
            yield ParentRef(gateway, parent.get("sectionName") or "", parent.get("port"))


def _takes_http(listener: Json) -> bool:
    """Not where TLS passes through: what is inside is between client and app."""
    mode = (listener.get("tls") or _EMPTY).get("mode") or "Terminate"
    return listener.get("protocol") in {"HTTP", "HTTPS"} and mode == "Terminate"


def _kubelet_port(status: Json) -> int:
    endpoints: Json = status.get("daemonEndpoints") or _EMPTY
    # A capital letter, as the API has it.
    port = (endpoints.get("kubeletEndpoint") or _EMPTY).get("Port")
    return port if isinstance(port, int) else 0


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


def _other_ips(status: Json) -> tuple[str, ...]:
    return unique(i.get("ip") for i in (status.get("podIPs") or ())[1:])


def _service_addresses(spec: Json, status: Json) -> tuple[str, ...]:
    """Every address that leads to a Service; `None` stands for a headless one's absent address."""
    balancers: list[Json] = (status.get("loadBalancer") or _EMPTY).get("ingress") or []
    found = unique(
        (
            spec.get("clusterIP"),
            *(spec.get("clusterIPs") or ()),
            *(spec.get("externalIPs") or ()),
            *(b.get("ip") for b in balancers),
        )
    )
    return tuple(address for address in found if address != "None")


def _started(statuses: Iterable[Json]) -> float:
    """When the last container started; 0.0 unless all of them run."""
    running = [((s.get("state") or _EMPTY).get("running") or _EMPTY) for s in statuses]
    times = [parse_time(r.get("startedAt")) for r in running]
    return max(times) if times and all(times) else 0.0


def _stops(containers: Iterable[Json], statuses: Iterable[Json]) -> tuple[ContainerStop, ...]:
    """The containers that have ended and do not start again."""
    sleeps = {str(c.get("name") or ""): _pre_stop_seconds(c) for c in containers}
    ended = (
        (str(s.get("name") or ""), (s.get("state") or _EMPTY).get("terminated") or _EMPTY)
        for s in statuses
    )
    return tuple(
        ContainerStop(
            name, sleeps[name], parse_time(end.get("finishedAt")), int(end.get("exitCode") or 0)
        )
        for name, end in ended
        if end and name in sleeps
    )


def _pre_stop_seconds(container: Json) -> float | None:
    hook: Json = (container.get("lifecycle") or _EMPTY).get("preStop") or _EMPTY
    if not hook:
        return 0.0
    if hook.get("sleep") is None:
        return None
    seconds = (hook["sleep"] or _EMPTY).get("seconds")
    return float(seconds) if isinstance(seconds, int) else 0.0


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
