"""Registration: only what is ours is written, only when it differs, and never for every namespace."""

import copy

import pytest

from upstream_guard.kube.client import ApiError
from upstream_guard.webhook.registration import (
    MUTATING_PATH,
    NO_NAMESPACE,
    VALIDATING_PATH,
    WebhookAddress,
    desired_config,
    namespace_selector,
    register,
)

CONDITIONS = [{"name": "edited-by-an-administrator", "expression": "true"}]


def shipped():
    webhook = {
        "name": "pods.upstreamguard.io",
        "clientConfig": {"service": {"namespace": "x", "name": "y", "path": "/z", "port": 443}},
        "namespaceSelector": namespace_selector([]),
        "matchConditions": CONDITIONS,
        "timeoutSeconds": 1,
    }
    return {"metadata": {"name": "upstream-guard", "resourceVersion": "1"}, "webhooks": [webhook]}


class Store:
    def __init__(self):
        self.objects = {MUTATING_PATH: shipped(), VALIDATING_PATH: shipped()}
        self.writes = []
        self.conflicts = 0

    async def get(self, path):
        return copy.deepcopy(self.objects[path])

    async def replace(self, path, body):
        if self.conflicts:
            self.conflicts -= 1
            raise ApiError(409, "Conflict", "the object has been modified")
        self.writes.append(path)
        self.objects[path] = body
        return body


def values(store):
    selector = store.objects[MUTATING_PATH]["webhooks"][0]["namespaceSelector"]
    return selector["matchExpressions"][0]["values"]


async def test_registered_once_then_nothing_is_written():
    store, address = Store(), WebhookAddress()
    assert await register(store, address, b"pem", ["prod", "blue", "prod"])
    assert values(store) == ["blue", "prod"]
    assert store.writes == [MUTATING_PATH, VALIDATING_PATH]
    assert not await register(store, address, b"pem", ["blue", "prod"])
    assert len(store.writes) == 2
    assert store.objects[MUTATING_PATH]["webhooks"][0]["matchConditions"] == CONDITIONS


async def test_without_guards_no_namespace_matches_and_validation_still_covers_all():
    store = Store()
    await register(store, WebhookAddress(), b"pem", [])
    assert values(store) == [NO_NAMESPACE]
    assert "." in NO_NAMESPACE, "a namespace's name is a DNS label, so it cannot contain a dot"


async def test_out_of_the_cluster_a_url_is_called():
    store, address = Store(), WebhookAddress(url="https://198.18.0.1:9443/")
    await register(store, address, b"pem", ["prod"])
    config = store.objects[MUTATING_PATH]["webhooks"][0]["clientConfig"]
    assert config == {"url": "https://198.18.0.1:9443/mutate-pods", "caBundle": "cGVt"}


async def test_a_lost_race_is_repeated_and_endless_ones_end():
    store = Store()
    store.conflicts = 2
    assert await register(store, WebhookAddress(), b"pem", ["prod"])
    store = Store()
    store.conflicts = 99
    with pytest.raises(ApiError):
        await register(store, WebhookAddress(), b"pem", ["prod"])


def test_the_input_is_not_changed():
    before = shipped()
    desired_config(before, {"url": "https://x"}, ["a"])
    assert before == shipped()
