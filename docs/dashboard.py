"""The Grafana dashboard, as a table of panels. `make docs` writes deploy/monitoring/grafana-dashboard.json from it.

Made with Grafana's own SDK in its variant for Grafana 10.1: later versions read what that one writes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

WIDTH = 24
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
MINE = 'namespace=~"$namespace", guard=~"$guard"'
"""Selects the guards that are chosen at the top."""


def gained(metric: str, by: str, selector: str = MINE) -> str:
    """What a counter gained in the time range, where its series begin with an increment and these are rare.

    `increase()` does not see the first increment of a series that was not there before.
    """
    series = f"{metric}{{{selector}}}"
    most = f"max_over_time({series}[$__range])"
    return f"sum by ({by}) ({most} - ({series} offset $__range or {most} * 0)) > 0"


def scored(outcomes: str) -> str:
    """The hits among these outcomes, in the time range."""
    metric = "upstream_guard_predictions_scored_total"
    hits = gained(metric, "outcome", f'{MINE}, outcome="hit"')
    chosen = gained(metric, "outcome", f'{MINE}, outcome=~"{outcomes}"')
    return f"(sum({hits}) or vector(0)) / sum({chosen})"


def each(metric: str, selector: str = "", by: str = "namespace, guard") -> str:
    """A gauge of whichever replica controls."""
    chosen = f"{MINE}, {selector}" if selector else MINE
    return f"max by ({by}) ({metric}{{{chosen}}})"


def rate(metric: str, by: str, selector: str = MINE) -> str:
    """A counter's increments in a second."""
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str = "") -> str:
    """A quantile of what was observed lately."""
    groups = f"le, {by}" if by else "le"
    buckets = f"sum by ({groups}) (rate({metric}_bucket[$__rate_interval]))"
    return f"histogram_quantile({share:g}, {buckets})"


def quantile_of_all(share: float, metric: str, by: str) -> str:
    """A quantile of everything that the replica which controls has observed since it started."""
    return f"histogram_quantile({share:g}, sum by (le, {by}) ({metric}_bucket))"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: Its title.
        about: What it shows, and how to read it.
        expressions: Each with the legend of its series.
        kind: Makes the panel of an expression's kind: a number, bars, a table, lines.
        unit: Grafana's name of it.
        width: Of 24.
        bad: From which value on it is red; None where no value is bad.
        stacked: Lines are areas on top of one another.
        quiet: Why it may well be empty, shown in its place; tests expect data in all others.
    """

    title: str
    about: str
    expressions: tuple[tuple[str, str], ...]
    kind: str = "lines"
    unit: str = "short"
    width: int = 8
    bad: float | None = None
    stacked: bool = False
    quiet: str = ""


@dataclass(frozen=True)
class Row:
    """Panels under a title."""

    title: str
    panels: tuple[Panel, ...] = field(default_factory=tuple)


GUARD = "{{namespace}}/{{guard}}"
BUDGET = (
    "min(1 - sum by (namespace, guard) (increase(upstream_guard_failing_seconds_total{"
    f"{MINE}}}[30d])) / (30 * 86400 * (1 - scalar(upstream_guard:objective:ratio))))"
)
CONDITIONS = (
    "max by (namespace, guard, condition, status, reason) ("
    f'upstream_guard_condition{{{MINE}, condition!="AtRisk", status!="True"}} or '
    f'upstream_guard_condition{{{MINE}, condition="AtRisk", status="True"}})'
)
CERTIFICATES = (
    "min by (namespace, guard, upstream) ("
    f"upstream_guard_upstream_certificate_expiry_timestamp_seconds{{{MINE}}}) - time()"
)
BLIND = f"count(max by (namespace, guard) (upstream_guard_condition{{{MINE}, reason='Blind'}})) or vector(0)"
FAILING = f"sum(max by (namespace, guard) (upstream_guard_endpoints{{{MINE}, state='failing'}}))"
DETACH = (
    'max by (kind, gateway, connections) (upstream_guard_gateway_detach_seconds{quantile="0.99"})'
)
ATTACH = 'max by (kind, gateway) (upstream_guard_gateway_attach_seconds{quantile="0.99"})'

ROWS = (
    Row(
        "Now",
        (
            Panel(
                "Windows open",
                "Requests fail through so many gateways at this moment.",
                ((f"sum({each('upstream_guard_windows_open')})", ""),),
                "number",
                width=4,
                bad=1,
            ),
            Panel(
                "Least error budget left",
                "Of 30 days, of the guard that has least; below 0 the objective is missed. Needs the recording "
                "rules. Before 30 days have been recorded, what is missing counts as good.",
                ((BUDGET, ""),),
                "number",
                "percentunit",
                4,
            ),
            Panel(
                "502-seconds",
                "Seconds in which requests failed, in the time range, of all chosen guards.",
                (
                    (
                        f"sum(increase(upstream_guard_failing_seconds_total{{{MINE}}}[$__range]))",
                        "",
                    ),
                ),
                "number",
                "s",
                4,
            ),
            Panel(
                "Requests lost",
                "In windows that ended in the time range.",
                (
                    (
                        f"sum(increase(upstream_guard_window_lost_requests_total{{{MINE}}}[$__range]))",
                        "",
                    ),
                ),
                "number",
                width=4,
            ),
            Panel(
                "Expected to be lost",
                "In the changes that are under way.",
                ((f"sum({each('upstream_guard_predicted_lost_requests')})", ""),),
                "number",
                width=4,
                bad=1,
            ),
            Panel(
                "Failing and still listed",
                "Endpoints that do not serve and may not be taken out: the floor, blindness, or a guard that only "
                "looks on.",
                ((FAILING, ""),),
                "number",
                width=4,
                bad=1,
            ),
            Panel(
                "What is not as it should be",
                "Conditions of the chosen guards with their reasons; docs/reference/events.md says what to do.",
                ((CONDITIONS, ""),),
                "table",
                width=WIDTH,
                quiet="all is well",
            ),
        ),
    ),
    Row(
        "Windows",
        (
            Panel(
                "Share of the time in which requests fail",
                "1 while a window is open; lines of several guards do not add up.",
                (
                    (
                        rate("upstream_guard_failing_seconds_total", "namespace, guard"),
                        GUARD,
                    ),
                ),
                unit="percentunit",
            ),
            Panel(
                "Windows open",
                "By guard.",
                ((each("upstream_guard_windows_open"), GUARD),),
            ),
            Panel(
                "Requests as the gateways counted them",
                "By the status that clients got, where a gateway tells; the operator reads it itself.",
                (
                    (
                        rate("upstream_guard_gateway_requests_total", "gateway, code"),
                        "{{gateway}} {{code}}",
                    ),
                ),
                unit="reqps",
                stacked=True,
                quiet="no gateway that counts",
            ),
            Panel(
                "Windows by cause",
                "Ended in the time range; predicted or not.",
                (
                    (
                        gained("upstream_guard_windows_total", "cause, predicted"),
                        "{{cause}}, predicted: {{predicted}}",
                    ),
                ),
                "bars",
                quiet="no window ended",
            ),
            Panel(
                "502-seconds by cause",
                "Of windows that ended in the time range.",
                ((gained("upstream_guard_window_seconds_total", "cause"), "{{cause}}"),),
                "bars",
                "s",
                quiet="no window ended",
            ),
            Panel(
                "Requests lost, by how they are known",
                "Exact where the gateway counted them.",
                ((gained("upstream_guard_window_lost_requests_total", "counted"), "{{counted}}"),),
                "bars",
                quiet="no window ended",
            ),
            Panel(
                "502-seconds by kind of change",
                "Of windows that opened during a change.",
                ((gained("upstream_guard_change_window_seconds_total", "change"), "{{change}}"),),
                "bars",
                "s",
                width=12,
                quiet="no window in a change",
            ),
            Panel(
                "Requests lost by kind of change",
                "In windows that opened during a change.",
                ((gained("upstream_guard_change_lost_requests_total", "change"), "{{change}}"),),
                "bars",
                width=12,
                quiet="no window in a change",
            ),
        ),
    ),
    Row(
        "Predictions",
        (
            Panel(
                "Requests expected to be lost",
                "In the changes that are under way.",
                ((each("upstream_guard_predicted_lost_requests"), GUARD),),
            ),
            Panel(
                "Standing risks",
                "What waits for the next change, by severity.",
                (
                    (
                        f"sum by (severity) ({each('upstream_guard_standing_risks', '', 'namespace, guard, severity')})",
                        "{{severity}}",
                    ),
                ),
            ),
            Panel(
                "Predictions by what became of them",
                "Of changes that ended in the time range.",
                (
                    (
                        gained("upstream_guard_predictions_scored_total", "change, outcome"),
                        "{{change}}: {{outcome}}",
                    ),
                ),
                "bars",
                quiet="no change ended",
            ),
            Panel(
                "Precision and recall",
                "Hits of what was predicted, and of what happened, in the time range.",
                (
                    (scored("hit|false-alarm"), "precision"),
                    (scored("hit|miss"), "recall"),
                ),
                "number",
                "percentunit",
                quiet="no prediction was scored",
            ),
            Panel(
                "Lead of predictions",
                "From the prediction to the first failed request, by change; since the operator started.",
                (
                    (
                        quantile_of_all(0.5, "upstream_guard_prediction_lead_seconds", "change"),
                        "{{change}}, median",
                    ),
                    (
                        quantile_of_all(0.1, "upstream_guard_prediction_lead_seconds", "change"),
                        "{{change}}, one in ten less",
                    ),
                ),
                "bars",
                "s",
                quiet="no prediction was met",
            ),
            Panel(
                "Error of predicted durations",
                "Between the predicted and the observed duration, by change; since the operator started.",
                (
                    (
                        quantile_of_all(
                            0.5, "upstream_guard_prediction_duration_error_seconds", "change"
                        ),
                        "{{change}}, median",
                    ),
                ),
                "bars",
                "s",
                quiet="no prediction was met",
            ),
        ),
    ),
    Row(
        "Endpoints",
        (
            Panel(
                "Endpoints by state",
                "One endpoint may count in several states: listed, and serving or failing.",
                (
                    (
                        f"sum by (state) ({each('upstream_guard_endpoints', '', 'namespace, guard, state')})",
                        "{{state}}",
                    ),
                ),
            ),
            Panel(
                "Gates set, by reason",
                "Admitted, ejected, restored, … in the time range.",
                ((gained("upstream_guard_gate_changes_total", "reason"), "{{reason}}"),),
                "bars",
                quiet="no gate was set",
            ),
            Panel(
                "Ejections by cause",
                "In the time range.",
                ((gained("upstream_guard_ejections_total", "cause"), "{{cause}}"),),
                "bars",
                quiet="nothing was ejected",
            ),
            Panel(
                "Probes by result",
                "Requests to each endpoint.",
                ((rate("upstream_guard_probe_results_total", "result"), "{{result}}"),),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Requests of the operator's own through gateways, by result",
                "Route probes.",
                (
                    (
                        rate("upstream_guard_route_probes_total", "gateway, result"),
                        "{{gateway}}: {{result}}",
                    ),
                ),
                unit="reqps",
                stacked=True,
                quiet="no route to ask through",
            ),
            Panel(
                "From a verdict to the EndpointSlice",
                "99 of 100 are faster; out: an ejection.",
                (
                    (
                        quantile(
                            0.99, "upstream_guard_verdict_to_endpointslice_seconds", "direction"
                        ),
                        "{{direction}}",
                    ),
                ),
                unit="s",
                quiet="no gate was set",
            ),
        ),
    ),
    Row(
        "Gateways",
        (
            Panel(
                "Detach latency, measured",
                "From the write that takes an endpoint away to the last request that it gets; by the canary.",
                ((DETACH, "{{gateway}}, {{connections}} connections"),),
                unit="s",
                quiet="no gateway was measured",
            ),
            Panel(
                "Attach latency, measured",
                "From the write that adds an endpoint to its first request; by the canary.",
                ((ATTACH, "{{gateway}}"),),
                unit="s",
                quiet="no gateway was measured",
            ),
            Panel(
                "preStop in force",
                "What new pods of each guard sleep before they are stopped.",
                ((each("upstream_guard_drain_pre_stop_seconds"), GUARD),),
                unit="s",
            ),
            Panel(
                "Removed endpoints that a gateway still holds",
                "For seconds after each change; not for minutes.",
                (
                    (
                        each(
                            "upstream_guard_gateway_stale_endpoints", by="namespace, guard, gateway"
                        ),
                        "{{gateway}}: " + GUARD,
                    ),
                ),
                quiet="no gateway whose list can be read",
            ),
            Panel(
                "Looks at gateways, by result",
                "At their metrics and lists.",
                (
                    (
                        rate("upstream_guard_gateway_scrapes_total", "gateway, result", ""),
                        "{{gateway}}: {{result}}",
                    ),
                ),
                unit="ops",
                quiet="no gateway that can be read",
            ),
            Panel(
                "Toggles of the canary, by result",
                "In the time range.",
                (
                    (
                        gained("upstream_guard_canary_toggles_total", "gateway, result", ""),
                        "{{gateway}}: {{result}}",
                    ),
                ),
                "bars",
                quiet="no gateway was measured",
            ),
        ),
    ),
    Row(
        "External upstreams",
        (
            Panel(
                "On the last known good addresses",
                "Upstreams of each guard for which DNS fails.",
                ((each("upstream_guard_dns_last_known_good"), GUARD),),
                quiet="no guard with external upstreams",
            ),
            Panel(
                "What DNS answers",
                "By result.",
                ((rate("upstream_guard_dns_lookups_total", "result", ""), "{{result}}"),),
                unit="ops",
                stacked=True,
                quiet="no guard with external upstreams",
            ),
            Panel(
                "Until certificates end",
                "The earliest of each upstream's.",
                ((CERTIFICATES, "{{upstream}}"),),
                "bars",
                "s",
                quiet="no external upstream with TLS",
            ),
        ),
    ),
    Row(
        "Operator",
        (
            Panel(
                "Replicas that control",
                "1. While it is 0 nobody admits, ejects or notices anything.",
                (("sum(upstream_guard_leading)", ""),),
                "number",
                width=4,
            ),
            Panel(
                "Replicas",
                "That Prometheus sees; the others stand by.",
                (("count(upstream_guard_leading)", ""),),
                "number",
                width=4,
            ),
            Panel(
                "Guards it cannot see",
                "Blind: no endpoint is seen to serve while the kubelet says otherwise; nothing is ejected.",
                ((BLIND, ""),),
                "number",
                width=4,
                bad=1,
            ),
            Panel(
                "Since the Lease was renewed",
                "It is renewed every 2 s; after 10 s another replica takes it.",
                (("max by (namespace, pod) (upstream_guard_lease_age_seconds)", "{{pod}}"),),
                unit="s",
                width=12,
            ),
            Panel(
                "Lateness of the event loop",
                "99 of 100 timers are less late.",
                ((quantile(0.99, "upstream_guard_loop_lag_seconds", "pod"), "{{pod}}"),),
                unit="s",
            ),
            Panel(
                "Since the API server last said something",
                "By resource; about a minute in peace.",
                (
                    (
                        "max by (namespace, resource) (upstream_guard_watch_age_seconds)",
                        "{{resource}}",
                    ),
                ),
                unit="s",
            ),
            Panel(
                "Writes to the API server",
                "Nearly none in a steady cluster but those of the Lease.",
                (
                    (
                        rate("upstream_guard_api_writes_total", "resource, code", ""),
                        "{{resource}} {{code}}",
                    ),
                ),
                unit="ops",
                stacked=True,
            ),
            Panel(
                "Admission requests",
                "By outcome.",
                (
                    (
                        rate("upstream_guard_webhook_requests_total", "path, outcome", ""),
                        "{{path}}: {{outcome}}",
                    ),
                ),
                unit="ops",
                stacked=True,
                quiet="no pod was made under a guard",
            ),
            Panel(
                "Probes discarded because the operator was late",
                "Of each replica, in the time range.",
                (("max by (pod) (delta(upstream_guard_probes_delayed[$__range]))", "{{pod}}"),),
                "bars",
            ),
            Panel(
                "Time that predictions take",
                "99 of 100 take less: of a change that began, of a review of standing risks.",
                (
                    (
                        quantile(0.99, "upstream_guard_prediction_duration_seconds", "kind"),
                        "{{kind}}",
                    ),
                ),
                unit="s",
                quiet="nothing was predicted",
            ),
        ),
    ),
)


def _number(panel: Panel) -> Any:
    shown = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    colour = (
        looks.BigValueColorMode.VALUE if panel.bad is None else looks.BigValueColorMode.BACKGROUND
    )
    made = (
        stat.Panel()
        .reduce_options(shown)
        .graph_mode(looks.BigValueGraphMode.NONE)
        .color_mode(colour)
    )
    return made.height(4)


def _bars(_: Panel) -> Any:
    shown = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    made = bargauge.Panel().reduce_options(shown).orientation(looks.VizOrientation.HORIZONTAL)
    return made.display_mode(looks.BarGaugeDisplayMode.BASIC).height(8)


def _table(_: Panel) -> Any:
    hidden = model.DataTransformerConfig(
        "organize",
        {"excludeByName": {"Time": True, "Value": True}, "indexByName": {}, "renameByName": {}},
    )
    return table.Panel().with_transformation(hidden).height(6)


def _lines(panel: Panel) -> Any:
    legend = (
        common.VizLegendOptions()
        .display_mode(looks.LegendDisplayMode.LIST)
        .placement(looks.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    tooltip = (
        common.VizTooltipOptions()
        .mode(looks.TooltipDisplayMode.MULTI)
        .sort(looks.SortOrder.DESCENDING)
    )
    made = timeseries.Panel().legend(legend).tooltip(tooltip).line_width(1).min(0).height(8)
    if panel.stacked:
        made = made.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL)).fill_opacity(
            20
        )
    return made


KINDS: dict[str, Callable[[Panel], Any]] = {
    "number": _number,
    "bars": _bars,
    "table": _table,
    "lines": _lines,
}
AT_ONCE = frozenset({"number", "bars", "table"})
"""Kinds that show one moment: their expressions are asked for once, not for each point in time."""


def _built(panel: Panel, number: int) -> Any:
    made = KINDS[panel.kind](panel).id(number).datasource(SOURCE)
    made = made.title(panel.title).description(panel.about).unit(panel.unit).span(panel.width)
    steps = [model.Threshold(color="green", value=None)]
    if panel.bad is not None:
        steps.append(model.Threshold(color="red", value=panel.bad))
    made = made.thresholds(
        dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    )
    if panel.quiet:
        made = made.no_value(panel.quiet)
    for letter, (expression, legend) in zip("ABCDEF", panel.expressions, strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter)
        query = query.datasource(SOURCE)
        if panel.kind in AT_ONCE:
            query = query.instant()
        if panel.kind == "table":
            query = query.format(PromQueryFormat.TABLE)
        made = made.with_target(query)
    return made


def _variable(name: str, label: str, query: str) -> Any:
    made = dashboard.QueryVariable(name).label(label).query(query).datasource(SOURCE)
    made = made.include_all(True).multi(True).all_value(".+")
    made = made.current(model.VariableOption(selected=True, text="All", value="$__all"))
    return made.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(
        model.VariableSort.ALPHABETICAL_ASC
    )


def _variables() -> Iterator[Any]:
    yield dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source")
    guards = "upstream_guard_condition"
    yield _variable("namespace", "Namespace", f"label_values({guards}, namespace)")
    yield _variable("guard", "Guard", f'label_values({guards}{{namespace=~"$namespace"}}, guard)')


def panels() -> Iterable[Panel]:
    """All of them, in the order of the dashboard."""
    return (panel for row in ROWS for panel in row.panels)


def render() -> str:
    """The dashboard as JSON."""
    made = (
        dashboard.Dashboard("Upstream Guard")
        .uid("upstream-guard")
        .description(
            "502 windows: what fails, what was predicted and prevented, and how the operator is."
        )
        .tags(["upstream-guard"])
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .editable()
    )
    for variable in _variables():
        made = made.with_variable(variable)
    number = 0
    for row in ROWS:
        made = made.with_row(dashboard.Row(row.title).id(number := number + 1))
        for panel in row.panels:
            made = made.with_panel(_built(panel, number := number + 1))
    return JSONEncoder(sort_keys=True, indent=1, ensure_ascii=False).encode(made.build()) + "\n"
