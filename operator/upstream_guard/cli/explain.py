"""`upstream-guard explain`: the page of one finding, what leads to a cause, or the story of a window."""

import difflib
import sys
import textwrap
from pathlib import Path

import click

from upstream_guard.cli.pages import cause_page, read_page
from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.risks import RISKS


@click.command(
    "explain",
    short_help="Explain a finding, a cause, or a window that was seen.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("name", metavar="[ID]", required=False)
@click.argument("window", metavar="[WINDOW]", required=False)
@click.option(
    "--namespace", "-n", metavar="NAME", help="Of a window: namespace (default: the context's)."
)
@click.option("--all-namespaces", "-A", is_flag=True, help="Of a window: look in all namespaces.")
@click.option("--guard", default="", metavar="NAME", help="Of a window: name of the guard.")
@click.option(
    "--png",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Of a window: draw it, to this file.",
)
@click.option(
    "--kubeconfig", metavar="FILE", type=click.Path(), help="Kubeconfig file (default: as kubectl)."
)
@click.option(
    "--context", metavar="NAME", help="Context of the kubeconfig (default: the current one)."
)
def command(
    name: str | None,
    window: str | None,
    namespace: str | None,
    all_namespaces: bool,
    guard: str,
    png: Path | None,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Explain a finding, a cause, or a window of a running cluster.

    ID is what `check`, events and status name, such as no-pre-stop: the page says what it is, how it
    looks at each gateway, how to see it, how to fix it. A cause, such as refused, has a page too: the
    findings that lead to it, and where to look. Without an ID all findings are listed.

    `explain window WINDOW` tells the story of one window: what was predicted, the change, the first
    failed request, when it was known and why, what was done, the last failed request, what was lost.
    Without a WINDOW the known ones are listed.

    \b
    Examples:
      upstream-guard explain
      upstream-guard explain no-readiness-probe
      upstream-guard explain refused | less
      upstream-guard explain window w-20261126-071530-1 -n prod --png window.png

    Exit codes: 0, or 2 where there is no such ID or the cluster cannot be read.
    """  # noqa: D301 - click reads \b
    if name == "window":
        # Only this needs a cluster, and the client for one takes a while to import.
        from upstream_guard.cli.explain_window import explain_window  # noqa: PLC0415
        from upstream_guard.cli.reading import Scope  # noqa: PLC0415

        scope = Scope(kubeconfig, context, namespace, everywhere=all_namespaces)
        explain_window(scope, guard, window or "", png)
    elif window is not None:
        raise click.UsageError(
            f"{name} takes no second argument; a window's story is told by `explain window ID`."
        )
    elif name is None:
        _listing()
    elif name in RISKS:
        _print(read_page(name))
    elif name in set(Cause):
        _print(cause_page(Cause(name)))
    else:
        _unknown(name)


def _listing() -> None:
    width = max(map(len, RISKS))
    for risk, info in RISKS.items():
        click.echo(f"{risk:<{width}}  {info.severity:<7}  {info.title}")
    causes = textwrap.fill(f"Causes: {', '.join(Cause)}.", 100)
    click.echo(f"\n{causes}\n`upstream-guard explain ID` (or a cause) shows its page.", err=True)


def _print(text: str) -> None:
    """Markdown, rendered for a terminal."""
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    # Only a terminal pays for rich.
    from rich.console import Console  # noqa: PLC0415
    from rich.markdown import Markdown  # noqa: PLC0415

    Console(width=min(100, Console().width)).print(Markdown(text))


def _unknown(name: str) -> None:
    near = difflib.get_close_matches(name, [*RISKS, *Cause], n=3, cutoff=0.5)
    hint = (
        f"Did you mean {', '.join(near)}?" if near else "`upstream-guard explain` lists them all."
    )
    click.echo(f"Error: there is no finding or cause {name!r}. {hint}", err=True)
    sys.exit(2)
