"""Gather, decide, apply: level-triggered, one group of guards that share pods at a time."""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from upstream_guard.controller.churn import Churn
from upstream_guard.controller.detection import Detection
from upstream_guard.controller.drains import DrainAdvisor
from upstream_guard.controller.endpoints import EndpointTracker
from upstream_guard.controller.external import Externals
from upstream_guard.controller.gate_writer import GateWriter, Order
from upstream_guard.controller.guards import GuardBook, GuardEntry
from upstream_guard.controller.narrator import Narrator
from upstream_guard.controller.predictions import Predictions
from upstream_guard.controller.route_probes import RouteProbes
from upstream_guard.controller.surger import Surger
from upstream_guard.controller.timing import SliceTimer
from upstream_guard.core.acceptance import Acceptance, in_force, judge
from upstream_guard.core.admission import Decision, Member, Outcome, Scene, View, decide
from upstream_guard.core.assessment import Situation, missing_sleep
from upstream_guard.core.handover import may_hand_over
from upstream_guard.core.health import Health
from upstream_guard.core.holding import ready_endpoints
from upstream_guard.core.leaving import Reserve, reserve_of
from upstream_guard.core.model import (
    DrainMode,
    EndpointSlice,
    Guard,
    ListMode,
    Node,
    ObjectRef,
    Pod,
    Service,
)
from upstream_guard.core.policy import Unresolved, resolve_probe
from upstream_guard.core.predict.state import Budget
from upstream_guard.core.reasons import Reason
from upstream_guard.core.routes import Landscape
from upstream_guard.core.scene import floors_of
from upstream_guard.core.status import RouteStatus
from upstream_guard.kube.client import KubeClient
from upstream_guard.kube.state import ClusterState
from upstream_guard.metrics import Metrics
from upstream_guard.resources.status import parse_app_shutdown

logger = logging.getLogger(__name__)

TELL_SECONDS: Final = 0.05
"""After a decision: until status and news tell of it at the latest, written or not."""


@dataclass(frozen=True, slots=True)
class Group:
    """Guards in force that share pods (mostly a single one), and all that bears on them."""

    guards: tuple[Guard, ...]
    services: tuple[Service, ...]
    """Every Service that selects a pod of the group, guarded or not: each has a list to keep."""
    pods: tuple[Pod, ...]


class Engine:
    """Decides over every guard whenever something that bears on it changed, or its time came.

    Everything runs on one event loop. Changes only mark guards as dirty; one pass per loop turn
    evaluates them, so a burst of watch events costs one decision.
    """

    def __init__(
        self,
        client: KubeClient,
        book: GuardBook,
        metrics: Metrics,
        narrator: Narrator,
        clock: Callable[[], float],
    ) -> None:
        self._book = book
        self._metrics = metrics
        self._narrator = narrator
        self._clock = clock
        self._timer = SliceTimer(metrics, clock)
        self.churn = Churn()
        self._writer = GateWriter(client, clock, self._written, self._refused)
        self.tracker = EndpointTracker(
            metrics, self._verdict, self._answered, self._look_at_node, self._nodes_changed
        )
        self.listed: Callable[[ObjectRef, frozenset[str]], None] = lambda _service, _ready: None
        """Told what a guarded Service's EndpointSlices list as ready, whenever one of them changed."""
        self._state: ClusterState | None = None
        self._drains: DrainAdvisor | None = None
        self._predictions: Predictions | None = None
        self._routes: RouteProbes | None = None
        self._externals: Externals | None = None
        self._surger: Surger | None = None
        self._detection: Detection | None = None
        self._unresolved: dict[ObjectRef, str] = {}
        self._active = False
        self._dirty: set[ObjectRef] = set()
        self._dirty_namespaces: set[str] = set()
        self._alarms: dict[ObjectRef, asyncio.TimerHandle] = {}
        self._flush_scheduled = False

    def attach(
        self,
        state: ClusterState,
        drains: DrainAdvisor,
        predictions: Predictions,
        routes: RouteProbes | None = None,
        surger: Surger | None = None,
    ) -> None:
        """Wire it.

        Args:
            state: The cluster's state, which tells us of changes.
            drains: Knows gateways.
            predictions: Predicts.
            routes: Asks through gateways; None asks nothing.
            surger: Adds replicas for drains; None adds none.
        """
        self._state = state
        self._drains = drains
        self._predictions = predictions
        self._routes = routes
        self._surger = surger

    def attach_detection(self, detection: Detection) -> None:
        """Say who makes windows of what is seen."""
        self._detection = detection

    def attach_externals(self, externals: Externals) -> None:
        """Say who decides over guards with external upstreams."""
        self._externals = externals

    def activate(self) -> None:
        """Start to decide: this replica controls, and the state is complete."""
        self._active = True
        self.cluster()

    async def settle(self, timeout: float) -> None:
        """Decide no more, and wait for writes under way, for at most `timeout` seconds."""
        self._active = False
        for alarm in self._alarms.values():
            alarm.cancel()
        await self._writer.settle(timeout)
        if self._externals is not None:
            await self._externals.settle(timeout)

    def abandon(self) -> None:
        """Decide and write nothing more, at once: another replica may control by now."""
        self._active = False
        for alarm in self._alarms.values():
            alarm.cancel()
        self._writer.abandon()
        if self._externals is not None:
            self._externals.abandon()
        if self._surger is not None:
            self._surger.abandon()

    # What changes call.

    def pod(self, pod: Pod) -> None:
        """A pod changed."""
        if self._state is None:
            return
        if pod.uid not in self._state.pods.get(pod.ref.namespace, {}):
            self._writer.forget(pod.uid)
            self._timer.forget(pod.uid)
        guarded = False
        for service in self._state.services_for(pod.ref.namespace, pod.labels):
            for guard in self._book.of_service(service.ref):
                guarded = True
                self.mark(guard.ref)
                self._note_stop(guard.ref, pod)
                if not pod.containers_ready and not pod.terminating:
                    # A container that ended may be back, ready and not serving, before the next probe.
                    self.tracker.probe_soon(guard.ref, pod.uid)
        if not guarded and pod.gated and not pod.gate:
            self._dirty_namespaces.add(pod.ref.namespace)
            self._schedule()

    def _note_stop(self, guard: ObjectRef, pod: Pod) -> None:
        if self._drains is not None:
            self._drains.stops.note(guard, pod)

    def service(self, ref: ObjectRef) -> None:
        """A Service, its EndpointSlices or a route to it changed."""
        for guard in self._book.of_service(ref):
            self.mark(guard.ref)

    def slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """An EndpointSlice changed."""
        self._timer.arrived(old, new)
        value = old if new is None else new
        if value is not None and self._state is not None:
            service = ObjectRef(value.ref.namespace, value.service)
            self.churn.saw(service, self._clock())
            if self._book.of_service(service):
                self.listed(service, ready_endpoints(self._state.slices_of(service)))

    def cluster(self) -> None:
        """Something changed that may concern every guard."""
        self.tracker.nodes.refresh()
        for entry in self._book:
            self.mark(entry.ref)
        self._dirty_namespaces.update(self._state.pods if self._state else ())
        self._schedule()

    def selected(self, namespace: str, labels: Mapping[str, str]) -> None:
        """Something changed that concerns the Services which select these labels."""
        for service in self._state.services_for(namespace, labels) if self._state else ():
            self.service(service.ref)

    def namespace(self, name: str) -> None:
        """Something changed that may concern every guard of a namespace."""
        for entry in self._book:
            if entry.ref.namespace == name:
                self.mark(entry.ref)

    def node(self, name: str) -> None:
        """A node was cordoned or uncordoned, fell silent or came back."""
        self.tracker.nodes.refresh(name)
        for pods in self._state.pods.values() if self._state else ():
            for pod in pods.values():
                if pod.node == name:
                    self.selected(pod.ref.namespace, pod.labels)

    def guard_put(self, entry: GuardEntry, before: GuardEntry | None) -> None:
        """A guard was created or changed: its rivals and its pods are concerned as well."""
        if self._drains is not None:
            self._drains.stops.inherit(entry.ref, parse_app_shutdown(entry.status))
        self.mark(entry.ref)
        concerned = {k.guard.service_ref for k in (before, entry) if k and k.guard}
        if (
            len(concerned) > 1
        ):  # another Service now: what was seen of the old one's pods is no evidence
            self.tracker.drop(entry.ref)
            self._forget_stops(entry.ref)
        for service in concerned:
            self.service(service)
        self._dirty_namespaces.add(entry.ref.namespace)

    def guard_removed(self, entry: GuardEntry) -> None:
        """A guard is gone: its pods go free at once, and a rival may come into force."""
        self.tracker.drop(entry.ref)
        self._forget_stops(entry.ref)
        if self._surger is not None and self._active:
            self._surger.forget(entry)
        self._narrator.forget(entry)
        self._forget_beside(entry.ref)
        self._drop_external(entry.ref)
        self._unresolved.pop(entry.ref, None)
        alarm = self._alarms.pop(entry.ref, None)
        if alarm is not None:
            alarm.cancel()
        if entry.guard is not None:
            self.service(entry.guard.service_ref)
        self._dirty_namespaces.add(entry.ref.namespace)
        self._schedule()

    # What the evaluation does.

    def mark(self, ref: ObjectRef) -> None:
        """Have a guard evaluated soon."""
        self._dirty.add(ref)
        self._schedule()

    def _schedule(self) -> None:
        if self._active and not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if not self._active or self._state is None:
            return
        dirty, self._dirty = self._dirty, set()
        done: set[ObjectRef] = set()
        for ref in sorted(dirty):
            if ref not in done:
                done |= self._evaluate(ref, self._state)
        # After the evaluations: a guard that they find no longer in force leaves orphans.
        namespaces, self._dirty_namespaces = self._dirty_namespaces, set()
        for namespace in sorted(namespaces):
            self._release_orphans(namespace, self._state)

    def _evaluate(self, ref: ObjectRef, state: ClusterState) -> set[ObjectRef]:
        entry = self._book.get(ref)
        if entry is None:
            return {ref}
        acceptance = self._judge(entry, state)
        if entry.guard is None or not acceptance.accepted:
            self.tracker.drop(ref)
            self._unresolved.pop(ref, None)
            self._dirty_namespaces.add(ref.namespace)
            self._forget_beside(ref)
            self._drop_external(ref)
            self._narrator.not_accepted(entry, acceptance)
            return {ref}
        if entry.guard.upstreams:
            self._evaluate_external(entry, entry.guard, state)
            return {ref}
        self._drop_external(ref)
        group = self._group(entry.guard, state)
        for guard in group.guards:
            self._probe(guard, state)
        self._decide(group, state)
        return {guard.ref for guard in group.guards}

    def _evaluate_external(self, entry: GuardEntry, guard: Guard, state: ClusterState) -> None:
        service = state.service(guard.service_ref)
        if self._externals is None or self._drains is None or service is None:
            return
        self._unresolved.pop(guard.ref, None)
        if self._predictions is not None:
            self._predictions.forget(guard.ref)  # it had pods before, perhaps
        routes = self._ask_routes(guard, service, state)
        self._externals.evaluate(entry, self._drains.gateways(service), routes)

    def _drop_external(self, ref: ObjectRef) -> None:
        if self._externals is not None:
            self._externals.drop(ref)

    def _judge(self, entry: GuardEntry, state: ClusterState) -> Acceptance:
        guard = entry.guard
        if guard is None:
            return Acceptance(False, Reason.INVALID, entry.problem)
        rivals = (g for g in self._book.of_service(guard.service_ref) if g.ref != guard.ref)
        return judge(guard, state.service(guard.service_ref), rivals)

    def _in_force(self, service: Service) -> Guard | None:
        return in_force(service, self._book.of_service(service.ref))

    def _group(self, first: Guard, state: ClusterState) -> Group:
        """Follow pods to the Services that select them, and those to their guards, to the end."""
        guards: dict[ObjectRef, Guard] = {}
        services: dict[ObjectRef, Service] = {}
        pods: dict[str, Pod] = {}
        todo = [first]
        while todo:
            guard = todo.pop()
            guarded = state.service(guard.service_ref)
            if guard.ref in guards or guarded is None:
                continue
            guards[guard.ref] = guard
            found = state.pods_of(guarded)
            pods.update((p.uid, p) for p in found)
            # Not by template: a StatefulSet's pods differ by labels that Services do select by.
            kinds = {frozenset(p.labels.items()): p for p in found}
            for service in [s for p in kinds.values() for s in state.services_of(p)] + [guarded]:
                if service.ref in services:
                    continue
                services[service.ref] = service
                pods.update((p.uid, p) for p in state.pods_of(service))
                other = self._in_force(service)
                if other is not None:
                    todo.append(other)
        return Group(tuple(guards.values()), tuple(services.values()), tuple(pods.values()))

    def _probe(self, guard: Guard, state: ClusterState) -> None:
        service = state.service(guard.service_ref)
        if service is None:
            return
        routed = bool(state.routes_to(service.ref))
        targets = {}
        unresolved = ""
        for pod in state.pods_of(service):
            if pod.terminating or not pod.ip:
                continue
            spec = resolve_probe(guard, service, pod, routed_by_http=routed)
            if isinstance(spec, Unresolved):
                unresolved = spec.reason
            else:
                targets[pod.uid] = (pod, spec)
        impossible = self.tracker.follow(guard.ref, targets)
        self._unresolved[guard.ref] = unresolved or impossible

    def _decide(self, group: Group, state: ClusterState) -> None:
        now = self._clock()
        members = self._members(group, state)
        percent = max(g.upstream_list.min_healthy_percent for g in group.guards)
        floors = tuple(
            floor
            for service in group.services
            for floor in floors_of(service, state.pods_of(service), percent, state.nodes)
        )
        scene = Scene(
            tuple(members.values()),
            floors,
            self.tracker.nodes.lost,
            state.leaving,
            _reserves(group, state) if state.leaving else (),
            self._short_hooks(group, state),
        )
        outcome = decide(scene, now)
        begun = [self._submit(members[d.uid].pod, d) for d in outcome.decisions]
        self._set_alarm(group, outcome, now)
        if any(begun):
            # Telling takes milliseconds, for which these writes would wait. Each marks the guards again
            # when it is done; where the API server is slow, this does.
            for guard in group.guards:
                asyncio.get_running_loop().call_later(TELL_SECONDS, self.mark, guard.ref)
            return
        decided = {d.uid: d for d in outcome.decisions}
        after = {uid: _after(m.pod, decided.get(uid)) for uid, m in members.items()}
        for guard in group.guards:
            self._tell(guard, outcome, after, state)

    def _members(self, group: Group, state: ClusterState) -> dict[str, Member]:
        views: dict[str, list[View]] = {p.uid: [] for p in group.pods}
        for guard in group.guards:
            service = state.service(guard.service_ref)
            if service is None:
                continue
            for pod in state.pods_of(service):
                views[pod.uid].append(self._view(guard, service, pod))
        return {
            p.uid: Member(
                self._writer.overlay(p), tuple(views[p.uid]), self._writer.changed_at(p.uid)
            )
            for p in group.pods
        }

    def _short_hooks(self, group: Group, state: ClusterState) -> dict[str, float]:
        """Seconds that the hooks of pods lack, by UID, where one may be replaced now."""
        if self._drains is None or not any(may_hand_over(pod) for pod in group.pods):
            return {}
        found: dict[str, float] = {}
        for guard in group.guards:
            service = state.service(guard.service_ref)
            if service is None or guard.drain.mode is not DrainMode.ENFORCE:
                continue
            advice = self._drains.advice(guard, service, self._drains.gateways(service))
            for pod in state.pods_of(service):
                lacks = missing_sleep(pod, advice)
                found[pod.uid] = max(lacks, found.get(pod.uid, 0.0))
        return {uid: lacks for uid, lacks in found.items() if lacks > 0}

    def _view(self, guard: Guard, service: Service, pod: Pod) -> View:
        policy = guard.upstream_list
        if service.publish_not_ready:
            policy = replace(policy, mode=ListMode.OBSERVE)
        return View(
            str(guard.ref),
            policy,
            self.tracker.health(guard.ref, pod.uid),
            self.tracker.template_served(guard.ref, pod.template),
            self.tracker.service_served(guard.ref),
        )

    def _submit(self, pod: Pod, decision: Decision) -> bool:
        """Have a decision written; False where the writer waits after a refusal."""
        if pod.containers_ready and pod.gate is not decision.gate:
            self._timer.decided(pod.uid, decision.gate)
        return self._writer.submit(pod, decision)

    def _set_alarm(self, group: Group, outcome: Outcome, now: float) -> None:
        loop = asyncio.get_running_loop()
        for guard in group.guards:
            alarm = self._alarms.pop(guard.ref, None)
            if alarm is not None:
                alarm.cancel()
            if outcome.revisit_at < math.inf:
                delay = max(0.01, outcome.revisit_at - now)
                self._alarms[guard.ref] = loop.call_later(delay, self.mark, guard.ref)

    def _tell(
        self, guard: Guard, outcome: Outcome, after: dict[str, Pod], state: ClusterState
    ) -> None:
        entry = self._book.get(guard.ref)
        service = state.service(guard.service_ref)
        if entry is None or service is None or self._drains is None or self._predictions is None:
            return
        pods = tuple(after.get(p.uid, p) for p in state.pods_of(service))
        gateways = self._drains.gateways(service)
        situation = Situation(
            guard=guard,
            service=service,
            pods=pods,
            healths={p.uid: self.tracker.health(guard.ref, p.uid) for p in pods},
            outcome=_share(outcome, {p.uid for p in pods}),
            listed=state.listed(service.ref),
            gateways=gateways,
            advice=self._drains.advice(guard, service, gateways),
            kube_proxy=self._drains.kube_proxy(service),
            ports=self.tracker.ports(guard.ref),
            unresolved=self._unresolved.get(guard.ref, ""),
            service_served=self.tracker.service_served(guard.ref),
            workload=state.workload_of(pods[0]) if pods else "",
            sleep_supported=self._drains.sleep_supported,
            zones={p.node: state.nodes[p.node].zone for p in pods if p.node in state.nodes},
        )
        outlook = self._predictions.look(entry, situation)
        situation = replace(situation, predictions=outlook.predictions, risks=outlook.risks)
        windows = self._detection.look(entry, situation) if self._detection else ()
        routes = self._ask_routes(guard, service, state)
        surge = self._surger.consider(entry, situation) if self._surger else None
        self._narrator.decided(
            entry,
            replace(situation, routes=routes, windows=windows, surge=surge),
        )

    def _ask_routes(
        self, guard: Guard, service: Service, state: ClusterState
    ) -> tuple[RouteStatus, ...]:
        """After the look at changes: what has begun is asked about at once."""
        if self._routes is None:
            return ()
        landscape = Landscape(
            state.routes_to(service.ref), state.gateways, tuple(self._book.profiles.values())
        )
        return self._routes.follow(guard, service, landscape, self.tracker.path(guard.ref))

    def _forget_stops(self, ref: ObjectRef) -> None:
        if self._drains is not None:
            self._drains.stops.forget(ref)

    def _forget_beside(self, ref: ObjectRef) -> None:
        if self._predictions is not None:
            self._predictions.forget(ref)
        if self._routes is not None:
            self._routes.drop(ref)
        if self._detection is not None:
            self._detection.forget(ref)

    def _release_orphans(self, namespace: str, state: ClusterState) -> None:
        """Open the gate of every pod that has one and no guard that would ever open it."""
        for pod in list(state.pods.get(namespace, {}).values()):
            if not pod.gated or pod.terminating or self._writer.overlay(pod).gate:
                continue
            services = state.services_of(pod)
            if all(self._in_force(service) is None for service in services):
                self._writer.submit(
                    pod,
                    Decision(pod.uid, True, Reason.GUARD_RELEASED, "no guard selects this pod"),
                )

    # What results call.

    def _verdict(self, guard: ObjectRef, uid: str, health: Health) -> None:
        del uid, health
        self._dirty.add(guard)
        if self._active and self._state is not None:
            # Not in the next loop turn: a verdict is what everything else waits for.
            self._flush()

    def _nodes_changed(self, nodes: frozenset[str]) -> None:
        if self._state is None:
            return
        for node in nodes:
            logger.info("Node %s %s", node, "is lost" if self._is_lost(node) else "answers again")
            self.node(node)
        if self._active:
            # All endpoints of the node in one go, for kube-proxy waits a second after each change.
            self._flush()

    def _is_lost(self, node: str) -> bool:
        return node in self.tracker.nodes.lost

    def _look_at_node(self, name: str) -> Node | None:
        return self._state.nodes.get(name) if self._state else None

    def _answered(self, guard: ObjectRef, uid: str, failed_at: float, answered_at: float) -> None:
        if self._predictions is not None:
            self._predictions.starts.answered(guard, uid, failed_at, answered_at)

    def _written(self, order: Order) -> None:
        if self._state is None:
            return
        entries = [
            entry
            for service in self._state.services_of(order.pod)
            for guard in self._authors(service)
            if (entry := self._book.get(guard.ref)) is not None
        ]
        self._narrator.written(order, entries)
        for entry in entries:
            self.mark(entry.ref)

    def _authors(self, service: Service) -> tuple[Guard, ...]:
        """The guard in force; where there is none, those whose pods were just set free."""
        guard = self._in_force(service)
        return self._book.of_service(service.ref) if guard is None else (guard,)

    def _refused(self, pod: Pod) -> None:
        if self._state is None:
            return
        current = self._state.pods.get(pod.ref.namespace, {}).get(pod.uid)
        if current is not None:
            self.pod(current)


def _reserves(group: Group, state: ClusterState) -> tuple[Reserve, ...]:
    namespaces = {service.ref.namespace for service in group.services}
    return tuple(
        reserve_of(rule, group.pods)
        for namespace in sorted(namespaces)
        for rule in state.surroundings.rules(namespace)
        if isinstance(rule, Budget)
    )


def _share(outcome: Outcome, uids: set[str]) -> Outcome:
    """The part of a group's outcome that concerns one guard's pods."""
    return replace(
        outcome,
        decisions=tuple(d for d in outcome.decisions if d.uid in uids),
        absences=tuple(a for a in outcome.absences if a.uid in uids),
    )


def _after(pod: Pod, decision: Decision | None) -> Pod:
    return pod if decision is None else replace(pod, gate=decision.gate)
