"""The watch over nodes, with kubelets' ports that are real sockets on loopback."""

import asyncio
import socket
import time
from contextlib import ExitStack

import pytest

from upstream_guard.controller.nodewatch import NodeWatch
from upstream_guard.core.causes import Cause
from upstream_guard.core.model import Node, ProbeResult
from upstream_guard.probes import ProbeScheduler

ENDPOINT_TIMEOUT = 0.0
"""Seconds; so short that the kubelets were heard before the endpoints were asked."""


class Watched:
    """Two nodes with an endpoint each; what kubelets answer is up to their sockets."""

    def __init__(self):
        self.nodes = {}
        self.changed = []
        self.scheduler = ProbeScheduler(self._result)
        self.watch = NodeWatch(self.scheduler, self.nodes.get, self.changed.append)

    def _result(self, key, result):
        self.watch.kubelet_result(key, result)

    def place(self, name, port):
        self.nodes[name] = Node(name, "a", True, False, "127.0.0.1", port)
        self.watch.enter(name)

    def probe(self, node, cause=None):
        now = time.time()
        latency = ENDPOINT_TIMEOUT if cause else 0.001
        result = ProbeResult(now, cause is None, cause, latency)
        self.watch.result(f"endpoint on {node}", node, result, served=True)


@pytest.fixture
def kubelet():
    """Opens a kubelet's port; `mortal` answers the first connection, and no SYN after it."""
    with ExitStack() as stack:

        def listen(*, mortal):
            made = stack.enter_context(socket.socket())
            made.bind(("127.0.0.1", 0))
            # Linux keeps one more than the backlog, and drops SYNs when nobody accepts them.
            made.listen(0 if mortal else 16)
            return made.getsockname()[1]

        yield listen


@pytest.fixture
async def watched(background):
    made = Watched()
    background(made.scheduler.run())
    return made


async def heard(watched, until, number):
    """Wait until so many kubelets have answered once."""
    await until(lambda: watched.scheduler.stats.delivered == number)


async def test_one_silent_endpoint_and_a_silent_kubelet_are_a_lost_node(watched, kubelet, until):
    watched.place("n1", kubelet(mortal=False))
    watched.place("n2", kubelet(mortal=True))
    await heard(watched, until, 2)
    watched.probe("n2", Cause.CONNECT_TIMEOUT)
    watched.probe("n1")
    await until(lambda: watched.watch.lost == {"n2"})
    assert watched.changed == [frozenset({"n2"})]
    watched.probe("n2")
    assert watched.watch.lost == frozenset()
    assert len(watched.changed) == 2


async def test_a_kubelet_that_answers_vouches_for_its_node(watched, kubelet, until):
    watched.place("n1", kubelet(mortal=False))
    watched.place("n2", kubelet(mortal=False))
    await heard(watched, until, 2)
    watched.probe("n2", Cause.CONNECT_TIMEOUT)
    watched.probe("n1")
    await heard(watched, until, 3)
    assert watched.watch.lost == frozenset()
    assert watched.changed == []


async def test_a_kubelet_that_was_never_reached_is_no_witness(watched, kubelet, until):
    watched.place("n1", kubelet(mortal=False))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        watched.place("n2", closed.getsockname()[1])
        await heard(watched, until, 2)
        watched.probe("n2", Cause.CONNECT_TIMEOUT)
        watched.probe("n1")
        await asyncio.sleep(0.02)
    assert watched.scheduler.stats.delivered == 2
    assert watched.watch.lost == frozenset()


async def test_without_kubelets_two_endpoints_of_a_node_are_enough(watched):
    for name in ("n1", "n2", "n2"):
        watched.watch.enter(name)
    for key in ("a", "b"):
        result = ProbeResult(time.time(), False, Cause.CONNECT_TIMEOUT, ENDPOINT_TIMEOUT)
        watched.watch.result(key, "n2", result, served=True)
        watched.probe("n1")
        assert watched.watch.lost == (frozenset() if key == "a" else {"n2"})
    watched.watch.leave("n2", "a")
    watched.watch.leave("n2", "b")
    assert watched.watch.lost == frozenset()


@pytest.mark.parametrize("cause", [Cause.READ_TIMEOUT, Cause.BLOCKED, Cause.REFUSED])
async def test_what_something_answered_is_no_silence(watched, cause):
    watched.watch.enter("n1")
    watched.watch.enter("n2")
    for key in ("a", "b"):
        result = ProbeResult(time.time(), False, cause, ENDPOINT_TIMEOUT)
        watched.watch.result(key, "n2", result, served=True)
        watched.probe("n1")
    assert watched.watch.lost == frozenset()
