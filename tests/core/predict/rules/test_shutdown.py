"""Shutdown rules."""

from typing import Any

import pytest
from tests.core.predict.factories import (
    CONTOUR,
    KUBE_PROXY,
    NGINX,
    bare_container,
    container,
    facts,
    http_probe,
    run_before_stop,
    seconds,
    service,
    sleep,
    state,
    workload,
)
from tests.core.predict.rules.looking import only, patch_of, risks, severity

from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.state import (
    GuardFacts,
    HookKind,
    PreStop,
    Shutdown,
    Strategy,
    StrategyKind,
)
from upstream_guard.core.predict.window import Severity


def pod_patch(grace: int | None = None, **containers: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {} if grace is None else {"terminationGracePeriodSeconds": grace}
    if containers:
        fields["containers"] = [{"name": name, **value} for name, value in containers.items()]
    return {"spec": {"template": {"spec": fields}}}


def slept(seconds: int) -> dict[str, Any]:
    return {"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}}


@pytest.mark.parametrize(("gateway", "needed"), [(NGINX, 5), (CONTOUR, 1), (KUBE_PROXY, 2)])
def test_a_missing_hook_is_sized_from_the_gateway(gateway: Gateway, needed: int) -> None:
    spoilt = state(workload(container(pre_stop=None)))
    found = only("no-pre-stop", spoilt, gateways=[gateway])
    assert patch_of(found) == pod_patch(60 + needed, app=slept(needed))


def test_the_slowest_gateway_decides() -> None:
    found = only(
        "no-pre-stop", state(workload(container(pre_stop=None))), gateways=[CONTOUR, NGINX]
    )
    assert "ingress-nginx (nginx) may send it requests for 4.3 s more" in found.message
    assert patch_of(found) == pod_patch(65, app=slept(5))


def test_every_regular_container_without_a_hook_gets_one() -> None:
    pods = workload(
        container(pre_stop=None),
        container("helper", port=9000, pre_stop=None),
        container("kept", port=9001),
        container("native", port=9002, pre_stop=None, sidecar=True),
    )
    found = only("no-pre-stop", state(pods))
    assert patch_of(found) == pod_patch(65, app=slept(5), helper=slept(5))


def test_one_pod_that_nobody_replaces_in_time_gains_nothing_by_a_hook() -> None:
    alone = workload(
        container(pre_stop=None), replicas=1, strategy=Strategy(StrategyKind.RECREATE, 0, "100%")
    )
    found = only("no-pre-stop", state(alone))
    assert (found.severity, found.remedy) == (Severity.INFO, None)
    assert "nobody takes over" in found.no_remedy


def test_clients_of_a_headless_service_are_not_served_by_kube_proxy() -> None:
    pods = workload(container(pre_stop=None))
    headless = state(pods, service=service(headless=True))
    found = only("no-pre-stop", headless, gateways=[KUBE_PROXY])
    assert "kube-proxy" not in found.message
    assert found.remedy is None
    assert "DNS cache" in found.no_remedy
    routed = only("no-pre-stop", headless, gateways=[NGINX])
    assert "ingress-nginx (nginx) may send it requests" in routed.message


def test_apps_that_linger_long_enough_need_no_hook() -> None:
    spoilt = state(workload(container(pre_stop=None)))
    lingering = facts(shutdown=Shutdown.LINGERS, linger=seconds(6.0))
    assert "no-pre-stop" not in risks(spoilt, lingering)
    brief = facts(shutdown=Shutdown.LINGERS, linger=seconds(2.0))
    assert "no-pre-stop" in risks(spoilt, brief)


def test_a_guards_hook_counts() -> None:
    spoilt = workload(container(pre_stop=None))
    assert "no-pre-stop" not in risks(state(spoilt, guard=GuardFacts(pre_stop=5.0)))
    assert "no-pre-stop" in risks(state(spoilt, guard=GuardFacts(pre_stop=2.0)))


@pytest.mark.parametrize(
    ("hook", "expected"),
    [(2.0, Severity.WARNING), (4.5, Severity.INFO), (4.8, None), (30.0, None)],
)
def test_short_hooks(hook: float, expected: Severity | None) -> None:
    found = state(workload(container(pre_stop=sleep(hook))))
    assert severity("pre-stop-too-short", found) is expected


def test_a_longer_hook_leaves_the_app_its_own_time() -> None:
    found = only("pre-stop-too-short", state(workload(container(pre_stop=sleep(2.0)))))
    assert patch_of(found) == pod_patch(63, app=slept(5))


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        (("sleep", "2"), ["sleep", "5"]),
        (("/bin/sleep", "2"), ["/bin/sleep", "5"]),
        (("sh", "-c", "sleep 2 && nginx -s quit"), ["sh", "-c", "sleep 5 && nginx -s quit"]),
    ],
)
def test_a_commands_sleep_is_made_longer(command: tuple[str, ...], changed: list[str]) -> None:
    hook = run_before_stop(*command, seconds=2.0)
    found = only("pre-stop-too-short", state(workload(container(pre_stop=hook))))
    wanted = {"lifecycle": {"preStop": {"exec": {"command": changed}}}}
    assert patch_of(found) == pod_patch(63, app=wanted)


def test_a_hook_that_stops_the_server_is_worse_than_none() -> None:
    hook = run_before_stop("/usr/sbin/nginx", "-s", "quit")
    found = only("pre-stop-too-short", state(workload(container(pre_stop=hook))))
    assert "stops the server at once" in found.message
    assert "has to wait 5 s before" in found.no_remedy


def test_hooks_that_cannot_be_read_are_believed() -> None:
    hooks = [run_before_stop("/wait-shutdown"), PreStop(HookKind.HTTP)]
    for hook in hooks:
        assert risks(state(workload(container(pre_stop=hook)))) == set()


def test_a_hook_as_long_as_the_grace_period() -> None:
    pods = workload(container(pre_stop=run_before_stop("sleep", "30", seconds=30.0)))
    found = only(
        "pre-stop-exceeds-grace",
        state(workload(*pods.template.containers, template={"grace_period": 30.0})),
    )
    assert "lasts 30 s, the grace period is 30 s" in found.message
    assert patch_of(found) == pod_patch(60)


def test_a_sleep_beyond_the_grace_period_is_refused() -> None:
    pods = workload(container(pre_stop=sleep(31.0)), template={"grace_period": 30.0})
    found = only("pre-stop-exceeds-grace", state(pods))
    assert found.severity is Severity.ERROR
    assert "refuses" in found.message


def test_grace_must_hold_hook_and_drain() -> None:
    pods = state(workload(template={"grace_period": 30.0}))
    assert "grace-shorter-than-drain" not in risks(pods, facts(drain=seconds(15.0)))
    found = only("grace-shorter-than-drain", pods, facts(drain=seconds(25.0, 5.0)))
    assert patch_of(found) == pod_patch(41)


def test_without_any_grace_every_request_is_lost() -> None:
    killed = state(workload(container(pre_stop=None), template={"grace_period": 0.0}))
    found = only("grace-shorter-than-drain", killed)
    assert patch_of(found) == pod_patch(30)


def test_apps_that_end_at_once_drop_what_they_answer() -> None:
    abrupt = facts(shutdown=Shutdown.EXITS, response=seconds(8.0))
    found = only("sigterm-drops-requests", state(), abrupt)
    assert patch_of(found) == pod_patch(63, app=slept(13))
    assert "sigterm-drops-requests" not in risks(state(), facts(shutdown=Shutdown.EXITS))


@pytest.mark.parametrize(
    ("command", "args", "changed"),
    [
        (("sh", "-c", "cd /app && ./serve --port 80"), (), "cd /app && exec ./serve --port 80"),
        (("/bin/bash", "-ec"), ("migrate; serve",), "migrate; exec serve"),
        (("sh", "-c", "serve | tee log; true | cat"), (), None),
    ],
)
def test_shells_keep_signals_to_themselves(
    command: tuple[str, ...], args: tuple[str, ...], changed: str | None
) -> None:
    found = only("sigterm-ignored", state(workload(container(command=command, args=args))))
    assert found.severity is Severity.INFO
    if changed is None:
        assert found.remedy is None
    else:
        field, words = ("args", args) if args else ("command", command)
        assert patch_of(found) == pod_patch(app={field: [*words[:-1], changed]})


@pytest.mark.parametrize(
    "command",
    [
        ("sh", "-c", "cd /app && exec ./serve"),
        ("sh", "-c", "./serve"),
        ("bash", "-c", "trap 'kill 0' TERM; ./serve & wait"),
        ("sh", "/entrypoint.sh"),
        ("./serve", "-c", "a; b"),
        (),
    ],
)
def test_apps_that_get_the_signal(command: tuple[str, ...]) -> None:
    assert risks(state(workload(container(command=command)))) == set()


def test_a_proxy_that_stops_before_the_app() -> None:
    proxy = container("cloud-sql-proxy", port=5432, pre_stop=None, readiness=None)
    found = only("sidecar-order", state(workload(container(), proxy)))
    assert "container `cloud-sql-proxy` stops 10 s before container `app`" in found.message
    assert patch_of(found) == pod_patch(70, **{"cloud-sql-proxy": slept(10)})


def test_an_app_that_stops_before_the_proxy_in_front_of_it() -> None:
    front = container("web", image="nginx:1.29")
    app = container("php", port=9000, pre_stop=None, readiness=http_probe())
    assert (
        "container `php` stops 10 s before"
        in only("sidecar-order", state(workload(front, app))).message
    )


@pytest.mark.parametrize(
    "other",
    [
        bare_container("logs", port=None, image="fluent-bit:3"),
        container("cloud-sql-proxy", port=5432, pre_stop=None, sidecar=True),
        container("envoy", port=9901),
    ],
    ids=["no proxy", "a native sidecar", "a hook as long"],
)
def test_containers_in_good_order(other: Any) -> None:
    assert "sidecar-order" not in risks(state(workload(container(), other)))
