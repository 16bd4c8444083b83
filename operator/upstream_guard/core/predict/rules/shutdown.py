"""Shutdown: how long a pod goes on serving after the decision to stop it, and who stops first."""

import math
import re
from collections.abc import Iterator
from typing import Any, Final

from upstream_guard.core.model import DrainPolicy
from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.hooks import lengthened, serves_for
from upstream_guard.core.predict.rules.reporting import (
    STOPS,
    Mend,
    container_patch,
    in_container,
    in_workload,
    pod_patch,
    report,
)
from upstream_guard.core.predict.rules.serving import (
    called,
    hands_over,
    hook_seconds,
    regular,
    seconds,
    serving,
    slowest,
)
from upstream_guard.core.predict.state import (
    Container,
    HookKind,
    Shutdown,
    State,
    Workload,
)
from upstream_guard.core.predict.window import Finding, Remedy, Severity
from upstream_guard.core.tuning import (
    MIN_APP_DRAIN,
    DrainAdvice,
    GatewayFacts,
    GatewayKind,
    advise_drain,
)

_AUTO: Final = DrainPolicy(max_pre_stop=3600.0)
"""What the slowest gateway needs, however long."""
_DEFAULT_GRACE: Final = 30
"""Kubernetes' `terminationGracePeriodSeconds`, seconds."""


def no_pre_stop(state: State, gateways: tuple[Gateway, ...], facts: Facts) -> Iterator[Finding]:
    """A container that stops at once, while gateways still send to it."""
    gateway = slowest(gateways)
    if state.guard is not None and state.guard.pre_stop >= gateway.detach_seconds:
        return
    for workload in state.workloads:
        if _serves_on(workload, facts, gateway):
            continue
        for container, _ in serving(state, workload):
            if container.pre_stop is None:
                yield _no_hook(state, workload, container, gateways)


def _serves_on(workload: Workload, facts: Facts, gateway: GatewayFacts) -> bool:
    """Whether the app itself keeps accepting after SIGTERM for as long as the gateway needs."""
    if facts.app.shutdown is Shutdown.LINGERS:
        return facts.app.linger.low >= gateway.needed_seconds
    ignores = facts.app.shutdown is Shutdown.IGNORES
    return ignores and workload.template.grace_period >= gateway.needed_seconds


def _no_hook(
    state: State, workload: Workload, container: Container, gateways: tuple[Gateway, ...]
) -> Finding:
    where = in_container(workload, container, "lifecycle.preStop")
    gateway = slowest(gateways)
    if not hands_over(state, workload):
        return report(
            "no-pre-stop",
            where,
            f"container `{container.name}` has no preStop hook and stops at once; "
            f"`{workload.text}` has no other pod to send requests to meanwhile",
            "a hook would only delay the end: with one pod nobody takes over",
            STOPS,
            Severity.INFO,
        )
    if state.service.headless and gateway.kind is GatewayKind.CLUSTER_IP:
        return report(
            "no-pre-stop",
            where,
            f"container `{container.name}` has no preStop hook, so it stops at once while clients of "
            f"the headless Service `{state.service.ref.name}` may still use its address",
            "how long clients keep an address only they know: a hook has to outlast their DNS cache",
            STOPS,
        )
    return report(
        "no-pre-stop",
        where,
        f"container `{container.name}` has no preStop hook, so it stops at once while "
        f"{called(gateway)} may send it requests for {seconds(gateway.detach_seconds)} more",
        _sleep_everywhere(workload, _advice(gateways)),
        STOPS,
    )


def _advice(gateways: tuple[Gateway, ...]) -> DrainAdvice:
    return advise_drain(_AUTO, (gateway.facts for gateway in gateways))


def _sleep_everywhere(workload: Workload, advice: DrainAdvice) -> Remedy:
    """A hook for every regular container without one: all of them are stopped at once."""
    hook = {"preStop": {"sleep": {"seconds": advice.pre_stop}}}
    own = math.ceil(workload.template.grace_period)
    fields: dict[str, Any] = {
        "terminationGracePeriodSeconds": max(
            advice.grace_for(own), advice.pre_stop + MIN_APP_DRAIN
        ),
        "containers": [
            {"name": container.name, "lifecycle": hook}
            for container in regular(workload)
            if container.pre_stop is None
        ],
    }
    return pod_patch(
        workload,
        fields,
        f"a stopping pod serves on until the gateway has forgotten it: {advice.reason}",
    )


def pre_stop_too_short(
    state: State, gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A hook that ends before the gateway has forgotten the pod, or that ends the server itself."""
    gateway = slowest(gateways)
    for workload in state.workloads:
        for container, _ in serving(state, workload):
            hook = container.pre_stop
            if hook is None:
                continue
            lasts = serves_for(hook)
            if lasts is not None and lasts < gateway.needed_seconds:
                yield _short_hook(workload, container, lasts, gateways)


def _short_hook(
    workload: Workload,
    container: Container,
    lasts: float,
    gateways: tuple[Gateway, ...],
) -> Finding:
    gateway = slowest(gateways)
    detach = seconds(gateway.detach_seconds)
    name = container.name
    if container.pre_stop is not None and container.pre_stop.seconds is None:
        told = f"the preStop hook of container `{name}` stops the server at once"
    else:
        told = f"the preStop hook of container `{name}` lasts {seconds(lasts)}"
    if lasts < gateway.detach_seconds:
        told += f", but {called(gateway)} may send it requests for {detach}"
    else:
        told += f", which leaves hardly a margin over the {detach} that {called(gateway)} may need"
    return report(
        "pre-stop-too-short",
        in_container(workload, container, "lifecycle.preStop"),
        told,
        _with_hook(workload, container, _advice(gateways).pre_stop),
        STOPS,
        Severity.WARNING if lasts < gateway.detach_seconds else Severity.INFO,
    )


def _with_hook(workload: Workload, container: Container, wanted: int) -> Mend:
    """A preStop hook of `wanted` seconds for one container, and a grace period that has room for it."""
    hook = container.pre_stop
    pre_stop = lengthened(hook, wanted)
    if pre_stop is None:
        return (
            f"the hook's own command has to wait {wanted} s before it does anything else, "
            "with a grace period that is as much longer"
        )
    lasted = (hook.seconds if hook is not None else None) or 0.0
    own = workload.template.grace_period
    grace = math.ceil(max(own, _DEFAULT_GRACE) if lasted >= own else own - lasted) + wanted
    group = "initContainers" if container.sidecar else "containers"
    return pod_patch(
        workload,
        {
            "terminationGracePeriodSeconds": max(math.ceil(own), grace),
            group: [{"name": container.name, "lifecycle": {"preStop": pre_stop}}],
        },
        f"the pod serves on for {wanted} s, and the app keeps its own time to drain",
    )


def pre_stop_exceeds_grace(
    state: State, _gateways: tuple[Gateway, ...], _facts: Facts
) -> Iterator[Finding]:
    """A hook that is still running when the grace period ends, so that the app gets no time to drain."""
    for workload in state.workloads:
        grace = workload.template.grace_period
        for container in regular(workload):
            hook = container.pre_stop
            if hook is None or hook.seconds is None or hook.seconds < grace:
                continue
            is_refused = hook.kind is HookKind.SLEEP and hook.seconds > grace
            ending = (
                ": the API server refuses such a pod"
                if is_refused
                else ", so that the app is killed instead of asked to finish"
            )
            wanted = max(math.ceil(grace), _DEFAULT_GRACE) + math.ceil(hook.seconds)
            yield report(
                "pre-stop-exceeds-grace",
                in_workload(workload, f"{workload.template.path}.terminationGracePeriodSeconds"),
                f"the preStop hook of container `{container.name}` lasts {seconds(hook.seconds)}, "
                f"the grace period is {seconds(grace)}{ending}",
                pod_patch(
                    workload,
                    {"terminationGracePeriodSeconds": wanted},
                    "the app has time to drain after the hook",
                ),
                STOPS,
                Severity.ERROR if is_refused else None,
            )


def grace_shorter_than_drain(
    state: State, _gateways: tuple[Gateway, ...], facts: Facts
) -> Iterator[Finding]:
    """A grace period that ends before the requests in flight do."""
    needs = max(facts.app.drain.value, facts.app.response.value, facts.app.slow_response.value)
    longest = max(facts.app.drain.high, facts.app.response.high, facts.app.slow_response.high)
    if facts.app.shutdown is Shutdown.EXITS:
        return
    for workload in state.workloads:
        grace = workload.template.grace_period
        hooks = (hook_seconds(container, state) or 0.0 for container, _ in serving(state, workload))
        hook = max(hooks, default=0.0)
        if grace > hook + needs or (grace > 0 and needs == 0):
            continue
        told = f"the grace period of {seconds(grace)} ends before the app has drained: "
        told += f"its preStop hook lasts {seconds(hook)}, " if hook else ""
        told += f"its requests and its shutdown take {seconds(needs)}"
        if grace == 0:
            told = "a grace period of 0 kills the app at once, with every request in flight"
        wanted = math.ceil(hook + longest) + MIN_APP_DRAIN
        yield report(
            "grace-shorter-than-drain",
            in_workload(workload, f"{workload.template.path}.terminationGracePeriodSeconds"),
            told,
            pod_patch(
                workload,
                {"terminationGracePeriodSeconds": max(wanted, _DEFAULT_GRACE)},
                "requests in flight have time to finish after SIGTERM",
            ),
            STOPS,
        )


def sigterm_drops_requests(
    state: State, gateways: tuple[Gateway, ...], facts: Facts
) -> Iterator[Finding]:
    """An app known to end at once on SIGTERM, whatever it is doing."""
    if facts.app.shutdown is not Shutdown.EXITS:
        return
    gateway = slowest(gateways)
    slow = max(facts.app.response.high, facts.app.slow_response.high)
    for workload in state.workloads:
        for container, _ in serving(state, workload):
            hook = hook_seconds(container, state)
            if hook is None or hook >= gateway.detach_seconds + slow:
                continue
            yield report(
                "sigterm-drops-requests",
                in_container(workload, container, "lifecycle.preStop"),
                f"container `{container.name}` ends at once on SIGTERM, with every request that it "
                f"is still answering (they take up to {seconds(slow)})"
                if slow
                else f"container `{container.name}` ends at once on SIGTERM, with every request that "
                "it is still answering",
                _with_hook(workload, container, math.ceil(gateway.needed_seconds + slow)),
                STOPS,
            )


_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash", "ksh", "zsh"})
_SEPARATORS: Final = re.compile(r"&&|\|\||;|\n")
_EXEC: Final = re.compile(r"(?:^|[\s;&|(])exec\s+[^<>\s]")
_PLAIN_COMMAND: Final = re.compile(r"^[\w./-]+(?:\s+[\w./:=@%+,$\"'{}-]+)*$")
_KEYWORDS: Final = frozenset(
    {"fi", "done", "esac", "wait", "trap", "if", "for", "while", "case", "until", "then", "do"}
)


def sigterm_ignored(
    state: State, _gateways: tuple[Gateway, ...], facts: Facts
) -> Iterator[Finding]:
    """The signal goes to a shell, or the app is known to take no notice."""
    for workload in state.workloads:
        for container, _ in serving(state, workload):
            if facts.app.shutdown is Shutdown.IGNORES:
                yield report(
                    "sigterm-ignored",
                    in_container(workload, container, "command"),
                    f"container `{container.name}` takes no notice of SIGTERM and is killed after "
                    f"{seconds(workload.template.grace_period)}, with what it is answering then",
                    "the app has to handle SIGTERM, or its image has to name a STOPSIGNAL that it "
                    "handles",
                    STOPS,
                )
            else:
                yield from _behind_a_shell(workload, container)


def _behind_a_shell(workload: Workload, container: Container) -> Iterator[Finding]:
    """A shell that runs several commands passes no signal on to the one that it waits for."""
    words = (*container.command, *container.args)
    script = _script(words)
    if script is None or _EXEC.search(script) or "trap " in script:
        return
    commands = [part.strip() for part in _SEPARATORS.split(script) if part.strip()]
    if len(commands) < 2:
        return  # shells replace themselves with a single command
    yield report(
        "sigterm-ignored",
        in_container(workload, container, "command" if container.command else "args"),
        f"container `{container.name}` runs `{commands[-1][:80]}` under `{words[0]}` without `exec`: "
        "unless this shell replaces itself with its last command, SIGTERM never reaches the app",
        _with_exec(workload, container, script, commands[-1]),
        STOPS,
    )


def _script(words: tuple[str, ...]) -> str | None:
    """What a shell is told to run by `-c`; None where the first word is no shell."""
    if not words or words[0].rsplit("/", 1)[-1] not in _SHELLS:
        return None
    for index, word in enumerate(words[1:-1], start=1):
        if word.startswith("-") and not word.startswith("--") and word.endswith("c"):
            return words[index + 1]
        if not word.startswith(("-", "+")):
            return None
    return None


def _with_exec(workload: Workload, container: Container, script: str, last: str) -> Mend:
    plain = _PLAIN_COMMAND.match(last) and last.split(maxsplit=1)[0] not in _KEYWORDS
    if not plain or not script.rstrip().endswith(last):
        return "write `exec` before the last command of the script, if it is the one that serves"
    changed = script.rstrip()[: -len(last)] + f"exec {last}"
    field = "args" if script in container.args else "command"
    words = container.args if field == "args" else container.command
    return container_patch(
        workload,
        container,
        {field: [changed if word == script else word for word in words]},
        "the app takes the shell's place and gets SIGTERM itself",
    )


_PROXIES: Final = (
    "envoy",
    "istio-proxy",
    "proxyv2",
    "linkerd",
    "nginx",
    "cloud-sql-proxy",
    "cloudsql-proxy",
    "alloydb-auth-proxy",
    "oauth2-proxy",
    "oauth-proxy",
    "haproxy",
    "traefik",
    "pgbouncer",
    "kube-rbac-proxy",
)


def sidecar_order(state: State, _gateways: tuple[Gateway, ...], _facts: Facts) -> Iterator[Finding]:
    """Containers that need each other, of which one is stopped sooner."""
    for workload in state.workloads:
        containers = regular(workload)
        proxies = [c for c in containers if _is_proxy(c)]
        apps = [c for c in containers if not _is_proxy(c)]
        if not proxies or not apps:
            continue
        longest = max(apps, key=lambda c: hook_seconds(c, state) or 0.0)
        serving_names = {container.name for container, _ in serving(state, workload)}
        for proxy in proxies:
            yield from _ends_before(state, workload, proxy, longest)
            if proxy.name in serving_names:
                for app in apps:
                    if not app.ports and app.readiness is None and app.liveness is None:
                        continue  # a log shipper, say, that takes no requests
                    yield from _ends_before(state, workload, app, proxy)


def _is_proxy(container: Container) -> bool:
    image = container.image.rsplit("/", 1)[-1].split("@")[0].split(":")[0]
    return any(name in (container.name, image) or image.startswith(f"{name}-") for name in _PROXIES)


def _ends_before(
    state: State, workload: Workload, early: Container, late: Container
) -> Iterator[Finding]:
    lasts, needed = hook_seconds(early, state), hook_seconds(late, state)
    if lasts is None or not needed or lasts >= needed:
        return
    yield report(
        "sidecar-order",
        in_container(workload, early, "lifecycle.preStop"),
        f"container `{early.name}` stops {seconds(needed - lasts)} before container `{late.name}`, "
        "whose requests go through it or come from it",
        _with_hook(workload, early, math.ceil(needed)),
        STOPS,
    )
