"""Who still holds an endpoint, and how long it took to let go."""

import pytest

from upstream_guard.core.evidence import UpstreamView
from upstream_guard.core.holding import (
    Departure,
    Detach,
    Whereabouts,
    departures,
    detached,
    ready_endpoints,
    stale,
    whereabouts,
)
from upstream_guard.core.model import EndpointSlice, ObjectRef, SliceEndpoint

SHOP = ObjectRef("prod", "shop")
A, B, C = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"
GONE = Departure(SHOP, A, 100.0)


def view(at, usable, unusable=(), replica="r1", service=SHOP):
    return UpstreamView(at, "edge", replica, service, frozenset(usable), frozenset(unusable))


def slice_(*endpoints, family="IPv4", ports=(("http", 80),), name="shop-1"):
    return EndpointSlice(ObjectRef("prod", name), "shop", family, ports, endpoints)


def endpoint(address, *, ready=True):
    return SliceEndpoint((address,), ready=ready, serving=True, terminating=not ready)


def test_the_list_as_it_should_be():
    slices = [
        slice_(endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False)),
        slice_(endpoint("fd00::1"), family="IPv6", ports=(("a", 1), ("b", 2)), name="shop-2"),
    ]
    assert ready_endpoints(slices) == {A, "[fd00::1]:1", "[fd00::1]:2"}


def test_what_leaves_is_remembered_with_its_time_until_it_comes_back():
    first = departures(SHOP, frozenset({A, B, C}), frozenset({B, C}), (), 100.0)
    assert first == (GONE,)
    second = departures(SHOP, frozenset({B, C}), frozenset({C}), first, 105.0)
    assert second == (GONE, Departure(SHOP, B, 105.0))
    assert departures(SHOP, frozenset({C}), frozenset({A, C}), second, 110.0) == (second[1],)


def test_an_endpoint_that_left_and_may_still_be_picked_is_stale():
    assert stale(view(101, [A, B]), [GONE]) == {A}
    assert stale(view(101, [B], [A]), [GONE]) == frozenset()
    assert stale(view(99, [A, B]), [GONE]) == frozenset()
    assert stale(view(101, [A], service=ObjectRef("prod", "cart")), [GONE]) == frozenset()


def test_a_gateway_that_is_faster_than_our_watch_of_slices_makes_nothing_stale():
    """An endpoint that we have not heard of yet is new, not left over."""
    assert stale(view(101, [A, B, "10.0.0.99:80"]), [Departure(SHOP, C, 100.0)]) == frozenset()


@pytest.mark.parametrize(
    ("views", "expected", "everywhere"),
    [
        ({}, Whereabouts((), (), ("r1", "r2")), False),
        ({"r1": view(101, [B])}, Whereabouts(("r1",), (), ("r2",)), False),
        (
            {"r1": view(101, [B]), "r2": view(99, [B], replica="r2")},
            Whereabouts(("r1",), (), ("r2",)),
            False,
        ),
        (
            {"r1": view(101, [B]), "r2": view(101, [A, B], replica="r2")},
            Whereabouts(("r1",), ("r2",), ()),
            False,
        ),
        (
            {"r1": view(101, [B]), "r2": view(102, [B], [A], replica="r2")},
            Whereabouts(("r1", "r2"), (), ()),
            True,
        ),
    ],
)
def test_an_endpoint_has_left_when_every_replica_was_read_since_and_none_picks_it(
    views, expected, everywhere
):
    found = whereabouts(GONE, ["r1", "r2"], views)
    assert found == expected
    assert found.left_everywhere is everywhere


def test_without_replicas_nothing_is_known():
    assert not whereabouts(GONE, [], {}).left_everywhere


def test_the_detach_lies_between_the_last_view_with_it_and_the_first_without():
    assert detached(GONE, view(101, [A, B]), view(102.5, [B])) == Detach(
        "edge", "r1", SHOP, A, left=100.0, seconds=2.5, error=1.5
    )
    assert detached(GONE, view(99.5, [A, B]), view(100.5, [B])) == Detach(
        "edge", "r1", SHOP, A, left=100.0, seconds=0.5, error=0.5
    )


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (view(101, [A]), view(102, [A])),
        (view(101, [B]), view(102, [B])),
        (None, view(102, [B])),
        (view(98, [A]), view(99, [B])),
    ],
)
def test_no_detach_without_two_views_that_enclose_it(before, now):
    assert detached(GONE, before, now) is None
