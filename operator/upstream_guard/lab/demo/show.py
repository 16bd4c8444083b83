"""What the demo says while it works and when it is done."""

import sys
from collections.abc import Sequence
from textwrap import indent
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from upstream_guard.lab.demo.events import UserEvent
from upstream_guard.lab.demo.report import Check, Run
from upstream_guard.lab.demo.runner import Cell


class Bar:
    """A bar on a terminal; in a pipe nothing but the lines that are printed beside it.

    Args:
        console: where to; standard error, so that the table can be piped.
        title: what is under way.
        total: pieces of work in all.
        completed: those that were done earlier.
    """

    def __init__(self, console: Console, title: str, total: int, completed: int = 0) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[doing]}", markup=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=completed, doing="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()


class ProgressBar(Bar):
    """A bar on a terminal; in a pipe only one line per run that has ended.

    Args:
        console: where to; standard error, so that the table can be piped.
        total: runs to do.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.runs: list[Run] = []
        """All that ended, also those before Ctrl-C."""
        super().__init__(console, "demo", total)

    def doing(self, cell: Cell | None, text: str) -> None:
        """Show what is being done, and for which run."""
        self._bar.update(self._task, description=str(cell) if cell else "demo", doing=escape(text))

    def done(self, run: Run) -> None:
        """Keep and show one run's result."""
        self.runs.append(run)
        self._bar.advance(self._task)
        failed = run.tally.failed
        mark = f"[red]{failed} failed[/red]" if failed else "[green]0 failed[/green]"
        self._console.print(
            f"{run.gateway} · {run.what} · {run.variant} · {run.repeat}: "
            f"{mark} of {run.tally.requests}, window {run.tally.window_seconds:.2f} s, "
            f"change {run.change_seconds:.1f} s",
            soft_wrap=True,
        )


def show_verdict(console: Console, checks: Sequence[Check]) -> None:
    """One line per promise, and one for all."""
    for check in checks:
        mark = "[green]✓[/green]" if check.held else "[red]✗[/red]"
        console.print(f"{mark} {escape(check.text)}", soft_wrap=True)
    if checks:
        broken = sum(not check.held for check in checks)
        verdict = (
            f"[bold red]{broken} of {len(checks)} promises broken.[/bold red]"
            if broken
            else "[bold green]The guard kept every promise.[/bold green]"
        )
        console.print(verdict)


def show_events(console: Console, namespace: str, events: Sequence[UserEvent]) -> None:
    """What `kubectl get events` has to tell of the guard's work, repeats folded."""
    if not events:
        return
    console.print(
        f"[bold]What `kubectl --namespace {namespace} get events` told of the guard[/bold]"
    )
    reasons = max(len(event.reason) for event in events)
    for event in events:
        style = "yellow" if event.kind == "Warning" else "green"
        times = f" [dim](the last of {event.count})[/dim]" if event.count > 1 else ""
        console.print(
            f"  [{style}]{event.kind:7}[/{style}] {event.reason:{reasons}} "
            f"{escape(event.subject)}: {escape(event.message)}{times}",
            soft_wrap=True,
        )
    console.print()


def show_status(console: Console, texts: Sequence[str]) -> None:
    """What `kubectl get ug` said at the end of a guarded run."""
    for text in texts:
        console.print("[bold]`kubectl get ug`, at the end of a guarded run[/bold]")
        console.print(escape(indent(text.rstrip(), "  ")), soft_wrap=True)
    if texts:
        console.print()


def err_console() -> Console:
    """Standard error, where progress goes."""
    return Console(file=sys.stderr, highlight=False)
