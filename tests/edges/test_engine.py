"""The engine with everything it is wired to, against a scripted API server."""

import asyncio
import time
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from upstream_guard.controller import gate_writer
from upstream_guard.controller.app import App
from upstream_guard.controller.options import Options
from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ContainerStop, ObjectRef, ProbeResult
from upstream_guard.core.names import API_VERSION, GATE
from upstream_guard.resources.kube_objects import parse_node, parse_pod, parse_service

SHOP = ObjectRef("prod", "shop")


def service(name="shop", selector=None, **spec):
    return parse_service(
        {
            "metadata": {"namespace": "prod", "name": name, "uid": f"s-{name}"},
            "spec": {
                "selector": {"app": "shop"} if selector is None else selector,
                "ports": [{"port": 80, "targetPort": 8080}],
                **spec,
            },
        }
    )


def pod(name="shop-1", *, gate="True", labels=None, probe=None, owner="rs", node=""):
    conditions = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": gate}]
    return parse_pod(
        {
            "metadata": {
                "namespace": "prod",
                "name": name,
                "uid": f"u-{name}",
                "labels": {"app": "shop", **(labels or {})},
                "ownerReferences": [
                    {"controller": True, "kind": "StatefulSet", "name": owner, "uid": owner}
                ],
            },
            "spec": {
                "nodeName": node,
                "readinessGates": [{"conditionType": GATE}],
                "containers": [{"name": "app", "readinessProbe": probe or {}}],
            },
            "status": {
                "podIP": "198.18.0.1",
                "conditions": [*conditions, {"type": GATE, "status": gate}],
            },
        }
    )


def guard(name="shop", target="shop", uid="g1", generation=1, **spec):
    return {
        "apiVersion": API_VERSION,
        "kind": "UpstreamGuard",
        "metadata": {"namespace": "prod", "name": name, "uid": uid, "generation": generation},
        "spec": {"targetRef": {"name": target}, **spec},
    }


class Cluster:
    """The operator without its watches: a test says what they would."""

    def __init__(self, api, background):
        self.api = api
        self.app = App(Options(webhook_port=None), api.client, 35)
        self.engine, self.state, self.book = self.app.engine, self.app.state, self.app.book
        self.tracker = self.engine.tracker
        background(self.app._statuses.run())
        background(self.app._recorder.run())

    def see(self, *objects):
        for one in objects:
            if isinstance(one, dict):
                self.app.guard_seen(one, deleted=False)
            else:
                take = self.state._pod if hasattr(one, "gated") else self.state._service
                take(None, one)

    def probe(self, name, *, ok=True, times=2, guard="prod/shop"):
        cause = None if ok else Cause.REFUSED
        for _ in range(times):
            self.tracker._on_result(f"{guard}/u-{name}", ProbeResult(1.0, ok, cause))

    def gates(self):
        """What was written on pods, as (pod, status, reason)."""
        return [
            (path.split("/")[-2], c["status"], c["reason"])
            for verb, path, _, body in self.api.requests
            if "/pods/" in path
            for c in body["status"]["conditions"]
        ]

    def told(self):
        return [body["reason"] for body in self.api.bodies("POST")]

    def conditions(self, name="shop"):
        status = self.app._statuses.current(ObjectRef("prod", name))
        return {c["type"]: c["reason"] for c in status.get("conditions", ())}


@pytest.fixture
async def cluster(api, background):
    async def accept(request, body):
        return 200, {}

    api.handler = accept
    made = Cluster(api, background)
    made.engine.activate()
    yield made
    made.engine.abandon()


def three():
    return [pod(f"shop-{n}", labels={"pod": str(n)}) for n in range(3)]


async def test_an_endpoint_that_refuses_is_ejected_and_restored(cluster, until):
    cluster.see(service(), *three(), guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    for name in ("shop-0", "shop-1", "shop-2"):
        cluster.probe(name)
    cluster.probe("shop-1", ok=False)
    await until(lambda: cluster.gates() == [("shop-1", "False", "EndpointEjected")])
    cluster.probe("shop-1")
    await until(lambda: len(cluster.gates()) == 2)
    assert cluster.gates()[1] == ("shop-1", "True", "EndpointRestored")


def node(name, *taints):
    spec = {"taints": [{"key": taint, "effect": "NoSchedule"} for taint in taints]}
    return parse_node({"metadata": {"name": name}, "spec": spec})


async def test_endpoints_of_a_lost_node_leave_together_and_come_back(cluster, until):
    pods = [pod(f"shop-{n}", labels={"pod": str(n)}, node=f"n{n % 2}") for n in range(4)]
    cluster.see(service(), *pods, guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    for name in ("shop-0", "shop-1", "shop-2", "shop-3"):
        cluster.probe(name)
    for name in ("shop-1", "shop-3", "shop-0"):
        silent = Cause.CONNECT_TIMEOUT if name != "shop-0" else None
        result = ProbeResult(2.0, silent is None, silent, 0.5)
        cluster.tracker._on_result(f"prod/shop/u-{name}", result)
    cluster.tracker._on_result(
        "prod/shop/u-shop-3", ProbeResult(2.5, False, Cause.CONNECT_TIMEOUT, 0.5)
    )
    await until(lambda: len(cluster.gates()) == 4)
    assert set(cluster.gates()) == {
        (name, "False", reason)
        for name in ("shop-1", "shop-3")
        for reason in ("NodeLost", "UpstreamGuardNodeLost")
    }
    cluster.probe("shop-1")
    await until(lambda: ("shop-1", "True", "EndpointRestored") in cluster.gates())


async def test_an_endpoint_leaves_ahead_of_a_node_that_goes(cluster, until):
    pods = [pod(f"shop-{n}", labels={"pod": str(n)}, node=f"n{n}") for n in range(3)]
    cluster.see(service(), *pods, guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    for name in ("shop-0", "shop-1", "shop-2"):
        cluster.probe(name)
    cluster.state._node(None, node("n1", "karpenter.sh/disrupted"))
    await until(lambda: cluster.gates() == [("shop-1", "False", "NodeLeaving")])
    await until(lambda: "NodeLeaving" in cluster.told())
    await until(lambda: cluster.conditions().get("Healthy") == "AllServing")
    cluster.state._node(node("n1", "karpenter.sh/disrupted"), node("n1"))
    await until(lambda: ("shop-1", "True", "EndpointRestored") in cluster.gates())


def ended(name, seconds, *, code):
    """A pod that was deleted 40 s ago, and whose container ended so many seconds after SIGTERM."""
    made = pod(name)
    stop = ContainerStop("app", 2.0, 1000.0 + 2 + seconds, code)
    return replace(made, terminating=True, deleted_at=1000.0, grace_period=32.0, stops=(stop,))


def of_revision(number, name, **changes):
    made = pod(name, labels={"pod-template-hash": str(number)})
    owner = ("ReplicaSet", f"shop-{number}")
    return replace(made, owner=owner, template=f"shop-{number}", created=float(number), **changes)


@pytest.mark.parametrize(
    ("drain", "first"),
    [
        ("Enforce", ("old-0", "False", "EndpointSteppedAside")),
        ("Off", ("new", "True", "EndpointAdmitted")),
    ],
)
async def test_an_old_pod_with_a_hook_too_short_leaves_before_its_successor_is_listed(
    cluster, until, drain, first
):
    olds = [of_revision(1, f"old-{n}", pre_stop="sleep 1s") for n in range(3)]
    cluster.see(service(), *olds, guard(drain={"mode": drain}))
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    for one in olds:
        cluster.probe(one.ref.name)
    now = time.time()
    cluster.see(
        of_revision(
            2, "new", gate=None, ready=False, pre_stop="sleep 2s", containers_ready_since=now
        )
    )
    await until(lambda: len(cluster.tracker.ports(SHOP)) == 4)
    cluster.probe("new")
    await until(cluster.gates)
    assert cluster.gates()[0] == first
    await until(lambda: ("new", "True", "EndpointAdmitted") in cluster.gates())
    assert ("old-0", "True", "EndpointRestored") not in cluster.gates()


async def test_what_an_app_does_on_sigterm_is_told_and_sizes_the_next_grace_period(cluster, until):
    cluster.see(service(), *three(), guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    cluster.state._pod(pod("shop-0"), ended("shop-0", 30, code=137))
    await until(lambda: "AppIgnoresSigterm" in cluster.told())
    cluster.state._pod(pod("shop-1"), ended("shop-1", 12, code=0))
    await until(lambda: "AppDrains" in cluster.told())

    def app():
        return cluster.app._statuses.current(SHOP).get("drain", {}).get("app", {})

    await until(lambda: app().get("samples") == 2)
    assert (app()["onSigterm"], app()["killed"]) == ("Drains", 1)
    assert (app()["drainSeconds"], app()["givenSeconds"]) == (12, 30)
    template = {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "app"}]}}
    patch = cluster.app.drains.inject("prod", template).patch
    grace = next(o["value"] for o in patch if o["path"] == "/spec/terminationGracePeriodSeconds")
    hook = next(o["value"] for o in patch if o["path"] == "/spec/containers/0/lifecycle")
    assert grace == 38 + hook["preStop"]["sleep"]["seconds"]


@pytest.mark.parametrize(
    "after",
    [
        {"selector": {"app": "other"}},
        {"selector": {}},
        {"type": "ExternalName"},
    ],
)
async def test_pods_go_free_when_their_service_no_longer_leads_to_a_guard(cluster, until, after):
    old = service()
    cluster.see(old, pod("shop-0", gate="False"), pod("shop-1"), guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    cluster.state._service(old, service(**after))
    await until(lambda: cluster.gates() == [("shop-0", "True", "GuardReleased")])


async def test_pods_go_free_when_the_guard_becomes_invalid_or_goes(cluster, until):
    cluster.see(service(), pod("shop-0", gate="False"), pod("shop-1"), guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    cluster.see(guard(generation=2, probe={"interval": "soon"}))
    await until(lambda: cluster.gates() == [("shop-0", "True", "GuardReleased")])
    await until(lambda: cluster.conditions()["Accepted"] == "Invalid")


async def test_an_impossible_probe_is_told_and_harms_no_other_guard(cluster, until):
    broken = {"httpGet": {"port": 8080, "httpHeaders": [{"name": "X-A", "value": "a\nb"}]}}
    cluster.see(
        service("aaa", {"app": "shop", "own": "aaa"}),
        pod("aaa-0", labels={"own": "aaa"}, probe=broken, owner="aaa"),
        guard("aaa", "aaa"),
        service(selector={"own": "shop"}),
        pod("shop-0", labels={"own": "shop"}),
        guard(),
    )
    await until(lambda: cluster.conditions("aaa").get("Healthy") == "ProbeUnresolved")
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    assert cluster.tracker.ports(ObjectRef("prod", "aaa")) == {}


async def test_a_probe_edited_to_one_that_never_succeeds_ejects_nobody(cluster, until):
    cluster.see(service(), *three(), guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    for name in ("shop-0", "shop-1", "shop-2"):
        cluster.probe(name)
    cluster.see(guard(generation=2, probe={"port": 9}))
    await until(lambda: set(cluster.tracker.ports(SHOP).values()) == {9})
    for name in ("shop-0", "shop-1", "shop-2"):
        cluster.probe(name, ok=False)
    await until(lambda: cluster.conditions().get("Healthy") == "ProbeNeverSucceeded")
    assert cluster.gates() == []


async def test_a_stateful_pods_own_service_keeps_its_only_endpoint(cluster, until):
    own = service("shop-0", {"pod": "0"})
    cluster.see(service(), own, *three(), guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    for name in ("shop-0", "shop-1", "shop-2"):
        cluster.probe(name)
    cluster.probe("shop-0", ok=False)
    await until(lambda: cluster.conditions().get("Healthy") == "FloorReached")
    assert cluster.gates() == []


async def test_a_refused_write_is_decided_over_again(cluster, api, until, monkeypatch):
    monkeypatch.setattr(gate_writer, "HOLD_OFF_SECONDS", 0.05)
    good, refusals = api.handler, iter([403])

    async def handler(request, body):
        if "/pods/" in request.path and next(refusals, None):
            return api.failure(403)
        return await good(request, body)

    api.handler = handler
    cluster.see(service(), *three(), guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    for name in ("shop-0", "shop-1", "shop-2"):
        cluster.probe(name)
    cluster.probe("shop-1", ok=False)
    await until(lambda: cluster.gates() == [("shop-1", "False", "EndpointEjected")] * 2)


async def test_a_guards_late_deletion_does_not_take_its_successor_along(cluster, until):
    cluster.see(service(), pod(), guard())
    cluster.see(guard(uid="g2"))
    cluster.app.guard_seen(guard(uid="g1"), deleted=True)
    assert cluster.book.get(SHOP).uid == "g2"
    cluster.app.guard_seen(guard(uid="g2"), deleted=True)
    assert cluster.book.get(SHOP) is None
    assert cluster.book._by_service == {}


async def test_nothing_is_left_of_a_deleted_guard(cluster, until):
    cluster.see(service(), *three(), guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    cluster.probe("shop-0")
    assert b'guard="shop"' in generate_latest(cluster.app.metrics.registry)
    cluster.app.guard_seen(guard(), deleted=True)
    assert b'guard="shop"' not in generate_latest(cluster.app.metrics.registry)
    assert not cluster.tracker._tracks
    assert not cluster.tracker._by_guard
    assert not cluster.tracker._served


async def test_another_service_is_another_story(cluster, until):
    cluster.see(service(), service("cart", {"app": "cart"}), *three(), guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    cluster.probe("shop-0")
    assert cluster.tracker.service_served(SHOP)
    cluster.see(guard(generation=2, target="cart"))
    assert not cluster.tracker.service_served(SHOP)


async def test_in_peace_nothing_is_written(cluster, until, api):
    cluster.see(service(), *three(), guard())
    for name in ("shop-0", "shop-1", "shop-2"):
        await until(lambda: cluster.tracker.ports(SHOP))
        cluster.probe(name)
    await until(lambda: cluster.conditions().get("Healthy") == "AllServing")
    before = len(api.requests)
    for _ in range(20):
        cluster.engine.cluster()
        cluster.probe("shop-0", times=1)
    await until(lambda: not cluster.engine._flush_scheduled)
    assert len(api.requests) == before


async def test_only_the_guard_in_force_tells_of_a_pod(cluster, until):
    cluster.see(service(), *three(), guard(), guard("zzz", uid="g2"))
    await until(lambda: cluster.conditions("zzz").get("Accepted") == "Conflicted")
    for name in ("shop-0", "shop-1", "shop-2"):
        cluster.probe(name)
    cluster.probe("shop-1", ok=False)
    await until(lambda: "EndpointEjected" in cluster.told())
    ejected = [b for b in cluster.api.bodies("POST") if b["reason"] == "EndpointEjected"]
    assert [b["regarding"]["name"] for b in ejected] == ["shop"]


async def test_the_list_changes_before_anything_is_told_of_it(cluster, until, monkeypatch):
    order = []

    async def slow_gate(request, body):
        if "/pods/" in request.url.path:
            order.append("asked")
            await asyncio.sleep(0.01)
            order.append("written")
        return 200, {}

    cluster.see(service(), *three(), guard())
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    for name in ("shop-0", "shop-1", "shop-2"):
        cluster.probe(name)
    cluster.api.handler = slow_gate
    tell = cluster.engine._narrator.decided
    monkeypatch.setattr(
        cluster.engine._narrator, "decided", lambda *a: (order.append("told"), tell(*a))
    )
    cluster.probe("shop-1", ok=False)
    await until(lambda: order[-1:] == ["told"])
    assert order[0] == "asked"


async def test_what_cannot_be_written_is_told_all_the_same(cluster, until):
    async def refuse(request, body):
        return (403, {}) if "/pods/" in request.url.path else (200, {})

    cluster.see(service(), *three(), guard())
    await until(lambda: cluster.conditions().get("Healthy") is not None)
    for name in ("shop-0", "shop-1", "shop-2"):
        cluster.probe(name)
    cluster.api.handler = refuse
    cluster.probe("shop-1", ok=False)
    await until(lambda: cluster.conditions().get("Healthy") == "EndpointsFailing")


@pytest.mark.parametrize(
    ("body", "service_spec", "reason"),
    [
        (guard(target="nobody"), {}, "ServiceNotFound"),
        (guard(target="x" * 5000), {}, "Invalid"),
        (guard(probe={"path": "/" + "x" * 5000}), {}, "Invalid"),
        (guard(probe={"protocol": "TCP", "path": "/healthz"}), {}, "Invalid"),
        (guard() | {"spec": {"service": "shop", "intervalSeconds": 1}}, {}, "Invalid"),
        (guard() | {"spec": None}, {}, "Invalid"),
        (
            guard() | {"spec": {"targetRef": {"name": "shop", "sectionName": "x"}}},
            {},
            "PortNotFound",
        ),
        (guard(), {"type": "ExternalName"}, "ExternalName"),
        (guard(), {"selector": {}}, "NoSelector"),
        (guard(), {"clusterIP": "None"}, "Accepted"),
        (guard(), {"selector": {"app": "nothing"}}, "Accepted"),
    ],
)
async def test_bad_input_gets_a_condition_and_an_event_and_changes_nothing(
    cluster, until, body, service_spec, reason
):
    cluster.see(service(**service_spec), *three(), body)
    await until(lambda: cluster.conditions().get("Accepted") == reason)
    expected = "GuardAccepted" if reason == "Accepted" else "GuardNotAccepted"
    await until(lambda: expected in cluster.told())
    assert cluster.gates() == []
    notes = [b["note"] for b in cluster.api.bodies("POST")]
    assert all(len(note) <= 1024 for note in notes)


async def test_acceptance_is_told_once_however_long_its_status_takes(cluster, until, monkeypatch):
    told = []
    monkeypatch.setattr(cluster.app._recorder, "tell", told.append)
    arrives = asyncio.Event()

    async def slow_status(request, body):
        if "/upstreamguards/" in request.url.path:
            await arrives.wait()
        return 200, {}

    cluster.api.handler = slow_status
    cluster.see(service(), *three(), guard())
    await until(lambda: told)
    for name in ("shop-0", "shop-1", "shop-2"):
        cluster.probe(name)
    cluster.probe("shop-1", ok=False)
    await until(lambda: any(e.reason == "EndpointEjected" for e in told))
    arrives.set()
    await until(lambda: cluster.conditions().get("Accepted") == "Accepted")
    assert [e.reason for e in told].count("GuardAccepted") == 1


async def test_short_hooks_and_missing_sleep_are_told_once(cluster, until):
    cluster.app.drains.sleep_supported = False
    hook = {"preStop": {"sleep": {"seconds": 1}}}
    pods = three()
    short = parse_pod(
        {
            "metadata": {
                "namespace": "prod",
                "name": "own",
                "uid": "u-own",
                "labels": {"app": "shop"},
            },
            "spec": {"containers": [{"name": "app", "lifecycle": hook}]},
        }
    )
    cluster.see(service(), *pods, short, guard())
    await until(lambda: {"PreStopTooShort", "SleepNotSupported"} <= set(cluster.told()))
    for _ in range(3):
        cluster.engine.cluster()
        await until(lambda: not cluster.engine._flush_scheduled)
    await cluster.app._recorder.drain(5.0)
    assert cluster.told().count("PreStopTooShort") == 1
    assert cluster.told().count("SleepNotSupported") == 1
    await until(lambda: cluster.conditions().get("AtRisk") == "DrainTooShort")


async def test_nothing_is_left_of_a_namespace_that_was_emptied(cluster):
    seen, one = service(), pod()
    cluster.see(seen, one)
    cluster.state._pod(one, None)
    cluster.state._service(seen, None)
    assert not cluster.state.pods
    assert not cluster.state.services
