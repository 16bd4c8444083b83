"""The classifier: each cause as it shows at each gateway, and what must hold of any evidence."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upstream_guard.core.causes import Cause
from upstream_guard.core.classify import (
    MAX_EVIDENCE,
    PACES,
    Case,
    EndpointSeen,
    RouteSeen,
    Sign,
    classify,
    evidence,
    is_foreign_page,
    rank,
    sign_row,
)
from upstream_guard.core.evidence import Failure, RouteKey
from upstream_guard.core.likelihoods import CIRCUMSTANCES, COUNTED, DIRECT, PRIORS
from upstream_guard.core.observed import Extent
from upstream_guard.core.predict.gateway import UNKNOWN_BEHAVIOUR, Behaviour
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.gateways import PROFILES
from upstream_guard.gateways.behaviour import model_of

SHOP = RouteKey("public", "Ingress prod/shop", "shop.example", "/")
CART = RouteKey("public", "Ingress prod/cart", "shop.example", "/cart")
ENVOY = "upstream connect error or disconnect/reset before headers. reset reason: "
HAPROXY = "<h1>502 Bad Gateway</h1>\nThe server returned an invalid or incomplete response."
HAPROXY_503 = "<h1>503 Service Unavailable</h1>\nNo server is available to handle this request."
HAPROXY_504 = "<h1>504 Gateway Time-out</h1>\nThe server didn't respond in time."


def behaviour(controller: str) -> Behaviour:
    profile = PROFILES[controller]
    return model_of(profile.facts("public", GatewayKind.INGRESS_CLASS)).behaviour


def good(count: int = 3) -> tuple[EndpointSeen, ...]:
    return tuple(
        EndpointSeen(f"10.0.0.{n}:8080", f"node-{n}", "a", good=True) for n in range(1, count + 1)
    )


def bad(cause: Cause, failing: int = 3, of: int = 3) -> tuple[EndpointSeen, ...]:
    return tuple(
        replace(e, good=False, cause=cause, detail="seen") if n < failing else e
        for n, e in enumerate(good(of))
    )


def leaving() -> tuple[EndpointSeen, ...]:
    gone = EndpointSeen("10.0.0.9:8080", "node-1", "a", listed=False, left=True)
    return (*good(), gone)


def met(
    status: int, words: str = "", *, pace: float = 0.0, times: int = 5, ok: int = 0,
    cause: Cause | None = None, key: RouteKey = SHOP, server: str = "",
) -> RouteSeen:  # fmt: skip
    return RouteSeen(key, ok, {Sign(status, cause, words, pace, server): times})


GATEWAYS = ("nginx", "haproxy", "contour", "caddy")
BY_DIRECT = {
    # What each of the four answers, and what their bodies say.
    Cause.REFUSED: (
        met(502), met(503, HAPROXY_503, pace=3.0), met(503, ENVOY + "remote connection failure, transport failure reason: delayed connect error: Connection refused"), met(502),
    ),
    Cause.RESET: (met(502), met(502, HAPROXY), met(503, ENVOY + "connection termination"), met(502)),
    Cause.EARLY_CLOSE: (met(502), met(502, HAPROXY), met(503, ENVOY + "connection termination"), met(502)),
    Cause.MALFORMED: (met(502), met(502, HAPROXY), met(502, ENVOY + "protocol error"), met(502)),
    Cause.OVERSIZED_HEADER: (met(502), met(502, HAPROXY), met(502, ENVOY + "protocol error"), met(502)),
    Cause.CONNECT_TIMEOUT: (
        met(0, cause=Cause.READ_TIMEOUT, pace=2.0), met(503, HAPROXY_503, pace=15.0), met(503, ENVOY + "connection timeout", pace=2.0), met(502, pace=3.0),
    ),
    Cause.READ_TIMEOUT: (
        met(0, cause=Cause.READ_TIMEOUT, pace=2.0), met(504, HAPROXY_504, pace=5.0), met(504, "upstream request timeout", pace=15.0), met(0, cause=Cause.READ_TIMEOUT, pace=5.0),
    ),
    Cause.TLS: (met(502), met(503, HAPROXY_503), met(503, ENVOY + "remote connection failure, transport failure reason: TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end"), met(502)),
    Cause.PROTOCOL_MISMATCH: (met(502), met(502, HAPROXY), met(502, ENVOY + "protocol error"), met(502)),
    Cause.APP_ERROR: (met(503), met(503, server="gunicorn"), met(503), met(503)),
}  # fmt: skip


@pytest.mark.parametrize("failing", [1, 3], ids=["one endpoint", "every endpoint"])
@pytest.mark.parametrize("number", range(4), ids=GATEWAYS)
@pytest.mark.parametrize("cause", BY_DIRECT)
def test_cause_that_the_operator_meets_itself(cause: Cause, number: int, failing: int) -> None:
    case = Case(
        behaviour=behaviour(GATEWAYS[number]),
        endpoints=bad(cause, failing),
        routes=(BY_DIRECT[cause][number],),
    )
    found = classify(case)
    assert found.cause is cause
    assert found.confidence >= 60
    assert len(found.endpoints) == failing
    assert found.extent is (Extent.ENDPOINT if failing == 1 else Extent.SERVICE)
    assert f"direct probes: {failing} of 3 endpoints fail, {cause}" in found.evidence


@pytest.mark.parametrize("number", range(4), ids=GATEWAYS)
def test_a_gateway_that_refuses_is_down_also_while_pods_are_replaced(number: int) -> None:
    """What our own connection to the gateway met says nothing of the gateway's to the pods."""
    found = classify(
        Case(
            behaviour=behaviour(GATEWAYS[number]),
            endpoints=(
                *good(),
                *(replace(leaving()[-1], address=f"10.0.1.{n}:8080") for n in range(3)),
            ),
            routes=(met(0, "connection refused", cause=Cause.REFUSED, times=63, ok=105),),
        )
    )
    assert found.cause is Cause.GATEWAY_DOWN
    assert found.confidence >= 60


def test_one_answer_at_many_paces_is_no_more_evidence_than_at_one() -> None:
    paced = {Sign(502, pace=pace): 2 for pace in (0.0, 0.5, 1.0)}
    case = Case(behaviour=behaviour("caddy"), endpoints=bad(Cause.READ_TIMEOUT))
    many = classify(replace(case, routes=(RouteSeen(SHOP, 0, paced),)))
    one = classify(replace(case, routes=(met(502, times=6),)))
    assert abs(many.confidence - one.confidence) <= 1
    assert "6 of 6 answered 502" in many.evidence


def test_endpoints_that_left_in_good_health_are_not_counted_among_those_that_fail() -> None:
    found = classify(Case(endpoints=(*bad(Cause.RESET, 1), leaving()[-1])))
    assert "direct probes: 1 of 3 endpoints fail, reset" in found.evidence


@pytest.mark.parametrize("cause", BY_DIRECT)
def test_direct_probes_alone_are_enough(cause: Cause) -> None:
    found = classify(Case(endpoints=bad(cause)))
    assert found.cause is cause
    assert found.confidence >= 60


@pytest.mark.parametrize(
    ("controller", "route", "counted", "statuses"),
    [
        ("contour", met(503, ENVOY + "remote connection failure", times=58, ok=7), 296, {503: 297}),
        ("haproxy", met(0, cause=Cause.READ_TIMEOUT, pace=1.0, times=12, ok=1), 129, {}),
    ],
)
def test_a_handshake_that_fails_is_a_failed_connection_to_the_gateway(
    controller: str, route: RouteSeen, counted: int, statuses: dict[int, int]
) -> None:
    """TLS to an app that has forgotten it, as two gateways of the fault matrix showed it."""
    failures = {Failure.CONNECT: counted}
    for cause in (Cause.PROTOCOL_MISMATCH, Cause.TLS):
        case = Case(behaviour(controller), bad(cause), (route,), statuses, failures)
        found = classify(case)
        assert found.cause is cause
        assert found.confidence >= 50
    refusing = Case(behaviour(controller), bad(Cause.REFUSED), (route,), statuses, failures)
    assert classify(refusing).cause is Cause.REFUSED


@pytest.mark.parametrize("controller", ["contour", "haproxy", "nginx"])
def test_a_page_that_is_none_of_the_gateways_is_the_apps(controller: str) -> None:
    """An app's own 503 looks like many failures by its status, and like none of them by its body."""
    own = met(503, '{"pod":"shop-1","status":503}', times=20)
    page = {"contour": "no healthy upstream", "haproxy": HAPROXY_503}.get(
        controller, "nginx/1.22.1"
    )
    case = Case(behaviour(controller), endpoints=bad(Cause.APP_ERROR), routes=(own,))
    assert classify(case).cause is Cause.APP_ERROR
    theirs = replace(case, endpoints=(), routes=(met(503, page, times=20),))
    assert classify(theirs).cause is not Cause.APP_ERROR


def test_more_than_the_gateway_lets_through_at_once() -> None:
    """As Envoy shows it, with its probes good: the app is slow, and not at fault."""
    words = ENVOY + "overflow"
    found = classify(
        Case(
            behaviour=behaviour("contour"),
            endpoints=good(),
            routes=(met(503, words, times=30, ok=6),),
            statuses={503: 200},
            failures={Failure.OVERFLOW: 200},
            path="/",
        )
    )
    assert found.cause is Cause.OVERLOAD
    assert found.confidence >= 90


def test_a_list_that_is_empty_because_every_endpoint_fails_is_not_why() -> None:
    """Seen in the fault matrix: Contour, every app killed, and the kubelet takes its time to say that they are back."""
    case = Case(
        behaviour("contour"),
        bad(Cause.REFUSED),
        routes=(met(503, "no healthy upstream", times=11), met(503, ENVOY + "remote connection failure", times=13)),
        statuses={503: 198},
        failures={Failure.EMPTY: 57, Failure.CONNECT: 133, Failure.RESPONSE: 7},
        empty=True,
    )  # fmt: skip
    found = classify(case)
    assert found.cause is Cause.REFUSED
    for_longer = replace(
        case,
        endpoints=tuple(replace(e, listed=False) for e in case.endpoints),
        routes=(met(503, "no healthy upstream", times=70), met(503, ENVOY + "remote connection failure", times=25)),
        statuses={503: 584},
        failures={Failure.EMPTY: 356, Failure.CONNECT: 198},
        usable=frozenset(),
    )  # fmt: skip
    assert classify(for_longer).cause is Cause.REFUSED
    in_back_off = replace(
        for_longer,
        routes=(met(503, "no healthy upstream", times=266),),
        failures={Failure.EMPTY: 1266},
    )
    assert classify(in_back_off).cause is Cause.REFUSED
    nobody = replace(
        case, endpoints=tuple(replace(e, left=True, listed=False) for e in case.endpoints)
    )
    assert classify(nobody).cause is Cause.NO_ENDPOINTS


def test_what_one_request_of_many_met_is_not_why() -> None:
    """Seen in the fault matrix: HAProxy, every pod deleted, and one request met a pod that was just ending."""
    gone = tuple(replace(e, listed=False, left=True, good=False) for e in good(1))
    case = Case(
        behaviour("haproxy"),
        gone,
        routes=(
            met(502, HAPROXY, times=1),
            met(0, "no response in time", pace=2.0, times=32, cause=Cause.READ_TIMEOUT),
        ),
        failures={Failure.CONNECT: 45, Failure.RESPONSE: 2},
        empty=True,
    )
    found = classify(case)
    assert found.cause is Cause.NO_ENDPOINTS
    assert "answered 502" not in found.evidence
    assert "2 × connection broken" not in found.evidence


class TestBlocked:
    """Direct probes are good, and between gateway and endpoints packets are dropped."""

    @pytest.mark.parametrize(
        ("gateway", "route"),
        [
            ("nginx", met(0, cause=Cause.READ_TIMEOUT, pace=2.0)),
            ("haproxy", met(503, HAPROXY_503, pace=10.0)),
            ("contour", met(503, ENVOY + "connection timeout", pace=2.0)),
            ("caddy", met(502, pace=3.0)),
        ],
    )
    def test_silence(self, gateway: str, route: RouteSeen) -> None:
        found = classify(Case(behaviour(gateway), good(), (route,), path="/"))
        assert found.cause is Cause.BLOCKED
        assert "direct probes: all 3 listed endpoints serve" in found.evidence

    def test_a_good_route_to_the_same_service_speaks_against_it(self) -> None:
        hangs = met(0, cause=Cause.READ_TIMEOUT, pace=2.0, key=CART)
        found = classify(Case(behaviour("nginx"), good(), (RouteSeen(SHOP, 9), hangs)))
        assert found.cause is Cause.READ_TIMEOUT
        assert found.extent is Extent.ROUTE


class TestStale:
    @pytest.mark.parametrize(
        ("gateway", "route"),
        [
            ("nginx", met(502, ok=9)),
            ("haproxy", met(503, HAPROXY_503, pace=3.0, ok=9)),
            ("contour", met(503, ENVOY + "remote connection failure, transport failure reason: delayed connect error: Connection refused", ok=9)),
            ("caddy", met(502, ok=9)),
        ],
    )  # fmt: skip
    def test_pods_that_stop_while_the_others_serve(self, gateway: str, route: RouteSeen) -> None:
        case = Case(
            behaviour(gateway),
            leaving(),
            (route,),
            change="rollout of deployment/shop",
            removes=True,
        )
        found = classify(case)
        assert found.cause is Cause.STALE_UPSTREAM
        assert found.endpoints == ("10.0.0.9:8080",)
        assert found.extent is Extent.ENDPOINT

    def test_the_gateways_own_list_says_so(self) -> None:
        usable = frozenset({"10.0.0.1:8080", "10.0.0.9:8080"})
        gone = EndpointSeen("10.0.0.9:8080", listed=False)
        case = Case(behaviour("contour"), (*good(), gone), (met(503),), usable=usable)
        found = classify(case)
        assert found.cause is Cause.STALE_UPSTREAM
        assert found.confidence >= 80
        assert "the gateway uses 10.0.0.9:8080, which left the list" in found.evidence

    def test_a_crash_is_no_stale_list_though_the_endpoint_is_ejected_at_once(self) -> None:
        crashed = EndpointSeen("10.0.0.9:8080", listed=False, cause=Cause.REFUSED)
        found = classify(Case(behaviour("contour"), (*good(), crashed), (met(503, ok=3),)))
        assert found.cause is Cause.REFUSED

    def test_without_a_view_of_the_operator_no_list_is_called_stale(self) -> None:
        case = Case(usable=frozenset({"10.0.0.9:8080"}), statuses={502: 3})
        assert classify(case).cause is not Cause.STALE_UPSTREAM


class TestKeepaliveRace:
    @pytest.mark.parametrize(
        ("gateway", "route"),
        [
            ("nginx", met(502, times=2, ok=60)),
            ("haproxy", met(0, cause=Cause.EARLY_CLOSE, times=2, ok=60)),
            ("contour", met(503, ENVOY + "connection termination", times=2, ok=60)),
            ("caddy", met(502, times=2, ok=60)),
        ],
    )
    def test_now_and_then_and_never_directly(self, gateway: str, route: RouteSeen) -> None:
        found = classify(Case(behaviour(gateway), good(), (route,), app_idle=2.0))
        assert found.cause is Cause.KEEPALIVE_RACE

    def test_an_app_that_waits_longer_is_not_suspected_as_much(self) -> None:
        short = Case(behaviour("nginx"), good(), (met(502, ok=60),), app_idle=2.0)
        by_cause = dict(rank(evidence(short)))
        longer = dict(rank(evidence(replace(short, app_idle=300.0))))
        assert longer[Cause.KEEPALIVE_RACE] < by_cause[Cause.KEEPALIVE_RACE]


class TestOthers:
    @pytest.mark.parametrize("gateway", GATEWAYS)
    @pytest.mark.parametrize(
        "how", [Cause.REFUSED, Cause.CONNECT_TIMEOUT, Cause.UNREACHABLE, Cause.TLS]
    )
    def test_gateway_down(self, gateway: str, how: Cause) -> None:
        found = classify(Case(behaviour(gateway), good(), (met(0, cause=how),)))
        assert (found.cause, found.extent) == (Cause.GATEWAY_DOWN, Extent.GATEWAY)
        assert found.endpoints == ()

    @pytest.mark.parametrize(
        ("gateway", "route"),
        [
            ("ingress-nginx", met(503)),
            ("haproxytech", met(503, HAPROXY_503)),
            ("contour", met(503, "no healthy upstream")),
            ("caddy", met(502, pace=3.0)),
            ("nginx", met(0, cause=Cause.READ_TIMEOUT, pace=2.0)),
        ],
    )
    def test_empty_list(self, gateway: str, route: RouteSeen) -> None:
        gone = tuple(replace(e, listed=False) for e in good())
        found = classify(Case(behaviour(gateway), gone, (route,)))
        assert (found.cause, found.endpoints) == (Cause.NO_ENDPOINTS, ())

    @pytest.mark.parametrize("gateway", GATEWAYS)
    def test_overload_by_the_gateways_own_limits(self, gateway: str) -> None:
        case = Case(behaviour(gateway), good(), (met(503, ok=9),), failures={Failure.OVERFLOW: 12})
        assert classify(case).cause is Cause.OVERLOAD

    def test_overload_in_envoys_words(self) -> None:
        case = Case(behaviour("contour"), good(), (met(503, ENVOY + "overflow"),))
        assert classify(case).cause is Cause.OVERLOAD

    def test_name_that_the_operator_cannot_resolve_either(self) -> None:
        told = {Cause.DNS: "origin.example does not resolve"}
        found = classify(Case(behaviour("nginx"), (), (met(502),), told=told))
        assert found.cause is Cause.DNS
        assert "origin.example does not resolve" in found.evidence

    def test_certificate_that_only_the_gateway_refuses(self) -> None:
        words = (
            ENVOY
            + "remote connection failure, transport failure reason: TLS_error:|CERTIFICATE_VERIFY_FAILED"
        )
        found = classify(Case(behaviour("contour"), good(), (met(503, words),)))
        assert found.cause is Cause.TLS

    def test_the_apps_own_error_by_its_header(self) -> None:
        found = classify(Case(behaviour("haproxy"), good(), (met(503, server="gunicorn"),)))
        assert found.cause is Cause.APP_ERROR

    def test_a_flag_in_a_header_is_read_as_a_word(self) -> None:
        case = Case(behaviour("envoy-gateway"), routes=(met(503, "UF,URX"),))
        assert classify(case).cause in {Cause.REFUSED, Cause.STALE_UPSTREAM}
        assert Cause.OVERLOAD not in dict(classify(case).others)

    def test_metrics_alone(self) -> None:
        case = Case(behaviour("contour"), good(), statuses={503: 40}, failures={Failure.TIMEOUT: 0})
        assert "40 × 503" in classify(case).evidence
        slow = Case(behaviour("contour"), statuses={504: 40}, failures={Failure.TIMEOUT: 40})
        assert classify(slow).cause is Cause.READ_TIMEOUT

    def test_nothing_known(self) -> None:
        found = classify(Case())
        assert found.confidence < 30
        assert found.evidence == ""


class TestExtent:
    def test_one_node(self) -> None:
        node = tuple(
            EndpointSeen(f"10.0.0.{n}:80", "node-a" if n < 3 else "node-b", "a",
                         good=n >= 3, cause=Cause.CONNECT_TIMEOUT if n < 3 else None)
            for n in range(1, 6)
        )  # fmt: skip
        found = classify(Case(endpoints=node))
        assert found.extent is Extent.NODE
        assert found.endpoints == ("10.0.0.1:80", "10.0.0.2:80")

    def test_one_zone(self) -> None:
        zones = tuple(
            EndpointSeen(f"10.0.0.{n}:80", f"node-{n}", "a" if n < 3 else "b",
                         good=n >= 3, cause=Cause.CONNECT_TIMEOUT if n < 3 else None)
            for n in range(1, 6)
        )  # fmt: skip
        assert classify(Case(endpoints=zones)).extent is Extent.ZONE

    def test_everything_behind_a_gateway(self) -> None:
        case = Case(behaviour("nginx"), good(), (met(502),), neighbours=2, neighbours_known=2)
        assert classify(case).extent is Extent.GATEWAY

    def test_many_endpoints_are_cut(self) -> None:
        assert len(classify(Case(endpoints=bad(Cause.REFUSED, 30, 40))).endpoints) == 10


# What holds of any evidence.

causes = st.sampled_from(Cause)
behaviours = st.sampled_from([UNKNOWN_BEHAVIOUR, *(behaviour(name) for name in sorted(PROFILES))])
counts = st.integers(0, 10**6)
words = st.one_of(
    st.text(max_size=60), st.sampled_from(["UF,URX", ENVOY + "overflow", HAPROXY, "no healthy upstream"])
)  # fmt: skip
signs = st.builds(
    Sign, st.sampled_from([0, 200, 500, 502, 503, 504, 999]), st.none() | causes, words,
    st.sampled_from(PACES), st.sampled_from(["", "nginx", "envoy"]),
)  # fmt: skip
endpoints = st.builds(
    EndpointSeen, st.sampled_from([f"10.0.0.{n}:80" for n in range(5)]), st.sampled_from(["", "n1"]),
    st.sampled_from(["", "z"]), st.booleans(), st.booleans(), st.none() | causes, words,
    st.booleans(),
)  # fmt: skip
routes = st.builds(
    RouteSeen, st.sampled_from([SHOP, CART]), counts, st.dictionaries(signs, counts, max_size=3), counts,
)  # fmt: skip
cases = st.builds(
    Case, behaviours, st.lists(endpoints, max_size=5).map(tuple), st.lists(routes, max_size=2).map(tuple),
    st.dictionaries(st.integers(0, 999), counts, max_size=3),
    st.dictionaries(st.sampled_from(Failure), counts, max_size=4),
    st.dictionaries(st.sampled_from(["10.0.0.1:80", ""]), counts, max_size=2),
    st.none() | st.frozensets(st.sampled_from(["10.0.0.1:80", "10.0.0.7:80"])),
    st.integers(0, 3), st.integers(0, 3), words, st.booleans(), st.none() | st.floats(),
    st.sampled_from(["", "/"]), st.dictionaries(causes, words, max_size=2),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(cases)
def test_any_case_gets_an_answer(case: Case) -> None:
    found = classify(case)
    shares = [found.confidence, *(percent for _, percent in found.others)]
    assert all(0 <= percent <= 100 for percent in shares)
    assert shares == sorted(shares, reverse=True)
    assert len({found.cause, *(c for c, _ in found.others)}) == len(shares)
    assert len(found.evidence) <= MAX_EVIDENCE
    assert len(found.endpoints) <= 10


def place(case: Case, cause: Cause) -> int:
    return [c for c, _ in rank(evidence(case))].index(cause)


@settings(deadline=None, max_examples=60)
@given(cases, signs, st.integers(1, 1000))
def test_more_of_the_same_answers_never_lowers_what_they_speak_for(
    case: Case, sign: Sign, more: int
) -> None:
    row = sign_row(sign, case.behaviour)
    favoured = max(row, key=lambda cause: row[cause])
    # Circumstances (more answered than failed) are other evidence, so one that is settled is given.
    once = replace(case, routes=(RouteSeen(SHOP, 0, {sign: 1}, 1),))
    again = replace(case, routes=(RouteSeen(SHOP, 0, {sign: 1 + more}, 1),))
    by_header = sign.server and case.behaviour.bare_pages
    if not by_header and not is_foreign_page(sign, case.behaviour):
        assert place(again, favoured) <= place(once, favoured)


@settings(deadline=None, max_examples=60)
@given(cases, st.sampled_from(list(COUNTED)), st.integers(1, 1000), st.integers(1, 1000))
def test_more_counted_failures_never_lower_what_they_speak_for(
    case: Case, kind: Failure, some: int, more: int
) -> None:
    row = COUNTED[kind]
    favoured = max(row, key=lambda cause: row[cause])
    once = replace(case, failures={**case.failures, kind: some})
    again = replace(case, failures={**case.failures, kind: some + more})
    assert place(again, favoured) <= place(once, favoured)


@settings(deadline=None, max_examples=60)
@given(cases, st.sampled_from(list(DIRECT)))
def test_one_more_failing_endpoint_never_lowers_its_cause(case: Case, cause: Cause) -> None:
    failing = EndpointSeen("10.0.1.1:80", listed=True, cause=cause)
    before = replace(case, endpoints=(*case.endpoints, replace(failing, address="10.0.1.2:80")))
    after = replace(before, endpoints=(*before.endpoints, failing))
    assert place(after, cause) <= place(before, cause)


@settings(deadline=None, max_examples=60)
@given(cases, causes)
def test_what_is_known_by_other_ways_never_lowers_its_cause(case: Case, cause: Cause) -> None:
    before = replace(case, told={})
    assert place(replace(before, told={cause: "known"}), cause) <= place(before, cause)


def test_tables_are_whole_and_finite() -> None:
    assert PRIORS.keys() == set(Cause)
    rows = [*DIRECT.values(), *COUNTED.values(), *CIRCUMSTANCES.values()]
    assert all(math.isfinite(weight) for row in rows for weight in row.values())
    assert all(max(row, key=lambda c: row[c]) is cause for cause, row in DIRECT.items())
