"""`upstream-guard status`: guards of a running cluster, at a glance or live."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from upstream_guard.cli.overview import Overview, as_json, detail, listing, overview_of
from upstream_guard.cli.reading import ReadError, Scope, connected, read_guards
from upstream_guard.kube.client import KubeClient

WATCH_SECONDS: Final = 1.0
PIPE_WIDTH: Final = 240
"""Columns where no terminal says how many there are: a pipe wants whole lines."""


@click.command(
    "status",
    short_help="Show guards, their endpoints, windows and predictions.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("name", metavar="[NAME]", required=False, default="")
@click.option("--namespace", "-n", metavar="NAME", help="Namespace (default: the context's).")
@click.option("--all-namespaces", "-A", is_flag=True, help="Guards of all namespaces.")
@click.option("--watch", "-w", is_flag=True, help="Go on showing it until interrupted.")
@click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Format.",
)
@click.option(
    "--kubeconfig", metavar="FILE", type=click.Path(), help="Kubeconfig file (default: as kubectl)."
)
@click.option(
    "--context", metavar="NAME", help="Context of the kubeconfig (default: the current one)."
)
def command(
    name: str,
    namespace: str | None,
    all_namespaces: bool,
    watch: bool,
    output: str,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Show guards: their endpoints, gateways with latencies, windows, predictions, risks.

    NAME shows everything about one guard. Also available as `kubectl upstream-guard status`.

    \b
    Examples:
      upstream-guard status
      upstream-guard status shop -n prod --watch
      upstream-guard status -A -o json | jq '.guards[] | select(.well | not)'

    Exit codes: 0, 1 where a guard is not accepted or requests fail, 2 where it cannot be read.
    """  # noqa: D301 - click reads \b
    if namespace and all_namespaces:
        raise click.UsageError("--namespace and --all-namespaces exclude each other.")
    scope = Scope(kubeconfig, context, namespace, everywhere=all_namespaces)
    show = _Json() if output == "json" else _Table(name, wide=all_namespaces)
    try:
        guards = connected(scope, lambda client: _run(client, scope, name, show, watch=watch))
    except ReadError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if all(guard.well for guard in guards) else 1)


class _Json:
    """A document for programs; while watching, one a line, whenever something changed."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, guards: Sequence[Overview], problem: str, *, watch: bool) -> None:
        """Print it."""
        if problem:
            click.echo(f"Error: {problem}", err=True)
            return
        text = json.dumps(as_json(guards), indent=None if watch else 2, ensure_ascii=False)
        if text != self._last:
            self._last = text
            click.echo(text)

    def close(self) -> None:
        """Nothing to put back."""


class _Table:
    """For people: a terminal is repainted while watching, a pipe gets what changed."""

    def __init__(self, name: str, *, wide: bool) -> None:
        self._name = name
        self._wide = wide
        terminal = sys.stdout.isatty()
        self._console = Console(highlight=False, width=None if terminal else PIPE_WIDTH)
        self._live: Live | None = None
        self._last: tuple[Sequence[Overview], str] | None = None

    def show(self, guards: Sequence[Overview], problem: str, *, watch: bool) -> None:
        """Print it, or repaint it."""
        if watch and self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, screen=True, auto_refresh=False)
                self._live.start()
            self._live.update(self._picture(guards, problem, footer=True), refresh=True)
        elif (guards, problem) != self._last:
            if self._last is not None:
                self._console.print()
            self._last = (guards, problem)
            self._console.print(self._picture(guards, problem))

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()

    def _picture(
        self, guards: Sequence[Overview], problem: str, *, footer: bool = False
    ) -> RenderableType:
        now = time.time()
        parts: list[RenderableType] = []
        if not guards:
            parts.append(
                Text("no guards; -A looks in all namespaces" if not self._wide else "no guards")
            )
        elif self._name:
            parts += [detail(guard, now) for guard in guards]
        else:
            parts.append(listing(guards, now, namespaces=self._wide))
        if problem:
            parts.append(Text(f"\nnot read since: {problem}", style="red"))
        if footer:
            clock = time.strftime("%H:%M:%S", time.localtime(now))
            parts.append(Text(f"\n{clock}, every {WATCH_SECONDS:g} s; Ctrl-C ends", style="dim"))
        return Group(*parts)


async def _run(
    client: KubeClient, scope: Scope, name: str, show: _Json | _Table, *, watch: bool
) -> tuple[Overview, ...]:
    """Show it, once or until interrupted; a later failure to read is shown, and tried again."""
    guards = await _read(client, scope, name)
    try:
        show.show(guards, "", watch=watch)
        while watch:
            await asyncio.sleep(WATCH_SECONDS)
            problem = ""
            try:
                guards = await _read(client, scope, name)
            except ReadError as error:
                problem = str(error)
            show.show(guards, problem, watch=True)
    except BrokenPipeError:
        sys.stdout = None  # nobody reads any more: no complaint at the exit either
    finally:
        show.close()
    return guards


async def _read(client: KubeClient, scope: Scope, name: str) -> tuple[Overview, ...]:
    return tuple(overview_of(body) for body in await read_guards(client, scope, name))
