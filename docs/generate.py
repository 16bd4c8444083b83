"""Write docs/reference/ from the code, and manifests from others: `make docs`. A test fails when they are stale.

One function per file, listed in `PAGES` and `MANIFESTS`; each returns its text and reads no clock, so that the
same code always gives the same file.

Usage: python docs/generate.py [--check]
"""

import importlib.util
import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from prometheus_client import CollectorRegistry

from upstream_guard import cli
from upstream_guard.core.names import OPERATOR_NAMESPACE
from upstream_guard.core.predict.churn import MIN_SYNC_PERIOD
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.reasons import REASONS, ConditionType, Reason, ReasonInfo
from upstream_guard.core.tuning import GatewayKind
from upstream_guard.gateways import PROFILES, cluster_ip
from upstream_guard.gateways.answers import answer_cells, answers_table
from upstream_guard.gateways.behaviour import model_of
from upstream_guard.gateways.profile import Profile
from upstream_guard.lab.conformance import report as conformance
from upstream_guard.lab.faults import report as faults
from upstream_guard.metrics import Metrics
from upstream_guard.resources.status import format_seconds

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs/reference"
CLI_WIDTH = 100
PAGES_FOLDER = "../../operator/upstream_guard/pages"
SCOPES = {"Namespaced": "namespaced", "Cluster": "cluster-scoped"}

Schema = Mapping[str, Any]


def crd_page() -> str:
    """The fields of our resources, from crds/."""
    parts = ["# Resources\n\n" + _generated("crds/")]
    for path in sorted((ROOT / "crds").glob("*.yaml"), reverse=True):
        crd = yaml.safe_load(path.read_text())
        if crd["kind"] == "CustomResourceDefinition":
            parts.append(_resource(crd["spec"]))
    return "\n".join(parts)


def _resource(spec: Schema) -> str:
    names, version = spec["names"], spec["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [
        f"## {names['kind']}\n",
        f"{schema['description']}\n",
        (
            f"`{spec['group']}/{version['name']}`, {SCOPES[spec['scope']]}, "
            f"`kubectl get {names['shortNames'][0]}`.\n"
        ),
        "### Columns\n",
        *_table(
            ("column", "meaning"),
            (
                (c["name"] + (" (with `-o wide`)" if c.get("priority") else ""), c["description"])
                for c in version["additionalPrinterColumns"]
                if "description" in c
            ),
        ),
    ]
    for part in ("spec", "status"):
        if part in schema["properties"]:
            top = schema["properties"][part]
            rows = list(_fields(part, top))
            lines += [f"\n### {part}\n", f"{top['description']}\n"]
            lines += _table(("field", "type", "default", "meaning"), rows)
            rules = list(_rules(part, top))
            if rules:
                lines += ["\nRefused, beside values out of range:\n", *rules]
    return "\n".join(lines) + "\n"


def _fields(path: str, schema: Schema) -> Iterator[tuple[str, str, str, str]]:
    required = set(schema.get("required", ()))
    for name, child in schema.get("properties", {}).items():
        field = f"{path}.{name}"
        default = _value(child["default"]) if _has_own_default(child) else ""
        if name in required and path.startswith("spec"):
            default = "required"
        yield f"`{field}`", _type(child), default, child.get("description", "")
        yield from _fields(field, child)
        items = child.get("items", {})
        yield from _fields(f"{field}[]", items)


def _has_own_default(schema: Schema) -> bool:
    """An object's default of {} only makes the defaults of its fields apply."""
    return "default" in schema and schema["default"] != {}


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    kind = str(schema.get("type", ""))
    if "enum" in schema:
        return " \\| ".join(_value(value) for value in schema["enum"])
    if "duration(" in str(schema.get("x-kubernetes-validations", "")) and kind == "string":
        return "duration or `Auto`" if "Auto" in schema["pattern"] else "duration"
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if "minimum" in schema and "maximum" in schema:
        return f"{kind}, {schema['minimum']} to {schema['maximum']}"
    return kind


def _value(value: object) -> str:
    return f"`{value}`" if value != "" else "`''`"


def _rules(path: str, schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"- `{path}{rule.get('fieldPath', '')}`: {rule['message']}"
    for name, child in schema.get("properties", {}).items():
        yield from _rules(f"{path}.{name}", child)
        yield from _rules(f"{path}.{name}[]", child.get("items", {}))


def events_page() -> str:
    """Reasons of conditions and events, from upstream_guard/core/reasons.py."""
    lines = [
        "# Conditions and events\n",
        _generated("operator/upstream_guard/core/reasons.py"),
        "Reasons are never renamed: alerts and scripts may rely on them.\n",
    ]
    for condition, meaning in CONDITIONS.items():
        rows = [(r, i) for r, i in REASONS.items() if i.condition is condition]
        lines += [f"## Condition {condition}\n", f"{meaning}\n"]
        lines += _table(("reason", "meaning", "what to do"), _reason_rows(rows))
        lines.append("")
    events = [(r, i) for r, i in REASONS.items() if i.condition is None]
    lines += ["## Events\n", "Shown by `kubectl get events` and `kubectl describe ug NAME`.\n"]
    lines += _table(
        ("reason", "type", "meaning", "what to do"),
        ((f"`{r}`", i.type.value, i.note, i.action) for r, i in events),
    )
    return "\n".join(lines) + "\n"


CONDITIONS = {
    ConditionType.ACCEPTED: "The guard is valid, its Service exists, and no other guard owns it.",
    ConditionType.PROGRAMMED: "What the operator decides reaches the upstream list.",
    ConditionType.HEALTHY: "Every endpoint that should be listed was seen to serve.",
    ConditionType.AT_RISK: "The next change (rollout, scale-in, drain) will open a window as things are.",
}


def _reason_rows(rows: Iterable[tuple[Reason, ReasonInfo]]) -> Iterator[tuple[str, str, str]]:
    for reason, info in rows:
        yield f"`{reason}`", info.note, info.action


def gateways_page() -> str:
    """The built-in gateway profiles."""
    lines = [
        "# Gateways\n",
        _generated("operator/upstream_guard/gateways/"),
        (
            "What `preStop: Auto` rests on until a gateway has been measured: the detach latency and "
            "its margin, rounded up. A `GatewayProfile` replaces these numbers.\n"
        ),
        *_table(
            ("controller", "detach", "margin", "attach", "recognised by", "evidence"),
            (_gateway_row(profile) for profile in PROFILES.values()),
        ),
        "\n## How each treats its upstreams\n",
        (
            "What predictions are made with, for a gateway that is configured as its product comes. "
            "Latencies count from the EndpointSlice's change and are given as low / likely / high; "
            f"kube-proxy waits up to {format_seconds(MIN_SYNC_PERIOD)} on top, because it updates at "
            "most that often. `none` as a status: the client's connection ends without one. Certain: "
            "measured, or read in the product's code. A `GatewayProfile` replaces the latencies, "
            "time-outs and retries.\n"
        ),
    ]
    for profile in PROFILES.values():
        lines += _gateway_section(profile)
    return "\n".join(lines) + "\n"


def _gateway_section(profile: Profile) -> Iterator[str]:
    gateway = model_of(profile.facts(profile.controller, GatewayKind.PROFILE))
    behaviour = gateway.behaviour
    yield f"### {profile.controller}\n"
    yield f"- detach: {_estimate(gateway.detach)}"
    yield f"- attach: {_estimate(gateway.attach)}"
    if gateway.throttle:
        yield f"- at most one update of its list every {format_seconds(gateway.throttle)}"
    yield f"- connect time-out: {_limit(behaviour.connect_timeout)}"
    yield f"- read time-out: {_limit(behaviour.read_timeout)}"
    yield f"- closes idle upstream connections after: {_limit(behaviour.keepalive_idle)}"
    yield f"- retries of a refused connection that meet a fresh pick: {behaviour.refused_retries}"
    if behaviour.serves_terminating:
        yield "- with no ready endpoint left it uses terminating ones that still serve"
    if not behaviour.reads_ready:
        yield "- it gets endpoints that are not ready as well"
    yield ""
    if not behaviour.answers:
        yield "What it answers depends on the proxy, which is not known.\n"
        return
    yield from _table(
        ("cause", "status", "in its words", "certain"),
        (
            (f"`{cause}`", *answer_cells(answer))
            for cause, answer in sorted(behaviour.answers.items())
        ),
    )
    yield ""


def _estimate(estimate: Estimate) -> str:
    if estimate.low == estimate.high:
        return f"{format_seconds(estimate.value)} ({estimate.source})"
    numbers = " / ".join(format_seconds(n) for n in (estimate.low, estimate.value, estimate.high))
    return f"{numbers} ({estimate.evidence}: {estimate.source})"


def _limit(seconds: float | None) -> str:
    if seconds is None:
        return "not known"
    return "none" if math.isinf(seconds) else format_seconds(seconds)


def _gateway_row(profile: Profile) -> tuple[str, ...]:
    found_by = [
        *(f"IngressClass of `{p}`" for p in profile.ingress_controllers),
        *(f"class `{c}`" for c in profile.ingress_classes),
        *(f"GatewayClass of `{p}`" for p in profile.gateway_controllers),
    ]
    return (
        f"`{profile.controller}`",
        format_seconds(profile.detach_seconds),
        format_seconds(profile.margin_seconds),
        format_seconds(profile.attach_seconds),
        ", ".join(found_by) or _found_otherwise(profile),
        f"{profile.evidence}: {profile.source}",
    )


def _found_otherwise(profile: Profile) -> str:
    by_name = f"a GatewayProfile with `controller: {profile.controller}`"
    return f"{by_name}, or no route at all" if profile is cluster_ip.PROFILE else by_name


def cli_page() -> str:
    """The command line, from its own help."""
    lines = ["# Command line\n", _generated("operator/upstream_guard/cli/")]
    for path, command in _commands(_built(cli.main), "upstream-guard"):
        context = click.Context(
            command,
            info_name=path,
            max_content_width=CLI_WIDTH,
            terminal_width=CLI_WIDTH,
            help_option_names=cli.main.context_settings.get("help_option_names"),
        )
        lines += [f"## {path}\n", "```text", command.get_help(context).rstrip(), "```\n"]
    return "\n".join(lines)


def _built(root: click.Group) -> click.Group:
    """The root with the commands whose module exists; others are announced, and not built yet."""
    context = click.Context(root)
    built = click.Group(root.name, params=root.params, help=root.help)
    built.context_settings = root.context_settings
    for name, module in cli.COMMANDS.items():
        if importlib.util.find_spec(module) is None:
            continue
        command = root.get_command(context, name)
        if command is not None:
            built.add_command(command, name)
    return built


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _commands(child, f"{path} {name}")


def metrics_page() -> str:
    """Every metric, from upstream_guard/metrics.py."""
    registry = CollectorRegistry()
    Metrics(registry)
    rows = sorted(
        (
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            family.documentation,
        )
        for family in registry.collect()
    )
    lines = ["# Metrics\n", _generated("operator/upstream_guard/metrics.py")]
    lines += _table(("metric", "type", "meaning"), rows)
    return "\n".join(lines) + "\n"


def risks_page() -> str:
    """Every risk with its page, and how its cause looks at each gateway."""
    lines = [
        "# Risks\n",
        _generated("operator/upstream_guard/core/predict/risks.py"),
        (
            "What `upstream-guard check` and the operator report, by ID. `upstream-guard explain ID` "
            "prints the page behind the link. IDs are never renamed: baselines and suppressions rely "
            "on them.\n"
        ),
        *_table(
            ("ID", "what is wrong", "cause", "severity", "source"),
            (
                (
                    f"[`{risk}`]({PAGES_FOLDER}/{risk}.md)",
                    info.title,
                    f"[`{info.cause}`](#{info.cause})",
                    info.severity.value,
                    info.source,
                )
                for risk, info in RISKS.items()
            ),
        ),
        "\n## How it looks at each gateway\n",
        "By cause; with the settings that the product comes with.\n",
    ]
    for cause in sorted({info.cause for info in RISKS.values()}):
        lines += [f"### {cause}\n", answers_table(cause), ""]
    return "\n".join(lines) + "\n"


def conformance_page() -> str:
    """What gateways were measured to answer, from docs/conformance.json."""
    return conformance.markdown(conformance.read(ROOT / "docs/conformance.json"))


def faults_page() -> str | None:
    """What was told of faults on a real cluster, from docs/faults.json; None where there is none."""
    path = ROOT / "docs/faults.json"
    return faults.markdown(faults.read(path)) if path.is_file() else None


def prometheus_rule() -> str:
    """The rules for prometheus-operator, from deploy/monitoring/rules.yaml: the same text, one level down."""
    text = (ROOT / "deploy/monitoring/rules.yaml").read_text()
    rules = text[text.index("groups:") :]
    head = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "upstream-guard",
            "namespace": OPERATOR_NAMESPACE,
            "labels": {"app.kubernetes.io/name": "upstream-guard"},
        },
    }
    source = "# Generated from rules.yaml by `make docs`; edit there.\n"
    spec = textwrap.indent(rules, "  ")
    return f"{source}{yaml.safe_dump(head, sort_keys=False)}spec:\n{spec}"


def grafana_dashboard() -> str:
    """The dashboard, from docs/dashboard.py, which is found where this file is run from elsewhere too."""
    name = "upstream_guard_dashboard"
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs/dashboard.py")
    if spec is None or spec.loader is None:
        raise ImportError("docs/dashboard.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    text: str = module.render()
    return text


PAGES: Mapping[str, Callable[[], str | None]] = {
    "crd.md": crd_page,
    "events.md": events_page,
    "gateways.md": gateways_page,
    "cli.md": cli_page,
    "metrics.md": metrics_page,
    "risks.md": risks_page,
    "conformance.md": conformance_page,
    "../faults.md": faults_page,
}
MANIFESTS: Mapping[str, Callable[[], str]] = {
    "deploy/monitoring/prometheusrule.yaml": prometheus_rule,
    "deploy/monitoring/grafana-dashboard.json": grafana_dashboard,
}


def _generated(source: str) -> str:
    return f"Generated from `{source}` by `make docs`; edit there.\n"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    titles = list(head)
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    lines += [f"| {' | '.join(cell.replace(chr(10), ' ') for cell in row)} |" for row in rows]
    return lines


def render() -> dict[str, str]:
    """Every page's text by its file name, every manifest's by its path."""
    pages = {name: page() for name, page in (PAGES | MANIFESTS).items()}
    return {name: text.rstrip() + "\n" for name, text in pages.items() if text is not None}


def stale() -> list[str]:
    """Names of the files that differ from what the code says."""
    return [
        name
        for name, text in render().items()
        if not _path(name).is_file() or _path(name).read_text() != text
    ]


def _path(name: str) -> Path:
    return (ROOT / name if name in MANIFESTS else TARGET / name).resolve()


def main() -> int:
    """Write the files, or with `--check` only compare them."""
    if sys.argv[1:] == ["--check"]:
        old = stale()
        click.echo(f"stale: {', '.join(old)}; run `make docs`" if old else "docs are up to date")
        return 1 if old else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        _path(name).write_text(text)
        click.echo(f"wrote {_path(name).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
