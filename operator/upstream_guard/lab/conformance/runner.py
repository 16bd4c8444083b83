"""Measures one gateway: every case at once, each with its repeats."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from upstream_guard.lab import packages
from upstream_guard.lab.conformance import client
from upstream_guard.lab.conformance.cases import HEALTHY, HEALTHY_TLS
from upstream_guard.lab.conformance.engines import Engine
from upstream_guard.lab.conformance.field import Field, field, host, pair_host, running
from upstream_guard.lab.conformance.model import (
    Beside,
    Case,
    Cell,
    Route,
    Setup,
    Source,
)
from upstream_guard.lab.gateways import support
from upstream_guard.lab.model import LabError, Reporter
from upstream_guard.lab.ports import free_ports

FIRST_PORT: Final = 8800
START_SECONDS: Final = 20.0
PATIENCE_SECONDS: Final = 75.0
"""Longer than the time-outs that products have by default (60 s); who waits longer has none."""
ANSWER_SECONDS: Final = 20.0
BESIDE_REQUESTS: Final = 10
MAX_MARKERS: Final = 3
_LOG_TAIL: Final = 800


@dataclass(frozen=True, slots=True)
class Subject:
    """A gateway that runs, and what it leads to."""

    engine: Engine
    port: int
    field: Field


def measure(
    engine: Engine,
    program: Path,
    sample: Path,
    folder: Path,
    cases: Sequence[Case],
    *,
    repeats: int,
    done: Callable[[Cell], None],
) -> list[Cell]:
    """Measure cases at one gateway.

    Args:
        engine: Which.
        program: Its program.
        sample: The faulty upstream as a program.
        folder: An empty one, for configurations and logs.
        cases: What to measure.
        repeats: Requests of each case.
        done: Told each cell as it ends, then without the gateway's words; those come with its logs.

    Returns:
        The cells in the order of the cases.

    Raises:
        LabError: the gateway does not start, or does not even answer where nothing fails.
    """
    with field(folder, sample, cases) as upstreams:
        routes = [r for r in upstreams.routes() if not engine.refuses(r.case)]
        with _gateway(engine, program, folder, upstreams, routes) as port:
            subject = Subject(engine, port, upstreams)
            with ThreadPoolExecutor(max_workers=len(cases)) as pool:
                cells = list(pool.map(partial(_measured, subject, repeats, done), cases))
    words = markers(engine, log_lines(folder), (host(case) for case in cases))
    return [replace(cell, markers=words.get(f"{cell.case}.test", ())) for cell in cells]


def _measured(subject: Subject, repeats: int, done: Callable[[Cell], None], case: Case) -> Cell:
    reason = subject.engine.refuses(case)
    if reason:
        cell = Cell(subject.engine.name, case.name, unsupported=reason)
    else:
        cell = _observed(subject, case, repeats)
    done(cell)
    return cell


def _observed(subject: Subject, case: Case, repeats: int) -> Cell:
    upstream = subject.field.upstreams.get(case.name)
    # Where nothing fails, we asked more often than the client did.
    seen = upstream.seen if upstream and case.cause else None
    before = seen() if seen else 0
    ask = partial(
        client.ask,
        subject.port,
        host(case),
        method=case.method,
        requests=2 if case.source is Source.RACE else 1,
        timeout=PATIENCE_SECONDS if case.waits else ANSWER_SECONDS,
    )
    if case.waits:
        with ThreadPoolExecutor(max_workers=repeats) as pool:
            observations = tuple(pool.map(lambda _: ask(), range(repeats)))
    else:
        observations = tuple(ask() for _ in range(repeats))
    sent = sum(observation.sent for observation in observations)
    attempts = round((seen() - before) / sent, 2) if seen else None
    beside = _beside(subject, case) if case.paired else None
    return Cell(subject.engine.name, case.name, observations, attempts=attempts, beside=beside)


def _beside(subject: Subject, case: Case) -> Beside:
    def failed(method: str) -> int:
        answers = (
            client.ask(subject.port, pair_host(case), method=method, timeout=ANSWER_SECONDS)
            for _ in range(BESIDE_REQUESTS)
        )
        return sum(answer.failed for answer in answers)

    # POST first: a gateway that takes the bad endpoint out after a failure would hide the rest.
    post = failed("POST")
    return Beside(BESIDE_REQUESTS, failed("GET"), post)


@contextmanager
def _gateway(
    engine: Engine, program: Path, folder: Path, upstreams: Field, routes: Sequence[Route]
) -> Iterator[int]:
    """The gateway on the loopback address while the context is open; yields its port."""
    port, admin = free_ports(FIRST_PORT, 2)
    setup = Setup(folder, port, admin, tuple(routes), upstreams.resolver, upstreams.authority)
    support.write(folder / engine.config_file, engine.config(setup))
    log = folder / "process.log"
    with (
        log.open("ab") as out,
        running(engine.command(program, setup), out.fileno(), {}) as process,
    ):
        deadline = time.monotonic() + START_SECONDS
        while not all(_is_good(port, case) for case in (HEALTHY, HEALTHY_TLS)):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
                raise LabError(f"{engine.name} does not serve; the end of its log:\n{tail}")
            time.sleep(0.05)
        yield port


def _is_good(port: int, case: Case) -> bool:
    return client.ask(port, host(case), timeout=2.0).text == "200"


def log_lines(folder: Path) -> list[str]:
    """Every line of a gateway's own logs."""
    lines: list[str] = []
    for name in ("process.log", "access.log"):
        path = folder / name
        if path.exists():
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines


def markers(
    engine: Engine, lines: Iterable[str], hosts: Iterable[str]
) -> Mapping[str, tuple[str, ...]]:
    """The gateway's words by host, the most frequent first, at most three for each."""
    by_host: dict[str, list[str]] = {}
    patterns = {name: re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])") for name in hosts}
    for line in lines:
        for name, pattern in patterns.items():
            if pattern.search(line):
                by_host.setdefault(name, []).append(line)
    found = {name: Counter(engine.markers(own)) for name, own in by_host.items()}
    return {
        name: tuple(words for words, _ in counted.most_common(MAX_MARKERS))
        for name, counted in found.items()
    }


def prepare(engine: Engine, say: Reporter) -> Path:
    """The gateway's program, with what it stands on installed or built.

    Raises:
        LabError: it cannot be had here.
    """
    packages.ensure_packages(engine.needs(), say)
    return engine.program(say)
