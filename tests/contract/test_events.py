"""Events on a real API server, which lets nothing of an Event be changed but its series."""

import json
import time
import uuid

from upstream_guard.kube.client import KubeClient
from upstream_guard.kube.events import SERIES_WRITE_SECONDS, Event, EventRecorder, Subject


async def test_a_story_told_in_other_words_is_counted(apiserver):
    name = f"shop-{uuid.uuid4().hex[:8]}"
    subject = Subject("upstreamguard.io/v1alpha1", "UpstreamGuard", "default", name, "u1")
    client = await KubeClient.connect(str(apiserver.kubeconfig), None)
    now = time.time()
    try:
        recorder = EventRecorder(client, "replica-1", lambda: now)
        for note in ("shop-1: seen to serve", "shop-2: seen to serve"):
            recorder.tell(Event(subject, "Normal", "EndpointAdmitted", "Admit", note))
            await recorder.drain(10.0)
            now += SERIES_WRITE_SECONDS + 1
    finally:
        await client.close()
    found = apiserver.kubectl("get", "events.events.k8s.io", "-n", "default", "-o", "json")
    assert found.ok, found.err
    events = [e for e in json.loads(found.out)["items"] if e["regarding"]["name"] == name]
    assert [e["series"]["count"] for e in events] == [2]
    assert events[0]["note"] == "shop-1: seen to serve"
