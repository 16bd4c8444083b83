"""Every upstream that the cases need, up while the context is open."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from upstream_guard.lab.conformance import certificates, servers
from upstream_guard.lab.conformance.cases import HEALTHY, HEALTHY_TLS
from upstream_guard.lab.conformance.model import Case, Route, Source
from upstream_guard.lab.conformance.servers import Upstream
from upstream_guard.lab.gateways import support
from upstream_guard.lab.ports import LOOPBACK, free_ports
from upstream_guard.lab.process import end

FIRST_PORT: Final = 8900
START_SECONDS: Final = 10.0
SILENT: Final = "silent"
"""First label of the name about which the DNS server says nothing."""
SAMPLE_MODES: Final = (
    Source.HEALTHY, Source.REFUSE, Source.RESET, Source.EARLY_CLOSE, Source.RESET_IN_BODY,
    Source.MALFORMED, Source.MALFORMED_STATUS, Source.OVERSIZED_HEADER, Source.HANG, Source.ERROR,
)  # fmt: skip
_HANDLERS: Final[Mapping[Source, servers.Handler]] = {
    Source.RACE: servers.race,
    Source.CUT_BODY: servers.cut_body,
    Source.H2_ONLY: servers.h2_only,
    Source.TLS_ALERT: servers.tls_alert,
}
_NAMES: Final = {Source.UNKNOWN_NAME: "unknown.invalid", Source.SILENT_DNS: f"{SILENT}.invalid"}


@dataclass(frozen=True, slots=True)
class Field:
    """The upstreams and what goes with them.

    Attributes:
        upstreams: By case, each its own, so that what they count is of that case; those that are no
            server are missing.
        resolver: `address:port` of the DNS server.
        authority: The certificate that upstream certificates are checked against.
        cases: What they are for.
    """

    upstreams: Mapping[str, Upstream]
    resolver: str
    authority: Path
    cases: tuple[Case, ...]

    def routes(self) -> tuple[Route, ...]:
        """One for each case, and one more with a healthy endpoint beside it where that is asked."""
        healthy = self.upstreams[HEALTHY.name].address
        alone = tuple(self._route(case) for case in self.cases)
        beside = tuple(
            Route(pair_host(case), case, (self.upstreams[case.name].address, healthy))
            for case in self.cases
            if case.paired
        )
        return alone + beside

    def _route(self, case: Case) -> Route:
        upstream = self.upstreams.get(case.name)
        addresses = (upstream.address,) if upstream else ()
        return Route(host(case), case, addresses, _NAMES.get(case.source, ""))


def host(case: Case) -> str:
    """The Host header of a case."""
    return f"{case.name}.test"


def pair_host(case: Case) -> str:
    """The Host header of a case with a healthy endpoint beside it."""
    return f"pair-{case.name}.test"


@contextmanager
def field(folder: Path, sample: Path, cases: Sequence[Case]) -> Iterator[Field]:
    """Bring every upstream up.

    Args:
        folder: For certificates and logs.
        sample: The faulty upstream as a program.
        cases: What they are for; where nothing fails is always among them.

    Raises:
        LabError: one does not start.
    """
    certs = certificates.issue(folder / "certificates")
    handlers = dict(_HANDLERS)
    for source, pair in certs.pairs.items():
        handlers[source] = servers.over_tls(str(pair.certificate), str(pair.key))
    wanted = tuple(dict.fromkeys((HEALTHY, HEALTHY_TLS, *cases)))
    with ExitStack() as stack:
        found: dict[str, Upstream] = {}
        port = FIRST_PORT
        for case in wanted:
            if case.source in SAMPLE_MODES:
                port, control = free_ports(port + 1, 2)
                upstream = _sample(sample, case, (port, control), folder)
                found[case.name] = stack.enter_context(upstream)
                port = control
            elif case.source is Source.DROPS:
                found[case.name] = stack.enter_context(servers.dropping())
            elif case.source in handlers:
                found[case.name] = stack.enter_context(servers.serving(handlers[case.source]))
        resolver = stack.enter_context(servers.name_server(SILENT))
        yield Field(found, resolver, certs.authority, wanted)


@contextmanager
def _sample(program: Path, case: Case, ports: tuple[int, int], folder: Path) -> Iterator[Upstream]:
    port, control = ports
    mode = case.source
    env = {"PORT": str(port), "CONTROL_PORT": str(control), "FAULT": mode.value}
    log = folder / f"upstream-{case.name}.log"
    with log.open("wb") as out, running([str(program)], out.fileno(), env):
        for expected in (control,) if mode is Source.REFUSE else (control, port):
            listens = partial(support.listens, expected)
            support.wait_for(listens, START_SECONDS, f"the upstream of {case.name}")
        # What refuses connections counts none of them.
        yield Upstream(f"{LOOPBACK}:{port}", None if mode is Source.REFUSE else _counter(control))


def _counter(control: int) -> Callable[[], int]:
    def seen() -> int:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{control}/state", timeout=5) as answer:
            return int(json.load(answer)["requests"])

    return seen


@contextmanager
def running(
    command: list[str], output: int, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process while the context is open; asked to end first, then forced."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # Ctrl-C must reach us first: we end it ourselves.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process, support.STOP_SECONDS)
