"""`upstream-guard explain`: the page of one finding, or of what leads to a cause."""

import difflib
import sys

import click

from upstream_guard.cli.pages import read_page
from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.risks import RISKS


@click.command("explain", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", metavar="[ID]", required=False)
def command(name: str | None) -> None:
    """Explain a finding: what it is, how it looks at each gateway, how to see it, how to fix it.

    ID is what `check`, events and status name, such as no-pre-stop. A cause, such as refused, lists
    the findings that lead to it. Without an ID all are listed.

    \b
    Examples:
      upstream-guard explain
      upstream-guard explain no-readiness-probe
      upstream-guard explain keepalive-race | less
      upstream-guard explain refused

    Exit codes: 0, or 2 where there is no such ID.
    """  # noqa: D301 - click reads \b
    if name is None:
        _listing()
    elif name in RISKS:
        _page(name)
    elif name in set(Cause):
        _cause(Cause(name))
    else:
        _unknown(name)


def _listing() -> None:
    width = max(map(len, RISKS))
    for risk, info in RISKS.items():
        click.echo(f"{risk:<{width}}  {info.severity:<7}  {info.title}")


def _page(risk: str) -> None:
    text = read_page(risk)
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    # Only a terminal pays for rich.
    from rich.console import Console  # noqa: PLC0415
    from rich.markdown import Markdown  # noqa: PLC0415

    Console(width=min(100, Console().width)).print(Markdown(text))


def _cause(cause: Cause) -> None:
    leading = {risk: info for risk, info in RISKS.items() if info.cause is cause}
    if not leading:
        click.echo(f"{cause}: no finding predicts this cause; it is only seen as it happens.")
        return
    click.echo(f"Findings whose failed requests mostly meet {cause}:\n")
    width = max(map(len, leading))
    for risk, info in leading.items():
        click.echo(f"{risk:<{width}}  {info.title}.")
    click.echo("\n`upstream-guard explain ID` tells more of each.")


def _unknown(name: str) -> None:
    near = difflib.get_close_matches(name, [*RISKS, *Cause], n=3, cutoff=0.5)
    hint = (
        f"Did you mean {', '.join(near)}?" if near else "`upstream-guard explain` lists them all."
    )
    click.echo(f"Error: there is no finding or cause {name!r}. {hint}", err=True)
    sys.exit(2)
