"""A thin client over the official one: raw JSON in and out, because a model per watch event costs too much.

The official client brings what is hard (kubeconfig, exec plug-ins, token refresh, in-cluster
credentials); this adds paths, patches, watches and one error type.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

Json = dict[str, Any]
WriteObserver = Callable[[str, str, int], None]
"""Called with verb, path and HTTP status after each write."""

MERGE = "application/merge-patch+json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

REQUEST_SECONDS = 10.0
WATCH_SECONDS = 290
"""Server-side end of a watch; the API server's own default is a random 5 to 10 minutes."""
WATCH_SILENCE_SECONDS = 320.0

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_decode = msgspec.json.Decoder().decode


class KubeError(Exception):
    """Anything that went wrong between us and the API server."""


class ConfigError(KubeError):
    """No usable kubeconfig, context or in-cluster credentials; the message says what to do."""


class ApiError(KubeError):
    """The API server answered with an error.

    Attributes:
        status: HTTP status; 0 where there was no answer at all.
        reason: The machine-readable reason of the Status object, e.g. `NotFound`.
        message: The server's words.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{reason or status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def transient(self) -> bool:
        """Worth a retry of an idempotent request."""
        return self.status in {0, 429} or self.status >= 500


def _ignore_write(verb: str, path: str, status: int) -> None:
    del verb, path, status


class KubeClient:
    """Requests against one API server."""

    def __init__(
        self, api: ApiClient, namespace: str = "default", on_write: WriteObserver = _ignore_write
    ) -> None:
        self._api = api
        self.namespace = namespace
        """The namespace of the context, or of the pod we run in."""
        self.on_write = on_write

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, context: str | None = None) -> Self:
        """Connect with a kubeconfig, or with the pod's own credentials where there are such.

        Args:
            kubeconfig: A path; None means `$KUBECONFIG`, `~/.kube/config` or in-cluster.
            context: A context of it; None means the current one.

        Raises:
            ConfigError: There is no kubeconfig, it cannot be read, or it lacks the context.
        """
        configuration = Configuration()
        in_cluster = kubeconfig is None and context is None and _in_cluster()
        try:
            if in_cluster:
                kube_config.load_incluster_config(client_configuration=configuration)
                namespace = _pod_namespace()
            else:
                await kube_config.load_kube_config(
                    config_file=kubeconfig, context=context, client_configuration=configuration
                )
                namespace = _context_namespace(kubeconfig, context)
        except (kube_config.ConfigException, OSError, ValueError, TypeError) as error:
            where = kubeconfig or "$KUBECONFIG or ~/.kube/config"
            raise ConfigError(
                f"cannot use the kubeconfig {where}"
                + (f" with context {context!r}" if context else "")
                + f": {error}. Pass --kubeconfig FILE and --context NAME "
                "(`kubectl config get-contexts` lists them)."
            ) from error
        configuration.connection_pool_maxsize = 0
        configuration.retries = None
        return cls(ApiClient(configuration), namespace)

    @property
    def configuration(self) -> Configuration:
        """Server address and credentials, for others that connect on their own (kopf)."""
        return self._api.configuration

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Json:
        """GET one object or list.

        Raises:
            ApiError: The server refused, or could not be reached (status 0).
        """
        return await self._json("GET", path, params=params)

    async def list_pages(
        self, path: str, params: Mapping[str, str] | None = None, *, accept: str | None = None
    ) -> tuple[list[Json], str]:
        """All items of a list, page by page, and the list's resourceVersion."""
        items: list[Json] = []
        query = {**(params or {}), "limit": "500"}
        while True:
            page = await self._json("GET", path, params=query, accept=accept)
            items.extend(page.get("items") or ())
            metadata = page.get("metadata") or {}
            token = metadata.get("continue")
            if not token:
                return items, str(metadata.get("resourceVersion", ""))
            query["continue"] = token

    async def create(self, path: str, body: Json) -> Json:
        """POST an object to its collection."""
        return await self._json("POST", path, body=body)

    async def replace(self, path: str, body: Json) -> Json:
        """PUT an object; with its resourceVersion this is a compare-and-swap."""
        return await self._json("PUT", path, body=body)

    async def patch(
        self,
        path: str,
        body: Json | list[Json],
        *,
        content_type: str = MERGE,
        params: Mapping[str, str] | None = None,
    ) -> Json:
        """PATCH an object or subresource."""
        return await self._json("PATCH", path, body=body, params=params, content_type=content_type)

    async def delete(self, path: str, body: Json | None = None) -> Json:
        """DELETE an object."""
        return await self._json("DELETE", path, body=body)

    async def watch(
        self,
        path: str,
        resource_version: str,
        params: Mapping[str, str] | None = None,
        *,
        accept: str | None = None,
    ) -> AsyncIterator[tuple[str, Json]]:
        """Yield (type, object) until the server ends the watch.

        Raises:
            ApiError: Status 410 where the version is too old: list again.
        """
        query = {
            **(params or {}),
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=REQUEST_SECONDS, sock_read=WATCH_SILENCE_SECONDS
        )
        response = await self._send("GET", path, query, None, None, timeout, accept)
        try:
            await _raise_for_status(response)
            async for line in _lines(response):
                event = _parse(line)
                if event["type"] == "ERROR":
                    raise _status_error(event["object"], 0)
                yield event["type"], event["object"]
        except (TimeoutError, aiohttp.ClientError) as error:
            raise ApiError(0, "Disconnected", str(error) or type(error).__name__) from error
        finally:
            response.close()

    async def _json(
        self,
        verb: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Json | list[Json] | None = None,
        content_type: str | None = None,
        accept: str | None = None,
    ) -> Json:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        status = 0
        try:
            response = await self._send(verb, path, params, body, content_type, timeout, accept)
            status = response.status
            async with response:
                await _raise_for_status(response)
                raw = await response.read()
        except (TimeoutError, aiohttp.ClientError) as error:
            raise ApiError(0, "Unreachable", str(error) or type(error).__name__) from error
        finally:
            if verb != "GET":
                self.on_write(verb, path, status)
        return _parse(raw)

    async def _send(
        self,
        verb: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Json | list[Json] | None,
        content_type: str | None,
        timeout: aiohttp.ClientTimeout,
        accept: str | None,
    ) -> aiohttp.ClientResponse:
        headers = {
            "Accept": accept or "application/json",
            "Content-Type": content_type or "application/json",
        }
        try:
            _, url, headers, _, _ = await self._api.param_serialize(
                verb,
                path,
                header_params=headers,
                query_params=list((params or {}).items()),
                auth_settings=["BearerToken"],
            )
        except (kube_config.ConfigException, OSError, ValueError) as error:
            # A token is refreshed by the way: its file may be half written, a plug-in may fail once.
            raise ApiError(0, "NoCredentials", str(error) or type(error).__name__) from error
        try:
            answer = await self._api.rest_client.request(
                verb, url, headers=headers, body=body, _request_timeout=timeout
            )
        except (TimeoutError, OSError, ssl.SSLError, aiohttp.ClientError) as error:
            raise ApiError(0, "Unreachable", str(error) or type(error).__name__) from error
        response: aiohttp.ClientResponse = answer.response
        return response


def _in_cluster() -> bool:
    return (_SERVICE_ACCOUNT / "token").exists()


def _pod_namespace() -> str:
    return (_SERVICE_ACCOUNT / "namespace").read_text().strip()


def _context_namespace(kubeconfig: str | None, context: str | None) -> str:
    contexts, active = kube_config.list_kube_config_contexts(config_file=kubeconfig)
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str((chosen.get("context") or {}).get("namespace") or "default")


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length: a watch event may exceed what `readline` allows."""
    buffer = bytearray()
    async for chunk in response.content.iter_any():
        buffer += chunk
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            if line:
                yield line


def _parse(raw: bytes) -> Json:
    try:
        document: Json = _decode(raw)
    except msgspec.DecodeError as error:
        # A proxy in between: as good as no answer.
        raise ApiError(0, "NotJson", f"the answer is not JSON: {error}") from error
    return document


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    raw = await response.read()
    try:
        status = json.loads(raw)
    except ValueError:
        status = {"message": raw[:500].decode("utf-8", "replace")}
    raise _status_error(status if isinstance(status, dict) else {}, response.status)


def _status_error(status: Json, http_status: int) -> ApiError:
    return ApiError(
        int(status.get("code") or http_status),
        str(status.get("reason") or ""),
        str(status.get("message") or ""),
    )


def backoff_seconds(attempt: int, jitter: float) -> float:
    """How long to wait before try number `attempt` + 1.

    Args:
        attempt: 1 for the first failure.
        jitter: A random number in [0, 1); passed in so that callers can be deterministic.

    Returns:
        0.1 s doubling up to 10 s, of which the upper half is jitter.
    """
    ceiling: float = min(10.0, 0.1 * 2.0 ** (min(attempt, 10) - 1))
    return ceiling * (0.5 + jitter / 2)


async def pause_before_retry(attempt: int, jitter: float) -> None:
    """Sleep for `backoff_seconds`."""
    await asyncio.sleep(backoff_seconds(attempt, jitter))
