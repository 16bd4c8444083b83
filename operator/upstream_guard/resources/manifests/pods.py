"""Pod templates: containers, their probes and hooks, and what ties the pods to nodes."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from upstream_guard.core.model import ContainerPort
from upstream_guard.core.names import GATE
from upstream_guard.core.predict.state import Container, HookKind, KubeProbe, PodTemplate, PreStop
from upstream_guard.resources.kube_objects import Json
from upstream_guard.resources.manifests.reading import (
    EMPTY,
    flag,
    many,
    port,
    port_number,
    record,
    selector,
    slots,
    text,
    texts,
    whole,
    words,
)

_ACTIONS: Final = {
    "exec": record(command=words),
    "httpGet": record(path=text, port=port, scheme=text),
    "tcpSocket": record(port=port),
}
_PROBE: Final = record(
    **_ACTIONS,
    grpc=record(port=port_number),
    initialDelaySeconds=whole,
    periodSeconds=whole,
    timeoutSeconds=whole,
    failureThreshold=whole,
    successThreshold=whole,
)
_NAMED: Final = record(name=text)
_CONTAINER: Final = record(
    name=text,
    image=text,
    command=words,
    args=words,
    restartPolicy=text,
    ports=many(record(name=text, containerPort=port_number)),
    env=many(
        record(
            name=text,
            value=text,
            valueFrom=record(configMapKeyRef=_NAMED, secretKeyRef=_NAMED),
        )
    ),
    envFrom=many(record(configMapRef=_NAMED, secretRef=_NAMED)),
    readinessProbe=_PROBE,
    livenessProbe=_PROBE,
    startupProbe=_PROBE,
    lifecycle=record(preStop=record(**_ACTIONS, sleep=record(seconds=whole))),
)
_TERM: Final = record(topologyKey=text, labelSelector=selector)
POD_SPEC: Final = record(
    containers=slots(_CONTAINER),
    initContainers=slots(_CONTAINER),
    terminationGracePeriodSeconds=whole,
    readinessGates=many(record(conditionType=text)),
    nodeName=text,
    nodeSelector=texts,
    hostNetwork=flag,
    topologySpreadConstraints=many(_TERM),
    affinity=record(
        podAntiAffinity=record(
            requiredDuringSchedulingIgnoredDuringExecution=many(_TERM),
            preferredDuringSchedulingIgnoredDuringExecution=many(record(podAffinityTerm=_TERM)),
        )
    ),
    volumes=many(
        record(
            configMap=_NAMED,
            secret=record(secretName=text),
            persistentVolumeClaim=record(claimName=text),
            projected=record(sources=many(record(configMap=_NAMED, secret=_NAMED))),
        )
    ),
)
TEMPLATE: Final = record(metadata=record(labels=texts, annotations=texts), spec=POD_SPEC)

_HOSTNAME: Final = "kubernetes.io/hostname"
_SPREADING: Final = frozenset(
    {_HOSTNAME, "topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"}
)
_DEFAULT_GRACE: Final = 30

_SLEEP: Final = re.compile(
    r"(?:^|[\s;&|({])(?:/[\w/]{1,40}/)?sleep[ \t]{1,40}([0-9.]{1,12}[smhd]?)"
    r"(?=$|[\s;&|)}])(?![ \t]{0,40}&(?!&))",
    re.ASCII,
)
"""In a script: a sleep that is not put into the background."""
_SLEEP_TIME: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})([smhd]?)", re.ASCII)
_SLEEP_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LOOP: Final = re.compile(r"[;\n][ \t]{0,40}do\s", re.ASCII)
_MAX_SCRIPT: Final = 65_536


def template_of(
    template: Json, path: str = "spec.template.spec", own_claims: Iterable[str] = ()
) -> PodTemplate:
    """A pod template.

    Args:
        template: What `TEMPLATE` has read.
        path: Where the pod spec stands in the manifest.
        own_claims: PersistentVolumeClaims that each pod gets of its own.
    """
    metadata: Json = template.get("metadata", EMPTY)
    spec: Json = template.get("spec", EMPTY)
    labels = metadata.get("labels", EMPTY)
    grace = spec.get("terminationGracePeriodSeconds")
    return PodTemplate(
        labels=labels,
        containers=tuple(_containers(spec, path)),
        annotations=metadata.get("annotations", EMPTY),
        grace_period=float(_DEFAULT_GRACE if grace is None else grace),
        grace_given=grace is not None,
        gated=any(g.get("conditionType") == GATE for g in spec.get("readinessGates", ())),
        spread=_is_spread(spec, labels),
        node_bound=bool(spec.get("nodeName")) or _HOSTNAME in spec.get("nodeSelector", EMPTY),
        host_network=spec.get("hostNetwork", False),
        configs=frozenset(_configs(spec)),
        claims=frozenset((*_claims(spec), *own_claims)),
        path=path,
    )


def _containers(spec: Json, path: str) -> Iterator[Container]:
    for index, raw in enumerate(spec.get("containers", ())):
        if raw:
            yield _container(raw, f"{path}.containers[{index}]")
    for index, raw in enumerate(spec.get("initContainers", ())):
        if raw.get("restartPolicy") == "Always":
            yield _container(raw, f"{path}.initContainers[{index}]", sidecar=True)


def _container(raw: Json, path: str, *, sidecar: bool = False) -> Container:
    return Container(
        name=raw.get("name", ""),
        image=raw.get("image", ""),
        ports=tuple(
            ContainerPort(p.get("name", ""), p["containerPort"])
            for p in raw.get("ports", ())
            if "containerPort" in p
        ),
        readiness=_probe(raw.get("readinessProbe")),
        liveness=_probe(raw.get("livenessProbe")),
        startup=_probe(raw.get("startupProbe")),
        pre_stop=_pre_stop(raw.get("lifecycle", EMPTY).get("preStop")),
        command=tuple(raw.get("command", ())),
        args=tuple(raw.get("args", ())),
        env={
            e["name"]: e.get("value", "")
            for e in raw.get("env", ())
            if "name" in e and "valueFrom" not in e
        },
        sidecar=sidecar,
        path=path,
    )


def _probe(raw: Json | None) -> KubeProbe | None:
    """A probe with the API's defaults; 0 stands for the default where the API has it so."""
    if raw is None:
        return None
    action = _action(raw)
    if action is None:
        return None
    return KubeProbe(
        **action,
        initial_delay=float(raw.get("initialDelaySeconds", 0)),
        period=float(raw.get("periodSeconds") or 10),
        timeout=float(raw.get("timeoutSeconds") or 1),
        failure_threshold=raw.get("failureThreshold") or 3,
        success_threshold=raw.get("successThreshold") or 1,
    )


def _action(raw: Json) -> dict[str, Any] | None:
    """What a probe does, as fields of `KubeProbe`."""
    if (http := raw.get("httpGet")) is not None:
        return {
            "kind": HookKind.HTTP,
            "port": http.get("port"),
            "path": http.get("path") or "/",
            "scheme": http.get("scheme", "HTTP").upper(),
        }
    if (command := raw.get("exec")) is not None:
        return {"kind": HookKind.EXEC, "command": tuple(command.get("command", ()))}
    for kind in (HookKind.TCP, HookKind.GRPC):
        if (action := raw.get(kind.value)) is not None:
            return {"kind": kind, "port": action.get("port")}
    return None


def _pre_stop(raw: Json | None) -> PreStop | None:
    if raw is None:
        return None
    if (sleep := raw.get("sleep")) is not None:
        return PreStop(HookKind.SLEEP, float(sleep.get("seconds", 0)))
    if (command := raw.get("exec")) is not None:
        argv = tuple(command.get("command", ()))
        return PreStop(HookKind.EXEC, command_seconds(argv), argv)
    for kind in (HookKind.HTTP, HookKind.TCP):
        if kind.value in raw:
            return PreStop(kind)
    return None


def command_seconds(argv: tuple[str, ...]) -> float | None:
    """How long a command sleeps, at least; None where that cannot be read.

    It is read of `sleep N` itself, and of every `sleep N` of a shell's script without loops.
    """
    if not argv:
        return None
    if argv[0].rpartition("/")[2] == "sleep":
        return _sleep_time(" ".join(argv[1:]))
    script = next((script for option, script in pairwise(argv) if _runs(option)), "")
    if not script or len(script) > _MAX_SCRIPT or _LOOP.search(script):
        return None
    times = [_sleep_time(found[1]) for found in _SLEEP.finditer(script)]
    known = [time for time in times if time is not None]
    return sum(known) if known else None


def _runs(option: str) -> bool:
    """Whether a shell's option means that a script follows: `-c`, `-ec`."""
    return option.startswith("-") and option.endswith("c") and option[1:].isalpha()


def _sleep_time(arguments: str) -> float | None:
    """The sum of `sleep`'s arguments, as GNU's has it."""
    parts = [_SLEEP_TIME.fullmatch(argument) for argument in arguments.split()]
    if not parts or None in parts:
        return None
    total = sum(float(part[1]) * _SLEEP_UNITS[part[2]] for part in parts if part)
    return total if math.isfinite(total) else None


def _is_spread(spec: Json, labels: Mapping[str, str]) -> bool:
    """Whether something keeps pods with these labels apart; a preference counts too."""
    anti: Json = spec.get("affinity", EMPTY).get("podAntiAffinity", EMPTY)
    terms: list[Json] = [
        *spec.get("topologySpreadConstraints", ()),
        *anti.get("requiredDuringSchedulingIgnoredDuringExecution", ()),
        *(
            preference.get("podAffinityTerm", EMPTY)
            for preference in anti.get("preferredDuringSchedulingIgnoredDuringExecution", ())
        ),
    ]
    return any(
        term.get("topologyKey") in _SPREADING
        and "labelSelector" in term
        and term["labelSelector"].matches(labels)
        for term in terms
    )


def _configs(spec: Json) -> Iterator[str]:
    """The ConfigMaps and Secrets that a pod uses."""
    for volume in spec.get("volumes", ()):
        yield from _names("ConfigMap", [volume.get("configMap", EMPTY)])
        yield from _names("Secret", [volume.get("secret", EMPTY)], "secretName")
        for source in volume.get("projected", EMPTY).get("sources", ()):
            yield from _names("ConfigMap", [source.get("configMap", EMPTY)])
            yield from _names("Secret", [source.get("secret", EMPTY)])
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        sources = [e.get("valueFrom", EMPTY) for e in container.get("env", ())]
        yield from _names("ConfigMap", (s.get("configMapKeyRef", EMPTY) for s in sources))
        yield from _names("Secret", (s.get("secretKeyRef", EMPTY) for s in sources))
        whole_ = container.get("envFrom", ())
        yield from _names("ConfigMap", (s.get("configMapRef", EMPTY) for s in whole_))
        yield from _names("Secret", (s.get("secretRef", EMPTY) for s in whole_))


def _claims(spec: Json) -> Iterator[str]:
    for volume in spec.get("volumes", ()):
        claim = volume.get("persistentVolumeClaim", EMPTY).get("claimName")
        if claim:
            yield claim


def _names(kind: str, references: Iterable[Json], key: str = "name") -> Iterator[str]:
    return (f"{kind}/{reference[key]}" for reference in references if reference.get(key))
