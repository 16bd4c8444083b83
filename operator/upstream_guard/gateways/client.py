"""Reads what gateways answer over HTTP: bounded in size and time, and never more than a GET.

What is asked is an address that an admin wrote, or a pod's own: no redirect is followed, no proxy of
the environment is used, and no answer is unpacked.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from upstream_guard.core.holding import address_of

MAX_BYTES: Final = 16 * 2**20
"""Of one answer; the statistics of an Envoy with thousands of clusters are a few MB."""
TIMEOUT_SECONDS: Final = 4.0
"""For a whole answer."""
MAX_CONNECTIONS: Final = 64
MAX_WORDS: Final = 120
RESOLVE_SECONDS: Final = 2.0


_UNREACHABLE: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    OSError,
    UnicodeError,  # a host name that IDNA refuses
)


class ReadError(Exception):
    """A gateway could not be read.

    Attributes:
        result: One word for metrics: `unreachable`, `timeout`, `status`, `too-large`, `unreadable`.
    """

    def __init__(self, result: str, message: str) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True, slots=True)
class Page:
    """Where something is read.

    Attributes:
        url: With `http:` or `https:`.
        address: The IP address to connect to, where the URL's host name has several; empty takes
            what the name resolves to.
        token: Bearer token; empty sends none.
        form: What is posted, for queries that are too long for a URL; None reads with GET.
    """

    url: str
    address: str = ""
    token: str = ""
    form: tuple[tuple[str, str], ...] | None = None


class GatewayClient:
    """All connections to gateways.

    Each look has a connection of its own: one that is kept would go on to ask a process that was
    replaced, as HAProxy is at each reload.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Open nothing yet.

        Args:
            transport: Replaces the network.
        """
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(TIMEOUT_SECONDS),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0),
            headers={
                "Accept": "*/*",
                "Accept-Encoding": "identity",
                "User-Agent": "upstream-guard",
            },
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def read(self, page: Page) -> bytes:
        """The whole body of a successful answer.

        Raises:
            ReadError: There was none in time, or none that can be used.
        """
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._read(page)
        except (TimeoutError, httpx.TimeoutException):
            raise ReadError("timeout", f"no answer within {TIMEOUT_SECONDS:g} s") from None
        except _UNREACHABLE as error:
            raise ReadError("unreachable", _words(error)) from None

    async def _read(self, page: Page) -> bytes:
        async with self._client.stream(**_request(page)) as response:  # type: ignore[arg-type]
            if response.status_code != 200:
                raise ReadError("status", f"HTTP {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ReadError(
                    "unreadable", "the answer is compressed, though that was not asked for"
                )
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ReadError("too-large", f"more than {MAX_BYTES >> 20} MiB")
            return bytes(body)


def _request(page: Page) -> dict[str, object]:
    url = httpx.URL(page.url)
    if not url.host or (url.port or 0) > 65535:
        raise httpx.InvalidURL("neither host nor port of a server")
    headers = {"Authorization": f"Bearer {page.token}"} if page.token else {}
    extensions = {}
    if page.address:
        headers["Host"] = url.netloc.decode("ascii")
        extensions["sni_hostname"] = url.host
        url = url.copy_with(host=page.address)
    request: dict[str, object] = {
        "method": "GET" if page.form is None else "POST",
        "url": url,
        "headers": headers,
        "extensions": extensions,
    }
    if page.form is not None:
        request["data"] = dict(page.form)
    return request


def _words(error: Exception) -> str:
    """What went wrong, for people."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return cause.strerror[:MAX_WORDS]
        cause = cause.__cause__ or cause.__context__
    return (str(error) or type(error).__name__)[:MAX_WORDS]


async def resolve(host: str) -> tuple[str, ...]:
    """The addresses of a host name, in order; none where it has none, or DNS does not answer in time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(sorted({str(entry[4][0]) for entry in found}))


def host_of(url: str) -> str:
    """The host of a URL; empty where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def replica_of(url: str, address: str = "") -> str:
    """`host:port` by which a replica goes, with its IP address where that is known."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return url[:100]
    return address_of(address or parts.hostname or "", port)


def joined(base: str, path: str) -> str:
    """A path under a base URL, as it stands where it does not begin with a slash."""
    return base.rstrip("/") + path if path.startswith("/") else base + path


def with_query(url: str, query: str) -> str:
    """A URL with more in its query."""
    if not query:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{query}"
