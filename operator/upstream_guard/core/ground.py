"""What an evaluation of a guard tells detection, of pods and of external upstreams alike. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from upstream_guard.core.assessment import Situation
from upstream_guard.core.causes import Cause
from upstream_guard.core.external_assessment import ExternalSituation, describe_ended
from upstream_guard.core.health import NEVER_PROBED
from upstream_guard.core.holding import address_of
from upstream_guard.core.model import DetectionPolicy, ObjectRef
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.resolution import UpstreamState
from upstream_guard.core.sightings import Probed
from upstream_guard.core.status import PredictionStatus
from upstream_guard.core.tuning import GatewayFacts

FRESH_SECONDS: Final = 300.0
"""How long an edit speaks for what it breaks: what goes well for longer was not broken by it."""
MAX_WORDS: Final = 160
"""Of one piece of evidence; all of it together is bounded as well."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A guarded Service, as an evaluation found it.

    Attributes:
        service: The Service.
        policy: `spec.detection`.
        endpoints: Those that are probed.
        keys: What each is probed as, by address.
        trusted: As in `detect.Scene`.
        wanted: Endpoints that are to stay; an empty list where there are none is somebody's wish.
        gateways: In front of it.
        predictions: That are not over.
        told: Causes that are known by other ways, in words.
    """

    service: ObjectRef
    policy: DetectionPolicy = field(default_factory=DetectionPolicy)
    endpoints: tuple[Probed, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    trusted: bool = True
    wanted: int = 0
    gateways: tuple[GatewayFacts, ...] = ()
    predictions: tuple[PredictionStatus, ...] = ()
    told: Mapping[Cause, str] = field(default_factory=dict)


def ground_of_pods(situation: Situation, now: float) -> Ground:
    """Of a guard whose Service has pods."""
    endpoints: dict[str, Probed] = {}
    keys: dict[str, str] = {}
    for pod in situation.pods:
        port = situation.ports.get(pod.uid)
        if port is None or not pod.ip:
            continue
        address = address_of(pod.ip, port)
        listed = pod.uid in situation.listed and not pod.terminating
        health = situation.healths.get(pod.uid, NEVER_PROBED)
        keys[address] = pod.uid
        endpoints[address] = Probed(
            address, pod.node, situation.zones.get(pod.node, ""), listed, health
        )
    return Ground(
        service=situation.service.ref,
        policy=situation.guard.detection,
        endpoints=tuple(endpoints.values()),
        keys=keys,
        trusted=situation.service_served and not situation.outcome.blind,
        wanted=len(situation.live),
        gateways=situation.gateways,
        predictions=situation.predictions,
        told=told_by_edits(situation.predictions, now),
    )


def ground_of_upstreams(situation: ExternalSituation, now: float) -> Ground:
    """Of a guard with external upstreams; an address that DNS no longer names is about to leave."""
    slots = situation.choice.slots
    return Ground(
        service=situation.service.ref,
        policy=situation.guard.detection,
        endpoints=tuple(
            Probed(
                key,
                "",
                "",
                key in situation.listed and not slot.left_at,
                situation.healths.get(key, NEVER_PROBED),
            )
            for key, slot in slots.items()
        ),
        keys={key: key for key in slots},
        trusted=situation.service_served and not situation.choice.outcome.blind,
        wanted=sum(not slot.left_at for slot in slots.values()),
        gateways=situation.gateways,
        told=dict(_told_of_upstreams(situation, now)),
    )


def told_by_edits(predictions: Iterable[PredictionStatus], now: float) -> dict[Cause, str]:
    """What somebody has just written that makes requests fail: predicted, and not taken back.

    Of other changes nothing is told: a rollout is expected to fail in some way, and may fail in another.
    """
    return {
        p.cause: f"{p.change} of {p.subject}: {p.message}"[:MAX_WORDS]
        for p in predictions
        if p.change is ChangeKind.EDIT and now - p.began < FRESH_SECONDS
    }


def _told_of_upstreams(situation: ExternalSituation, now: float) -> Iterable[tuple[Cause, str]]:
    """Names without any address, and certificates that have ended.

    A name on its last known good addresses is none of them: requests go on.
    """
    lost = [
        f"{key} does not resolve"
        for key, (state, _) in situation.upstreams.items()
        if state is UpstreamState.UNRESOLVED
    ]
    if lost:
        yield Cause.DNS, "; ".join(lost)[:MAX_WORDS]
    if ended := describe_ended(situation, now):
        yield Cause.TLS, "; ".join(ended)[:MAX_WORDS]
