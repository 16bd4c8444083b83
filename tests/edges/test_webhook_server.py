"""The webhook over real TLS on loopback: reviews in and out, live reload, failing open."""

import asyncio
import base64
import contextlib
import json
import logging
import ssl
import time
from pathlib import Path

import httpx
import pytest

from upstream_guard.core.injection import InjectionRequest, inject
from upstream_guard.webhook.certs import CertAction, CertPlan, carry_out, plan_certs
from upstream_guard.webhook.keeper import load, server_context
from upstream_guard.webhook.server import WebhookServer

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("localhost", "127.0.0.1")


def certificates(now):
    return carry_out(plan_certs(None, NAMES, now), None, NAMES, now)


@pytest.fixture
def now():
    return time.time()


class Running:
    def __init__(self, now, decide, validate):
        self.bundle = certificates(now)
        self.context = server_context()
        load(self.context, self.bundle)
        self.seen = []
        self.server = WebhookServer(
            decide, validate, self.context, lambda *args: self.seen.append(args[:2])
        )
        self.port = 0

    def client(self):
        trust = ssl.create_default_context(cadata=self.bundle.ca_bundle.decode())
        return httpx.AsyncClient(base_url=f"https://127.0.0.1:{self.port}", verify=trust)

    async def post(self, path, body):
        async with self.client() as client:
            return await client.post(path, content=body)


@contextlib.asynccontextmanager
async def serving(now, decide=None, validate=None):
    running = Running(now, decide or (lambda *_: inject({}, InjectionRequest())), validate)
    running.port = await running.server.start("127.0.0.1", 0)
    try:
        yield running
    finally:
        await running.server.stop()


def golden(name):
    return json.loads((GOLDEN / name).read_text())


async def test_a_pod_review_is_answered_with_the_golden_patch(now):
    def decide(namespace, pod):
        assert namespace == "prod"
        return inject(pod, InjectionRequest(pre_stop=2, reason="nginx: built-in detach 1.2 s"))

    review = (GOLDEN / "mutate-pod-request.json").read_bytes()
    async with serving(now, decide) as running:
        answer = (await running.post("/mutate-pods", review)).json()
    patch = json.loads(base64.b64decode(answer["response"].pop("patch")))
    assert {"answer": answer, "patch": patch} == golden("mutate-pod-response.json")
    assert running.seen == [("mutate-pods", "patched")]


async def test_a_bad_guard_is_refused_with_its_path_and_a_good_one_allowed(now):
    problems = ["spec.probe.interval: must be at least 100ms"]
    body = json.dumps(guard_review({"spec": {}}))
    async with serving(now, validate=lambda _: problems) as running:
        denied = (await running.post("/validate-guards", body)).json()["response"]
        problems.clear()
        allowed = (await running.post("/validate-guards", body)).json()["response"]
    assert not denied["allowed"]
    assert denied["status"]["message"] == "spec.probe.interval: must be at least 100ms"
    assert allowed == {"uid": "u-1", "allowed": True}


async def test_a_guard_that_is_being_deleted_is_never_held_up(now):
    leaving = guard_review({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    async with serving(now, validate=lambda _: ["bad"]) as running:
        answer = await running.post("/validate-guards", json.dumps(leaving))
        assert answer.json()["response"]["allowed"]
        deleted = guard_review(None)
        answer = await running.post("/validate-guards", json.dumps(deleted))
        assert answer.json()["response"]["allowed"]


def guard_review(guard):
    request = {"uid": "u-1", "operation": "UPDATE", "namespace": "prod", "object": guard}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


async def test_a_defect_in_the_decision_lets_the_pod_through(now, caplog):
    def decide(namespace, pod):
        raise KeyError("nobody thought of this")

    review = (GOLDEN / "mutate-pod-request.json").read_bytes()
    with caplog.at_level(logging.ERROR):
        async with serving(now, decide) as running:
            answer = (await running.post("/mutate-pods", review)).json()["response"]
    assert answer == {"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": True}
    assert running.seen == [("mutate-pods", "error")]
    assert "allowed without a decision" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 200_000,
        b"[]",
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","request":{}}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{}}',
        b"\xff\xfe",
    ],
)
async def test_what_is_not_a_review_is_a_bad_request(now, body):
    async with serving(now) as running:
        response = await running.post("/mutate-pods", body)
    assert response.status_code == 400
    assert running.seen == [("mutate-pods", "bad-request")]


async def test_a_body_that_never_comes_is_given_up_within_the_second(now):
    async with serving(now) as running:
        trust = ssl.create_default_context(cadata=running.bundle.ca_bundle.decode())
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=trust)
        writer.write(b"POST /mutate-pods HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        async with asyncio.timeout(1.0):
            assert b"400" in await reader.readline()
        writer.close()


async def test_a_rotated_certificate_is_served_without_a_restart(now):
    async with serving(now) as running:
        review = (GOLDEN / "mutate-pod-request.json").read_bytes()
        first = await served_certificate(running)
        plan = CertPlan(CertAction.REISSUE, "", now)
        running.bundle = carry_out(plan, running.bundle, NAMES, now)
        load(running.context, running.bundle)
        assert await served_certificate(running) != first
        assert (await running.post("/mutate-pods", review)).status_code == 200


async def served_certificate(running):
    trust = ssl.create_default_context(cadata=running.bundle.ca_bundle.decode())
    _, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=trust)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return certificate
