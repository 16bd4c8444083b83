"""Real sockets on loopback, on both event loops."""

import asyncio
import datetime
import ipaddress
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from upstream_guard.core.model import ProbeProtocol, ProbeResult, ProbeSpec
from upstream_guard.probes import ProbeScheduler, ProbeTarget

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[..., Awaitable[int]]
Probe = Callable[..., Awaitable[ProbeResult]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test runs on both loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server from a handler; returns its port."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[None]] = set()

    async def start(
        handler: Handler, *, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> int:
        async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await handler(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass  # the prober went away
            finally:
                tasks.discard(task)
                writer.close()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.get_running_loop().create_task(guarded(reader, writer)))

        server = await asyncio.start_server(connected, host, 0, ssl=context)
        servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def probe() -> Probe:
    """Probes one endpoint until the first result."""

    async def run(
        port: int,
        protocol: ProbeProtocol = ProbeProtocol.HTTP,
        address: str = "127.0.0.1",
        **spec: object,
    ) -> ProbeResult:
        first: asyncio.Future[ProbeResult] = asyncio.get_running_loop().create_future()

        def on_result(key: str, result: ProbeResult) -> None:
            assert key == "endpoint"
            if not first.done():
                first.set_result(result)

        scheduler = ProbeScheduler(on_result, rng=random.Random(1))
        values: dict[str, object] = {"interval": 30.0, "timeout": 2.0} | spec
        target = ProbeTarget(address, ProbeSpec(protocol, port, **values))  # type: ignore[arg-type]
        scheduler.set_target("endpoint", target)
        scheduler.probe_soon("endpoint")
        running = asyncio.create_task(scheduler.run())
        try:
            return await asyncio.wait_for(first, 10)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return run


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.fixture
def send_reset() -> Callable[[asyncio.StreamWriter], None]:
    return reset


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """A port whose SYNs nobody answers: its accept queue is full."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    port = listener.getsockname()[1]
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
        fillers.append(filler)
    yield port
    for filler in [*fillers, listener]:
        filler.close()


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for a name that no endpoint has, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody.example")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now - datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    certificate_file, key_file = folder / "tls.crt", folder / "tls.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file


@pytest.fixture
def server_context(tls_files: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls_files)
    return context
