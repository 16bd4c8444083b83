"""The system's errors, told apart: the endpoint's fault, the network's, or the operator's own."""

import errno

from upstream_guard.core.causes import Cause
from upstream_guard.probes.exchange import Verdict, failure

LOCAL = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,
        errno.EADDRINUSE,
        errno.EAFNOSUPPORT,
    }
)
"""This process or node ran out of something (or has no IPv6); nothing was learned about the endpoint."""

_CONNECT = {
    errno.ECONNREFUSED: (Cause.REFUSED, "connection refused"),
    errno.ECONNRESET: (Cause.RESET, "connection reset by peer"),
    errno.ETIMEDOUT: (Cause.CONNECT_TIMEOUT, "no answer to the SYN"),
    errno.EHOSTUNREACH: (Cause.UNREACHABLE, "no route to host"),
    errno.ENETUNREACH: (Cause.UNREACHABLE, "network unreachable"),
    errno.EHOSTDOWN: (Cause.UNREACHABLE, "host is down"),
    errno.ENETDOWN: (Cause.UNREACHABLE, "network is down"),
    errno.EPERM: (Cause.BLOCKED, "a policy on the operator's node forbids the connection"),
    errno.EACCES: (Cause.BLOCKED, "a policy on the operator's node forbids the connection"),
}


def connect_failure(error: OSError) -> Verdict | None:
    """The verdict for a connection that could not be made; None where the failure is the operator's own."""
    if error.errno in LOCAL:
        return None
    known = _CONNECT.get(error.errno or 0)
    if known is not None:
        return failure(*known)
    return failure(Cause.UNREACHABLE, error.strerror or str(error))


def reset_reason(error: BaseException | None) -> str:
    """What to call the end of a connection that did not end in an orderly way."""
    if isinstance(error, ConnectionResetError):
        return "connection reset by peer"
    if isinstance(error, BrokenPipeError):
        return "connection reset by peer while sending"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "connection lost"
