"""Electors against an API server that compares resourceVersions, as the real one does."""

import asyncio
import time

import pytest

from upstream_guard.core.leadership import LeaseTimes
from upstream_guard.kube.lease import Elector, LeaseLostError

FAST = LeaseTimes(renew_every=0.02, duration=0.4, give_up=0.2, sweep=0.6)


class LeaseServer:
    def __init__(self, api):
        self.api = api
        self.lease = None
        self.version = 0
        self.down = False
        self.stuck = False
        api.handler = self.answer

    async def answer(self, request, body):
        if self.stuck:
            await asyncio.sleep(60)
        if self.down:
            return self.api.failure(503)
        if request.method == "GET":
            return (200, self.lease) if self.lease else self.api.failure(404)
        if request.method == "POST" and self.lease is not None:
            return self.api.failure(409)
        stale = body and body["metadata"].get("resourceVersion") != str(self.version)
        if request.method == "PUT" and stale:
            return self.api.failure(409)
        return 200, self.write(body)

    def write(self, body):
        self.version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self.version)}
        self.lease = {**body, "metadata": metadata}
        return self.lease

    @property
    def holder(self):
        return self.lease["spec"]["holderIdentity"] if self.lease else ""


@pytest.fixture
async def server(api):
    return LeaseServer(api)


@pytest.fixture
def elector(api):
    def make(identity, clock=time.monotonic, times=FAST):
        return Elector(api.client, "ops", "guard", identity, clock, time.time, times)

    return make


async def test_creates_renews_and_is_fresh(server, elector, background, until):
    one = elector("one")
    assert not one.fresh
    assert one.age is None
    background(one.run())
    await one.acquired.wait()
    first = server.version
    await until(lambda: server.version > first + 2)
    assert server.holder == "one"
    assert one.fresh
    assert one.age < FAST.duration
    assert server.lease["spec"]["leaseTransitions"] == 1


async def test_a_released_lease_is_taken_at_once(server, elector, background):
    one, two = elector("one"), elector("two")
    task = background(one.run())
    await one.acquired.wait()
    background(two.run())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await one.release()
    began = time.monotonic()
    await two.acquired.wait()
    assert time.monotonic() - began < FAST.duration
    assert server.lease["spec"]["leaseTransitions"] == 2


async def test_a_lease_that_nobody_renews_is_taken_after_its_duration(server, elector, background):
    server.write({"metadata": {"name": "guard"}, "spec": {"holderIdentity": "dead"}})
    two = elector("two")
    began = time.monotonic()
    background(two.run())
    await two.acquired.wait()
    assert time.monotonic() - began >= FAST.duration


async def test_a_lease_without_a_spec_is_nobodys(server, elector, background):
    server.write({"metadata": {"name": "guard"}})
    two = elector("two")
    background(two.run())
    await two.acquired.wait()


@pytest.mark.parametrize("how", ["down", "stuck"])
async def test_a_holder_that_cannot_renew_ends_before_a_rival_may_take_it(
    server, elector, background, how
):
    one = elector("one")
    task = background(one.run())
    await one.acquired.wait()
    setattr(server, how, True)
    began = time.monotonic()
    with pytest.raises(LeaseLostError):
        await task
    assert time.monotonic() - began < FAST.duration


async def test_the_end_comes_in_time_whatever_requests_and_pauses_take(server, elector, background):
    times = LeaseTimes(renew_every=0.3, duration=0.6, give_up=0.4, sweep=9.0)
    one = elector("one", times=times)
    task = background(one.run())
    await one.acquired.wait()
    server.stuck = True
    began = time.monotonic()
    with pytest.raises(LeaseLostError):
        await task
    assert time.monotonic() - began < times.duration


async def test_a_holder_ends_when_a_rival_has_it(server, elector, background):
    one = elector("one")
    task = background(one.run())
    await one.acquired.wait()
    server.write({"metadata": {"name": "guard"}, "spec": {"holderIdentity": "rival"}})
    with pytest.raises(LeaseLostError):
        await task


async def test_two_electors_never_both_hold(server, elector, background, until):
    both = [elector("one"), elector("two")]
    for one in both:
        background(one.run())
    await until(lambda: server.version > 10)
    assert sum(e.acquired.is_set() for e in both) == 1


async def test_an_abandoned_lease_is_swept_only_by_who_has_just_looked(server, elector, clock):
    server.write({"metadata": {"name": "guard"}, "spec": {"holderIdentity": "dead"}})
    standby = elector("two", clock, LeaseTimes(duration=1000, sweep=25))
    await standby._turn()
    clock.now += 3000  # this process was stopped: what it knows is old
    assert not standby.abandoned
    server.write(server.lease)  # meanwhile renewed
    server.lease["spec"]["renewTime"] = "now"
    await standby._turn()
    assert not standby.abandoned
    clock.now += 26
    assert standby.abandoned
