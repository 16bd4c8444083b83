"""The objects of a running cluster: what a check needs, listed once, nothing written."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from upstream_guard.cli.check.documents import Branch
from upstream_guard.cli.check.objects import Located, Location, ObjectKey, Source, Trouble
from upstream_guard.cli.check.sources import Inputs
from upstream_guard.core.names import (
    API_VERSION,
    GUARD_KIND,
    GUARD_PLURAL,
    PROFILE_KIND,
    PROFILE_PLURAL,
)
from upstream_guard.kube.client import ApiError, KubeClient


@dataclass(frozen=True, slots=True)
class _Listed:
    """One kind to list: its group and version as in paths, and whether a check is worthless without."""

    kind: str
    group: str
    plural: str
    namespaced: bool = True
    needed: bool = False

    @property
    def api_version(self) -> str:
        return self.group.removeprefix("apis/").removeprefix("api/")

    def paths(self, namespaces: Sequence[str]) -> Iterator[str]:
        if not self.namespaced or not namespaces:
            yield f"/{self.group}/{self.plural}"
            return
        for namespace in namespaces:
            yield f"/{self.group}/namespaces/{namespace}/{self.plural}"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a kind could not be listed, and the path that was asked for."""

    path: str
    error: ApiError


_GATEWAY_API: Final = "apis/gateway.networking.k8s.io/v1"

_KINDS: Final = (
    _Listed("Service", "api/v1", "services", needed=True),
    _Listed("Deployment", "apis/apps/v1", "deployments"),
    _Listed("StatefulSet", "apis/apps/v1", "statefulsets"),
    _Listed("DaemonSet", "apis/apps/v1", "daemonsets"),
    _Listed("ReplicaSet", "apis/apps/v1", "replicasets"),
    _Listed("Pod", "api/v1", "pods"),
    _Listed("Ingress", "apis/networking.k8s.io/v1", "ingresses"),
    _Listed("IngressClass", "apis/networking.k8s.io/v1", "ingressclasses", namespaced=False),
    _Listed("NetworkPolicy", "apis/networking.k8s.io/v1", "networkpolicies"),
    _Listed("PodDisruptionBudget", "apis/policy/v1", "poddisruptionbudgets"),
    _Listed("HorizontalPodAutoscaler", "apis/autoscaling/v2", "horizontalpodautoscalers"),
    _Listed("ResourceQuota", "api/v1", "resourcequotas"),
    _Listed("Node", "api/v1", "nodes", namespaced=False),
    _Listed("GatewayClass", _GATEWAY_API, "gatewayclasses", namespaced=False),
    _Listed("Gateway", _GATEWAY_API, "gateways"),
    _Listed("HTTPRoute", _GATEWAY_API, "httproutes"),
    _Listed("GRPCRoute", _GATEWAY_API, "grpcroutes"),
    _Listed("ReferenceGrant", "apis/gateway.networking.k8s.io/v1beta1", "referencegrants"),
    _Listed(GUARD_KIND, f"apis/{API_VERSION}", GUARD_PLURAL),
    _Listed(PROFILE_KIND, f"apis/{API_VERSION}", PROFILE_PLURAL, namespaced=False),
)


async def read_cluster(
    kubeconfig: str | None, context: str | None, namespaces: Sequence[str]
) -> Inputs:
    """Every object of a cluster that a check looks at.

    Args:
        kubeconfig: A path; None as kubectl finds it.
        context: A context of it; None the current one.
        namespaces: To look at; empty looks at all.

    Raises:
        KubeError: There is no usable kubeconfig.
    """
    client = await KubeClient.connect(kubeconfig, context)
    inputs = Inputs()
    source = Source(f"cluster {context}" if context else "cluster", "cluster", has_lines=False)
    try:
        found = await asyncio.gather(*(_list(client, kind, namespaces) for kind in _KINDS))
    finally:
        await client.close()
    refusals = [answer for answer in found if isinstance(answer, _Refusal)]
    if len(refusals) == len(_KINDS):
        # A server that is down, or credentials that have expired: one cause, not one for each kind.
        text = f"cannot be read: {refusals[0].error}"
        inputs.troubles.append(Trouble(Location(source.name), text))
        return inputs
    for kind, answer in zip(_KINDS, found, strict=True):
        if isinstance(answer, _Refusal):
            _tell(kind, answer, inputs)
        else:
            inputs.documents += len(answer)
            inputs.objects.extend(_located(kind, answer, source))
    inputs.complete = not namespaces and not inputs.troubles
    return inputs


async def _list(
    client: KubeClient, kind: _Listed, namespaces: Sequence[str]
) -> list[dict[str, Any]] | _Refusal:
    items: list[dict[str, Any]] = []
    for path in kind.paths(namespaces):
        try:
            found, _ = await client.list_pages(path)
        except ApiError as error:
            return _Refusal(path, error)
        items += found
    return items


def _tell(kind: _Listed, refusal: _Refusal, inputs: Inputs) -> None:
    error = refusal.error
    if error.status == 404 and not kind.needed:
        inputs.notes.append(f"{kind.kind}: this cluster does not have the kind")
        return
    why = "not allowed to list them" if error.status in {401, 403} else str(error)
    text = f"{kind.kind}: {why} (GET {refusal.path}), so they were left out"
    fatal = kind.needed or error.status not in {403, 404}
    inputs.troubles.append(Trouble(Location(""), text, fatal))


def _located(kind: _Listed, items: Iterable[dict[str, Any]], source: Source) -> Iterator[Located]:
    for item in items:
        metadata = item.get("metadata") or {}
        key = ObjectKey(kind.kind, metadata.get("namespace") or "", metadata.get("name") or "")
        # Items of a list name neither their kind nor their version.
        value = {**item, "kind": kind.kind, "apiVersion": kind.api_version}
        yield Located(key, value, source, Branch(0, {}))
