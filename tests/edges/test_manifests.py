"""Manifests as people write them, to what predictions are made from."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from upstream_guard.core.model import (
    ContainerPort,
    DrainMode,
    DrainPolicy,
    ObjectRef,
    Service,
    ServicePort,
)
from upstream_guard.core.names import GROUP, GUARD_KIND, PROFILE_KIND
from upstream_guard.core.predict.state import (
    Autoscaler,
    Backend,
    Budget,
    Container,
    Expression,
    Grant,
    GuardFacts,
    HookKind,
    IngressRule,
    KubeProbe,
    LabelSelector,
    NetworkPolicy,
    NodeState,
    Peer,
    PodState,
    PodTemplate,
    PreStop,
    Quota,
    RouteState,
    ServiceState,
    State,
    Strategy,
    StrategyKind,
    Workload,
    World,
)
from upstream_guard.core.tuning import CLUSTER_IP
from upstream_guard.resources.manifests import (
    PARSERS,
    READERS,
    Inventory,
    KnownPod,
    assemble,
    parse,
    parse_autoscaler,
    parse_budget,
    parse_deployment,
    parse_httproute_state,
    parse_ingress_state,
    parse_known_pod,
    parse_network_policy,
    parse_quota,
    parse_replicaset,
    parse_rollout,
    parse_service_state,
    parse_statefulset,
    parse_workload,
    read_world,
    settle_drain,
)
from upstream_guard.resources.manifests.pods import command_seconds

DATA = Path(__file__).parents[1] / "data/manifests"
APP = list(yaml.safe_load_all((DATA / "app.yaml").read_text()))
KINDS = list(yaml.safe_load_all((DATA / "kinds.yaml").read_text()))
BY_KIND = {obj["kind"]: obj for obj in reversed(KINDS)}
"""Of each kind the first."""

SHOP = ObjectRef("default", "shop")
DB = ObjectRef("prod", "db")
LABELS = {"app": "shop"}


def test_a_whole_app() -> None:
    service = ServiceState(
        Service(SHOP, "", LABELS, "ClusterIP", "", (ServicePort("http", 80, "web"),)),
        annotations={"projectcontour.io/upstream-protocol.h2c": "http"},
    )
    proxy = Container(
        "proxy",
        "envoy:1.38",
        startup=KubeProbe(HookKind.TCP, 15021, failure_threshold=30),
        sidecar=True,
        path="spec.template.spec.initContainers[1]",
    )
    shop = Container(
        "shop",
        "shop:7",
        ports=(ContainerPort("web", 8080),),
        readiness=KubeProbe(HookKind.HTTP, "web", "/ready", period=2.0),
        liveness=KubeProbe(HookKind.EXEC, command=("cat", "/tmp/alive")),
        pre_stop=PreStop(HookKind.EXEC, 5.0, ("/bin/sh", "-c", "sleep 5 && kill -QUIT 1")),
        args=("--port=8080",),
        env={"MODE": "fast"},
        path="spec.template.spec.containers[0]",
    )
    workload = Workload(
        "Deployment",
        SHOP,
        PodTemplate(
            labels={"app": "shop", "version": "7"},
            containers=(shop, proxy),
            grace_period=45.0,
            grace_given=True,
            spread=True,
            configs=frozenset({"ConfigMap/shop-settings", "Secret/shop-token", "Secret/shop-tls"}),
            claims=frozenset({"shop-data"}),
        ),
        replicas=3,
        strategy=Strategy(StrategyKind.ROLLING, "25%", 0),
        min_ready=5.0,
        match_labels=LABELS,
        annotations={"upstreamguard.io/ignore": "no-pre-stop: it lingers by itself"},
    )
    path = "spec.rules[0].http.paths[0].backend.service"
    ingress = RouteState(
        "Ingress",
        SHOP,
        "nginx",
        (Backend("default", "shop", 80, path),),
        hosts=("shop.example.com",),
        request_timeout=15.0,
        sticky=True,
        annotations={
            "nginx.ingress.kubernetes.io/proxy-read-timeout": "15",
            "nginx.ingress.kubernetes.io/affinity": "cookie",
        },
    )
    state = State(
        service=service,
        workloads=(workload,),
        routes=(ingress,),
        budgets=(Budget(SHOP, LabelSelector(LABELS), min_available="50%"),),
        autoscalers=(Autoscaler(SHOP, "deployment/shop", 2, 9),),
    )
    assert read_world(APP) == World(
        states=(state,),
        services={SHOP: service},
        routes=(ingress,),
        workloads=(workload,),
        ingress_classes={"nginx": "k8s.io/ingress-nginx"},
    )


def test_surroundings() -> None:
    world = read_world(KINDS, complete=True)
    state = next(s for s in world.states if s.service.ref == DB)
    assert [w.text for w in state.workloads] == ["statefulset/db"]
    assert [r.kind for r in state.routes] == [
        "Ingress", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute",
    ]  # fmt: skip
    assert state.budgets == (
        Budget(
            DB, LabelSelector({}, (Expression("app", "In", ("db", "cache")),)), max_unavailable=1
        ),
    )
    assert state.autoscalers == (Autoscaler(DB, "statefulset/db", 3, 5, 60.0),)
    hard = {
        "pods": 10.0, "requests.cpu": 1.5, "requests.memory": 2 * 1024.0**3, "limits.cpu": 4.0,
    }  # fmt: skip
    assert state.quotas == (Quota(ObjectRef("prod", "team"), hard, {"pods": 7.0}),)
    assert state.grants == world.grants
    assert world.grants == (
        Grant(
            ObjectRef("prod", "from-edge"),
            (("HTTPRoute", "edge"),),
            (("Service", "db"), ("Secret", "")),
        ),
    )
    assert state.nodes == (NodeState("node-a", "eu-1", ready=True, schedulable=False),)
    assert world.ingress_classes == {
        "traefik": "traefik.io/ingress-controller",
        "": "traefik.io/ingress-controller",
    }
    assert world.gateway_controllers == {"edge/public": "projectcontour.io/gateway-controller"}
    assert (state.complete, world.complete) == (True, True)


def test_network_policy() -> None:
    first = IngressRule(
        (
            Peer(LabelSelector({"app": "shop"}), LabelSelector()),
            Peer(cidr="10.0.0.0/8"),
        ),
        ((5432, 5439), ("pg", 0)),
    )
    assert parse_network_policy(BY_KIND["NetworkPolicy"]) == NetworkPolicy(
        DB, LabelSelector({"app": "db"}), (first,)
    )


@pytest.mark.parametrize(
    ("spec", "isolates", "rules"),
    [
        ({}, True, ()),
        ({"policyTypes": ["Egress"]}, False, ()),
        ({"ingress": [{}]}, True, (IngressRule(),)),
        ({"ingress": [{"ports": [{"protocol": "TCP"}]}]}, True, (IngressRule((), ((1, 65535),)),)),
        # A broken peer must not open the rule to everybody.
        ({"ingress": [{"from": [None]}]}, True, (IngressRule((Peer(),)),)),
    ],
)
def test_network_policy_rules(
    spec: dict[str, Any], isolates: bool, rules: tuple[IngressRule, ...]
) -> None:
    policy = parse_network_policy({"metadata": {"name": "a"}, "spec": spec})
    assert policy is not None
    assert (policy.isolates_ingress, policy.ingress) == (isolates, rules)
    assert policy.selector == LabelSelector()


def test_a_pod_of_a_cluster() -> None:
    found = parse_known_pod(BY_KIND["Pod"])
    assert found is not None
    assert found.state == PodState(
        ObjectRef("prod", "lone"), "pod-1", "node-a", ready=True, terminating=False, restarts=2
    )
    assert found.bare is not None
    assert (found.bare.kind, found.bare.template.path) == ("Pod", "spec")
    assert found.bare.template.containers[0].path == "spec.containers[0]"
    assert (found.bare.template.gated, found.bare.template.node_bound) == (True, True)
    assert parse_workload(BY_KIND["Pod"]) == found.bare


def pod(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": LABELS, **metadata},
        "spec": {"nodeName": "n"},
    }


def test_pods_and_their_owners() -> None:
    owned = pod(ownerReferences=[{"kind": "ReplicaSet", "name": "r", "controller": True}])
    assert parse_workload(owned) is None
    assert parse_known_pod({**pod(), "status": {"phase": "Failed"}}) is None
    going = parse_known_pod(pod(deletionTimestamp="2026-01-02T03:05:00Z"))
    assert going is not None
    assert going.state.terminating

    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    objects = [{**service, "spec": {"selector": LABELS}}, owned]
    (state,) = read_world(objects, complete=True).states
    assert [p.node for p in state.pods] == ["n"]
    assert state.workloads == ()
    (state,) = read_world(objects).states
    assert state.pods == ()


def test_statefulset() -> None:
    found = parse_statefulset(BY_KIND["StatefulSet"])
    assert found is not None
    assert (found.ordered, found.strategy) == (True, Strategy(StrategyKind.ROLLING, 0, 1))
    assert (found.template.spread, found.template.claims) == (True, {"data"})
    (container,) = found.template.containers
    assert container.readiness == KubeProbe(HookKind.GRPC, 5432, timeout=3.0)
    assert container.pre_stop == PreStop(HookKind.SLEEP, 7.0)


@pytest.mark.parametrize(
    ("update", "kind"),
    [
        ({"rollingUpdate": {"partition": 2}}, StrategyKind.ROLLING),
        ({"rollingUpdate": {"partition": 3}}, StrategyKind.ON_DELETE),
        ({"type": "OnDelete"}, StrategyKind.ON_DELETE),
    ],
)
def test_what_a_statefulset_replaces(update: dict[str, Any], kind: StrategyKind) -> None:
    spec = {**BY_KIND["StatefulSet"]["spec"], "updateStrategy": update}
    found = parse_statefulset({**BY_KIND["StatefulSet"], "spec": spec})
    assert found is not None
    assert found.strategy.kind is kind


def test_daemonset() -> None:
    found = parse_workload(BY_KIND["DaemonSet"])
    assert found is not None
    assert (found.replicas, found.replicas_given, found.template.host_network) == (4, True, True)
    assert found.strategy == Strategy(StrategyKind.ROLLING, 0, 1)
    unknown = parse_workload({**BY_KIND["DaemonSet"], "status": {}})
    assert unknown is not None
    assert (unknown.replicas, unknown.replicas_given) == (1, False)


def test_replicas_by_other_controllers() -> None:
    old = parse_workload(BY_KIND["ReplicationController"])
    assert old is not None
    assert (old.match_labels, old.strategy.kind) == ({"app": "old"}, StrategyKind.ON_DELETE)
    owner = [{"kind": "Deployment", "name": "solo", "controller": True}]
    solo = BY_KIND["ReplicaSet"]
    assert parse_replicaset(solo) is not None
    owned = {**solo, "metadata": {**solo["metadata"], "ownerReferences": owner}}
    assert parse_replicaset(owned) is None


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({"canary": {"maxSurge": 1, "maxUnavailable": 0}}, Strategy(StrategyKind.ROLLING, 1, 0)),
        ({"canary": {}}, Strategy()),
        ({"blueGreen": {"activeService": "a"}}, Strategy(StrategyKind.ROLLING, "100%", 0)),
    ],
)
def test_argo_rollout(strategy: dict[str, Any], expected: Strategy) -> None:
    spec = {**BY_KIND["Rollout"]["spec"], "strategy": strategy}
    found = parse_rollout({**BY_KIND["Rollout"], "spec": spec})
    assert found is not None
    assert (found.kind, found.replicas, found.strategy) == ("Rollout", 4, expected)
    del spec["template"]
    assert parse_rollout({**BY_KIND["Rollout"], "spec": spec}) is None


def test_defaults_of_a_deployment() -> None:
    found = parse_deployment({"metadata": {"name": "a"}})
    assert found == Workload(
        "Deployment", ObjectRef("default", "a"), PodTemplate({}, ()), replicas_given=False
    )
    recreated = parse_deployment(
        {"metadata": {"generateName": "a-"}, "spec": {"strategy": {"type": "Recreate"}}}
    )
    assert recreated is not None
    assert (recreated.ref.name, recreated.strategy.kind) == ("a-", StrategyKind.RECREATE)


def probed(probe: Any) -> KubeProbe | None:
    template = {"spec": {"containers": [None, {"name": "a", "readinessProbe": probe}]}}
    found = parse_deployment({"metadata": {"name": "a"}, "spec": {"template": template}})
    assert found is not None
    (container,) = found.template.containers
    assert container.path == "spec.template.spec.containers[1]"
    return container.readiness


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({"httpGet": {"port": 80}}, KubeProbe(HookKind.HTTP, 80)),
        (
            {"httpGet": {"port": "web", "scheme": "HTTPS", "path": ""}, "periodSeconds": 0},
            KubeProbe(HookKind.HTTP, "web", scheme="HTTPS"),
        ),
        (
            {"tcpSocket": {"port": 5}, "initialDelaySeconds": 4, "successThreshold": 2},
            KubeProbe(HookKind.TCP, 5, initial_delay=4.0, success_threshold=2),
        ),
        ({"exec": {"command": ["a", 5, "b"]}}, KubeProbe(HookKind.EXEC, command=("a", "b"))),
        ({"periodSeconds": 5}, None),
        ("on", None),
        ({"httpGet": {"port": 70_000}, "timeoutSeconds": "3"}, KubeProbe(HookKind.HTTP)),
    ],
)
def test_probes(probe: Any, expected: KubeProbe | None) -> None:
    assert probed(probe) == expected


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        ("sleep|10", 10.0),
        ("/bin/sleep|0.5", 0.5),
        ("sleep|1m|5s", 65.0),
        ("sleep|soon", None),
        ("sleep", None),
        ("sleep 10", None),
        ("sh|-c|sleep 15 && nginx -s quit", 15.0),
        ("/bin/bash|-ec|nginx -s quit; sleep 3;\nsleep 4", 7.0),
        ("sh|-c|/usr/bin/sleep 2", 2.0),
        ("sh|-c|sleep $DELAY", None),
        ("sh|-c|while [ -e /busy ]; do sleep 1; done", None),
        ("sh|-c|echo waiting for clients; sleep 3", 3.0),
        ("sh|-c|sleep 600 & wait-for-peers", None),
        ("sh|-c|nosleep 5; sleep 5x", None),
        ("/app/drain|--wait=10", None),
        ("", None),
    ],
)
def test_how_long_a_command_sleeps(command: str, seconds: float | None) -> None:
    assert command_seconds(tuple(command.split("|") if command else ())) == seconds


@pytest.mark.parametrize("tail", ["1" * 60_000, "\n" * 60_000, "sleep " * 10_000, ";" * 60_000])
def test_scripts_that_are_made_to_take_long(tail: str) -> None:
    assert command_seconds(("sh", "-c", f"sleep 1; sleep {tail}")) == 1.0


TERM = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": LABELS}}


@pytest.mark.parametrize(
    ("spec", "spread"),
    [
        ({}, False),
        ({"topologySpreadConstraints": [TERM]}, True),
        ({"topologySpreadConstraints": [{**TERM, "topologyKey": "rack"}]}, False),
        # A constraint without a selector, or with another app's, keeps nothing apart.
        ({"topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname"}]}, False),
        ({"topologySpreadConstraints": [{**TERM, "labelSelector": {"matchLabels": {"a": "b"}}}]}, False),
        (
            {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [TERM]}}},
            True,
        ),
    ],
)  # fmt: skip
def test_spread(spec: dict[str, Any], spread: bool) -> None:
    template = {"metadata": {"labels": LABELS}, "spec": spec}
    found = parse_deployment({"metadata": {"name": "a"}, "spec": {"template": template}})
    assert found is not None
    assert found.template.spread is spread


def test_services() -> None:
    state = parse_service_state(BY_KIND["Service"])
    assert state is not None
    assert (state.headless, state.client_ip_affinity) == (True, True)
    assert state.service.publish_not_ready
    assert state.service.ports == (ServicePort("pg", 5432, 5432, "TCP", "kubernetes.io/h2c"),)
    elsewhere = read_world(KINDS).services[ObjectRef("prod", "elsewhere")]
    assert (elsewhere.external_name, elsewhere.headless) == ("db.example.com", False)


def test_ingress_of_old_versions() -> None:
    route = parse_ingress_state(BY_KIND["Ingress"])
    assert route is not None
    assert (route.gateway, route.hosts) == ("traefik", ("a.example.com",))
    assert route.backends == (
        Backend("prod", "db", "pg", "spec.backend"),
        Backend("prod", "db", 5432, "spec.rules[0].http.paths[0].backend"),
    )


def test_an_action_of_the_aws_controller_is_no_backend() -> None:
    service = {"name": "ssl-redirect", "port": {"name": "use-annotation"}}
    spec = {"rules": [{"http": {"paths": [{"backend": {"service": service}}]}}]}
    route = parse_ingress_state({"metadata": {"name": "a"}, "spec": spec})
    assert route is not None
    assert route.backends == ()


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        ({}, {}),
        ({"nginx.ingress.kubernetes.io/backend-protocol": "GRPCS"}, {"grpc": True, "tls": True}),
        ({"haproxy-ingress.github.io/backend-protocol": "h1-ssl"}, {"tls": True}),
        ({"haproxy.org/server-ssl": "true"}, {"tls": True}),
        ({"haproxy.org/server-ssl": "false"}, {}),
        ({"haproxy.org/cookie-persistence": "id"}, {"sticky": True}),
        ({"haproxy.org/timeout-server": "2m"}, {"timeout": 120.0}),
        ({"haproxy.org/timeout-server": "5000"}, {"timeout": 5.0}),
        ({"projectcontour.io/response-timeout": "infinity"}, {"timeout": math.inf}),
        ({"nginx.ingress.kubernetes.io/proxy-read-timeout": "soon"}, {}),
        ({"nginx.ingress.kubernetes.io/proxy-read-timeout": "0"}, {}),
        ({"alb.ingress.kubernetes.io/target-group-attributes": "stickiness.enabled=true"}, {"sticky": True}),
    ],
)  # fmt: skip
def test_annotations(annotations: dict[str, str], told: dict[str, Any]) -> None:
    route = parse_ingress_state({"metadata": {"name": "a", "annotations": annotations}})
    assert route is not None
    assert (route.grpc, route.backend_tls) == (told.get("grpc", False), told.get("tls", False))
    assert (route.sticky, route.request_timeout) == (told.get("sticky", False), told.get("timeout"))


def test_annotations_of_the_service_count_for_its_ingresses() -> None:
    annotations = {
        "traefik.ingress.kubernetes.io/service.serversscheme": "https",
        "traefik.ingress.kubernetes.io/service.sticky.cookie": "true",
    }
    service = {**BY_KIND["Service"], "metadata": {"name": "db", "namespace": "prod"}}
    service["metadata"]["annotations"] = annotations
    (state,) = read_world([service, BY_KIND["Ingress"]]).states
    assert (state.routes[0].backend_tls, state.routes[0].sticky) == (True, True)


def test_httproute() -> None:
    route = parse_httproute_state(BY_KIND["HTTPRoute"])
    assert route is not None
    assert (route.gateway, route.hosts) == ("edge/public", ("web.example.com",))
    assert (route.request_timeout, route.sticky, route.grpc) == (5.0, True, False)
    assert route.backends == (
        Backend("prod", "db", 5432, "spec.rules[0].backendRefs[0]", 9, "Service", 10.0),
        Backend(
            "edge", "other", 80, "spec.rules[1].backendRefs[0]", 1,
            "ServiceImport.multicluster.x-k8s.io", 5.0,
        ),
    )  # fmt: skip


def test_a_service_meets_its_own_rules_of_a_route() -> None:
    states = {s.service.ref: s for s in read_world(KINDS).states}
    ingress, web, rpc, through, raw = states[DB].routes
    assert web.request_timeout == 10.0
    assert (rpc.grpc, rpc.gateway, raw.grpc) == (True, "edge/public", False)
    # The BackendTLSPolicy is for Gateways; an Ingress does not look at it.
    assert [r.backend_tls for r in (ingress, web, rpc, through)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("timeouts", "expected"),
    [({"request": "0s"}, math.inf), ({"request": "0s", "backendRequest": "2s"}, 2.0), ({}, None),
     ({"request": "10"}, 10.0), ({"request": 10}, None)],
)  # fmt: skip
def test_timeouts_of_a_route(timeouts: dict[str, Any], expected: float | None) -> None:
    rules = [{"backendRefs": [{"name": "a"}], "timeouts": timeouts}]
    route = parse_httproute_state({"metadata": {"name": "a"}, "spec": {"rules": rules}})
    assert route is not None
    assert route.request_timeout == expected


@pytest.mark.parametrize(
    ("version", "selector", "expected"),
    [
        ("policy/v1", {}, LabelSelector()),
        ("policy/v1beta1", {}, None),
        ("policy/v1", None, None),
        ("policy/v1beta1", {"matchLabels": LABELS}, LabelSelector(LABELS)),
    ],
)
def test_what_a_budget_selects(version: str, selector: Any, expected: LabelSelector | None) -> None:
    found = parse_budget(
        {"apiVersion": version, "metadata": {"name": "a"}, "spec": {"selector": selector}}
    )
    assert (found and found.selector) == expected


@pytest.mark.parametrize("written", ["2", "150 %", -1, 1.5, True, 10**30, "٣%"])
def test_numbers_of_pods_that_are_none(written: Any) -> None:
    spec = {"selector": {}, "minAvailable": written}
    budget = parse_budget({"apiVersion": "policy/v1", "metadata": {"name": "a"}, "spec": spec})
    assert budget is not None
    assert budget.min_available is None


def test_autoscaler_defaults() -> None:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "a"}, "maxReplicas": 3}
    found = parse_autoscaler({"metadata": {"name": "a"}, "spec": spec})
    assert found == Autoscaler(ObjectRef("default", "a"), "deployment/a", 1, 3, 300.0)
    assert parse_autoscaler({"metadata": {"name": "a"}}) is None


@pytest.mark.parametrize(
    ("written", "value"),
    [("500m", 0.5), ("2Ki", 2048.0), ("1e3", 1000.0), ("1.5G", 1.5e9), (".5", 0.5), (7, 7.0),
     ("1e999", None), ("", None), ("ten", None), (math.nan, None), (10**400, None), (True, None)],
)  # fmt: skip
def test_quantities(written: Any, value: float | None) -> None:
    quota = parse_quota({"metadata": {"name": "a"}, "spec": {"hard": {"pods": written}}})
    assert quota is not None
    assert quota.hard == ({} if value is None else {"pods": value})


@pytest.mark.parametrize(
    ("spec", "counts"),
    [({"scopes": ["NotTerminating"]}, True), ({"scopes": ["BestEffort"]}, False),
     ({"scopeSelector": {"matchExpressions": []}}, False)],
)  # fmt: skip
def test_quotas_of_narrow_scope(spec: dict[str, Any], counts: bool) -> None:
    assert (parse_quota({"metadata": {"name": "a"}, "spec": spec}) is not None) is counts


def test_guard() -> None:
    guard = next(s for s in read_world(KINDS).states if s.service.ref == DB).guard
    assert guard is not None
    assert (guard.gates, guard.pre_stop, guard.probe_interval) == (True, 3.0, 1.0)
    assert guard.eject.low == pytest.approx(2.04)
    assert guard.eject.high == pytest.approx(3.55)
    assert guard.eject.low <= guard.eject.value <= guard.eject.high


@pytest.mark.parametrize(
    ("mode", "settled"),
    [(DrainMode.ENFORCE, 2.0), (DrainMode.RECOMMEND, 0.0), (DrainMode.OFF, 0.0)],
)
def test_an_automatic_hook_is_settled_when_the_gateways_are_known(
    mode: DrainMode, settled: float
) -> None:
    guard = GuardFacts(drain=DrainPolicy(mode))
    assert settle_drain(guard, [CLUSTER_IP]).pre_stop == settled


def test_a_guard_that_cannot_be_accepted_protects_nothing() -> None:
    broken = {**BY_KIND["UpstreamGuard"], "spec": {"targetRef": {"name": "db"}, "probes": {}}}
    (state,) = read_world([BY_KIND["Service"], broken]).states
    assert state.guard is None


def test_the_elder_guard_speaks() -> None:
    def guard(name: str, created: str, interval: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "prod", "creationTimestamp": created}
        spec = {"targetRef": {"name": "db"}, "probe": {"interval": interval}}
        return {**BY_KIND["UpstreamGuard"], "metadata": metadata, "spec": spec}

    younger = guard("a", "2026-02-01T00:00:00Z", "1s")
    elder = guard("b", "2026-01-01T00:00:00Z", "2s")
    (state,) = read_world([BY_KIND["Service"], younger, elder]).states
    assert state.guard is not None
    assert state.guard.probe_interval == 2.0


def test_neighbours_of_a_service_that_selects_nothing() -> None:
    strayed = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "prod"},
        "spec": {"selector": {"app": "nobody"}},
    }  # fmt: skip
    states = {s.service.ref.name: s for s in read_world([*KINDS, strayed]).states}
    assert states["db"].neighbours == ()
    assert {w.ref.name for w in states["s"].neighbours} == {
        "db", "agent", "solo", "old", "canary", "lone",
    }  # fmt: skip


def test_most_replicas_first_and_the_same_namespace_only() -> None:
    def deployment(name: str, namespace: str, replicas: int) -> dict[str, Any]:
        template = {"metadata": {"labels": {**LABELS, "name": name}}}
        return {
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": replicas, "template": template},
        }  # fmt: skip

    objects = [
        deployment("few", "default", 1),
        deployment("many", "default", 5),
        deployment("away", "other", 9),
    ]
    (state,) = read_world([*objects, APP[0]]).states
    assert [w.ref.name for w in state.workloads] == ["many", "few"]


def test_of_two_objects_of_one_name_the_later_counts() -> None:
    again = {**APP[1], "spec": {**APP[1]["spec"], "replicas": 8}}
    (state,) = read_world([*APP, again]).states
    assert [w.replicas for w in state.workloads] == [8]


def test_lists() -> None:
    whole = read_world(KINDS)
    services = [obj for obj in KINDS if obj["kind"] == "Service"]
    rest = [obj for obj in KINDS if obj["kind"] != "Service"]
    # As the API lists them: the items leave out what the list says.
    bare = [{k: v for k, v in obj.items() if k not in {"kind", "apiVersion"}} for obj in services]
    listed = {"apiVersion": "v1", "kind": "ServiceList", "items": bare}
    nested = {"apiVersion": "v1", "kind": "List", "items": rest}
    assert read_world([listed, {"apiVersion": "v1", "kind": "List", "items": [nested]}]) == whole


def test_lists_that_contain_themselves() -> None:
    items: list[Any] = [APP[0]]
    loop = {"apiVersion": "v1", "kind": "List", "items": items}
    level = loop
    for _ in range(40):
        level = {"apiVersion": "v1", "kind": "List", "items": [level] * 10}
    items.append(level)
    assert len(read_world([level]).services) == 1


@pytest.mark.parametrize(
    ("version", "kind"),
    [("serving.knative.dev/v1", "Service"), ("networking.istio.io/v1", "Gateway"),
     ("batch/v1", "CronJob"), ("batch/v1", "Job"), ("v1", "ConfigMap"), ("apps/v1", "Service")],
)  # fmt: skip
def test_kinds_that_are_passed_over(version: str, kind: str) -> None:
    assert parse({**APP[0], "apiVersion": version, "kind": kind}) is None


def test_every_kind_is_in_the_samples() -> None:
    kinds = {kind for _, kind in PARSERS}
    assert set(PARSERS) - set(READERS) == {(GROUP, GUARD_KIND), (GROUP, PROFILE_KIND)}
    assert kinds == {obj["kind"] for obj in (*APP, *KINDS)}
    assert all(parse(obj) is not None for obj in (*APP, *KINDS))


def test_assembling_from_parsed_values() -> None:
    values = [value for obj in APP if (value := parse(obj)) is not None]
    inventory = Inventory(values)
    (service,) = inventory.of(ServiceState)
    assert (assemble(service, inventory),) == read_world(APP).states
    assert inventory.of(KnownPod) == ()
