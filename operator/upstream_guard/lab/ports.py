"""TCP ports for programs that are about to start.

All are below the range from which the kernel gives ports to clients (32768 and up, Linux's
`ip_local_port_range`) and from which Services take theirs (30000 to 32767): one of those that is
free now may be somebody's a moment later.
"""

import random
import socket
from contextlib import ExitStack, suppress
from typing import Final

from upstream_guard.lab.model import LabError

LOOPBACK: Final = "127.0.0.1"
_SEARCHED = 500
_SPARE: Final = range(23_000, 30_000)
"""Above what gateways and the control plane listen on."""


def free_port(preferred: int) -> int:
    """The preferred TCP port of the loopback address, or the next above it that is free.

    Raises:
        LabError: none of the next 500 is.
    """
    for port in range(preferred, preferred + _SEARCHED):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port
    raise LabError(f"no TCP port from {preferred} to {port} is free on {LOOPBACK}")


def free_ports(preferred: int, count: int) -> list[int]:
    """Distinct free TCP ports of the loopback address, from the preferred one up.

    Raises:
        LabError: there are not so many.
    """
    found: list[int] = []
    for _ in range(count):
        found.append(free_port(found[-1] + 1 if found else preferred))
    return found


def spare_ports(count: int) -> list[int]:
    """Distinct TCP ports, free on every address, for a program that may have any.

    Drawn at random, so that two programs which look at the same time hardly ever get the same.

    Raises:
        LabError: there are not so many.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(_SPARE, len(_SPARE)):
            if len(found) == count:
                return found
            with suppress(OSError):
                held.enter_context(socket.create_server(("", port)))
                found.append(port)
    raise LabError(f"no {count} TCP ports from {_SPARE.start} to {_SPARE.stop - 1} are free")
