"""A steady cluster gets no writes: guards on the embedded cluster, left alone, by the audit log.

The toggles of propagation canaries (EndpointSlices of the operator's own, in its own namespace; there are
some where a gateway leads to a guarded Service, as while a demo runs on the same lab) are counted apart.

python tests/bench/steady.py --minutes 20 --guards 50 --pods 3 --json steady.json
"""

import argparse
import json
import time
from pathlib import Path

import lab_scene as scene
from rich.console import Console
from rich.progress import track

from upstream_guard.core import names
from upstream_guard.lab import replicas

SETTLE_SECONDS = 90
"""After everything is Healthy: until statuses, events and the webhook's registration are done."""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--guards", type=int, default=50)
    parser.add_argument("--pods", type=int, default=3, help="per guard")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    console = Console()
    with (
        scene.lab() as (cluster, say),
        scene.namespace(cluster, "ug-steady") as where,
        replicas.operator(cluster, say) as started,
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
        for _ in track(range(SETTLE_SECONDS), "Settling", console=console):
            time.sleep(1)
        offset = cluster.audit_log.stat().st_size
        memory = [[scene.rss_mib(r.pid)] for r in started]
        cpu = [scene.cpu_seconds(r.pid) for r in started]
        for second in track(range(int(args.minutes * 60)), "Steady", console=console):
            time.sleep(1)
            if second % 60 == 59:
                for known, replica in zip(memory, started, strict=True):
                    known.append(scene.rss_mib(replica.pid))
        cpu = [scene.cpu_seconds(r.pid) - c for r, c in zip(started, cpu, strict=True)]
        guarded = scene.audited_writes(cluster.audit_log, offset, frozenset({where}))
        writes = scene.audited_writes(
            cluster.audit_log, offset, frozenset({where, names.OPERATOR_NAMESPACE})
        )
        canary = {w: n for w, n in (writes - guarded).items() if w.endswith(" endpointslices")}
        healthy = scene.condition_true(cluster, where, "Healthy")
        leases = sum(n for what, n in writes.items() if what.endswith(" leases"))
        result = {
            "minutes": args.minutes,
            "guards": args.guards,
            "endpoints": args.guards * args.pods,
            "healthy_at_end": healthy,
            "writes": dict(writes),
            "canary_writes": sum(canary.values()),
            "writes_but_lease": sum(writes.values()) - leases - sum(canary.values()),
            "memory_mib": {
                r.name: [round(m, 1) for m in known]
                for r, known in zip(started, memory, strict=True)
            },
            "cpu_seconds": {r.name: round(c, 1) for r, c in zip(started, cpu, strict=True)},
        }
        console.print_json(json.dumps(result))
        if args.json:
            args.json.write_text(json.dumps(result, indent=2) + "\n")
    raise SystemExit(1 if result["writes_but_lease"] else 0)


if __name__ == "__main__":
    main()
