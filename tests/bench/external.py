"""DNS away for minutes under load to an external upstream, and addresses that change: on the embedded cluster.

Usage: python tests/bench/external.py [--minutes 5] [--changes 10] [--rate 100] [--ttl 5]

The upstreams are two processes in network namespaces of their own, beside the cluster and not pods of it. The
load goes through Contour's Envoy to a Service without selector; the operator runs with the rights of deploy/.
While DNS is away the operator is killed once and started again.
"""

import asyncio
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from lab_scene import apply, kubectl, wait

from upstream_guard.lab import replicas
from upstream_guard.lab.demo import tally
from upstream_guard.lab.gateways import GATEWAYS, ServiceTarget
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import Cluster, LabError, LabSpec, current_cluster, default_state_dir
from upstream_guard.lab.report import RichReporter

NAMESPACE = "external"
NAME = "api.example.com"
PORT = 8080
ADDRESSES = {"a": "203.0.113.10", "b": "203.0.113.20"}
ROUTER = "203.0.113.1"
DNS = "127.0.0.1:5353"
HEADER = "X-Upstream"
SETTLE_SECONDS = 3.0
POLL_SECONDS = 0.02


class Answer(asyncio.Protocol):
    """Answers every request on a kept connection with the name of this upstream."""

    def __init__(self, name: str) -> None:
        self._reply = f"HTTP/1.1 200 OK\r\n{HEADER}: {name}\r\nContent-Length: 0\r\n\r\n".encode()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        self._transport.write(self._reply * len(heads))


async def serve(name: str) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Answer(name), "", PORT)
    await server.serve_forever()


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(command)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(10)


@contextmanager
def upstream(name: str, address: str) -> Iterator[None]:
    """A process in a network namespace of its own, reached through a pair of interfaces."""
    space, link = f"ug-ext-{name}", f"ugext{name}"
    run("ip", "netns", "add", space)
    try:
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "address", "add", f"{ROUTER}/32", "dev", link)
        run("ip", "link", "set", link, "up")
        run("ip", "route", "add", f"{address}/32", "dev", link)
        inside = ("ip", "-n", space)
        run(*inside, "address", "add", f"{address}/32", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "route", "add", f"{ROUTER}/32", "dev", "eth0")
        net = f"--net=/run/netns/{space}"
        with process("nsenter", net, sys.executable, __file__, "--serve", name):
            yield
    finally:
        run("ip", "netns", "delete", space)


class Zone:
    """The DNS server as a process, and the file that it answers from."""

    def __init__(self, path: Path, ttl: int) -> None:
        self._path, self._ttl = path, ttl
        self._process: subprocess.Popen[bytes] | None = None

    def point_to(self, address: str) -> None:
        body = {"ttl": self._ttl, "records": {NAME: {"A": [address]}}}
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(body))
        new.replace(self._path)

    def start(self) -> None:
        command = [sys.executable, "-m", "upstream_guard.lab.nameserver", "--listen", DNS]
        self._process = subprocess.Popen([*command, str(self._path)])

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def manifests() -> list[dict[str, Any]]:
    metadata = {"name": "payments", "namespace": NAMESPACE}
    ports = [{"name": "http", "port": 80, "targetPort": PORT, "appProtocol": "http"}]
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}},
        {
            "apiVersion": "upstreamguard.io/v1alpha1",
            "kind": "UpstreamGuard",
            "metadata": metadata,
            "spec": {
                "targetRef": {"name": "payments"},
                "upstreams": [{"host": NAME, "port": PORT}],
            },
        },
    ]


def reasons(cluster: Cluster) -> list[str]:
    found = json.loads(
        kubectl(cluster, "-n", NAMESPACE, "get", "events.events.k8s.io", "-o", "json")
    )
    return [item["reason"] for item in found["items"]]


def listed(cluster: Cluster) -> dict[str, bool]:
    found = json.loads(kubectl(cluster, "-n", NAMESPACE, "get", "endpointslices", "-o", "json"))
    return {
        e["addresses"][0]: e["conditions"]["ready"] for s in found["items"] for e in s["endpoints"]
    }


def versions(cluster: Cluster) -> list[str]:
    found = json.loads(kubectl(cluster, "-n", NAMESPACE, "get", "endpointslices", "-o", "json"))
    return [item["metadata"]["resourceVersion"] for item in found["items"]]


def who_answers(port: int, host: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().headers.get(HEADER, "")
    finally:
        connection.close()


def follow(port: int, host: str, new: str, limit: float) -> tuple[float, float]:
    """Seconds until the new upstream answers first, and until the old one has answered last."""
    began = time.monotonic()
    first = last_old = 0.0
    while True:
        at = time.monotonic() - began
        if who_answers(port, host) == new:
            first = first or at
        else:
            last_old = at
        if first and at > max(first, last_old) + SETTLE_SECONDS:
            return first, last_old
        if at > limit:
            raise TimeoutError(f"not followed within {limit:g} s")
        time.sleep(POLL_SECONDS)


def failures(out: Path) -> list[tally.Record]:
    records = [tally.decode(line) for line in out.read_text().splitlines()]
    return [record for record in records if record.failed]


def install(cluster: Cluster, say: RichReporter) -> None:
    """Apply deploy/; on a busy machine kubectl may give up waiting for the API server."""
    for last in (False, False, False, True):
        try:
            replicas.install(cluster, say)
        except LabError as error:
            if last:
                raise
            say.note(str(error))
        else:
            return


def measure(cluster: Cluster, options: dict[str, Any]) -> dict[str, Any]:
    say, work = RichReporter(), cluster.state_dir / "external"
    work.mkdir(exist_ok=True)
    out = work / "load.jsonl"
    zone = Zone(work / "zone.json", options["ttl"])
    zone.point_to(ADDRESSES["a"])
    gateway = GATEWAYS["contour"]
    with ExitStack() as stack:
        for name, address in ADDRESSES.items():
            stack.enter_context(upstream(name, address))
        zone.start()
        stack.callback(zone.stop)
        running = gateway.up(cluster, say)
        apply(cluster, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
        apply(cluster, manifests())
        flags = (
            "--allow-upstream-names=*.example.com",
            "--allow-upstream-ranges=203.0.113.0/24",
            f"--dns-server={DNS}",
            "--no-webhook",
        )
        account = replicas.account_kubeconfig(cluster)
        operator = replicas.start(cluster, "operator-1", account, *flags)
        replicas.until_ready(cluster, operator)
        wait("listed", lambda: listed(cluster) == {ADDRESSES["a"]: True}, 60)
        exposure = gateway.expose(cluster, ServiceTarget(NAMESPACE, "payments"))
        host = exposure.host
        load = [sys.executable, "-m", "upstream_guard.lab.load", f"--host={host}", f"--out={out}"]
        load += [f"--url=http://127.0.0.1:{running.port}/", f"--rate={options['rate']}"]
        generator = stack.enter_context(process(*load))
        time.sleep(5)
        peace = versions(cluster)
        zone.stop()
        away = time.monotonic()
        wait("told", lambda: "UpstreamUnresolved" in reasons(cluster), 60)
        told = time.monotonic() - away
        time.sleep(max(0.0, options["minutes"] * 30 - told))
        replicas.kill(operator)
        operator = replicas.start(cluster, "operator-2", account, *flags)
        replicas.until_ready(cluster, operator)
        time.sleep(max(0.0, options["minutes"] * 60 - (time.monotonic() - away)))
        still = versions(cluster) == peace and listed(cluster) == {ADDRESSES["a"]: True}
        zone.start()
        outage = time.monotonic() - away
        wait("resolved", lambda: "UpstreamResolved" in reasons(cluster), 60)
        followed = []
        for turn in range(options["changes"]):
            new = "ba"[turn % 2]
            time.sleep((1.3 * turn) % options["ttl"])  # at any moment of the TTL
            zone.point_to(ADDRESSES[new])
            followed.append(follow(running.port, host, new, options["ttl"] + 60.0))
        generator.send_signal(signal.SIGINT)
        generator.wait(20)
        return {
            "outage_seconds": round(outage, 1),
            "told_after_seconds": round(told, 2),
            "slices_untouched": still,
            "requests": sum(1 for _ in out.open()),
            "failed": [[r.sent, r.outcome] for r in failures(out)][:50],
            "failed_total": len(failures(out)),
            "ttl": options["ttl"],
            "new_answers_first": [round(first, 2) for first, _ in followed],
            "old_answers_last": [round(last, 2) for _, last in followed],
        }


@click.command()
@click.option("--minutes", default=5.0)
@click.option("--changes", default=10)
@click.option("--rate", default=100.0)
@click.option("--ttl", default=5)
@click.option("--serve", "name", hidden=True)
def main(name: str | None, **options: Any) -> None:
    """Measure, and print what came of it."""
    if name:
        asyncio.run(serve(name))
        return
    state_dir, say = default_state_dir(), RichReporter()
    before = current_cluster(state_dir)
    provider = LocalProvider(state_dir)
    cluster = provider.up(LabSpec(state_dir, nodes=1), say)
    try:
        install(cluster, say)
        print(json.dumps(measure(cluster, options), indent=2))
    finally:
        if before is None:
            provider.down(say)


if __name__ == "__main__":
    main()
