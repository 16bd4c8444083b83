"""Progress for people: a spinner on a terminal, plain lines in a pipe."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.status import Status


@dataclass(slots=True)
class RichStep:
    """A step shown on a rich console."""

    text: str
    _status: Status | None = None

    def update(self, text: str) -> None:
        """Show `text` behind the step's own words, on a terminal only."""
        if self._status is not None:
            self._status.update(f"{escape(self.text)} [dim]{escape(text)}[/dim]")


@dataclass(frozen=True, slots=True)
class RichReporter:
    """Reports to a rich console; standard error unless given, so that output can be piped."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    @contextmanager
    def step(self, text: str) -> Iterator[RichStep]:
        """Announce a step; it ends, with its duration, when the context does."""
        started = time.monotonic()
        if self.console.is_terminal:
            with self.console.status(escape(text)) as status:
                yield RichStep(text, status)
        else:
            self.console.print(f"[dim]…[/dim] {escape(text)}", soft_wrap=True)
            yield RichStep(text)
        took = time.monotonic() - started
        self.console.print(
            f"[green]✓[/green] {escape(text)} [dim]{took:.1f} s[/dim]", soft_wrap=True
        )

    def note(self, text: str) -> None:
        """Print one line."""
        self.console.print(escape(text), soft_wrap=True)


@dataclass(slots=True)
class QuietReporter:
    """Keeps what was said instead of printing it; for tests and `--quiet`."""

    said: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, text: str) -> Iterator[RichStep]:
        """Remember the step's words."""
        self.said.append(text)
        yield RichStep(text)

    def note(self, text: str) -> None:
        """Remember the words."""
        self.said.append(text)
