"""What `check` found, as one frozen value that every output format renders."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from upstream_guard.cli.check.objects import Location, ObjectKey, Trouble
from upstream_guard.core.predict.review import Problem
from upstream_guard.core.predict.window import Severity

RANKS: Final[Mapping[str, int]] = {
    Severity.ERROR: 0,
    Severity.WARNING: 1,
    Severity.INFO: 2,
}
"""Severities, worst first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One finding, with its place and what was decided about it.

    Attributes:
        problem: The finding and its windows.
        key: The object that it is about.
        location: Where in the user's sources; None where it came from nowhere that has places.
        suppressed: The reason that the object's annotation gives; empty where it has none.
        known: It is in the baseline.
    """

    problem: Problem
    key: ObjectKey
    location: Location | None
    suppressed: str = ""
    known: bool = False

    @property
    def severity(self) -> Severity:
        """How bad."""
        return self.problem.finding.severity

    @property
    def counts(self) -> bool:
        """Whether it is neither suppressed nor in the baseline."""
        return not self.suppressed and not self.known

    @property
    def identity(self) -> str:
        """What stays the same when the file is edited elsewhere, for people."""
        finding = self.problem.finding
        return f"{finding.risk} {self.key} {finding.path}".rstrip()

    @property
    def fingerprint(self) -> str:
        """A short hash of `identity`: 16 hexadecimal digits."""
        return hashlib.sha256(self.identity.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one run.

    Attributes:
        entries: By object in the order of reading, worst first within each.
        troubles: What could not be read, or is worth a word.
        notes: What a reader should know about the run.
        documents: Read ones.
        services: Checked ones.
        rate: Requests a second that lost requests rest on.
        rate_given: Whether the user said so.
        stale: Baseline entries that no longer occur.
        version: Of this program.
        fail_on: The threshold; None where nothing fails.
    """

    entries: tuple[Entry, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    notes: tuple[str, ...] = ()
    documents: int = 0
    services: int = 0
    rate: float = 10.0
    rate_given: bool = False
    stale: int = 0
    version: str = ""
    fail_on: Severity | None = Severity.WARNING

    def count(self, severity: Severity) -> int:
        """Findings of that severity that count."""
        return sum(e.counts and e.severity is severity for e in self.entries)

    @property
    def failing(self) -> bool:
        """Whether a finding at or above the threshold counts."""
        return any(self.fails(entry) for entry in self.entries)

    def fails(self, entry: Entry) -> bool:
        """Whether this finding counts, and is at or above the threshold."""
        if self.fail_on is None or not entry.counts:
            return False
        return RANKS[entry.severity] <= RANKS[self.fail_on]

    @property
    def unread(self) -> bool:
        """Whether something could not be read, and nothing was checked: "nothing found" would soothe."""
        return self.exit_code == 2 and not self.services and not self.entries

    @property
    def exit_code(self) -> int:
        """2 where something could not be read, else 1 where it fails, else 0."""
        if any(t.fatal for t in self.troubles):
            return 2
        return 1 if self.failing else 0


@dataclass(frozen=True, slots=True)
class Look:
    """How a report is shown to people.

    Attributes:
        color: With ANSI colours.
        quiet: One line for each finding that counts, and nothing else.
    """

    color: bool = False
    quiet: bool = False
