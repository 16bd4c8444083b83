"""`upstream-guard lab conformance`: what gateways answer when an upstream fails, measured here."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from upstream_guard.lab import images
from upstream_guard.lab.conformance import report, runner
from upstream_guard.lab.conformance.cases import BY_NAME, CASES
from upstream_guard.lab.conformance.engines import ENGINES
from upstream_guard.lab.conformance.model import Case, Cell, Results
from upstream_guard.lab.demo.show import Bar, err_console
from upstream_guard.lab.model import LabError
from upstream_guard.lab.report import RichReporter

DEFAULT_REPEATS = 5
PIPE_WIDTH = 160


class CellBar(Bar):
    """Counts cells that are done."""

    def done(self, cell: Cell) -> None:
        """One more."""
        text = cell.unsupported or report.outcome(cell)
        self._bar.update(
            self._task, advance=1, description=cell.gateway, doing=escape(f"{cell.case}: {text}")
        )


def _programs(
    _context: click.Context, _option: click.Parameter, given: Sequence[str]
) -> Mapping[str, Path]:
    found = {}
    for text in given:
        name, _, path = text.partition("=")
        if name not in ENGINES or not Path(path).is_file():
            raise click.BadParameter(
                f"{text!r} is not GATEWAY=PROGRAM, with one of {', '.join(ENGINES)} and a file"
            )
        found[name] = Path(path)
    return found


@click.command()
@click.option(
    "--gateway", "gateways", multiple=True, type=click.Choice(list(ENGINES)),
    default=tuple(ENGINES), show_default="all", help="Repeatable.",
)  # fmt: skip
@click.option(
    "--failure", "failures", multiple=True, type=click.Choice(list(BY_NAME)), metavar="NAME",
    help=f"Only this one: {', '.join(BY_NAME)}. Repeatable.",
)  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(1, 100), default=DEFAULT_REPEATS, show_default=True,
    help="Requests of each failure.",
)  # fmt: skip
@click.option(
    "--program", "programs", multiple=True, metavar="GATEWAY=PROGRAM", callback=_programs,
    help="Measure this program instead of the one the lab installs. Repeatable.",
)  # fmt: skip
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE", help="Write every observation.",
)  # fmt: skip
def command(
    *,
    gateways: tuple[str, ...],
    failures: tuple[str, ...],
    repeats: int,
    programs: Mapping[str, Path],
    json_path: Path | None,
) -> None:
    """Measure what gateways answer to each failure of an upstream; needs no cluster.

    Each gateway runs on the loopback address with its product's defaults, in front of upstreams that
    refuse, reset, cut short, send nonsense, hang, fail in TLS or DNS. What clients get, what the
    gateway logs and what it tries again is recorded, and compared with the built-in profiles.
    About 80 seconds for each gateway, because default time-outs are waited for.

    Exits with 0 if the profiles say what was measured, 1 if one does not or a gateway could not be
    measured, 2 on bad input.

    \b
    Examples:
      upstream-guard lab conformance
      upstream-guard lab conformance --gateway nginx --program nginx=/opt/nginx/sbin/nginx
      upstream-guard lab conformance --json docs/conformance.json && make docs
    """  # noqa: D301 - click reads \b
    console = err_console()
    try:
        cases = [case for case in CASES if not failures or case.name in failures]
        results = _measure(list(dict.fromkeys(gateways)), cases, repeats, programs, console)
    except LabError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted; every process that was started has ended.", err=True)
        sys.exit(130)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(report.encode(results), encoding="utf-8")
    # A pipe has no width, and a table that was cut is of no use in a file.
    shown = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    for name, version in results.versions.items():
        shown.print(f"{name}: {escape(version)}", soft_wrap=True)
    shown.print(report.table(results))
    differing = report.disagreements(results, {name: e.answers for name, e in ENGINES.items()})
    for text in differing:
        console.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
    if not differing:
        console.print("[green]✓[/green] the built-in profiles say what was measured")
    sys.exit(1 if differing else 0)


def _measure(
    names: Sequence[str],
    cases: Sequence[Case],
    repeats: int,
    programs: Mapping[str, Path],
    console: Console,
) -> Results:
    say = RichReporter(console)
    sample = images.upstream_program(say)
    found = {name: programs.get(name) or runner.prepare(ENGINES[name], say) for name in names}
    versions = {name: ENGINES[name].version(found[name]) for name in names}
    cells: list[Cell] = []
    with CellBar(console, "conformance", len(names) * len(cases)) as bar:
        for name in names:
            say.note(f"{name}: {versions[name]}")
            with tempfile.TemporaryDirectory(prefix="upstream-guard-conformance-") as folder:
                # Programs that give root up must be able to enter it.
                Path(folder).chmod(0o755)
                cells += runner.measure(
                    ENGINES[name],
                    found[name],
                    sample,
                    Path(folder),
                    cases,
                    repeats=repeats,
                    done=bar.done,
                )
    return Results(versions, repeats, tuple(cells))
