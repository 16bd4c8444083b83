"""Endpoints under probe: which there are, what their probes add up to, and who was seen to serve."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from upstream_guard.controller.nodewatch import NodeWatch
from upstream_guard.core.health import NEVER_PROBED, Health, Thresholds, Verdict, observe
from upstream_guard.core.model import Node, ObjectRef, Pod, ProbeProtocol, ProbeResult, ProbeSpec
from upstream_guard.core.reasons import Reason
from upstream_guard.metrics import Metrics
from upstream_guard.probes import ProbeScheduler, ProbeTarget

MAX_TEMPLATES = 64
"""Templates remembered per guard; a Deployment keeps 10 old ReplicaSets by default."""

SEEN_TO_SERVE = frozenset({Reason.ENDPOINT_ADMITTED.value, Reason.ENDPOINT_RESTORED.value})
"""Reasons in the gate's condition that are only written once an endpoint was seen to serve."""

_HTTP = frozenset({ProbeProtocol.HTTP, ProbeProtocol.HTTPS})

CONFIRM_SECONDS = 0.1
"""How soon a serving endpoint that failed hard is asked again, whatever its interval."""


@dataclass(slots=True)
class _Track:
    guard: ObjectRef
    uid: str
    template: str
    node: str
    spec: ProbeSpec
    health: Health
    failed_at: float = 0.0
    """When the last probe failed before the first that succeeded."""
    answered: bool = False

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(self.spec.success_threshold, self.spec.failure_threshold)


class EndpointTracker:
    """Drives the probe scheduler from the guards' endpoints, and keeps each endpoint's health."""

    def __init__(
        self,
        metrics: Metrics,
        on_verdict: Callable[[ObjectRef, str, Health], None],
        on_answer: Callable[[ObjectRef, str, float, float], None],
        look: Callable[[str], Node | None],
        on_nodes: Callable[[frozenset[str]], None],
    ) -> None:
        """Wire it.

        Args:
            metrics: Where probes are counted.
            on_verdict: Told of each changed verdict: guard, pod UID, health.
            on_answer: Told of an endpoint's first success: guard, pod UID, when the last probe before
                it failed (0 where none did), when it succeeded; Unix seconds.
            look: Gives a node by its name.
            on_nodes: Told of nodes that were found lost, or answer again.
        """
        self._metrics = metrics
        self._on_verdict = on_verdict
        self._on_answer = on_answer
        self._tracks: dict[str, _Track] = {}
        self._by_guard: dict[ObjectRef, set[str]] = {}
        self._served: dict[ObjectRef, dict[str, None]] = {}
        self.scheduler = ProbeScheduler(self._on_result)
        self.nodes = NodeWatch(self.scheduler, look, on_nodes)

    def follow(self, guard: ObjectRef, targets: Mapping[str, tuple[Pod, ProbeSpec]]) -> str:
        """Probe exactly these endpoints (by pod UID) for a guard.

        Returns:
            Why some endpoint cannot be probed; empty where all can.
        """
        if guard not in self._by_guard:
            self._inherit(guard, (pod for pod, _ in targets.values()))
        problem = ""
        keys = {f"{guard}/{uid}": uid for uid in targets}
        for key in self._by_guard.get(guard, set()) - keys.keys():
            self._discard(key)
        self._by_guard[guard] = set(keys)
        for key, uid in keys.items():
            pod, spec = targets[uid]
            try:
                self.scheduler.set_target(key, ProbeTarget(pod.ip, spec))
            except ValueError as error:
                # Copied from a readinessProbe: the API server allows more than HTTP does.
                problem = f"the probe of pod {pod.ref} is impossible: {error}; set spec.probe"
                self._by_guard[guard].discard(key)
                self._discard(key)
                continue
            track = self._tracks.get(key)
            if track is None:
                self._tracks[key] = _Track(guard, uid, pod.template, pod.node, spec, NEVER_PROBED)
                self.nodes.enter(pod.node)
                self.scheduler.probe_soon(key)
            elif track.spec != spec:
                self._ask_otherwise(track, spec)
        return problem

    def drop(self, guard: ObjectRef) -> None:
        """Probe nothing for a guard any more, and forget what was learned."""
        self.follow(guard, {})
        del self._by_guard[guard]
        self._served.pop(guard, None)

    def health(self, guard: ObjectRef, uid: str) -> Health:
        """What is known of an endpoint."""
        track = self._tracks.get(f"{guard}/{uid}")
        return track.health if track else NEVER_PROBED

    def ports(self, guard: ObjectRef) -> dict[str, int]:
        """The probed port of each endpoint under probe, by pod UID."""
        tracks = (self._tracks[key] for key in self._by_guard.get(guard, ()))
        return {track.uid: track.spec.port for track in tracks}

    def path(self, guard: ObjectRef) -> str:
        """The path by which endpoints are probed, the first where pods differ; empty without HTTP."""
        tracks = (self._tracks[key].spec for key in self._by_guard.get(guard, ()))
        return min((spec.path for spec in tracks if spec.protocol in _HTTP), default="")

    def tls(self, guard: ObjectRef) -> bool:
        """Whether endpoints are probed over TLS."""
        tracks = (self._tracks[key].spec for key in self._by_guard.get(guard, ()))
        return any(spec.protocol is ProbeProtocol.HTTPS for spec in tracks)

    def probe_soon(self, guard: ObjectRef, uid: str) -> None:
        """Do not wait for an endpoint's next turn."""
        self.scheduler.probe_soon(f"{guard}/{uid}")

    def template_served(self, guard: ObjectRef, template: str) -> bool:
        """Some pod of this template was seen serving, by this process or the one before."""
        return template in self._served.get(guard, {})

    def service_served(self, guard: ObjectRef) -> bool:
        """Some pod of this Service was seen serving, by this process or the one before."""
        return bool(self._served.get(guard))

    def _ask_otherwise(self, track: _Track, spec: ProbeSpec) -> None:
        """Another question: what the old one taught says nothing, and must not eject anybody."""
        if _question(track.spec) != _question(spec):
            track.health = NEVER_PROBED
            self._served.pop(track.guard, None)
        track.spec = spec

    def _discard(self, key: str) -> None:
        self.scheduler.discard(key)
        track = self._tracks.pop(key, None)
        if track is not None:
            self.nodes.leave(track.node, key)

    def _on_result(self, key: str, result: ProbeResult) -> None:
        track = self._tracks.get(key)
        if track is None:
            self.nodes.kubelet_result(key, result)
            return
        self._count(track.guard, result)
        self._note_answer(track, result)
        before = track.health
        track.health = observe(before, result, track.thresholds)
        if track.health.verdict is Verdict.SERVING:
            self._remember(track.guard, track.template)
        self.nodes.result(key, track.node, result, served=track.health.ever_served)
        if track.health.suspect:
            asyncio.get_running_loop().call_later(CONFIRM_SECONDS, self.scheduler.probe_soon, key)
        if track.health.verdict is not before.verdict or track.health.cause is not before.cause:
            self._on_verdict(track.guard, track.uid, track.health)

    def _note_answer(self, track: _Track, result: ProbeResult) -> None:
        if track.answered:
            return
        if result.ok:
            track.answered = True
            self._on_answer(track.guard, track.uid, track.failed_at, result.at)
        else:
            track.failed_at = result.at

    def _inherit(self, guard: ObjectRef, pods: Iterable[Pod]) -> None:
        """Believe what the gates say that an earlier controller saw: a restart must forget nothing."""
        for pod in pods:
            if pod.gate and pod.gate_reason in SEEN_TO_SERVE:
                self._remember(guard, pod.template)

    def _remember(self, guard: ObjectRef, template: str) -> None:
        served = self._served.setdefault(guard, {})
        served.pop(template, None)
        served[template] = None
        while len(served) > MAX_TEMPLATES:
            del served[next(iter(served))]

    def _count(self, guard: ObjectRef, result: ProbeResult) -> None:
        word = "ok" if result.ok or result.cause is None else result.cause.value
        self._metrics.probe_results.labels(guard.namespace, guard.name, word).inc()
        self._metrics.probe_duration.labels(word).observe(result.latency)


def _question(spec: ProbeSpec) -> ProbeSpec:
    """What is asked, without how often and how many answers count."""
    return replace(spec, interval=0.0, success_threshold=0, failure_threshold=0)
