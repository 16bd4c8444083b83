"""The command's options, and what it does in order."""

import gc
import io
import math
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from upstream_guard import __version__
from upstream_guard.cli.check import baseline, suppressions
from upstream_guard.cli.check.analysis import Found, Question, analyse, object_of
from upstream_guard.cli.check.formats import FORMATS, renderer
from upstream_guard.cli.check.objects import ObjectKey, tell_mistakes
from upstream_guard.cli.check.report import RANKS, Entry, Look, Report
from upstream_guard.cli.check.sources import Inputs, read_all
from upstream_guard.cli.check.words import clean, counted
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.state import AppFacts, State
from upstream_guard.core.predict.window import Severity
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways import PROFILES

ASSUMED_RATE = 10.0
"""Requests a second where nobody says better."""

PATIENCE_SECONDS = 2.0
"""After which a person wants to see how far it is."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    paths: tuple[str, ...]
    kustomizations: tuple[str, ...]
    kubeconfig: str | None
    context: str | None
    namespaces: tuple[str, ...]
    gateways: tuple[str, ...]
    rate: float | None
    start: float | None
    output: str
    fail_on: str
    baseline: Path | None
    write_baseline: Path | None
    fix: bool
    write: bool
    quiet: bool

    @property
    def cluster(self) -> bool:
        """Whether a running cluster is looked at."""
        return self.kubeconfig is not None or self.context is not None

    @property
    def facts(self) -> Facts:
        """What is known beside the objects."""
        facts = Facts(rate=ASSUMED_RATE)
        if self.rate is not None:
            facts = replace(facts, rate=self.rate, rate_evidence=Evidence.SPEC)
        if self.start is not None:
            start = Estimate.exactly(self.start, Evidence.SPEC, "--start-seconds")
            facts = replace(facts, app=AppFacts(start=start))
        return facts


class _Number(click.FloatRange):
    """A range that `nan`, which is neither below nor above any number, does not slip through."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number.

        Raises:
            BadParameter: It is none, or out of range.
        """
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("it is not a number", param, ctx)
        return number


@click.command(
    "check",
    short_help="Predict the windows of manifests or of a cluster.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="PATH",
    help="File, folder (with everything below), glob, or - for stdin. Repeatable.",
)
@click.option(
    "-k",
    "--kustomize",
    "kustomizations",
    multiple=True,
    metavar="DIR",
    help="Folder that `kubectl kustomize` renders. Repeatable.",
)
@click.option(
    "--context", metavar="NAME", help="Look at a running cluster: a context of the kubeconfig."
)
@click.option(
    "--kubeconfig",
    metavar="FILE",
    help="Look at a running cluster: its kubeconfig (see --context).",
)
@click.option(
    "-n",
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="NAME",
    help="Of a cluster, the namespaces to look at (default: all; repeatable). Of files, the "
    "namespace of objects that name none.",
)
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    type=click.Choice(sorted(PROFILES)),
    metavar="NAME",
    help="The gateway in front of every Service, repeatable: "
    f"{', '.join(sorted(PROFILES))}. Default: found by the routes; the ClusterIP where there are none.",
)
@click.option(
    "--rate",
    type=_Number(min=0.001, max=1e6),
    metavar="N",
    help=f"Requests a second of each Service. Default: {ASSUMED_RATE:g}, which is an assumption.",
)
@click.option(
    "--start-seconds",
    "start",
    type=_Number(min=0, max=3600),
    metavar="N",
    help="What the app needs from its start to its first answer. Default: 2, between 0.3 and 10.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(list(FORMATS)),
    default="table",
    show_default=True,
    help="Format.",
)
@click.option(
    "--fail-on",
    type=click.Choice([*(severity.value for severity in Severity), "never"]),
    default="warning",
    show_default=True,
    help="Exit with 1 where something at least that severe is found.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Findings of this file are known, and do not count.",
)
@click.option(
    "--write-baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what is found into a baseline, and exit with 0.",
)
@click.option(
    "--fix",
    is_flag=True,
    help="Print the remedies as a diff of the files, instead of the findings. What cannot be put into "
    "a file is printed as a patch.",
)
@click.option("--write", is_flag=True, help="As --fix, but change the files.")
@click.option("-q", "--quiet", is_flag=True, help="One line for each finding, and nothing else.")
def command(
    paths: tuple[str, ...],
    files: tuple[str, ...],
    kustomizations: tuple[str, ...],
    context: str | None,
    kubeconfig: str | None,
    namespaces: tuple[str, ...],
    gateways: tuple[str, ...],
    rate: float | None,
    start: float | None,
    output: str,
    fail_on: str,
    baseline: Path | None,
    write_baseline: Path | None,
    fix: bool,
    write: bool,
    quiet: bool,
) -> None:
    """Predict the windows that the next rollout, scale-in or drain would open, before anything is deployed.

    Says which change fails about how many requests, for how long, why, and which patch prevents it.
    Reads manifests (YAML, JSON), folders of them, stdin, kustomize folders, or a running cluster, of
    which nothing is changed.

    \b
    Examples:
      upstream-guard check manifests/
      helm template shop ./chart | upstream-guard check -
      upstream-guard check -k overlays/prod --gateway contour --rate 200
      upstream-guard check --context staging -n shop
      upstream-guard check manifests/ --fix | git apply
      upstream-guard check manifests/ -o sarif > check.sarif
      upstream-guard check manifests/ --write-baseline known.json
      upstream-guard check manifests/ --baseline known.json

    What is accepted goes into an annotation of the object, with a reason:

    \b
      upstreamguard.io/ignore: "no-pre-stop: batch consumer, no traffic; single-replica: dev"

    Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 wrong usage or input that cannot be
    read or has no Kubernetes object (the rest is checked all the same).
    """  # noqa: D301 - click reads \b
    options = Options(
        paths=(*paths, *files),
        kustomizations=kustomizations,
        kubeconfig=kubeconfig,
        context=context,
        namespaces=namespaces,
        gateways=gateways,
        rate=rate,
        start=start,
        output=output,
        fail_on=fail_on,
        baseline=baseline,
        write_baseline=write_baseline,
        fix=fix,
        write=write,
        quiet=quiet,
    )
    _refuse_contradictions(options)
    for stream in (sys.stdout, sys.stderr):
        # Names of files and objects may hold what the terminal's encoding cannot write.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _without_collector():
            code = _check(options)
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        code = 130
    sys.exit(code)


@contextmanager
def _without_collector() -> Iterator[None]:
    """A check makes a million objects and hardly a cycle: looking for some would take a tenth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _refuse_contradictions(options: Options) -> None:
    from_files = bool(options.paths or options.kustomizations)
    if options.cluster and from_files:
        raise click.UsageError(
            "--context and --kubeconfig look at a cluster: pass no files with them"
        )
    if not options.cluster and not from_files:
        raise click.UsageError(
            "nothing to check: pass files, folders, - for stdin, -k DIR, or --context NAME"
        )
    if len(options.namespaces) > 1 and not options.cluster:
        raise click.UsageError(
            "of files, only one -n can be the namespace of objects that name none"
        )
    if options.paths.count("-") > 1:
        raise click.UsageError("- (stdin) can be read only once")


def _check(options: Options) -> int:
    known = _known(options)
    inputs = _read(options)
    question = Question(options.facts, options.gateways, inputs.complete, time.time())
    found, services = analyse(inputs.objects, question, inputs.troubles, _tracked)
    report = _report(options, inputs, found, services)
    report = _with_baseline(report, known)
    if options.fix or options.write:
        _fix(options, report, found)
    elif options.write_baseline is not None:
        _write_baseline(options.write_baseline, report)
    else:
        _show(options, report)
    _tell(options, report)
    done = options.write_baseline is not None or options.write
    return report.exit_code if report.exit_code == 2 or not done else 0


def _known(options: Options) -> frozenset[str] | None:
    if options.baseline is None:
        return None
    try:
        return frozenset(baseline.read(options.baseline))
    except baseline.BaselineError as error:
        raise click.UsageError(f"--baseline: {error}") from error


def _read(options: Options) -> Inputs:
    if options.cluster:
        return _read_cluster(options)
    inputs = read_all(options.paths, options.kustomizations)
    tell_mistakes(inputs.objects, inputs.troubles)
    if options.namespaces:
        inputs.objects = [o.placed_in(options.namespaces[0]) for o in inputs.objects]
    return inputs


def _read_cluster(options: Options) -> Inputs:
    # The API client takes longer to import than a thousand manifests to check.
    import asyncio  # noqa: PLC0415

    from upstream_guard.cli.check.cluster import read_cluster  # noqa: PLC0415
    from upstream_guard.kube.client import KubeError  # noqa: PLC0415

    try:
        return asyncio.run(read_cluster(options.kubeconfig, options.context, options.namespaces))
    except KubeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


def _report(options: Options, inputs: Inputs, found: Sequence[Found], services: int) -> Report:
    reasons = suppressions.suppressions_of(inputs.objects, inputs.troubles)
    entries = (_entry(one, reasons) for one in found)
    return Report(
        entries=tuple(_ordered(entries)),
        troubles=tuple(inputs.troubles),
        notes=tuple(inputs.notes),
        documents=inputs.documents,
        services=services,
        rate=options.facts.rate,
        rate_given=options.rate is not None,
        version=__version__,
        fail_on=None if options.fail_on == "never" else Severity(options.fail_on),
    )


def _entry(found: Found, reasons: suppressions.Reasons) -> Entry:
    finding = found.problem.finding
    located = object_of(found.objects, finding.kind, finding.ref)
    if located is None:
        key = ObjectKey(finding.kind, finding.ref.namespace, finding.ref.name)
        return Entry(found.problem, key, None)
    reason = reasons.get((located.key, located.source.name), {}).get(finding.risk, "")
    return Entry(found.problem, located.key, located.location(finding.path), suppressed=reason)


def _ordered(entries: Iterable[Entry]) -> list[Entry]:
    """By object, those with the worst findings first."""
    listed = list(entries)
    worst: dict[tuple[str, ObjectKey], int] = {}
    for entry in listed:
        where = (_source(entry), entry.key)
        worst[where] = min(worst.get(where, 9), RANKS[entry.severity])
    return sorted(
        listed,
        key=lambda e: (
            worst[_source(e), e.key],
            _source(e),
            e.key,
            RANKS[e.severity],
            -sum(w.lost.value for w in e.problem.windows),
            e.identity,
        ),
    )


def _source(entry: Entry) -> str:
    return entry.location.source if entry.location else ""


def _with_baseline(report: Report, known: frozenset[str] | None) -> Report:
    if known is None:
        return report
    entries = tuple(replace(e, known=e.fingerprint in known) for e in report.entries)
    stale = len(known - {e.fingerprint for e in entries})
    return replace(report, entries=entries, stale=stale)


def _write_baseline(path: Path, report: Report) -> None:
    try:
        count = baseline.write(path, report.entries)
    except baseline.BaselineError as error:
        raise click.UsageError(f"--write-baseline: {error}") from error
    click.echo(f"{path}: {count} findings are known from now on (--baseline {path})", err=True)


def _fix(options: Options, report: Report, found: Sequence[Found]) -> None:
    from upstream_guard.cli.check import fix  # noqa: PLC0415 - only --fix needs it

    kept = [one for one, entry in _paired(found, report) if entry.counts]
    plan = fix.plan(fix.repairs_of(kept))
    if options.write:
        for path, error in fix.write(plan):
            click.echo(f"{path}: {error}" if error else f"{path}: changed", err=True)
    else:
        base = fix.base_of(plan, Path.cwd())
        click.echo(fix.diff(plan, base), nl=False)
        if base != Path.cwd() and not options.quiet:
            click.echo(f"note: apply this with `patch -p1 -d {shlex.quote(str(base))}`", err=True)
    for repair, reason in plan.patches:
        click.echo(fix.patch_text(repair, reason), nl=False)
    if not plan.files and not plan.patches:
        if not report.unread:
            click.echo("Nothing to fix: no finding has a remedy that is a patch.", err=True)
    elif not options.quiet:
        by_hand = len(plan.patches)
        files = counted(len(plan.files), "file") + (
            " changed" if options.write else " would change"
        )
        click.echo(
            f"{files}, {by_hand} {'patch' if by_hand == 1 else 'patches'} left for you.", err=True
        )


def _paired(found: Sequence[Found], report: Report) -> Iterator[tuple[Found, Entry]]:
    entries = {id(e.problem): e for e in report.entries}
    return ((one, entries[id(one.problem)]) for one in found)


def _show(options: Options, report: Report) -> None:
    color = (
        sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    )
    text = renderer(options.output)(report, Look(color, options.quiet))
    click.echo(text, nl=False, color=True)


def _tell(options: Options, report: Report) -> None:
    """What went wrong in reading, on stderr; formats for machines have it too."""
    for trouble in report.troubles:
        if trouble.fatal or not options.quiet:
            prefix = "error" if trouble.fatal else "note"
            click.echo(f"{prefix}: {clean(str(trouble))}", err=True)
    if not options.quiet:
        for note in report.notes:
            click.echo(f"note: {clean(note)}", err=True)


def _tracked(states: Sequence[State]) -> Iterator[State]:
    """A progress bar for people who have waited for two seconds."""
    begin = time.monotonic()
    iterator = iter(states)
    done = 0
    for state in iterator:
        yield state
        done += 1
        if time.monotonic() - begin > PATIENCE_SECONDS and sys.stderr.isatty():
            break
    else:
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal pays for rich
    from rich.progress import track  # noqa: PLC0415

    yield from track(
        iterator,
        description="Predicting",
        total=len(states),
        completed=done,
        console=Console(stderr=True),
        transient=True,
    )
