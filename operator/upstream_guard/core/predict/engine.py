"""The prediction: a change, played through in several futures, gives windows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict import course, traffic
from upstream_guard.core.predict.draws import draws
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Answer, Gateway
from upstream_guard.core.predict.lives import Fault, bystanders
from upstream_guard.core.predict.play import Play, Replacement, make_play
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.predict.rules import inspect
from upstream_guard.core.predict.sentences import tell
from upstream_guard.core.predict.standing import standing
from upstream_guard.core.predict.state import Change, ChangeKind, State
from upstream_guard.core.predict.traffic import Stretch
from upstream_guard.core.predict.window import Finding, Scope, Window
from upstream_guard.core.tuning import Evidence

WORTH_TELLING: Final = 0.02
"""A window less probable than this is not reported at all."""

_CAUSES: Final[Mapping[Fault, Cause]] = MappingProxyType(
    {
        Fault.NOT_YET: Cause.REFUSED,
        Fault.LYING: Cause.RESET,
        Fault.NO_MORE: Cause.STALE_UPSTREAM,
        Fault.CRASHED: Cause.REFUSED,
        Fault.LOST: Cause.CONNECT_TIMEOUT,
        Fault.EMPTY: Cause.NO_ENDPOINTS,
        Fault.LAST: Cause.STALE_UPSTREAM,
        Fault.DROPPED: Cause.RESET,
        Fault.KILLED: Cause.RESET,
    }
)
_DOUBT: Final = (
    Evidence.MEASURED,
    Evidence.SPEC,
    Evidence.PROFILE,
    Evidence.BUILTIN,
    Evidence.ASSUMED,
)
"""Kinds of evidence, strongest first."""


def predict(
    state: State,
    gateway: Gateway,
    change: Change,
    facts: Facts,
    now: float,
    findings: Sequence[Finding] | None = None,
) -> tuple[Window, ...]:
    """The windows that a change opens.

    Args:
        state: The Service and its surroundings, as they are when the change begins.
        gateway: One gateway in front of it.
        change: What happens.
        facts: What is known of the app, the cluster and the load.
        now: Unix seconds; the change begins now, and windows count from here.
        findings: What `inspect` says of this state, gateway and facts, where the caller has it.

    Returns:
        One window for each risk that opens one with a probability of at least 2 %, in order of
        their start.
    """
    del now  # windows are relative; the argument keeps callers honest about the moment they mean
    if findings is None:
        findings = inspect(state, (gateway,), facts)
    fixed = standing(state, gateway, change, facts, findings)
    if fixed is not None:
        return fixed
    play = make_play(state, gateway, change, facts)
    if play is None or play.kind not in course.COURSES:
        return ()
    case = _Case(gateway, change, facts, play)
    windows = (
        _window(case, loss, findings)
        for loss in _losses(play, facts.rate, budgeted=bool(state.budgets))
        if loss.probability >= WORTH_TELLING
    )
    return tuple(sorted(windows, key=lambda w: (w.start.value, w.risk)))


def likely_changes(state: State) -> tuple[Change, ...]:
    """What happens to every service sooner or later; accidents (crash, lost node) are left out."""
    changes = [Change(ChangeKind.EDIT)]
    workload = state.workload
    if workload is None or workload.replicas <= 0:
        return tuple(changes)
    changes.append(Change(ChangeKind.ROLLOUT))
    if state.autoscalers:
        changes.append(Change(ChangeKind.SCALE_IN, to_replicas=max(1, workload.replicas - 1)))
    if workload.kind != "DaemonSet":
        changes.append(Change(ChangeKind.NODE_DRAIN))
    return tuple(changes)


@dataclass(frozen=True, slots=True)
class _Loss:
    """The numbers of one window, whatever the Service and its gateway are called."""

    risk: str
    fault: Fault
    start: Estimate
    duration: Estimate
    share: float
    lost: Estimate
    probability: float


@lru_cache(maxsize=4096)
def _losses(play: Play, rate: float, *, budgeted: bool) -> tuple[_Loss, ...]:
    """What each risk costs. Cached: many services of one cluster are alike to the last number."""
    futures = [
        tuple(traffic.failures(play, draw, [*course.run(play, draw), *bystanders(play)]))
        for draw in draws(play.samples)
    ]
    faults = {stretch.fault for future in futures for stretch in future}
    risks = {fault: _risk(fault, play, budgeted=budgeted) for fault in sorted(faults)}
    return tuple(_loss(risk, of, rate) for risk, of in _by_risk(futures, risks).items())


@dataclass(frozen=True, slots=True)
class _Case:
    """The question, for those who write the answer."""

    gateway: Gateway
    change: Change
    facts: Facts
    play: Play


def _by_risk(
    futures: Sequence[Sequence[Stretch]], risks: Mapping[Fault, str]
) -> dict[str, list[list[Stretch]]]:
    """For each risk, its stretches in every future."""
    found: dict[str, list[list[Stretch]]] = {}
    for index, future in enumerate(futures):
        for stretch in future:
            of_risk = found.setdefault(risks[stretch.fault], [[] for _ in futures])
            of_risk[index].append(stretch)
    return found


def _risk(fault: Fault, play: Play, *, budgeted: bool) -> str:
    """Which rule explains this kind of failure here."""
    match fault:
        case Fault.NOT_YET:
            return _early_risk(play)
        case Fault.NO_MORE:
            return _stop_risk(play)
        case Fault.KILLED | Fault.DROPPED if (play.stopping.hook or 0.0) >= play.stopping.grace:
            return "pre-stop-exceeds-grace"  # the hook is cut short, and SIGTERM comes while requests are under way
        case Fault.EMPTY | Fault.LAST:
            return _empty_risk(play, budgeted=budgeted)
    return _PLAIN_RISKS[fault]


_PLAIN_RISKS: Final[Mapping[Fault, str]] = MappingProxyType(
    {
        Fault.LYING: "ready-before-serving",
        Fault.DROPPED: "sigterm-drops-requests",
        Fault.KILLED: "grace-shorter-than-drain",
        Fault.CRASHED: "crash",
        Fault.LOST: "node-loss",
    }
)


def _early_risk(play: Play) -> str:
    if not play.readying.probed:
        return "no-readiness-probe"
    return "readiness-probe-elsewhere" if play.readying.elsewhere else "ready-before-serving"


def _stop_risk(play: Play) -> str:
    hook = play.stopping.hook
    if hook is None:
        return "no-pre-stop"
    return "pre-stop-exceeds-grace" if hook >= play.stopping.grace else "pre-stop-too-short"


def _empty_risk(play: Play, *, budgeted: bool) -> str:
    """Why nobody is left in the list."""
    if play.kind is ChangeKind.SCALE_IN:
        return "no-replicas"
    if play.kind is ChangeKind.ROLLOUT and play.replacement is Replacement.ALL_AT_ONCE:
        return "recreate-strategy"
    # A single pod that is replaced in place is a matter of its number, not of the strategy.
    is_alone = play.replicas == 1 and play.replacement is not Replacement.SURGE
    takes_all = play.unavailable >= play.replicas and not is_alone
    if play.kind is ChangeKind.ROLLOUT and takes_all:
        return "max-unavailable"
    if play.replicas == 1:
        return "single-replica"
    if play.kind is ChangeKind.NODE_DRAIN:
        return "disruption-budget-useless" if budgeted else "no-disruption-budget"
    return {ChangeKind.CRASH: "crash", ChangeKind.NODE_LOSS: "one-node"}.get(
        play.kind, "min-ready-seconds"
    )


def _loss(risk: str, futures: Sequence[Sequence[Stretch]], rate: float) -> _Loss:
    lost = [traffic.expected(future, rate) for future in futures]
    opens = [1 - math.exp(-number) for number in lost]
    open_ones = [(f, n) for f, n in zip(futures, lost, strict=True) if f]
    return _Loss(
        risk=risk,
        fault=_main_fault(futures),
        start=_spread([min(s.begin for s in future) for future, _ in open_ones]),
        duration=_spread([_seen(future, number) for future, number in open_ones]),
        share=_share(futures),
        lost=_lost(lost, opens),
        probability=math.fsum(opens) / len(opens),
    )


def _window(case: _Case, loss: _Loss, findings: Sequence[Finding]) -> Window:
    cause = _CAUSES[loss.fault]
    answer = _answer(case.gateway, cause)
    evidence, basis = _basis(case, loss.fault)
    finding = next((f for f in findings if f.risk == loss.risk), None)
    window = Window(
        change=case.change.kind,
        cause=cause,
        risk=loss.risk,
        start=loss.start,
        duration=loss.duration,
        share=loss.share,
        lost=loss.lost,
        probability=loss.probability,
        status=answer.status,
        status_note=answer.note,
        scope=Scope.SERVICE if loss.share >= 0.999 else Scope.ENDPOINT,
        evidence=evidence,
        basis=basis,
        gateway=case.gateway.text,
        message="",
        remedy=finding.remedy if finding else None,
        no_remedy=_no_remedy(loss.risk, finding),
    )
    return tell(window, case.facts)


def _seen(future: Sequence[Stretch], lost: float) -> float:
    """Seconds from the first to the last of `lost` requests that fail somewhere in the stretches.

    Of n points spread evenly over a length, the outermost two are (n-1)/(n+1) of it apart.
    """
    begin, until = min(s.begin for s in future), max(s.until for s in future)
    return (until - begin) * max(0.0, lost - 1) / (lost + 1)


def _spread(values: Sequence[float]) -> Estimate:
    """Tenth, fiftieth and ninetieth percentile."""
    ordered = sorted(values)
    last = len(ordered) - 1
    low, middle, high = (ordered[round(q * last)] for q in (0.1, 0.5, 0.9))
    return Estimate(low, middle, high)


def _lost(lost: Sequence[float], opens: Sequence[float]) -> Estimate:
    """Requests lost where the window opens: the mean over such futures, and their percentiles."""
    likely = math.fsum(opens)
    range_ = _spread([number for number in lost if number > 0])
    mean = math.fsum(lost) / likely if likely > 0 else 0.0
    return Estimate(min(range_.low, mean), mean, max(range_.high, mean))


def _share(futures: Iterable[Sequence[Stretch]]) -> float:
    """Of the requests sent while it is open."""
    stretches = [s for future in futures for s in future]
    length = math.fsum(s.until - s.begin for s in stretches)
    if length <= 0:
        return max((s.share for s in stretches), default=0.0)
    return math.fsum(s.share * (s.until - s.begin) for s in stretches) / length


def _main_fault(futures: Iterable[Sequence[Stretch]]) -> Fault:
    """The fault that costs most; several may share one risk."""
    costs: dict[Fault, float] = {}
    for future in futures:
        for stretch in future:
            costs[stretch.fault] = costs.get(stretch.fault, 0.0) + stretch.seconds
    return max(costs, key=lambda fault: (costs[fault], fault))


def _answer(gateway: Gateway, cause: Cause) -> Answer:
    """A removed address refuses, unless the gateway is known to show it in another way."""
    if cause is Cause.STALE_UPSTREAM and cause not in gateway.behaviour.answers:
        cause = Cause.REFUSED
    return gateway.answer(cause)


def _basis(case: _Case, fault: Fault) -> tuple[Evidence, str]:
    """The weakest evidence among the numbers that decide, and those numbers in words."""
    gateway, play = case.gateway, case.play
    numbers: dict[Fault, tuple[tuple[Evidence, str], ...]] = {
        Fault.NOT_YET: ((play.app.start.evidence, play.app.start.source),),
        Fault.LYING: ((play.readying.lies.evidence, play.readying.lies.source),),
        Fault.NO_MORE: ((gateway.facts.evidence, gateway.facts.source),),
        Fault.CRASHED: (
            (play.platform.exit_delist.evidence, play.platform.exit_delist.source),
            (play.app.start.evidence, play.app.start.source),
        ),
        Fault.LOST: ((play.platform.node_delist.evidence, play.platform.node_delist.source),),
        Fault.EMPTY: ((play.app.start.evidence, play.app.start.source),),
        Fault.LAST: ((gateway.facts.evidence, gateway.facts.source),),
        Fault.DROPPED: ((play.app.response.evidence, play.app.response.source),),
        Fault.KILLED: ((play.app.drain.evidence, play.app.drain.source),),
    }
    found = numbers[fault]
    weakest = max((evidence for evidence, _ in found), key=_DOUBT.index)
    return weakest, "; ".join(dict.fromkeys(source for _, source in found if source))


def _no_remedy(risk: str, finding: Finding | None) -> str:
    if finding is not None:
        return finding.no_remedy
    return _WITHOUT_REMEDY.get(risk, f"see `upstream-guard explain {risk}`: {RISKS[risk].title}")


_WITHOUT_REMEDY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "crash": "a crash comes unannounced; a guard shortens its window by probing",
        "node-loss": "a node is lost without notice; a guard takes its pods out of the list sooner",
        "one-node": "every replica was on the lost node",
        "no-replicas": "nothing serves at 0 replicas",
    }
)
"""Why some windows cannot be prevented by a patch."""
