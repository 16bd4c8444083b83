"""What gateways answer: the cases, what engines are told, and what is made of what they say."""

import json
import socket
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from upstream_guard.cli import lab_conformance
from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Answer
from upstream_guard.lab import images, packages, tools
from upstream_guard.lab.conformance import client, report, runner, servers
from upstream_guard.lab.conformance.cases import BY_NAME, CASES, HEALTHY
from upstream_guard.lab.conformance.engines import ENGINES
from upstream_guard.lab.conformance.field import SAMPLE_MODES
from upstream_guard.lab.conformance.model import (
    Beside,
    Cell,
    Observation,
    Results,
    Route,
    Setup,
    Shape,
    Source,
    Speaks,
)
from upstream_guard.lab.gateways import httpd
from upstream_guard.lab.model import LabError
from upstream_guard.lab.report import QuietReporter

MEASURED = Path(__file__).parents[2] / "docs/conformance.json"
GOOD = Observation(200, Shape.WHOLE, 0.01)
BAD = Observation(502, Shape.WHOLE, 0.02)
CLOSED = Observation(0, Shape.CLOSED, 0.03)


def setup_of(*names: str) -> Setup:
    routes = tuple(Route(f"{n}.test", BY_NAME[n], ("127.0.0.1:8901",)) for n in names)
    return Setup(Path("/run/x"), 8800, 8801, routes, "127.0.0.1:53", Path("/run/x/ca.crt"))


def port_of(upstream: servers.Upstream) -> int:
    return int(upstream.address.rpartition(":")[2])


class TestCases:
    def test_have_names_of_their_own(self) -> None:
        assert len(BY_NAME) == len(CASES)

    def test_speak_of_each_cause_once_where_profiles_are_judged(self) -> None:
        typical = Counter(case.cause for case in CASES if case.typical)
        assert max(typical.values()) == 1
        needed = set(Cause) - {
            Cause.UNREACHABLE, Cause.BLOCKED, Cause.STALE_UPSTREAM, Cause.OVERLOAD, Cause.GATEWAY_DOWN,
        }  # fmt: skip
        assert needed == set(typical)

    def test_wait_only_where_nothing_else_ends_it(self) -> None:
        assert {c.name for c in CASES if c.waits} == {
            "dns-silent",
            "connect-default",
            "read-default",
        }


@pytest.mark.parametrize("name", ENGINES)
class TestConfigurations:
    @pytest.fixture(autouse=True)
    def modules(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Apache need not be installed."""
        monkeypatch.setattr(httpd, "_MODULE_FOLDERS", (str(tmp_path),))

    def test_name_the_routes(self, name: str) -> None:
        text = ENGINES[name].config(setup_of("refused", "reset"))
        assert all(word in text for word in ("refused.test", "reset.test", "127.0.0.1"))

    def test_set_time_outs_only_where_the_case_asks(self, name: str) -> None:
        engine = ENGINES[name]
        plain = engine.config(setup_of("refused"))
        quick = engine.config(setup_of("read-timeout")).replace("read-timeout", "refused")
        assert len(quick) > len(plain), "it says less where the product's own time-outs hold"

    def test_verify_certificates_where_the_case_asks(self, name: str) -> None:
        engine = ENGINES[name]
        assert "/run/x/ca.crt" in engine.config(setup_of("tls-expired"))
        assert "/run/x/ca.crt" not in engine.config(setup_of("refused"))

    def test_speak_h2c_or_say_why_not(self, name: str) -> None:
        engine, case = ENGINES[name], BY_NAME["h2c-to-h1"]
        assert case.speaks is Speaks.H2C
        if not engine.refuses(case):
            text = engine.config(setup_of("h2c-to-h1"))
            assert any(word in text for word in ("h2c://", "proto h2", "http2_protocol_options"))


MARKERS = {
    "nginx": (
        [
            (
                "2026/11/26 07:26:01 [error] 7#7: *1 connect() failed (111: Connection refused) while "
                'connecting to upstream, client: 127.0.0.1, server: refused.test, host: "refused.test"'
            ),
            (
                '2026/11/26 07:26:01 [error] 7#7: *2 upstream sent invalid header: "X-Bad\\x00..." while '
                'reading response header from upstream, host: "malformed.test"'
            ),
            (
                "2026/11/26 07:26:01 [warn] 7#7: *3 an upstream response is buffered to a temporary file "
                "./temp/1 while reading upstream"
            ),
            "malformed-status.test 009 upstream=009",
            "healthy.test 200 upstream=200",
        ],
        [
            "connect() failed (111: Connection refused)",
            "upstream sent invalid header",
            "upstream status 009",
        ],
    ),
    "haproxy": (
        [
            (
                "127.0.0.1:1 [26/Nov/2026:07:28:00.001] gateway refused.test/s1 0/3002/-1/-1/3002 503 217 "
                '- - SC-- 5/5/4/0/3 0/0 "GET / HTTP/1.1"'
            ),
            (
                "127.0.0.1:1 [26/Nov/2026:07:28:00.001] gateway reset.test/s1 0/0/0/-1/1 502 208 - - SH-- "
                '5/5/4/0/0 0/0 "GET / HTTP/1.1"'
            ),
            (
                "127.0.0.1:1 [26/Nov/2026:07:28:00.001] gateway healthy.test/s1 0/0/0/1/1 200 119 - - ---- "
                '5/5/4/0/0 0/0 "GET / HTTP/1.1"'
            ),
        ],
        ["SC-- after 3 retries", "SH--"],
    ),
    "envoy": (
        [
            (
                '{"host":"refused.test","flags":"UF","details":"upstream_reset_before_response_started'
                '{remote_connection_failure|delayed_connect_error:_Connection_refused}"}'
            ),
            '{"host":"empty.test","flags":"UH","details":"no_healthy_upstream"}',
            '{"host":"healthy.test","flags":"-","details":"via_upstream"}',
            "[2026-11-26 07:29:44.894][5561][info][main] starting",
        ],
        ["UF remote_connection_failure", "UH no_healthy_upstream"],
    ),
    "caddy": (
        [
            (
                '{"level":"error","logger":"http.log.error","msg":"dial tcp 127.0.0.1:8903: connect: '
                'connection refused","request":{"host":"refused.test"}}'
            ),
            '{"level":"info","logger":"admin","msg":"stopped"}',
            "not JSON",
        ],
        ["dial tcp …: connect: connection refused"],
    ),
    "httpd": (
        [
            (
                "[2026-11-26 07:29:32.781056] [refused.test] AH01114: HTTP: failed to make connection to "
                "backend: 127.0.0.1"
            ),
            (
                "[2026-11-26 07:29:32.781056] [reset.test] AH01102: error reading status line from remote "
                "server 127.0.0.1:8905"
            ),
            "[2026-11-26 07:29:32.781056] [-] resuming normal operations",
        ],
        [
            "AH01114: HTTP: failed to make connection to backend",
            "AH01102: error reading status line from remote server",
        ],
    ),
}


@pytest.mark.parametrize("name", ENGINES)
def test_markers_are_the_gateways_own_words_without_addresses(name: str) -> None:
    lines, expected = MARKERS[name]
    assert ENGINES[name].markers(lines) == expected


def test_markers_are_told_apart_by_host() -> None:
    lines, _ = MARKERS["haproxy"]
    found = runner.markers(
        ENGINES["haproxy"], lines, ["refused.test", "reset.test", "healthy.test"]
    )
    assert found == {
        "refused.test": ("SC-- after 3 retries",),
        "reset.test": ("SH--",),
        "healthy.test": (),
    }
    pair = [line.replace("reset.test", "pair-reset.test") for line in lines]
    assert "reset.test" not in runner.markers(ENGINES["haproxy"], pair, ["reset.test"])


class TestReport:
    def cell(self, *seen: Observation, case: str = "refused", gateway: str = "nginx") -> Cell:
        return Cell(gateway, case, seen, ("connect() failed",), 1.5, Beside(10, 0, 2))

    def test_an_outcome_is_short_where_repeats_agree(self) -> None:
        assert report.outcome(self.cell(BAD, BAD)) == "502"
        assert report.outcome(self.cell(BAD, BAD, CLOSED)) == "502 ×2, closed ×1"
        slow = replace(BAD, seconds=3.04)
        assert report.outcome(self.cell(slow, slow)) == "502 (3.0 s)"
        assert report.outcome(Cell("nginx", "h2c-to-h1", unsupported="no h2c")) == "–"
        assert report.outcome(None) == "–"

    def test_a_cut_answer_is_no_status_for_clients(self) -> None:
        cut = Observation(200, Shape.CUT, 0.01)
        assert cut.failed
        assert cut.text == "200 cut short"
        assert self.cell(cut, cut).status == 0
        assert self.cell(BAD, BAD, CLOSED).status == 502

    def test_profiles_that_say_otherwise_are_named(self) -> None:
        results = Results({"nginx": "1"}, 2, (self.cell(BAD, BAD),))
        right = {"nginx": {Cause.REFUSED: Answer(502)}}
        assert report.disagreements(results, right) == []
        (text,) = report.disagreements(results, {"nginx": {Cause.REFUSED: Answer(503)}})
        assert text == "nginx: its profile says 503 for refused, 502 measured"
        (text,) = report.disagreements(results, {"nginx": {}})
        assert "not in its profile" in text
        elsewhere = Results({"nginx": "1"}, 2, (self.cell(BAD, case="cut-body"),))
        assert report.disagreements(elsewhere, {"nginx": {}}) == [], "not what profiles speak of"

    def test_a_file_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        results = Results({"nginx": "1.22"}, 2, (self.cell(BAD, CLOSED),))
        path = tmp_path / "results.json"
        path.write_text(report.encode(results))
        again = report.read(path)
        assert replace(again, cells=tuple(again.cells)) == results

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"format": 1}', '{"format": 99}', "nonsense"]
    )
    def test_another_file_is_refused_in_words(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "results.json"
        path.write_text(text)
        with pytest.raises(LabError, match=r"results\.json"):
            report.read(path)
        with pytest.raises(LabError, match="No such file"):
            report.read(tmp_path / "nothing.json")

    def test_the_page_has_a_row_for_each_failure_and_a_column_for_each_gateway(self) -> None:
        results = Results({"nginx": "1.22", "caddy": "2"}, 2, (self.cell(BAD, BAD),))
        page = report.markdown(results)
        assert "| connection refused | 502 | – |" in page
        assert "| connection refused | GET 0, POST 2 | – |" in page
        assert "| connection refused | `connect() failed` | – |" in page
        assert "| connection refused | 1.5 | – |" in page


class TestClient:
    def test_sees_the_race_on_a_reused_connection_only(self) -> None:
        with servers.serving(servers.race) as upstream:
            port = port_of(upstream)
            assert client.ask(port, "x.test").text == "200"
            assert client.ask(port, "x.test", method="POST", requests=2).shape is Shape.CLOSED
            assert upstream.seen is not None
            assert upstream.seen() == 3

    def test_sees_a_body_that_is_cut_short(self) -> None:
        with servers.serving(servers.cut_body) as upstream:
            seen = client.ask(port_of(upstream), "x.test")
        assert (seen.status, seen.shape) == (200, Shape.CUT)

    def test_sees_that_it_is_no_http(self) -> None:
        with servers.serving(servers.h2_only) as upstream:
            assert client.ask(port_of(upstream), "x.test").shape is Shape.GARBAGE

    def test_waits_no_longer_than_told(self) -> None:
        release = threading.Event()

        def silent(_connection: socket.socket, _count: object) -> None:
            release.wait(10)

        with servers.serving(silent) as upstream:
            seen = client.ask(port_of(upstream), "x.test", timeout=0.2)
            release.set()
        assert seen.shape is Shape.SILENT
        assert seen.failed

    def test_takes_nobody_there_for_a_closed_connection(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
        assert client.ask(port, "x.test").shape is Shape.CLOSED


def test_connections_to_an_address_that_drops_do_not_come_about() -> None:
    with servers.dropping() as upstream, socket.socket() as probe:
        probe.settimeout(0.3)
        with pytest.raises(TimeoutError):
            probe.connect(("127.0.0.1", port_of(upstream)))


def test_the_name_server_knows_no_name_and_may_say_nothing() -> None:
    def query(name: str) -> bytes:
        labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split("."))
        return (
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"
        )

    with servers.name_server("silent") as address, socket.socket(type=socket.SOCK_DGRAM) as asker:
        host, _, port = address.rpartition(":")
        asker.settimeout(2)
        asker.sendto(query("unknown.invalid"), (host, int(port)))
        answer = asker.recv(512)
        assert answer[:2] == b"\x12\x34"
        assert answer[3] & 0x0F == 3, "NXDOMAIN"
        assert answer[12:] == query("unknown.invalid")[12:]
        asker.settimeout(0.2)
        asker.sendto(query("silent.invalid"), (host, int(port)))
        with pytest.raises(TimeoutError):
            asker.recv(512)
    assert servers.no_such_name(b"") == servers.no_such_name(b"\x00" * 12) == b""


def test_the_built_in_profiles_say_what_was_measured() -> None:
    results = report.read(MEASURED)
    assert set(results.versions) == set(ENGINES)
    answers = {name: engine.answers for name, engine in ENGINES.items()}
    assert report.disagreements(results, answers) == []


def test_what_is_measured_lacks_no_failure() -> None:
    measured = {(cell.gateway, cell.case) for cell in report.read(MEASURED).cells}
    assert measured == {(gateway, case.name) for gateway in ENGINES for case in CASES}


def has_program(name: str) -> bool:
    if name == "caddy":
        return tools.cached_path("caddy").exists()
    return not packages.missing(ENGINES[name].needs())


@pytest.mark.parametrize("name", ENGINES)
def test_a_gateway_is_measured(name: str, tmp_path: Path) -> None:
    if not has_program(name):
        pytest.skip(f"{name} is not there")
    engine = ENGINES[name]
    say = QuietReporter()
    cases = [BY_NAME[n] for n in ("reset", "cut-body", "empty", "tls-expired")]
    told: list[Cell] = []
    tmp_path.chmod(0o755)
    cells = runner.measure(
        engine,
        engine.program(say),
        images.upstream_program(say),
        tmp_path,
        cases,
        repeats=2,
        done=told.append,
    )
    assert [cell.case for cell in cells] == [case.name for case in cases]
    assert {cell.case for cell in told} == {cell.case for cell in cells}
    reset, cut, empty, tls = cells
    assert reset.status in {502, 503}
    assert reset.attempts == 1
    assert reset.beside is not None
    assert cut.outcomes == {"200 cut short": 2}
    assert empty.status in {502, 503}
    assert tls.status in {500, 502, 503}
    assert all(cell.markers for cell in (reset, tls))


def test_a_gateway_that_does_not_serve_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ENGINES["envoy"]
    monkeypatch.setattr(type(engine), "config", lambda _self, _setup: "{")
    say = QuietReporter()
    with pytest.raises(LabError, match=r"envoy does not serve; the end of its log:\n.+"):
        runner.measure(
            engine, engine.program(say), images.upstream_program(say), tmp_path, [HEALTHY],
            repeats=1, done=lambda _cell: None,
        )  # fmt: skip


class TestCommand:
    def test_measures_and_writes_what_it_saw(self, tmp_path: Path) -> None:
        file = tmp_path / "deep" / "results.json"
        words = ["--gateway", "envoy", "--failure", "empty", "--repeats", "1", "--json", str(file)]
        done = CliRunner().invoke(lab_conformance.command, words)
        assert done.exit_code == 0, done.output
        assert "empty" in done.output
        (cell,) = json.loads(file.read_text())["cells"]
        assert cell["observations"][0]["status"] == 503

    @pytest.mark.parametrize(
        "words",
        [["--gateway", "iis"], ["--failure", "boredom"], ["--repeats", "0"], ["--program", "nginx"],
         ["--program", "nginx=/nowhere"]],
    )  # fmt: skip
    def test_bad_input_is_exit_code_2(self, words: list[str]) -> None:
        assert CliRunner().invoke(lab_conformance.command, words).exit_code == 2

    def test_a_program_that_is_none_is_told_in_words(self, tmp_path: Path) -> None:
        program = tmp_path / "envoy"
        program.write_text("no program")
        words = ["--gateway", "envoy", "--failure", "empty", "--program", f"envoy={program}"]
        done = CliRunner().invoke(lab_conformance.command, words)
        assert done.exit_code == 1
        assert "cannot be run" in done.output


def test_sources_of_the_sample_are_modes_that_it_knows() -> None:
    text = (images.SAMPLES / "upstream/state.go").read_text()
    assert Source.HANG in SAMPLE_MODES
    assert all(f'"{mode}"' in text for mode in SAMPLE_MODES)
