"""What each cause means, and the commands that lead on from a page of `upstream-guard explain`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.risks import RISKS

Step = tuple[str, str]
"""A command, and what it is good for."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to know and do about a cause.

    Attributes:
        meaning: What a failed request meets, in a sentence.
        steps: How to look for it on a cluster.
    """

    meaning: str
    steps: tuple[Step, ...]


_PODS: Final = ("kubectl -n prod get pods -l app=shop -o wide", "restarts, readiness, nodes")
_LISTED: Final = (
    "kubectl -n prod get endpointslices -l kubernetes.io/service-name=shop",
    "which addresses are listed",
)
_LOGS: Final = ("kubectl -n prod logs deployment/shop --since=10m", "what the app says itself")
_CRASHED: Final = (
    "kubectl -n prod logs deployment/shop --previous --tail=50",
    "its last words before a restart",
)
_PORTS: Final = (
    "kubectl -n prod get service shop -o jsonpath='{.spec.ports}'",
    "targetPort and appProtocol",
)
_LOAD: Final = ("kubectl -n prod top pods -l app=shop", "CPU and memory, with metrics-server")
_NODES: Final = ("kubectl get nodes", "nodes that are lost or leaving")
_ROLLOUT: Final = (
    "kubectl -n prod rollout history deployment/shop",
    "whether a rollout was under way",
)
_LATENCIES: Final = (
    "upstream-guard status shop -n prod",
    "what each gateway needs to forget a pod, and the preStop in force",
)
_POLICIES: Final = ("kubectl -n prod get networkpolicies", "who may connect to these pods")
_GATEWAYS: Final = (
    "kubectl get pods -A -l app.kubernetes.io/component=controller -o wide",
    "whether the gateway runs; labels differ by product",
)

ADVICE: Final[Mapping[Cause, Advice]] = MappingProxyType(
    {
        Cause.REFUSED: Advice(
            "Nothing listens at the address: the app has not started, has stopped, or listens elsewhere.",
            (_PODS, _LISTED, _CRASHED),
        ),
        Cause.RESET: Advice(
            "The connection was reset after it was established: the app ended, or was killed, under way.",
            (_PODS, _CRASHED, _ROLLOUT),
        ),
        Cause.EARLY_CLOSE: Advice(
            "The app closed the connection in an orderly way before its response was whole.",
            (_LOGS, _CRASHED, _PODS),
        ),
        Cause.KEEPALIVE_RACE: Advice(
            "The app closed a reused connection just as a request was sent on it.", (_LOGS,)
        ),
        Cause.MALFORMED: Advice(
            "What came back is not the protocol that the gateway speaks.", (_PORTS, _LOGS)
        ),
        Cause.OVERSIZED_HEADER: Advice(
            "The response's head is larger than the gateway's buffer, often because of cookies.",
            (
                ("kubectl -n prod port-forward deployment/shop 8080:8080", "then, beside it:"),
                ("curl -sS -D - -o /dev/null http://127.0.0.1:8080/", "the head, as the app sends it"),
            ),
        ),
        Cause.CONNECT_TIMEOUT: Advice(
            "The address does not answer at all: its node is lost, or something drops the packets.",
            (_NODES, _PODS, _POLICIES),
        ),
        Cause.READ_TIMEOUT: Advice(
            "The app took the request, and did not answer in the time that the gateway waits.",
            (_LOAD, _LOGS),
        ),
        Cause.UNREACHABLE: Advice(
            "The network has no route to the address: its node is gone, or the address is old.",
            (_NODES, _PODS, _LISTED),
        ),
        Cause.DNS: Advice(
            "The upstream's name did not resolve.",
            (
                (
                    "kubectl -n prod get service shop -o jsonpath='{.spec.externalName}'",
                    "the name",
                ),
                ("kubectl -n kube-system get pods -l k8s-app=kube-dns", "whether DNS runs"),
            ),
        ),
        Cause.TLS: Advice(
            "The TLS handshake with the app failed: an expired or foreign certificate, or no TLS there.",
            (
                ("kubectl -n prod port-forward service/shop 8443:443", "then, beside it:"),
                ("openssl s_client -connect 127.0.0.1:8443 -servername shop.prod.svc", "its certificate"),
            ),
        ),
        Cause.PROTOCOL_MISMATCH: Advice(
            "Gateway and app speak different protocols, such as TLS and plain HTTP.", (_PORTS, _LOGS)
        ),
        Cause.BLOCKED: Advice(
            "A policy or firewall stands between the gateway and the app.", (_POLICIES, _PODS)
        ),
        Cause.NO_ENDPOINTS: Advice(
            "The upstream list is empty: no pod is ready, none is selected, or none is left.",
            (_LISTED, _PODS),
        ),
        Cause.STALE_UPSTREAM: Advice(
            "The gateway still sends requests to a pod that has left the list.",
            (_LATENCIES, _ROLLOUT, _LISTED),
        ),
        Cause.OVERLOAD: Advice(
            "A limit of connections or waiting requests was hit.",
            (_LOAD, ("kubectl -n prod get hpa", "whether there could be more pods")),
        ),
        Cause.GATEWAY_DOWN: Advice(
            "The gateway itself takes no connection: no upstream was asked at all.",
            (_GATEWAYS, _NODES),
        ),
        Cause.APP_ERROR: Advice(
            "The app itself answered, with a status that says it is not well.", (_LOGS, _PODS)
        ),
    }
)  # fmt: skip
"""For every cause."""

_OWN: Final[Mapping[str, tuple[Step, ...]]] = {
    risk: (
        (f"upstream-guard check {file}", "until nothing is found"),
        (f"kubectl apply --dry-run=server -f {file}", "the API server agrees"),
        (f"kubectl apply -f {file}", "put it in force"),
        last,
    )
    for risk, file, last in (
        ("invalid-guard", "guard.yaml", ("kubectl -n prod get ug", "it is accepted")),
        ("guard-not-accepted", "guard.yaml", ("kubectl -n prod get ug", "it is accepted")),
        (
            "invalid-gateway-profile",
            "profile.yaml",
            ("upstream-guard status -n prod", "its numbers are used"),
        ),
    )
}
"""After findings about our own resources."""


UNFORESEEN: Final = frozenset(
    {"certificate-expiry", "crash", "gateway-restart", "grace-capped", "node-loss"}
)
"""Findings that only the operator has, for no manifest shows them."""

_SEEN: Final = ("upstream-guard explain window -n prod", "windows that were seen, and why")
_IN_CLUSTER: Final = "upstream-guard check --context staging -n prod"


def after_risk(risk: str) -> str:
    """The last section of a risk's page, in Markdown."""
    cause = RISKS[risk].cause
    steps = list(_OWN.get(risk, ()))
    if risk in UNFORESEEN:
        steps += [("upstream-guard status -n prod", "predictions, risks and windows of each guard")]
        steps += ADVICE[cause].steps
    elif not steps:
        steps += [
            ("upstream-guard check manifests/", "which objects have it, at which line"),
            ("upstream-guard check manifests/ --fix", "the patches, where there are any"),
            (_IN_CLUSTER, "what a running cluster has"),
        ]
    if risk not in _OWN:
        steps.append(_SEEN)
        if cause not in RISKS:
            steps.append((f"upstream-guard explain {cause}", f"what else leads to {cause}"))
    return _section(steps)


def after_cause(cause: Cause) -> str:
    """The last section of a cause's page, in Markdown."""
    leading = [risk for risk, info in RISKS.items() if info.cause is cause]
    steps: list[Step] = []
    if leading:
        steps.append((f"upstream-guard explain {leading[0]}", "each finding above has a page"))
    if not UNFORESEEN.issuperset(leading):
        steps.append(("upstream-guard check manifests/", "which of them your manifests have"))
        steps.append((_IN_CLUSTER, "which of them a running cluster has"))
    return _section([*steps, *ADVICE[cause].steps, _SEEN])


def _section(steps: Iterable[Step]) -> str:
    listed = list(steps)
    width = max(len(command) for command, _ in listed)
    lines = [f"{command:<{width}}  # {what}" for command, what in listed]
    return "\n".join(["## What to do next", "```sh", *lines, "```", ""])
