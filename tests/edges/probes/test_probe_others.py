"""TCP, TLS and gRPC health, against real servers."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ProbeProtocol, ProbeSpec
from upstream_guard.probes import ProbeTarget
from upstream_guard.probes.failures import LOCAL, connect_failure
from upstream_guard.probes.grpc import check_request, serving_status
from upstream_guard.probes.tls import server_name

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Script = Callable[[Reader, Writer], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TCP, HTTPS, GRPC = ProbeProtocol.TCP, ProbeProtocol.HTTPS, ProbeProtocol.GRPC


async def hang(reader: Reader, writer: Writer) -> None:
    await reader.read()


async def close(reader: Reader, writer: Writer) -> None:
    await reader.read(1)


async def answer(reader: Reader, writer: Writer) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK)
    await writer.drain()


# TCP


async def test_tcp_is_content_with_a_connection(serve, probe) -> None:
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(reader: Reader, writer: Writer) -> None:
        ended.set_result(await reader.read())

    assert (await probe(await serve(script), TCP)).ok
    assert await ended == b""  # an orderly close, and not a byte sent


async def test_tcp_refused(probe, unused_tcp_port: int) -> None:
    assert (await probe(unused_tcp_port, TCP)).cause is Cause.REFUSED


async def test_tcp_no_answer_to_the_syn(probe, full_backlog: int) -> None:
    assert (await probe(full_backlog, TCP, timeout=0.2)).cause is Cause.CONNECT_TIMEOUT


# TLS


async def test_https_trusts_any_certificate(serve, probe, server_context) -> None:
    """Expired, self-signed, for another name: it serves all the same."""
    result = await probe(await serve(answer, context=server_context), HTTPS)
    assert (result.ok, result.status) == (True, 200)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_https_versions_and_bodies(version, serve, probe, server_context) -> None:
    server_context.minimum_version = server_context.maximum_version = version

    async def large(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        for _ in range(60):
            writer.write(b"x" * 1000)
            await writer.drain()

    assert (await probe(await serve(large, context=server_context), HTTPS)).ok


async def test_sni_and_alpn(serve, probe, server_context) -> None:
    names: list[str | None] = []
    server_context.sni_callback = lambda _tls, name, _context: names.append(name)
    server_context.set_alpn_protocols(["h2", "http/1.1"])
    port = await serve(answer, context=server_context)
    assert (await probe(port, HTTPS, host="shop.example:8443")).ok
    assert (await probe(port, HTTPS)).ok
    assert names == ["shop.example", None]


async def test_https_failure_in_the_response(serve, probe, server_context) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK[:-1])

    result = await probe(await serve(script, context=server_context), HTTPS)
    assert (result.cause, result.status) == (Cause.EARLY_CLOSE, 200)


async def test_https_hangs_after_the_handshake(serve, probe, server_context) -> None:
    result = await probe(await serve(hang, context=server_context), HTTPS, timeout=0.3)
    assert (result.cause, result.detail) == (Cause.READ_TIMEOUT, "no response in time")


async def test_https_hangs_in_the_handshake(serve, probe) -> None:
    result = await probe(await serve(hang), HTTPS, timeout=0.2)
    assert (result.cause, result.detail) == (
        Cause.READ_TIMEOUT,
        "TLS handshake not done in time",
    )


async def test_https_closes_in_the_handshake(serve, probe) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.read(65536)

    result = await probe(await serve(script), HTTPS)
    assert (result.cause, result.detail) == (
        Cause.EARLY_CLOSE,
        "closed during the TLS handshake",
    )


async def test_https_reset_in_the_handshake(serve, probe, send_reset) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.read(65536)
        send_reset(writer)

    result = await probe(await serve(script), HTTPS)
    assert (result.cause, result.detail) == (
        Cause.RESET,
        "connection reset by peer during the TLS handshake",
    )


async def test_https_to_a_plain_server(serve, probe) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    assert (await probe(await serve(script), HTTPS)).cause is Cause.PROTOCOL_MISMATCH


async def test_no_common_version(serve, probe, server_context) -> None:
    server_context.set_ciphers("DEFAULT@SECLEVEL=0")
    server_context.minimum_version = ssl.TLSVersion.TLSv1
    server_context.maximum_version = ssl.TLSVersion.TLSv1_1
    result = await probe(await serve(answer, context=server_context), HTTPS)
    assert result.cause in {Cause.TLS, Cause.EARLY_CLOSE}
    assert result.detail


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_client_certificate_demanded(version, probe, server_context, tls_files) -> None:
    """A blocking server, as asyncio's own sends no alert before it closes."""
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(tls_files[0])
    server_context.minimum_version = server_context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_once() -> None:
            peer, _ = listener.accept()
            with peer, suppress(OSError):
                server_context.wrap_socket(peer, server_side=True)
                peer.recv(1)

        serving = asyncio.create_task(asyncio.to_thread(serve_once))
        result = await probe(listener.getsockname()[1], HTTPS)
        await serving
    assert result.cause is Cause.TLS
    assert "alert" in result.detail


async def test_only_http2_offered(serve, probe) -> None:
    """A fatal alert 120, which is what OpenSSL servers send for it."""

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.read(65536)
        writer.write(b"\x15\x03\x03\0\x02\x02\x78")
        await writer.drain()

    assert (await probe(await serve(script), HTTPS)).cause is Cause.PROTOCOL_MISMATCH


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("", None),
        ("a.b", "a.b"),
        ("a.b:1", "a.b"),
        ("10.0.0.1", None),
        ("[::1]:443", None),
        ("::1", None),
    ],
)
def test_server_name(host: str, name: str | None) -> None:
    assert server_name(ProbeTarget("127.0.0.1", ProbeSpec(HTTPS, 443, host=host))) == name


# gRPC


def health_server(
    *, message: bytes = b"\0\0\0\0\x02\x08\x01", trailers: object = ((b"grpc-status", b"0"),)
) -> tuple[Script, list[dict[bytes, bytes]], list[bytes]]:
    """A server that answers any call so; the headers and messages it got."""
    requests: list[dict[bytes, bytes]] = []
    messages: list[bytes] = []

    async def script(reader: Reader, writer: Writer) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    requests.append(dict(event.headers))
                elif isinstance(event, DataReceived):
                    messages.append(event.data)
                elif isinstance(event, StreamEnded):
                    head = [(b":status", b"200"), (b"content-type", b"application/grpc")]
                    if message:
                        connection.send_headers(1, head)
                        connection.send_data(1, message)
                        connection.send_headers(1, list(trailers), end_stream=True)
                    else:
                        connection.send_headers(1, [*head, *trailers], end_stream=True)
            writer.write(connection.data_to_send())

    return script, requests, messages


async def test_grpc_serving(serve, probe) -> None:
    script, requests, messages = health_server()
    port = await serve(script)
    result = await probe(port, GRPC, service="shop.v1.Cart")
    assert (result.ok, result.status) == (True, 200)
    assert requests[0][b":path"] == b"/grpc.health.v1.Health/Check"
    assert requests[0][b":authority"] == f"127.0.0.1:{port}".encode()
    assert requests[0][b"te"] == b"trailers"
    assert messages == [b"\0\0\0\0\x0e\x0a\x0cshop.v1.Cart"]


@pytest.mark.parametrize(
    ("message", "trailers", "cause", "detail"),
    [
        (
            b"\0\0\0\0\x02\x08\x02",
            [(b"grpc-status", b"0")],
            Cause.APP_ERROR,
            "gRPC health NOT_SERVING",
        ),
        (b"\0\0\0\0\0", [(b"grpc-status", b"0")], Cause.APP_ERROR, "gRPC health UNKNOWN"),
        (b"", [(b"grpc-status", b"12")], Cause.APP_ERROR, "no grpc.health.v1.Health service"),
        (b"", [(b"grpc-status", b"5")], Cause.APP_ERROR, "does not know the service"),
        (
            b"",
            [(b"grpc-status", b"14"), (b"grpc-message", b"shutting%20down")],
            Cause.APP_ERROR,
            "gRPC status 14: shutting down",
        ),
        (b"\0\0\0\0\x09x", [(b"grpc-status", b"0")], Cause.MALFORMED, "malformed health message"),
        (b"\0\0\0\0\x02\x08\x01", [(b"x", b"y")], Cause.MALFORMED, "no grpc-status"),
    ],
)
async def test_grpc_not_serving(message, trailers, cause, detail, serve, probe) -> None:
    script, _, _ = health_server(message=message, trailers=trailers)
    result = await probe(await serve(script), GRPC)
    assert result.cause is cause
    assert detail in result.detail


async def test_grpc_to_an_http1_server(serve, probe) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    result = await probe(await serve(script), GRPC)
    assert (result.cause, result.detail) == (
        Cause.PROTOCOL_MISMATCH,
        "the endpoint speaks HTTP/1, not gRPC",
    )


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (
            b"\0\0\x08\x07\0\0\0\0\0" + b"\0\0\0\0" + b"\0\0\0\0",
            Cause.EARLY_CLOSE,
        ),  # GOAWAY, nothing taken
        (b"\0\0\x04\x03\0\0\0\0\x01" + b"\0\0\0\x07", Cause.RESET),  # RST_STREAM
        (b"\0\0\0\0\0\0\0\0\0", Cause.MALFORMED),  # DATA on stream 0
    ],
)
async def test_grpc_frames(frame, cause, serve, probe) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.read(65536)
        writer.write(b"\0\0\0\x04\0\0\0\0\0" + frame)
        await reader.read()

    assert (await probe(await serve(script), GRPC)).cause is cause


async def test_grpc_silence_and_close(serve, probe) -> None:
    assert (await probe(await serve(hang), GRPC, timeout=0.2)).cause is Cause.READ_TIMEOUT
    result = await probe(await serve(close), GRPC)
    assert result.cause in {Cause.EARLY_CLOSE, Cause.RESET}


def test_grpc_messages() -> None:
    assert check_request("") == b"\0\0\0\0\0"
    assert check_request("x" * 200)[5:8] == b"\x0a\xc8\x01"
    assert (
        serving_status(b"\0\0\0\0\x08\x12\x02hi\x08\x01\x18\x05") == 1
    )  # unknown fields are skipped
    assert serving_status(b"\0\0\0\0\x02\x08\xff") is None
    assert serving_status(b"\x01\0\0\0\0") is None


# Errors of the system


def test_connect_failures_that_loopback_cannot_show() -> None:
    causes = {
        errno.EHOSTUNREACH: Cause.UNREACHABLE,
        errno.ENETUNREACH: Cause.UNREACHABLE,
        errno.ETIMEDOUT: Cause.CONNECT_TIMEOUT,
        errno.ECONNRESET: Cause.RESET,
        errno.EPERM: Cause.BLOCKED,
        errno.EIO: Cause.UNREACHABLE,
    }
    for number, cause in causes.items():
        verdict = connect_failure(OSError(number, "text"))
        assert verdict is not None
        assert verdict.cause is cause
    for number in LOCAL:
        assert connect_failure(OSError(number, "text")) is None
