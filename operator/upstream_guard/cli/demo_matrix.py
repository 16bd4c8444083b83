"""`upstream-guard demo --matrix`: many generated services, predicted first and measured after."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from upstream_guard.kube.client import KubeClient
from upstream_guard.lab.demo.bench import Bench, Wish, open_bench
from upstream_guard.lab.demo.matrix import picture, report
from upstream_guard.lab.demo.matrix.cases import Case, generate
from upstream_guard.lab.demo.matrix.results import Result, ResultFile
from upstream_guard.lab.demo.matrix.session import Plan, conduct
from upstream_guard.lab.demo.matrix.show import MatrixProgress
from upstream_guard.lab.report import RichReporter

DEFAULT_CASES = 150
DEFAULT_SEED = 1
DEFAULT_RATE = 100.0
DEFAULT_PICTURE = Path("demo-out/matrix.png")


@dataclass(frozen=True, slots=True)
class MatrixOptions:
    """What was asked for."""

    gateways: tuple[str, ...]
    cases: int
    seed: int
    rate: float
    jobs: int
    only: tuple[str, ...]
    also: tuple[Path, ...]
    provider: str | None
    context: str | None
    keep: bool
    remedies: bool
    json_path: Path | None
    picture: Path
    page: Path | None


def run_matrix(options: MatrixOptions, console: Console) -> bool:
    """Do the cases that are not done yet, and write what there is, also after Ctrl-C.

    Returns:
        Whether every case could be done and the predictions reached their goals.

    Raises:
        LabError: the lab cannot be brought up, or the result file is of another matrix.
    """
    cases = generate(options.seed, options.cases, options.gateways)
    for path in filter(None, (options.json_path, options.picture, options.page)):
        path.parent.mkdir(parents=True, exist_ok=True)
    file = ResultFile(options.json_path, cases, options.also)
    mine = options.only or options.gateways
    todo = [case for case in cases if case.gateway in mine and not file.has(case)]
    try:
        complete = not todo or _conduct_all(todo, file, options, console)
    finally:
        _write(file.results, options, console)
    results = file.results
    if not results:
        return False
    out = Console(highlight=False)
    card = report.scorecard(results)
    out.print(report.score_table(card))
    goals = report.goals(card)
    for reached, text in goals:
        out.print(f"{'[green]✓[/green]' if reached else '[red]✗[/red]'} {text}")
    return complete and all(reached for reached, _ in goals)


def _conduct_all(
    todo: Sequence[Case], file: ResultFile, options: MatrixOptions, console: Console
) -> bool:
    wish = Wish(
        gateways=tuple(dict.fromkeys(case.gateway for case in todo)),
        guarded=False,
        provider=options.provider,
        context=options.context,
        keep=options.keep,
        output=options.picture.parent,
    )
    with open_bench(wish, RichReporter(console)) as bench:
        total = len(todo) + len(file.results)
        with MatrixProgress(console, file, total) as progress:
            given_up = asyncio.run(_conduct(bench, todo, options, progress))
    return not given_up


async def _conduct(
    bench: Bench, todo: Sequence[Case], options: MatrixOptions, progress: MatrixProgress
) -> list[Case]:
    cluster = bench.cluster
    client = await KubeClient.connect(str(cluster.kubeconfig), cluster.context)
    plan = Plan(
        cases=todo,
        rate=options.rate,
        expose=bench.expose,
        flush=bench.flush,
        forget=bench.forget,
        jobs=options.jobs,
        with_remedies=options.remedies,
        keep=options.keep,
    )
    try:
        return await conduct(cluster, client, plan, progress)
    finally:
        await client.close()


def _write(results: Sequence[Result], options: MatrixOptions, console: Console) -> None:
    if not results:
        return
    if options.json_path is not None:
        console.print(f"figures: {options.json_path}", soft_wrap=True)
    picture.draw(results, options.picture)
    console.print(f"picture: {options.picture}", soft_wrap=True)
    if options.page is not None:
        text = report.markdown(results, rate=options.rate, picture=options.picture.name)
        options.page.write_text(text, encoding="utf-8")
        console.print(f"page: {options.page}", soft_wrap=True)
