"""The scheduler's promises: phases, bounds, no result too many, nothing left open, its own lateness forgiven."""

import asyncio
import gc
import random
import resource
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ProbeProtocol, ProbeResult, ProbeSpec
from upstream_guard.probes import ProbeScheduler, ProbeTarget
from upstream_guard.probes.http import HttpExchange

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def target(
    port: int, *, protocol: str = "HTTP", interval: float = 0.1, timeout: float = 0.1
) -> ProbeTarget:
    spec = ProbeSpec(ProbeProtocol(protocol), port, interval=interval, timeout=timeout)
    return ProbeTarget("127.0.0.1", spec)


@asynccontextmanager
async def running(scheduler: ProbeScheduler) -> AsyncIterator[ProbeScheduler]:
    task = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.005)


def descriptors() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]


def open_descriptors() -> int:
    return len(descriptors())


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def threaded() -> Iterator[int]:
    """A server that answers at once even while the test's event loop does nothing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, suppress(ConnectionError):
                if peer.recv(65536):
                    peer.sendall(OK)

    thread = threading.Thread(target=work)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


class Results(list[tuple[str, ProbeResult]]):
    def __call__(self, key: str, result: ProbeResult) -> None:
        self.append((key, result))

    def count_of(self, key: str) -> int:
        return sum(name == key for name, _ in self)


async def test_probes_at_its_interval(threaded: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results, clock=lambda: 42.0)
    for number in range(10):
        scheduler.set_target(str(number), target(threaded, interval=0.2, timeout=1.0))
    async with running(scheduler):
        began = time.monotonic()
        await until(lambda: len(results) >= 50)
        took = time.monotonic() - began
    assert 0.7 < took < 2.0  # 5 rounds of 0.2 s
    assert all(result.ok and result.at == 42.0 for _, result in results)
    assert all(results.count_of(str(number)) >= 3 for number in range(10))
    stats = scheduler.stats
    assert stats.delivered == len(results)
    assert stats.sent >= stats.delivered
    assert stats.lateness.count == stats.sent


async def test_many_time_outs_leave_nothing_open(silent: int) -> None:
    """2,000 of them; a connection that outlived its probe would show as a descriptor."""
    results = Results()
    scheduler = ProbeScheduler(results)
    for number in range(200):
        scheduler.set_target(str(number), target(silent, interval=0.05, timeout=0.05))
    baseline = open_descriptors()
    async with running(scheduler):
        await until(lambda: scheduler.stats.delivered + scheduler.stats.delayed >= 2000, 60)
    assert open_descriptors() == baseline
    assert scheduler.stats.in_flight == 0
    assert {result.cause for _, result in results} == {Cause.READ_TIMEOUT}


async def test_no_circles_for_the_garbage_collector(threaded: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    scheduler.set_target("a", target(threaded, interval=0.01, timeout=1.0))
    async with running(scheduler):
        await until(lambda: len(results) >= 3)
        gc.collect()
        gc.disable()
        try:
            before = len(results)
            await until(lambda: len(results) >= before + 50)
            exchanges = sum(isinstance(thing, HttpExchange) for thing in gc.get_objects())
        finally:
            gc.enable()
    assert exchanges <= 2


async def test_cancelling_aborts_everything(silent: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    for number in range(20):
        scheduler.set_target(str(number), target(silent, interval=0.05, timeout=30))
    baseline = open_descriptors()
    async with running(scheduler):
        await until(lambda: scheduler.stats.in_flight == 20)
    assert scheduler.stats.in_flight == 0
    assert open_descriptors() == baseline
    assert results == []
    async with running(scheduler):  # and it can run again
        await until(lambda: scheduler.stats.in_flight == 20)


async def test_bounded_concurrency(silent: int) -> None:
    highest = 0
    scheduler: ProbeScheduler

    def on_result(key: str, result: ProbeResult) -> None:
        nonlocal highest
        highest = max(highest, scheduler.stats.in_flight + 1)

    scheduler = ProbeScheduler(on_result, max_in_flight=5)
    for number in range(40):
        scheduler.set_target(str(number), target(silent, interval=0.05, timeout=0.05))
    async with running(scheduler):
        await until(lambda: scheduler.stats.delivered >= 60)
    assert highest == 5


async def test_discard_delivers_nothing_more(serve) -> None:
    gone = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await reader.read()
        finally:
            gone.set()

    results = Results()
    scheduler = ProbeScheduler(results)
    scheduler.set_target("a", target(await serve(hang), interval=0.05, timeout=0.5))
    async with running(scheduler):
        await until(lambda: scheduler.stats.in_flight == 1)
        scheduler.discard("a")
        scheduler.discard("a")
        assert scheduler.stats.in_flight == 0
        await asyncio.wait_for(gone.wait(), 5)
        sent = scheduler.stats.sent
        await asyncio.sleep(0.6)  # longer than interval and time-out
    assert results == []
    assert scheduler.stats.sent == sent


async def test_a_result_s_receiver_may_discard(unused_tcp_port: int) -> None:
    seen: list[str] = []

    def on_result(key: str, result: ProbeResult) -> None:
        seen.append(key)
        scheduler.discard(key)

    scheduler = ProbeScheduler(on_result)
    for key in "abc":
        scheduler.set_target(key, target(unused_tcp_port, interval=0.02))
    async with running(scheduler):
        await until(lambda: len(seen) == 3)
        await asyncio.sleep(0.1)  # five intervals
    assert sorted(seen) == ["a", "b", "c"]


async def test_probe_soon(threaded: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    scheduler.set_target("a", target(threaded, interval=3600, timeout=1))
    async with running(scheduler):
        for number in range(1, 4):
            scheduler.probe_soon("a")
            scheduler.probe_soon("a")
            await until(lambda number=number: len(results) == number, 1)
        scheduler.probe_soon("unknown")
    assert len(results) == 3


async def test_probe_soon_while_one_is_under_way(silent: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    scheduler.set_target("a", target(silent, interval=3600, timeout=0.1))
    async with running(scheduler):
        scheduler.probe_soon("a")
        await until(lambda: scheduler.stats.in_flight == 1)
        scheduler.probe_soon("a")
        await until(lambda: len(results) == 2, 2)


async def test_an_unchanged_target_keeps_its_phase(threaded: int) -> None:
    scheduler = ProbeScheduler(Results(), rng=random.Random(7))
    scheduler.set_target("a", target(threaded, interval=100))
    due = scheduler._schedule.next_due()
    for _ in range(10):
        scheduler.set_target("a", target(threaded, interval=100))
    assert scheduler._schedule.next_due() == due


async def test_a_changed_target_is_probed_as_such(silent: int, threaded: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    scheduler.set_target("a", target(silent, interval=0.05, timeout=30))
    async with running(scheduler):
        await until(lambda: scheduler.stats.in_flight == 1)
        scheduler.set_target("a", target(threaded, interval=0.05, timeout=1))
        await until(lambda: len(results) >= 2)
    assert all(result.ok for _, result in results)


async def test_an_answer_that_the_loop_was_late_to_read_counts(threaded: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    scheduler.set_target("a", target(threaded, interval=3600, timeout=0.2))
    async with running(scheduler):
        scheduler.probe_soon("a")
        await until(lambda: scheduler.stats.sent == 1)
        time.sleep(0.5)  # noqa: ASYNC251 - the loop is meant to stand still beyond the time-out
        await until(lambda: len(results) == 1)
    assert results[0][1].ok


async def test_a_failure_that_the_loop_delayed_is_repeated_instead(silent: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    scheduler.set_target("a", target(silent, interval=3600, timeout=0.4))
    async with running(scheduler):
        scheduler.probe_soon("a")
        await until(lambda: scheduler.stats.in_flight == 1)
        time.sleep(0.2)  # noqa: ASYNC251 - half the time-out
        await until(lambda: scheduler.stats.delayed == 1)
        assert results == []
        await until(lambda: len(results) == 1)
    assert results[0][1].cause is Cause.READ_TIMEOUT
    assert scheduler.stats.sent == 2


async def test_a_syn_without_an_answer_counts_however_late() -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)  # Linux takes one connection, and drops the SYNs of others
        first.connect(deaf.getsockname())
        port = deaf.getsockname()[1]
        scheduler.set_target("a", target(port, interval=3600, timeout=0.4))
        async with running(scheduler):
            scheduler.probe_soon("a")
            await until(lambda: scheduler.stats.in_flight == 1)
            time.sleep(0.2)  # noqa: ASYNC251 - half the time-out
            await until(lambda: len(results) == 1)
    assert results[0][1].cause is Cause.CONNECT_TIMEOUT
    assert (scheduler.stats.sent, scheduler.stats.delayed) == (1, 0)


async def test_a_connection_that_nobody_looked_at_yet_is_no_silence(silent: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    scheduler.set_target("a", target(silent, interval=3600, timeout=0.2))
    async with running(scheduler):
        scheduler.probe_soon("a")
        await until(lambda: scheduler.stats.in_flight == 1)
        time.sleep(0.5)  # noqa: ASYNC251 - beyond the time-out
        await until(lambda: len(results) == 1)
    assert results[0][1].cause is Cause.READ_TIMEOUT


async def test_refused_is_refused_however_late(unused_tcp_port: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    scheduler.set_target("a", target(unused_tcp_port, interval=3600, timeout=0.1))
    async with running(scheduler):
        scheduler.probe_soon("a")
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - the loop is meant to stand still
        await until(lambda: len(results) == 1)
    assert results[0][1].cause is Cause.REFUSED


async def test_want_of_descriptors_is_no_failure_of_the_endpoint(threaded: int) -> None:
    results = Results()
    scheduler = ProbeScheduler(results)
    scheduler.set_target("a", target(threaded, interval=0.05, timeout=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with running(scheduler):
        await until(lambda: len(results) >= 1)
        highest = max(descriptors())
        hoard = [socket.socket() for _ in range(highest)]  # fills the gaps in the numbering
        highest = max(entry.fileno() for entry in hoard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            await until(lambda: scheduler.stats.local_errors >= 2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for entry in hoard:
                entry.close()
        before = len(results)
        await until(lambda: len(results) > before)
    assert all(result.ok for _, result in results)


async def test_it_runs_only_once(silent: int) -> None:
    scheduler = ProbeScheduler(Results())
    async with running(scheduler):
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already"):
            await scheduler.run()
        scheduler.set_target("a", target(silent))  # the first run goes on
        await until(lambda: scheduler.stats.sent > 0)


@pytest.mark.parametrize(
    ("address", "spec", "message"),
    [
        ("shop.example", {"port": 80}, "shop.example"),
        ("127.0.0.1", {"port": 0}, "port"),
        ("127.0.0.1", {"port": 65536}, "port"),
        ("127.0.0.1", {"port": 80, "interval": 0.0}, "interval"),
        ("127.0.0.1", {"port": 80, "timeout": -1.0}, "timeout"),
    ],
)
def test_impossible_targets(address: str, spec: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeTarget(address, ProbeSpec(ProbeProtocol.TCP, **spec))  # type: ignore[arg-type]
