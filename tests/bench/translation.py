"""How often a new connection to a ClusterIP meets no rule while kube-proxy (nftables) exchanges them.

Without a cluster: a network namespace of its own, a Service's chains as kube-proxy 1.35 writes them, and its
own transaction (flush the Service's chain, add its rule anew), as often as the machine manages, while as many
connections as possible are opened. Linux, as root, with nft:

    python tests/bench/translation.py --seconds 60

It prints the connections, the transactions, and the connections that were not translated, which a rule counts.
"""

import argparse
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Final

SERVICE: Final = ("198.19.0.80", 80)
PORT: Final = 8080
LINGER: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s: connections end by a reset and leave no port in TIME_WAIT."""
RULE: Final = "numgen random mod 2 vmap { 0 : goto endpoint-0, 1 : goto endpoint-1 }"
TABLE: Final = f"""
table ip kube-proxy {{
  map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ {SERVICE[0]} . tcp . {SERVICE[1]} : goto service }}
  }}
  chain endpoint-0 {{
    meta l4proto tcp dnat to 198.18.0.1:{PORT}
  }}
  chain endpoint-1 {{
    meta l4proto tcp dnat to 198.18.0.2:{PORT}
  }}
  chain service {{
    {RULE}
  }}
  chain nat-output {{
    type nat hook output priority -100
    ip daddr . meta l4proto . th dport vmap @service-ips
  }}
  chain missed {{
    type filter hook output priority 0
    ip daddr {SERVICE[0]} counter reject with icmp type net-unreachable
  }}
}}
"""
TRANSACTION: Final = f"flush chain ip kube-proxy service\nadd rule ip kube-proxy service {RULE}\n"
NETWORK: Final = (
    "ip link set lo up",
    "ip addr add 198.18.0.1/32 dev lo",
    "ip addr add 198.18.0.2/32 dev lo",
    "ip link add out type veth peer name peer",
    "ip addr add 198.18.255.1/24 dev out",
    "ip link set out up",
    "ip link set peer up",
    "ip route add 198.19.0.0/16 dev out",
)


def enter_namespace() -> None:
    """Start once more in a network namespace of our own (os.unshare needs Python 3.12)."""
    if "TRANSLATION_INSIDE" not in os.environ:
        os.environ["TRANSLATION_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])


def nft(text: str) -> None:
    """Run nft on commands; a failure ends the benchmark."""
    subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=True)


def serve() -> None:
    """Accept and reset, for ever."""
    server = socket.create_server(("0.0.0.0", PORT), backlog=4096)  # its own namespace
    while True:
        connection, _ = server.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        connection.close()


def connect(until: float, outcomes: Counter[str]) -> None:
    """Open connections one after the other."""
    while time.monotonic() < until:
        with socket.socket() as client:
            client.settimeout(2)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            try:
                client.connect(SERVICE)
            except ConnectionResetError:
                outcomes["opened"] += 1  # the server was quicker than this look at it
            except OSError as error:
                outcomes[error.strerror or str(error)] += 1
            else:
                outcomes["opened"] += 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of the measurement (default 60)"
    )
    seconds = parser.parse_args().seconds
    if os.geteuid() != 0:
        sys.exit("translation.py: it makes a network namespace, so run it as root")
    enter_namespace()
    for command in NETWORK:
        subprocess.run(command.split(), check=True)
    nft(TABLE)
    threading.Thread(target=serve, daemon=True).start()
    outcomes: Counter[str] = Counter()
    until = time.monotonic() + seconds
    flood = threading.Thread(target=connect, args=(until, outcomes))
    flood.start()
    transactions = 0
    while flood.is_alive():
        nft(TRANSACTION)
        transactions += 1
    listing = subprocess.run(
        ["nft", "list", "chain", "ip", "kube-proxy", "missed"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    missed = int(re.findall(r"packets (\d+)", listing)[0])
    total = sum(outcomes.values())
    print(
        f"{total} connections in {seconds:g} s, {transactions} transactions, {missed} not translated"
    )
    print(f"{f'one in {total // missed}' if missed else 'none'}; outcomes {dict(outcomes)}")


if __name__ == "__main__":
    main()
