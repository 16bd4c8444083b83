"""What evaluations tell detection, of pods and of external upstreams."""

from dataclasses import replace

import pytest
from tests.core.test_assessment import pod
from tests.core.test_assessment import situation as situation_of_pods
from tests.core.test_detect import prediction
from tests.core.test_external_assessment import API, NOW, REFUSED, SERVING, situation, slots

from upstream_guard.core.causes import Cause
from upstream_guard.core.ground import (
    FRESH_SECONDS,
    MAX_WORDS,
    ground_of_pods,
    ground_of_upstreams,
    told_by_edits,
)
from upstream_guard.core.health import Health
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.resolution import UpstreamState

EDIT = replace(
    prediction(NOW, NOW + 600),
    change=ChangeKind.EDIT,
    subject="networkpolicy/deny",
    cause=Cause.BLOCKED,
    message="it lets nobody in",
)


class TestPods:
    def test_each_is_an_endpoint_with_its_own_probes(self) -> None:
        a, b = replace(pod("a"), ip="10.0.0.1"), replace(pod("b"), ip="10.0.0.2")
        found = ground_of_pods(
            situation_of_pods(a, b, ports={a.uid: 8080, b.uid: 8080}, listed=frozenset({a.uid})),
            NOW,
        )
        assert {e.address: e.listed for e in found.endpoints} == {
            "10.0.0.1:8080": True,
            "10.0.0.2:8080": False,
        }
        assert found.keys == {"10.0.0.1:8080": a.uid, "10.0.0.2:8080": b.uid}
        assert (found.trusted, found.wanted) == (True, 2)

    def test_one_that_stops_is_none_of_the_list(self) -> None:
        a = replace(pod("a"), ip="10.0.0.1", terminating=True)
        found = ground_of_pods(situation_of_pods(a, ports={a.uid: 8080}), NOW)
        assert [e.listed for e in found.endpoints] == [False]
        assert found.wanted == 0

    def test_one_that_is_not_probed_is_left_out(self) -> None:
        assert ground_of_pods(situation_of_pods(pod("a")), NOW).endpoints == ()


class TestEdits:
    def test_say_what_they_break(self) -> None:
        told = told_by_edits([EDIT], NOW + 1)
        assert told == {Cause.BLOCKED: "edit of networkpolicy/deny: it lets nobody in"}

    def test_other_changes_say_nothing(self) -> None:
        assert told_by_edits([replace(EDIT, change=ChangeKind.ROLLOUT)], NOW) == {}

    def test_what_has_gone_well_since_was_not_broken(self) -> None:
        assert told_by_edits([EDIT], NOW + FRESH_SECONDS) == {}

    def test_words_are_bounded(self) -> None:
        (words,) = told_by_edits([replace(EDIT, message="x" * 1000)], NOW).values()
        assert len(words) == MAX_WORDS


class TestUpstreams:
    def test_each_address_is_an_endpoint(self) -> None:
        found = ground_of_upstreams(situation(slots(1, 2), {1: SERVING, 2: REFUSED}), NOW)
        assert [e.address for e in found.endpoints] == ["203.0.113.1:443", "203.0.113.2:443"]
        assert [e.health for e in found.endpoints] == [SERVING, REFUSED]
        assert (found.trusted, found.wanted, found.told) == (True, 2, {})
        assert found.keys == {key: key for key in slots(1, 2)}

    def test_one_that_dns_no_longer_names_is_about_to_leave(self) -> None:
        known = slots(1, 2)
        known = {
            key: replace(s, left_at=NOW - 1 if "0.113.2" in key else 0.0)
            for key, s in known.items()
        }
        found = ground_of_upstreams(situation(known, {1: SERVING, 2: SERVING}), NOW)
        assert {e.address: e.listed for e in found.endpoints}["203.0.113.1:443"]
        assert found.wanted == 1

    def test_what_never_served_is_not_trusted(self) -> None:
        blind = situation(slots(1), {1: Health()}, served=False)
        assert not ground_of_upstreams(blind, NOW).trusted

    @pytest.mark.parametrize(
        ("state", "told"),
        [
            (UpstreamState.UNRESOLVED, {Cause.DNS: "api.example.com:443 does not resolve"}),
            (UpstreamState.LAST_KNOWN_GOOD, {}),
            (UpstreamState.PENDING, {}),
        ],
    )
    def test_a_name_without_any_address_is_told(
        self, state: UpstreamState, told: dict[Cause, str]
    ) -> None:
        found = situation({}, {}, upstreams={API.key: (state, "SERVFAIL")})
        assert ground_of_upstreams(found, NOW).told == told

    @pytest.mark.parametrize(("end", "told"), [(NOW - 60, True), (NOW + 60, False)])
    def test_a_certificate_that_has_ended_is_told(self, end: float, told: bool) -> None:
        found = situation(slots(1), {1: SERVING}, certificates={API.key: end})
        words = ground_of_upstreams(found, NOW).told
        assert (Cause.TLS in words) is told
        if told:
            assert words[Cause.TLS].startswith("the certificate of api.example.com:443 ended on")
