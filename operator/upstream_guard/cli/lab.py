"""`upstream-guard lab`: a real cluster on this machine."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click
from rich.console import Console
from rich.table import Table

from upstream_guard.cli import lab_conformance, lab_faults
from upstream_guard.lab import images, packages, prometheus, tools
from upstream_guard.lab.existing import ExistingProvider
from upstream_guard.lab.gateways import GATEWAYS, GatewayAddon
from upstream_guard.lab.local import NEEDS, PROGRAMS
from upstream_guard.lab.model import (
    Cluster,
    LabError,
    LabSpec,
    LabStatus,
    Reporter,
    current_cluster,
    default_state_dir,
    readable_cluster,
)
from upstream_guard.lab.plan import MAX_NODES
from upstream_guard.lab.providers import PROVIDERS, choose, remove
from upstream_guard.lab.report import RichReporter

P = ParamSpec("P")


def _plain_errors(function: Callable[P, None]) -> Callable[P, None]:
    """Turn what a person must know into a message and exit code 1, without a traceback."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except LabError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted. `upstream-guard lab down` removes what was made.", err=True)
            sys.exit(130)

    return wrapper


_state_dir = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_state_dir,
    show_default="/var/lib/upstream-guard-lab for root",
    callback=lambda _context, _option, value: value.absolute(),
    help="Where the lab keeps its state. [env: UPSTREAM_GUARD_LAB_DIR]",
)
_provider = click.option(
    "--provider",
    type=click.Choice(list(PROVIDERS)),
    help="How the cluster is made. Default: that of the lab that is up, else the first of kind "
    "and local that can work here.",
)


@click.group(
    short_help="A real Kubernetes cluster on this machine, to try it on.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command() -> None:
    """A real Kubernetes cluster for trying and testing Upstream Guard.

    \b
    Examples:
      upstream-guard lab up --nodes 2 --gateway nginx --gateway contour
      export KUBECONFIG=$(upstream-guard lab kubeconfig)
      upstream-guard lab status
      upstream-guard lab logs kube-apiserver --follow
      upstream-guard lab down
    """  # noqa: D301 - click reads \b


@command.command()
@_provider
@click.option(
    "--nodes",
    type=click.IntRange(1, MAX_NODES),
    help="Number of nodes that take pods. Default: as many as are up, else 1.",
)
@click.option("--context", metavar="NAME", help="kubeconfig context, for --provider existing.")
@click.option(
    "--max-pods",
    type=click.IntRange(10, 250),
    default=250,
    show_default=True,
    help="Pods per node that the kubelet accepts.",
)
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    help=f"Install a gateway too: {', '.join(GATEWAYS)}. Repeatable.",
)
@_state_dir
@_plain_errors
def up(
    provider: str | None,
    nodes: int | None,
    context: str | None,
    max_pods: int,
    gateways: tuple[str, ...],
    state_dir: Path,
) -> None:
    """Bring the lab up; does nothing if it is up already.

    \b
    Examples:
      upstream-guard lab up
      upstream-guard lab up --provider local --nodes 3
      upstream-guard lab up --provider existing --context staging
    """  # noqa: D301 - click reads \b
    say = RichReporter()
    addons = _addons(gateways)
    if nodes is None:
        present = current_cluster(state_dir)
        nodes = len(present.nodes) if present and present.nodes else 1
    spec = LabSpec(state_dir=state_dir, nodes=nodes, max_pods=max_pods, context=context)
    cluster = choose(provider, state_dir).up(spec, say)
    for addon in addons:
        gateway = addon.up(cluster, say)
        say.note(f"{addon.title} serves on http://{gateway.address}:{gateway.port}/")
    say.note(f"The lab is up. Use it with:\n  export KUBECONFIG={cluster.kubeconfig}")


@command.command()
@_plain_errors
def build() -> None:
    """Install and build what the local provider needs, and keep it for the next time.

    `lab up` does it as well; this is for who wants the minutes it takes to be over before.
    Operating-system packages are installed where that is allowed (root on Debian or Ubuntu);
    Prometheus too, with which the alerts are tested.
    """
    say = RichReporter()
    if packages.can_install():
        packages.ensure_packages(NEEDS, say)
        _install_prometheus(say)
    tools.ensure_tools([*PROGRAMS, "contour", "caddy"], say)
    images.build_upstream_image(say)


def _install_prometheus(say: Reporter) -> None:
    """The lab does without, and so does whoever cannot have it; the tests that need it are skipped."""
    try:
        packages.ensure_packages(prometheus.NEEDS, say)
    except LabError as error:
        say.note(f"Alerts and dashboard are not tested here: {error}")


@command.command()
@_provider
@_state_dir
@_plain_errors
def down(provider: str | None, state_dir: Path) -> None:
    """Remove the lab, whole or half made. An existing cluster itself is left as it is."""
    say = RichReporter()
    cluster = readable_cluster(state_dir)
    if cluster is not None and cluster.provider == ExistingProvider.name:
        _remove_addons(cluster, say)
    remove(provider, state_dir, say)


@command.command()
@_provider
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_state_dir
@_plain_errors
def status(provider: str | None, as_json: bool, state_dir: Path) -> None:
    """Show what is there. Exit code 0 if the lab is up, 1 if not."""
    found = choose(provider, state_dir).status()
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        _print_status(found, state_dir)
    sys.exit(0 if found.up else 1)


@command.command()
@click.option("--raw", is_flag=True, help="Print its content instead of its path.")
@_state_dir
@_plain_errors
def kubeconfig(raw: bool, state_dir: Path) -> None:
    """Print the path of the lab's kubeconfig.

    \b
    Example:
      export KUBECONFIG=$(upstream-guard lab kubeconfig)
    """  # noqa: D301 - click reads \b
    path = _present(state_dir).kubeconfig
    try:
        click.echo(path.read_text(encoding="utf-8").rstrip() if raw else path)
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}; try `upstream-guard lab up`") from error


@command.command("load-image")
@click.argument("archives", nargs=-1, required=True, type=click.Path(path_type=Path))
@_state_dir
@_plain_errors
def load_image(archives: tuple[Path, ...], state_dir: Path) -> None:
    """Make images available to every node.

    ARCHIVES are Docker or OCI archives, as `docker save` and `buildah push … oci-archive:` write.
    Pods use such an image with `imagePullPolicy: Never` or `IfNotPresent`.

    \b
    Example:
      docker save my-app:dev -o my-app.tar && upstream-guard lab load-image my-app.tar
    """  # noqa: D301 - click reads \b
    cluster = _present(state_dir)
    provider = choose(cluster.provider, state_dir)
    for archive in archives:
        provider.load_image(cluster, archive, RichReporter())


@command.command()
@click.argument("component", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on printing until Ctrl-C.")
@click.option("--lines", "-n", default=100, show_default=True, help="How many last lines.")
@_state_dir
@_plain_errors
def logs(component: str | None, follow: bool, lines: int, state_dir: Path) -> None:
    """Print the log of COMPONENT, or list the components.

    \b
    Examples:
      upstream-guard lab logs
      upstream-guard lab logs kubelet-node-1 --follow
    """  # noqa: D301 - click reads \b
    folder = state_dir / "logs"
    names = sorted(path.stem for path in folder.glob("*.log"))
    if not names:
        raise LabError(f"there are no logs in {folder}; is the lab up?")
    if component is None:
        click.echo("\n".join(names))
        return
    if component not in names:
        raise LabError(f"no log {component!r}; there are:\n  " + "\n  ".join(names))
    tail = ["tail", f"--lines={lines}", *(["--follow=name"] if follow else [])]
    subprocess.run([*tail, str(folder / f"{component}.log")], check=False)


command.add_command(lab_conformance.command, "conformance")
command.add_command(lab_faults.command, "faults")


def _present(state_dir: Path) -> Cluster:
    cluster = current_cluster(state_dir)
    if cluster is None:
        raise LabError("no lab is up; start one with `upstream-guard lab up`")
    return cluster


def _addons(names: tuple[str, ...]) -> list[GatewayAddon]:
    """The gateways asked for; unknown names fail before anything is made."""
    if unknown := [name for name in names if name not in GATEWAYS]:
        raise LabError(f"no gateway {', '.join(unknown)}; there are {', '.join(GATEWAYS)}")
    return [GATEWAYS[name] for name in dict.fromkeys(names)]


def _remove_addons(cluster: Cluster, say: RichReporter) -> None:
    """Take our gateways out of a cluster that stays; what cannot be reached is said, not fatal."""
    for addon in GATEWAYS.values():
        try:
            if addon.status(cluster).up:
                addon.down(cluster, say)
        except LabError as error:
            say.note(f"{addon.name}: {error}")


def _print_status(found: LabStatus, state_dir: Path) -> None:
    console = Console(highlight=False)
    word = "[green]up[/green]" if found.up else "[yellow]not up[/yellow]"
    console.print(f"Lab ({found.provider}): {word}, {found.detail} {found.version}")
    if found.nodes:
        table = Table("node", "ready", "address", "zone", box=None, pad_edge=False)
        for node in found.nodes:
            table.add_row(node.name, "yes" if node.ready else "no", node.address, node.zone)
        console.print(table)
    for name, runs in found.processes:
        if not runs:
            console.print(f"[red]not running:[/red] {name}")
    if found.up and (cluster := current_cluster(state_dir)):
        gateways = (addon.status(cluster) for addon in GATEWAYS.values())
        for gateway in (gateway for gateway in gateways if gateway.up):
            console.print(f"gateway {gateway.name}: {gateway.detail}", soft_wrap=True)
    for trace in found.leftovers:
        console.print(f"  left behind: {trace}", soft_wrap=True)
