"""From verdict to EndpointSlice: pods toggled through their own faults, timed on this machine's clock.

A pod is made to refuse; the operator's log says when the verdict fell, a watch of the EndpointSlices
when the endpoint went. Healed, the same the other way.

    python tests/bench/verdict.py --toggles 200 --json verdict.json
"""

import argparse
import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import lab_scene as scene
from rich.console import Console
from rich.progress import Progress

from upstream_guard.kube.client import KubeClient
from upstream_guard.lab import replicas
from upstream_guard.lab.demo.stage import Stage

PODS = 16
OUT_SECONDS = 5.2
"""How long a pod refuses: toggles of one pod that are closer meet the kubelet's batching."""
CYCLE_SECONDS = 22.0
"""Each pod goes out once in this time, so changes of the Service are 0.7 s apart on average."""
LINE = re.compile(
    r"^(?P<at>\S+ \S+) .*Pod \S+/(?P<pod>\S+) (?P<what>listed|taken out): .*"
    r"\((?P<ms>\d+) ms after the verdict\)"
)


@dataclass
class Seen:
    """When each pod's entry in the EndpointSlices changed last, by direction."""

    ready: dict[str, bool] = field(default_factory=dict)
    changes: list[tuple[str, bool, float]] = field(default_factory=list)

    def take(self, item: dict[str, Any]) -> None:
        """One EndpointSlice as the watch brought it."""
        now = time.time()
        for endpoint in item.get("endpoints") or ():
            name = (endpoint.get("targetRef") or {}).get("name", "")
            ready = (endpoint.get("conditions") or {}).get("ready") is not False
            if self.ready.get(name) != ready:
                self.ready[name] = ready
                self.changes.append((name, ready, now))


async def watch(client: KubeClient, where: str, name: str, seen: Seen) -> None:
    """Follow the Service's EndpointSlices."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{where}/endpointslices"
    selector = {"labelSelector": f"kubernetes.io/service-name={name}"}
    items, version = await client.list_pages(path, selector)
    for item in items:
        seen.take(item)
    async for _, item in client.watch(path, version, selector):
        seen.take(item)


async def toggle(stage: Stage, toggles: int, progress: Progress) -> None:
    """Make one pod after another refuse and heal, one after another."""
    task = progress.add_task("Toggling", total=toggles)
    pods = stage.pods()
    done = 0
    while done < toggles:
        for pod in pods:
            started = time.monotonic()
            await stage.fault(pod, "refuse", OUT_SECONDS)
            await asyncio.sleep(CYCLE_SECONDS / PODS - (time.monotonic() - started))
            done += 2
            progress.update(task, completed=done)


def verdicts(log: Path, since: float) -> list[tuple[str, bool, float]]:
    """(pod, listed, Unix time of the verdict) from the operator's log."""
    found = []
    for line in log.read_text().splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        written = datetime.strptime(match["at"], "%Y-%m-%d %H:%M:%S,%f").timestamp()
        at = written - int(match["ms"]) / 1000
        if at >= since:
            found.append((match["pod"], match["what"] == "listed", at))
    return found


def pair(
    said: list[tuple[str, bool, float]], seen: list[tuple[str, bool, float]]
) -> dict[bool, list[float]]:
    """Milliseconds from each verdict to the next change of that pod in that direction."""
    delays: dict[bool, list[float]] = {True: [], False: []}
    for pod, listed, at in said:
        after = [t for p, ready, t in seen if p == pod and ready == listed and t >= at - 0.002]
        if after and after[0] - at < 5:
            delays[listed].append(1000 * (after[0] - at))
    return delays


def summary(values: list[float]) -> dict[str, float]:
    """Count, p50, p90, p99 and max in milliseconds."""
    cuts = quantiles(values, n=100, method="inclusive")
    return {
        "count": len(values),
        "p50_ms": round(cuts[49], 1),
        "p90_ms": round(cuts[89], 1),
        "p99_ms": round(cuts[98], 1),
        "max_ms": round(max(values), 1),
    }


async def measure(cluster: Any, where: str, toggles: int, log: Path) -> dict[str, Any]:
    """Run the toggles and pair the times."""
    client = await KubeClient.connect(str(cluster.kubeconfig), cluster.context)
    seen = Seen()
    try:
        async with Stage(cluster, client, where, "shop") as stage:
            await stage.until_serving(PODS)
            await asyncio.sleep(OUT_SECONDS)
            following = asyncio.create_task(watch(client, where, "shop", seen))
            since = time.time()
            with Progress() as progress:
                await toggle(stage, toggles, progress)
                await asyncio.sleep(2 * OUT_SECONDS)
            following.cancel()
        delays = pair(verdicts(log, since), seen.changes)
    finally:
        await client.close()
    both = delays[True] + delays[False]
    return {
        "out": summary(delays[False]),
        "in": summary(delays[True]),
        "both": summary(both),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toggles", type=int, default=200, help="out and in each count as one")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with (
        scene.lab() as (cluster, say),
        scene.namespace(cluster, "ug-verdict") as where,
        replicas.operator(cluster, say, replicas=1) as started,
    ):
        first, deployment = scene.guarded_service(where, "shop", PODS)
        scene.apply(cluster, first)
        scene.wait("accepted", lambda: scene.condition_true(cluster, where, "Accepted") == 1)
        scene.apply(cluster, [deployment])
        result = asyncio.run(measure(cluster, where, args.toggles, started[0].log))
    Console().print_json(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
