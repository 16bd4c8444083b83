"""Our own resources: what a guard does for its Service, and why one of them cannot be used."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from upstream_guard.core.model import DrainMode, Guard, ListMode, ObjectRef
from upstream_guard.core.names import GUARD_KIND, PROFILE_KIND
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.state import GuardFacts, Refused
from upstream_guard.core.tuning import Evidence, GatewayFacts, GatewayProfile, advise_drain
from upstream_guard.resources.manifests.reading import DEFAULT_NAMESPACE, text

_TO_SLICE: Final = (0.04, 0.05, 0.15)
"""Seconds from a gate's condition to the EndpointSlice (measured, Kubernetes 1.35)."""

Value = TypeVar("Value")


def parse_guard_or_why(raw: object) -> Guard | Refused | None:
    """An UpstreamGuard, or why it could not be accepted, for it then protects nothing."""
    # pydantic takes longer to import than a thousand manifests to read, and few of them are guards.
    from upstream_guard.resources.guard import parse_guard  # noqa: PLC0415

    return _value_or_why(parse_guard, GUARD_KIND, DEFAULT_NAMESPACE, raw)


def parse_profile_or_why(raw: object) -> GatewayProfile | Refused | None:
    """A GatewayProfile, or why it could not be used."""
    from upstream_guard.resources.profile import parse_profile  # noqa: PLC0415 (as above)

    return _value_or_why(parse_profile, PROFILE_KIND, "", raw)


def _value_or_why(
    parse: Callable[[object], Value], kind: str, namespace: str, raw: object
) -> Value | Refused | None:
    from upstream_guard.resources.schema import ResourceError  # noqa: PLC0415 (as above)

    metadata = raw.get("metadata") if isinstance(raw, Mapping) else None
    if not isinstance(metadata, Mapping) or not text(metadata.get("name")):
        return None
    try:
        return parse(raw)
    except ResourceError as error:
        ref = ObjectRef(text(metadata.get("namespace")) or namespace, metadata["name"])
        return Refused(kind, ref, tuple((p.path, p.message) for p in error.problems))


def guard_facts(guard: Guard) -> GuardFacts:
    """What a guard does by itself: an `Auto` preStop still counts as none.

    `settle_drain` settles it, once the gateways are known.
    """
    probe, drain = guard.probe, guard.drain
    before = (probe.failure_threshold - 1) * probe.interval
    low, value, high = _TO_SLICE
    given = drain.mode is DrainMode.ENFORCE and drain.pre_stop is not None
    return GuardFacts(
        gates=guard.upstream_list.mode is ListMode.ENFORCE,
        pre_stop=float(advise_drain(drain, ()).pre_stop) if given else 0.0,
        probe_interval=probe.interval,
        # The first failed probe comes within an interval of the failure; a silent pod needs the time-out.
        eject=Estimate(
            before + low,
            before + probe.interval / 2 + value,
            before + probe.interval + probe.timeout + high,
            Evidence.SPEC,
            "spec.probe: interval, timeout and failureThreshold",
        ),
        drain=drain,
        min_healthy_percent=guard.upstream_list.min_healthy_percent,
    )


def settle_drain(facts: GuardFacts, gateways: Iterable[GatewayFacts]) -> GuardFacts:
    """The same guard in front of known gateways: with the preStop that new pods get.

    Args:
        facts: From `guard_facts`.
        gateways: Those in front of the Service; none stands for "through its ClusterIP".
    """
    if facts.drain.mode is not DrainMode.ENFORCE:
        return facts
    return replace(facts, pre_stop=float(advise_drain(facts.drain, gateways).pre_stop))
