"""The fault matrix: its rows, how trials are put together and added up, and what people read."""

import asyncio
import os
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from upstream_guard import cli
from upstream_guard.core.causes import Cause
from upstream_guard.core.model import Guard, ObjectRef, ProbeProtocol, ProbeSpec
from upstream_guard.core.policy import resolve_probe
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.kube.client import ApiError
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.tally import Record
from upstream_guard.lab.faults import inject, pulse, report, runner
from upstream_guard.lab.faults.model import Scene, Told, Trial, Wire, felt, make_trial
from upstream_guard.lab.faults.pulse import Operator, Pulse, pulse_of, unready
from upstream_guard.lab.faults.report import Loss, TrialFile
from upstream_guard.lab.faults.runner import (
    NotMeasuredError,
    Place,
    Plan,
    Watch,
    guard,
    minutes,
    rounds,
    service_name,
    services,
    until,
)
from upstream_guard.lab.faults.secured import secured_deployment, secured_service
from upstream_guard.lab.faults.table import BY_NAME, FAULTS
from upstream_guard.lab.gateways import GATEWAYS, envoy_gateway, support
from upstream_guard.lab.gateways.model import RunningGateway
from upstream_guard.lab.gateways.profile import canary_target, gateway_key, gateway_profile
from upstream_guard.lab.images import SAMPLES
from upstream_guard.lab.model import LabError
from upstream_guard.lab.packages import find_program
from upstream_guard.lab.replicas import Replica
from upstream_guard.resources.kube_objects import parse_pod, parse_service
from upstream_guard.resources.profile import parse_profile

BEGAN = 1000.0
RENEWED = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
TOLD = Told(
    id="w-1", ranked=(("refused", 90), ("stale-upstream", 8)), extent="service", opened=1000.2,
    detected=1000.6, seen=1000.8, event=1000.7, closed=1006.0, lost=20, counted="estimated",
    eyes=("route",), predicted=False, evidence="3 of 3 endpoints refuse",
)  # fmt: skip
BASE = Trial("nginx", "refused", 1, BEGAN, ("refused",), rate=40.0)
TRIAL = replace(
    BASE, requests=300, failed=20, first_lost=1000.2, statuses={"502": 20}, windows=(TOLD,)
)
RESET = replace(TOLD, ranked=(("reset", 90),))


def window(opened: float, cause: Cause = Cause.REFUSED, lost: int = 20) -> Told:
    return replace(
        TOLD, id=f"w-{opened}", ranked=((cause.value, 90),), opened=opened, detected=opened + 0.4,
        seen=opened + 0.7, event=opened + 0.5, lost=lost,
    )  # fmt: skip


def shown(identity: str, opened: str, **more: object) -> dict[str, object]:
    """A window as a guard's status shows it."""
    return {
        "id": identity, "cause": "refused", "confidencePercent": 90, "extent": "service",
        "otherCauses": [{"cause": "reset", "percent": 5}], "opened": opened, "detected": opened,
        "lostRequests": 20, "counted": "estimated", "eyes": ["route"], "predicted": False, **more,
    }  # fmt: skip


def event(window: str, name: str = "shop", reason: str = "WindowOpened") -> dict[str, object]:
    return {
        "reason": reason, "regarding": {"kind": "UpstreamGuard", "name": name},
        "note": f"{window} (public): requests failed with 3 × 502; cause refused 90 %",
        "eventTime": "1970-01-01T00:16:40.512345Z",
    }  # fmt: skip


def healthy(**status: object) -> dict[str, object]:
    """A guard whose windows would be seen."""
    condition = {"status": "True", "observedGeneration": 4}
    return {
        "metadata": {"name": "shop", "generation": 4},
        "status": {
            "conditions": [{"type": kind, **condition} for kind in ("Accepted", "Healthy")],
            "endpoints": {"serving": 3, "listed": 3},
            "routes": [{"gateway": "nginx", "url": "http://shop.test/"}],
            "windows": [shown("w-1", "1970-01-01T00:16:40Z", closed="1970-01-01T00:16:46Z")],
            **status,
        },
    }


class TestPulse:
    CREW = (Replica("operator-1", os.getpid(), 0, Path()), Replica("operator-2", 0, 0, Path()))

    def lease(self, holder: str = "operator-1", **spec: object) -> dict[str, object]:
        renewed = "2026-01-01T00:00:00.000000Z"
        return {
            "spec": {
                "holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 10,
                "leaseTransitions": 3, **spec,
            }
        }  # fmt: skip

    def test_is_of_the_replica_that_holds_a_fresh_lease(self) -> None:
        found = pulse_of(self.lease(), self.CREW, RENEWED + 5)
        assert found == Pulse("operator-1", 3, os.getpid())
        assert pulse_of(self.lease("pod-7f"), (), RENEWED + 5) == Pulse("pod-7f", 3)

    def test_is_another_where_the_same_replica_was_started_again(self) -> None:
        again = (replace(self.CREW[0], pid=os.getppid()),)
        before = pulse_of(self.lease(), self.CREW, RENEWED)
        assert before != pulse_of(self.lease(), again, RENEWED)
        assert before != pulse_of(self.lease(leaseTransitions=4), self.CREW, RENEWED)

    @pytest.mark.parametrize(
        ("holder", "later"), [("operator-1", 11), ("", 0), ("operator-2", 0), ("stranger", 0)]
    )
    def test_nobody_controls(self, holder: str, later: float) -> None:
        crew = (self.CREW[0], replace(self.CREW[1], pid=2**22 + 1))
        assert pulse_of(self.lease(holder), crew, RENEWED + later) is None

    def test_a_guard_in_order_lacks_nothing(self) -> None:
        assert unready(healthy(), 3) == ""

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            ({"conditions": []}, "not Accepted: not said yet"),
            (
                {
                    "conditions": [
                        {"type": "Accepted", "status": "True", "observedGeneration": 4},
                        {"type": "Healthy", "status": "False", "observedGeneration": 4, "message": "2 fail"},
                    ]
                },
                "not Healthy: 2 fail",
            ),
            ({"endpoints": {"serving": 2, "listed": 3}}, "2 of 3 endpoints serving"),
            ({"endpoints": {"serving": 3}}, "0 of 3 endpoints listed"),
            ({"routes": []}, "asks no route: none is known"),
            ({"routes": [{"url": "http://x/", "problem": "not reached"}]}, "asks no route: not reached"),
            ({"windows": [{"id": "w-1"}]}, "a window is still open"),
        ],
    )  # fmt: skip
    def test_what_a_guard_lacks_is_said(self, status: dict[str, object], words: str) -> None:
        assert words in unready(healthy(**status), 3)

    def test_an_older_generations_verdict_does_not_count(self) -> None:
        guard_ = healthy()
        guard_["metadata"]["generation"] = 5  # type: ignore[index]
        assert "not Accepted" in unready(guard_, 3)


class Api:
    """An API server with one Lease."""

    def __init__(self) -> None:
        self.transitions = 3
        self.away = False

    async def get(self, path: str) -> dict[str, object]:
        assert path.endswith("/leases/upstream-guard")
        if self.away:
            raise ApiError(0, "connection refused", "")
        renewed = datetime.now(UTC).isoformat()
        spec = {"holderIdentity": "pod-7f", "renewTime": renewed, "leaseDurationSeconds": 10}
        return {"spec": {**spec, "leaseTransitions": self.transitions}}


class TestOperator:
    async def test_is_waited_for_until_it_has_settled(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pulse, "SETTLE_SECONDS", 0.4)
        monkeypatch.setattr(pulse, "POLL_SECONDS", 0.01)
        operator, began = Operator(Api()), time.monotonic()  # type: ignore[arg-type]
        found = await operator.until_attentive(lambda: "", 5.0)
        assert found == Pulse("pod-7f", 3)
        assert time.monotonic() - began >= 0.4
        began = time.monotonic()
        assert await operator.until_attentive(lambda: "", 5.0) == found
        assert time.monotonic() - began < 0.3, "it has controlled for long enough"

    async def test_says_what_was_lacking(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pulse, "SETTLE_SECONDS", 0.0)
        operator = Operator(Api())  # type: ignore[arg-type]
        with pytest.raises(LabError, match="its guard is not Healthy"):
            await operator.until_attentive(lambda: "its guard is not Healthy", 0.1)

    async def test_a_new_controller_has_to_settle_again(self) -> None:
        api = Api()
        operator = Operator(api)  # type: ignore[arg-type]
        first = await operator.pulse()
        api.transitions += 1
        assert await operator.pulse() != first
        with pytest.raises(LabError, match="only just taken control"):
            await operator.until_attentive(lambda: "", 0.1)
        api.away = True
        assert await operator.pulse() is None

    async def test_one_of_ours_has_to_say_that_it_is_ready(self) -> None:
        crew = (Replica("pod-7f", os.getpid(), 1, Path()),)
        operator = Operator(Api(), crew)  # type: ignore[arg-type]
        with pytest.raises(LabError, match="pod-7f is not ready"):
            await operator.until_attentive(lambda: "", 0.1)


class TestAttempts:
    """A trial is done again once, where the operator was not there; nothing else is."""

    async def outcome(self, monkeypatch: pytest.MonkeyPatch, *ends: object) -> Trial:
        left, done = list(ends), []

        async def trial(_place: object, _fault: object, base: Trial, _plan: object) -> Trial:
            end = left.pop(0)
            if isinstance(end, Exception):
                raise end
            return replace(base, failed=20, windows=(TOLD,))

        monkeypatch.setattr(runner, "_trial", trial)
        place = Place(Scene(None, None, "nginx"), None, None, None)  # type: ignore[arg-type]
        plan = Plan({}, (), 1, 1.0, None, False, done.append, lambda *_: None)  # type: ignore[arg-type]
        await runner._try(place, BY_NAME["refused"], 1, plan)
        assert left == []
        (found,) = done
        return found

    async def test_once_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = await self.outcome(monkeypatch, NotMeasuredError("gone"), None)
        assert (found.problem, found.cause, found.expected) == ("", "refused", ("refused",))

    async def test_not_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = await self.outcome(monkeypatch, NotMeasuredError("gone"), NotMeasuredError("gone"))
        assert found.problem.startswith("not measured")
        assert not report.counts(found)

    async def test_what_the_cluster_did_not_do_is_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = await self.outcome(monkeypatch, LabError("3 pods did not run"))
        assert found.problem == "3 pods did not run"

    async def test_an_api_server_or_a_load_generator_that_fails_ends_no_run(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = await self.outcome(monkeypatch, ApiError(500, "no proxy", ""))
        assert "no proxy" in found.problem
        assert (await self.outcome(monkeypatch, TimeoutError())).problem == "TimeoutError"


class TestWatch:
    def watch(self) -> Watch:
        return Watch(None, "prod", "shop")  # type: ignore[arg-type] # nothing is asked here

    def guard(self, *windows: dict[str, object], name: str = "shop") -> dict[str, object]:
        return {"metadata": {"name": name}, "status": {"windows": list(windows)}}

    def test_remembers_when_a_window_was_first_shown(self) -> None:
        watch, opened = self.watch(), "1970-01-01T00:16:40.200Z"
        watch.take(1000.7, {"u": self.guard(shown("w-1", opened))})
        assert watch.opened(1000.0)
        assert not watch.opened(1001.0)
        assert not watch.closed()
        closed = shown("w-1", opened, closed="1970-01-01T00:16:46Z", lostRequests=24)
        watch.take(1009.0, {"u": self.guard(closed)})
        (told,) = watch.windows
        assert (told.opened, told.seen, told.closed, told.lost) == (1000.2, 1000.7, 1006.0, 24)
        assert told.ranked == (("refused", 90), ("reset", 5))
        assert watch.closed()

    def test_remembers_the_eyes_that_opened_it_and_the_time_of_its_event(self) -> None:
        watch, opened = self.watch(), "1970-01-01T00:16:40.200Z"
        watch.hear(1000.6, {"e": event("w-20261126-071530-1"), "f": {"reason": "Other"}})
        watch.take(1000.7, {"u": self.guard(shown("w-20261126-071530-1", opened))})
        later = shown("w-20261126-071530-1", opened, eyes=["direct", "metrics", "route"])
        watch.take(1003.0, {"u": self.guard(later)})
        (told,) = watch.windows
        assert (told.event, told.eyes) == (1000.512345, ("route",))

    def test_hears_only_of_its_own_guard(self) -> None:
        watch = self.watch()
        watch.hear(
            1000.6, {"e": event("w-1", name="cart"), "f": event("w-1", reason="WindowClosed")}
        )
        watch.take(1000.7, {"u": self.guard(shown("w-1", "1970-01-01T00:16:40Z"))})
        assert [w.event for w in watch.windows] == [0.0]

    def test_says_why_a_window_would_not_be_seen(self) -> None:
        watch = self.watch()
        assert watch.unready(3) == "the guard is not there"
        watch.take(1000.0, {"u": self.guard(name="shop")})
        assert "not Accepted" in watch.unready(3)

    def test_knows_only_its_own_guard(self) -> None:
        watch = self.watch()
        window = shown("w-1", "1970-01-01T00:16:40Z")
        watch.take(
            1000.7, {"u": self.guard(window, name="cart"), "v": {"metadata": {"name": "shop"}}}
        )
        assert watch.windows == []
        assert watch.closed()

    @pytest.mark.parametrize(
        "spoilt",
        [{"cause": None, "extent": 7, "opened": "noon"}, {"lostRequests": "many"}, {"id": ""}],
    )
    def test_passes_over_what_it_does_not_understand(self, spoilt: dict[str, object]) -> None:
        window = {**shown("w-1", "1970-01-01T00:16:40Z"), **spoilt}
        watch = self.watch()
        watch.take(1000.7, {"u": self.guard(window)})
        assert watch.windows == []


class TestTable:
    def test_has_at_least_fourteen_causes_and_one_that_opens_no_window(self) -> None:
        causes = {cause for fault in FAULTS for cause in fault.expected}
        assert len(causes) >= 15
        assert [fault.name for fault in FAULTS if not fault.expected] == ["app-error"]
        assert len(BY_NAME) == len(FAULTS) >= 14

    def test_names_gateways_of_the_lab_only(self) -> None:
        known = {*GATEWAYS, envoy_gateway.NAME}
        assert {name for fault in FAULTS for name in fault.gateways} <= known
        assert all(fault.possible("contour") for fault in FAULTS if not fault.gateways)
        assert not BY_NAME["blocked"].possible("contour")

    def test_samples_are_told_modes_that_they_know(self) -> None:
        text = (SAMPLES / "upstream/state.go").read_text()
        for mode in (
            "h2-only",
            "lying-ready",
            "close-idle-early",
            "malformed-status",
            "unavailable",
            "slow",
        ):
            assert f'"{mode}"' in text


class TestServices:
    def plan(self, *names: str) -> Plan:
        gateways = {name: RunningGateway(name, "127.0.0.1", 80) for name in ("nginx", "httpd")}
        faults = [BY_NAME[name] for name in names]
        return Plan(gateways, faults, 1, 10, None, False, None, None)  # type: ignore[arg-type] # nothing is called

    def test_are_reached_in_another_way_only_where_a_fault_needs_it(self) -> None:
        clear = (Wire.CLEAR,)
        assert services(self.plan("refused")) == {"nginx": clear, "httpd": clear}
        all_three = services(self.plan("refused", "tls-refused", "dns-down"))
        assert all_three == {"nginx": (Wire.CLEAR, Wire.NAMED, Wire.TLS), "httpd": clear}
        names = [service_name("nginx", wire) for wire in all_three["nginx"]]
        assert names == ["shop-nginx", "shop-nginx-dns", "shop-nginx-tls"]

    def test_over_tls_differ_in_what_ports_are_called_and_speak(self) -> None:
        names = {"namespace": "prod", "name": "shop"}
        made = secured_service(variants.service(**names))
        (port,) = made["spec"]["ports"]
        assert (port["name"], port["port"]) == ("https", 443)
        assert made["metadata"]["annotations"] == {"projectcontour.io/upstream-protocol.tls": "443"}
        plain = variants.deployment(variants.Variant.GUARDED, replicas=3, start_delay=0, **names)
        (container,) = secured_deployment(plain)["spec"]["template"]["spec"]["containers"]
        assert container["ports"] == [{"name": "https", "containerPort": 8080}]
        assert {"name": "TLS", "value": "1"} in container["env"]
        (before,) = plain["spec"]["template"]["spec"]["containers"]
        assert before["ports"][0]["name"] == "http", "the other is left as it was"

    def test_over_tls_are_probed_by_https(self) -> None:
        names = {"namespace": "prod", "name": "shop"}
        plain = variants.deployment(variants.Variant.GUARDED, replicas=3, start_delay=0, **names)
        service = parse_service(secured_service(variants.service(**names)))
        parsed = resolve_probe(
            Guard(ObjectRef("prod", "shop"), "u", 1, 0.0, "shop"),
            service,
            parse_pod(
                {
                    "metadata": {"namespace": "prod", "name": "shop-1", "uid": "p"},
                    "spec": secured_deployment(plain)["spec"]["template"]["spec"],
                    "status": {},
                }
            ),
            routed_by_http=True,
        )
        assert isinstance(parsed, ProbeSpec)
        assert (parsed.protocol, parsed.port) == (ProbeProtocol.HTTPS, 8080)


class TestRounds:
    def plan(self, *names: str, done: tuple[tuple[str, str, int], ...] = ()) -> Plan:
        gateways = {name: RunningGateway(name, "127.0.0.1", 80) for name in ("nginx", "contour")}
        return Plan(
            gateways=gateways,
            faults=[BY_NAME[name] for name in names],
            repeats=2,
            rate=10,
            expose=lambda *_where: pytest.fail("not asked for"),
            keep=False,
            done=lambda _trial: None,
            doing=lambda _gateway, _text: None,
            has=lambda *key: key in done,
        )

    def test_every_gateway_at_once_where_nothing_is_shared(self) -> None:
        found = [[g for g, _, _ in todo] for todo in rounds(self.plan("refused"))]
        assert found == [["nginx", "contour"], ["nginx", "contour"]]

    def test_no_more_at_once_than_the_machine_bears(self) -> None:
        plan = replace(self.plan("refused"), at_once=1)
        assert [[g for g, _, _ in todo] for todo in rounds(plan)] == [["nginx"], ["contour"]] * 2

    def test_every_fault_once_before_any_again(self) -> None:
        found = [(todo[0][1].name, todo[0][2]) for todo in rounds(self.plan("refused", "reset"))]
        assert found == [("refused", 1), ("reset", 1), ("refused", 2), ("reset", 2)]

    def test_say_how_long_they_take(self) -> None:
        left = minutes(self.plan("refused"))
        assert 0.5 < left < 2
        assert minutes(self.plan("connect-timeout")) > left, "users have to give up first"
        done = (("nginx", "refused", 1), ("contour", "refused", 1))
        assert minutes(self.plan("refused", done=done)) == left / 2

    def test_only_where_it_is_possible_and_not_done_yet(self) -> None:
        found = [[g for g, _, _ in todo] for todo in rounds(self.plan("blocked"))]
        assert found == [["nginx"], ["nginx"]]
        plan = self.plan("refused", done=(("nginx", "refused", 1), ("contour", "refused", 1)))
        assert [[(g, n) for g, _, n in todo] for todo in rounds(plan)] == [
            [("nginx", 2), ("contour", 2)]
        ]


class TestTrials:
    def test_a_window_belongs_to_the_fault_in_which_it_was_detected(self) -> None:
        """Its first failure may be placed before: of what a gateway counts, only two looks are known."""
        early = replace(window(BASE.began - 2.5), detected=BASE.began + 0.4)
        before = window(BASE.began - 2.5)
        assert make_trial(BASE, [], [early, before]).windows == (early,)

    def test_are_of_what_came_after_the_fault(self) -> None:
        records = [
            Record(990.0, 990.1, 0.0, "502"),
            Record(999.5, 999.6, 0.0, "200"),
            Record(1000.1, 1000.15, 0.0, "502"),
            Record(1000.2, 1000.25, 0.0, "timeout"),
            Record(1000.3, 1000.35, 0.0, "502"),
        ]
        windows = [window(990.0), window(1002.0), window(1000.1)]
        trial = make_trial(BASE, records, windows)
        assert (trial.requests, trial.failed) == (4, 3)
        assert trial.statuses == {"502": 2, "timeout": 1}
        assert trial.first_lost == 1000.15
        assert [w.opened for w in trial.windows] == [1000.1, 1002.0]
        assert trial.delay == pytest.approx(0.45)
        assert (trial.lost, trial.lost_kind, trial.eyes) == (40, "estimated", "route")
        assert trial.expected == ("refused",)

    def test_who_waited_longer_than_a_probe_does_is_lost_to_an_estimate(self) -> None:
        """A gateway that keeps users waiting and answers in the end does not count them."""
        records = [
            Record(1000.1, 1000.15, 0.0, "200"),
            Record(1000.2, 1008.0, 0.0, "200"),
            Record(1000.3, 1010.3, 0.0, "timeout"),
        ]
        trial = make_trial(BASE, records, [window(1000.1)])
        assert (trial.failed, trial.slow, trial.truth) == (1, 1, 2)
        assert trial.first_lost == pytest.approx(1002.2)
        exact = replace(trial, windows=(replace(TOLD, counted="exact"),))
        assert exact.truth == 1

    def test_count_as_exact_only_where_every_window_was(self) -> None:
        exact = replace(TOLD, counted="exact")
        assert replace(TRIAL, windows=(exact, exact)).lost_kind == "exact"
        assert replace(TRIAL, windows=(exact, TOLD)).lost_kind == "estimated"
        assert BASE.lost_kind == ""

    def test_without_an_event_have_no_delay(self) -> None:
        assert replace(TRIAL, windows=(replace(TOLD, event=0.0),)).delay is None

    def test_take_the_cause_of_the_window_that_lost_most(self) -> None:
        windows = [window(1000.1, lost=3), window(1002.0, Cause.RESET, 30)]
        trial = make_trial(replace(BASE, fault="reset"), [], windows)
        assert trial.cause == "reset"
        assert trial.delay is None, "no user lost a request"
        assert BASE.cause == "none"


@pytest.mark.parametrize(
    ("sent", "done", "expected"),
    [(1000.1, 1000.2, True), (996.0, 997.5, True), (1008.0, 1008.1, True), (990.0, 996.0, False),
     (1010.0, 1010.1, False), (990.0, 1030.0, True)],
)  # fmt: skip
def test_a_window_near_which_no_request_failed_was_felt_by_nobody(
    sent: float, done: float, expected: bool
) -> None:
    assert felt(TOLD, [Record(sent, done, 0.0, "502")]) is expected
    assert not felt(TOLD, [])


class TestScore:
    def test_counts_what_says_something(self) -> None:
        wrong = replace(TRIAL, windows=(replace(RESET, lost=90, counted="exact"),))
        silent = replace(TRIAL, windows=())
        unmet = replace(TRIAL, failed=0, first_lost=0.0, windows=())
        broken = replace(TRIAL, problem="no pods")
        quiet = replace(TRIAL, fault="app-error", expected=(), windows=(), late=0.5)
        alarm = replace(TRIAL, fault="app-error", expected=())
        total = report.score([TRIAL, wrong, silent, unmet, broken, quiet, alarm])
        assert (total.trials, total.right) == (5, 2)
        assert (total.unmet, total.problems, total.silent) == (1, 1, 1)
        assert total.share == pytest.approx(0.4)
        assert (total.false_alarms, total.busy) == (1, 1)
        assert total.losses == {
            "estimated": Loss(1, right=1, same=1, told=20, counted=20),
            "exact": Loss(1, right=0, same=0, told=90, counted=20),
        }
        assert total.delays == (pytest.approx(0.5), pytest.approx(0.5))
        assert total.by_eyes == {"route": total.delays}
        assert total.changing == ()
        changing = replace(TRIAL, fault="gateway-down-in-change", expected=("gateway-down",))
        assert report.score([TRIAL, changing]).changing == (pytest.approx(0.5),)

    def test_nothing_is_no_success(self) -> None:
        assert report.score([]).share == 0

    def test_the_page_names_what_was_wrong_and_why(self) -> None:
        wrong = replace(TRIAL, gateway="contour", windows=(replace(RESET, evidence="3 resets"),))
        page = report.markdown([TRIAL, wrong, replace(TRIAL, repeat=2, problem="no pods")])
        assert "| refused | every pod refuses | refused | 1 of 2 | refused 1, reset 1 |" in page
        assert "| refused | contour | 502 × 20 | reset 90 % | 3 resets |" in page
        assert "| refused | nginx | no pods |" in page
        assert "✗ reset" in page
        assert "| route | 2 | 0.50 s | 0.50 s | 0.50 s |" in page
        assert "| estimated | 2 | 40 | 40 | 2 of 2 (100 %) | 2 of 2 (100 %) |" in page
        assert "Nothing." in report.markdown([TRIAL])


class TestFile:
    def test_is_taken_up_where_it_was_left(self, tmp_path: Path) -> None:
        path = tmp_path / "faults.json"
        file = TrialFile(path)
        file.add(replace(TRIAL, problem="no pods"))
        assert not TrialFile(path).has("nginx", "refused", 1), "to be tried again"
        file.add(TRIAL)
        again = TrialFile(path)
        assert again.trials == [TRIAL]
        assert again.has("nginx", "refused", 1)
        assert not again.has("nginx", "refused", 2)

    def test_is_judged_by_the_table_as_it_is_now(self, tmp_path: Path) -> None:
        path = tmp_path / "faults.json"
        path.write_text(report.encode([replace(TRIAL, expected=("overload",))]))
        assert TrialFile(path).trials == [TRIAL]

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"format": 9}', '{"format": 2, "trials": [{}]}',
         report.encode([replace(TRIAL, fault="boredom")])],
    )  # fmt: skip
    def test_another_is_refused_in_words(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "faults.json"
        path.write_text(text)
        with pytest.raises(LabError, match=r"faults\.json"):
            TrialFile(path)


def test_a_plain_gateway_is_told_of_in_a_profile_that_we_understand() -> None:
    running = RunningGateway("haproxy", "127.0.0.1", 8380, "http://127.0.0.1:9380/metrics")
    profile = parse_profile(gateway_profile(running, ["prod/shop"]))
    assert profile.controller == "haproxy"
    assert [str(service) for service in profile.services] == ["prod/shop"]
    spec = gateway_profile(running, ["prod/shop"])["spec"]
    assert spec["address"] == "http://127.0.0.1:8380"
    assert "metrics" not in gateway_profile(replace(running, metrics_url=""), ["p/s"])["spec"]
    assert "canary" not in spec
    led = parse_profile(gateway_profile(running, ["prod/shop"], canary=True))
    assert led.canary_host == canary_target("haproxy").host
    assert canary_target("haproxy").name == "canary-gatewayprofile-lab-haproxy"
    assert (GatewayKind.PROFILE, profile.name) == gateway_key("haproxy")


def test_gateways_that_read_routes_are_matched_by_what_leads_to_them() -> None:
    """Their addresses in the lab have ports of their own, which no Ingress tells."""
    envoys = {
        name: parse_profile(gateway_profile(RunningGateway(name, "127.0.0.1", 8280), ["a/b"]))
        for name in ("contour", "envoy-gateway")
    }
    assert [p.address for p in envoys.values()] == ["http://127.0.0.1:8280"] * 2
    assert gateway_key("contour") == (GatewayKind.INGRESS_CLASS, *envoys["contour"].ingress_classes)
    assert gateway_key("envoy-gateway") == (
        GatewayKind.GATEWAY,
        *envoys["envoy-gateway"].gateways,
    )
    assert not any(profile.services for profile in envoys.values())


def test_a_guard_asks_for_the_host_that_leads_to_it() -> None:
    spec = guard("prod", "shop", "shop.prod.test", 40.0)["spec"]
    assert spec["detection"]["requestsPerSecond"] == 40
    assert spec["detection"]["routeProbe"]["host"] == "shop.prod.test"
    assert spec["targetRef"]["name"] == "shop"


def test_waiting_ends() -> None:
    assert asyncio.run(until(lambda: True, 0))
    assert not asyncio.run(until(lambda: False, 0.1))


class TestFirewall:
    def test_concerns_the_apps_port_of_these_pods_only(self) -> None:
        text = inject.ruleset("t", ["198.18.101.2", "198.18.101.3"], "drop")
        assert "ip daddr { 198.18.101.2, 198.18.101.3 } tcp dport 8080 drop" in text
        assert "saddr" not in text
        assert "ip saddr 198.18.0.2 ip daddr" in inject.ruleset(
            "t", ["1.2.3.4"], "drop", "198.18.0.2"
        )

    @pytest.mark.parametrize("verdict", ["drop", "reject with icmp type host-unreachable"])
    def test_is_accepted_by_nft(self, verdict: str) -> None:
        program = find_program("nft")
        if program is None:
            pytest.skip("nft is not installed")
        text = inject.ruleset("ug_fault_shop", ["198.18.101.2"], verdict, "198.18.0.2")
        done = subprocess.run(
            [program, "--check", "--file", "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if "Operation not permitted" in done.stderr:
            pytest.skip("needs root")
        assert done.returncode == 0, done.stderr


class Stage:
    """Notes what samples are told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def pods(self) -> list[dict[str, object]]:
        return [{"metadata": {"name": f"shop-{n}"}} for n in (1, 2, 3)]

    async def fault(
        self, pod: dict[str, dict[str, str]], mode: str, _seconds: float, _delay: float = 0.0
    ) -> None:
        self.told.append((pod["metadata"]["name"], mode))


class PodStage(Stage):
    """One whose pods have addresses."""

    def __init__(self, gateway: str) -> None:
        super().__init__()
        self.name = f"shop-{gateway}"
        self.words: list[tuple[str, ...]] = []

    def pods(self) -> list[dict[str, object]]:
        return [{**pod, "status": {"podIP": "198.18.101.2"}} for pod in super().pods()]

    async def kubectl(self, *words: str) -> str:
        self.words.append(words)
        return ""


CLUSTER = SimpleNamespace(name="lab")


async def test_what_gateways_share_is_on_with_the_first_and_off_with_the_last() -> None:
    did: list[str] = []
    entered, leave = [asyncio.Event(), asyncio.Event()], [asyncio.Event(), asyncio.Event()]
    together = inject.Together()

    async def on() -> None:
        did.append("on")

    async def off() -> None:
        did.append("off")

    async def trial(number: int) -> None:
        async with together.held("nodes", on, off):
            entered[number].set()
            await leave[number].wait()

    tasks = [asyncio.create_task(trial(number)) for number in (0, 1)]
    for event in entered:
        await event.wait()
    assert did == ["on"]
    leave[0].set()
    await tasks[0]
    assert did == ["on"], "the other still needs it"
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert did == ["on", "off"]
    async with together.held("nodes", on, off):
        assert did == ["on", "off", "on"]
    assert did[-1] == "off"


@pytest.mark.parametrize(("pods", "number"), [(0, 3), (1, 1)])
def test_samples_are_healed_whatever_happens(pods: int, number: int) -> None:
    stage = Stage()

    async def fails() -> None:
        scene = Scene(None, stage, "nginx")  # type: ignore[arg-type]
        async with inject.sample("refuse", pods)(scene):
            assert [mode for _, mode in stage.told] == ["refuse"] * number
            raise LabError("the load generator failed")

    with pytest.raises(LabError, match="load generator"):
        asyncio.run(fails())
    assert [mode for _, mode in stage.told] == ["refuse"] * number + ["none"] * number


async def test_hosts_are_called_unreachable_as_often_as_they_are_asked_for_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Linux would say so once a second and lose all other packets: users would meet time-outs."""
    limit, ran = ["1000\n"], []

    def on_nodes(_cluster: object, command: list[str], stdin: str) -> list[str]:
        ran.append((command[0], limit[0].strip()))
        if command[0] == "tee":
            limit[0] = stdin
        return [limit[0], limit[0]]

    monkeypatch.setattr(inject, "_on_nodes", on_nodes)
    fault = inject.unreachable()
    scenes = [Scene(CLUSTER, PodStage(name), name) for name in ("nginx", "caddy")]  # type: ignore[arg-type] # PodStage stands in
    async with fault(scenes[0]):
        async with fault(scenes[1]):
            assert limit == ["0\n"]
        assert limit == ["0\n"], "the other still needs it"
    assert limit == ["1000\n"]
    assert [at for command, at in ran if command == "nft"] == ["0"] * 4


async def test_a_crowded_gateway_gets_its_room_back_whatever_happens() -> None:
    stage = PodStage("contour")

    async def fails() -> None:
        async with inject.crowded(Scene(CLUSTER, stage, "contour")):  # type: ignore[arg-type]
            assert {mode for _, mode in stage.told} == {"slow"}
            raise LabError("the load generator failed")

    with pytest.raises(LabError, match="load generator"):
        await fails()
    assert stage.words[0][:3] == ("annotate", "--overwrite", "service/shop-contour")
    limits = [word.removesuffix("=1") for word in stage.words[0][3:]]
    assert stage.words[1][2:] == tuple(f"{name}-" for name in limits)
    assert stage.told[-1][1] == "none"


class TestCommand:
    @pytest.mark.parametrize(
        "words",
        [["--gateway", "iis"], ["--fault", "boredom"], ["--repeats", "0"], ["--rate", "0"],
         ["--provider", "existing"]],
    )  # fmt: skip
    def test_bad_input_is_exit_code_2(self, words: list[str]) -> None:
        assert CliRunner().invoke(cli.main, ["lab", "faults", *words]).exit_code == 2

    def test_a_file_of_something_else_is_told_in_words(self, tmp_path: Path) -> None:
        path = tmp_path / "faults.json"
        path.write_text("{}")
        done = CliRunner().invoke(cli.main, ["lab", "faults", "--json", str(path)])
        assert done.exit_code == 1
        assert "holds no trials" in done.output


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_is_halted_is_stopped_again_and_again_and_runs_afterwards() -> None:
    seen = set()

    async def scene(pid: int) -> None:
        async with inject.halting([pid], 0.05, 0.05):
            deadline = time.monotonic() + 20
            while len(seen) < 2 and time.monotonic() < deadline:
                seen.add(state_of(pid) == "T")
                await asyncio.sleep(0.005)

    with subprocess.Popen(["sleep", "60"]) as sleeper:
        asyncio.run(scene(sleeper.pid))
        assert seen == {True, False}
        assert asyncio.run(until(lambda: state_of(sleeper.pid) == "S", 10))
        sleeper.kill()


def test_nothing_to_halt_is_an_error_in_words() -> None:
    async def scene() -> None:
        async with inject.halting([], 1, 1):
            pytest.fail("nothing was halted")

    with pytest.raises(LabError, match="no process was found"):
        asyncio.run(scene())


def test_descendants_are_found_with_who_started_them() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60 & wait"]) as shell:
        assert asyncio.run(until(lambda: len(support.descendants([shell.pid])) == 3, 10))
        for pid in reversed(support.descendants([shell.pid])):
            os.kill(pid, 9)
