"""Takes the operator out of a cluster and leaves every pod as plain Kubernetes would have it.

It asks nothing of the operator, which may be dead. The order is what makes it safe: first nothing
new gets a gate (webhooks), then nobody closes one (Deployment, rights), then all are opened, and
only then goes what a user would have to write again. Every step may be repeated.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.names import (
    ANNOTATION_UPSTREAMS,
    API_VERSION,
    GATE,
    GROUP,
    GUARD_KIND,
    GUARD_PLURAL,
    LEASE,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    PART_OF,
    PART_OF_LABEL,
    PROFILE_KIND,
    PROFILE_PLURAL,
    WEBHOOK_CONFIGURATION,
    WEBHOOK_SECRET,
)
from upstream_guard.kube.client import ApiError, KubeClient
from upstream_guard.kube.gates import write_gate
from upstream_guard.webhook.registration import MUTATING_PATH, VALIDATING_PATH

RELEASE_REASON: Final = "Uninstalled"
RELEASE_MESSAGE: Final = "upstream-guard was uninstalled, so this pod's containers alone decide"
PARALLEL: Final = 16
PASS_SECONDS: Final = 1.0
"""Between two looks for closed gates: a pod may have been under creation at the first."""
POLL_SECONDS: Final = 0.5

NOT_FOUND: Final = 404
FORBIDDEN: Final = 403

_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
_ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
_SLICES: Final = "/apis/discovery.k8s.io/v1/endpointslices"
_CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """What to remove.

    Attributes:
        namespace: Where the operator is, or was.
        keep_crds: Keep the CRDs, and with them guards and profiles, for a later installation.
        dry_run: Say what would be done and change nothing.
        timeout: Seconds for the whole.
    """

    namespace: str
    keep_crds: bool = False
    dry_run: bool = False
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """One object to delete."""

    kind: str
    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class GatedPod:
    """A pod whose gate is closed or was never written."""

    ref: ObjectRef
    uid: str


class Reporter(Protocol):
    """Tells the user what happens; `done` and `problem` are whole lines."""

    def heading(self, text: str) -> None:
        """A new phase begins."""

    def done(self, text: str) -> None:
        """Something was done, or in a dry run would be."""

    def problem(self, text: str) -> None:
        """Something could not be done."""


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    removed: int = 0
    released: int = 0
    problems: list[str] = field(default_factory=list)


def closed_gates(pods: Iterable[Mapping[str, Any]]) -> tuple[GatedPod, ...]:
    """The pods that only an operator's verdict, or its absence, keeps out of their Services.

    Terminating and finished pods need none; the API server would take the condition, to no effect.
    """
    return tuple(_gated_pod(pod) for pod in pods if _is_held_back(pod))


def _is_held_back(pod: Mapping[str, Any]) -> bool:
    status = pod.get("status") or {}
    gates = (pod.get("spec") or {}).get("readinessGates") or ()
    if not any(gate.get("conditionType") == GATE for gate in gates):
        return False
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") in {"Succeeded", "Failed"}:
        return False
    conditions = status.get("conditions") or ()
    return not any(c.get("type") == GATE and c.get("status") == "True" for c in conditions)


def _gated_pod(pod: Mapping[str, Any]) -> GatedPod:
    metadata = pod["metadata"]
    return GatedPod(ObjectRef(metadata["namespace"], metadata["name"]), metadata["uid"])


def is_kept_by_us(slice_: Mapping[str, Any], *, keep_owner: bool) -> bool:
    """A list of external upstreams that is not yet as it is to be left.

    Args:
        slice_: An EndpointSlice with our managed-by label.
        keep_owner: The guard stays, and with it the owner.
    """
    metadata = slice_["metadata"]
    if ANNOTATION_UPSTREAMS not in (metadata.get("annotations") or {}):
        return False
    ready = all((e.get("conditions") or {}).get("ready") for e in slice_.get("endpoints") or ())
    return not ready or (bool(metadata.get("ownerReferences")) and not keep_owner)


def left_slice(slice_: Mapping[str, Any], *, keep_owner: bool) -> Json:
    """The merge patch that leaves a list of external upstreams without an operator.

    Args:
        slice_: The EndpointSlice.
        keep_owner: The guard stays, and with it the owner.
    """
    ready = {"ready": True, "serving": True, "terminating": False}
    patch: Json = {"endpoints": [{**e, "conditions": ready} for e in slice_.get("endpoints") or ()]}
    if not keep_owner:
        patch["metadata"] = {"ownerReferences": None}
    return patch


class Uninstaller:
    """Does it, phase by phase; a failed step is reported and does not stop the others."""

    def __init__(
        self,
        client: KubeClient,
        options: Options,
        reporter: Reporter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._options = options
        self._say = reporter
        self._clock = clock
        self._outcome = Outcome()
        self._end = 0.0

    async def run(self) -> Outcome:
        """Remove everything; what went wrong is in the outcome, and was reported.

        Raises:
            ApiError: The API server could not be reached at all.
        """
        self._end = time.monotonic() + self._options.timeout
        await self._client.get("/version")
        await self._phase("No new pod gets a gate", self._webhooks())
        await self._phase("Nobody closes a gate", await self._operator())
        await self._release()
        await self._leave_slices()
        if not self._options.keep_crds:
            await self._phase("Guards and profiles", await self._resources())
        await self._phase("What the operator had", await self._belongings())
        crds = [] if self._options.keep_crds else self._crds()
        last = [*crds, *await self._own_namespace()]
        await self._phase("Definitions and namespace", last)
        await self._wait_gone(last)
        return self._outcome

    @staticmethod
    def _webhooks() -> list[Target]:
        return [
            Target("MutatingWebhookConfiguration", WEBHOOK_CONFIGURATION, MUTATING_PATH),
            Target("ValidatingWebhookConfiguration", WEBHOOK_CONFIGURATION, VALIDATING_PATH),
        ]

    async def _operator(self) -> list[Target]:
        """The Deployment, and the rights: without them even a stray process is harmless."""
        namespace = self._options.namespace
        return [
            *await self._labelled(
                "Deployment", f"/apis/apps/v1/namespaces/{namespace}/deployments"
            ),
            *await self._labelled("ClusterRoleBinding", f"{_RBAC}/clusterrolebindings"),
            *await self._labelled("RoleBinding", f"{_RBAC}/namespaces/{namespace}/rolebindings"),
        ]

    async def _resources(self) -> list[Target]:
        api = f"/apis/{API_VERSION}"
        guards = await self._list(f"{api}/{GUARD_PLURAL}")
        profiles = await self._list(f"{api}/{PROFILE_PLURAL}")
        return [
            *(
                _target(GUARD_KIND, f"{api}/namespaces/{{}}/{GUARD_PLURAL}", item)
                for item in guards
            ),
            *(_target(PROFILE_KIND, f"{api}/{PROFILE_PLURAL}", item) for item in profiles),
        ]

    async def _belongings(self) -> list[Target]:
        space = self._options.namespace
        core = f"/api/v1/namespaces/{space}"
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{space}/leases/{LEASE}"
        return [
            Target("Lease", f"{space}/{LEASE}", lease),
            Target("Secret", f"{space}/{WEBHOOK_SECRET}", f"{core}/secrets/{WEBHOOK_SECRET}"),
            *await self._canaries(),
            *await self._labelled("Service", f"{core}/services"),
            *await self._labelled(
                "PodDisruptionBudget", f"/apis/policy/v1/namespaces/{space}/poddisruptionbudgets"
            ),
            *await self._labelled("ServiceAccount", f"{core}/serviceaccounts"),
            *await self._labelled("Role", f"{_RBAC}/namespaces/{space}/roles"),
            *await self._labelled("ClusterRole", f"{_RBAC}/clusterroles"),
            *await self._labelled(
                "ValidatingAdmissionPolicyBinding",
                f"{_ADMISSION}/validatingadmissionpolicybindings",
            ),
            *await self._labelled(
                "ValidatingAdmissionPolicy", f"{_ADMISSION}/validatingadmissionpolicies"
            ),
        ]

    async def _canaries(self) -> list[Target]:
        """Routes and slices by which gateways were measured; their Services are among the others."""
        space = self._options.namespace
        routes = "/apis/gateway.networking.k8s.io/v1/namespaces"
        return [
            *await self._labelled("HTTPRoute", f"{routes}/{space}/httproutes"),
            *await self._labelled(
                "Ingress", f"/apis/networking.k8s.io/v1/namespaces/{space}/ingresses"
            ),
            *await self._labelled(
                "EndpointSlice", f"/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices"
            ),
        ]

    @staticmethod
    def _crds() -> list[Target]:
        names = (f"{plural}.{GROUP}" for plural in (GUARD_PLURAL, PROFILE_PLURAL))
        return [Target("CustomResourceDefinition", name, f"{_CRDS}/{name}") for name in names]

    async def _own_namespace(self) -> list[Target]:
        """The namespace, if an installation made it: it bears our label then."""
        path = f"/api/v1/namespaces/{self._options.namespace}"
        namespace = await self._get(path)
        labels = ((namespace or {}).get("metadata") or {}).get("labels") or {}
        if labels.get(PART_OF_LABEL) != PART_OF:
            return []
        return [Target("Namespace", self._options.namespace, path)]

    async def _labelled(self, kind: str, collection: str) -> list[Target]:
        items = await self._list(collection, {"labelSelector": f"{PART_OF_LABEL}={PART_OF}"})
        return [_target(kind, collection, item) for item in items]

    async def _phase(self, heading: str, targets: Iterable[Target]) -> None:
        self._say.heading(heading)
        for target in targets:
            await self._delete(target)

    async def _delete(self, target: Target) -> None:
        try:
            if self._options.dry_run:
                await self._client.get(target.path)
            else:
                await self._client.delete(target.path, {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != NOT_FOUND:
                self._problem(f"{target} not deleted: {error}")
            return
        self._outcome.removed += 1
        self._say.done(f"{target} {'would be ' if self._options.dry_run else ''}deleted")

    async def _release(self) -> None:
        """Open gates until a second look finds none closed: one pod may come while we work."""
        self._say.heading("Every gate is opened")
        clean = False
        while True:
            pods = closed_gates(await self._pods())
            if self._options.dry_run:
                for pod in pods:
                    self._say.done(f"gate of pod {pod.ref} would be opened")
                self._outcome.released = len(pods)
                return
            if not pods and clean:
                return
            clean = not pods
            if time.monotonic() > self._end:
                if pods:
                    self._problem(f"{len(pods)} gates are still closed; run uninstall once more")
                return
            await self._open_all(pods)
            await asyncio.sleep(PASS_SECONDS)

    async def _pods(self) -> list[Json]:
        """All pods; those of one namespace where the user may see no others."""
        try:
            pods, _ = await self._client.list_pages("/api/v1/pods")
        except ApiError as error:
            if error.status != FORBIDDEN:
                self._problem(f"pods cannot be listed: {error}")
                return []
            return await self._list(f"/api/v1/namespaces/{self._options.namespace}/pods")
        return pods

    async def _open_all(self, pods: Iterable[GatedPod]) -> None:
        limit = asyncio.Semaphore(PARALLEL)

        async def open_one(pod: GatedPod) -> None:
            async with limit:
                await self._open(pod)

        async with asyncio.TaskGroup() as group:
            for pod in pods:
                group.create_task(open_one(pod))

    async def _open(self, pod: GatedPod) -> None:
        try:
            found = await write_gate(
                self._client,
                pod.ref,
                pod.uid,
                value=True,
                reason=RELEASE_REASON,
                message=RELEASE_MESSAGE,
                now=self._clock(),
            )
        except ApiError as error:
            self._problem(f"gate of pod {pod.ref} not opened: {error}")
            return
        if found:
            self._outcome.released += 1
            self._say.done(f"gate of pod {pod.ref} opened")

    async def _leave_slices(self) -> None:
        """Leave the lists of external upstreams as they carry traffic: every address ready, owned by none.

        Without an owner the garbage collector does not take them along with the guards.
        """
        selector = {"labelSelector": f"{MANAGED_BY_LABEL}={MANAGED_BY}"}
        found = await self._list(_SLICES, selector)
        keep = self._options.keep_crds
        slices = [s for s in found if is_kept_by_us(s, keep_owner=keep)]
        if slices:
            self._say.heading("Every external upstream stays listed")
        for slice_ in slices:
            metadata = slice_["metadata"]
            shown = f"EndpointSlice {metadata['namespace']}/{metadata['name']}"
            if self._options.dry_run:
                self._say.done(f"{shown} would be left with every address ready")
                continue
            try:
                await self._client.patch(
                    f"/apis/discovery.k8s.io/v1/namespaces/{metadata['namespace']}/endpointslices/{metadata['name']}",
                    left_slice(slice_, keep_owner=keep),
                )
            except ApiError as error:
                if error.status != NOT_FOUND:
                    self._problem(f"{shown} not released: {error}")
                continue
            self._say.done(f"{shown} left with every address ready")

    async def _wait_gone(self, targets: Iterable[Target]) -> None:
        if self._options.dry_run:
            return
        for target in targets:
            while await self._get(target.path) is not None:
                if time.monotonic() > self._end:
                    self._problem(f"{target} is still being deleted; nothing more is to be done")
                    break
                await asyncio.sleep(POLL_SECONDS)

    async def _get(self, path: str) -> Json | None:
        """One object; None where it is not there, or (a reported problem) cannot be read."""
        try:
            return await self._client.get(path)
        except ApiError as error:
            if error.status != NOT_FOUND:
                self._problem(f"{path} cannot be read: {error}")
            return None

    async def _list(self, path: str, params: Mapping[str, str] | None = None) -> list[Json]:
        """A list; empty where its kind is unknown, or (a reported problem) cannot be read."""
        try:
            items, _ = await self._client.list_pages(path, params)
        except ApiError as error:
            if error.status != NOT_FOUND:
                self._problem(f"{path} cannot be listed: {error}")
            return []
        return items

    def _problem(self, text: str) -> None:
        self._outcome.problems.append(text)
        self._say.problem(text)


def _target(kind: str, collection: str, item: Mapping[str, Any]) -> Target:
    metadata = item["metadata"]
    namespace, name = metadata.get("namespace"), metadata["name"]
    shown = f"{namespace}/{name}" if namespace else name
    return Target(kind, shown, f"{collection.format(namespace)}/{name}")
