"""Guards: what one does for its Service, as far as a prediction needs to know."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from upstream_guard.core.model import DrainMode, Guard, ListMode
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.state import GuardFacts
from upstream_guard.core.tuning import Evidence, GatewayFacts, advise_drain

_TO_SLICE: Final = (0.04, 0.05, 0.15)
"""Seconds from a gate's condition to the EndpointSlice (measured, Kubernetes 1.35)."""


def parse_valid_guard(raw: object) -> Guard | None:
    """An UpstreamGuard; none where it could not be accepted, for it then protects nothing."""
    # pydantic takes longer to import than a thousand manifests to read, and few of them are guards.
    from upstream_guard.resources.guard import parse_guard  # noqa: PLC0415
    from upstream_guard.resources.schema import GuardError  # noqa: PLC0415

    try:
        return parse_guard(raw)
    except GuardError:
        return None


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
