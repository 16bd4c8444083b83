"""TLS as an exchange around another: HTTPS is `over(http.prepare)`.

As with the kubelet's probes the certificate is not verified: the question is whether the endpoint serves, and pods
carry certificates for other names, or their own. What ends the handshake (no common version or cipher, a demanded client
certificate) is a failure.

OpenSSL works on memory here, not on the socket, so that a handshake needs no timer of its own, and a reset or a
time-out within it is told apart from a refusal by the peer.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from ipaddress import ip_address

from upstream_guard.core.causes import Cause
from upstream_guard.probes.exchange import (
    Exchange,
    Prepare,
    ProbeTarget,
    Send,
    Verdict,
    failure,
)

_CHUNK = 16 * 1024
"""The largest TLS record, in bytes."""

_RECORD_TYPES = range(20, 25)


class TlsExchange:
    """A handshake, then the inner exchange through it."""

    __slots__ = ("_incoming", "_inner", "_outgoing", "_send", "_standing", "_tls", "_touched")

    def __init__(self, context: ssl.SSLContext, server_name: str | None, inner: Exchange) -> None:
        """Make an exchange.

        Args:
            context: Shared by all.
            server_name: For SNI; None sends none.
            inner: What is said once the handshake is done.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=False, server_hostname=server_name
        )
        self._inner = inner
        self._send: Send | None = None
        self._standing = False
        self._touched = False

    def start(self, send: Send) -> Verdict | None:
        """Send the client's first message."""
        self._send = send
        return self._advance()

    def receive(self, data: bytes) -> Verdict | None:
        """See `Exchange`."""
        if not self._touched:
            self._touched = True
            if data.startswith(b"HTTP/"):
                return failure(Cause.PROTOCOL_MISMATCH, "the endpoint speaks plain HTTP, not TLS")
            if data[0] not in _RECORD_TYPES:
                return failure(Cause.PROTOCOL_MISMATCH, "the endpoint does not speak TLS")
        self._incoming.write(data)
        return self._advance()

    def closed(self) -> Verdict:
        """See `Exchange`."""
        if self._standing:
            return self._inner.closed()
        return failure(Cause.EARLY_CLOSE, "closed during the TLS handshake")

    def timed_out(self) -> Verdict:
        """See `Exchange`."""
        if self._standing:
            return self._inner.timed_out()
        return failure(Cause.READ_TIMEOUT, "TLS handshake not done in time")

    def reset(self, reason: str) -> Verdict:
        """See `Exchange`."""
        if self._standing:
            return self._inner.reset(reason)
        return failure(Cause.RESET, f"{reason} during the TLS handshake")

    def _advance(self) -> Verdict | None:
        """Do what can be done with the bytes at hand."""
        verdict: Verdict | None = None
        try:
            verdict = self._handshake() or self._converse()
            self._say_goodbye()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            verdict = self._inner.closed()
        except ssl.SSLError as error:
            verdict = self._broken(error)
        self._flush()
        return verdict

    def _handshake(self) -> Verdict | None:
        if self._standing:
            return None
        self._tls.do_handshake()
        self._standing = True
        return self._inner.start(self._write)

    def _converse(self) -> Verdict:
        """Feed the inner exchange until it has a verdict; SSLWantReadError says that more bytes are needed."""
        while True:
            data = self._tls.read(_CHUNK)
            verdict = self._inner.receive(data) if data else self._inner.closed()
            if verdict is not None:
                return verdict

    def _write(self, data: bytes) -> None:
        self._tls.write(data)

    def _say_goodbye(self) -> None:
        with suppress(ssl.SSLError):  # our close_notify is written; the peer's is not waited for
            self._tls.unwrap()

    def _broken(self, error: ssl.SSLError) -> Verdict:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if "no application protocol" in reason:
            return failure(Cause.PROTOCOL_MISMATCH, "the endpoint does not offer HTTP/1.1 over TLS")
        # A client certificate that is demanded in TLS 1.3 is refused only after the client's side of the handshake.
        return failure(Cause.TLS, f"TLS: {reason}")

    def _flush(self) -> None:
        if self._send is not None and self._outgoing.pending:
            self._send(self._outgoing.read())


def over(inner: Prepare) -> Prepare:
    """The prober that does what `inner` does, through TLS."""

    def prepare(target: ProbeTarget) -> Callable[[], Exchange]:
        make = inner(target)
        context = shared_context()
        name = server_name(target)
        return lambda: TlsExchange(context, name, make())

    return prepare


def server_name(target: ProbeTarget) -> str | None:
    """What goes into SNI: the spec's host without a port; None for addresses, which SNI does not allow."""
    host = target.spec.host
    if _is_address(host):
        return None
    name, _, port = host.rpartition(":")
    if not port.isdigit():
        name = host
    return None if _is_address(name) else name or None


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


@cache
def shared_context() -> ssl.SSLContext:
    """The one context of all probes (making one costs more than 100 probes). No certificate is verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
