"""kopf's part: it follows our own resources, dynamically as their CRDs come and go.

Only `on.event` handlers: no finalizers (nothing here may hang a namespace's deletion), no
annotations, no posted events.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import kopf

from upstream_guard.core.names import GROUP, GUARD_PLURAL, PROFILE_PLURAL, VERSION


class ResourceSink(Protocol):
    """Who takes in our own resources."""

    def guard_seen(self, body: dict[str, Any], *, deleted: bool) -> None:
        """An UpstreamGuard was listed, created, changed or deleted."""

    def profile_seen(self, body: dict[str, Any], *, deleted: bool) -> None:
        """A GatewayProfile was listed, created, changed or deleted."""


def make_registry(
    sink: ResourceSink, connect: Callable[[], Awaitable[kopf.ConnectionInfo]]
) -> kopf.OperatorRegistry:
    """All handlers of the operator, on a registry of their own."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return await connect()

    @kopf.on.event(GROUP, VERSION, GUARD_PLURAL, registry=registry)
    async def guard(event: kopf.RawEvent, **_: Any) -> None:
        sink.guard_seen(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event(GROUP, VERSION, PROFILE_PLURAL, registry=registry)
    async def profile(event: kopf.RawEvent, **_: Any) -> None:
        sink.profile_seen(dict(event["object"]), deleted=event["type"] == "DELETED")

    return registry


def make_settings() -> kopf.OperatorSettings:
    """Kopf without anything that writes to the cluster."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 5.0
    return settings
