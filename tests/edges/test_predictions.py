"""Live predictions with everything they are wired to, against a scripted API server."""

import asyncio
import json
import math
import time
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from upstream_guard.controller import predictions as module
from upstream_guard.controller.app import App
from upstream_guard.controller.options import Options
from upstream_guard.controller.starts import KEPT, StartBook
from upstream_guard.core.model import ObjectRef, ProbeResult
from upstream_guard.core.names import API_VERSION
from upstream_guard.core.predict.facts import ASSUMED_START
from upstream_guard.core.predict.state import Change, ChangeKind
from upstream_guard.core.tuning import Evidence
from upstream_guard.kube.surroundings import Surroundings, parse_seen_ingress, parse_seen_service
from upstream_guard.resources.kube_objects import parse_node, parse_pod
from upstream_guard.resources.live import (
    parse_live_daemonset,
    parse_live_deployment,
    parse_live_statefulset,
)
from upstream_guard.resources.manifests import parse_budget, parse_quota

SHOP = ObjectRef("prod", "shop")


def service(**spec):
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {
        "metadata": {"namespace": "prod", "name": "shop", "uid": "s"},
        "spec": {"selector": {"app": "shop"}, "clusterIP": "198.19.0.7", "ports": ports, **spec},
    }


def container(**fields):
    return {"name": "app", "image": "shop:1", "ports": [{"containerPort": 8080}], **fields}


def deployment(replicas=3, generation=1, status=None, spec=None, **fields):
    settled = {
        "observedGeneration": generation,
        "replicas": replicas,
        "updatedReplicas": replicas,
        "availableReplicas": replicas,
    }
    return {
        "metadata": {
            "namespace": "prod",
            "name": "shop",
            "uid": "d",
            "generation": generation,
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {"containers": [container(**fields)]},
            },
            **(spec or {}),
        },
        "status": settled if status is None else {**settled, **status},
    }


def pod(name, node="n1", terminating=False, ready=True, ends=0):
    kind = "True" if ready else "False"
    metadata = {
        "namespace": "prod",
        "name": name,
        "uid": f"u-{name}",
        "labels": {"app": "shop", "pod-template-hash": "1"},
        "ownerReferences": [
            {"controller": True, "kind": "ReplicaSet", "name": "shop-1", "uid": "r"}
        ],
    }
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    return parse_pod(
        {
            "metadata": metadata,
            "spec": {"nodeName": node, "containers": [container()]},
            "status": {
                "podIP": "198.18.0.1",
                "conditions": [{"type": c, "status": kind} for c in ("ContainersReady", "Ready")],
                "containerStatuses": [
                    {
                        "restartCount": ends,
                        "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}},
                    }
                ],
            },
        }
    )


def node(name, ready=True, cordoned=False):
    return parse_node(
        {
            "metadata": {"name": name},
            "spec": {"unschedulable": cordoned},
            "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
        }
    )


def guard(status=None, **spec):
    off = {"drain": {"mode": "Off"}, "upstreamList": {"mode": "Observe"}}
    return {
        "apiVersion": API_VERSION,
        "kind": "UpstreamGuard",
        "metadata": {"namespace": "prod", "name": "shop", "uid": "g", "generation": 1},
        "spec": {"targetRef": {"name": "shop"}, **off, **spec},
        "status": status or {},
    }


class Cluster:
    """The operator without its watches: a test says what they would."""

    def __init__(self, api):
        self.api = api
        self.app = App(Options(webhook_port=None), api.client, 35)
        self.engine, self.state = self.app.engine, self.app.state
        self.deployment = self.pods = self.nodes = None

    def start(self, background):
        background(self.app._statuses.run())
        background(self.app._recorder.run())
        background(self.app.predictions.run())
        self.engine.activate()

    def fill(self, *, body=None, **fields):
        self.state._seen_service(None, parse_seen_service(service()))
        self.state.owners[ObjectRef("prod", "shop-1")] = "deployment/shop"
        self.nodes = {name: node(name) for name in ("n1", "n2")}
        for one in self.nodes.values():
            self.state._node(None, one)
        self.deploy(**fields)
        self.pods = {}
        for name, where in (("a", "n1"), ("b", "n1"), ("c", "n2")):
            self.put(name, node=where)
        self.app.guard_seen(body or guard(), deleted=False)

    def deploy(self, **fields):
        new = parse_live_deployment(deployment(**fields))
        self.state.surroundings._workload(self.deployment, new)
        self.deployment = new

    def put(self, name, **fields):
        new = pod(name, **{"node": "n2" if name == "c" else "n1", **fields})
        self.state._pod(self.pods.get(name), new)
        self.pods[name] = new

    def turn(self, name, **fields):
        new = node(name, **fields)
        self.state._node(self.nodes[name], new)
        self.nodes[name] = new

    @property
    def status(self):
        return self.app._statuses.current(SHOP)

    @property
    def wanted(self):
        return self.app._statuses._wanted.get(SHOP, self.status)

    def events(self, reason="WindowPredicted"):
        return [b for b in self.api.bodies("POST") if b["reason"] == reason]

    def changes(self):
        return {(p["change"], p["subject"]) for p in self.wanted.get("predictions", ())}

    def under_way(self):
        return {begun.key for begun in self.app.predictions.under_way(SHOP)}

    def wait(self, seconds):
        """Let so much time pass, as far as predictions are concerned."""
        predictions = self.app.predictions
        before = predictions._clock
        predictions._clock = lambda: before() + seconds
        self.engine.mark(SHOP)


@pytest.fixture
async def cluster(api, background, monkeypatch):
    async def accept(request, body):
        return 200, {}

    monkeypatch.setattr(module, "REVIEW_SHARE", 1.0)
    api.handler = accept
    made = Cluster(api)
    made.start(background)
    yield made
    made.engine.abandon()


@pytest.fixture
async def calm(cluster, until):
    """A Service that loses requests in every change, reviewed and told of."""
    cluster.fill()
    await until(lambda: cluster.events("RisksFound"))
    await until(lambda: "risks" in cluster.status)
    return cluster


async def test_a_guard_applied_a_moment_before_its_pods_is_not_judged_by_their_absence(
    cluster, until
):
    cluster.state._seen_service(None, parse_seen_service(service()))
    cluster.app.guard_seen(guard(), deleted=False)
    await until(lambda: cluster.app.predictions._memories)
    (memory,) = cluster.app.predictions._memories.values()
    assert memory.review_after > time.monotonic() + module.NO_PODS_SECONDS / 2
    cluster.fill()
    await until(lambda: cluster.events("RisksFound"))
    assert "no readinessProbe" in cluster.events("RisksFound")[0]["note"]


async def test_a_rollout_is_told_before_any_pod_changes(calm, until):
    calm.deploy(generation=2, image="shop:2", status={"observedGeneration": 1})
    await until(calm.events)
    (event,) = calm.events()
    assert event["type"] == "Warning"
    assert event["action"] == "PredictRollout"
    assert event["regarding"]["name"] == "shop"
    assert (event["related"]["kind"], event["related"]["uid"]) == ("Deployment", "d")
    assert "deployment/shop: rollout: about" in event["note"]
    assert "kubectl -n prod patch deployment shop --type strategic" in event["note"]
    await until(lambda: calm.status.get("predictions"))
    (first, *_) = calm.status["predictions"]
    assert (first["change"], first["subject"]) == ("rollout", "deployment/shop")
    assert first["began"] <= first["madeAt"] <= first["until"]
    assert first["lostRequests"] > 0
    assert first["probabilityPercent"] >= 50
    text = generate_latest(calm.app.metrics.registry).decode()
    assert 'upstream_guard_windows_predicted_total{cause="refused",change="rollout"' in text
    assert 'upstream_guard_predictions_open{guard="shop",namespace="prod"} 0.0' not in text
    lost = sum(p["lostRequests"] for p in calm.status["predictions"])
    assert (
        f'upstream_guard_predicted_lost_requests{{guard="shop",namespace="prod"}} {lost}.0' in text
    )


async def test_it_is_closed_when_the_last_old_pod_is_gone(calm, until):
    calm.deploy(generation=2, image="shop:2", status={"observedGeneration": 1})
    await until(lambda: calm.changes() == {("rollout", "deployment/shop")})
    calm.put("a", terminating=True)
    calm.deploy(generation=2, image="shop:2")
    await until(lambda: not calm.engine._flush_scheduled)
    assert calm.changes() == {("rollout", "deployment/shop")}
    calm.state._pod(calm.pods["a"], None)
    await until(lambda: not calm.under_way())
    assert calm.changes() == {("rollout", "deployment/shop")}, "its window may be open yet"
    calm.wait(100)
    await until(lambda: not calm.changes())
    await until(calm.events)
    assert len(calm.events()) == 1
    text = generate_latest(calm.app.metrics.registry).decode()
    assert 'upstream_guard_predictions_open{guard="shop",namespace="prod"} 0.0' in text


async def test_a_rollout_that_began_under_no_controller_is_told_by_the_next(cluster, until):
    cluster.fill(generation=2, image="shop:2", status={"updatedReplicas": 1, "replicas": 4})
    await until(cluster.events)
    assert [e["action"] for e in cluster.events()] == ["PredictRollout"]
    await until(lambda: cluster.changes() == {("rollout", "deployment/shop")})


async def test_a_rollout_that_has_stalled_is_not_told_again_by_each_controller(cluster, until):
    stalled = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    status = {"updatedReplicas": 1, "replicas": 4, "conditions": stalled}
    cluster.fill(generation=2, image="shop:2", status=status)
    await until(lambda: cluster.events("RisksFound"))
    assert cluster.events() == []


async def test_it_is_scored_when_it_is_over(calm, until, monkeypatch):
    scoring = calm.app.scoring
    monkeypatch.setattr(scoring, "_clock", lambda: math.inf)
    scoring.watching(SHOP, ["ClusterIP"])
    calm.deploy(generation=2, image="shop:2", status={"observedGeneration": 1})
    await until(calm.changes)
    labels = {"namespace": "prod", "guard": "shop", "change": "rollout", "outcome": "false-alarm"}
    name, registry = "upstream_guard_predictions_scored_total", calm.app.metrics.registry
    assert registry.get_sample_value(name, labels) is None
    calm.deploy(generation=2, image="shop:2")
    await until(lambda: not calm.under_way())
    assert registry.get_sample_value(name, labels) == 1
    calm.app.guard_seen(guard(), deleted=True)
    assert registry.get_sample_value(name, labels) is None


async def test_a_change_that_ends_with_its_last_pod_explains_that_pod(calm, until):
    calm.deploy(replicas=1, generation=2, status={"observedGeneration": 1, "replicas": 3})
    await until(calm.changes)
    for name in ("a", "b"):
        calm.state._pod(calm.pods[name], None)
    calm.deploy(replicas=1, generation=2)
    await until(lambda: not calm.under_way())
    await until(lambda: not calm.app.predictions._changes)
    await until(calm.events)
    assert [e["action"] for e in calm.events()] == ["PredictScaleIn"]


async def test_a_scale_in_is_told_at_the_replica_count(calm, until):
    calm.deploy(replicas=1, generation=2, status={"observedGeneration": 1, "replicas": 3})
    await until(calm.events)
    assert calm.events()[0]["action"] == "PredictScaleIn"
    assert calm.changes() == {("scale-in", "deployment/shop")}


async def test_a_rate_that_is_observed_counts_and_an_assumed_one_does_not(calm, until):
    calm.app.predictions.observe_rate(lambda ref: 200.0 if ref == SHOP else None)
    calm.deploy(replicas=1, generation=2, status={"observedGeneration": 1, "replicas": 3})
    await until(lambda: calm.changes() == {("scale-in", "deployment/shop")})
    busy = sum(p["lostRequests"] for p in calm.wanted["predictions"])
    calm.app.predictions.observe_rate(lambda ref: None)
    calm.deploy(replicas=3, generation=3)
    await until(lambda: not calm.under_way())
    calm.deploy(replicas=1, generation=4, status={"observedGeneration": 3, "replicas": 3})
    await until(lambda: len(calm.events()) == 2 and calm.changes())
    assumed = sum(p["lostRequests"] for p in calm.wanted["predictions"])
    assert busy == pytest.approx(20 * assumed, rel=0.15)


async def test_a_busy_cluster_makes_kube_proxy_late(calm, until):
    """What others change counts as it was seen, and the Service's own slices do not."""
    now = calm.app.predictions._clock()
    churn = calm.engine.churn
    for second in range(60):
        churn.saw(ObjectRef("other", "noisy"), now - 120 + 2 * second)
        churn.saw(SHOP, now - 120 + 2 * second + 1)
    assert churn.of_others(SHOP, now) == pytest.approx(0.7)
    entry = calm.app.book.get(SHOP)
    facts = calm.app.predictions._facts(entry.guard, Change(ChangeKind.ROLLOUT))
    assert facts.platform.other_changes == pytest.approx(0.7)
    assert calm.app.predictions._facts(entry.guard).platform.other_changes == 0


async def test_a_drain_is_told_at_the_cordon_and_over_with_the_uncordon(calm, until):
    calm.turn("n1", cordoned=True)
    await until(calm.events)
    assert calm.events()[0]["action"] == "PredictNodeDrain"
    await until(lambda: calm.changes() == {("node-drain", "node/n1")})
    calm.put("a", terminating=True)
    calm.turn("n1")
    await until(lambda: ("node-drain", "node/n1") not in calm.under_way())
    assert len(calm.events()) == 1


async def test_a_deleted_pod_and_a_crash_are_told(calm, until):
    calm.put("a", terminating=True)
    await until(lambda: ("pod-deletion", "deployment/shop") in calm.changes())
    calm.put("c", ready=False, ends=1)
    await until(lambda: ("crash", "deployment/shop") in calm.changes())
    await until(lambda: len(calm.events()) == 2)


async def test_an_edit_that_makes_an_error_is_told_once(calm, until):
    broken = service(ports=[{"name": "http", "port": 80, "targetPort": "nowhere"}])
    calm.state._seen_service(parse_seen_service(service()), parse_seen_service(broken))
    await until(calm.events)
    assert calm.events()[0]["action"] == "PredictEdit"
    await until(lambda: ("edit", "service/shop") in calm.changes())
    assert "duration" not in calm.wanted["predictions"][0]
    calm.state._seen_service(parse_seen_service(broken), parse_seen_service(service()))
    await until(lambda: not calm.changes())
    assert len(calm.events()) == 1


async def test_a_guarded_rollout_of_a_sound_service_tells_nothing(cluster, until):
    probe = {"httpGet": {"port": 8080}, "periodSeconds": 1}
    sound = {"readinessProbe": probe, "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}
    cluster.fill(**sound)
    memories = cluster.app.predictions._memories
    await until(lambda: SHOP in memories)
    cluster.deploy(generation=2, image="shop:2", **sound, status={"observedGeneration": 1})
    await until(lambda: any(not o.windows for o in memories[SHOP].open.values()))
    await until(lambda: not cluster.app.predictions._changes)
    await asyncio.sleep(0)
    assert cluster.events() == []


async def test_standing_risks_are_a_condition_and_one_event(calm, until):
    (event,) = calm.events("RisksFound")
    assert event["type"] == "Warning"
    ids = [risk["risk"] for risk in calm.status["risks"]]
    assert "no-readiness-probe" in ids
    at_risk = next(c for c in calm.status["conditions"] if c["type"] == "AtRisk")
    assert (at_risk["status"], at_risk["reason"]) == ("True", "DrainNotEnforced")


async def test_in_peace_nothing_is_predicted_written_or_told(calm, until, api, monkeypatch):
    monkeypatch.setattr(module, "REVIEW_SECONDS", 0.0)
    await until(lambda: not calm.app._statuses._wanted and not calm.app._statuses._writing)
    await calm.app._recorder.drain(5.0)
    asked = []
    monkeypatch.setattr(calm.app.predictions, "_review", asked.append)
    before = len(api.requests)
    for _ in range(20):
        calm.engine.cluster()
        calm.engine.tracker._on_result("prod/shop/u-a", ProbeResult(1.0, ok=True))
        # The controller and the quota report again, and say nothing new.
        calm.deploy()
        calm.state.surroundings._quiet_rule(None, parse_quota(QUOTA))
        await until(lambda: not calm.engine._flush_scheduled)
    assert asked == []
    assert len(api.requests) == before


QUOTA = {
    "metadata": {"namespace": "prod", "name": "q"},
    "spec": {"hard": {"pods": "10"}},
    "status": {"hard": {"pods": "10"}, "used": {"pods": "3"}},
}


async def test_a_rule_of_the_namespace_is_reason_to_review_again(calm, until, monkeypatch):
    asked = []
    monkeypatch.setattr(calm.app.predictions, "_review", asked.append)
    calm.app.predictions._memories[SHOP].review_after = 0.0
    budget = {
        "metadata": {"namespace": "prod", "name": "b"},
        "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "shop"}}},
    }
    calm.state.surroundings._rule(None, parse_budget(budget))
    await until(lambda: asked == [SHOP])


async def test_a_new_controller_takes_over_what_the_old_one_told(calm, until, api, background):
    calm.deploy(generation=2, image="shop:2", status={"observedGeneration": 1})
    await until(lambda: calm.status.get("predictions"))
    status = json.loads(json.dumps(calm.status))
    told = len(calm.events()), len(calm.events("RisksFound"))
    calm.engine.abandon()

    successor = Cluster(api)
    rolling = {"observedGeneration": 1, "updatedReplicas": 1}
    successor.fill(body=guard(status), generation=2, image="shop:2", status=rolling)
    successor.start(background)
    memories = successor.app.predictions._memories
    await until(lambda: SHOP in memories)
    assert successor.wanted["predictions"] == status["predictions"]
    assert successor.wanted["risks"] == status["risks"]
    successor.deploy(generation=2, image="shop:2")
    await until(lambda: not successor.under_way())
    successor.wait(module.AFTERMATH)
    await until(lambda: not successor.changes())
    assert (len(successor.events()), len(successor.events("RisksFound"))) == told


async def test_it_ends_by_itself_where_its_end_is_never_seen(calm, until, monkeypatch):
    monkeypatch.setattr("upstream_guard.core.predict.live.LONGEST_DRAIN", 0.2)
    calm.turn("n1", cordoned=True)
    await until(calm.events)
    await until(lambda: SHOP in calm.app.predictions._memories and not calm.under_way())


async def test_nothing_is_left_of_a_deleted_guard(calm, until):
    calm.deploy(generation=2, image="shop:2", status={"observedGeneration": 1})
    await until(calm.changes)
    calm.app.guard_seen(guard(), deleted=True)
    assert not calm.app.predictions._memories
    assert b'guard="shop"' not in generate_latest(calm.app.metrics.registry)


async def test_a_change_hurries_the_requests_through_the_gateway(calm, until, background):
    asked = []

    async def serve(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    entry = {"ip": "127.0.0.1", "ports": [{"port": port, "protocol": "TCP"}]}
    backend = {"service": {"name": "shop", "port": {"number": 80}}}
    ingress = {
        "metadata": {"namespace": "prod", "name": "web"},
        "spec": {"ingressClassName": "contour", "defaultBackend": backend},
        "status": {"loadBalancer": {"ingress": [entry]}},
    }
    background(calm.app.routes.run())
    calm.state._seen_route(None, parse_seen_ingress(ingress))
    await until(lambda: calm.status.get("routes"))
    assert calm.status["routes"][0]["via"] == f"127.0.0.1:{port}"
    assert len(asked) <= 3
    calm.deploy(generation=2, image="shop:2", status={"observedGeneration": 1})
    await until(lambda: len(asked) >= 12)
    assert b"GET / HTTP/1.1" in asked[0]
    calm.app.guard_seen(guard(), deleted=True)
    await until(lambda: not calm.app.routes._ways)
    server.close()


async def test_a_mistake_in_a_prediction_does_not_end_the_others(calm, until, background):
    monkey = calm.app.predictions
    background(calm.app._predict())
    good, failed = monkey._foresee, []

    def bad(ref, begun):
        failed.append(begun)
        monkey._foresee = good
        raise ValueError("a mistake")

    monkey._foresee = bad
    monkey._changes.append((SHOP, None))
    monkey._kick.set()
    await until(lambda: failed)
    calm.deploy(generation=2, image="shop:2", status={"observedGeneration": 1})
    await until(calm.events)


class TestStarts:
    def book(self, *starts):
        made = StartBook()
        for uid, (failed, answered) in enumerate(starts):
            made.answered(SHOP, f"u-{uid}", failed, answered)
        return made

    def pods(self, number, started):
        return [replace(pod(str(n)), uid=f"u-{n}", started=started) for n in range(number)]

    def test_nothing_seen_is_assumed(self):
        assert self.book().estimate(SHOP) == ASSUMED_START

    def test_between_the_last_failure_and_the_first_answer(self):
        book = self.book((103.0, 103.5), (104.0, 104.5))
        book.match(SHOP, self.pods(2, 100.0))
        found = book.estimate(SHOP)
        assert (found.low, found.value, found.high) == (2.0, 3.25, 4.5)
        assert found.evidence is Evidence.MEASURED
        assert "2 times" in found.source

    def test_an_answer_waits_for_the_start_to_be_told(self):
        book = self.book((0.0, 100.9))
        book.match(SHOP, self.pods(1, 0.0))
        assert book.estimate(SHOP) == ASSUMED_START
        book.match(SHOP, self.pods(1, 100.0))
        assert book.estimate(SHOP).high == pytest.approx(0.9)

    def test_a_pod_that_ran_long_before_says_nothing(self):
        book = self.book((0.0, 500.0))
        book.match(SHOP, self.pods(1, 100.0))
        assert book.estimate(SHOP) == ASSUMED_START
        assert not book._answers

    def test_the_last_few_count_and_nothing_stays_of_pods_that_are_gone(self):
        book = self.book(*((100.0 + n, 101.0 + n) for n in range(KEPT + 4)))
        book.match(SHOP, self.pods(KEPT + 4, 100.0))
        assert len(book._starts[SHOP]) == KEPT
        book.answered(SHOP, "gone", 1.0, 2.0)
        book.match(SHOP, [])
        assert not book._answers
        book.forget(SHOP)
        assert book.estimate(SHOP) == ASSUMED_START


class TestWorkloads:
    def test_a_statefulsets_held_pods_need_no_update(self):
        body = deployment(status={"updatedReplicas": 1})
        body["spec"]["updateStrategy"] = {"rollingUpdate": {"partition": 2}}
        assert not parse_live_statefulset(body).rolling
        body["spec"]["updateStrategy"] = {"rollingUpdate": {"partition": 1}}
        assert parse_live_statefulset(body).rolling

    def test_a_daemonset_wants_as_many_pods_as_nodes(self):
        body = deployment()
        body["status"] = {
            "desiredNumberScheduled": 2,
            "currentNumberScheduled": 2,
            "updatedNumberScheduled": 2,
            "numberAvailable": 2,
            "observedGeneration": 1,
        }
        sight = parse_live_daemonset(body)
        assert sight.workload.replicas == 2
        assert sight.settled

    def test_the_fingerprint_sees_what_the_values_leave_out(self):
        one = parse_live_deployment(deployment())
        other = parse_live_deployment(deployment(resources={"limits": {"cpu": "1"}}))
        assert one.workload == other.workload
        assert one.template != other.template

    def test_nothing_stays_of_what_is_gone(self):
        ingress = {
            "metadata": {"namespace": "prod", "name": "i"},
            "spec": {"defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}}},
        }

        class Nobody:
            def workload_changed(self, sight): ...

            def rules_changed(self, namespace): ...

        around = Surroundings(Nobody())
        seen, route = parse_live_deployment(deployment()), parse_seen_ingress(ingress)
        around._workload(None, seen)
        around._quiet_rule(None, parse_quota(QUOTA))
        around.put_route(None, route)
        assert around.routes_to(SHOP)
        around._workload(seen, None)
        around._quiet_rule(parse_quota(QUOTA), None)
        around.put_route(route, None)
        assert not around._workloads
        assert not around._rules
        assert not around._routes
