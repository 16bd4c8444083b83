"""The few questions the lab asks the API server itself; everything else goes through kubectl."""

import ssl
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from upstream_guard.lab.model import LabError, NodeStatus

ZONE_LABEL = "topology.kubernetes.io/zone"
_POLL = 0.1


class LabApi:
    """A client with the lab's admin certificate."""

    def __init__(self, server: str, pki: Path) -> None:
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._http = httpx.Client(base_url=server, verify=context, trust_env=False, timeout=3.0)

    def __enter__(self) -> "LabApi":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def ready(self) -> bool:
        """Whether the API server says that it serves."""
        return self._ask("/readyz") is not None

    def version(self) -> str:
        """Its version, "" where it does not answer."""
        answer = self._ask("/version")
        return str(answer.json()["gitVersion"]) if answer else ""

    def nodes(self) -> tuple[NodeStatus, ...]:
        """Every node; empty where the server does not answer."""
        answer = self._ask("/api/v1/nodes")
        return tuple(map(_node_status, answer.json()["items"])) if answer else ()

    def has_default_account(self) -> bool:
        """Whether pods can be made: the controller manager has made the default account."""
        return self._ask("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def _ask(self, path: str) -> httpx.Response | None:
        try:
            answer = self._http.get(path)
        except httpx.TransportError:
            return None
        return answer if answer.is_success else None


class Deadline:
    """Polls until something is true, and says what was waited for when it never is."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds

    def pause(self, what: str) -> None:
        """Wait a moment.

        Raises:
            LabError: if the time is up.
        """
        if time.monotonic() > self._end:
            raise LabError(f"{what} within {self._seconds:.0f} s")
        time.sleep(_POLL)


def _node_status(node: dict[str, Any]) -> NodeStatus:
    status = node.get("status", {})
    ready = any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ())
    )
    addresses = {a["type"]: a["address"] for a in status.get("addresses", ())}
    return NodeStatus(
        name=node["metadata"]["name"],
        ready=ready,
        address=addresses.get("InternalIP", ""),
        zone=node["metadata"].get("labels", {}).get(ZONE_LABEL, ""),
    )
