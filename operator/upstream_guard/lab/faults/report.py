"""From trials to what people and programs read. Pure but for reading and writing a file."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.table import Table

from upstream_guard.lab.demo.runner import REQUEST_SECONDS
from upstream_guard.lab.demo.tally import percentile
from upstream_guard.lab.faults.model import NO_CAUSE, Fault, Trial
from upstream_guard.lab.faults.table import BY_NAME, FAULTS
from upstream_guard.lab.model import LabError
from upstream_guard.probes.route import TIMEOUT

Json = dict[str, Any]

FORMAT: Final = 3
"""Of the file; a file of another format is not read."""
NONE: Final = "–"
GOAL_RIGHT: Final = 0.95
GOAL_LOST: Final = 0.3
"""How far requests lost may be from the truth where they are estimated."""
BUSY_SECONDS: Final = 0.2
"""A load generator that was later than this was not alone on the machine: so was the operator."""


def is_right(trial: Trial) -> bool:
    """Whether the top cause is one of those expected."""
    return trial.cause in trial.expected if trial.expected else not trial.windows


def counts(trial: Trial) -> bool:
    """Whether it says anything: it was done, and users met the fault where they should have."""
    if trial.problem:
        return False
    return bool(trial.failed) or not trial.expected


@dataclass(frozen=True, slots=True)
class Loss:
    """How well requests lost were told, of windows that were counted in one way.

    Attributes:
        trials: In which a window opened and users lost requests.
        right: Of them, those told within 30 %.
        same: Of them, those told to the request.
        told: Requests lost, as the operator told.
        counted: The same as the load generator counted.
    """

    trials: int
    right: int
    same: int
    told: int
    counted: int


@dataclass(frozen=True, slots=True)
class Score:
    """What trials add up to.

    Attributes:
        trials: That count.
        right: Of them.
        unmet: In which no user's request failed though a window was expected.
        problems: That could not be done.
        silent: In which no window opened though one should have.
        false_alarms: In which one opened and should not have.
        delays: Seconds from the first failed request to the event's own time, sorted.
        by_eyes: The same by who saw the window.
        changing: The same of faults during a change.
        losses: By how requests lost were counted: `exact`, `estimated`.
        busy: In which the load generator was late.
    """

    trials: int
    right: int
    unmet: int
    problems: int
    silent: int
    false_alarms: int
    delays: tuple[float, ...]
    by_eyes: Mapping[str, tuple[float, ...]]
    changing: tuple[float, ...]
    losses: Mapping[str, Loss]
    busy: int

    @property
    def share(self) -> float:
        """Of the trials that count, 0 to 1."""
        return self.right / self.trials if self.trials else 0.0


def score(trials: Iterable[Trial]) -> Score:
    """Add trials up."""
    every = list(trials)
    counted = [trial for trial in every if counts(trial)]
    expecting = [trial for trial in counted if trial.expected]
    told = [trial for trial in expecting if trial.windows]
    timed = [trial for trial in told if trial.delay is not None]
    return Score(
        trials=len(counted),
        right=sum(map(is_right, counted)),
        unmet=sum(not t.problem and not counts(t) for t in every),
        problems=sum(bool(t.problem) for t in every),
        silent=sum(not trial.windows for trial in expecting),
        false_alarms=sum(bool(t.windows) for t in counted if not t.expected),
        delays=_delays(timed),
        by_eyes={
            eyes: _delays(t for t in timed if t.eyes == eyes)
            for eyes in sorted({t.eyes for t in timed})
        },
        changing=_delays(t for t in timed if BY_NAME[t.fault].changing),
        losses={
            kind: _loss([t for t in told if t.lost_kind == kind])
            for kind in sorted({t.lost_kind for t in told})
        },
        busy=sum(trial.late > BUSY_SECONDS for trial in counted),
    )


def _delays(trials: Iterable[Trial]) -> tuple[float, ...]:
    return tuple(sorted(t.delay for t in trials if t.delay is not None))


def _loss(trials: Sequence[Trial]) -> Loss:
    return Loss(
        trials=len(trials),
        right=sum(abs(t.lost - t.truth) <= GOAL_LOST * t.truth for t in trials),
        same=sum(t.lost == t.truth for t in trials),
        told=sum(t.lost for t in trials),
        counted=sum(t.truth for t in trials),
    )


def table(trials: Sequence[Trial]) -> Table:
    """The confusion table for a terminal."""
    shown = Table(title="Top cause by fault", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("fault", "right", "told"):
        shown.add_column(name, no_wrap=name == "fault")
    for fault in _tried(trials):
        shown.add_row(fault.name, *_row(fault, trials))
    return shown


def _tried(trials: Iterable[Trial]) -> list[Fault]:
    names = {trial.fault for trial in trials}
    return [fault for fault in FAULTS if fault.name in names]


def _row(fault: Fault, trials: Iterable[Trial]) -> tuple[str, str]:
    mine = [t for t in trials if t.fault == fault.name]
    counted = [t for t in mine if counts(t)]
    right = sum(map(is_right, counted))
    told = Counter(t.cause for t in counted)
    words = ", ".join(f"{cause} {number}" for cause, number in told.most_common())
    return f"{right} of {len(counted)}", words or NONE


def markdown(trials: Sequence[Trial]) -> str:
    """The page for the documentation, of at least one trial."""
    rates = " or ".join(f"{rate:g}" for rate in sorted({t.rate for t in trials if t.rate}))
    gateways = sorted({t.gateway for t in trials})
    total = score(trials)
    parts = [
        "# Faults and what was told of them",
        (
            f"Generated by `upstream-guard lab faults`; not edited. {len(trials)} trials behind "
            f"{', '.join(gateways)}, at {rates} requests a second, on a real cluster with the operator's "
            "default settings: a fault is switched on for some seconds, and the guard's "
            "`status.windows` is compared with it and with the load generator's count. Trials in which no "
            "user's request failed say nothing and do not count; neither do those that could not be done."
        ),
        "## Score",
        _lines(("", *gateways, "all"), _score_rows(trials, gateways)),
        "## From the first failed request to the event",
        (
            "From the end of the first failed request of a user, or from the time at which one had waited for "
            f"{TIMEOUT:g} s, to the `WindowOpened` event's own time, by who had seen the window when it was first "
            "shown. Below 0 the operator knew before a user did."
        ),
        _lines(("eyes", "windows", "p50", "p99", "worst"), _eye_rows(total)),
        "## Requests lost",
        (
            "As the operator told, beside what the load generator counted. Lost is what failed; where the "
            "operator estimates, by probes that wait for "
            f"{TIMEOUT:g} s, also what was answered only later than that (its clients wait for "
            f"{REQUEST_SECONDS:g} s, and no gateway counts who gives up)."
        ),
        _lines(
            ("counted", "windows", "told", "lost by users", "to the request", "within 30 %"),
            _loss_rows(total),
        ),
        "## Top cause",
        (
            "Right: of the trials that count. Told: the likeliest cause of the window that lost most, and how "
            "often; `none` where no window opened."
        ),
        _lines(("fault", "what is done", "expected", "right", "told"), _fault_rows(trials)),
        "## Confusion",
        _confusion(trials),
        "## By gateway",
        _lines(("fault", *gateways), _by_gateway(trials, gateways)),
        "## What was wrong",
        _wrong(trials),
    ]
    if total.problems:
        parts += ["## Not done", _lines(("fault", "gateway", "why"), _problems(trials))]
    return "\n\n".join(parts) + "\n"


def _score_rows(trials: Sequence[Trial], gateways: Sequence[str]) -> list[list[str]]:
    columns = [score(t for t in trials if t.gateway == name) for name in gateways]
    columns.append(score(trials))
    return [
        ["trials that count", *(str(c.trials) for c in columns)],
        ["top cause right", *(_share(c.right, c.trials) for c in columns)],
        ["no window, though one should be", *(str(c.silent) for c in columns)],
        ["a window, though none should be", *(str(c.false_alarms) for c in columns)],
        ["no user's request failed", *(str(c.unmet) for c in columns)],
        ["could not be done", *(str(c.problems) for c in columns)],
        ["first failed request to event, p50", *(_seconds(c.delays, 0.5) for c in columns)],
        ["the same, p99", *(_seconds(c.delays, 0.99) for c in columns)],
        ["load generator late (busy machine)", *(str(c.busy) for c in columns)],
    ]


def _eye_rows(total: Score) -> list[list[str]]:
    found = {**total.by_eyes, "all": total.delays, "all, during a change": total.changing}
    return [
        [eyes, str(len(d)), _seconds(d, 0.5), _seconds(d, 0.99), _seconds(d, 1.0)]
        for eyes, d in found.items()
    ]


def _loss_rows(total: Score) -> list[list[str]]:
    return [
        [
            kind,
            str(loss.trials),
            str(loss.told),
            str(loss.counted),
            _share(loss.same, loss.trials),
            _share(loss.right, loss.trials),
        ]
        for kind, loss in total.losses.items()
    ]


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.0f} %)" if whole else NONE


def _seconds(delays: Sequence[float], share: float) -> str:
    return f"{percentile(delays, share):.2f} s" if delays else NONE


def _fault_rows(trials: Sequence[Trial]) -> list[list[str]]:
    return [
        [
            fault.name,
            fault.title,
            ", ".join(sorted(cause.value for cause in fault.expected)) or NO_CAUSE,
            *_row(fault, trials),
        ]
        for fault in _tried(trials)
    ]


def _confusion(trials: Sequence[Trial]) -> str:
    counted = [t for t in trials if counts(t)]
    told = [cause for cause, _ in Counter(t.cause for t in counted).most_common()]
    rows = []
    for fault in _tried(counted):
        mine = Counter(t.cause for t in counted if t.fault == fault.name)
        rows.append([fault.name, *(str(mine[cause]) if mine[cause] else "" for cause in told)])
    return _lines(("fault \\ told", *told), rows)


def _by_gateway(trials: Sequence[Trial], gateways: Sequence[str]) -> list[list[str]]:
    rows = []
    for fault in _tried(trials):
        row = [fault.name]
        for gateway in gateways:
            mine = [t for t in trials if t.gateway == gateway and t.fault == fault.name]
            row.append("; ".join(_cell(t) for t in mine) or NONE)
        rows.append(row)
    return rows


def _cell(trial: Trial) -> str:
    if trial.problem:
        return "not done"
    if not counts(trial):
        return "not met"
    mark = "✓" if is_right(trial) else f"✗ {trial.cause}"
    delay = f", {trial.delay:.1f} s" if trial.delay is not None else ""
    kind = f" {trial.lost_kind}" if trial.lost_kind else ""
    return f"{mark}{delay}, lost {trial.lost} of {trial.truth}{kind}"


def _wrong(trials: Sequence[Trial]) -> str:
    rows = []
    for trial in trials:
        if counts(trial) and not is_right(trial):
            statuses = ", ".join(f"{text} × {count}" for text, count in trial.statuses.items())
            window = trial.worst
            ranked = window.ranked if window else ()
            told = ", ".join(f"{cause} {percent} %" for cause, percent in ranked) or NO_CAUSE
            words = window.evidence if window else NONE
            rows.append((trial.fault, trial.gateway, statuses or NONE, told, words))
    if not rows:
        return "Nothing."
    return _lines(("fault", "gateway", "users saw", "told", "evidence told"), rows)


def _problems(trials: Sequence[Trial]) -> list[tuple[str, str, str]]:
    return [(t.fault, t.gateway, t.problem) for t in trials if t.problem]


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", "/").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


class TrialFile:
    """The trials of one run on disk, whole after each one, so that a run can be taken up again.

    Args:
        path: Where; None keeps them in memory only.

    Raises:
        LabError: the file holds something else.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.trials: list[Trial] = read(path) if path is not None and path.exists() else []

    def has(self, gateway: str, fault: str, repeat: int) -> bool:
        """Whether the trial was done; one that could not be is tried again."""
        return any(
            (t.gateway, t.fault, t.repeat) == (gateway, fault, repeat) and not t.problem
            for t in self.trials
        )

    def add(self, trial: Trial) -> None:
        """Keep a trial; it replaces an earlier one of the same place."""
        key = (trial.gateway, trial.fault, trial.repeat)
        self.trials = [t for t in self.trials if (t.gateway, t.fault, t.repeat) != key]
        self.trials.append(trial)
        if self._path is not None:
            partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            partial.write_text(encode(self.trials), encoding="utf-8")
            partial.replace(self._path)


def encode(trials: Sequence[Trial]) -> str:
    """The file's text, a line for each trial. Times are Unix seconds."""
    lines = (json.dumps(msgspec.to_builtins(trial), ensure_ascii=False) for trial in trials)
    body = ",\n".join(lines)
    return f'{{"format": {FORMAT}, "trials": [\n{body}\n]}}\n'


def read(path: Path) -> list[Trial]:
    """The trials in a file that `encode` wrote.

    Raises:
        LabError: it is none, of another version, or of faults that are not known.
    """
    try:
        document: Json = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise LabError(f"{path} is of another format; give another --json file")
        found = [_known(t, path) for t in msgspec.convert(document["trials"], list[Trial])]
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{path} holds no trials of the fault matrix: {error}") from error
    return found


def _known(trial: Trial, path: Path) -> Trial:
    """With what is expected by the table as it is now: that is the truth, and may have been mended."""
    fault = BY_NAME.get(trial.fault)
    if fault is None:
        raise LabError(f"{path} holds a fault that is not known: {trial.fault}")
    return replace(trial, expected=tuple(sorted(cause.value for cause in fault.expected)))
