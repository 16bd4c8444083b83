"""A thin client over the official one: raw JSON in and out, because a model per watch event costs too much.

The official client brings what is hard (kubeconfig, exec plug-ins, token refresh, in-cluster
credentials); this adds paths, patches, watches and one error type.
"""

import asyncio
import base64
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
import yaml
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
        configuration = Configuration(host="")
        where = kubeconfig or _default_kubeconfig()
        if kubeconfig is None and context is None and _in_cluster():
            where = str(_SERVICE_ACCOUNT)
            try:
                kube_config.load_incluster_config(client_configuration=configuration)
                namespace = _pod_namespace()
            except (kube_config.ConfigException, OSError, ValueError) as error:
                raise ConfigError(f"cannot use the pod's own credentials: {error}") from error
        else:
            namespace = await _load_kubeconfig(where, context, configuration)
        configuration.connection_pool_maxsize = 0
        configuration.retries = None
        try:
            api = ApiClient(configuration)
        except OSError as error:  # an ssl.SSLError is one
            raise _unusable(where, _bad_certificate(configuration, error)) from error
        return cls(api, namespace)

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


class _Cluster(msgspec.Struct, rename="kebab"):
    """What a kubeconfig says of a cluster, as far as an odd value would break the official client."""

    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None

    def __post_init__(self) -> None:
        _refuse_other_than_base64("certificate-authority-data", self.certificate_authority_data)


class _Exec(msgspec.Struct):
    command: str
    args: list[str] | None = None


class _User(msgspec.Struct, rename="kebab"):
    exec: _Exec | None = None
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None

    def __post_init__(self) -> None:
        _refuse_other_than_base64("client-certificate-data", self.client_certificate_data)
        _refuse_other_than_base64("client-key-data", self.client_key_data)


class _Context(msgspec.Struct):
    cluster: str = ""
    user: str | None = None
    namespace: str | None = None


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster | None = None


class _NamedUser(msgspec.Struct):
    name: str
    user: _User | None = None


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context | None = None


class _Kubeconfig(msgspec.Struct, rename="kebab"):
    """The shape of one file; fields that are not here are the official client's business."""

    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None
    current_context: str | None = None


def _refuse_other_than_base64(field: str, value: str | None) -> None:
    try:
        base64.standard_b64decode(value or "")
    except ValueError as error:
        raise ValueError(f"{field} is not base64") from error


_ODD: Final = (
    *(yaml.YAMLError, kube_config.ConfigException, aiohttp.ClientError, TimeoutError),
    *(OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError),
)
"""What PyYAML and the official client raise over a file that is not as they expect."""


def _default_kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def _unusable(where: str | Path, why: str, remedy: str = "") -> ConfigError:
    remedy = remedy or "Correct it, or pass another with --kubeconfig FILE"
    return ConfigError(f"cannot use the kubeconfig {where}: {why.rstrip('.')}. {remedy}.")


async def _load_kubeconfig(where: str, context: str | None, configuration: Configuration) -> str:
    """Fill in address and credentials.

    Args:
        where: A path, or several as in `$KUBECONFIG`.
        context: A context of it; None means the current one.
        configuration: Is filled in; its host is empty before.

    Returns:
        The namespace of the context.

    Raises:
        ConfigError: In one line, which file is unusable, why, and what to do.
    """
    files = _read_kubeconfigs(where)
    chosen = _chosen_context(where, files, context)
    with _overheard() as complaints:
        try:
            await kube_config.load_kube_config(
                config_file=where, context=chosen.name, client_configuration=configuration
            )
        except _ODD as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise _unusable(where, f"context {chosen.name!r}: {why}") from error
    if complaints and not (configuration.api_key or configuration.cert_file):
        plugin = _exec_command(files, chosen)
        why = f"its exec plug-in {plugin!r} gave no credentials: {'; '.join(complaints)}"
        raise _unusable(where, why, "Install or repair the plug-in, or pass another --context NAME")
    if not _is_url(configuration.host):
        why = f"the server of context {chosen.name!r} is {configuration.host!r}"
        raise _unusable(where, f"{why}, not a URL such as https://192.0.2.7:6443")
    return (chosen.context and chosen.context.namespace) or "default"


def _read_kubeconfigs(where: str) -> list[_Kubeconfig]:
    """The files of a list of paths; as with kubectl, some of them may be missing."""
    paths = [Path(path).expanduser() for path in where.split(os.pathsep) if path]
    files = [file for path in paths if (file := _read_kubeconfig(path))]
    if not files:
        raise ConfigError(
            f"there is no kubeconfig at {where}: pass --kubeconfig FILE or set KUBECONFIG"
        )
    return files


def _read_kubeconfig(path: Path) -> _Kubeconfig | None:
    try:
        document = yaml.safe_load(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except _ODD as error:
        raise _unusable(path, f"it is not YAML: {_yaml_problem(error)}") from error
    if document is None:
        raise _unusable(path, "it is empty")
    if not isinstance(document, dict):
        kind = "a list" if isinstance(document, list) else "a single value"
        raise _unusable(path, f"it holds {kind}, not the fields of a kubeconfig")
    try:
        return msgspec.convert(document, _Kubeconfig)
    except msgspec.ValidationError as error:
        raise _unusable(path, str(error).replace("`$.", "`")) from error


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split()) or type(error).__name__


def _chosen_context(where: str, files: Sequence[_Kubeconfig], name: str | None) -> _NamedContext:
    contexts = [context for file in files for context in file.contexts or ()]
    known = ", ".join(context.name for context in contexts[:10])
    remedy = f"Pass --context NAME, one of: {known}" if known else ""
    # Of several files the last word counts for the official client.
    current = [file.current_context for file in files if file.current_context]
    if name is None and not current:
        raise _unusable(where, "it names no current-context", remedy)
    name = name or current[-1]
    for context in contexts:
        if context.name == name:
            return context
    raise _unusable(where, f"it has no context {name!r}", remedy)


def _exec_command(files: Sequence[_Kubeconfig], chosen: _NamedContext) -> str:
    name = chosen.context and chosen.context.user
    users = (user for file in files for user in file.users or () if user.name == name)
    return next((user.user.exec.command for user in users if user.user and user.user.exec), "")


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """What the official client complains of; why a plug-in failed is only in its log."""
    complaints: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        complaints.append(" ".join(record.getMessage().split()))
        return False

    log = logging.getLogger(kube_config.load_kube_config.__module__)
    log.addFilter(keep)
    try:
        yield complaints
    finally:
        log.removeFilter(keep)


def _is_url(host: str) -> bool:
    try:
        url = urlsplit(host)
        # Reading a port that is none raises.
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _bad_certificate(configuration: Configuration, error: OSError) -> str:
    """Which of the certificates is the one that could not be loaded, and why."""
    why = error.strerror or str(error)
    try:
        ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    except OSError:
        return f"certificate-authority(-data) holds no certificate authority ({why})"
    return f"client-certificate(-data) and client-key(-data) are no pair of certificate and key ({why})"


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
