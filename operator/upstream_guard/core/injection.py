"""What the webhook adds to a new pod: readiness gate, `sleep` preStop hooks, a longer grace period.

Pure: a pod as the API server sent it, and a request, give an RFC 6902 patch and notes for people.
Three rules hold for every pod: a `sleep` is never longer than the grace period (the API server
refuses such a pod, which `failurePolicy: Ignore` does not forgive), nothing the user wrote is
replaced, and a second pass changes nothing (`reinvocationPolicy: IfNeeded` makes it normal).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from upstream_guard.core.names import ANNOTATION_INJECTED, GATE
from upstream_guard.core.shutdown import AppShutdown, app_grace

DEFAULT_GRACE: Final = 30
"""Kubernetes' `terminationGracePeriodSeconds` where the pod says nothing, seconds."""
MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
MAX_GRACE: Final = 2**63 - 1
"""The API's int64."""
MAX_REASON: Final = 500
"""Longest reason kept in the annotation, characters."""

Operation = dict[str, Any]
"""One RFC 6902 operation."""


@dataclass(frozen=True, slots=True)
class InjectionRequest:
    """What the guards that select a pod want for it.

    Attributes:
        pre_stop: Seconds that a pod must keep serving after the decision to stop it. None or less
            than one: no hook is wanted.
        gate: Whether the readiness gate is wanted (`Enforce`, and a fresh Lease of the controller).
        reason: Where `pre_stop` comes from, for people, e.g. `nginx: built-in detach 1.2 s`.
        drain_enforced: False turns hooks and grace period into notes (`Recommend`).
        sleep_supported: Whether this cluster knows the `sleep` action (Kubernetes 1.30 or newer).
        grace_period: `spec.drain.gracePeriod` in whole seconds; None is `Auto`, the pod's own grace
            period plus the sleep, so that the app's own time to drain is not shortened.
        app: What earlier pods did on SIGTERM, for `Auto`; None where nothing was seen.
    """

    pre_stop: int | None = None
    gate: bool = True
    reason: str = ""
    drain_enforced: bool = True
    sleep_supported: bool = True
    grace_period: int | None = None
    app: AppShutdown | None = None


@dataclass(frozen=True, slots=True)
class Injection:
    """A decision about one pod: an RFC 6902 patch (may be empty), and notes for people."""

    patch: tuple[Operation, ...] = ()
    notes: tuple[str, ...] = ()


NOTHING: Final = Injection()


@dataclass(frozen=True, slots=True)
class _Record:
    """What an earlier pass did, as far as the annotation can be believed."""

    containers: frozenset[str] = frozenset()
    sleep: int = 0
    grace_from: int = DEFAULT_GRACE
    grace_to: int = -1


@dataclass(frozen=True, slots=True)
class _Drain:
    """The hooks and the grace period that a pod shall have."""

    sleep: int = 0
    targets: tuple[int, ...] = ()
    """Indices of the containers that get our hook."""
    grace_from: int = DEFAULT_GRACE
    grace_to: int = DEFAULT_GRACE
    notes: tuple[str, ...] = ()


def inject(pod: Mapping[str, Any], request: InjectionRequest) -> Injection:
    """Decide what to add to a pod.

    Only regular containers get a hook: all of them are stopped at once, while init containers
    (native sidecars too) end before or after them. Pods on the host network, mirror pods and
    terminating pods are left alone.

    Args:
        pod: A v1 Pod as in an AdmissionReview. Malformed parts are treated as absent.
        request: What is wanted for it.

    Returns:
        The patch, to be applied in order to `pod`, and notes about what was not or would be done.
    """
    skipped = _why_untouchable(pod)
    if skipped:
        return Injection(notes=(skipped,))
    record = _read_record(pod)
    drain = _plan_drain(pod, request, record)
    notes = drain.notes
    if not request.drain_enforced:
        notes = (*_recommendation(pod, drain, request), *notes)
        drain = _Drain()
    patch = [*_gate_patch(pod, request), *_drain_patch(pod, drain)]
    patch += _annotation_patch(pod, request, drain, changed=bool(patch))
    return Injection(patch=tuple(patch), notes=notes)


def _why_untouchable(pod: Mapping[str, Any]) -> str:
    metadata = _mapping(pod.get("metadata"))
    if MIRROR_ANNOTATION in _mapping(metadata.get("annotations")):
        return "a mirror pod belongs to its kubelet: left alone"
    if metadata.get("deletionTimestamp"):
        return "the pod is already terminating: left alone"
    if _mapping(pod.get("spec")).get("hostNetwork"):
        return "a pod on the host network shares its node's address: left alone"
    return ""


def _plan_drain(pod: Mapping[str, Any], request: InjectionRequest, record: _Record) -> _Drain:
    wanted = request.pre_stop or 0
    if wanted < 1:
        return _Drain()
    if not request.sleep_supported:
        return _Drain(notes=("no preStop hook: the sleep action needs Kubernetes 1.30 or newer",))
    now = _grace(pod)
    base = min(now, record.grace_from) if record.grace_to == now else now
    automatic = app_grace(request.app, base) + wanted
    grace = automatic if request.grace_period is None else max(base, request.grace_period)
    # Never below what is there: an annotation copied from elsewhere must not shorten it.
    grace = min(max(grace, now), MAX_GRACE)
    sleep = min(wanted, grace)
    targets = tuple(
        index
        for index, container in enumerate(_containers(pod))
        if _takes_our_hook(container, record)
    )
    notes = list(_judgements(pod, wanted, record))
    if sleep < wanted and targets:
        notes.append(
            f"preStop sleep cut from {wanted} s to {sleep} s: the guard's gracePeriod is no longer"
        )
    if not targets or sleep < 1:
        return _Drain(notes=tuple(notes))
    return _Drain(sleep, targets, base, grace, tuple(notes))


def _takes_our_hook(container: Mapping[str, Any], record: _Record) -> bool:
    """True where no hook is there, or one that an earlier pass of ours put there."""
    hook = _pre_stop(container)
    return not hook or _is_ours(container, record)


def _is_ours(container: Mapping[str, Any], record: _Record) -> bool:
    return (
        container.get("name") in record.containers
        and _sleep_seconds(_pre_stop(container)) == record.sleep
    )


def _judgements(pod: Mapping[str, Any], wanted: int, record: _Record) -> Iterable[str]:
    """Notes on the hooks that users wrote: kept always, enough or not."""
    for container in _containers(pod):
        hook = _pre_stop(container)
        if not hook or _is_ours(container, record):
            continue
        name = container.get("name", "?")
        seconds = _sleep_seconds(hook)
        if seconds is None:
            kind = next(iter(sorted(hook)), "hook")
            yield (
                f"container {name}: its own preStop {kind} is kept; whether it lasts the "
                f"{wanted} s that the gateway needs cannot be judged"
            )
        elif seconds < wanted:
            yield (
                f"container {name}: its own preStop sleep of {seconds} s is kept, but the gateway "
                f"needs {wanted} s"
            )


def _recommendation(
    pod: Mapping[str, Any], drain: _Drain, request: InjectionRequest
) -> tuple[str, ...]:
    if not drain.targets:
        return ()
    containers = _containers(pod)
    names = ", ".join(str(containers[index].get("name", "?")) for index in drain.targets)
    why = f" ({request.reason})" if request.reason else ""
    note = (
        f"recommended: lifecycle.preStop.sleep.seconds {drain.sleep} on {names} and "
        f"terminationGracePeriodSeconds {drain.grace_to}{why}"
    )
    return (note,)


def _gate_patch(pod: Mapping[str, Any], request: InjectionRequest) -> list[Operation]:
    gates = _mapping(pod.get("spec")).get("readinessGates")
    if not request.gate or has_gate(pod):
        return []
    entry = {"conditionType": GATE}
    if isinstance(gates, list):
        return [_add("/spec/readinessGates/-", entry)]
    return [_add("/spec/readinessGates", [entry])]


def has_gate(pod: Mapping[str, Any]) -> bool:
    """Whether a pod declares our readiness gate."""
    gates = _mapping(pod.get("spec")).get("readinessGates")
    return any(_mapping(gate).get("conditionType") == GATE for gate in gates or ())


def _drain_patch(pod: Mapping[str, Any], drain: _Drain) -> list[Operation]:
    if not drain.targets:
        return []
    patch: list[Operation] = []
    if _mapping(pod.get("spec")).get("terminationGracePeriodSeconds") != drain.grace_to:
        patch.append(_add("/spec/terminationGracePeriodSeconds", drain.grace_to))
    hook = {"sleep": {"seconds": drain.sleep}}
    containers = _containers(pod)
    for index in drain.targets:
        lifecycle = containers[index].get("lifecycle")
        if _pre_stop(containers[index]) == hook:
            continue
        path = f"/spec/containers/{index}/lifecycle"
        if isinstance(lifecycle, Mapping):
            patch.append(_add(f"{path}/preStop", hook))
        else:
            patch.append(_add(path, {"preStop": hook}))
    return patch


def _annotation_patch(
    pod: Mapping[str, Any], request: InjectionRequest, drain: _Drain, *, changed: bool
) -> list[Operation]:
    """Record what was done; only together with a change or a change of the record itself."""
    if not changed and not drain.targets:
        return []
    text = _record_text(pod, request, drain)
    annotations = _mapping(pod.get("metadata")).get("annotations")
    if isinstance(annotations, Mapping):
        if annotations.get(ANNOTATION_INJECTED) == text:
            return []
        return [_add(f"/metadata/annotations/{_escape(ANNOTATION_INJECTED)}", text)]
    return [_add("/metadata/annotations", {ANNOTATION_INJECTED: text})]


def _record_text(pod: Mapping[str, Any], request: InjectionRequest, drain: _Drain) -> str:
    record: dict[str, Any] = {}
    if request.gate or has_gate(pod):
        record["readinessGate"] = GATE
    if drain.targets:
        containers = _containers(pod)
        record["preStop"] = {
            "sleepSeconds": drain.sleep,
            "containers": [str(containers[index].get("name", "")) for index in drain.targets],
        }
        record["gracePeriodSeconds"] = {"from": drain.grace_from, "to": drain.grace_to}
        record["reason"] = request.reason[:MAX_REASON]
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _read_record(pod: Mapping[str, Any]) -> _Record:
    """Read the annotation of an earlier pass. A user can write it too, so it is only a hint."""
    text = _mapping(_mapping(pod.get("metadata")).get("annotations")).get(ANNOTATION_INJECTED)
    try:
        record = _mapping(json.loads(text)) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return _Record()
    pre_stop = _mapping(record.get("preStop"))
    grace = _mapping(record.get("gracePeriodSeconds"))
    names = pre_stop.get("containers")
    return _Record(
        containers=frozenset(str(name) for name in names)
        if isinstance(names, list)
        else frozenset(),
        sleep=_whole(pre_stop.get("sleepSeconds"), 0),
        grace_from=_whole(grace.get("from"), DEFAULT_GRACE),
        grace_to=_whole(grace.get("to"), -1),
    )


def _grace(pod: Mapping[str, Any]) -> int:
    return _whole(_mapping(pod.get("spec")).get("terminationGracePeriodSeconds"), DEFAULT_GRACE)


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    containers = _mapping(pod.get("spec")).get("containers")
    return [_mapping(item) for item in containers] if isinstance(containers, list) else []


def _pre_stop(container: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(_mapping(container.get("lifecycle")).get("preStop"))


def _sleep_seconds(hook: Mapping[str, Any]) -> int | None:
    """Seconds of a `sleep` hook; None for other hooks."""
    sleep = hook.get("sleep")
    return _whole(sleep.get("seconds"), 0) if isinstance(sleep, Mapping) else None


def _whole(value: object, default: int) -> int:
    """A whole number of seconds that is not negative, else `default`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return default


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}
