"""What holds of the rules whatever the state is."""

import json
from dataclasses import fields, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.predict.factories import (
    CONTOUR,
    KUBE_PROXY,
    LABELS,
    NGINX,
    SHOP,
    container,
    http_probe,
    ingress,
    ref,
    workload,
)
from tests.core.predict.factories import state as sound_state

from upstream_guard.core.model import ContainerPort, DrainPolicy, ObjectRef, Service, ServicePort
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.predict.rules import MERGED, inspect, inspect_routes
from upstream_guard.core.predict.state import (
    AppFacts,
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
    Shutdown,
    State,
    Strategy,
    StrategyKind,
    Workload,
    World,
)
from upstream_guard.core.predict.window import Finding, PatchKind, Severity

# Few values, so that parts of one state meet each other; and some that nobody means.
NAMES = st.sampled_from(["", "shop", "app", "nginx", "cloud-sql-proxy", "http", "metrics", "ü"])
TEXTS = st.sampled_from(["", "sh", "-c", "sleep 5; serve", "a && b", "true", "gunicorn", "node x"])
NUMBERS = st.sampled_from([80, 8080, 8080, 8081])
PORTS = st.sampled_from([80, 8080, 8080, "http", "http", "web", "", "8080"])
SHARES = st.sampled_from([0, 1, 2, "0%", "1%", "50%", "100%", "300%", "x", "%", "", "nan%"])
SECONDS = st.sampled_from([0.0, 0.4, 5.0, 30.0, 31.0, 3600.0])
MAYBE_SECONDS = st.one_of(st.none(), SECONDS)
LABEL_SETS = st.sampled_from([{}, LABELS, LABELS, {"app": "cart"}, {"app": "shop", "tier": "web"}])
COUNTS = st.sampled_from([0, 1, 2, 3, 1000])
WORDS = st.lists(TEXTS, max_size=3).map(tuple)
REFS = st.sampled_from([SHOP, SHOP, ref("x"), ObjectRef("web", "shop")])

# The API server lets no workload and no Service exist without a selector's labels.
SOME_LABELS = st.sampled_from([LABELS, {"app": "shop", "tier": "web"}])


def some(values: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=most).map(tuple)


PROBES = st.one_of(
    st.none(),
    st.builds(
        KubeProbe,
        st.sampled_from([HookKind.HTTP, HookKind.TCP, HookKind.EXEC, HookKind.GRPC]),
        st.one_of(st.none(), PORTS),
        path=st.sampled_from(["/", "/healthz"]),
        scheme=st.sampled_from(["HTTP", "HTTPS"]),
        command=WORDS,
        initial_delay=SECONDS,
        period=SECONDS,
        failure_threshold=COUNTS,
    ),
)
CONTAINERS = st.builds(
    Container,
    NAMES,
    image=st.sampled_from(["", "node", "a/b/nginx:1@sha256:0", ":", "@", "/"]),
    ports=some(st.builds(ContainerPort, st.sampled_from(["", "http", "metrics"]), NUMBERS)),
    readiness=PROBES,
    liveness=PROBES,
    startup=PROBES,
    pre_stop=st.one_of(
        st.none(), st.builds(PreStop, st.sampled_from(list(HookKind)), MAYBE_SECONDS, WORDS)
    ),
    command=WORDS,
    args=WORDS,
    env=st.dictionaries(st.sampled_from(["PORT", "GUNICORN_CMD_ARGS"]), TEXTS, max_size=1),
    sidecar=st.booleans(),
    path=st.sampled_from(["", "spec.template.spec.containers[0]"]),
)
TEMPLATES = st.builds(
    PodTemplate,
    SOME_LABELS,
    some(CONTAINERS, 3),
    grace_period=SECONDS,
    spread=st.booleans(),
    node_bound=st.booleans(),
    host_network=st.booleans(),
    claims=st.frozensets(NAMES, max_size=1),
    path=st.sampled_from(["spec", "spec.template.spec"]),
)
WORKLOADS = st.builds(
    Workload,
    st.sampled_from(["Deployment", "Deployment", "StatefulSet", "DaemonSet", "Pod", "Rollout"]),
    REFS,
    TEMPLATES,
    COUNTS,
    st.booleans(),
    st.builds(Strategy, st.sampled_from(list(StrategyKind)), SHARES, SHARES),
    SECONDS,
    deadline=SECONDS,
    match_labels=LABEL_SETS,
)
SELECTORS = st.builds(
    LabelSelector,
    LABEL_SETS,
    some(st.builds(Expression, NAMES, st.sampled_from(["In", "Exists", "?"]), some(NAMES)), 1),
)
POLICIES = st.builds(
    NetworkPolicy,
    REFS,
    SELECTORS,
    some(
        st.builds(
            IngressRule,
            some(
                st.builds(
                    Peer,
                    st.one_of(st.none(), SELECTORS),
                    st.one_of(st.none(), SELECTORS),
                    st.sampled_from(["", "10.0.0.0/8"]),
                )
            ),
            some(st.tuples(PORTS, NUMBERS)),
        )
    ),
    st.booleans(),
)
BACKENDS = st.builds(
    Backend,
    st.sampled_from(["prod", "prod", "web"]),
    st.sampled_from(["shop", "shop", "shop", "x"]),
    st.one_of(st.none(), PORTS),
    st.sampled_from(["", "spec.rules[0].backendRefs[1]", "spec.defaultBackend.service"]),
    st.sampled_from([0, 1]),
    st.sampled_from(["Service", "Service", "Bucket"]),
)
ROUTES = st.builds(
    RouteState,
    st.sampled_from(["Ingress", "HTTPRoute", "GRPCRoute", "TLSRoute"]),
    REFS,
    st.sampled_from(["", "nginx", "edge/public,edge/other"]),
    some(BACKENDS, 3),
    request_timeout=MAYBE_SECONDS,
    grpc=st.booleans(),
    backend_tls=st.booleans(),
    sticky=st.booleans(),
    annotations=st.dictionaries(NAMES, TEXTS, max_size=1),
)
SERVICES = st.builds(
    ServiceState,
    st.builds(
        Service,
        st.just(SHOP),
        st.just("uid"),
        LABEL_SETS,
        st.just("ClusterIP"),
        st.just("10.0.0.1"),
        some(
            st.builds(
                ServicePort,
                st.sampled_from(["", "http", "https", "metrics"]),
                NUMBERS,
                PORTS,
                st.sampled_from(["TCP", "TCP", "UDP"]),
                st.sampled_from(["", "https", "kubernetes.io/h2c"]),
            ),
            3,
        ),
        publish_not_ready=st.booleans(),
    ),
    external_name=st.sampled_from(["", "", "", "", "", "10.0.0.1", "x"]),
    client_ip_affinity=st.booleans(),
    annotations=st.dictionaries(NAMES, TEXTS, max_size=1),
    headless=st.booleans(),
)
QUANTITIES = st.dictionaries(
    st.sampled_from(["pods", "count/pods"]),
    st.sampled_from([0.0, 2.5, 1e9, float("inf")]),
    max_size=2,
)
WILD = st.builds(
    State,
    SERVICES,
    some(WORKLOADS, 3),
    some(ROUTES),
    some(
        st.builds(
            Budget, REFS, SELECTORS, st.one_of(st.none(), SHARES), st.one_of(st.none(), SHARES)
        )
    ),
    some(
        st.builds(
            Autoscaler,
            REFS,
            st.sampled_from(["deployment/shop", "statefulset/shop", "x"]),
            COUNTS,
            COUNTS,
        )
    ),
    some(POLICIES),
    some(st.builds(Quota, REFS, QUANTITIES, QUANTITIES), 1),
    some(
        st.builds(
            Grant,
            REFS,
            some(st.tuples(st.sampled_from(["HTTPRoute"]), st.just("web")), 1),
            some(st.tuples(st.just("Service"), NAMES), 1),
        ),
        1,
    ),
    some(
        st.builds(
            PodState, REFS, NAMES, st.sampled_from(["", "a", "b"]), st.booleans(), st.booleans()
        )
    ),
    some(st.builds(NodeState, st.sampled_from(["a", "b"]))),
    some(WORKLOADS, 1),
    st.one_of(
        st.none(), st.builds(GuardFacts, st.booleans(), SECONDS, drain=st.just(DrainPolicy()))
    ),
    st.booleans(),
    MAYBE_SECONDS,
)
SOUND = sound_state(workload(container(liveness=http_probe())), routes=(ingress(),))
PARTS = st.sets(st.sampled_from([field.name for field in fields(State)]), min_size=1, max_size=3)
STATES = st.one_of(
    WILD,
    st.builds(
        lambda wild, parts: replace(SOUND, **{part: getattr(wild, part) for part in parts}),
        WILD,
        PARTS,
    ),
)
"""Wild ones, and sound ones with a few parts of a wild one."""
ESTIMATES = st.tuples(SECONDS, SECONDS, SECONDS).map(lambda v: Estimate(*sorted(v)))
FACTS = st.builds(
    Facts,
    st.builds(
        AppFacts,
        ESTIMATES,
        st.sampled_from(list(Shutdown)),
        ESTIMATES,
        ESTIMATES,
        ESTIMATES,
        ESTIMATES,
        MAYBE_SECONDS,
        ESTIMATES,
    ),
)
GATEWAYS = st.lists(st.sampled_from([NGINX, CONTOUR, KUBE_PROXY]), max_size=3)


def assert_sound(finding: Finding) -> None:
    assert finding.risk in RISKS
    assert (finding.remedy is None) is bool(finding.no_remedy)
    assert finding.message
    assert "\n" not in finding.message
    remedy = finding.remedy
    if remedy is None:
        return
    assert remedy.reason
    assert json.loads(json.dumps(remedy.patch)) is not None
    assert isinstance(remedy.patch, tuple) is (remedy.patch_kind is PatchKind.JSON)
    assert remedy.patch
    if remedy.patch_kind is PatchKind.STRATEGIC:
        assert remedy.kind in MERGED
    if remedy.patch_kind is PatchKind.CREATE:
        assert isinstance(remedy.patch, dict)
        assert remedy.patch["kind"] == remedy.kind
        assert remedy.patch["metadata"]["namespace"] == remedy.ref.namespace


@given(STATES, GATEWAYS, FACTS)
@settings(max_examples=150)
def test_findings_are_sound_whatever_the_state(
    state: State, gateways: list[Any], known: Facts
) -> None:
    for finding in inspect(state, gateways, known):
        assert_sound(finding)


@given(STATES, GATEWAYS, FACTS)
@settings(max_examples=40)
def test_the_same_question_gets_the_same_answer(
    state: State, gateways: list[Any], known: Facts
) -> None:
    assert inspect(state, gateways, known) == inspect(state, tuple(gateways), known)


@given(some(ROUTES, 3), some(WORKLOADS), st.booleans(), st.booleans())
def test_findings_about_routes_are_sound(
    routes: tuple[RouteState, ...], workloads: tuple[Workload, ...], there: bool, complete: bool
) -> None:
    services = {SHOP: ServiceState(Service(SHOP, "u", {}, "ClusterIP", "", ()))} if there else {}
    world = World(services=services, routes=routes, workloads=workloads, complete=complete)
    for finding in inspect_routes(world):
        assert_sound(finding)
    assert ref("shop") not in services or not any(
        "`prod/shop`" in finding.message for finding in inspect_routes(world)
    )


@given(STATES, GATEWAYS, FACTS)
@settings(max_examples=60)
def test_what_a_cluster_lacks_is_never_judged_more_mildly_than_what_files_lack(
    state: State, gateways: list[Any], known: Facts
) -> None:
    def weights(complete: bool) -> list[tuple[str, int]]:
        order = [Severity.INFO, Severity.WARNING, Severity.ERROR]
        found = inspect(replace(state, complete=complete), gateways, known)
        return [(f.risk, order.index(f.severity)) for f in found]

    for of_files, of_cluster in zip(weights(False), weights(True), strict=True):
        assert of_files[0] == of_cluster[0]
        assert of_files[1] <= of_cluster[1]
