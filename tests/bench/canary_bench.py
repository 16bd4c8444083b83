"""The canary beside real pods: what it says of each gateway, and how long real pods got requests.

The operator measures Contour with Envoy, plain nginx and kube-proxy with its canaries; then deployments
behind both gateways are restarted again and again under load, with a long preStop, and for each pod the
time is taken from its deletion (the API server's audit log) to the last request that it answered.

    python tests/bench/canary_bench.py --rollouts 12 --json canary.json
"""

import argparse
import asyncio
import contextlib
import json
import math
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import lab_scene as scene
from rich.console import Console
from rich.table import Table

from upstream_guard.core import names
from upstream_guard.core.canary import canary_name
from upstream_guard.core.latency import latencies
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.lab import replicas
from upstream_guard.lab.gateways import GATEWAYS, ServiceTarget

PODS = 3
RATE = 100.0
"""Requests a second through each gateway, a new connection each."""
PRE_STOP = "6s"
"""Far longer than any gateway here needs, so that nothing fails and the last request is seen."""
SAMPLES = 30
PLAIN, ROUTED = "nginx", "contour"
ROWS = (("IngressClass", ROUTED), ("GatewayProfile", PLAIN), ("ClusterIP", "ClusterIP"))
LINE = re.compile(r"^(?P<name>upstream_guard_\w+)\{(?P<labels>.*)\} (?P<value>\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')

Json = dict[str, Any]


def series(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    """The operator's metrics of gateways: by name, then kind, gateway and further labels."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for line in text.splitlines():
        match = LINE.match(line)
        labels = dict(LABEL.findall(match["labels"])) if match else {}
        if match and "gateway" in labels and "kind" in labels:
            rest = tuple(v for k, v in sorted(labels.items()) if k not in {"kind", "gateway"})
            key = (labels["kind"], labels["gateway"], *rest)
            found.setdefault(match["name"], {})[key] = float(match["value"])
    return found


def canary_rows(port: int) -> dict[str, Json]:
    """What the canary says now, by gateway, in milliseconds."""
    all_ = series(port)
    rows = {}
    for kind, gateway in ROWS:
        detach, attach = (
            {
                key[-1]: round(1000 * value, 1)
                for key, value in all_.get(f"upstream_guard_gateway_{name}_seconds", {}).items()
                if key[:2] == (kind, gateway) and (name == "attach" or key[2] == "new")
            }
            for name in ("detach", "attach")
        )
        samples = all_.get("upstream_guard_canary_samples", {}).get((kind, gateway), 0)
        rows[f"{kind} {gateway}"] = {"samples": samples, "detach": detach, "attach": attach}
    return rows


class Load:
    """Requests at a fixed rate through one gateway; remembers when each pod answered last."""

    def __init__(self, url: str, host: str) -> None:
        self.address, self.port = url.split("//")[1].split("/", maxsplit=1)[0].split(":")
        self.request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        self.last: dict[str, float] = {}
        self.sent = self.failed = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send until cancelled."""
        start, index = time.monotonic(), 0
        while True:
            while start + index / RATE <= time.monotonic():
                index += 1
                task = asyncio.create_task(self.one())
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            await asyncio.sleep(0.002)

    async def one(self) -> None:
        """One request."""
        at = time.time()
        self.sent += 1
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(self.address, int(self.port))
                writer.write(self.request)
                answer = await reader.read()
                writer.close()
            pod = json.loads(answer.partition(b"\r\n\r\n")[2])["pod"]
        except (TimeoutError, OSError, ValueError, KeyError):
            self.failed += 1
            return
        self.last[pod] = max(self.last.get(pod, 0.0), at)


def deletions(log: Path, where: str) -> dict[str, float]:
    """When each pod of a namespace was deleted, Unix seconds, by the audit log."""
    found: dict[str, float] = {}
    for line in log.read_text().splitlines():
        event = json.loads(line)
        ref = event.get("objectRef") or {}
        if (
            event["verb"] == "delete"
            and ref.get("resource") == "pods"
            and ref.get("namespace") == where
        ):
            at = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
            found.setdefault(ref["name"], at)
    return found


async def restart(cluster: Any, where: str, loads: dict[str, Load], rollouts: int) -> None:
    """Roll the deployments over, one after another, under load."""
    running = [asyncio.create_task(load.run()) for load in loads.values()]
    try:
        for _ in range(rollouts):
            for name in loads:
                for step in (("rollout", "restart"), ("rollout", "status", "--timeout=180s")):
                    args = ("-n", where, *step, f"deployment/{name}")
                    await asyncio.to_thread(scene.kubectl, cluster, *args)
            await asyncio.sleep(float(PRE_STOP[:-1]) + 1)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def real_rows(loads: dict[str, Load], deleted: dict[str, float]) -> dict[str, Json]:
    """How long after its deletion each pod was still asked, in milliseconds."""
    rows = {}
    for name, load in loads.items():
        delays = [max(0.0, load.last[pod] - at) for pod, at in deleted.items() if pod in load.last]
        found = latencies(delays)
        quantiles = (
            {}
            if found is None
            else {
                "0.5": round(1000 * found.p50, 1),
                "0.9": round(1000 * found.p90, 1),
                "0.99": round(1000 * found.p99, 1),
                "1": round(1000 * found.max, 1),
            }
        )
        rows[name] = {
            "pods": len(delays),
            "detach": quantiles,
            "delays": sorted(delays),
            "sent": load.sent,
            "failed": load.failed,
        }
    return rows


def guarded(where: str, name: str) -> tuple[list[Json], Json]:
    """A guarded service whose pods stop late."""
    first, made = scene.guarded_service(where, name, PODS)
    first[1]["spec"]["drain"] = {"preStop": PRE_STOP}
    return first, made


def pre_stop(row: Json) -> float:
    """What `preStop: Auto` makes of a measurement, seconds."""
    doubt = 0.99 ** row["samples"] * max(0.5, 0.3 * row["detach"]["0.99"] / 1000)
    return math.ceil(row["detach"]["0.99"] / 1000 + 0.25 + doubt)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=12)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of the canary, first")
    parser.add_argument("--steady", type=float, default=0.0, help="minutes of peace afterwards")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    console = Console()
    canary = canary_name(GatewayKind.PROFILE, PLAIN)
    with contextlib.ExitStack() as stack:
        cluster, say = stack.enter_context(scene.lab(1))
        for name in (PLAIN, ROUTED):
            stack.callback(GATEWAYS[name].down, cluster, say)
        up = {name: GATEWAYS[name].up(cluster, say) for name in (PLAIN, ROUTED)}
        where = stack.enter_context(scene.namespace(cluster, "ug-canary"))
        (replica,) = stack.enter_context(replicas.operator(cluster, say, replicas=1))
        parts = {name: guarded(where, f"shop-{name}") for name in (PLAIN, ROUTED)}
        scene.apply(cluster, [item for first, _ in parts.values() for item in first])
        target = ServiceTarget(names.OPERATOR_NAMESPACE, canary)
        profile = {
            "apiVersion": names.API_VERSION,
            "kind": names.PROFILE_KIND,
            "metadata": {"name": PLAIN},
            "spec": {
                "match": {"services": [f"{where}/shop-{PLAIN}"]},
                "controller": PLAIN,
                "address": f"http://{up[PLAIN].address}:{up[PLAIN].port}",
                "canary": {"host": target.host},
            },
        }
        scene.apply(cluster, [profile])
        exposed = {
            name: GATEWAYS[name].expose(cluster, ServiceTarget(where, f"shop-{name}"))
            for name in (PLAIN, ROUTED)
        }
        services = ("-n", names.OPERATOR_NAMESPACE, "get", "services", "-o", "name")
        scene.wait("the canary of nginx", lambda: canary in scene.kubectl(cluster, *services))
        GATEWAYS[PLAIN].expose(cluster, target)
        scene.apply(cluster, [deployment for _, deployment in parts.values()])
        with say.step(f"{args.samples} toggles of each canary"):
            scene.wait(
                "measured",
                lambda: all(
                    row["samples"] >= args.samples
                    for row in canary_rows(replica.http_port).values()
                ),
                900,
            )
        before = canary_rows(replica.http_port)
        loads = {f"shop-{name}": Load(e.url, e.host) for name, e in exposed.items()}
        with say.step(f"{args.rollouts} restarts behind each gateway"):
            asyncio.run(restart(cluster, where, loads, args.rollouts))
        after = canary_rows(replica.http_port)
        real = real_rows(loads, deletions(cluster.audit_log, where))
        result = {"canary": before, "canary during restarts": after, "real": real}
        if args.steady:
            result["steady"] = steady(cluster, replica, args.steady)
        result["gateways"] = {
            name: json.loads(
                scene.kubectl(cluster, "-n", where, "get", "ug", f"shop-{name}", "-o", "json")
            )["status"]["gateways"]
            for name in (PLAIN, ROUTED)
        }
        result["after the last guard"] = left_over(cluster, where)
    show(console, result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


def steady(cluster: Any, replica: replicas.Replica, minutes: float) -> Json:
    """Requests and writes of the canary in peace, by its counters and by the audit log."""
    offset, before = cluster.audit_log.stat().st_size, series(replica.http_port)
    time.sleep(minutes * 60)
    after = series(replica.http_port)
    spaces = frozenset({names.OPERATOR_NAMESPACE})
    writes = scene.audited_writes(cluster.audit_log, offset, spaces)
    grown = {
        name: sum(after[f"upstream_guard_canary_{name}_total"].values())
        - sum(before[f"upstream_guard_canary_{name}_total"].values())
        for name in ("requests", "toggles")
    }
    return {"minutes": minutes, **grown, "writes": dict(writes)}


def left_over(cluster: Any, where: str) -> list[str]:
    """What is left of the canaries once no guard is left."""
    scene.kubectl(cluster, "-n", where, "delete", "ug", "--all")
    kinds = "services,endpointslices,ingresses"
    args = ("-n", names.OPERATOR_NAMESPACE, "get", kinds, "-o", "name")
    selector = ("-l", "app.kubernetes.io/component=canary")
    with contextlib.suppress(TimeoutError):
        scene.wait("no canary", lambda: not scene.kubectl(cluster, *args, *selector), 60)
    return scene.kubectl(cluster, *args, *selector).split()


def show(console: Console, result: Json) -> None:
    """The table for people, milliseconds."""
    table = Table("way", "what", "n", "p50", "p90", "p99", "max", "preStop")
    for title in ("canary", "canary during restarts"):
        for name, row in result[title].items():
            for what in ("detach", "attach"):
                cells = [str(row[what].get(q, "-")) for q in ("0.5", "0.9", "0.99", "1")]
                hook = f"{pre_stop(row):g} s" if what == "detach" else ""
                table.add_row(name, f"{title}: {what}", f"{row['samples']:g}", *cells, hook)
    for name, row in result["real"].items():
        cells = [str(row["detach"].get(q, "-")) for q in ("0.5", "0.9", "0.99", "1")]
        table.add_row(
            name,
            f"real detach, {row['failed']} of {row['sent']} failed",
            str(row["pods"]),
            *cells,
            "",
        )
    console.print(table)
    console.print({k: result[k] for k in ("steady", "after the last guard") if k in result})


if __name__ == "__main__":
    main()
