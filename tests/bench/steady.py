"""A steady cluster gets no writes: guards on the embedded cluster, left alone, by the audit log.

The writes of propagation canaries (EndpointSlices of the operator's own, in its own namespace) are counted apart, with the requests that they
send; `--gateway` puts the first guard behind gateways, so that there are more of them than kube-proxy's, and `--no-canary` turns them off.
`--after` goes on for some minutes once the last guard is gone, when nothing may be asked or written any more.

    .venv/bin/python tests/bench/steady.py --minutes 20 --guards 50 --pods 3 --json steady.json
    .venv/bin/python tests/bench/steady.py --minutes 60 --guards 1 --gateway contour --gateway nginx --after 10 --json cost.json
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lab_scene as scene
from rich.console import Console
from rich.progress import track

from upstream_guard.core import names
from upstream_guard.lab import replicas
from upstream_guard.lab.gateways import GATEWAYS, VIA_CLUSTER_IP, ServiceTarget
from upstream_guard.lab.gateways.profile import canary_target, gateway_profile
from upstream_guard.lab.model import Cluster, Reporter

SETTLE_SECONDS = 90
"""After everything is Healthy: until statuses, events and the webhook's registration are done."""
GONE_SECONDS = 30
"""After the last guard is gone: until its canaries are as well."""
CANARIES = "services,endpointslices,ingresses"
CANARY_LABEL = "app.kubernetes.io/component=canary"

Json = dict[str, Any]


@contextmanager
def behind(
    cluster: Cluster, say: Reporter, gateways: Sequence[str], service: str
) -> Iterator[None]:
    """A Service behind gateways, each led to its canary, while the context is open.

    Args:
        cluster: Of the lab.
        say: Where progress goes.
        gateways: Their names.
        service: As `namespace/name`; it and its guard exist.
    """
    namespace, _, name = service.partition("/")
    with ExitStack() as stack:
        for gateway in gateways:
            addon = GATEWAYS[gateway]
            running = addon.up(cluster, say)
            stack.callback(addon.down, cluster, say)
            profile = gateway_profile(running, [service], canary=True)
            scene.apply(cluster, [profile])
            stack.callback(
                scene.kubectl, cluster, "delete", names.PROFILE_PLURAL, profile["metadata"]["name"]
            )
            addon.expose(cluster, ServiceTarget(namespace, name))
            if gateway in VIA_CLUSTER_IP:
                target = canary_target(gateway)
                there = ("-n", target.namespace, "get", "services", "-o", "name")
                scene.wait(
                    "its canary", lambda t=target, a=there: t.name in scene.kubectl(cluster, *a)
                )
                addon.expose(cluster, target)
        yield


class Watch:
    """Writes, requests of canaries, memory and CPU from its beginning on."""

    def __init__(self, cluster: Cluster, started: Sequence[replicas.Replica], where: str) -> None:
        self.cluster, self.started, self.where = cluster, started, where
        self.offset = cluster.audit_log.stat().st_size
        self.memory = [[scene.rss_mib(r.pid)] for r in started]
        self.cpu = [scene.cpu_seconds(r.pid) for r in started]
        self.asked = self._asked()
        self.began = time.monotonic()

    def pass_time(self, minutes: float, title: str, console: Console) -> None:
        """Let so much time pass."""
        for second in track(range(int(minutes * 60)), title, console=console):
            time.sleep(1)
            if second % 60 == 59:
                for known, replica in zip(self.memory, self.started, strict=True):
                    known.append(scene.rss_mib(replica.pid))

    def found(self) -> Json:
        """What there was so far."""
        log, own = self.cluster.audit_log, names.OPERATOR_NAMESPACE
        guarded = scene.audited_writes(log, self.offset, frozenset({self.where}))
        writes = scene.audited_writes(log, self.offset, frozenset({self.where, own}))
        canary = {w: n for w, n in (writes - guarded).items() if w.endswith(" endpointslices")}
        leases = sum(n for what, n in writes.items() if what.endswith(" leases"))
        asked = {what: n - self.asked[what] for what, n in self._asked().items()}
        return {
            "minutes": round((time.monotonic() - self.began) / 60, 1),
            "writes": dict(writes),
            "canary_writes": sum(canary.values()),
            "writes_but_lease": sum(writes.values()) - leases - sum(canary.values()),
            "canary": asked,
            "memory_mib": {
                r.name: [round(m, 1) for m in known]
                for r, known in zip(self.started, self.memory, strict=True)
            },
            "cpu_seconds": {
                r.name: round(scene.cpu_seconds(r.pid) - c, 1)
                for r, c in zip(self.started, self.cpu, strict=True)
            },
        }

    def _asked(self) -> dict[str, float]:
        """Requests and toggles of all canaries, by the operator's own counters."""
        return {
            what: sum(
                sample.value
                for replica in self.started
                for sample in scene.metrics(
                    replica.http_port, f"upstream_guard_canary_{what}_total"
                )
            )
            for what in ("requests", "toggles")
        }


def left_over(cluster: Cluster) -> list[str]:
    """Objects of canaries that are there."""
    args = ("-n", names.OPERATOR_NAMESPACE, "get", CANARIES, "-l", CANARY_LABEL, "-o", "name")
    return scene.kubectl(cluster, *args).split()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--guards", type=int, default=50)
    parser.add_argument("--pods", type=int, default=3, help="per guard")
    parser.add_argument(
        "--gateway",
        action="append",
        choices=sorted(GATEWAYS),
        default=[],
        help="before the first guard",
    )
    parser.add_argument("--no-canary", action="store_true", help="measure no gateway")
    parser.add_argument(
        "--settle", type=float, default=SETTLE_SECONDS / 60, help="minutes before it counts"
    )
    parser.add_argument(
        "--after", type=float, default=0.0, help="minutes to go on without any guard"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    console = Console()
    extra = ["--no-canary"] if args.no_canary else []
    with (
        scene.lab() as (cluster, say),
        scene.namespace(cluster, "ug-steady") as where,
        replicas.operator(cluster, say, extra=extra) as started,
        ExitStack() as stack,
    ):
        parts = [scene.guarded_service(where, f"shop-{n}", args.pods) for n in range(args.guards)]
        scene.apply(cluster, [item for first, _ in parts for item in first])
        with say.step(f"{args.guards} guards accepted"):
            scene.wait(
                "accepted", lambda: scene.condition_true(cluster, where, "Accepted") == args.guards
            )
        scene.apply(cluster, [deployment for _, deployment in parts])
        with say.step(f"{args.guards * args.pods} endpoints healthy"):
            scene.wait(
                "healthy",
                lambda: scene.condition_true(cluster, where, "Healthy") == args.guards,
                600,
            )
        stack.enter_context(behind(cluster, say, args.gateway, f"{where}/shop-0"))
        for _ in track(range(int(args.settle * 60)), "Settling", console=console):
            time.sleep(1)
        watch = Watch(cluster, started, where)
        watch.pass_time(args.minutes, "Steady", console)
        result: Json = {
            "guards": args.guards,
            "endpoints": args.guards * args.pods,
            "gateways": args.gateway,
            "canaries": not args.no_canary,
            "healthy_at_end": scene.condition_true(cluster, where, "Healthy"),
            **watch.found(),
        }
        if args.after:
            result["without_guards"] = without_guards(cluster, started, where, args.after, console)
    console.print_json(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    raise SystemExit(1 if broken(result) else 0)


def without_guards(
    cluster: Cluster,
    started: Sequence[replicas.Replica],
    where: str,
    minutes: float,
    console: Console,
) -> Json:
    """Delete every guard, and see what is still asked and written, and what is left of the canaries."""
    scene.kubectl(cluster, "-n", where, "delete", "ug", "--all", "--timeout=60s")
    scene.wait("no canary", lambda: not left_over(cluster), GONE_SECONDS)
    for _ in track(range(GONE_SECONDS), "Settling", console=console):
        time.sleep(1)
    watch = Watch(cluster, started, where)
    watch.pass_time(minutes, "Without guards", console)
    return watch.found() | {"left": left_over(cluster)}


def broken(result: Json) -> bool:
    """Whether something was written or asked that must not be."""
    after = result.get("without_guards")
    if result["writes_but_lease"]:
        return True
    if after is None:
        return False
    return bool(
        after["writes_but_lease"]
        or after["canary_writes"]
        or after["canary"]["requests"]
        or after["left"]
    )


if __name__ == "__main__":
    main()
