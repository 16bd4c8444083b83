"""What the status of a guard with external upstreams says, and how its addresses are probed."""

from dataclasses import replace

import pytest

from upstream_guard.core.causes import Cause
from upstream_guard.core.external import Refusal, Slot, choose, update_slots
from upstream_guard.core.external_assessment import (
    ExternalSituation,
    assess_external,
    describe_certificates,
)
from upstream_guard.core.health import Health, Verdict
from upstream_guard.core.model import (
    Guard,
    ListMode,
    ObjectRef,
    ProbeOverrides,
    ProbeProtocol,
    Service,
    ServicePort,
    Upstream,
    UpstreamListPolicy,
    UpstreamTls,
)
from upstream_guard.core.policy import ANSWER_STATUS_MAX, Unresolved, resolve_upstream_probe
from upstream_guard.core.reasons import REASONS, ConditionType, Reason
from upstream_guard.core.resolution import UpstreamState, Wanted
from upstream_guard.core.status import ConditionStatus, EndpointState

NOW = 1_800_000_000.0
API = Upstream("api.example.com", 443, tls=UpstreamTls())
GUARD = Guard(ObjectRef("prod", "api"), "g1", 1, 100.0, "payments", upstreams=(API,))
SERVICE = Service(
    ObjectRef("prod", "payments"), "s1", {}, "ClusterIP", "None", (ServicePort("api", 443, 443),)
)
SERVING = Health(Verdict.SERVING, NOW, ever_served=True)
REFUSED = Health(Verdict.FAILING, NOW, failures=2, cause=Cause.REFUSED, detail="refused")


def want(last: int, priority: int = 0) -> Wanted:
    return Wanted(f"203.0.113.{last}", 443, API.key, "api.example.com", priority)


def slots(*lasts: int, listed: bool | None = True) -> dict[str, Slot]:
    return {want(n).key: Slot(want(n), listed, NOW - 100) for n in lasts}


def situation(known, healths, guard=GUARD, served=True, **fields) -> ExternalSituation:
    by_key = {want(n).key: h for n, h in healths.items()}
    choice = choose(guard, known, by_key, NOW, service_served=served)
    fields.setdefault("upstreams", {API.key: (UpstreamState.RESOLVED, "")})
    listed = frozenset(k for k, s in choice.slots.items() if s.listed)
    return ExternalSituation(
        guard, SERVICE, choice, by_key, listed, service_served=served, **fields
    )


def conditions(found) -> dict[str, str]:
    status = assess_external(found, NOW)
    for condition in status.conditions:
        # A reason belongs to one condition, and its truth is that of its kind.
        assert REASONS[condition.reason].condition is condition.type
    return {c.type.value: f"{c.status.value} {c.reason.value}" for c in status.conditions}


def test_all_is_well():
    found = situation(slots(1, 2), {1: SERVING, 2: SERVING})
    assert conditions(found) == {
        "Accepted": "True Accepted",
        "Programmed": "True Programmed",
        "Healthy": "True AllServing",
        "AtRisk": "False NoRisk",
    }
    status = assess_external(found, NOW)
    assert (status.counts.total, status.counts.listed, status.counts.ungated) == (2, 2, 0)
    assert {e.state for e in status.endpoints} == {EndpointState.SERVING}


@pytest.mark.parametrize(
    ("found", "condition", "expected"),
    [
        (situation({}, {}), "Healthy", "False NoEndpoints"),
        (situation(slots(1), {}), "Healthy", "Unknown Pending"),
        (situation(slots(1, 2), {1: SERVING, 2: REFUSED}), "Healthy", "False EndpointsFailing"),
        (
            situation(slots(1, 2), {1: REFUSED, 2: REFUSED}, served=False),
            "Healthy",
            "False ProbeNeverSucceeded",
        ),
        (
            situation(slots(1, 2, 3), {1: SERVING, 2: REFUSED, 3: REFUSED}),
            "Healthy",
            "False FloorReached",
        ),
        (situation(slots(1, 2), {1: REFUSED, 2: REFUSED}), "Programmed", "False Blind"),
        (
            situation(slots(1), {1: SERVING}, unresolved="no port"),
            "Healthy",
            "Unknown ProbeUnresolved",
        ),
        (
            situation(slots(1), {1: SERVING}, refusals=(Refusal(API.key, "x", "why"),)),
            "Programmed",
            "False NotAllowed",
        ),
        (
            situation(
                slots(1),
                {1: SERVING},
                upstreams={API.key: (UpstreamState.LAST_KNOWN_GOOD, "SERVFAIL")},
            ),
            "AtRisk",
            "True LastKnownGood",
        ),
        (
            situation(slots(1), {1: SERVING}, certificates={API.key: NOW + 86_400}),
            "AtRisk",
            "True CertificateExpires",
        ),
        (
            situation(
                slots(1),
                {1: SERVING},
                guard=replace(GUARD, upstream_list=UpstreamListPolicy(ListMode.OBSERVE)),
            ),
            "Programmed",
            "False Observing",
        ),
    ],
)
def test_what_is_not_well_is_said(found, condition, expected):
    assert conditions(found)[condition] == expected


@pytest.mark.parametrize(
    ("known", "health", "state"),
    [
        (slots(1), SERVING, EndpointState.SERVING),
        (update_slots({}, [want(1)], NOW), Health(), EndpointState.PENDING),
        (slots(1), Health(), EndpointState.UNKNOWN),
        (update_slots(slots(1), [], NOW), SERVING, EndpointState.DRAINING),
    ],
)
def test_an_address_has_one_state(known, health, state):
    (endpoint,) = assess_external(situation(known, {1: health}), NOW).endpoints
    assert (endpoint.state, endpoint.pod, endpoint.address) == (state, "", "203.0.113.1:443")


def test_an_address_of_another_srv_priority_stands_by():
    known = update_slots({}, [want(1, 10), want(2, 20)], NOW)
    status = assess_external(situation(known, {1: SERVING, 2: SERVING}), NOW)
    assert [e.state for e in status.endpoints] == [EndpointState.SERVING, EndpointState.STANDBY]


def test_a_refused_upstream_is_told_with_its_reason():
    refusals = (Refusal(API.key, "api.example.com", "no flag covers it"),)
    (upstream,) = assess_external(situation({}, {}, refusals=refusals), NOW).upstreams
    assert (upstream.state, upstream.message) == (UpstreamState.REFUSED, "no flag covers it")


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (15 * 86_400, ()),
        (13 * 86_400, ("the certificate of api.example.com:443 ends on 2027-01-28 08:00 UTC",)),
        (-60, ("the certificate of api.example.com:443 ended on 2027-01-15 07:59 UTC",)),
    ],
)
def test_a_certificate_is_spoken_of_in_time(left, words):
    found = situation(slots(1), {1: SERVING}, certificates={API.key: NOW + left})
    assert describe_certificates(found, NOW) == words


def test_every_condition_is_there_once():
    found = [c.type for c in assess_external(situation({}, {}), NOW).conditions]
    assert found == list(ConditionType)
    accepted = assess_external(situation({}, {}), NOW).conditions[0]
    assert (accepted.status, accepted.reason) == (ConditionStatus.TRUE, Reason.ACCEPTED)


# How an address is probed


def probe(guard=GUARD, service=SERVICE, *, routed=False):
    return resolve_upstream_probe(guard, service, want(1), routed_by_http=routed)


def test_tls_is_asked_through_tls_by_the_name_of_the_upstream():
    spec = probe()
    assert (spec.protocol, spec.port, spec.host) == (ProbeProtocol.HTTPS, 443, "api.example.com")
    assert (spec.path, spec.status_max) == ("/", ANSWER_STATUS_MAX)


def test_the_server_name_wins_over_the_host():
    upstream = replace(API, tls=UpstreamTls("origin.example.com"))
    assert probe(replace(GUARD, upstreams=(upstream,))).host == "origin.example.com"


@pytest.mark.parametrize(
    ("port", "routed", "protocol", "host"),
    [
        (ServicePort("api", 443, 443), False, ProbeProtocol.TCP, ""),
        (ServicePort("api", 443, 443), True, ProbeProtocol.HTTP, "api.example.com"),
        (ServicePort("http", 80, 80), False, ProbeProtocol.HTTP, "api.example.com"),
        (ServicePort("x", 443, 443, "TCP", "https"), False, ProbeProtocol.HTTPS, "api.example.com"),
    ],
)
def test_without_tls_the_service_port_and_routes_tell(port, routed, protocol, host):
    plain = replace(GUARD, upstreams=(replace(API, tls=None),))
    spec = probe(plain, replace(SERVICE, ports=(port,)), routed=routed)
    assert (spec.protocol, spec.host, spec.port) == (protocol, host, 443)


def test_the_users_word_wins():
    own = ProbeOverrides(protocol=ProbeProtocol.HTTP, port=8080, path="/healthz", host="other")
    spec = probe(replace(GUARD, probe=own))
    assert (spec.protocol, spec.port, spec.path, spec.host) == (
        ProbeProtocol.HTTP,
        8080,
        "/healthz",
        "other",
    )
    assert spec.status_max == 399


def test_a_service_without_tcp_port_cannot_be_probed():
    udp = replace(SERVICE, ports=(ServicePort("dns", 53, 53, "UDP"),))
    assert isinstance(probe(service=udp), Unresolved)
