"""Windows opened, kept open and closed, over hand-made evidence on a clock of its own."""

import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upstream_guard.core.causes import Cause
from upstream_guard.core.detect import (
    Hidden,
    Kind,
    News,
    advance,
    closer_looks,
    hurried,
    inherit,
    wants_name,
)
from upstream_guard.core.evidence import (
    CloserLook,
    Eye,
    Failure,
    GatewayDelta,
    NameLook,
    RouteKey,
    RouteSample,
    UpstreamView,
)
from upstream_guard.core.health import Health, Verdict
from upstream_guard.core.looks import TIMES, Looks
from upstream_guard.core.model import DetectionPolicy, ObjectRef
from upstream_guard.core.observed import Counted, Extent, ObservedWindow
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.sightings import MAX_GOODS, MAX_HITS, MAX_ROUTES, MAX_SIGNS, Probed
from upstream_guard.core.status import PredictionStatus
from upstream_guard.core.tuning import Evidence, GatewayKind
from upstream_guard.core.watching import Scene, Underway, Watch
from upstream_guard.gateways import PROFILES
from upstream_guard.gateways.behaviour import model_of

SERVICE = ObjectRef("prod", "shop")
KEY = RouteKey("public", "Ingress prod/shop", "shop.example")
CART = RouteKey("public", "Ingress prod/cart", "shop.example", "/cart")
START = 1_764_141_330.0
SERVING = Health(Verdict.SERVING, START - 60, 9, 0, None, "", ever_served=True)


def behaviour(controller: str):
    return model_of(PROFILES[controller].facts("public", GatewayKind.INGRESS_CLASS)).behaviour


def endpoint(n: int, health: Health = SERVING, listed: bool = True) -> Probed:
    return Probed(f"10.0.0.{n}:8080", f"node-{n}", "a", listed, health)


def failing(since: float, cause: Cause = Cause.REFUSED) -> Health:
    return Health(Verdict.FAILING, since, 0, 2, cause, "seen", ever_served=True)


@dataclass
class Play:
    """A guard's windows over time."""

    scene: Scene = field(
        default_factory=lambda: Scene(
            endpoints=(endpoint(1), endpoint(2), endpoint(3)), pods=3,
            gateways={"public": behaviour("contour")},
        )
    )  # fmt: skip
    now: float = START
    watch: Watch = field(default_factory=Watch)
    news: list[News] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)

    def step(self, sighting=None) -> None:
        step = advance(self.watch, self.scene, self.now, sighting)
        self.watch = step.watch
        self.news += [n for n in step.news if isinstance(n, News)]
        self.hidden += [n for n in step.news if isinstance(n, Hidden)]

    def set(self, **changes) -> None:
        self.scene = replace(self.scene, **changes)
        self.step()

    def ask(
        self,
        status: int = 200,
        cause: Cause | None = None,
        key: RouteKey = KEY,
        took: float = 0.01,
        **more,
    ) -> None:
        sample = RouteSample(self.now, self.now + took, key, status, cause, **more)
        self.now += took
        self.step(sample)

    def wait(self, seconds: float, every: float = 0.5) -> None:
        """Nothing comes in but the time."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(end, self.now + every)
            self.step()

    def keep_asking(self, seconds: float, status: int = 200, every: float = 0.1, **more) -> None:
        end = self.now + seconds
        while self.now < end - 1e-9:
            start = self.now
            self.ask(status, **more)
            self.now = max(self.now, start + every)

    def count(
        self,
        seconds: float = 5.0,
        failures: dict[Failure, int] | None = None,
        endpoint: str = "",
        classes: bool = False,
        replica: str = "",
        **statuses: int,
    ) -> None:
        """A look at the gateway's metrics, `seconds` after the last."""
        since, self.now = self.now, self.now + seconds
        found = {int(k.lstrip("s")): n for k, n in statuses.items()}
        self.step(
            GatewayDelta(
                "public",
                SERVICE,
                since,
                self.now,
                found,
                classes,
                failures or {},
                endpoint,
                None,
                replica,
                failures is not None,
            )
        )

    @property
    def kinds(self) -> list[str]:
        return [n.kind.value for n in self.news]

    @property
    def last(self) -> ObservedWindow:
        return self.news[-1].window


def prediction(began: float, until: float, gateway: str = "contour (public)") -> PredictionStatus:
    return PredictionStatus(
        change=ChangeKind.ROLLOUT, subject="deployment/shop", began=began, made_at=began, until=until,
        opens_at=began, duration="1s", duration_range="", lost=3, lost_range="", share=30, probability=90,
        cause=Cause.STALE_UPSTREAM, risk="no-pre-stop", gateway=gateway, answer=503,
        evidence=Evidence.BUILTIN, message="", remedy="",
    )  # fmt: skip


class TestRouteEye:
    def test_one_failed_request_opens_and_quiet_closes(self) -> None:
        play = Play()
        play.keep_asking(3)
        play.ask(503, detail="no healthy upstream")
        failed = play.now
        assert failed - START < 3.2
        play.keep_asking(1)
        assert play.kinds == ["opened"]
        assert play.last.detected == pytest.approx(failed, abs=0.001)
        play.keep_asking(6)
        assert play.kinds == ["opened", "closed"]
        window = play.last
        assert window.opened == window.closed == pytest.approx(failed - 0.01, abs=0.001)
        assert (window.gateway, window.routes) == ("public", ("Ingress prod/shop",))
        assert window.eyes == (Eye.ROUTE,)
        assert window.statuses == {503: 1}
        assert (window.lost, window.counted) == (1, Counted.ESTIMATED)
        assert window.id.endswith("-1")
        assert window.id.startswith("w-2025")

    def test_fewer_failures_than_the_guard_minds_open_nothing(self) -> None:
        play = Play()
        play.set(policy=DetectionPolicy(min_requests=3))
        for _ in range(4):
            play.ask(502)
            play.keep_asking(6)
        assert play.news == []
        for _ in range(3):
            play.ask(502)
        play.keep_asking(0.5)
        assert play.kinds == ["opened"]

    def test_other_statuses_are_none_unless_the_guard_says_so(self) -> None:
        play = Play()
        play.keep_asking(2, 500)
        play.keep_asking(2, 404)
        assert play.news == []
        play.set(policy=DetectionPolicy(error_statuses=(500,)))
        play.keep_asking(2, 500)
        assert play.kinds == ["opened"]
        assert play.last.cause is Cause.APP_ERROR

    def test_single_slow_answers_are_none(self) -> None:
        play = Play()
        for _ in range(5):
            play.keep_asking(11)
            play.ask(0, Cause.READ_TIMEOUT, took=2.0)
        assert play.news == []

    def test_two_in_a_row_are(self) -> None:
        play = Play()
        play.keep_asking(2)
        play.ask(0, Cause.READ_TIMEOUT, took=2.0)
        play.ask(0, Cause.READ_TIMEOUT, took=2.0)
        play.wait(0.5)
        assert play.kinds == ["opened"]
        assert play.last.cause is Cause.BLOCKED
        assert play.last.statuses == {0: 2}

    def test_a_gateway_that_never_answered_may_be_out_of_reach(self) -> None:
        play = Play()
        play.keep_asking(20, 0, every=1, cause=Cause.CONNECT_TIMEOUT)
        assert play.news == []

    def test_a_gateway_that_did_and_does_not_is_down(self) -> None:
        play = Play()
        play.keep_asking(2)
        play.keep_asking(3, 0, cause=Cause.REFUSED)
        assert play.kinds == ["opened"]
        assert (play.last.cause, play.last.extent) == (Cause.GATEWAY_DOWN, Extent.GATEWAY)

    def test_one_route_of_two(self) -> None:
        play = Play()
        for _ in range(20):
            play.ask(key=KEY)
            play.ask(503, key=CART, detail="upstream request timeout")
        assert play.kinds == ["opened"]
        assert play.last.routes == ("Ingress prod/cart",)
        assert play.last.extent is Extent.ROUTE

    def test_failures_with_pauses_make_one_window_not_many(self) -> None:
        """After a first pause the window waits for longer."""
        play = Play()
        for _ in range(20):
            play.ask(503)
            play.keep_asking(4)
        play.keep_asking(30)
        assert play.kinds.count("opened") == 1
        assert play.kinds.count("closed") == 1
        assert play.last.closed - play.last.opened > 70

    def test_it_is_not_called_over_because_nobody_looks(self) -> None:
        play = Play()
        play.keep_asking(1)
        play.keep_asking(1, 503)
        play.wait(20)
        assert play.kinds == ["opened"]
        play.wait(20)
        assert play.kinds == ["opened", "closed"]

    def test_lost_requests_by_share_and_rate(self) -> None:
        play = Play()
        play.set(rate=200.0)
        play.keep_asking(1)
        for _ in range(25):
            play.keep_asking(0.1, 503)
            play.keep_asking(0.3)
        play.keep_asking(10)
        assert play.last.counted is Counted.ESTIMATED
        assert play.last.lost == pytest.approx(200 * 10 / 4, rel=0.1)


class TestMetricsEye:
    def test_exact_count(self) -> None:
        play = Play()
        play.count(s200=500)
        play.count(s200=480, s503=20)
        play.count(s200=490, s503=7, s404=3)
        play.count(s200=500)
        play.count(s200=500)
        play.count(s200=500)
        assert play.kinds == ["opened", "closed"]
        window = play.last
        assert (window.lost, window.counted) == (27, Counted.EXACT)
        assert window.statuses == {503: 27}
        assert window.eyes == (Eye.METRICS,)
        assert window.opened == pytest.approx(START + 10 - 5 * 20 / 500, abs=0.01)
        assert window.closed == START + 12.5

    @pytest.mark.parametrize("into", [0.0, 1.0, 2.5, 4.5])
    def test_began_when_so_many_had_failed(self, into: float) -> None:
        """So many seconds into a look everything began to fail, and half way was as much as that too early."""
        play = Play()
        play.count(s200=200)
        began = play.now + into
        play.count(s200=round(40 * into), s503=round(40 * (5 - into)))
        play.count(1, s503=40)
        assert play.last.opened == pytest.approx(began, abs=0.01)

    def test_began_earlier_where_only_a_share_fails(self) -> None:
        play = Play()
        play.count(s200=300)
        play.scene = replace(
            play.scene,
            endpoints=(endpoint(1, failing(play.now + 2)), endpoint(2), endpoint(3)),
            policy=DetectionPolicy(min_requests=3),
        )
        play.now += 3
        play.step()
        play.now -= 3
        play.count(s200=240, s503=60)
        assert play.last.opened == pytest.approx(START + 5 + 2, abs=0.01)

    def test_replicas_add_up_and_endpoints_are_parts(self) -> None:
        play = Play()
        play.count(s503=2, replica="a")
        play.count(0.001, s503=3, replica="b")
        play.count(0.001, s503=3, replica="b", endpoint="10.0.0.1:8080")
        play.count(s200=10, replica="a")
        play.count(s200=10, replica="b")
        play.count(s200=10, replica="a")
        assert play.last.lost == 5

    def test_our_own_requests_are_not_users(self) -> None:
        play = Play()
        play.ask()
        play.ask(503)
        play.now -= 0.02
        play.count(s200=100, s503=1)
        play.keep_asking(1)
        play.count(s200=100)
        play.count(s200=100)
        assert play.kinds == ["opened", "closed"]
        assert (play.last.lost, play.last.counted) == (0, Counted.EXACT)

    def test_classes_only_is_an_estimate(self) -> None:
        play = Play()
        play.count(s200=100, s500=9, classes=True)
        play.wait(0.5)
        assert (play.last.lost, play.last.counted) == (9, Counted.ESTIMATED)

    def test_of_a_class_the_apps_own_500_is_no_window(self) -> None:
        """HAProxy counts its own failures as well: with none of them, the 5xx are the app's."""
        play = Play()
        play.set(gateways={"public": behaviour("haproxy")}, policy=DetectionPolicy())
        for _ in range(3):
            play.count(s200=100, s500=60, classes=True, failures={})
        assert play.news == []
        play.count(s200=100, s500=60, classes=True, failures={Failure.RETRY: 60})
        assert play.news == []
        play.count(s200=100, s500=64, classes=True, failures={Failure.CONNECT: 4})
        play.wait(0.5)
        assert play.kinds == ["opened"]
        assert play.last.lost == 4

    def test_of_a_class_the_apps_own_500_is_a_window_where_the_guard_says_so(self) -> None:
        play = Play()
        play.set(policy=DetectionPolicy(error_statuses=(500, 502, 503, 504)))
        play.count(s200=100, s500=60, classes=True, failures={})
        play.wait(0.5)
        assert (play.kinds, play.last.lost) == (["opened"], 60)

    def test_of_a_class_the_apps_own_503_is_seen_by_route_and_reckoned(self) -> None:
        play = Play()
        play.set(gateways={"public": behaviour("haproxy")})
        play.count(1, s200=100, classes=True, failures={})
        play.keep_asking(1)
        own = replace(failing(play.now, Cause.APP_ERROR), status=503)
        play.set(endpoints=(endpoint(1, own), endpoint(2, own), endpoint(3)))
        play.keep_asking(1, 503)
        play.set(trusted=False)
        play.count(0.5, s500=100, classes=True, failures={})
        play.keep_asking(7)
        assert play.kinds[-1] == "closed"
        assert (play.last.cause, play.last.counted) == (Cause.APP_ERROR, Counted.ESTIMATED)
        assert play.last.lost == pytest.approx(100, rel=0.5)

    def test_the_route_opens_and_the_count_gives_the_number(self) -> None:
        play = Play()
        play.count(5, s200=1000)
        play.keep_asking(1)
        play.keep_asking(1, 503)
        play.keep_asking(1)
        play.now -= 3
        play.count(3.5, s200=600, s503=10 + 200)
        play.keep_asking(4)
        play.count(5, s200=1000)
        play.keep_asking(2)
        assert play.kinds == ["opened", "closed"]
        assert play.last.counted is Counted.EXACT
        assert play.last.lost == pytest.approx(200, abs=1)
        assert play.last.eyes == (Eye.METRICS, Eye.ROUTE)

    def test_a_gateway_that_is_down_does_not_count_what_its_users_lose(self) -> None:
        play = Play()
        for _ in range(4):
            play.count(5, s200=200)
        play.keep_asking(1)
        play.keep_asking(5, 0, cause=Cause.REFUSED)
        play.now -= 6
        play.count(6, s200=1)
        play.keep_asking(12)
        assert play.kinds == ["opened", "closed"]
        assert play.last.counted is Counted.ESTIMATED
        assert play.last.lost == pytest.approx(200, rel=0.2)

    def test_nor_does_one_count_those_whom_it_keeps_waiting(self) -> None:
        play = Play()
        for _ in range(4):
            play.count(5, s200=200)
        play.keep_asking(1)
        for _ in range(3):
            play.ask(0, cause=Cause.READ_TIMEOUT, took=2.0)
        play.count(1, s200=10, s504=30)
        play.keep_asking(12)
        assert play.last.counted is Counted.ESTIMATED
        assert play.last.lost == pytest.approx(5.5 * 40, rel=0.1)

    def test_who_hangs_is_reckoned_by_the_rate_before_it_hung(self) -> None:
        """What is not answered is not counted, and then all at once: the gateway seems to get less to do, and then more."""
        play = Play()
        for _ in range(4):
            play.count(5, s200=200)
        play.ask()
        began = play.now
        for n in range(10):
            play.count(1.0)
            sent = began + n
            play.step(RouteSample(sent - 1.0, play.now, KEY, 0, Cause.READ_TIMEOUT))
        play.count(1.0, s200=400)
        play.keep_asking(12)
        assert play.kinds[-1] == "closed"
        assert play.last.lost == pytest.approx(40 * 9.5, rel=0.15)

    def test_direct_probes_say_when_in_a_long_gap_it_began(self) -> None:
        """Of a gap in peace half is taken to have failed, but for the endpoints that failed from a known time on."""
        lost = {}
        for eyes in ("route", "one of three", "all"):
            play = Play()
            play.set(rate=100.0)
            play.ask()
            play.wait(2.5)
            bad = {"route": 0, "one of three": 1, "all": 3}[eyes]
            ill = failing(play.now)
            play.set(
                endpoints=tuple(
                    endpoint(n, ill if n <= min(bad, 2) else SERVING) for n in (1, 2, 3)
                )
            )
            play.wait(1.5, every=0.1)
            play.keep_asking(0.2, 502)
            last = failing(play.now)
            if bad == 3:  # whose turn it was last
                play.set(endpoints=(endpoint(1, ill), endpoint(2, ill), endpoint(3, last)))
            play.keep_asking(1.8, 502)
            play.set(endpoints=(endpoint(1), endpoint(2), endpoint(3)))
            play.keep_asking(12)
            assert play.kinds[-1] == "closed"
            lost[eyes] = play.last.lost
        assert lost["route"] == pytest.approx(100 * (2.0 + 2), rel=0.08)
        assert lost["one of three"] == pytest.approx(100 * (1.5 / 3 + 2), rel=0.08)
        assert lost["all"] == pytest.approx(100 * (1.5 + 2), rel=0.08)

    def test_what_a_gateway_hides_is_told_and_is_no_window(self) -> None:
        play = Play()
        play.count(s200=100, failures={Failure.CONNECT: 4, Failure.RETRY: 4})
        play.count(s200=100, failures={Failure.CONNECT: 4, Failure.RETRY: 4})
        assert play.news == []
        assert len(play.hidden) == 1
        assert "tried 4 requests again" in play.hidden[0].note


class TestCloserLook:
    """The app fails its users and not its health check: only the gateway's count sees it."""

    def lying(self) -> Play:
        play = Play()
        play.count(5, s200=200)
        play.keep_asking(1)
        play.count(1, s503=40, failures={Failure.RESPONSE: 40})
        return play

    def answer(self, play: Play, cause: Cause | None, status: int = 0) -> None:
        wanted = closer_looks(play.watch, play.scene, play.now)
        play.now += 0.01
        for address in wanted:
            play.step(CloserLook(play.now, address, "/", status, cause, "seen"))

    def test_is_wanted_once_requests_fail_and_every_probe_is_good(self) -> None:
        play = Play()
        play.keep_asking(1)
        assert closer_looks(play.watch, play.scene, play.now) == ()
        play.count(1, s503=40)
        assert len(closer_looks(play.watch, play.scene, play.now)) == 3

    def test_tells_what_the_app_does_to_its_users(self) -> None:
        play = self.lying()
        self.answer(play, Cause.RESET)
        play.wait(1)
        assert play.kinds == ["opened"]
        assert play.last.cause is Cause.RESET
        assert "asked for / as users do: 1 of 1 endpoints fail, reset" in play.last.evidence
        for _ in range(4):
            play.count(5, s200=200)
        assert play.kinds == ["opened", "closed"]
        assert "3 of 3 endpoints fail, reset" in play.last.evidence
        assert len(play.last.endpoints) == 3

    def test_an_app_that_says_itself_that_it_is_not_well(self) -> None:
        play = self.lying()
        self.answer(play, None, 503)
        play.wait(1)
        assert play.last.cause is Cause.APP_ERROR

    def test_good_answers_leave_what_stands_between(self) -> None:
        blamed = {}
        for good in (False, True):
            play = self.lying()
            if good:
                self.answer(play, None, 200)
            play.wait(1)
            blamed[good] = dict([(play.last.cause, play.last.confidence), *play.last.others])
        assert blamed[True][Cause.KEEPALIVE_RACE] > blamed[False][Cause.KEEPALIVE_RACE]

    def test_is_not_made_too_often(self) -> None:
        play, looks = self.lying(), 0
        for _ in range(60):
            looks += len(closer_looks(play.watch, play.scene, play.now))
            self.answer(play, Cause.RESET)
            play.now += 0.25
            play.count(0.001, s503=10)
        assert looks == TIMES

    def test_is_not_made_where_probes_see_it(self) -> None:
        play = self.lying()
        play.set(endpoints=(endpoint(1, failing(play.now)), endpoint(2), endpoint(3)))
        assert closer_looks(play.watch, play.scene, play.now) == ()

    def test_is_forgotten_once_all_is_well(self) -> None:
        play = self.lying()
        self.answer(play, Cause.RESET)
        for _ in range(4):
            play.count(5, s200=200)
        assert play.kinds == ["opened", "closed"]
        play.step()
        assert play.watch.looks == Looks()


class TestWhatTheGatewayDoesNotCount:
    """Its answers begin well and break off: it counts them as 200."""

    def test_is_estimated_from_our_own_requests_and_the_rate_that_it_counts(self) -> None:
        play = Play()
        play.keep_asking(1)
        play.count(5, s200=10)
        cut = {"status": 200, "cause": Cause.RESET, "detail": "connection reset"}
        for _ in range(6):
            play.keep_asking(1, **cut)
            play.count(0.001, s200=40)
        play.keep_asking(10)
        assert play.kinds[-1] == "closed"
        assert play.last.counted is Counted.ESTIMATED
        assert play.last.lost > 100


class TestEmptiedForAMoment:
    """Every pod is replaced at once, and the gateway goes on to use the old ones."""

    @pytest.mark.parametrize(
        ("seconds", "cause"), [(2, Cause.NO_ENDPOINTS), (8, Cause.STALE_UPSTREAM)]
    )
    def test_what_fails_long_after_the_list_was_full_again_fails_for_another_reason(
        self, seconds, cause
    ) -> None:
        play = Play()
        play.keep_asking(1)
        play.set(endpoints=tuple(replace(endpoint(n), listed=False) for n in (1, 2, 3)))
        play.keep_asking(1, 503)
        play.set(endpoints=tuple(endpoint(n) for n in (4, 5, 6)))
        play.keep_asking(seconds, 503)
        play.keep_asking(20)
        assert play.kinds[-1] == "closed"
        assert play.last.cause is cause


class TestNameLook:
    """The gateway goes by the Service's name, and the cluster's DNS does not know it any more."""

    NAME = "shop.prod.svc.cluster.local"

    def failing(self) -> Play:
        play = Play()
        play.keep_asking(1)
        play.keep_asking(0.4, 502)
        return play

    def answer(self, play: Play, fault: str) -> None:
        play.now += 0.01
        play.step(NameLook(play.now, self.NAME, fault))

    def recovers(self, play: Play) -> None:
        for _ in range(12):
            self.answer(play, "")
            play.keep_asking(1)

    def test_is_wanted_once_requests_fail_and_every_probe_is_good(self) -> None:
        play = Play()
        play.keep_asking(1)
        assert not wants_name(play.watch, play.now)
        play.ask(status=502)
        assert wants_name(play.watch, play.now)
        play.set(endpoints=(endpoint(1, failing(play.now)), endpoint(2), endpoint(3)))
        assert not wants_name(play.watch, play.now)

    @pytest.mark.parametrize("fault", ["no such name", ""])
    def test_tells_dns_from_all_else_between_gateway_and_endpoints(self, fault) -> None:
        play = self.failing()
        self.answer(play, fault)
        play.wait(1)
        assert (play.last.cause is Cause.DNS) is bool(fault)
        assert (f"{self.NAME} does not resolve: no such name" in play.last.evidence) is bool(fault)

    def test_an_answer_that_comes_late_changes_the_cause(self) -> None:
        play = self.failing()
        play.wait(1.5)
        assert play.kinds == ["opened"]
        play.ask(status=502)
        self.answer(play, "no answer")
        play.wait(3)
        assert (play.kinds[:2], play.last.cause) == (["opened", "changed"], Cause.DNS)

    def test_dns_that_is_well_again_was_at_fault_all_the_same(self) -> None:
        play = self.failing()
        self.answer(play, "no such name")
        play.keep_asking(2, 502)
        self.answer(play, "no such name")
        play.keep_asking(1, 502)
        self.recovers(play)
        assert play.kinds == ["opened", "changed", "closed"]
        assert play.last.cause is Cause.DNS

    def test_also_where_the_last_answer_took_long(self) -> None:
        """Gateways remember what DNS said from when it is well again, not from when it was last seen ill."""
        play = self.failing()
        self.answer(play, "no answer")
        play.keep_asking(4.5, 502)
        for _ in range(2):
            self.answer(play, "")
            play.keep_asking(1, 502)
        self.recovers(play)
        assert (play.kinds[-1], play.last.cause) == ("closed", Cause.DNS)

    def test_but_not_where_requests_go_on_to_fail(self) -> None:
        play = self.failing()
        self.answer(play, "no such name")
        play.keep_asking(2, 502)
        for _ in range(4):
            self.answer(play, "")
            play.keep_asking(1, 502)
        assert play.watch.looks.name == NameLook(play.watch.looks.named_at, self.NAME)

    def test_is_not_made_too_often_and_is_forgotten_once_all_is_well(self) -> None:
        play, asked = self.failing(), 0
        for _ in range(80):
            if wants_name(play.watch, play.now):
                asked += 1
                self.answer(play, "")
            play.keep_asking(0.25, 502)
        assert asked == TIMES
        play.keep_asking(20)
        play.step()
        assert play.watch.looks == Looks()


DROPPED = {
    # What each answers when the app ends with the request unanswered, and what it says then.
    "nginx": (502, "502 Bad Gateway nginx"),
    "haproxy": (502, "502 Bad Gateway The server returned an invalid or incomplete response."),
    "contour": (
        503,
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
    ),
    "caddy": (502, ""),
}


class TestEveryEndpointAtOnce:
    """The operator distrusts its probes then, ejects nobody, and yet has seen how it came."""

    def fail(self, play: Play, cause: Cause, **more) -> None:
        now = tuple(endpoint(n, replace(failing(play.now, cause), **more)) for n in (1, 2, 3))
        play.set(endpoints=now, trusted=False)

    def heal(self, play: Play) -> None:
        play.set(endpoints=(endpoint(1), endpoint(2), endpoint(3)), trusted=True)

    def told(self, play: Play, gateway: str, status: int, number: int) -> None:
        """What the gateway counted in the last second."""
        if gateway == "nginx":
            return
        classes = gateway == "haproxy"
        failed = {} if gateway == "caddy" or status < 500 else {Failure.RESPONSE: number}
        play.step(
            GatewayDelta(
                "public", SERVICE, play.now - 1, play.now,
                {status // 100 * 100 if classes else status: number}, classes, failed,
                tells_failures=gateway != "caddy",
            )
        )  # fmt: skip

    def hang(self, play: Play, gateway: str, seconds: float = 12.5) -> None:
        """Probes give up after half a second, route probes after two, at most four of them at once."""
        play.keep_asking(2)
        self.told(play, gateway, 200, 40)
        began = play.now
        play.now += 1.2
        self.fail(play, Cause.READ_TIMEOUT)
        sent = began + 0.6
        while sent + 2 < began + seconds:
            play.now = sent + 2
            play.step(
                RouteSample(sent, play.now, KEY, 0, Cause.READ_TIMEOUT, "no response in time")
            )
            sent += 0.5
        play.now = began + seconds

    @pytest.mark.parametrize("gateway", DROPPED)
    @pytest.mark.parametrize("dropped", [0, 20, 400])
    def test_an_app_that_hangs(self, gateway: str, dropped: int) -> None:
        """Also where it is ended at last, and what waited in it breaks off: those get another status."""
        play = Play()
        play.set(gateways={"public": behaviour(gateway)})
        self.hang(play, gateway)
        assert play.last.cause is Cause.READ_TIMEOUT
        assert play.last.confidence >= 90
        status, words = DROPPED[gateway] if dropped else (200, "")
        for n in range(4):
            play.step(RouteSample(play.now - 1.5 + 0.4 * n, play.now, KEY, status, None, words))
        self.told(play, gateway, status, dropped or 400)
        self.heal(play)
        play.keep_asking(8)
        self.told(play, gateway, 200, 40)
        play.keep_asking(3)
        assert play.kinds == ["opened", "closed"]
        assert play.last.cause is Cause.READ_TIMEOUT
        assert play.last.eyes[0] is Eye.DIRECT
        assert "direct probes: 3 of 3 endpoints fail, read-timeout" in play.last.evidence

    @pytest.mark.parametrize("gateway", DROPPED)
    @pytest.mark.parametrize("told", [False, True], ids=["silence", "one word in between"])
    def test_pods_that_cannot_be_reached(self, gateway: str, told: bool) -> None:
        """A host that says so says it once a second at most; the other packets are lost without a word."""
        play = Play()
        play.set(gateways={"public": behaviour(gateway)})
        play.keep_asking(2)
        began = play.now
        play.now += 1.2
        self.fail(play, Cause.CONNECT_TIMEOUT)
        play.wait(0.5)
        if told:
            self.fail(play, Cause.UNREACHABLE, since=began + 1.2)
            play.wait(0.5)
            self.fail(play, Cause.CONNECT_TIMEOUT, since=began + 1.2)
        sent = began + 0.6
        for _ in range(12):
            play.now = sent + 2
            play.step(
                RouteSample(sent, play.now, KEY, 0, Cause.READ_TIMEOUT, "no response in time")
            )
            sent += 0.5
        assert play.last.cause is (Cause.UNREACHABLE if told else Cause.CONNECT_TIMEOUT)

    def test_what_it_cannot_see_since_long_says_nothing(self) -> None:
        play = Play()
        self.fail(play, Cause.CONNECT_TIMEOUT)
        play.keep_asking(60)
        play.keep_asking(2, 503)
        assert "direct probes" not in play.last.evidence
        assert play.last.eyes == (Eye.ROUTE,)

    def test_what_it_never_saw_says_nothing(self) -> None:
        play = Play()
        play.keep_asking(1)
        self.fail(play, Cause.RESET, ever_served=False)
        play.keep_asking(2, 503)
        assert "direct probes" not in play.last.evidence

    def test_an_operator_that_reaches_the_gateway_neither_may_be_cut_off_itself(self) -> None:
        play = Play()
        play.keep_asking(1)
        self.fail(play, Cause.CONNECT_TIMEOUT)
        play.keep_asking(5, 0, every=0.5, cause=Cause.CONNECT_TIMEOUT)
        assert play.kinds == ["opened"]
        assert play.last.cause is Cause.GATEWAY_DOWN

    def test_nothing_is_told_where_no_gateway_fails(self) -> None:
        play = Play()
        self.fail(play, Cause.READ_TIMEOUT)
        play.keep_asking(20)
        assert play.news == play.hidden == []


class TestRate:
    def test_is_what_all_replicas_count(self) -> None:
        play = Play()
        assert play.watch.counted_rate(play.now) is None
        play.count(5, s200=200, replica="a")
        play.count(0.001, s200=0, replica="b")
        assert play.watch.counted_rate(play.now) == pytest.approx(40)

    def test_short_looks_are_evened_out_and_long_ones_followed(self) -> None:
        play = Play()
        play.count(5, s200=200)
        for requests in (20, 60, 30, 50):
            play.count(1, s200=requests)
        assert play.watch.counted_rate(play.now) == pytest.approx(40, rel=0.1)
        for _ in range(4):
            play.count(5, s200=500)
        assert play.watch.counted_rate(play.now) == pytest.approx(100, rel=0.05)

    def test_replicas_that_are_gone_count_no_more(self) -> None:
        play = Play()
        play.count(5, s200=200, replica="a")
        for _ in range(13):
            play.count(5, s200=300, replica="b")
        assert play.watch.counted_rate(play.now) == pytest.approx(60)

    def test_is_not_known_once_nobody_counts(self) -> None:
        play = Play()
        play.count(5, s200=200)
        play.wait(20)
        assert play.watch.counted_rate(play.now) is None


class TestDirectEye:
    def test_a_listed_endpoint_that_fails(self) -> None:
        play = Play()
        play.set(rate=90.0)
        play.wait(2)
        play.set(endpoints=(endpoint(1, failing(play.now)), endpoint(2), endpoint(3)))
        play.wait(1)
        assert play.kinds == ["opened"]
        assert (play.last.cause, play.last.extent) == (Cause.REFUSED, Extent.ENDPOINT)
        assert play.last.gateway == ""
        assert play.last.endpoints == ("10.0.0.1:8080",)
        play.wait(9)
        play.set(endpoints=(endpoint(1, failing(play.now), listed=False), endpoint(2), endpoint(3)))
        play.wait(10)
        assert play.kinds == ["opened", "closed"]
        assert play.last.closed - play.last.opened == pytest.approx(10, abs=0.6)
        assert play.last.lost == pytest.approx(300, rel=0.1)
        assert (play.last.counted, play.last.eyes) == (Counted.ESTIMATED, (Eye.DIRECT,))

    def test_without_a_rate_the_probes_own_failures_are_given(self) -> None:
        play = Play()
        play.wait(1)
        play.set(endpoints=(endpoint(1, failing(play.now)), endpoint(2), endpoint(3)))
        play.wait(1)
        assert play.last.lost == 2

    def test_no_window_of_an_endpoint_that_is_not_listed(self) -> None:
        play = Play()
        play.set(endpoints=(endpoint(1, failing(START), listed=False), endpoint(2)))
        play.wait(20)
        assert play.news == []

    def test_silence_takes_longer_than_a_refusal(self) -> None:
        play = Play()
        slow = failing(play.now, Cause.READ_TIMEOUT)
        play.set(endpoints=(endpoint(1, slow), endpoint(2)))
        play.wait(1.5)
        assert play.news == []
        play.wait(1)
        assert play.kinds == ["opened"]
        assert play.last.opened == START

    def test_the_apps_own_500_is_no_window(self) -> None:
        """Whatever its probes say: a gateway passes the status on, and it is none of `errorStatuses`."""
        play = Play()
        play.keep_asking(1)
        own = replace(failing(play.now, Cause.APP_ERROR), status=500)
        play.set(endpoints=(endpoint(1, own), endpoint(2, own), endpoint(3)))
        play.wait(3)
        play.keep_asking(3, 500)
        assert play.news == play.hidden == []
        play.set(policy=DetectionPolicy(error_statuses=(500,)))
        play.keep_asking(1, 500)
        assert play.kinds == ["opened"]
        assert play.last.cause is Cause.APP_ERROR

    @pytest.mark.parametrize("status", [503, 0, 200], ids=["503", "no status", "gRPC"])
    def test_an_app_that_does_not_serve_by_its_own_word_is_one(self, status: int) -> None:
        play = Play()
        own = replace(failing(play.now, Cause.APP_ERROR), status=status)
        play.set(endpoints=(endpoint(1, own), endpoint(2), endpoint(3)))
        play.wait(1)
        assert play.kinds == ["opened"]
        assert play.last.cause is Cause.APP_ERROR

    def test_a_blind_operator_says_nothing(self) -> None:
        play = Play()
        play.set(
            endpoints=(endpoint(1, failing(START)), endpoint(2, failing(START))), trusted=False
        )
        play.wait(10)
        assert play.news == []

    def test_a_list_that_was_emptied(self) -> None:
        play = Play()
        play.wait(1)
        play.set(endpoints=tuple(replace(e, listed=False) for e in play.scene.endpoints))
        play.wait(1)
        assert play.last.cause is Cause.NO_ENDPOINTS
        play.set(endpoints=(endpoint(1),))
        play.wait(6)
        assert play.kinds == ["opened", "closed"]

    @pytest.mark.parametrize(
        ("gateway", "status", "words"),
        [
            ("nginx", 0, ""),
            ("contour", 503, "no healthy upstream"),
            ("haproxy", 0, ""),
            ("caddy", 0, ""),
        ],
    )
    def test_a_list_that_was_emptied_is_the_cause_also_when_it_is_full_again(
        self, gateway: str, status: int, words: str
    ) -> None:
        play = Play()
        play.set(gateways={"public": behaviour(gateway)})
        play.keep_asking(2)
        play.set(endpoints=tuple(replace(e, listed=False) for e in play.scene.endpoints))
        began = play.now
        for n in range(24):
            if n == 20:
                fresh = (replace(endpoint(n), address=f"10.0.1.{n}:8080") for n in (1, 2, 3))
                play.set(endpoints=tuple(fresh))
            sent = began + 0.5 * n
            play.now = max(play.now, sent + (0.01 if status else 2.0))
            cause = None if status else Cause.READ_TIMEOUT
            play.step(RouteSample(sent, play.now, KEY, status, cause, words))
        play.keep_asking(9)
        assert (play.kinds[0], play.kinds[-1]) == ("opened", "closed")
        assert {n.window.cause for n in play.news} == {Cause.NO_ENDPOINTS}

    def test_a_few_that_fail_long_after_are_left_over(self) -> None:
        """Seen in the fault matrix: conntrack sent one request of thirty to pods that were gone, for a minute."""
        play = Play()
        play.set(gateways={"public": behaviour("nginx")})
        play.keep_asking(2)
        play.set(endpoints=tuple(replace(e, listed=False) for e in play.scene.endpoints))
        play.keep_asking(3, 502, detail="502 Bad Gateway nginx/1.22.1")
        play.set(
            endpoints=tuple(replace(endpoint(n), address=f"10.0.1.{n}:8080") for n in (1, 2, 3))
        )
        for _ in range(10):
            play.keep_asking(3)
            play.step(RouteSample(play.now - 2.0, play.now, KEY, 0, Cause.READ_TIMEOUT))
        play.keep_asking(20)
        assert (play.kinds[0], play.kinds[-1]) == ("opened", "closed")
        assert {n.window.cause for n in play.news} == {Cause.NO_ENDPOINTS}

    def test_requests_that_fail_for_an_empty_list_do_so_whoever_emptied_it(self) -> None:
        play = Play()
        play.set(gateways={"public": behaviour("nginx")})
        play.keep_asking(2)
        play.set(endpoints=(), pods=0)
        began = play.now
        for n in range(8):
            play.now = max(play.now, began + 0.5 * n + 2.0)
            play.step(RouteSample(began + 0.5 * n, play.now, KEY, 0, Cause.READ_TIMEOUT))
        assert play.last.cause is Cause.NO_ENDPOINTS

    def test_scaling_to_nothing_is_somebodys_wish(self) -> None:
        play = Play()
        play.wait(1)
        play.set(endpoints=(), pods=0)
        play.wait(10)
        assert play.news == []

    def test_a_gateway_that_is_asked_often_and_never_fails_refutes_it(self) -> None:
        play = Play()
        play.keep_asking(1)
        refused = failing(play.now, Cause.APP_ERROR)
        play.scene = replace(
            play.scene,
            endpoints=(endpoint(1, refused), endpoint(2)),
            policy=DetectionPolicy(min_requests=9),
        )
        play.keep_asking(2)
        play.set(policy=DetectionPolicy())
        play.keep_asking(5)
        assert play.news == []
        assert len(play.hidden) == 1

    def test_a_gateway_that_tries_another_endpoint_hides_it(self) -> None:
        play = Play()
        play.set(gateways={"public": behaviour("ingress-nginx")})
        play.set(endpoints=(endpoint(1, failing(play.now)), endpoint(2), endpoint(3)))
        play.wait(5)
        assert play.news == []
        assert "10.0.0.1:8080 (refused)" in play.hidden[0].note

    def test_the_gateway_takes_the_window_over(self) -> None:
        play = Play()
        play.keep_asking(1)
        play.set(endpoints=(endpoint(1, failing(play.now)), endpoint(2), endpoint(3)))
        play.keep_asking(0.3)
        assert play.kinds == ["opened"]
        first = play.last
        play.keep_asking(1, 503)
        assert play.kinds == ["opened", "changed"]
        assert (play.last.id, play.last.gateway, play.last.cause) == (
            first.id,
            "public",
            Cause.REFUSED,
        )
        play.scene = replace(play.scene, endpoints=(endpoint(1), endpoint(2), endpoint(3)))
        play.keep_asking(7)
        assert play.kinds == ["opened", "changed", "closed"]


class TestChanges:
    def test_the_change_under_way_and_its_prediction(self) -> None:
        play = Play()
        change = Underway(ChangeKind.ROLLOUT, "deployment/shop", START)
        play.set(changes=(change,), predictions=(prediction(START, START + 60),))
        play.keep_asking(1)
        leaving = (endpoint(1, listed=False), endpoint(2), endpoint(3), endpoint(4))
        play.scene = replace(play.scene, endpoints=leaving)
        play.ask(503)
        play.keep_asking(1)
        assert play.last.cause is Cause.STALE_UPSTREAM
        assert play.last.endpoints == ("10.0.0.1:8080",)
        assert play.last.predicted
        assert play.last.change == "rollout of deployment/shop"

    @pytest.mark.parametrize(
        "said",
        [
            prediction(START - 60, START - 30),
            prediction(START, START + 60, "nginx (other)"),
            prediction(START + 30, START + 60),
        ],
        ids=["over", "another gateway", "later"],
    )
    def test_predictions_that_do_not_cover_it(self, said: PredictionStatus) -> None:
        play = Play()
        play.set(predictions=(said,))
        play.ask(503)
        play.keep_asking(1)
        assert not play.last.predicted

    def test_one_window_for_the_pods_of_one_rollout(self) -> None:
        play = Play()
        play.set(changes=(Underway(ChangeKind.ROLLOUT, "deployment/shop", START),))
        for _ in range(5):
            play.ask(503)
            play.keep_asking(9)
        ended = Underway(ChangeKind.ROLLOUT, "deployment/shop", START, play.now)
        play.set(changes=(ended,))
        play.keep_asking(40)
        assert play.kinds == ["opened", "closed"]

    def test_an_edit_stands_back(self) -> None:
        play = Play()
        edit = Underway(ChangeKind.EDIT, "service/shop", START)
        play.set(changes=(Underway(ChangeKind.ROLLOUT, "deployment/shop", START), edit))
        play.ask(503)
        play.keep_asking(1)
        assert play.last.change == "rollout of deployment/shop"

    def test_who_should_hurry(self) -> None:
        play = Play()
        assert not hurried(play.watch, play.scene, play.now)
        change = Underway(ChangeKind.ROLLOUT, "deployment/shop", START)
        assert hurried(play.watch, replace(play.scene, changes=(change,)), play.now)
        over = replace(change, ended=START + 10)
        assert not hurried(play.watch, replace(play.scene, changes=(over,)), START + 13)
        edit = Underway(ChangeKind.EDIT, "service/shop", START)
        assert not hurried(play.watch, replace(play.scene, changes=(edit,)), START)
        suspect = replace(SERVING, failures=1, cause=Cause.REFUSED, since=START)
        assert hurried(play.watch, replace(play.scene, endpoints=(endpoint(1, suspect),)), play.now)
        play.ask(503)
        assert hurried(play.watch, play.scene, play.now)


class TestCauseAndNews:
    def test_what_is_well_again_does_not_speak_against_what_it_was(self) -> None:
        """Else each window would end as one in which most requests were answered and every probe was good."""
        play = Play()
        play.keep_asking(1)
        leaving = endpoint(3, SERVING, listed=False)
        play.set(endpoints=(endpoint(1), endpoint(2), leaving))
        play.keep_asking(1, 503)
        before = play.last
        play.keep_asking(7)
        assert play.kinds[-1] == "closed"
        assert (play.last.cause, play.last.confidence) == (
            before.cause,
            pytest.approx(before.confidence, abs=5),
        )

    def test_an_unsure_cause_is_thought_over_for_a_moment(self) -> None:
        play = Play()
        play.set(gateways={}, endpoints=())
        play.ask(502)
        assert play.news == []
        play.wait(0.4, every=0.1)
        assert play.kinds == ["opened"]
        assert play.last.confidence < 60

    def test_another_cause_is_told_and_not_too_often(self) -> None:
        play = Play()
        play.ask(503, detail="no healthy upstream")
        play.wait(0.4, every=0.1)
        assert play.kinds == ["opened"]
        for n in range(60):
            words = "upstream request timeout" if n % 2 else "reset reason: overflow"
            play.keep_asking(0.5, 504 if n % 2 else 503, detail=words)
        assert 1 <= play.kinds.count("changed") <= 4

    def test_a_window_too_short_to_be_thought_over_is_told_with_its_end(self) -> None:
        play = Play()
        play.set(gateways={}, endpoints=())
        play.ask(502)
        play.now += 7
        play.ask()
        assert play.kinds == ["opened", "closed"]

    def test_a_restart_closes_what_was_open(self) -> None:
        play = Play()
        play.ask(503)
        play.keep_asking(1)
        window = play.last
        again = Play(now=play.now + 5)
        again.watch = inherit([window], again.now)
        again.ask(503)
        again.keep_asking(8)
        assert again.kinds == ["closed"]
        assert again.last.id == window.id
        assert again.last.opened == window.opened
        again.ask(503)
        again.keep_asking(1)
        assert again.last.id.endswith("-2")

    def test_nothing_is_told_of_two_gateways_as_one(self) -> None:
        play = Play()
        other = replace(KEY, gateway="other")
        play.ask(503)
        play.ask(502, key=other)
        play.keep_asking(1)
        assert sorted(n.window.gateway for n in play.news) == ["other", "public"]
        assert len({n.window.id for n in play.news}) == 2


class TestPeace:
    def test_healthy_rollouts_open_nothing(self) -> None:
        """Pods leave the list serving and new ones join serving, ten times, while everything is asked."""
        play = Play()
        for rollout in range(10):
            change = Underway(ChangeKind.ROLLOUT, "deployment/shop", play.now)
            play.set(changes=(change,))
            for n in range(3):
                new = [endpoint(3 * rollout + n + k) for k in range(1, 4)]
                fresh = Health(Verdict.FAILING, play.now, 0, 3, Cause.REFUSED, "not yet")
                play.set(endpoints=(*new[:2], replace(new[2], health=fresh, listed=False)))
                play.keep_asking(2)
                play.set(endpoints=tuple(new))
                play.now -= 2
                play.count(2, s200=400)
            play.set(changes=(replace(change, ended=play.now),))
            play.keep_asking(20, every=1)
        assert play.news == []
        assert play.hidden == []

    def test_memory_is_bounded(self) -> None:
        play = Play()
        for n in range(700):
            key = replace(KEY, path=f"/{n % 200}")
            play.ask(503 if n % 3 else 200, key=key, detail=f"words {n}", took=0.001)
            if n % 10 == 0:
                play.step(UpstreamView(play.now, "public", f"10.1.0.{n}", SERVICE, frozenset()))
                play.count(0.01, endpoint=f"10.0.{n % 250}.1:80", failures={Failure.CONNECT: 1})
            gone = Probed(f"10.9.{n % 250}.{n // 250}:80", "", "", True, SERVING)
            play.set(endpoints=(gone,))
        lane = play.watch.lanes["public"]
        assert len(lane.hits) <= MAX_HITS
        assert len(lane.goods) <= MAX_GOODS
        assert len(lane.routes) <= MAX_ROUTES
        assert len(lane.views) <= 16
        assert len(lane.blamed) <= 256
        assert all(len(t.signs) <= MAX_SIGNS for t in lane.routes.values())
        assert len(play.watch.direct.gone) <= 256
        for n in range(100):
            play.ask(key=replace(KEY, gateway=f"gateway-{n}"))
        assert len(play.watch.lanes) <= 16


causes = st.none() | st.sampled_from(Cause)
healths = st.builds(
    Health, st.sampled_from(Verdict), st.just(START), st.integers(0, 3), st.integers(0, 3), causes,
    st.just("words"), st.booleans(),
)  # fmt: skip
scenes = st.builds(
    Scene,
    st.builds(DetectionPolicy, st.integers(0, 3), st.sampled_from([(502, 503, 504), (500,), ()])),
    st.lists(st.builds(Probed, st.sampled_from(["a:1", "b:1", "c:1"]), st.just("n"), st.just("z"), st.booleans(), healths), max_size=3).map(tuple),
    st.booleans(), st.integers(0, 3), st.sampled_from([{}, {"public": behaviour("contour")}, {"public": behaviour("ingress-nginx")}]),
    st.sampled_from([(), (Underway(ChangeKind.ROLLOUT, "deployment/shop", START),)]),
    st.sampled_from([(), (prediction(START, START + 60),)]), st.none() | st.floats(0, 1e6),
)  # fmt: skip
sightings = st.none() | st.one_of(
    st.builds(RouteSample, st.just(START), st.floats(START, START + 60), st.just(KEY), st.sampled_from([0, 200, 502, 503]), causes),
    st.builds(GatewayDelta, st.just("public"), st.just(SERVICE), st.just(START), st.floats(START, START + 60), st.dictionaries(st.sampled_from([200, 500, 503]), st.integers(0, 1000), max_size=3), st.booleans(), st.dictionaries(st.sampled_from(Failure), st.integers(0, 9), max_size=2), st.sampled_from(["", "a:1"])),
    st.builds(UpstreamView, st.just(START), st.just("public"), st.just("r"), st.just(SERVICE), st.frozensets(st.sampled_from(["a:1", "d:1"]))),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 40), scenes, sightings), max_size=12))
def test_any_course_makes_windows_that_hold_together(course) -> None:
    """Each is opened once before it is closed, and its times and numbers are in order."""
    watch, now, news = Watch(), START, []
    for seconds, scene, sighting in course:
        now += seconds
        step = advance(watch, scene, now, sighting)
        watch = step.watch
        news += [n for n in step.news if isinstance(n, News)]
        hurried(watch, scene, now)
    opened: dict[str, bool] = {}
    for item in news:
        window = item.window
        assert math.isfinite(window.opened)
        assert window.lost >= 0
        assert 0 <= window.confidence <= 100
        assert (item.kind is Kind.CLOSED) == (window.closed > 0)
        assert window.closed == 0 or window.opened <= window.closed <= now + 60
        if item.kind is Kind.OPENED:
            assert window.id not in opened
            opened[window.id] = True
        else:
            assert opened[window.id]
        opened[window.id] = item.kind is not Kind.CLOSED
    assert sum(opened.values()) == sum(o.told is not None for o in watch.open.values())
