"""The faulty upstream does at the socket what it is told; a cause that it fakes is a cause missed."""

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from upstream_guard.lab import images
from upstream_guard.lab.ports import spare_ports
from upstream_guard.lab.report import QuietReporter

DEADLINE = 20.0
QUIET = 0.3
"""So long without an answer counts as none; a healthy answer takes a millisecond."""


@dataclass(frozen=True)
class Upstream:
    process: subprocess.Popen[bytes]
    port: int
    control: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)

    def raw(self, path: str = "/", version: str = "1.1") -> bytes:
        """All bytes of one answer, until the end of the connection."""
        with self.connect() as conn:
            request = f"GET {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n"
            conn.sendall(request.encode())
            return read_all(conn)

    def status(self, path: str = "/") -> int:
        return int(self.raw(path).split(b" ", 2)[1])

    def command(self, path: str, method: str = "POST") -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.control}{path}", method=method)
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def fault(self, mode: str, **more: float) -> None:
        query = "".join(f"&{key}={value}" for key, value in more.items())
        self.command(f"/fault?mode={mode}{query}")

    def state(self) -> Any:
        return self.command("/state", "GET")

    def listening(self) -> bool:
        """False also for a reset: a listener that closes resets what still waits in its backlog."""
        try:
            self.connect().close()
        except (ConnectionRefusedError, ConnectionResetError):
            return False
        return True


def read_all(conn: socket.socket) -> bytes:
    data = b""
    while chunk := conn.recv(65536):
        data += chunk
    return data


def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.upstream_program(QuietReporter())


@pytest.fixture
def launch(program: Path) -> Iterator[Callable[..., Upstream]]:
    """Starts the upstream; returns when its control port answers."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**env: str) -> Upstream:
        port, control = spare_ports(2)
        own = {"PORT": str(port), "CONTROL_PORT": str(control), "POD_NAME": "shop-1"}
        process = subprocess.Popen([program], env={**os.environ, **own, **env})
        started.append(process)
        upstream = Upstream(process, port, control)

        def answers() -> bool:
            assert process.poll() is None, "the upstream ended"
            try:
                upstream.state()
            except urllib.error.URLError:
                return False
            return True

        until(answers)
        return upstream

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def upstream(launch: Callable[..., Upstream]) -> Upstream:
    found = launch()
    until(found.listening)
    return found


def test_is_healthy_unless_told_otherwise(upstream: Upstream) -> None:
    head, body = upstream.raw().split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body) == {"pod": "shop-1", "status": 200}
    assert upstream.status("/healthz") == 200
    state = upstream.state()
    began, serving = state.pop("started"), state.pop("serving")
    assert time.time() - DEADLINE < began <= serving <= time.time()
    assert state == {
        "pod": "shop-1",
        "mode": "none",
        "sigterm": "exit-on-sigterm",
        "listening": True,
        "requests": 2,
    }


def test_refuses_and_comes_back(upstream: Upstream) -> None:
    upstream.fault("refuse")
    until(lambda: not upstream.listening())
    assert upstream.process.poll() is None
    assert upstream.state()["listening"] is False
    upstream.fault("none")
    until(upstream.listening)
    assert upstream.status() == 200


@pytest.mark.parametrize("mode", ["reset-before-headers", "reset"])
def test_resets_before_the_headers(upstream: Upstream, mode: str) -> None:
    upstream.fault(mode)
    for path in ("/", "/healthz"):
        with pytest.raises(ConnectionResetError):
            upstream.raw(path)


def test_resets_in_the_body(upstream: Upstream) -> None:
    upstream.fault("reset-in-body")
    with upstream.connect() as conn:
        conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        first = conn.recv(65536)
        assert first.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart")
        with pytest.raises(ConnectionResetError):
            read_all(conn)


def test_closes_early(upstream: Upstream) -> None:
    upstream.fault("early-close")
    assert upstream.raw() == b""


def test_answers_a_malformed_header(upstream: Upstream) -> None:
    upstream.fault("malformed")
    answer = upstream.raw()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\x00" in answer.split(b"\r\n\r\n")[0]


def test_answers_no_http_at_all(upstream: Upstream) -> None:
    upstream.fault("malformed-status")
    assert upstream.raw().startswith(b"SSH-2.0-")


def test_greets_as_an_http2_server_does(upstream: Upstream) -> None:
    upstream.fault("h2-only")
    settings, goaway = bytes.fromhex("000000040000000000"), bytes.fromhex("000008070000000000")
    assert upstream.raw() == settings + goaway + bytes(7) + b"\x01"


def test_answers_headers_larger_than_any_gateway_takes(upstream: Upstream) -> None:
    upstream.fault("oversized-header")
    head = upstream.raw().split(b"\r\n\r\n", 1)[0]
    assert len(head) > 10 << 20
    started = time.monotonic()
    for _ in range(20):
        with upstream.connect() as conn:
            conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert conn.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert time.monotonic() - started < DEADLINE / 2


def test_hangs(upstream: Upstream) -> None:
    upstream.fault("hang")
    with upstream.connect() as conn:
        conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        conn.settimeout(QUIET)
        with pytest.raises(TimeoutError):
            conn.recv(1)
        upstream.fault("none")
        conn.settimeout(DEADLINE)
        assert conn.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_answers_late(upstream: Upstream) -> None:
    upstream.fault("slow", delay_seconds=0.4)
    started = time.monotonic()
    assert upstream.status() == 200
    assert time.monotonic() - started >= 0.4


def test_answers_an_error_of_its_own(upstream: Upstream) -> None:
    upstream.fault("error")
    assert upstream.status() == 500
    upstream.fault("unavailable")
    assert upstream.status() == upstream.status("/healthz") == 503


@pytest.mark.parametrize("mode", ["lying-ready", "lie"])
def test_stays_ready_while_broken(upstream: Upstream, mode: str) -> None:
    upstream.fault(mode)
    assert upstream.status("/healthz") == 200
    with pytest.raises(ConnectionResetError):
        upstream.raw("/")


def over_tls(upstream: Upstream, conn: socket.socket | None = None) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(conn or upstream.connect())


def ask_over_tls(conn: ssl.SSLSocket, more: str = "") -> bytes:
    conn.sendall(f"GET / HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
    return conn.recv(65536)


def test_speaks_tls_and_fails_over_it_as_it_does_in_clear(launch: Callable[..., Upstream]) -> None:
    upstream = launch(TLS="1")
    until(upstream.listening)
    with over_tls(upstream) as conn:
        assert ask_over_tls(conn).startswith(b"HTTP/1.1 200 OK")
        assert ask_over_tls(conn).startswith(b"HTTP/1.1 200 OK"), "it is kept"
    upstream.fault("error")
    with over_tls(upstream) as conn:
        assert ask_over_tls(conn).startswith(b"HTTP/1.1 500")
    upstream.fault("reset")
    with over_tls(upstream) as conn, suppress(ConnectionResetError):  # or OpenSSL calls it an end
        assert ask_over_tls(conn) == b""


def test_refuses_handshakes_and_ends_what_was_kept(launch: Callable[..., Upstream]) -> None:
    upstream = launch(TLS="1")
    until(upstream.listening)
    with over_tls(upstream) as kept:
        assert ask_over_tls(kept).startswith(b"HTTP/1.1 200 OK")
        upstream.fault("tls-refuse")
        assert kept.recv(1) == b"", "a gateway that keeps connections would never notice"
    with pytest.raises(ssl.SSLError, match="ALERT"):
        over_tls(upstream)
    upstream.fault("none")
    with over_tls(upstream) as conn:
        assert ask_over_tls(conn).startswith(b"HTTP/1.1 200 OK")
        assert ask_over_tls(conn).startswith(b"HTTP/1.1 200 OK")


def test_forgets_tls(launch: Callable[..., Upstream]) -> None:
    upstream = launch(TLS="1")
    until(upstream.listening)
    upstream.fault("tls-plain")
    with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
        over_tls(upstream)
    assert upstream.status() == 200


def test_serves_while_it_says_that_it_is_not_ready(upstream: Upstream) -> None:
    upstream.fault("unready")
    assert upstream.status("/healthz") == 503
    assert upstream.status("/") == 200


def test_keeps_idle_connections_unless_told_to_close_them_early(upstream: Upstream) -> None:
    with upstream.connect() as conn:
        for _ in range(2):
            conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert conn.recv(65536).startswith(b"HTTP/1.1 200 OK")
        upstream.fault("close-idle-early")
        conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_all(conn)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" not in answer


def test_a_fault_may_end_by_itself(upstream: Upstream) -> None:
    upstream.fault("early-close", seconds=0.2)
    assert upstream.raw() == b""
    until(lambda: upstream.raw() != b"")
    assert upstream.status() == 200


def test_a_new_fault_is_not_ended_by_the_old_ones_clock(upstream: Upstream) -> None:
    upstream.fault("early-close", seconds=0.1)
    upstream.fault("error")
    until_time = time.monotonic() + QUIET
    while time.monotonic() < until_time:
        assert upstream.status() == 500


def test_refuses_a_mode_that_it_does_not_know(upstream: Upstream) -> None:
    for query in ("mode=explode", "mode=hang&seconds=-1", ""):
        with pytest.raises(urllib.error.HTTPError) as caught:
            upstream.command(f"/fault?{query}")
        assert caught.value.code == 400
    assert upstream.state()["mode"] == "none"


def test_is_slow_to_start(launch: Callable[..., Upstream]) -> None:
    started = time.monotonic()
    upstream = launch(START_DELAY_SECONDS="0.6")
    assert upstream.state()["listening"] is False
    assert not upstream.listening()
    until(upstream.listening)
    assert time.monotonic() - started >= 0.6


def test_delays_answers_but_not_the_health_check(launch: Callable[..., Upstream]) -> None:
    upstream = launch(RESPONSE_DELAY_SECONDS="0.4")
    until(upstream.listening)
    started = time.monotonic()
    assert upstream.status("/healthz") == 200
    assert time.monotonic() - started < 0.3
    assert upstream.status("/") == 200
    assert time.monotonic() - started >= 0.4


def test_takes_faults_from_the_environment(launch: Callable[..., Upstream]) -> None:
    upstream = launch(FAULT="refuse,ignore-sigterm")
    assert not upstream.listening()
    assert upstream.state()["mode"] == "refuse"
    assert upstream.state()["sigterm"] == "ignore-sigterm"


def test_crashes_like_a_killed_process(upstream: Upstream) -> None:
    upstream.command("/crash")
    assert upstream.process.wait(DEADLINE) == 137


def test_bad_settings_end_it_with_a_reason(program: Path) -> None:
    done = subprocess.run(
        [program],
        env={"PORT": "x", "START_DELAY_SECONDS": "-1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode != 0
    assert "PORT" in done.stderr
    assert "START_DELAY_SECONDS" in done.stderr


class TestSigterm:
    def test_ends_at_once_by_default_with_requests_open(self, upstream: Upstream) -> None:
        upstream.fault("slow", delay_seconds=30)
        with upstream.connect() as conn:
            conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: upstream.state()["requests"] == 1)
            upstream.process.send_signal(signal.SIGTERM)
            assert upstream.process.wait(DEADLINE) == 128 + signal.SIGTERM
            assert read_or_reset(conn) == b""

    def test_graceful_finishes_requests_and_refuses_new_ones(self, upstream: Upstream) -> None:
        upstream.fault("graceful")
        upstream.fault("slow", delay_seconds=0.5)
        with upstream.connect() as conn:
            conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: upstream.state()["requests"] == 1)
            upstream.process.send_signal(signal.SIGTERM)
            until(lambda: not upstream.listening())
            assert read_all(conn).startswith(b"HTTP/1.1 200 OK")
        assert upstream.process.wait(DEADLINE) == 0

    def test_ignored_it_goes_on_serving(self, upstream: Upstream) -> None:
        upstream.fault("ignore-sigterm")
        upstream.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + QUIET
        while time.monotonic() < end:
            assert upstream.status() == 200
        assert upstream.process.poll() is None

    def test_stops_listening_at_once_and_lingers(self, launch: Callable[..., Upstream]) -> None:
        upstream = launch(FAULT="stop-listening-on-sigterm", LINGER_SECONDS="4")
        until(upstream.listening)
        with upstream.connect() as conn:
            conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert conn.recv(65536).startswith(b"HTTP/1.1 200 OK")
            upstream.process.send_signal(signal.SIGTERM)
            until(lambda: not upstream.listening())
            assert upstream.process.poll() is None
            conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert conn.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert upstream.process.wait(DEADLINE) == 0

    def test_lingers_as_before_and_finishes_requests(self, launch: Callable[..., Upstream]) -> None:
        upstream = launch(FAULT="linger-on-sigterm", LINGER_SECONDS="0.5")
        until(upstream.listening)
        began = time.monotonic()
        upstream.process.send_signal(signal.SIGTERM)
        while time.monotonic() < began + 0.3:
            assert upstream.status() == 200
        upstream.fault("slow", delay_seconds=0.6)
        assert upstream.status() == 200
        assert upstream.process.wait(DEADLINE) == 0


def test_lies_for_a_while_from_its_first_moment(launch: Callable[..., Upstream]) -> None:
    upstream = launch(LIE_SECONDS="0.5")
    until(upstream.listening)
    began = time.monotonic()
    while time.monotonic() < began + 0.3:
        assert upstream.status("/healthz") == 200
        with upstream.connect() as conn:
            conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_or_reset(conn) == b""
    assert upstream.state()["serving"] == 0
    until(lambda: upstream.state()["mode"] == "none")
    assert upstream.status() == 200
    state = upstream.state()
    assert 0.5 <= state["serving"] - state["started"] < DEADLINE


@pytest.mark.parametrize(("args", "status"), [(["0.2"], 0), ([], 2), (["soon"], 2), (["-1"], 2)])
def test_called_as_sleep_it_sleeps(
    program: Path, tmp_path: Path, args: list[str], status: int
) -> None:
    sleep = tmp_path / "sleep"
    sleep.symlink_to(program)
    began = time.monotonic()
    done = subprocess.run([sleep, *args], capture_output=True, check=False, timeout=DEADLINE)
    assert done.returncode == status
    assert (time.monotonic() - began >= 0.2) is (status == 0)
    assert bool(done.stderr) is (status != 0)


def read_or_reset(conn: socket.socket) -> bytes:
    try:
        return read_all(conn)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(("keep_alive", "answers"), [("1", 2), ("0", 1)])
def test_without_keep_alive_each_connection_ends_after_one_answer(
    launch: Callable[..., Upstream], keep_alive: str, answers: int
) -> None:
    upstream = launch(KEEP_ALIVE=keep_alive)
    until(upstream.listening)
    with upstream.connect() as conn:
        conn.sendall(2 * b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        conn.shutdown(socket.SHUT_WR)
        data = read_all(conn)
    assert data.count(b"HTTP/1.1 200") == answers
    assert (b"Connection: close" in data) is (keep_alive == "0")
