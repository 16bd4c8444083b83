"""The webhook configurations: `deploy/` ships them inert, the operator points them at itself.

Kept as they are: everything an administrator may have edited (timeouts, match conditions, rules).
Written: who is called (`clientConfig`), and for pods, the namespaces in which there are guards.
"""

import base64
import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from upstream_guard.core.names import (
    OPERATOR_NAMESPACE,
    WEBHOOK_CONFIGURATION,
    WEBHOOK_SERVICE,
)
from upstream_guard.kube.client import ApiError

Json = dict[str, Any]

ADMISSION_API: Final = "/apis/admissionregistration.k8s.io/v1"
MUTATING_PATH: Final = f"{ADMISSION_API}/mutatingwebhookconfigurations/{WEBHOOK_CONFIGURATION}"
VALIDATING_PATH: Final = f"{ADMISSION_API}/validatingwebhookconfigurations/{WEBHOOK_CONFIGURATION}"
MUTATE_PODS: Final = "/mutate-pods"
VALIDATE_GUARDS: Final = "/validate-guards"

NO_NAMESPACE: Final = "none.upstream-guard.invalid"
"""Matches nothing: a namespace's name has no dots, so none can ever be called this. An empty list
would be refused by the API server, and an empty selector would match every namespace."""

NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
"""Set and kept by the API server itself on every namespace, so that nobody can fake it."""

ATTEMPTS: Final = 5
CONFLICT: Final = 409


class ConfigurationStore(Protocol):
    """What the registration needs of `kube.client.KubeClient`."""

    async def get(self, path: str) -> Json:
        """GET an object."""

    async def replace(self, path: str, body: Json) -> Json:
        """PUT an object; 409 where its resourceVersion is not the latest."""


@dataclass(frozen=True, slots=True)
class WebhookAddress:
    """Where the API server finds us: `url` (`https://HOST:PORT`) or, without it, the Service."""

    url: str = ""
    service: str = WEBHOOK_SERVICE
    namespace: str = OPERATOR_NAMESPACE
    port: int = 443

    def client_config(self, path: str, ca_bundle: bytes) -> Json:
        """The `clientConfig` of a webhook at `path`; `ca_bundle` is PEM."""
        bundle = {"caBundle": base64.b64encode(ca_bundle).decode()}
        if self.url:
            return {"url": self.url.rstrip("/") + path, **bundle}
        service = {
            "namespace": self.namespace,
            "name": self.service,
            "path": path,
            "port": self.port,
        }
        return {"service": service, **bundle}


def namespace_selector(namespaces: Iterable[str]) -> Json:
    """A selector of exactly these namespaces; of none where there are none."""
    values = sorted(set(namespaces)) or [NO_NAMESPACE]
    return {
        "matchExpressions": [{"key": NAMESPACE_LABEL, "operator": "In", "values": values}],
    }


def desired_config(
    existing: Mapping[str, Any], client_config: Json, namespaces: Iterable[str] | None
) -> Json:
    """The configuration as it should be.

    Args:
        existing: As read from the cluster, mutating or validating.
        client_config: From `WebhookAddress.client_config`.
        namespaces: Those that have guards; None leaves the selector alone (guards themselves are
            validated in every namespace, or the first one could not be).

    Returns:
        A copy of `existing` that differs only in what the operator owns; equal to it where nothing
        needs writing.
    """
    wanted: Json = copy.deepcopy(dict(existing))
    selector = None if namespaces is None else namespace_selector(namespaces)
    for webhook in wanted.get("webhooks") or ():
        webhook["clientConfig"] = copy.deepcopy(client_config)
        if selector is not None:
            webhook["namespaceSelector"] = selector
    return wanted


async def register(
    store: ConfigurationStore,
    address: WebhookAddress,
    ca_bundle: bytes,
    namespaces: Iterable[str],
) -> bool:
    """Point both configurations at us; compared first, so a steady cluster gets no writes.

    Returns:
        Whether anything was written.

    Raises:
        ApiError: A configuration cannot be written, or does not exist (404: apply `deploy/`, the
            operator has no right to create one).
    """
    mutating = await _reconcile(
        store, MUTATING_PATH, address.client_config(MUTATE_PODS, ca_bundle), list(namespaces)
    )
    validating = await _reconcile(
        store, VALIDATING_PATH, address.client_config(VALIDATE_GUARDS, ca_bundle), None
    )
    return mutating or validating


async def _reconcile(
    store: ConfigurationStore, path: str, client_config: Json, namespaces: list[str] | None
) -> bool:
    for _ in range(ATTEMPTS - 1):
        try:
            return await _write_if_different(store, path, client_config, namespaces)
        except ApiError as error:
            if error.status != CONFLICT:
                raise
    return await _write_if_different(store, path, client_config, namespaces)


async def _write_if_different(
    store: ConfigurationStore, path: str, client_config: Json, namespaces: list[str] | None
) -> bool:
    existing = await store.get(path)
    wanted = desired_config(existing, client_config, namespaces)
    if wanted == existing:
        return False
    await store.replace(path, wanted)
    return True
