"""Keeps the certificates: in a Secret that all replicas share, and in the running server.

The Secret is written with its resourceVersion, so of two replicas that want to rotate at once, one
wins and the other takes what the winner wrote.
"""

import ssl
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from upstream_guard.core.names import PART_OF, PART_OF_LABEL, WEBHOOK_SECRET
from upstream_guard.kube.client import ApiError
from upstream_guard.webhook.certs import CertAction, CertBundle, carry_out, plan_certs

ATTEMPTS: Final = 5
"""Lost races in a row before giving up; with two replicas the second attempt finds a good Secret."""

NOT_FOUND: Final = 404
CONFLICT: Final = 409

Json = dict[str, Any]


class SecretStore(Protocol):
    """What the keeper needs of `kube.client.KubeClient`."""

    async def get(self, path: str) -> Json:
        """GET an object."""

    async def create(self, path: str, body: Json) -> Json:
        """POST an object; 409 where it exists."""

    async def replace(self, path: str, body: Json) -> Json:
        """PUT an object; 409 where its resourceVersion is not the latest."""


class CertKeeper:
    """Reads, creates and rotates the Secret with the webhook's certificates."""

    def __init__(
        self,
        store: SecretStore,
        namespace: str,
        dns_names: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._collection = f"/api/v1/namespaces/{namespace}/secrets"
        self._namespace = namespace
        self._names = tuple(dns_names)
        self._clock = clock

    async def refresh(self) -> CertBundle:
        """Return certificates that are good now, after writing the Secret if that was needed.

        Raises:
            ApiError: The Secret can neither be read nor written, or `ATTEMPTS` races were lost.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._attempt()
            except ApiError as error:
                if error.status != CONFLICT:
                    raise
        return await self._attempt()

    async def _attempt(self) -> CertBundle:
        secret = await self._read()
        bundle = CertBundle.from_data(secret.get("data") or {}) if secret else None
        now = self._clock()
        plan = plan_certs(bundle, self._names, now)
        if plan.action is CertAction.KEEP and bundle is not None:
            return bundle
        bundle = carry_out(plan, bundle, self._names, now)
        await self._write(secret, bundle)
        return bundle

    async def _read(self) -> Json | None:
        try:
            return await self._store.get(f"{self._collection}/{WEBHOOK_SECRET}")
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def _write(self, secret: Json | None, bundle: CertBundle) -> None:
        if secret is not None:
            body = {**secret, "data": bundle.to_data()}
            await self._store.replace(f"{self._collection}/{WEBHOOK_SECRET}", body)
            return
        metadata = {
            "name": WEBHOOK_SECRET,
            "namespace": self._namespace,
            "labels": {PART_OF_LABEL: PART_OF},
        }
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": metadata,
            "data": bundle.to_data(),
        }
        await self._store.create(self._collection, body)


def server_context() -> ssl.SSLContext:
    """A TLS context without a certificate yet; `load` gives it one, again at each rotation."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load(context: ssl.SSLContext, bundle: CertBundle) -> None:
    """Give a context, also one in use, the serving certificate: new connections get the new one.

    The ssl module reads files only, so the key is on disk for a moment, readable by us alone.

    Raises:
        ssl.SSLError: Certificate and key do not fit.
        OSError: There is no writable temporary directory (mount an emptyDir at /tmp).
    """
    with tempfile.TemporaryDirectory(prefix="upstream-guard-") as folder:
        pem = Path(folder) / "serving.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(bundle.key + bundle.cert)
        context.load_cert_chain(pem)
