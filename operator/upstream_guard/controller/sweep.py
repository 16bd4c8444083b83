"""The standby's last duty: open every gate that nobody else will."""

import logging
from collections.abc import Callable, Iterable

from upstream_guard.controller.slice_writer import COLLECTION
from upstream_guard.core.model import EndpointSlice, Pod
from upstream_guard.core.reasons import REASONS, Reason
from upstream_guard.core.slices import all_ready, is_ours
from upstream_guard.kube.client import ApiError, KubeClient
from upstream_guard.kube.events import Event, EventRecorder, Subject
from upstream_guard.kube.gates import write_gate
from upstream_guard.kube.state import ClusterState
from upstream_guard.resources.slices import build_endpoints

logger = logging.getLogger(__name__)


def pods_to_release(pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """Pods that only our gate keeps out of their lists."""
    return tuple(
        p for p in pods if p.gated and not p.gate and p.containers_ready and not p.terminating
    )


def slices_to_release(slices: Iterable[EndpointSlice]) -> tuple[EndpointSlice, ...]:
    """Lists of external upstreams from which an operator has taken something out."""
    return tuple(s for s in slices if is_ours(s) and not all(e.ready for e in s.endpoints))


class Sweeper:
    """Opens gates without a verdict."""

    def __init__(
        self,
        client: KubeClient,
        state: ClusterState,
        recorder: EventRecorder,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._state = state
        self._recorder = recorder
        self._clock = clock

    async def release_all(self) -> int:
        """Open the gate of every pod that only the gate keeps out; how many were opened."""
        opened = 0
        for namespace in list(self._state.pods.values()):
            for pod in pods_to_release(list(namespace.values())):
                opened += await self._release(pod)
        for slice_ in slices_to_release(self._state.all_slices()):
            await self._release_slice(slice_)
        return opened

    async def _release_slice(self, slice_: EndpointSlice) -> None:
        """List every address of an external upstream, for nobody watches over them now."""
        path = f"{COLLECTION.format(slice_.ref.namespace)}/{slice_.ref.name}"
        try:
            await self._client.patch(path, {"endpoints": build_endpoints(all_ready(slice_))})
        except ApiError as error:
            logger.warning("Slice %s not released, will retry: %s", slice_.ref, error)
            return
        logger.warning("Slice %s: every address listed, since nobody controls", slice_.ref)

    async def _release(self, pod: Pod) -> bool:
        note = "no controller renews the Lease, so the standby opens the gate without a verdict"
        try:
            found = await write_gate(
                self._client,
                pod.ref,
                pod.uid,
                value=True,
                reason=Reason.STANDBY_RELEASED.value,
                message=note,
                now=self._clock(),
            )
        except ApiError as error:
            logger.warning("Gate of pod %s not opened, will retry: %s", pod.ref, error)
            return False
        if found:
            subject = Subject("v1", "Pod", pod.ref.namespace, pod.ref.name, pod.uid)
            kind = REASONS[Reason.STANDBY_RELEASED].type.value
            reason = Reason.STANDBY_RELEASED.value
            self._recorder.tell(Event(subject, kind, reason, "Release", note))
        return found
