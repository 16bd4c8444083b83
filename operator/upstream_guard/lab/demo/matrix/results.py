"""What became of the cases, as values and as a file that grows while the matrix runs."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from upstream_guard.core.predict.score import Observation, Prediction, Trial, score
from upstream_guard.core.predict.window import Window
from upstream_guard.lab.demo import tally
from upstream_guard.lab.demo.matrix.cases import Case
from upstream_guard.lab.demo.tally import Record
from upstream_guard.lab.model import LabError

Json = dict[str, Any]

FORMAT: Final = 1
"""Of the file; a file of another format is not read."""


@dataclass(frozen=True, slots=True)
class Course:
    """One change as it was predicted and as it went.

    Attributes:
        prediction: Made before the change began.
        observed: The windows that opened, by the send time of the failed requests.
        requests: In all.
        statuses: Requests by outcome.
        failed_before: Requests that had failed before the change began: none of its doing.
        change_seconds: How long the change took.
        starts: Seconds from each pod's start to its first answer, as the predictor was told.
        other_changes: Of other Services a second, as the predictor was told.
        slowest: Seconds of the longest answer that was not a failure: a gateway may wait a gap out.
    """

    prediction: Prediction
    observed: tuple[Observation, ...]
    requests: int
    statuses: Mapping[str, int]
    failed_before: int
    change_seconds: float
    starts: tuple[float, ...]
    slowest: float = 0.0
    other_changes: float = 0.0

    @property
    def failed(self) -> int:
        """Requests lost to the change."""
        return sum(window.lost for window in self.observed)


@dataclass(frozen=True, slots=True)
class Remedied:
    """What the remedies did.

    Attributes:
        risks: Whose remedies were applied.
        without: Announced windows without a remedy: risk → why there is none.
        course: Of the same change with the remedies; None where there was none to apply.
    """

    risks: tuple[str, ...]
    without: Mapping[str, str]
    course: Course | None


@dataclass(frozen=True, slots=True)
class Result:
    """One case.

    Attributes:
        naive: What the naive rule said of its manifests.
        remedied: None where the remedies were not asked for, or no window was announced.
    """

    case: Case
    naive: bool
    course: Course
    remedied: Remedied | None = None

    @property
    def trial(self) -> Trial:
        """As the score wants it."""
        return Trial(self.course.prediction, self.course.observed, self.naive)


def observe(
    records: Sequence[Record], prediction: Prediction
) -> tuple[tuple[Observation, ...], int]:
    """The windows that a change opened, and how many requests had failed before it.

    A request that was sent before the change and failed after its beginning was in flight, and
    counts as lost to the change.
    """
    lost = [r for r in records if r.failed and r.done >= prediction.began]
    before = sum(r.failed and r.done < prediction.began for r in records)
    windows = tuple(
        Observation(prediction.service, prediction.gateway, w.start, w.seconds, w.failed)
        for w in tally.find_windows(lost)
    )
    return windows, before


def bounded(windows: Iterable[Window], seconds: float, rate: float) -> tuple[Window, ...]:
    """Windows that stay open until somebody acts, cut where watching ended."""
    return tuple(
        window
        if math.isfinite(window.duration.high) and math.isfinite(window.lost.high)
        else replace(
            window,
            duration=_capped(window.duration, seconds),
            lost=_capped(window.lost, seconds * rate * window.share),
        )
        for window in windows
    )


def _capped(estimate: Any, most: float) -> Any:
    low, value, high = (min(v, most) for v in (estimate.low, estimate.value, estimate.high))
    return replace(estimate, low=low, value=value, high=high)


class ResultFile:
    """The results of one matrix on disk, whole after each case, so that a run can be taken up again.

    Args:
        path: Where; None keeps them in memory only.
        wanted: The cases of this matrix. Results of others in the files are refused.
        also: Files with results of the same matrix from elsewhere.

    Raises:
        LabError: the file holds something else than results of these cases.
    """

    def __init__(
        self, path: Path | None, wanted: Sequence[Case], also: Sequence[Path] = ()
    ) -> None:
        self._path = path
        self._known = {case.number: case for case in wanted}
        self._results: dict[int, Result] = {}
        own = [path] if path is not None and path.exists() else []
        for one in (*also, *own):
            self._take_in(one)

    def _take_in(self, path: Path) -> None:
        for result in read(path):
            if self._known.get(result.case.number) != result.case:
                raise LabError(
                    f"{path} holds case {result.case.number} of seed {result.case.seed}, which is "
                    "not one of this matrix; give it the same --seed, --cases and --gateway, or "
                    "another --json file"
                )
            self._results[result.case.number] = result

    @property
    def results(self) -> list[Result]:
        """All so far, by number."""
        return [self._results[number] for number in sorted(self._results)]

    def has(self, case: Case) -> bool:
        """Whether the case was done."""
        return case.number in self._results

    def add(self, result: Result) -> None:
        """Keep a result; it replaces an earlier one of the same case."""
        self._results[result.case.number] = result
        if self._path is not None:
            partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            partial.write_text(encode(self.results), encoding="utf-8")
            partial.replace(self._path)


def encode(results: Sequence[Result]) -> str:
    """The file's text. Times are Unix seconds, durations seconds."""
    card = asdict(score(result.trial for result in results))
    document = {
        "format": FORMAT,
        "score": card,
        "results": [msgspec.to_builtins(result) for result in results],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def read(path: Path) -> list[Result]:
    """The results in a file that `encode` wrote.

    Raises:
        LabError: it is none, or of another version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise LabError(f"{path} has format {document['format']}, and {FORMAT} is expected")
        return msgspec.convert(document["results"], list[Result])
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise LabError(f"{path} holds no results of a matrix: {error}") from error
