"""What an app does on SIGTERM, told from how its pods ended, and the grace period that follows."""

from dataclasses import replace

import pytest

from upstream_guard.core.model import ContainerReadiness, ContainerStop, ObjectRef, Pod
from upstream_guard.core.shutdown import (
    KILLED,
    AppShutdown,
    Ending,
    Stop,
    app_grace,
    describe,
    stop_of,
    summarise,
)

DELETED = 1000.0
APP, SIDECAR = ContainerReadiness((), None, "app"), ContainerReadiness((), None, "proxy")


def ended(*stops: ContainerStop, grace: float = 32.0, containers=(APP,)) -> Pod:
    return Pod(
        ref=ObjectRef("prod", "shop-1"), uid="u", ip="", node="n", labels={}, created=0.0,
        template="t", owner=None, ports=(), readiness=None, has_exec_readiness=False, gated=True,
        gate=True, ready=False, containers_ready=False, containers_ready_since=0.0, ready_since=0.0,
        terminating=True, grace_period=grace, containers=containers, deleted_at=DELETED, stops=stops,
    )  # fmt: skip


def stop(after: float, code: int = 0, *, name="app", pre_stop: float | None = 2.0) -> ContainerStop:
    return ContainerStop(name, pre_stop, DELETED + after, code)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (stop(7), Stop(5, 30, killed=False)),
        (stop(2), Stop(0, 30, killed=False)),
        (stop(1), Stop(0, 30, killed=False)),  # by the clocks: to the second, and of two machines
        (stop(32, KILLED), Stop(30, 30, killed=True)),
        (stop(31, KILLED), Stop(29, 30, killed=True)),
        (stop(10, KILLED), None),  # out of memory, say
        (stop(10, 143), Stop(8, 30, killed=False)),
        (stop(10, pre_stop=None), None),
        (stop(-5), None),  # it had ended before
    ],
)
def test_a_stop_counts_from_sigterm(found, expected):
    assert stop_of(ended(found)) == expected


def test_the_slowest_container_counts_and_all_must_have_ended():
    both = (APP, SIDECAR)
    assert stop_of(ended(stop(5), containers=both)) is None
    found = stop_of(ended(stop(5), stop(9, name="proxy"), containers=both))
    assert found is not None
    assert found.seconds == 7


def test_who_was_deleted_in_a_hurry_says_nothing():
    assert stop_of(ended(stop(1, KILLED, pre_stop=0.0), grace=1.0)) is None
    assert stop_of(replace(ended(stop(5)), deleted_at=0.0)) is None


def own(*seconds: float) -> list[Stop]:
    return [Stop(s, 30, killed=False) for s in seconds]


DEAD = Stop(30, 30, killed=True)


def test_three_ways_to_end():
    assert summarise([]) is None
    assert summarise(own(0, 1, 0)) == AppShutdown(Ending.AT_ONCE, 3, 0, 1, 0)
    assert summarise(own(0, 1, 6)) == AppShutdown(Ending.DRAINS, 3, 0, 6, 0)
    assert summarise([DEAD, DEAD]) == AppShutdown(Ending.IGNORES, 2, 2, 0, 30)
    assert summarise([*own(3), DEAD]) == AppShutdown(Ending.DRAINS, 2, 1, 3, 30)


@pytest.mark.parametrize(
    ("stops", "given", "expected"),
    [
        ([], 30, 30),
        (own(3), 30, 30),  # never below the user's own
        (own(45), 30, 47),  # measured when the grace period was longer
        ([DEAD], 30, 30),  # more time would only make rollouts longer
        ([*own(3), DEAD], 30, 38),  # cut short: a quarter more
        ([*own(3), Stop(300, 300, killed=True)], 30, 60),  # but not for ever
    ],
)
def test_the_grace_period_leaves_the_app_what_it_needed(stops, given, expected):
    assert app_grace(summarise(stops), given) == expected


@pytest.mark.parametrize(
    ("stops", "words"),
    [
        ([DEAD], "handle SIGTERM"),
        (own(0), "within a second"),
        (own(7, 2), "up to 7 s"),
        ([*own(7), DEAD], "1 of them were killed after 30 s"),
    ],
)
def test_what_is_said_has_the_numbers_and_the_advice(stops, words):
    found = summarise(stops)
    assert found is not None
    assert words in describe(found)
