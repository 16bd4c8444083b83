"""httpx as a prober, in a process of its own so that its CPU time is its own."""

import argparse
import asyncio
import json
import resource
import sys
import time
from ipaddress import IPv4Address

import httpx
import uvloop

FIRST_ADDRESS = IPv4Address("127.0.1.0")
"""Every address of 127/8 reaches the one target server, so endpoints by the thousand cost nothing to make."""


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def probes(options: argparse.Namespace) -> dict[str, float]:
    """One shared client, no connection reused, 50 at a time."""
    limits = httpx.Limits(max_keepalive_connections=0)
    addresses = (FIRST_ADDRESS + number for number in range(options.endpoints))
    urls = [f"http://{address}:{options.port}/" for address in addresses]
    turn = iter(range(options.probes))
    failed = 0

    async with httpx.AsyncClient(limits=limits, verify=False, timeout=5.0) as client:

        async def work() -> None:
            nonlocal failed
            for number in turn:
                answer = await client.get(urls[number % len(urls)])
                failed += answer.status_code != 200

        cpu, began = cpu_seconds(), time.monotonic()
        await asyncio.gather(*(work() for _ in range(50)))
    return {
        "probes": options.probes,
        "cpu_seconds": cpu_seconds() - cpu,
        "wall_seconds": time.monotonic() - began,
        "failed": failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--endpoints", type=int, required=True)
    parser.add_argument("--probes", type=int, required=True)
    json.dump(uvloop.run(probes(parser.parse_args())), sys.stdout)


if __name__ == "__main__":
    main()
