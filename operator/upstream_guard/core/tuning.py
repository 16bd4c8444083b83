"""How long a pod that must stop keeps serving, from what is known of the gateways in front of it."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from upstream_guard.core.latency import P99, Measured
from upstream_guard.core.model import DrainPolicy, ObjectRef
from upstream_guard.core.shutdown import AppShutdown, app_grace

MEASURED_MARGIN: Final = 0.5
"""Seconds added to a latency that was measured on a gateway of that product, elsewhere.

Real pods got requests up to 0.04 s longer than the paired canary had said (1.19 s against 1.15 s), and
their deletion reaches the EndpointSlice 0.04-0.15 s after the API call, which the canary does not see.
"""

UNMEASURED_MARGIN: Final = 1.5
"""Seconds added to a delay read from a product's code or documentation.

Such a delay leaves out the time to compute, send and load the configuration. kube-proxy, whose code
promises 1 s, took up to 1.19 s.
"""

KUBE_PROXY_DETACH: Final = 1.19
"""Seconds from the delete call to the last request through a ClusterIP (measured, Kubernetes 1.35).

kube-proxy waits `minSyncPeriod` (1 s) after each sync, and a rollout always syncs just before.
"""

KUBE_PROXY_ATTACH: Final = 1.1
"""Seconds until a ClusterIP uses a new endpoint: `minSyncPeriod` and the measured 0.106 s."""

CANARY_MARGIN: Final = 0.25
"""Seconds added to a latency that the canary measured on this very gateway.

A pod's deletion reaches the EndpointSlice 0.04-0.15 s after the API call, which the canary does not see;
real pods got requests 0.04 s longer than it had said; and it asks every 0.02 to 0.05 s.
"""

CANARY_DOUBT: Final = 0.5
"""Seconds added on top while there are few samples: times the chance that all of them miss the slowest
hundredth, `0.99^n`. 0.45 s with 10 samples, 0.18 s with 100, 0.02 s with 300."""

DOUBT_SHARE: Final = 0.3
"""As `CANARY_DOUBT`, as a share of the latency: what is slow varies more."""

MIN_SAMPLES: Final = 10
"""Detaches from which on a measurement replaces what was assumed."""

STAY: Final = 0.25
"""Seconds by which a measured need must be below a lower preStop before it is lowered."""

MIN_APP_DRAIN: Final = 1
"""Least seconds that the app keeps between its SIGTERM and its SIGKILL."""


NO_CLASS: Final = "(no class)"
"""Name of whatever serves an Ingress without a class.

The API server fills in the default class where there is one, so this is left to a controller that
takes such Ingresses of its own accord, as GKE's does: which one cannot be known from here.
"""


class Evidence(StrEnum):
    """What a number rests on, strongest first."""

    MEASURED = "measured"
    """On this gateway in this cluster, by the propagation canary."""
    PROFILE = "profile"
    """An admin's GatewayProfile."""
    BUILTIN = "builtin"
    """Measured on, or read from the code of, this product."""
    ASSUMED = "assumed"
    """Published reports or an analogy; neither measured nor read."""
    SPEC = "spec"
    """The guard's own spec."""


class GatewayKind(StrEnum):
    """What names a gateway."""

    INGRESS_CLASS = "IngressClass"
    GATEWAY = "Gateway"
    PROFILE = "GatewayProfile"
    CLUSTER_IP = "ClusterIP"
    """No gateway was found: whatever is in front goes through the Service's ClusterIP."""


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """One gateway in front of a Service, and how fast it follows the Service's endpoints.

    Attributes:
        name: The IngressClass, the Gateway as `namespace/name`, or the GatewayProfile.
        controller: The kind of gateway, e.g. `contour`, as in the built-in profiles.
        detach_seconds: From the API write to the last request sent to the endpoint, 99th percentile.
        attach_seconds: From the API write to the first request sent to the endpoint.
        via_cluster_ip: Whether kube-proxy picks the pod, rather than the gateway itself.
        evidence: What the two latencies rest on.
        source: Where they come from, with their doubts, for people.
        bad_statuses: Statuses by which this gateway says that its upstream failed.
        kind: What `name` names.
        margin_seconds: What is added to `detach_seconds` when a preStop is sized.
        connect_timeout: As in `GatewayProfile`; None takes what the product is known for, as below.
        read_timeout: As in `GatewayProfile`.
        keepalive_idle: As in `GatewayProfile`.
        retries: As in `GatewayProfile`.
        measured: What the propagation canary found, if anything.
        canary: Why the canary does not measure it, or what its numbers do not say; may be empty.
    """

    name: str
    controller: str
    detach_seconds: float
    attach_seconds: float
    via_cluster_ip: bool
    evidence: Evidence
    source: str
    bad_statuses: tuple[int, ...] = (502, 503, 504)
    kind: GatewayKind = GatewayKind.INGRESS_CLASS
    margin_seconds: float = UNMEASURED_MARGIN
    connect_timeout: float | None = None
    read_timeout: float | None = None
    keepalive_idle: float | None = None
    retries: int | None = None
    measured: Measured | None = None
    canary: str = ""

    @property
    def needed_seconds(self) -> float:
        """How long a stopping pod must keep serving for this gateway, margin included."""
        return self.detach_seconds + self.margin_seconds


@dataclass(frozen=True, slots=True)
class GatewayProfile:
    """One GatewayProfile, parsed: what an admin says about gateways. None means "not said".

    Attributes:
        name: The profile's own name.
        ingress_classes: IngressClasses that it speaks of.
        gateways: Gateways that it speaks of, as `namespace/name`.
        services: Services that lie behind it though no route says so.
        controller: The built-in profile to start from, or a name of the admin's own.
        via_cluster_ip: Whether kube-proxy picks the pod.
        detach_seconds: As in `GatewayFacts`.
        attach_seconds: As in `GatewayFacts`.
        bad_statuses: As in `GatewayFacts`.
        address: URL where the operator reaches the gateway; empty where not said.
        metrics_url: URL of its metrics; empty where not said.
        admin_url: URL of its admin API, without a path; empty where not said.
        prometheus_url: URL of a Prometheus that has its metrics; empty where not said.
        prometheus_token: Name of the file with the token for it; empty where there is none.
        connect_timeout: Seconds.
        read_timeout: Seconds.
        keepalive_idle: Seconds that it keeps an idle connection; 0 where it keeps none.
        retries: How often it tries again.
        canary: Whether it may be measured.
        canary_host: Host header that leads to its canary; empty where not said.
        canary_requests: Requests a minute that measuring may take, at most; None where not said.
    """

    name: str
    ingress_classes: frozenset[str] = frozenset()
    gateways: frozenset[str] = frozenset()
    services: frozenset[ObjectRef] = frozenset()
    controller: str | None = None
    via_cluster_ip: bool | None = None
    detach_seconds: float | None = None
    attach_seconds: float | None = None
    bad_statuses: tuple[int, ...] | None = None
    address: str = ""
    metrics_url: str = ""
    admin_url: str = ""
    prometheus_url: str = ""
    prometheus_token: str = ""
    connect_timeout: float | None = None
    read_timeout: float | None = None
    keepalive_idle: float | None = None
    retries: int | None = None
    canary: bool = True
    canary_host: str = ""
    canary_requests: int | None = None


CLUSTER_IP: Final = GatewayFacts(
    name="ClusterIP",
    controller="cluster-ip",
    detach_seconds=KUBE_PROXY_DETACH,
    attach_seconds=KUBE_PROXY_ATTACH,
    via_cluster_ip=True,
    evidence=Evidence.BUILTIN,
    source="kube-proxy, measured on Kubernetes 1.35: real pods got requests up to 1.19 s after the delete",
    kind=GatewayKind.CLUSTER_IP,
    margin_seconds=MEASURED_MARGIN,
)
"""The way through kube-proxy: for a gateway that sends to the ClusterIP, and where none was found."""


@dataclass(frozen=True, slots=True)
class DrainAdvice:
    """The drain settings for the pods of one guard.

    Attributes:
        pre_stop: Whole seconds of the preStop sleep; 0 means that no hook is needed.
        grace_period: Whole seconds that `spec.drain.gracePeriod` asks for; None is `Auto`.
        reason: One sentence with the numbers.
        evidence: What `pre_stop` rests on.
        shortfall: Seconds by which `pre_stop` is shorter than the slowest gateway needs, because
            of `maxPreStop` or of the guard's own number.
        app: What the app was seen to do on SIGTERM; None where nothing was.
        detach_seconds: How long the slowest gateway may use a pod after its deletion, without any margin.
    """

    pre_stop: int
    grace_period: int | None
    reason: str
    evidence: Evidence
    shortfall: float = 0.0
    app: AppShutdown | None = None
    detach_seconds: float = 0.0

    def lacking(self, sleep: float) -> float:
        """Seconds that a preStop hook which sleeps for so long lacks of what is advised.

        0 where it lasts as long as gateways may use the pod, for then only a margin is missing.
        """
        return max(0.0, self.pre_stop - sleep) if sleep < self.detach_seconds else 0.0

    def grace_for(self, own: int) -> int:
        """The grace period for a pod, whole seconds.

        Args:
            own: The pod's own `terminationGracePeriodSeconds`; it is never lowered.
        """
        if self.grace_period is None:
            return app_grace(self.app, own) + self.pre_stop
        return max(own, self.grace_period, self.pre_stop + MIN_APP_DRAIN)


def with_measurement(facts: GatewayFacts, found: Measured | None, note: str = "") -> GatewayFacts:
    """The facts with what the canary found in the place of what was assumed.

    Fewer than `MIN_SAMPLES` detaches replace nothing, and an admin's own number is never lowered.

    Args:
        facts: As discovered.
        found: What the canary found; None where it found nothing.
        note: Why it did not, or what it could not see.
    """
    seen = replace(facts, measured=found, canary=note)
    if found is None or found.detach.samples < MIN_SAMPLES:
        return seen
    if facts.evidence is Evidence.PROFILE and facts.detach_seconds >= found.decisive.p99:
        return seen
    return replace(
        seen,
        detach_seconds=found.decisive.p99,
        attach_seconds=found.attach.p99 if found.attach else facts.attach_seconds,
        evidence=Evidence.MEASURED,
        source=_measurement(found),
        margin_seconds=canary_margin(found),
    )


def canary_margin(found: Measured) -> float:
    """Seconds added to what the canary measured; fewer with each sample, never below `CANARY_MARGIN`."""
    missed = P99**found.decisive.samples
    return CANARY_MARGIN + missed * max(CANARY_DOUBT, DOUBT_SHARE * found.decisive.p99)


def advise_drain(
    policy: DrainPolicy,
    gateways: Iterable[GatewayFacts],
    *,
    cluster_ip_clients: bool = False,
    kube_proxy: GatewayFacts = CLUSTER_IP,
    before: int | None = None,
) -> DrainAdvice:
    """Settle preStop and grace period for the pods of a guard.

    Args:
        policy: `spec.drain`.
        gateways: The gateways in front of the Service; none stands for "through its ClusterIP".
        cluster_ip_clients: Whether clients inside the cluster are known to use the ClusterIP beside
            the gateways, so that kube-proxy must have forgotten the pod as well.
        kube_proxy: The way through a ClusterIP, as built in or as measured.
        before: The preStop that is in force; a measured number leaves it for good reason only.
    """
    found = tuple(gateways)
    candidates = [_through_kube_proxy(gateway, kube_proxy) for gateway in found]
    if cluster_ip_clients or not found:
        candidates.append(kube_proxy)
    slowest = max(candidates, key=lambda g: (g.needed_seconds, g.name))
    grace = None if policy.grace_period is None else math.ceil(policy.grace_period)
    if policy.pre_stop is not None:
        return _explicit(math.ceil(policy.pre_stop), grace, slowest)
    return _auto(policy, grace, slowest, found, before)


def recommended_patch(advice: DrainAdvice, containers: Iterable[str], own_grace: int = 30) -> str:
    """The strategic merge patch that gives a workload these settings, as JSON for `kubectl patch`.

    Args:
        advice: The settings.
        containers: Names of the regular containers without a preStop hook of their own; all of
            them are stopped at once, so each needs one.
        own_grace: The workload's own grace period, seconds.
    """
    hook = {"preStop": {"sleep": {"seconds": advice.pre_stop}}}
    pod_spec: dict[str, object] = {"terminationGracePeriodSeconds": advice.grace_for(own_grace)}
    if advice.pre_stop:
        pod_spec["containers"] = [{"name": name, "lifecycle": hook} for name in containers]
    return json.dumps({"spec": {"template": {"spec": pod_spec}}}, separators=(",", ":"))


def _through_kube_proxy(gateway: GatewayFacts, kube_proxy: GatewayFacts) -> GatewayFacts:
    """A gateway that sends to the ClusterIP is as fast as kube-proxy, unless somebody knows better."""
    if not gateway.via_cluster_ip or gateway.evidence in {Evidence.MEASURED, Evidence.PROFILE}:
        return gateway
    if kube_proxy.evidence is Evidence.MEASURED and _is_kube_proxys(gateway):
        return kube_proxy
    return max(gateway, kube_proxy, key=lambda g: g.needed_seconds)


def _is_kube_proxys(gateway: GatewayFacts) -> bool:
    """Whether the number is not the product's own, but the built-in one of kube-proxy."""
    return gateway.source == CLUSTER_IP.source


def _measurement(found: Measured) -> str:
    """Where a measured number comes from, and how sure it is."""
    counted = found.decisive
    samples, sure = counted.samples, round(100 * counted.confidence)
    rank = "their maximum" if counted.p99 == counted.max else "their 99th percentile"
    words = (
        f"{samples} toggles of the canary, each right after another endpoint change, {rank}; with {sure} % "
        "confidence 99 of 100 are not slower"
    )
    if found.sticks:
        return (
            f"{words}; kept-alive connections stay until the app ends them, so it must on SIGTERM"
        )
    if found.kept:
        return f"{words}; kept-alive connections ended within {_number(found.kept.max)} s"
    return words


def _explicit(pre_stop: int, grace: int | None, slowest: GatewayFacts) -> DrainAdvice:
    shortfall = max(0.0, slowest.needed_seconds - pre_stop)
    reason = f"preStop {pre_stop} s is set in spec.drain.preStop"
    if shortfall:
        reason += (
            f"; {slowest.controller} may use a pod for {_number(slowest.detach_seconds)} s after its "
            f"deletion and wants {math.ceil(slowest.needed_seconds)} s with a margin: raise it, or "
            "set Auto"
        )
    return DrainAdvice(
        pre_stop, grace, reason, Evidence.SPEC, shortfall, detach_seconds=slowest.detach_seconds
    )


def _auto(
    policy: DrainPolicy,
    grace: int | None,
    slowest: GatewayFacts,
    found: tuple[GatewayFacts, ...],
    before: int | None,
) -> DrainAdvice:
    needed = _settled(slowest, before)
    limit = math.floor(policy.max_pre_stop)
    pre_stop = min(needed, limit)
    reason = (
        f"preStop {pre_stop} s: {_who(slowest, found)} may use a pod for "
        f"{_number(slowest.detach_seconds)} s after its deletion, and "
        f"{_number(slowest.margin_seconds)} s of margin ({slowest.evidence}: {slowest.source})"
    )
    if needed != math.ceil(slowest.needed_seconds):
        reason += f"; {_number(slowest.needed_seconds)} s is too near to {needed} s for a change"
    if needed > limit:
        reason += (
            f"; {needed} s would be needed but maxPreStop is {limit} s, so requests may fail in the "
            f"last {needed - limit} s: raise spec.drain.maxPreStop"
        )
    return DrainAdvice(
        pre_stop,
        grace,
        reason,
        slowest.evidence,
        max(0.0, slowest.needed_seconds - pre_stop),
        detach_seconds=slowest.detach_seconds,
    )


def _settled(slowest: GatewayFacts, before: int | None) -> int:
    """Whole seconds of preStop, which measurements that differ by little do not move to and fro.

    It is raised as soon as the margin that every pod needs is touched, and lowered once it is clear.
    """
    wanted = math.ceil(slowest.needed_seconds)
    if before is None or slowest.evidence is not Evidence.MEASURED or abs(wanted - before) != 1:
        return wanted
    if wanted > before:
        return before if slowest.detach_seconds + CANARY_MARGIN <= before else wanted
    return wanted if slowest.needed_seconds <= wanted - STAY else before


def _who(slowest: GatewayFacts, found: tuple[GatewayFacts, ...]) -> str:
    if not found:
        return "no gateway was found, so kube-proxy is assumed to be in front; it"
    if slowest.kind is GatewayKind.CLUSTER_IP:
        return "kube-proxy, which picks the pods behind the ClusterIP,"
    others = len(found) - 1
    rank = f", the slowest of {len(found)} gateways," if others else ""
    return f"{slowest.controller} ({slowest.name}){rank}"


def _number(seconds: float) -> str:
    """At most two decimals, without trailing zeros: 1.19, 2, 0.03."""
    return f"{seconds:.2f}".rstrip("0").rstrip(".")
