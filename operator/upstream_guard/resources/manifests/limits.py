"""What limits a Service's pods: disruption budgets, autoscalers, network policies and quotas."""

from collections.abc import Iterator
from typing import Final

from upstream_guard.core.predict.state import (
    Autoscaler,
    Budget,
    IngressRule,
    LabelSelector,
    NetworkPolicy,
    Peer,
    Quota,
)
from upstream_guard.resources.kube_objects import Json
from upstream_guard.resources.manifests.reading import (
    EMPTY,
    many,
    port,
    port_number,
    quantities,
    record,
    ref_of,
    resource,
    selector,
    share,
    slots,
    text,
    whole,
    words,
)

BUDGET: Final = resource(
    apiVersion=text, spec=record(selector=selector, minAvailable=share, maxUnavailable=share)
)
AUTOSCALER: Final = resource(
    spec=record(
        scaleTargetRef=record(kind=text, name=text),
        minReplicas=whole,
        maxReplicas=whole,
        behavior=record(scaleDown=record(stabilizationWindowSeconds=whole)),
    )
)
POLICY: Final = resource(
    spec=record(
        podSelector=selector,
        policyTypes=words,
        ingress=many(
            record(
                **{
                    "from": slots(
                        record(
                            podSelector=selector,
                            namespaceSelector=selector,
                            ipBlock=record(cidr=text),
                        )
                    )
                },
                ports=many(record(port=port, endPort=port_number, protocol=text)),
            )
        ),
    )
)
QUOTA: Final = resource(
    spec=record(hard=quantities, scopes=words, scopeSelector=record()),
    status=record(hard=quantities, used=quantities),
)

_DEFAULT_WINDOW: Final = 300
"""Seconds for which an autoscaler looks back before it scales in, by default."""
_SERVING_SCOPES: Final = frozenset({"NotTerminating", "NotBestEffort"})
"""Scopes of a quota that pods behind a Service fall under; others concern some pods only."""


def parse_budget(raw: object) -> Budget | None:
    """A PodDisruptionBudget; none where it selects no pods.

    That is without a selector, and in policy/v1beta1 with an empty one too.
    """
    obj = BUDGET(raw)
    if obj is None:
        return None
    spec: Json = obj.get("spec", EMPTY)
    selected: LabelSelector | None = spec.get("selector")
    beta = obj.get("apiVersion") == "policy/v1beta1"
    if selected is None or (beta and selected == LabelSelector()):
        return None
    return Budget(ref_of(obj), selected, spec.get("minAvailable"), spec.get("maxUnavailable"))


def parse_autoscaler(raw: object) -> Autoscaler | None:
    """A HorizontalPodAutoscaler of any version; none where it names no target."""
    obj = AUTOSCALER(raw)
    if obj is None:
        return None
    spec: Json = obj.get("spec", EMPTY)
    target: Json = spec.get("scaleTargetRef", EMPTY)
    kind, name = target.get("kind"), target.get("name")
    if not kind or not name:
        return None
    least = spec.get("minReplicas", 1)
    scale_down: Json = spec.get("behavior", EMPTY).get("scaleDown", EMPTY)
    return Autoscaler(
        ref=ref_of(obj),
        target=f"{kind.lower()}/{name}",
        min_replicas=least,
        max_replicas=max(least, spec.get("maxReplicas", 1)),
        scale_down_window=float(scale_down.get("stabilizationWindowSeconds", _DEFAULT_WINDOW)),
    )


def parse_network_policy(raw: object) -> NetworkPolicy | None:
    """A NetworkPolicy: its rules for TCP connections to pods."""
    obj = POLICY(raw)
    if obj is None:
        return None
    spec: Json = obj.get("spec", EMPTY)
    types = spec.get("policyTypes")
    return NetworkPolicy(
        ref=ref_of(obj),
        selector=spec.get("podSelector", LabelSelector()),
        ingress=tuple(_rules(spec)),
        isolates_ingress=not types or "Ingress" in types,
    )


def _rules(spec: Json) -> Iterator[IngressRule]:
    for rule in spec.get("ingress", ()):
        ports = rule.get("ports", [])
        of_tcp = [p for p in ports if p.get("protocol", "TCP") == "TCP"]
        if ports and not of_tcp:
            continue  # It allows other protocols only; as a rule without ports it would allow all.
        peers = tuple(
            Peer(
                peer.get("podSelector"),
                peer.get("namespaceSelector"),
                peer.get("ipBlock", EMPTY).get("cidr", ""),
            )
            for peer in rule.get("from", ())
        )
        yield IngressRule(peers, tuple(_port_range(p) for p in of_tcp))


def _port_range(raw: Json) -> tuple[int | str, int]:
    first = raw.get("port")
    if first is None:
        return 1, 65535
    if isinstance(first, str):
        return first, 0
    return first, raw.get("endPort", first)


def parse_quota(raw: object) -> Quota | None:
    """A ResourceQuota; none where its scope is narrower than the pods behind a Service."""
    obj = QUOTA(raw)
    if obj is None:
        return None
    spec: Json = obj.get("spec", EMPTY)
    if "scopeSelector" in spec or not _SERVING_SCOPES.issuperset(spec.get("scopes", ())):
        return None
    status: Json = obj.get("status", EMPTY)
    return Quota(
        ref_of(obj), spec.get("hard", status.get("hard", EMPTY)), status.get("used", EMPTY)
    )
