"""From the cluster's state to what predictions are made of: looks at a Service, and its whole state."""

from collections.abc import Iterable
from dataclasses import replace

from upstream_guard.core.assessment import injected_pre_stop
from upstream_guard.core.model import Guard, ListMode, Node, Pod, Service
from upstream_guard.core.predict.live import Begun, PodSight, Sight, WorkloadSight
from upstream_guard.core.predict.state import (
    ChangeKind,
    GuardFacts,
    NetworkPolicy,
    NodeState,
    PodState,
    Quota,
    State,
)
from upstream_guard.kube.state import ClusterState, matches
from upstream_guard.resources.manifests import Inventory, assemble, guard_facts


class Gatherer:
    """Reads the cluster's state for predictions. Nothing here decides."""

    def __init__(self, state: ClusterState, *, injects: bool) -> None:
        """Wire it.

        Args:
            state: The cluster.
            injects: Whether new pods get their gate from our webhook.
        """
        self._state = state
        self._injects = injects

    def sight(self, service: Service, pods: Iterable[Pod], before: Sight | None) -> Sight:
        """How a Service looks now.

        Args:
            service: The Service.
            pods: That it selects.
            before: The last look.
        """
        found, workloads = tuple(pods), self._workloads(service)
        living = self._state.pods.get(service.ref.namespace, {})
        uids = {p.uid for p in found}
        known = before.pods if before else ()
        nodes = {p.node for p in found}
        return Sight(
            service=service.ref,
            workloads=workloads,
            pods=tuple(self._pod(pod) for pod in found),
            nodes={n: _node(self._state.nodes[n]) for n in nodes if n in self._state.nodes},
            elsewhere=frozenset(p.uid for p in known if p.uid in living and p.uid not in uids),
            written=self._written(service, workloads),
        )

    def asked(self, guard: Guard, sight: Sight, pods: Iterable[Pod]) -> tuple[object, ...]:
        """Everything that standing risks depend on and that people write. Compared only."""
        rules = self._state.surroundings.rules(sight.service.namespace)
        return (
            sight.written,
            self._protection(guard, pods),
            tuple(seen.workload for seen in sight.workloads),
            tuple(r for r in rules if not isinstance(r, Quota)),
        )

    def _written(self, service: Service, workloads: Iterable[WorkloadSight]) -> tuple[object, ...]:
        """What people write that may be wrong at once."""
        around = self._state.surroundings
        return (
            around.service(service.ref),
            around.routes_to(service.ref),
            tuple(seen.workload.template for seen in workloads),
            tuple(r for r in around.rules(service.ref.namespace) if isinstance(r, NetworkPolicy)),
        )

    def state(
        self, guard: Guard, service: Service, pods: Iterable[Pod], begun: Begun | None = None
    ) -> State | None:
        """The whole state of a Service.

        Args:
            guard: The guard in force.
            service: The Service.
            pods: That it selects.
            begun: The change that has begun; the workload that it happens to comes first, and has the
                replicas that it had before.

        Returns:
            None where the Service is not there as predictions need it.
        """
        around, namespace = self._state.surroundings, service.ref.namespace
        described = around.service(service.ref)
        if described is None:
            return None
        workloads = [_before(w, begun) for w in self._workloads(service)] or around.workloads(
            namespace
        )
        inventory = Inventory(
            (
                described,
                *around.routes_to(service.ref),
                *(w.workload for w in workloads),
                *around.rules(namespace),
            )
        )
        found, subject = tuple(pods), begun.subject if begun else ""
        state = assemble(described, inventory, complete=self._state.complete)
        return replace(
            state,
            workloads=tuple(sorted(state.workloads, key=lambda w: w.text != subject)),
            guard=self._protection(guard, found),
            pods=tuple(_pod_state(pod) for pod in found),
            nodes=tuple(_node(node) for node in self._state.nodes.values()),
        )

    def _workloads(self, service: Service) -> tuple[WorkloadSight, ...]:
        if not service.selector:
            return ()
        return tuple(
            sight
            for sight in self._state.surroundings.workloads(service.ref.namespace)
            if matches(service.selector, sight.workload.template.labels)
        )

    def _pod(self, pod: Pod) -> PodSight:
        workload = self._state.workload_of(pod) or f"pod/{pod.ref.name}"
        return PodSight(
            pod.uid, workload, pod.node, pod.ready, pod.terminating, pod.ends, pod.started
        )

    def _protection(self, guard: Guard, pods: Iterable[Pod]) -> GuardFacts:
        """What the guard does for the pods as they are, rather than for those that it would make."""
        live = [pod for pod in pods if not pod.terminating]
        service = self._state.service(guard.service_ref)
        open_to_all = service is not None and service.publish_not_ready
        enforced = guard.upstream_list.mode is ListMode.ENFORCE and not open_to_all
        return replace(
            guard_facts(guard),
            gates=enforced and (self._injects or any(pod.gated for pod in live)),
            pre_stop=injected_pre_stop(live),
        )


def _before(sight: WorkloadSight, begun: Begun | None) -> WorkloadSight:
    """A workload that is scaled in, with the replicas that it still has."""
    if begun is None or begun.before is None or begun.subject != sight.text:
        return sight
    if begun.change.kind is not ChangeKind.SCALE_IN:
        return sight
    return replace(sight, workload=replace(sight.workload, replicas=begun.before.replicas))


def _node(node: Node) -> NodeState:
    return NodeState(node.name, node.zone, node.ready, not node.unschedulable)


def _pod_state(pod: Pod) -> PodState:
    return PodState(pod.ref, pod.uid, pod.node, pod.ready, pod.terminating, pod.ends)
