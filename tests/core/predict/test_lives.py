"""One future, number by number: when the kubelet asks, and whose turn kube-proxy takes."""

from dataclasses import replace

import pytest
from tests.core.predict.test_engine import NGINX, PROBE, ROLLOUT, facts, state

from upstream_guard.core.predict import course, traffic
from upstream_guard.core.predict.draws import Draw
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import PlatformFacts
from upstream_guard.core.predict.lives import ANSWER, Fault, Life, born, end
from upstream_guard.core.predict.play import Play, Stopping, make_play
from upstream_guard.core.predict.state import KubeProbe, Shutdown
from upstream_guard.core.tuning import Evidence

FUTURE = Draw(0, 1)
CREATE, NOTICE, SLICE, SYNC = 0.5, 0.6, 0.05, 0.03


def exactly(seconds: float) -> Estimate:
    return Estimate.exactly(seconds, Evidence.MEASURED)


PLATFORM = PlatformFacts(
    create=exactly(CREATE),
    notice=exactly(NOTICE),
    ready_to_slice=exactly(SLICE),
    stop=exactly(0.0),
)


def play_of(
    start: float, probe: KubeProbe | None = PROBE, shutdown: Shutdown = Shutdown.EXITS
) -> Play:
    """A play without any doubt."""
    known = facts(start, shutdown)
    app = replace(known.app, start=exactly(start), linger=exactly(1.0))
    known = replace(known, app=app, platform=PLATFORM)
    sharp = replace(NGINX, attach=exactly(SYNC), detach=exactly(SYNC))
    play = make_play(state(probe=probe), sharp, ROLLOUT, known)
    assert play is not None
    return play


@pytest.mark.parametrize(
    ("start", "periods"),
    [(0.1, 0), (NOTICE, 0), (NOTICE + 0.1, 1), (NOTICE + 1.0, 1), (NOTICE + 1.1, 2)],
)
def test_readiness_is_asked_when_the_container_is_noticed_and_every_period_from_then(
    start: float, periods: int
) -> None:
    life = born(play_of(start), FUTURE, 0.0, 0)
    assert life.ready_at == pytest.approx(CREATE + NOTICE + periods + ANSWER)
    assert life.shown == pytest.approx(CREATE + NOTICE + SLICE)


def test_the_kubelet_counts_the_initial_delay_from_a_start_cut_to_whole_seconds() -> None:
    """Asked for no sooner than 3 s after its start, a pod is asked after 2 to 3 s."""
    play = play_of(0.1, replace(PROBE, initial_delay=3.0, period=0.1))
    play = replace(play, readying=replace(play.readying, period=0.1))
    asked = [born(play, Draw(n, 16), 0.0, 0).ready_at - CREATE - ANSWER for n in range(16)]
    assert 2.0 <= min(asked) < 2.3
    assert 2.5 < max(asked) <= 3.1


def test_without_a_probe_a_pod_is_ready_as_soon_as_it_is_noticed() -> None:
    life = born(play_of(5.0, probe=None), FUTURE, 0.0, 0)
    assert life.listed == pytest.approx(CREATE + NOTICE + SLICE)
    assert life.shown > life.listed, "one change, and no other before it"


def test_a_pod_that_is_ready_a_moment_after_it_was_noticed_has_its_turn_a_second_later() -> None:
    play = play_of(0.1)
    life = born(play, FUTURE, 0.0, 0)
    traffic.program(play, FUTURE, [Life(), life])
    assert life.used_from == pytest.approx(life.shown + play.throttle + SYNC)
    quick = replace(play, throttle=0.0)
    life = born(quick, FUTURE, 0.0, 0)
    traffic.program(quick, FUTURE, [Life(), life])
    assert life.used_from == pytest.approx(life.listed + SYNC)


def test_a_pod_that_has_ended_takes_a_turn_as_well() -> None:
    play = play_of(0.1, shutdown=Shutdown.LINGERS)
    gone, new = Life(), Life(listed=1.2, serves_from=0.0)
    end(play, FUTURE, gone, 0.0, 0)
    assert gone.removed == pytest.approx(1.05 + SLICE)
    traffic.program(play, FUTURE, [gone, new])
    assert new.used_from == pytest.approx(gone.removed + play.throttle + SYNC)


@pytest.mark.parametrize(("pool", "serves"), [(0.0, 0.0), (1.0, 1.0)])
def test_open_connections_are_served_until_the_end_by_an_app_that_only_stops_listening(
    pool: float, serves: float
) -> None:
    """A gateway that keeps connections (Caddy) does not notice; one that opens them is refused at once."""
    play = play_of(0.1, shutdown=Shutdown.DRAINS)
    keeps = replace(play.app, drain=exactly(1.0), serves_kept=True)
    life = Life()
    end(replace(play, app=keeps, pool_seconds=pool), FUTURE, life, 0.0, 0)
    assert life.serves_until == pytest.approx(serves)


def test_nobody_is_asked_only_once_kube_proxy_has_seen_that_the_last_pod_is_gone() -> None:
    """It sends to a terminating pod where there is no other: this one serves on for a second, and then refuses."""
    play = replace(play_of(0.1, shutdown=Shutdown.LINGERS), patience=0.0, pool_seconds=0.0)
    gone, new = Life(), Life(listed=4.0, listens_from=0.0, serves_from=0.0)
    end(play, FUTURE, gone, 0.0, 0)
    found = traffic.failures(play, FUTURE, [gone, new])
    last = [s for s in found if s.fault is Fault.LAST]
    empty = [s for s in found if s.fault is Fault.EMPTY]
    assert last[0].begin == pytest.approx(1.0)
    assert last[-1].until == empty[0].begin == pytest.approx(gone.removed + SYNC)
    assert empty[-1].until == pytest.approx(new.used_from)


def test_where_connections_are_kept_the_last_pods_fail_while_they_refuse() -> None:
    """kube-proxy is late, for the new pod has shown itself; but whoever waits is served by the first connection."""
    play = replace(play_of(0.1, shutdown=Shutdown.LINGERS), patience=2.7, pool_seconds=1.0)
    gone, new = Life(), Life(shown=1.0, listed=2.0, listens_from=0.0, serves_from=0.0)
    end(play, FUTURE, gone, 0.0, 0)
    found = traffic.failures(play, FUTURE, [gone, new])
    assert {(s.fault, s.share) for s in found} == {(Fault.LAST, 1.0)}
    assert gone.forgotten > gone.gone + traffic.TEARDOWN
    assert found[-1].until == pytest.approx(gone.gone + traffic.TEARDOWN)


def test_the_successor_of_a_pod_that_stops_is_made_at_once_where_there_is_room() -> None:
    """maxSurge 1 and maxUnavailable 1: the Deployment controller counts no pod that is terminating."""
    play = replace(play_of(0.1), surge=1, unavailable=1, stopping=Stopping(3.0, 30.0))
    new = [life for life in course.run(play, FUTURE) if life.ready_at > 0]
    begun = sorted(life.shown for life in new)
    assert len(new) == play.replicas
    assert begun[1] - begun[0] < 0.1
    assert begun[2] - begun[1] > CREATE + NOTICE
