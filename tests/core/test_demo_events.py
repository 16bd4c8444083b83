"""Which events the demo shows, and how."""

from typing import Any

from upstream_guard.lab.demo.events import UserEvent, user_events


def event(reason: str, message: str, at: str, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"creationTimestamp": at},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": "UpstreamGuard", "name": "shop"},
        "reportingComponent": "upstream-guard",
        **more,
    }


def test_only_ours_in_order_and_repeats_folded() -> None:
    items = [
        event("Restored", "b is back", "2026-01-01T00:00:09Z"),
        event("Pulled", "image", "2026-01-01T00:00:00Z", reportingComponent="kubelet"),
        event("Ejected", "b is out", "2026-01-01T00:00:01Z", count=2),
        event("Ejected", "b is out", "2026-01-01T00:00:03Z"),
        event("Ejected", "c is out", "x", eventTime="2026-01-01T00:00:02Z", series={"count": 4}),
    ]
    assert user_events(items) == [
        UserEvent("Warning", "Ejected", "upstreamguard/shop", "b is out", 7),
        UserEvent("Warning", "Restored", "upstreamguard/shop", "b is back", 1),
    ]


def test_the_older_form_names_its_source() -> None:
    item = event("Ejected", "x", "2026-01-01T00:00:01Z", source={"component": "upstream-guard"})
    item["reportingComponent"] = ""
    assert len(user_events([item])) == 1
