"""Stops of pods, from the API's objects to what is remembered of them for each guard."""

import pytest

from upstream_guard.controller.stops import KEPT, StopBook
from upstream_guard.core.model import DrainMode, ObjectRef
from upstream_guard.core.shutdown import AppShutdown, Ending
from upstream_guard.core.status import DrainStatus, GuardStatus
from upstream_guard.core.tuning import DrainAdvice, Evidence
from upstream_guard.resources.kube_objects import parse_pod
from upstream_guard.resources.status import build_status, parse_app_shutdown

SHOP = ObjectRef("prod", "shop")


def pod(uid, *, ended="2026-11-26T08:00:07Z", code=0, hook=None, template="a", state="terminated"):
    """Deleted at 08:00:00 with a grace period of 32 s."""
    return parse_pod(
        {
            "metadata": {
                "namespace": "prod",
                "name": uid,
                "uid": uid,
                "deletionTimestamp": "2026-11-26T08:00:32Z",
                "deletionGracePeriodSeconds": 32,
                "labels": {"pod-template-hash": template},
                "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "uid": "rs"}],
            },
            "spec": {
                "containers": [
                    {"name": "app", "lifecycle": {"preStop": hook or {"sleep": {"seconds": 2}}}}
                ],
            },
            "status": {
                "containerStatuses": [
                    {"name": "app", "state": {state: {"finishedAt": ended, "exitCode": code}}}
                ]
            },
        }
    )


def test_a_pod_is_counted_once_when_its_containers_have_ended():
    book = StopBook()
    book.note(SHOP, pod("a", state="running"))
    assert book.found(SHOP) is None
    for _ in range(3):
        book.note(SHOP, pod("a"))
    assert book.found(SHOP) == AppShutdown(Ending.DRAINS, 1, 0, 5, 0)
    book.forget(SHOP)
    assert book.found(SHOP) is None


@pytest.mark.parametrize("hook", [{"exec": {"command": ["sleep", "5"]}}, {"httpGet": {"port": 80}}])
def test_after_a_hook_of_unknown_length_nothing_can_be_told(hook):
    book = StopBook()
    book.note(SHOP, pod("a", hook=hook))
    assert book.found(SHOP) is None


def test_the_template_that_stopped_last_counts_and_memory_is_bounded():
    book = StopBook()
    for n in range(3 * KEPT):
        book.note(SHOP, pod(f"a{n}", ended="2026-11-26T08:00:32Z", code=137))
    assert book.found(SHOP).samples == KEPT
    book.note(SHOP, pod("b", template="b"))
    assert book.found(SHOP) == AppShutdown(Ending.DRAINS, 1, 0, 5, 0)


@pytest.mark.parametrize(
    "found",
    [
        AppShutdown(Ending.DRAINS, 4, 1, 5.0, 30.0),
        AppShutdown(Ending.AT_ONCE, 2, 0, 1.0, 0.0),
        AppShutdown(Ending.IGNORES, 3, 3, 0.0, 30.0),
    ],
)
def test_what_a_status_says_is_taken_over_until_a_pod_is_seen_to_end(found):
    advice = DrainAdvice(2, None, "why", Evidence.BUILTIN, app=found)
    said = GuardStatus(1, "shop", (), drain=DrainStatus(DrainMode.ENFORCE, advice))
    status = build_status(said, {}, 0.0)
    book = StopBook()
    book.inherit(SHOP, parse_app_shutdown(status))
    assert book.found(SHOP) == found
    book.note(SHOP, pod("a"))
    assert book.found(SHOP).samples == 1


@pytest.mark.parametrize(
    "status", [None, {}, {"drain": None}, {"drain": {"app": "x"}}, {"drain": {"app": {}}}]
)
def test_a_status_that_says_nothing_of_it_is_no_evidence(status):
    assert parse_app_shutdown(status) is None
