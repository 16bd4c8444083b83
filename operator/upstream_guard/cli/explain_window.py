"""`upstream-guard explain window ID`: the story of one window of a running cluster."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from upstream_guard.cli.check.words import clean
from upstream_guard.cli.overview import Overview, lasted, overview_of
from upstream_guard.cli.reading import Json, ReadError, Scope, connected, read_guards
from upstream_guard.cli.story import Step, Story, lines, tell
from upstream_guard.core.observed import ObservedWindow
from upstream_guard.kube.client import ApiError, KubeClient

_STYLES = {
    Step.PREDICTED: "magenta",
    Step.FAILED: "bold red",
    Step.DETECTED: "yellow",
    Step.ACTION: "green",
    Step.CLOSED: "red",
    Step.OPEN: "bold red",
}


def explain_window(scope: Scope, guard: str, window: str, png: Path | None) -> None:
    """Tell the story of a window, and draw it where that is asked for; ends the process if it cannot.

    Args:
        scope: Where to look.
        guard: Name of the guard; empty looks at all of them.
        window: ID of the window; empty lists those that there are.
        png: Where the picture goes; None draws none.
    """
    try:
        if not window:
            _list(connected(scope, lambda client: _overviews(client, scope, guard)))
            return
        story = connected(scope, lambda client: _story(client, scope, guard, window))
        _print(story)
        if png is not None:
            _draw(story, png)
    except ReadError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


async def _overviews(client: KubeClient, scope: Scope, guard: str) -> list[Overview]:
    return [overview_of(body) for body in await read_guards(client, scope, guard)]


async def _story(client: KubeClient, scope: Scope, guard: str, window: str) -> Story:
    guards = await _overviews(client, scope, guard)
    owner, found = _find(guards, window)
    return tell(owner, found, await _events(client, owner))


def _find(guards: Sequence[Overview], window: str) -> tuple[Overview, ObservedWindow]:
    """The window of that ID, which is unique only within its guard.

    Raises:
        ReadError: There is none, or more than one.
    """
    found = [(guard, w) for guard in guards for w in guard.windows if w.id == window]
    if not found:
        known = [w.id for guard in guards for w in guard.windows][:5]
        hint = (
            f"the latest are {', '.join(map(clean, known))}"
            if known
            else "there is no window at all"
        )
        raise ReadError(f"there is no window {window!r} here; {hint} (-n or -A looks elsewhere)")
    if len(found) > 1:
        names = ", ".join(f"{guard.namespace}/{guard.name}" for guard, _ in found)
        raise ReadError(f"several guards have a window {window}: {names}; name one with --guard")
    return found[0]


async def _events(client: KubeClient, guard: Overview) -> list[Json]:
    """Events of the guard; without the right to read them the story is told without."""
    path = f"/apis/events.k8s.io/v1/namespaces/{guard.namespace}/events"
    try:
        items, _ = await client.list_pages(path, {"fieldSelector": f"regarding.name={guard.name}"})
    except ApiError as error:
        click.echo(f"Without events, which cannot be read: {error.message or error}", err=True)
        return []
    return items


def _list(guards: Sequence[Overview]) -> None:
    windows = [(guard, window) for guard in guards for window in guard.windows]
    if not windows:
        click.echo("No window is known here.")
    for guard, window in windows:
        state = "open" if not window.closed else f"{lasted(window):.1f} s"
        where = clean(window.gateway) or "direct probes"
        text = f"{guard.namespace}/{guard.name}  {state}  {window.cause} at {where}"
        click.echo(f"{clean(window.id)}  {text}, {window.lost} lost")


def _print(story: Story) -> None:
    # Only a terminal pays for rich.
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    for number, (step, text) in enumerate(lines(story)):
        style = "bold" if number == 0 else _STYLES.get(step, "") if step else ""
        console.print(Text(clean(text), style=style))


def _draw(story: Story, png: Path) -> None:
    from upstream_guard.cli.story_picture import draw  # noqa: PLC0415 (matplotlib is an extra)

    try:
        draw(story, png)
    except ImportError:
        raise ReadError(
            "the picture needs matplotlib: pip install 'upstream-guard[lab]', or leave out --png"
        ) from None
    except OSError as error:
        raise ReadError(f"{png} cannot be written: {error.strerror or error}") from error
    click.echo(f"\nwrote {png}")
