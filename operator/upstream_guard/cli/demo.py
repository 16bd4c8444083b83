"""`upstream-guard demo`: the main job, seen from a user's side."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import click
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape

from upstream_guard.cli.demo_matrix import (
    DEFAULT_CASES,
    DEFAULT_SEED,
    MatrixOptions,
    run_matrix,
)
from upstream_guard.cli.demo_matrix import DEFAULT_PICTURE as MATRIX_PICTURE
from upstream_guard.cli.demo_matrix import DEFAULT_RATE as MATRIX_RATE
from upstream_guard.core.predict.score import score
from upstream_guard.kube.client import KubeClient, KubeError
from upstream_guard.lab.demo import plot, report
from upstream_guard.lab.demo.bench import NODES, Bench, Wish, open_bench
from upstream_guard.lab.demo.foresight import foresight
from upstream_guard.lab.demo.matrix.cases import GATEWAYS as MATRIX_GATEWAYS
from upstream_guard.lab.demo.matrix.report import score_table
from upstream_guard.lab.demo.report import Run
from upstream_guard.lab.demo.runner import Cell, cells
from upstream_guard.lab.demo.scenarios import FIRST_LOOK, SCENARIOS
from upstream_guard.lab.demo.session import Conduct, Outcome, conduct
from upstream_guard.lab.demo.show import (
    ProgressBar,
    err_console,
    show_events,
    show_status,
    show_verdict,
)
from upstream_guard.lab.demo.telling import lead_table
from upstream_guard.lab.demo.variants import APPS, GO, App, Variant
from upstream_guard.lab.gateways import GATEWAYS
from upstream_guard.lab.model import LabError
from upstream_guard.lab.report import RichReporter

Value = TypeVar("Value")

ALL = "all"
DEFAULT_RATE = 200.0
NOT_WITH_MATRIX: Final = ("scenarios", "variants", "repeats", "with_score", "apps", "kept")
ONLY_WITH_MATRIX: Final = ("cases", "seed", "jobs", "only", "also", "remedies", "page")
DEFAULT_PICTURE = Path("demo-out/timeline.png")


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    gateways: tuple[str, ...]
    cells: tuple[Cell, ...]
    rate: float
    provider: str | None
    context: str | None
    keep: bool
    json_path: Path | None
    picture: Path
    with_score: bool = False
    kept: float = 0.0


@click.command(
    short_help="See failed requests with and without a guard.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--gateway", "gateways", multiple=True, type=click.Choice(sorted(GATEWAYS)),
    default=("nginx", "contour"), show_default=f"nginx, contour; {', '.join(MATRIX_GATEWAYS)} with --matrix", help="Repeatable.",
)  # fmt: skip
@click.option(
    "--scenario", "scenarios", multiple=True, type=click.Choice([*SCENARIOS, ALL]),
    default=FIRST_LOOK, show_default=True,
    help="Repeatable. `all` is every one but node-loss, which needs the embedded lab and a minute a run.",
)  # fmt: skip
@click.option(
    "--variant", "variants", multiple=True, type=click.Choice([v.value for v in Variant]),
    default=tuple(v.value for v in Variant), show_default=True, help="Repeatable.",
)  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(1, 5000), default=DEFAULT_RATE,
    show_default=f"{DEFAULT_RATE:g}; {MATRIX_RATE:g} with --matrix",
    help="Requests a second, a new connection each unless --kept says otherwise.",
)  # fmt: skip
@click.option(
    "--kept", type=click.FloatRange(0, 1), default=0.0, show_default=True,
    help="Share of the requests that go over kept-alive client connections.",
)  # fmt: skip
@click.option(
    "--app", "apps", multiple=True, type=click.Choice([*APPS, ALL]), default=(GO.name,), show_default=True,
    help="Server behind the gateway, with the settings that it comes with. Repeatable.",
)  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(1, 100), default=1, show_default=True,
    help="Runs of each gateway, scenario and variant.",
)  # fmt: skip
@click.option(
    "--provider", type=click.Choice(["kind", "local", "existing"]),
    help="Where the cluster comes from; found by itself unless given.",
)  # fmt: skip
@click.option("--context", metavar="NAME", help="kubeconfig context, for --provider existing.")
@click.option("--keep", is_flag=True, help="Leave the lab and the demo's objects behind.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE", help="Write every run's figures.",
)  # fmt: skip
@click.option(
    "--picture", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE", default=DEFAULT_PICTURE,
    show_default=f"{DEFAULT_PICTURE}; {MATRIX_PICTURE} with --matrix",
    help="Write the timeline of failed requests (PNG).",
)  # fmt: skip
@click.option(
    "--score",
    "with_score",
    is_flag=True,
    help="Predict each change before it begins and score it, and measure how early the operator tells.",
)
@click.option(
    "--matrix",
    is_flag=True,
    help="Instead: many generated services, each predicted first, changed and measured after.",
)
@click.option(
    "--cases", type=click.IntRange(1, 10_000), default=DEFAULT_CASES, show_default=True,
    help="With --matrix: how many services.",
)  # fmt: skip
@click.option(
    "--seed", type=int, default=DEFAULT_SEED, show_default=True,
    help="With --matrix: the same seed draws the same services.",
)  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True,
    help="With --matrix: changes at the same time, at different gateways. They make kube-proxy late for each other.",
)  # fmt: skip
@click.option(
    "--only", multiple=True, type=click.Choice(MATRIX_GATEWAYS),
    help="With --matrix: do its cases behind this gateway, and leave the others to another lab or machine. Repeatable.",
)  # fmt: skip
@click.option(
    "--also", multiple=True, metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --matrix: results of the same matrix from another lab or machine. Repeatable.",
)  # fmt: skip
@click.option(
    "--remedies",
    is_flag=True,
    help="With --matrix: apply the remedies of what was predicted, and measure again.",
)
@click.option(
    "--page", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE",
    help="With --matrix: write a page for the documentation (Markdown).",
)  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context,
    *,
    gateways: tuple[str, ...],
    scenarios: tuple[str, ...],
    variants: tuple[str, ...],
    rate: float,
    kept: float,
    apps: tuple[str, ...],
    repeats: int,
    provider: str | None,
    context: str | None,
    keep: bool,
    json_path: Path | None,
    picture: Path,
    with_score: bool,
    matrix: bool,
    cases: int,
    seed: int,
    jobs: int,
    only: tuple[str, ...],
    also: tuple[Path, ...],
    remedies: bool,
    page: Path | None,
) -> None:
    """Change a service under load, with and without a guard, and count the failed requests.

    Each scenario is run plain (no readiness probe, no hook), tuned (readiness probe each second,
    preStop sleep 5) and guarded (plain and an UpstreamGuard). Brings a lab up if there is none, and
    takes it down again unless --keep is given.

    With --score, services without a guard get one that only looks on (Observe, Recommend), so that the
    operator tells of their changes too; GatewayProfiles tell it where it reaches the gateways, and their
    metrics where they have any, as an admin would.

    --matrix tries the predictions instead: services drawn from a seed, half of them safe, a third
    borderline, each changed for real. With --json it takes up a matrix that was interrupted.

    Exits with 0 if the guard kept its promises (with --matrix: if the predictions were good), 1 if
    not or a run failed, 2 on bad input.

    \b
    Examples:
      upstream-guard demo
      upstream-guard demo --gateway nginx --scenario rollout --repeats 3
      upstream-guard demo --scenario all --json runs.json
      upstream-guard demo --app all --scenario rollout --kept 0.5
      upstream-guard demo --matrix --cases 24 --json matrix.json
      upstream-guard demo --matrix --cases 24 --json here.json --only nginx --also there.json
    """  # noqa: D301 - click reads \b
    if (provider == "existing") != (context is not None):
        raise click.UsageError(
            "--provider existing and --context NAME go together: an existing cluster is used only "
            "when it is named (`kubectl config get-contexts` lists them)"
        )
    _refuse_mixtures(ctx, NOT_WITH_MATRIX if matrix else ONLY_WITH_MATRIX, matrix=matrix)
    if matrix:
        chosen_gateways = _given(ctx, "gateways", gateways, MATRIX_GATEWAYS)
        if unknown := [name for name in chosen_gateways if name not in MATRIX_GATEWAYS]:
            known = ", ".join(MATRIX_GATEWAYS)
            raise click.UsageError(f"--matrix knows {known}, and not {', '.join(unknown)}")
        options = MatrixOptions(
            gateways=chosen_gateways,
            cases=cases,
            seed=seed,
            rate=_given(ctx, "rate", rate, MATRIX_RATE),
            jobs=jobs,
            only=only,
            also=also,
            provider=provider,
            context=context,
            keep=keep,
            remedies=remedies,
            json_path=json_path,
            picture=_given(ctx, "picture", picture, MATRIX_PICTURE),
            page=page,
        )
        _end(ctx, lambda console: run_matrix(options, console), keep=keep)
    wanted = dict.fromkeys(scenarios)
    if ALL in wanted:
        del wanted[ALL]
        wanted = {name: None for name, s in SCENARIOS.items() if not s.cable} | wanted
    chosen = [variant for variant in Variant if variant.value in variants]
    servers = _apps(apps, wanted, with_score=with_score)
    todo = cells(
        list(dict.fromkeys(gateways)),
        [SCENARIOS[name] for name in wanted],
        chosen,
        repeats,
        servers,
    )
    asked = Options(
        gateways=tuple(dict.fromkeys(gateways)),
        cells=tuple(todo),
        rate=rate,
        provider=provider,
        context=context,
        keep=keep,
        json_path=json_path,
        picture=picture,
        with_score=with_score,
        kept=kept,
    )
    _end(ctx, lambda console: _demo(asked, console), keep=keep)


def _apps(chosen: Sequence[str], scenarios: Iterable[str], *, with_score: bool) -> list[App]:
    """The servers to run; what only the Go sample can do is refused of the others."""
    apps = [app for app in APPS.values() if app.name in chosen or ALL in chosen]
    if deaf := ", ".join(app.name for app in apps if not app.obeys):
        commanded = [name for name in scenarios if SCENARIOS[name].commands]
        if commanded:
            raise click.UsageError(
                f"--scenario {commanded[0]} tells the app to fail, which {deaf} cannot do; "
                f"use --app {GO.name} with it"
            )
        if with_score:
            raise click.UsageError(
                f"--score asks the app how long it took to start, which {deaf} does not tell; "
                f"use --app {GO.name} with it"
            )
    return apps


def _refuse_mixtures(ctx: click.Context, names: Sequence[str], *, matrix: bool) -> None:
    """Options that would be without effect are named, not passed over."""
    for param in ctx.command.params:
        if param.name in names and _is_given(ctx, param.name):
            word = "together with" if matrix else "without"
            raise click.UsageError(f"{param.opts[0]} has no meaning {word} --matrix")


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


def _given(ctx: click.Context, name: str, value: Value, otherwise: Value) -> Value:
    """What the user gave, else another default than the usual."""
    return value if _is_given(ctx, name) else otherwise


def _end(ctx: click.Context, work: Callable[[Console], bool], *, keep: bool) -> NoReturn:
    """Do it, and exit with what came of it."""
    console = err_console()
    try:
        kept = work(console)
    except (LabError, KubeError) as error:
        console.print(f"[bold red]Error:[/bold red] {escape(str(error))}", soft_wrap=True)
        ctx.exit(1)
    except KeyboardInterrupt:
        left = "the lab is left as it is" if keep else "what the demo made is cleaned up"
        console.print(f"Interrupted; {left}.")
        ctx.exit(130)
    ctx.exit(0 if kept else 1)


def _demo(options: Options, console: Console) -> bool:
    wish = Wish(
        gateways=options.gateways,
        guarded=options.with_score or any(c.variant is Variant.GUARDED for c in options.cells),
        provider=options.provider,
        context=options.context,
        keep=options.keep,
        output=options.picture.parent,
        nodes=max(NODES, *(cell.scenario.nodes for cell in options.cells)),
        apps=tuple(dict.fromkeys(cell.app for cell in options.cells)),
        profiled=options.with_score,
    )
    with open_bench(wish, RichReporter(console)) as bench:
        with ProgressBar(console, len(options.cells)) as progress:
            try:
                outcome = asyncio.run(_conduct(bench, options, progress))
            finally:
                _write(progress.runs, options, console)
        return _show(progress.runs, outcome, bench)


async def _conduct(bench: Bench, options: Options, progress: ProgressBar) -> Outcome:
    cluster = bench.cluster
    client = await KubeClient.connect(str(cluster.kubeconfig), cluster.context)
    try:
        async with bench.guarding(client) as guarding:
            plan = Conduct(
                cells=options.cells,
                rate=options.rate,
                expose=bench.expose,
                flush=bench.flush,
                guarding=guarding,
                keep=options.keep,
                foresee=foresight(options.rate) if options.with_score else None,
                listen=options.with_score,
                kept=options.kept,
            )
            return await conduct(cluster, client, plan, progress)
    finally:
        await client.close()


def _write(runs: Sequence[Run], options: Options, console: Console) -> None:
    """Write what there is, also after Ctrl-C or a failed run."""
    if not runs:
        return
    if options.json_path is not None:
        _parent(options.json_path)
        text = json.dumps(report.as_json(runs), indent=2)
        options.json_path.write_text(text + "\n", encoding="utf-8")
        console.print(f"figures: {options.json_path}", soft_wrap=True)
    _parent(options.picture)
    plot.draw(runs, options.picture, rate=options.rate)
    console.print(f"timeline: {options.picture}", soft_wrap=True)


def _parent(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)


def _show(runs: Sequence[Run], outcome: Outcome, bench: Bench) -> bool:
    console = Console(highlight=False)
    show_events(console, outcome.namespace, outcome.events)
    show_status(console, bench.statuses)
    console.print(report.table(runs))
    trials = [run.trial for run in runs if run.trial]
    if trials:
        console.print(score_table(score(trials)))
    tellings = [run.telling for run in runs if run.telling]
    if tellings:
        console.print(lead_table(tellings))
    checks = report.checks(runs)
    show_verdict(console, checks)
    return all(check.held for check in checks)
