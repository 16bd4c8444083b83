"""When the certificate of an endpoint ends: one handshake, nothing sent, nothing verified."""

import asyncio
import ssl

from cryptography import x509

from upstream_guard.probes.tls import shared_context

HANDSHAKE_SECONDS = 3.0


class HandshakeError(Exception):
    """No certificate was seen; the message says why."""


async def certificate_end(
    address: str, port: int, server_name: str, *, seconds: float = HANDSHAKE_SECONDS
) -> float:
    """The end of validity of the certificate that an endpoint shows, Unix seconds.

    Args:
        address: IP address.
        port: Port.
        server_name: For SNI; empty sends none.
        seconds: How long it may take.

    Raises:
        HandshakeError: It could not be reached, or showed none.
    """
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(
                address, port, ssl=shared_context(), server_hostname=server_name or ""
            )
    except (OSError, ssl.SSLError, TimeoutError, ValueError) as error:
        raise HandshakeError(str(error) or type(error).__name__) from error
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True)
        if not shown:
            raise HandshakeError("no certificate was shown")
        return x509.load_der_x509_certificate(shown).not_valid_after_utc.timestamp()
    except ValueError as error:
        raise HandshakeError(f"the certificate cannot be read: {error}") from error
    finally:
        writer.transport.abort()
