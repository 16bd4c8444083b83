"""What an expression of PromQL asks for: metrics and labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import promql_parser
from prometheus_client.metrics import MetricWrapperBase

from upstream_guard.metrics import Metrics

TARGET = frozenset({"namespace", "pod", "instance", "job"})
"""Labels that come with the scrape."""
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


@dataclass(frozen=True)
class Use:
    """One metric in an expression, or (without a name) labels by which something is aggregated or joined."""

    name: str
    labels: frozenset[str]


def uses(expression: str) -> list[Use]:
    """Every metric and every grouping, in the order of the text; raises ValueError where it is no PromQL."""
    found: list[Use] = []

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            labels = frozenset(m.name for m in node.matchers.matchers)
            found.append(Use(node.name or "", labels))
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            found.append(Use("", frozenset(node.modifier.labels)))
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier:
            both = (node.modifier.matching, node.modifier.group_labels)
            found.extend(Use("", frozenset(getattr(p, "labels", p) or ())) for p in both)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@cache
def exported() -> dict[str, frozenset[str]]:
    """The labels of every series that the operator exports, by its name as it is scraped."""
    made = (m for m in vars(Metrics()).values() if isinstance(m, MetricWrapperBase))
    return {
        f"{metric._name}{suffix}": frozenset(metric._labelnames)
        | ({"le"} if suffix == "_bucket" else set())
        for metric in made
        for suffix in SUFFIXES[metric._type]
    }


def mistakes(expression: str, recorded: dict[str, frozenset[str]]) -> Iterator[str]:
    """What an expression uses that neither the operator exports nor a rule records."""
    known = {**exported(), **recorded}
    found = uses(expression)
    available = set(TARGET)
    for use in found:
        if use.name:
            if use.name not in known:
                yield f"no metric {use.name}"
                continue
            available |= known[use.name]
            for label in use.labels - known[use.name] - TARGET:
                yield f"{use.name} has no label {label}"
    for use in found:
        for label in use.labels - available if not use.name else ():
            yield f"nothing in it has the label {label}"
