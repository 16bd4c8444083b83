"""Guards as a running cluster has them, read for people; what goes wrong is said in a sentence."""

import asyncio
import difflib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from upstream_guard.core.names import API_VERSION, GROUP, GUARD_PLURAL
from upstream_guard.kube.client import ApiError, KubeClient, KubeError

Json = dict[str, Any]
T = TypeVar("T")

_ABSENT = 404
_DENIED = frozenset({401, 403})


class ReadError(Exception):
    """What was asked for cannot be read; the text is a sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where to look.

    Attributes:
        kubeconfig: A path; None as kubectl finds it.
        context: A context of it; None the current one.
        namespace: None the context's.
        everywhere: All namespaces.
    """

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    everywhere: bool = False


def connected(scope: Scope, work: Callable[[KubeClient], Awaitable[T]]) -> T:
    """Do something with a connection to the cluster.

    Raises:
        ReadError: There is no usable kubeconfig, or `work` says so.
    """
    return asyncio.run(_connected(scope, work))


async def _connected(scope: Scope, work: Callable[[KubeClient], Awaitable[T]]) -> T:
    try:
        client = await KubeClient.connect(scope.kubeconfig, scope.context)
    except KubeError as error:
        raise ReadError(str(error)) from error
    try:
        return await work(client)
    finally:
        await client.close()


async def read_guards(client: KubeClient, scope: Scope, name: str = "") -> list[Json]:
    """Guards as the API has them, by namespace and name.

    Args:
        client: The cluster.
        scope: Where to look.
        name: Only the one of this name; empty takes all.

    Raises:
        ReadError: They cannot be read, or there is none of that name.
    """
    namespace = scope.namespace or client.namespace
    path = f"/apis/{API_VERSION}"
    path += "" if scope.everywhere else f"/namespaces/{namespace}"
    try:
        items, _ = await client.list_pages(f"{path}/{GUARD_PLURAL}")
    except ApiError as error:
        raise ReadError(_refusal(error, scope, namespace)) from error
    items.sort(key=_key)
    if not name:
        return items
    found = [item for item in items if item["metadata"]["name"] == name]
    if not found:
        raise ReadError(_no_such(name, items, scope, namespace))
    return found


def _key(item: Json) -> tuple[str, str]:
    metadata = item["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def _refusal(error: ApiError, scope: Scope, namespace: str) -> str:
    if error.status == _ABSENT:
        return (
            "this cluster does not know UpstreamGuards: the CRDs are not installed. Install the operator, "
            "or only them: kubectl apply -k crds"
        )
    if error.status in _DENIED:
        where = "in all namespaces" if scope.everywhere else f"in namespace {namespace}"
        hint = "" if scope.everywhere else "; perhaps another one is meant (-n)"
        return (
            f"not allowed to list UpstreamGuards {where}: it takes the verb `list` on "
            f"`{GUARD_PLURAL}.{GROUP}`{hint}. The API server says: {error.message or error}"
        )
    if error.status == 0:
        return f"the API server cannot be reached: {error.message or error}"
    return f"UpstreamGuards cannot be read: {error}"


def _no_such(name: str, items: list[Json], scope: Scope, namespace: str) -> str:
    where = "any namespace" if scope.everywhere else f"namespace {namespace}"
    names = [str(item["metadata"]["name"]) for item in items]
    if not names:
        hint = "" if scope.everywhere else "; -A looks in all namespaces"
        return f"there is no UpstreamGuard in {where}{hint}"
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:5]
    return f"there is no UpstreamGuard {name!r} in {where}; there is {', '.join(near)}"
