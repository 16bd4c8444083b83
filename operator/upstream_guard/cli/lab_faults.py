"""`upstream-guard lab faults`: real faults on a real cluster, and what the operator tells of them."""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from upstream_guard.kube.client import KubeClient, KubeError
from upstream_guard.lab.demo.bench import Bench, Wish, open_bench
from upstream_guard.lab.demo.show import Bar, err_console
from upstream_guard.lab.faults import report
from upstream_guard.lab.faults.model import Fault, Trial
from upstream_guard.lab.faults.report import TrialFile
from upstream_guard.lab.faults.runner import Plan, conduct, minutes, rounds
from upstream_guard.lab.faults.table import BY_NAME, FAULTS
from upstream_guard.lab.gateways import GATEWAYS
from upstream_guard.lab.gateways.plain import DNS_SECONDS
from upstream_guard.lab.model import LabError
from upstream_guard.lab.nameserver import Nameserver
from upstream_guard.lab.report import QuietReporter, RichReporter

DEFAULT_RATE = 40.0
DEFAULT_REPEATS = 5
DEFAULT_GATEWAYS = ("nginx", "contour", "haproxy", "caddy")


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    gateways: tuple[str, ...]
    faults: tuple[Fault, ...]
    repeats: int
    rate: float
    at_once: int
    provider: str | None
    keep: bool
    json_path: Path | None
    page: Path | None


class TrialBar(Bar):
    """Counts trials, and prints a line for each."""

    def doing(self, gateway: str, text: str) -> None:
        """What is being done, for which gateway."""
        self._bar.update(self._task, description=gateway, doing=escape(text))

    def done(self, trial: Trial) -> None:
        """One more."""
        self._bar.advance(self._task)
        if trial.problem:
            mark = f"[red]not done:[/red] {escape(trial.problem)}"
        elif not report.counts(trial):
            mark = "[yellow]no request failed[/yellow]"
        else:
            word = "[green]✓[/green]" if report.is_right(trial) else "[red]✗[/red]"
            delay = f", {trial.delay:.2f} s" if trial.delay is not None else ""
            lost = f"lost {trial.lost} of {trial.failed}"
            mark = f"{word} {trial.cause}{delay}, {lost}"
        self._console.print(
            f"{trial.gateway} · {trial.fault} · {trial.repeat}: {mark}", soft_wrap=True
        )


@click.command()
@click.option(
    "--gateway", "gateways", multiple=True, type=click.Choice(list(GATEWAYS)),
    default=DEFAULT_GATEWAYS, show_default=", ".join(DEFAULT_GATEWAYS), help="Repeatable.",
)  # fmt: skip
@click.option(
    "--fault", "faults", multiple=True, type=click.Choice(list(BY_NAME)), metavar="NAME",
    help=f"Only this one: {', '.join(BY_NAME)}. Repeatable.",
)  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(1, 100), default=DEFAULT_REPEATS, show_default=True,
    help="Of each fault behind each gateway.",
)  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(1, 1000), default=DEFAULT_RATE, show_default=True,
    help="Requests a second to each service, a new connection each.",
)  # fmt: skip
@click.option(
    "--at-once", type=click.IntRange(1, 64), default=os.cpu_count() or 1, show_default="one a core",
    help="Gateways that are tried at the same time; more disturb one another.",
)  # fmt: skip
@click.option(
    "--provider", type=click.Choice(["local"]), help="Only the lab's own nodes can fail so."
)
@click.option("--keep", is_flag=True, help="Leave the lab and the services behind.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE", help="Write every trial, and take up a run that was interrupted.",
)  # fmt: skip
@click.option(
    "--page", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE",
    help="Write a page for the documentation (Markdown).",
)  # fmt: skip
def command(
    *,
    gateways: tuple[str, ...],
    faults: tuple[str, ...],
    repeats: int,
    rate: float,
    at_once: int,
    provider: str | None,
    keep: bool,
    json_path: Path | None,
    page: Path | None,
) -> None:
    """Bring faults about behind gateways, and compare what the operator tells of them.

    A guarded service of three pods stands behind each gateway, under load. Faults are switched on one
    after the other (the app fails on command, packets are dropped between gateway and pods, what
    programs the gateway is frozen, the gateway is killed), and the guard's windows are compared: the
    top cause, the time from the first failed request, the requests lost.

    Exits with 0 if the top cause was right in 95 % of the trials, 1 if not or the lab could not be
    brought up, 2 on bad input.

    \b
    Examples:
      upstream-guard lab faults --gateway contour --fault refused --repeats 1
      upstream-guard lab faults --json docs/faults.json --repeats 5
    """  # noqa: D301 - click reads \b
    options = Options(
        gateways=tuple(dict.fromkeys(gateways)),
        faults=tuple(fault for fault in FAULTS if not faults or fault.name in faults),
        repeats=repeats,
        rate=rate,
        at_once=at_once,
        provider=provider,
        keep=keep,
        json_path=json_path,
        page=page,
    )
    console = err_console()
    try:
        trials = run(options, console)
    except (LabError, KubeError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted; with --json, the next run takes this one up.", err=True)
        sys.exit(130)
    total = report.score(trials)
    Console(highlight=False).print(report.table(trials))
    console.print(f"top cause right in {total.right} of {total.trials} trials that count")
    sys.exit(0 if total.trials and total.share >= report.GOAL_RIGHT else 1)


def run(options: Options, console: Console) -> list[Trial]:
    """Do the trials that are not done yet, and write what there is, also after Ctrl-C.

    Raises:
        LabError: the lab cannot be brought up, or the file is of something else.
    """
    for path in filter(None, (options.json_path, options.page)):
        path.parent.mkdir(parents=True, exist_ok=True)
    file = TrialFile(options.json_path)
    # In the place of the cluster's own DNS, which the lab has not.
    dns = Nameserver(ttl=DNS_SECONDS)
    wish = Wish(
        gateways=options.gateways,
        guarded=True,
        provider=options.provider,
        context=None,
        keep=options.keep,
        output=(options.json_path or Path("demo-out/faults.json")).parent,
    )
    try:
        with dns:
            wish = replace(wish, operator_flags=("--dns-server", dns.server))
            with open_bench(wish, RichReporter(console)) as bench:
                asyncio.run(_conduct(bench, options, file, console, dns))
    finally:
        if options.page is not None and file.trials:
            text = report.markdown(file.trials)
            options.page.write_text(text, encoding="utf-8")
    return file.trials


async def _conduct(
    bench: Bench, options: Options, file: TrialFile, console: Console, dns: Nameserver
) -> None:
    cluster = bench.cluster
    if not cluster.nodes:
        raise LabError(
            "faults between gateways and pods need the lab's own nodes; --provider local"
        )
    say = QuietReporter()
    running = {name: GATEWAYS[name].up(cluster, say) for name in options.gateways}
    plan = Plan(
        gateways=running,
        faults=options.faults,
        repeats=options.repeats,
        rate=options.rate,
        expose=bench.expose,
        keep=options.keep,
        done=file.add,
        doing=lambda _gateway, _text: None,
        has=file.has,
        forget=bench.forget,
        crew=bench.crew,
        at_once=options.at_once,
        dns=dns,
    )
    total = sum(len(todo) for todo in rounds(plan))
    console.print(f"{total} trials to do, about {minutes(plan):.0f} minutes")
    client = await KubeClient.connect(str(cluster.kubeconfig), cluster.context)
    try:
        with TrialBar(console, "faults", total) as bar:

            def done(trial: Trial) -> None:
                file.add(trial)
                bar.done(trial)

            await conduct(cluster, client, _shown(plan, bar, done))
    finally:
        await client.close()


def _shown(plan: Plan, bar: TrialBar, done: Callable[[Trial], None]) -> Plan:
    return replace(plan, doing=bar.doing, done=done)
