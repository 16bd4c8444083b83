"""The command line: one file per command, imported only when that command runs."""

import errno
import importlib
import os
import sys
from typing import Any

import click

COMMANDS = {
    "check": "upstream_guard.cli.check.command",
    "explain": "upstream_guard.cli.explain",
    "run": "upstream_guard.cli.run",
    "status": "upstream_guard.cli.status",
    "demo": "upstream_guard.cli.demo",
    "lab": "upstream_guard.cli.lab",
    "uninstall": "upstream_guard.cli.uninstall",
}

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the number of SIGINT."""
_UNWRITABLE = frozenset({errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC})


class LazyGroup(click.Group):
    """A group that imports a command's module when it is asked for, so `--help` stays quick."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and say in a line where the output cannot be written: the disk is full, or it is closed.

        The exit code is 2 then, for 1 is a verdict to `check` and `status`.
        """
        if sys.stdout is None:
            # Python leaves none where the caller closed it. Of this one, only writing fails.
            sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
        try:
            return super().__call__(*args, **kwargs)
        except OSError as error:
            if error.filename is not None or error.errno not in _UNWRITABLE:
                raise
            click.echo(f"Error: the output cannot be written: {error.strerror}", err=True)
            sys.stdout = None  # no second complaint at the exit
            sys.exit(2)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C ends each with 130, as shells have it, for 1 is a verdict to some."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort) as error:
            # At a prompt click has made an Abort of it, as it does of the end of input.
            if isinstance(error, click.Abort) and not isinstance(
                error.__context__, KeyboardInterrupt
            ):
                raise
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of a user's first day."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module behind `cmd_name` and return its `command`."""
        del ctx
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="upstream-guard")
def main() -> None:
    """Make 502 windows on Kubernetes rare, short, predicted and explained.

    \b
    Examples:
      upstream-guard check manifests/          # windows that the next change would open
      upstream-guard explain no-pre-stop       # what a finding means, and what to do
      upstream-guard demo                      # a real cluster, with and without the guard
      upstream-guard lab up --nodes 2          # only the cluster
      upstream-guard run                       # the operator, with your kubeconfig
      upstream-guard status --watch            # guards of a cluster, live
      upstream-guard uninstall                 # release every pod and remove what we own
    """  # noqa: D301 - click reads \b


def kubectl() -> None:
    """The same program as a plug-in: `kubectl upstream-guard …`."""
    main(prog_name="kubectl upstream-guard")
