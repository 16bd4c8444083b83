"""`upstream-guard uninstall`: release every pod, remove what we own; the operator may be dead."""

import asyncio
import sys
from dataclasses import dataclass

import click
from rich.console import Console
from rich.markup import escape

from upstream_guard.controller.uninstall import Options, Outcome, Uninstaller
from upstream_guard.core.names import OPERATOR_NAMESPACE
from upstream_guard.kube.client import ConfigError, KubeClient, KubeError


@dataclass(frozen=True, slots=True)
class _ConsoleReporter:
    console: Console

    def heading(self, text: str) -> None:
        self.console.print(f"[bold]{escape(text)}[/bold]", soft_wrap=True)

    def done(self, text: str) -> None:
        self.console.print(f"  {escape(text)}", soft_wrap=True)

    def problem(self, text: str) -> None:
        self.console.print(f"  [red]{escape(text)}[/red]", soft_wrap=True)


@click.command(
    "uninstall", short_help="Release every pod, and remove the operator and what it owns."
)
@click.option(
    "--kubeconfig", metavar="FILE", type=click.Path(), help="Kubeconfig file (default: as kubectl)."
)
@click.option(
    "--context", metavar="NAME", help="Context of the kubeconfig (default: the current one)."
)
@click.option(
    "--namespace",
    default=OPERATOR_NAMESPACE,
    metavar="NAME",
    show_default=True,
    help="Where the operator is, or was.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and change nothing.")
@click.option(
    "--keep-crds",
    is_flag=True,
    help="Keep the CRDs, and with them guards and profiles, for a later installation.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Seconds for the whole.",
)
def command(
    kubeconfig: str | None,
    context: str | None,
    namespace: str,
    yes: bool,
    dry_run: bool,
    keep_crds: bool,
    timeout: float,
) -> None:
    """Open every pod's gate and remove the operator, its resources and its rights.

    Works with the operator dead, and may be repeated. Pods keep the preStop hook and the grace
    period that they were given until they are replaced.

    \b
    Examples:
      upstream-guard uninstall --dry-run
      upstream-guard uninstall --context staging
      upstream-guard uninstall --yes --keep-crds

    Exit codes: 0 all is removed, 1 something could not be, 2 wrong usage, no usable kubeconfig, or no
    consent.
    """  # noqa: D301 - click reads \b
    console = Console(highlight=False)
    options = Options(namespace, keep_crds=keep_crds, dry_run=dry_run, timeout=timeout)
    if not (yes or dry_run):
        _ask(context, keep_crds)
    try:
        outcome = asyncio.run(_run(kubeconfig, context, options, console))
    except ConfigError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except KubeError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted. Run it again: what is done is not done twice.", err=True)
        sys.exit(130)
    _conclude(outcome, console, dry_run=dry_run)


def _ask(context: str | None, keep_crds: bool) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to confirm: pass --yes, or --dry-run to look")
    where = f"the context {context!r}" if context else "the current context"
    what = "the operator" if keep_crds else "the operator and all guards and profiles"
    if not click.confirm(f"Remove {what} from the cluster of {where}?"):
        click.echo("Nothing was changed.", err=True)
        sys.exit(2)


async def _run(
    kubeconfig: str | None, context: str | None, options: Options, console: Console
) -> Outcome:
    client = await KubeClient.connect(kubeconfig, context)
    try:
        with console.status("Uninstalling"):
            return await Uninstaller(client, options, _ConsoleReporter(console)).run()
    finally:
        await client.close()


def _conclude(outcome: Outcome, console: Console, *, dry_run: bool) -> None:
    verb = "would be " if dry_run else ""
    console.print(
        f"{outcome.released} gates {verb}opened, {outcome.removed} objects {verb}deleted."
    )
    if outcome.problems:
        console.print(
            f"[red]{len(outcome.problems)} problems, see above. Run it again, with the rights "
            "of a cluster administrator if one was refused.[/red]"
        )
        sys.exit(1)
