"""Our scheduler at work, in a process of its own so that CPU time and memory are its own."""

import argparse
import asyncio
import json
import resource
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path

import uvloop

from upstream_guard.core.model import ProbeProtocol, ProbeResult, ProbeSpec
from upstream_guard.probes import Histogram, ProbeScheduler, ProbeTarget

FIRST_ADDRESS = IPv4Address("127.0.1.0")
"""Every address of 127/8 reaches the one target server, so endpoints by the thousand cost nothing to make."""


class Recorder(Histogram):
    """Keeps every value: the operator's own histogram has buckets."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def observe(self, value: float) -> None:
        self.values.append(value)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def schedule(options: argparse.Namespace) -> dict[str, float]:
    """Our scheduler, as the operator runs it; measured from when every endpoint has been probed once."""
    failed = 0

    def on_result(key: str, result: ProbeResult) -> None:
        nonlocal failed
        failed += not result.ok

    scheduler = ProbeScheduler(on_result)
    interval = options.endpoints / options.rate
    protocol = ProbeProtocol(options.protocol)
    spec = ProbeSpec(protocol, options.port, interval=interval, timeout=1.0)
    for number in range(options.endpoints):
        address = str(FIRST_ADDRESS + number)
        scheduler.set_target(address, ProbeTarget(address, spec))
    running = asyncio.create_task(scheduler.run())
    await asyncio.sleep(interval)
    lateness = scheduler.stats.lateness = Recorder()
    sent, cpu, began = scheduler.stats.delivered, cpu_seconds(), time.monotonic()
    failed = 0
    await asyncio.sleep(options.probes / options.rate)
    probes, cpu = scheduler.stats.delivered - sent, cpu_seconds() - cpu
    wall = time.monotonic() - began
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    late = sorted(lateness.values)
    return {
        "probes": probes,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "failed": failed,
        "delayed": scheduler.stats.delayed,
        "lateness_p50_ms": late[len(late) // 2] * 1000,
        "lateness_p99_ms": late[len(late) * 99 // 100] * 1000,
        "lateness_max_ms": late[-1] * 1000,
        "rss_mib": resident_mib(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--endpoints", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--probes", type=int, required=True)
    parser.add_argument("--protocol", default="HTTP")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    options = parser.parse_args()
    run = uvloop.run if options.loop == "uvloop" else asyncio.run
    json.dump(run(schedule(options)), sys.stdout)


if __name__ == "__main__":
    main()
