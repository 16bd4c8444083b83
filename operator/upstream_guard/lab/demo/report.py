"""From runs to what people and programs read: the table, the verdict, the JSON. Pure.

The JSON's keys are a contract: more may be added, none changes its meaning.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from upstream_guard.core.model import ProbeOverrides
from upstream_guard.core.predict.score import Observation, Prediction, Trial
from upstream_guard.lab.demo.tally import Tally, is_failure
from upstream_guard.lab.demo.telling import Telling, Told, by_scenario, median_lead, telling
from upstream_guard.lab.demo.variants import GO, Variant
from upstream_guard.lab.gateways import VIA_CLUSTER_IP

LOSSLESS: Final = frozenset({"rollout", "scale-in", "drain", "slow-start"})
"""Planned changes: a guarded service loses no request to them."""

_PROBE = ProbeOverrides()
DETECTION_SECONDS: Final = _PROBE.interval * _PROBE.failure_threshold + _PROBE.timeout + 0.3
"""From the first failed request to the last, where one endpoint goes bad: the promise, with 0.3 s
for the way from verdict to gateway."""

NODE_LOSS_SECONDS: Final = 2.0
"""From the loss of a node to the last failed request, by when it was sent: the promise."""

ENOUGH_RUNS: Final = 3
"""From so many repeats on, a crash's guarded window is compared with the tuned one to the last digit.

Both end within about half a second, at a moment that chance sets (when the next probe is due, when
the kubelet looks next); with fewer repeats the guarded one may be longer by one interval of probes.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One change under load, through one gateway, in one variant."""

    gateway: str
    scenario: str
    variant: Variant
    repeat: int
    """Counts from 1."""
    tally: Tally
    load_started: float
    """Unix seconds; requests count from here on."""
    change_started: float
    change_ended: float
    failures: tuple[float, ...]
    """Send times of the failed requests, Unix seconds, ascending."""
    listed: tuple[tuple[float, int], ...]
    """(Unix time, endpoints listed as ready) at the start of the run and after each change."""
    prediction: Prediction | None = None
    """Made just before the change, where that was asked for and the change can be foreseen."""
    told: tuple[Told, ...] | None = None
    """What the operator told of it; None where nobody listened."""
    app: str = GO.name
    """Which server stood behind the gateway."""
    pre_stop: float = 0.0
    """The preStop sleep that the pods carried before the change, seconds; 0 where one had none."""
    kept_failed: int = 0
    """How many of the failed requests went over kept-alive client connections."""

    @property
    def what(self) -> str:
        """The scenario, and the app where it is not the usual one."""
        return self.scenario if self.app == GO.name else f"{self.scenario} ({self.app})"

    @property
    def trial(self) -> Trial | None:
        """Prediction and outcome, as the score wants them; None without a prediction."""
        if self.prediction is None:
            return None
        service, gateway = self.prediction.service, self.prediction.gateway
        seen = (
            Observation(service, gateway, w.start, w.seconds, w.failed) for w in self.tally.windows
        )
        return Trial(self.prediction, tuple(w for w in seen if w.end >= self.prediction.began))

    @property
    def telling(self) -> Telling | None:
        """What the operator told and what happened; None where nobody listened."""
        if self.told is None:
            return None
        return telling(self.scenario, self.told, self.failures, self.change_started)

    @property
    def min_listed(self) -> int:
        """The fewest endpoints that were listed as ready at any moment of the run."""
        return min((count for _, count in self.listed), default=0)

    @property
    def opened_for(self) -> float:
        """Seconds from the start of the change to the end of the window that it opened; 0 without one.

        By when requests were sent. A window that opens later than `NODE_LOSS_SECONDS` is another one.
        """
        ends = (
            w.end - self.change_started
            for w in self.tally.windows
            if w.start - self.change_started <= NODE_LOSS_SECONDS
        )
        return max(0.0, max(ends, default=0.0))

    @property
    def strays(self) -> int:
        """Requests that failed after the window that the change opened."""
        return sum(sent - self.change_started > self.opened_for for sent in self.failures)

    @property
    def change_seconds(self) -> float:
        """How long the change took."""
        return self.change_ended - self.change_started


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, held or not, in one gateway and scenario."""

    held: bool
    text: str


def as_json(runs: Iterable[Run]) -> dict[str, Any]:
    """The document that `--json` writes."""
    return {"runs": [run_json(run) for run in runs]}


def run_json(run: Run) -> dict[str, Any]:
    """One run in that document."""
    start = run.change_started
    return {
        "gateway": run.gateway,
        "scenario": run.scenario,
        "variant": run.variant.value,
        "repeat": run.repeat,
        "requests": run.tally.requests,
        "failed": run.tally.failed,
        "statuses": run.tally.statuses,
        "window_seconds": round(run.tally.window_seconds, 3),
        "change_seconds": round(run.change_seconds, 3),
        "windows": [
            {
                "start": round(window.start - start, 3),
                "end": round(window.end - start, 3),
                "failed": window.failed,
            }
            for window in run.tally.windows
        ],
        "failed_span_seconds": round(run.tally.span_seconds, 3),
        "opened_for_seconds": round(run.opened_for, 3),
        "strays": run.strays,
        "failed_before_change": sum(sent < start for sent in run.failures),
        "min_listed": run.min_listed,
        "listed": [[round(at - start, 3), count] for at, count in run.listed],
        "lateness_p99_ms": round(run.tally.late_p99 * 1000, 2),
        "slowest_success_seconds": round(run.tally.slowest, 3),
        "app": run.app,
        "pre_stop_seconds": run.pre_stop,
        "kept_failed": run.kept_failed,
        **_prediction_json(run),
        **_telling_json(run),
    }


def _prediction_json(run: Run) -> dict[str, Any]:
    trial = run.trial
    if trial is None:
        return {}
    return {
        "announced": trial.announced,
        "predicted_failed": round(trial.lost_predicted, 1),
        "predicted_seconds": round(trial.duration_predicted, 3),
    }


def _telling_json(run: Run) -> dict[str, Any]:
    found = run.telling
    if run.told is None or found is None:
        return {}
    start = run.change_started
    return {
        "told": [
            {
                "action": told.action,
                "written": round(told.written - start, 4),
                "seen": round(told.seen - start, 4),
            }
            for told in run.told
        ],
        "lead_seconds": round(found.lead.written, 4) if found.lead else None,
        "lead_seen_seconds": round(found.lead.seen, 4) if found.lead else None,
    }


def table(runs: Sequence[Run]) -> Table:
    """One row per gateway, scenario and variant; repeats as min-max."""
    result = Table(
        title="Failed requests, with and without the guard (window and change in seconds)",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for name in ("gateway", "scenario", "variant"):
        result.add_column(name, no_wrap=True)
    for name in ("requests", "failed", "window", "change"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("failed with", min_width=12)
    cells = group(runs)
    last = None
    for (gateway, what, variant), cell in cells.items():
        if last not in {None, (gateway, what)}:
            result.add_row()
        first = last != (gateway, what)
        last = (gateway, what)
        result.add_row(
            gateway if first else "",
            what if first else "",
            variant.value,
            _span([run.tally.requests for run in cell], "d"),
            _failed_text(cell),
            _span([run.tally.window_seconds for run in cell], ".2f"),
            _span([run.change_seconds for run in cell], ".1f"),
            _failures(cell),
        )
    return result


def group(runs: Iterable[Run]) -> dict[tuple[str, str, Variant], list[Run]]:
    """Runs by (gateway, what happens to which app, variant), variants beside each other."""
    cells: dict[tuple[str, str, Variant], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.gateway, run.what, run.variant), []).append(run)
    gateways = list(dict.fromkeys(key[0] for key in cells))
    scenarios = list(dict.fromkeys(key[1] for key in cells))
    variants = list(Variant)
    return dict(
        sorted(
            cells.items(),
            key=lambda item: (
                gateways.index(item[0][0]),
                scenarios.index(item[0][1]),
                variants.index(item[0][2]),
            ),
        )
    )


def _span(values: Sequence[float], spec: str) -> str:
    low, high = format(min(values), spec), format(max(values), spec)
    return low if low == high else f"{low}–{high}"


def _failed_text(cell: Sequence[Run]) -> Text:
    failed = [run.tally.failed for run in cell]
    return Text(_span(failed, "d"), style="bold red" if max(failed) else "bold green")


def _failures(cell: Sequence[Run]) -> str:
    total: Counter[str] = Counter()
    for run in cell:
        total.update({name: n for name, n in run.tally.statuses.items() if is_failure(name)})
    return ", ".join(f"{count} × {name}" for name, count in total.most_common())


def checks(runs: Iterable[Run]) -> list[Check]:
    """What the guard promises, checked on every gateway and scenario that has guarded runs."""
    known = tuple(runs)
    cells = group(known)
    results = []
    for (gateway, what, variant), guarded in cells.items():
        if variant is Variant.GUARDED:
            others = {
                other: cells.get((gateway, what, other), [])
                for other in (Variant.PLAIN, Variant.TUNED)
            }
            check = _CHECKS.get(guarded[0].scenario, _check_lossless)(guarded, others)
            results.append(Check(check.held, f"{gateway} {what}: {check.text}"))
    return [*results, *_told_early(known)]


def _told_early(runs: Iterable[Run]) -> Iterator[Check]:
    """Of a change that is decided before it takes effect, users are told before a request fails."""
    heard = (run.telling for run in runs if run.scenario in LOSSLESS)
    for scenario, found in by_scenario(one for one in heard if one).items():
        opened = [one for one in found if one.opened]
        lead = median_lead(found)
        if opened:
            told = f"{sum(one.told for one in opened)} of {len(opened)} losses were told"
            early = "" if lead is None else f", {lead:.3f} s before the first (median)"
            yield Check(lead is not None and lead > 0, f"{scenario}: {told}{early}")


Others = dict[Variant, list[Run]]


def _check_lossless(guarded: list[Run], others: Others) -> Check:
    failed = max(run.tally.failed for run in guarded)
    beside = _beside(others, lambda run: f"{run.tally.failed}")
    return Check(failed == 0, f"{failed or 'no'} request{'s'[: failed != 1]} failed{beside}")


def _check_crash(guarded: list[Run], others: Others) -> Check:
    mine = median(run.tally.window_seconds for run in guarded)
    plain, tuned = (
        median(run.tally.window_seconds for run in others[variant]) if others[variant] else None
        for variant in (Variant.PLAIN, Variant.TUNED)
    )
    luck = _PROBE.interval if len(guarded) < ENOUGH_RUNS else 0.0
    held = (plain is None or mine <= plain / 2) and (tuned is None or mine <= tuned + luck)
    beside = _beside(others, lambda run: f"{run.tally.window_seconds:.2f} s")
    return Check(held, f"a window of {mine:.2f} s{beside}")


def _check_lying(guarded: list[Run], others: Others) -> Check:
    span = max(run.tally.span_seconds for run in guarded)
    beside = _beside(others, lambda run: f"{run.tally.span_seconds:.2f} s")
    text = f"failures over {span:.2f} s of the {DETECTION_SECONDS:.1f} s promised{beside}"
    return Check(span <= DETECTION_SECONDS, text)


def _check_node_loss(guarded: list[Run], others: Others) -> Check:
    """Behind a ClusterIP single requests fail for two minutes more, whatever the lists say.

    Linux remembers a connection attempt without an answer for 120 s, and sends a new one from the same
    client port to the same dead address. That is told, and not held against the list.
    """
    last, strays = max(run.opened_for for run in guarded), max(run.strays for run in guarded)
    beside = _beside(others, lambda run: f"{run.opened_for:.1f} s")
    text = (
        f"the last failed request was sent {last:.2f} s after the loss, of {NODE_LOSS_SECONDS:g} s "
        f"promised{beside}"
    )
    if strays:
        text += f"; {strays} more later, by connections that the kernel remembers"
    through_kube_proxy = guarded[0].gateway in VIA_CLUSTER_IP
    return Check(last <= NODE_LOSS_SECONDS and (not strays or through_kube_proxy), text)


def _check_all_down(guarded: list[Run], others: Others) -> Check:
    listed = min(run.min_listed for run in guarded)
    beside = _beside(others, lambda run: f"{run.min_listed}")
    return Check(listed > 0, f"{listed} endpoints stayed listed at the fewest{beside}")


_CHECKS: dict[str, Callable[[list[Run], Others], Check]] = {
    **dict.fromkeys(LOSSLESS, _check_lossless),
    "crash": _check_crash,
    "lying-ready": _check_lying,
    "node-loss": _check_node_loss,
    "all-down": _check_all_down,
}


def _beside(others: Others, show: Callable[[Run], str]) -> str:
    """The figures of the other variants, in brackets: ` (plain: 6, tuned: 0)`."""
    shown = [
        f"{variant.value}: {', '.join(show(run) for run in runs)}"
        for variant, runs in others.items()
        if runs
    ]
    return f" ({'; '.join(shown)})" if shown else ""
