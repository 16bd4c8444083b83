"""What a gateway is to a measurement."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Answer
from upstream_guard.lab.conformance.model import Case, Setup
from upstream_guard.lab.model import LabError, Reporter
from upstream_guard.lab.packages import Need

VERSION_SECONDS = 20.0


class Engine(Protocol):
    """One product: how it is configured, started, and what it says of a failure."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def answers(self) -> Mapping[Cause, Answer]:
        """What its built-in profile says."""

    @property
    def config_file(self) -> str:
        """Name of the configuration file."""

    def needs(self) -> tuple[Need, ...]:
        """Operating-system packages it stands on."""

    def program(self, say: Reporter) -> Path:
        """The program, built if need be."""

    def version(self, program: Path) -> str:
        """In its own words, one line."""

    def refuses(self, case: Case) -> str:
        """Why it cannot be brought into this situation; "" if it can."""

    def config(self, setup: Setup) -> str:
        """The whole configuration."""

    def command(self, program: Path, setup: Setup) -> list[str]:
        """The command line that runs it in the foreground."""

    def markers(self, lines: Sequence[str]) -> list[str]:
        """What these lines of its logs say of failures, in its own words."""


def first_line(command: Sequence[str | Path]) -> str:
    """The first line that a program prints, of whichever stream.

    Raises:
        LabError: it cannot be run.
    """
    try:
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            check=False,
            timeout=VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{command[0]} cannot be run: {error}") from error
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""
