"""`status` and `explain window` against an API server on loopback: views, exit codes, and clear refusals."""

import http.server
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from upstream_guard.cli import main
from upstream_guard.cli.overview import age, as_json, detail, listing, overview_of
from upstream_guard.cli.story import lines, tell

NOW = 1_767_323_045.0  # 2026-01-02T03:04:05Z
GUARDS = "/apis/upstreamguard.io/v1alpha1/namespaces/prod/upstreamguards"
ALL = "/apis/upstreamguard.io/v1alpha1/upstreamguards"
EVENTS = "/apis/events.k8s.io/v1/namespaces/prod/events"


def condition(kind, status="True", reason=None, message=""):
    reasons = {"Accepted": "Accepted", "Healthy": "AllServing", "AtRisk": "NoRisk"}
    return {
        "type": kind,
        "status": status,
        "reason": reason or reasons.get(kind, "Programmed"),
        "message": message,
        "lastTransitionTime": "2026-01-02T03:00:00Z",
    }


WINDOW = {
    "id": "w-20260102-030400-1",
    "gateway": "contour",
    "routes": ["Ingress prod/shop"],
    "cause": "refused",
    "confidencePercent": 92,
    "otherCauses": [{"cause": "reset", "percent": 5}],
    "extent": "endpoint",
    "endpoints": ["10.0.0.7:8080"],
    "opened": "2026-01-02T03:04:00.250Z",
    "detected": "2026-01-02T03:04:00.600Z",
    "closed": "2026-01-02T03:04:01.450Z",
    "lostRequests": 34,
    "counted": "estimated",
    "statuses": [{"status": 503, "requests": 30}, {"status": 0, "requests": 4}],
    "eyes": ["direct", "route"],
    "evidence": "direct probes: 1 of 3 endpoints fail, refused",
    "predicted": True,
    "change": "rollout of deployment/shop",
}
PREDICTION = {
    "change": "rollout",
    "subject": "deployment/shop",
    "began": "2026-01-02T03:03:59.900Z",
    "madeAt": "2026-01-02T03:03:59.980Z",
    "until": "2026-01-02T03:14:00Z",
    "opensAt": "2026-01-02T03:04:00.300Z",
    "lostRequests": 40,
    "sharePercent": 30,
    "probabilityPercent": 99,
    "cause": "refused",
    "risk": "no-pre-stop",
    "gateway": "contour",
    "status": 503,
    "evidence": "builtin",
    "message": "rollout: about 40 requests fail",
    "remedy": "kubectl -n prod patch deployment shop",
}
STATUS = {
    "observedGeneration": 1,
    "conditions": [condition(k) for k in ("Accepted", "Programmed", "Healthy")]
    + [condition("AtRisk", "False")],
    "summary": {"service": "shop:http", "endpoints": "2/3"},
    "endpoints": {"total": 3, "listed": 2, "serving": 2, "ejected": 1, "draining": 0},
    "endpointList": [
        {
            "address": "10.0.0.7:8080",
            "state": "Ejected",
            "pod": "shop-a",
            "node": "n1",
            "gated": True,
            "cause": "refused",
            "detail": "connection refused",
        },
        {"address": "10.0.0.8:8080", "state": "Serving", "pod": "shop-b", "gated": False},
    ],
    "gateways": [
        {
            "kind": "IngressClass",
            "name": "contour",
            "controller": "contour",
            "detachLatency": "30ms",
            "attachLatency": "75ms",
            "evidence": "measured",
            "source": "by the canary",
        }
    ],
    "routes": [
        {
            "gateway": "contour",
            "route": "Ingress prod/shop",
            "url": "https://shop.example/",
            "via": "192.0.2.7:443",
        },
        {"gateway": "edge", "problem": "its GatewayProfile names no address"},
    ],
    "drain": {"mode": "Enforce", "preStopSeconds": 2, "reason": "preStop 2 s: because"},
    "predictions": [PREDICTION],
    "risks": [
        {
            "risk": "no-readiness-probe",
            "severity": "error",
            "subject": "deployment/shop",
            "message": "no probe",
            "remedy": "kubectl",
        }
    ],
    "windows": [WINDOW],
}


def guard(name="shop", namespace="prod", **status):
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"targetRef": {"name": name}},
        "status": {**deepcopy(STATUS), **status},
    }


def event(reason, at, note, name="shop"):
    return {
        "metadata": {"creationTimestamp": "2026-01-02T03:00:00Z"},
        "eventTime": at,
        "reason": reason,
        "note": note,
        "regarding": {"kind": "UpstreamGuard", "name": name},
    }


class Server:
    """Answers lists from `items` by path; a number instead of a list is refused with that status."""

    def __init__(self, folder: Path):
        self.items = {}
        self.asked = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                parts = urlsplit(self.path)
                outer.asked.append((parts.path, parse_qs(parts.query)))
                found = outer.items.get(parts.path, 404)
                status, body = (200, {"items": found}) if isinstance(found, list) else (found, None)
                if body is None:
                    message = f"refused with {found}"
                    body = {"kind": "Status", "code": found, "reason": "x", "message": message}
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        port = self.server.server_address[1]
        self.kubeconfig = folder / "kubeconfig"
        self.write(f"http://127.0.0.1:{port}")

    def write(self, url):
        named = {"cluster": "c", "user": "u", "namespace": "prod"}
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": url}}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                    "contexts": [{"name": "here", "context": named}],
                    "current-context": "here",
                }
            )
        )

    def run(self, *args):
        return CliRunner().invoke(main, [*args, "--kubeconfig", str(self.kubeconfig)])

    def command(self, *args):
        program = [sys.executable, "-m", "upstream_guard.cli", *args]
        return [*program, "--kubeconfig", str(self.kubeconfig)]


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    made.items[GUARDS] = [guard()]
    made.items[EVENTS] = []
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_guards_at_a_glance(server):
    result = server.run("status")
    assert result.exit_code == 0, result.output
    head, row = result.output.splitlines()
    assert head.split() == [
        "GUARD", "SERVICE", "STATE", "ENDPOINTS", "WINDOW", "PREDICTED", "RISKS", "GATEWAYS",
    ]  # fmt: skip
    for words in (
        "shop:http",
        "healthy",
        "2/3 listed, 1 ejected",
        "refused at contour, about 34 lost",
        "rollout: 40 lost",
        "1 error",
        "contour (30ms)",
    ):
        assert words in row
    assert "\x1b" not in result.output


def test_all_namespaces(server):
    server.items[ALL] = [guard(namespace="stage"), guard(namespace="prod")]
    result = server.run("status", "-A")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == [
        "NAMESPACE",
        "prod",
        "stage",
    ]
    assert server.run("status", "-A", "-n", "prod").exit_code == 2


def test_everything_about_one(server):
    server.items[GUARDS] = [guard("other"), guard()]
    result = server.run("status", "shop")
    assert result.exit_code == 0
    for words in (
        "prod/shop  Service shop:http",
        "Accepted",
        "w-20260102-030400-1",
        "for 1.2s",
        "refused (92 %)",
        "about 34 lost",
        "rollout of deployment/shop",
        "no-readiness-probe",
        "10.0.0.7:8080",
        "connection refused",
        "without gate",
        "detach 30ms",
        "attach 75ms",
        "https://shop.example/",
        "at 192.0.2.7:443",
        "its GatewayProfile names no address",
        "preStop 2 s",
    ):
        assert words in result.output
    assert "other" not in result.output


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"conditions": []}, "no status yet"),
        (
            {"conditions": [condition("Accepted", "False", "Conflicted")]},
            "not accepted: Conflicted",
        ),
        (
            {"conditions": [condition("Accepted"), condition("Healthy", "False", "NoEndpoints")]},
            "unhealthy: NoEndpoints",
        ),
        ({"windows": [{k: v for k, v in WINDOW.items() if k != "closed"}]}, "requests fail"),
    ],
)
def test_what_is_wrong_is_the_exit_code(server, status, words):
    server.items[GUARDS] = [guard("fine"), guard(**status)]
    result = server.run("status")
    assert result.exit_code == 1
    assert words in result.output
    found = json.loads(server.run("status", "-o", "json").output)
    assert found["well"] is False
    assert [g["well"] for g in found["guards"]] == [True, False]


def test_what_is_not_known_is_no_failure(server):
    unknown = [condition("Accepted"), condition("Healthy", "Unknown", "Pending")]
    server.items[GUARDS] = [guard(conditions=unknown)]
    result = server.run("status")
    assert result.exit_code == 0
    assert "unknown: Pending" in result.output


def test_for_programs(server):
    result = server.run("status", "-o", "json")
    assert result.exit_code == 0
    found = json.loads(result.output)
    (one,) = found["guards"]
    assert found["well"] is one["well"] is True
    assert one["endpoints"]["listed"] == 2
    assert one["gateways"][0]["detachLatency"] == "30ms"
    assert one["predictions"][0]["lost"] == 40
    (window,) = one["windows"]
    assert (window["cause"], window["lost"], window["counted"]) == ("refused", 34, "estimated")
    assert window["closed"] == "2026-01-02T03:04:01.450Z"


def test_no_guards(server):
    server.items[GUARDS] = []
    result = server.run("status")
    assert result.exit_code == 0
    assert "no guards" in result.output
    assert json.loads(server.run("status", "-o", "json").output) == {"well": True, "guards": []}


@pytest.mark.parametrize(
    ("answer", "args", "words"),
    [
        (403, (), "not allowed to list UpstreamGuards in namespace prod"),
        (401, (), "not allowed"),
        (404, (), "the CRDs are not installed"),
        (500, (), "refused with 500"),
        ([], ("shop",), "no UpstreamGuard in namespace prod"),
        ([guard("shop")], ("shpo",), "there is shop"),
    ],
)
def test_what_cannot_be_read(server, answer, args, words):
    server.items[GUARDS] = answer
    result = server.run("status", *args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_without_a_cluster(server, tmp_path):
    assert "context 'there'" in server.run("status", "--context", "there").stderr
    result = CliRunner().invoke(main, ["status", "--kubeconfig", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert f"there is no kubeconfig at {tmp_path / 'none'}" in result.stderr
    server.write("http://127.0.0.1:1")
    result = server.run("status")
    assert result.exit_code == 2
    assert "cannot be reached" in result.stderr


def test_what_others_wrote_does_not_rule_the_terminal(server):
    evil = "\x1b]0;owned\x07\x1b[2J"
    server.items[GUARDS] = [
        guard(
            summary={"service": evil},
            conditions=[condition("Accepted", message=evil), condition("Healthy")],
            windows=[{**WINDOW, "gateway": evil, "evidence": evil, "change": evil}],
            risks=[{"risk": evil, "severity": "error", "subject": evil, "message": evil}],
        )
    ]
    server.items[EVENTS] = [event("EndpointEjected", "2026-01-02T03:04:00Z", evil)]
    for args in (("status",), ("status", "shop"), ("explain", "window", WINDOW["id"])):
        result = server.run(*args)
        assert "\x1b" not in result.output
        assert "\x07" not in result.output


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(STATUS)), JSON), st.sampled_from(list(STATUS)), JSON)
@settings(max_examples=60)
def test_statuses_of_any_shape(status, key, value):
    body = guard()
    body["status"] = {**deepcopy(STATUS), **status, key: value}
    found = overview_of(body)
    console = Console(file=open(os.devnull, "w"), width=80)  # noqa: PTH123, SIM115
    console.print(listing([found], NOW, namespaces=True))
    console.print(detail(found, NOW))
    json.dumps(as_json([found]))
    for window in found.windows:
        list(lines(tell(found, window, [{}, {"regarding": 1}, {"eventTime": value}])))


# Live.


def read_lines(stream, count, seconds=120.0):
    found, deadline = [], time.monotonic() + seconds
    while len(found) < count:
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"only {found}"
        found.append(stream.readline().decode())
    return found


def test_watching_prints_what_changed_and_survives_a_failing_server(server):
    command = server.command("status", "--watch", "-o", "json")
    # A shell has jobs in the background ignore Ctrl-C, and tests may be one.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no threads
    )  # fmt: skip
    try:
        (first,) = read_lines(process.stdout, 1)
        assert json.loads(first)["well"] is True
        server.items[GUARDS] = 500
        (problem,) = read_lines(process.stderr, 1)
        assert "refused with 500" in problem
        server.items[GUARDS] = [guard(conditions=[])]
        (second,) = read_lines(process.stdout, 1)
        assert json.loads(second)["well"] is False
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        assert b"Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_watching_ends_quietly_when_the_reader_goes(server):
    command = server.command("status", "--watch")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    try:
        read_lines(process.stdout, 2)
        process.stdout.close()
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            server.items[GUARDS] = [guard(f"g{time.monotonic():.0f}")]
            time.sleep(0.1)
        assert process.poll() is not None
        assert b"Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("extra", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(server, extra, coloured):
    primary, secondary = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "200", **extra}
    done = subprocess.run(
        server.command("status"), stdout=secondary, env=environment, timeout=120, check=False
    )
    os.close(secondary)
    output = os.read(primary, 65_536).decode()
    os.close(primary)
    assert done.returncode == 0
    assert "healthy" in output
    assert ("\x1b[32m" in output) is coloured


def test_as_a_plug_in_of_kubectl(server):
    program = Path(sys.executable).with_name("kubectl-upstream_guard")
    done = subprocess.run(
        [program, "status", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: kubectl upstream-guard status")


# The story of a window.


def test_the_story_of_a_window(server):
    server.items[EVENTS] = [
        event("EndpointRestored", "2026-01-02T03:04:03Z", "shop-a is back"),
        event("EndpointEjected", "2026-01-02T03:04:00.700Z", "shop-a (10.0.0.7): refused"),
        event("WindowPredicted", "2026-01-02T03:03:59.980Z", "rollout: about 40 requests fail"),
        event("EndpointEjected", "2026-01-02T02:00:00Z", "long before"),
        event("EndpointEjected", "2026-01-02T03:04:00.800Z", "another guard's", name="other"),
        event("GuardAccepted", "2026-01-02T03:04:00.900Z", "no part of it"),
    ]
    result = server.run("explain", "window", WINDOW["id"])
    assert result.exit_code == 0, result.output
    told = [line.split(maxsplit=2)[2] for line in result.output.splitlines() if " s  " in line]
    assert [line.split("  ")[0] for line in told] == [
        "change",
        "predicted",
        "first failed",
        "detected",
        "action",
        "last failed",
        "action",
    ]
    for words in (
        "Window w-20260102-030400-1 of prod/shop",
        "cause: refused (92 % sure); else reset 5 %",
        "evidence: direct probes: 1 of 3 endpoints fail",
        "extent: endpoint: 10.0.0.7:8080",
        "lost: about 34 requests (estimated), 30 × 503, 4 × no answer",
        "predicted: yes",
        "-0.35 s  change",
        "+0.00 s  first failed",
        "known after 350ms, by direct, route",
        "+0.45 s  action",
        "EndpointEjected: shop-a (10.0.0.7): refused",
        "1.2s after the first; about 34 requests lost",
    ):
        assert words in result.output
    for words in ("long before", "another guard's", "no part of it"):
        assert words not in result.output
    path, query = server.asked[-1]
    assert (path, query["fieldSelector"]) == (EVENTS, ["regarding.name=shop"])


def test_an_open_window_without_events(server):
    server.items[EVENTS] = 403
    server.items[GUARDS] = [guard(windows=[{k: v for k, v in WINDOW.items() if k != "closed"}])]
    result = server.run("explain", "window", WINDOW["id"])
    assert result.exit_code == 0
    assert "requests go on failing" in result.output
    assert "Without events" in result.stderr


def test_windows_are_listed_and_found(server):
    result = server.run("explain", "window")
    assert result.exit_code == 0
    assert "w-20260102-030400-1  prod/shop  1.2 s  refused at contour, 34 lost" in result.output
    result = server.run("explain", "window", "w-1")
    assert result.exit_code == 2
    assert "the latest are w-20260102-030400-1" in result.stderr
    server.items[GUARDS] = [guard(), guard("twin")]
    result = server.run("explain", "window", WINDOW["id"])
    assert result.exit_code == 2
    assert "prod/shop, prod/twin" in result.stderr
    assert server.run("explain", "window", WINDOW["id"], "--guard", "twin").exit_code == 0
    server.items[GUARDS] = [guard(windows=[])]
    assert "No window" in server.run("explain", "window").output


def test_only_windows_take_a_second_argument(server):
    assert server.run("explain", "refused", "w-1").exit_code == 2


def test_the_picture_of_a_window(server, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "window.png"
    server.items[EVENTS] = [
        event("EndpointEjected", "2026-01-02T03:04:00Z", "a $\\no formula$ \x07")
    ]
    result = server.run("explain", "window", WINDOW["id"], "--png", str(picture))
    assert result.exit_code == 0, result.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = server.run("explain", "window", WINDOW["id"], "--png", str(tmp_path / "no/window.png"))
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_without_matplotlib_it_says_so(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = server.run("explain", "window", WINDOW["id"], "--png", str(tmp_path / "w.png"))
    assert result.exit_code == 2
    assert "pip install 'upstream-guard[lab]'" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0s"), (0.4, "0s"), (59.9, "59s"), (60, "1m"), (7200, "2h"), (1e6, "11d")],
)
def test_ages(seconds, words):
    assert age(seconds) == words
