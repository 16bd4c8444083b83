"""What the matrix says while it works and when it is done."""

from rich.console import Console
from rich.markup import escape

from upstream_guard.lab.demo.matrix.cases import Case
from upstream_guard.lab.demo.matrix.results import Result, ResultFile
from upstream_guard.lab.demo.show import Bar


class MatrixProgress(Bar):
    """A bar on a terminal; in a pipe only one line per case that has ended.

    Args:
        console: where to; standard error, so that the table can be piped.
        file: gets each result as it comes.
        total: cases in all, those done earlier included.
    """

    def __init__(self, console: Console, file: ResultFile, total: int) -> None:
        super().__init__(console, "matrix", total, completed=len(file.results))
        self._file = file

    def doing(self, case: Case, text: str) -> None:
        """Show what is being done for a case; several are under way, the last to speak is shown."""
        self._bar.update(self._task, doing=escape(f"{case}: {text}"))

    def done(self, result: Result) -> None:
        """Keep and show one result."""
        self._file.add(result)
        self._bar.update(self._task, completed=len(self._file.results))
        trial = result.trial
        agreed = trial.announced is trial.opened
        mark = "[green]✓[/green]" if agreed else "[red]✗[/red]"
        self._console.print(
            f"{mark} {escape(str(result.case))}: {trial.lost} failed in {trial.duration:.2f} s, "
            f"predicted {trial.lost_predicted:.0f} in {trial.duration_predicted:.2f} s "
            f"({result.course.prediction.probability:.2f}){_after(result)}",
            soft_wrap=True,
        )

    def failed(self, case: Case, why: str) -> None:
        """Say that a case could not be done."""
        self._console.print(
            f"[yellow]![/yellow] {escape(str(case))}: {escape(why)}", soft_wrap=True
        )


def _after(result: Result) -> str:
    if result.remedied is None:
        return ""
    if result.remedied.course is None:
        return "; no remedy"
    return f"; {result.remedied.course.failed} failed with its remedies"
