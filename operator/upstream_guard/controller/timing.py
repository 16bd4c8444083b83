"""Times how long a verdict takes to arrive in the EndpointSlice."""

from collections.abc import Callable

from upstream_guard.core.model import EndpointSlice
from upstream_guard.metrics import Metrics

STALE_SECONDS = 60.0
"""A verdict that has not arrived by then says nothing about latency any more."""


class SliceTimer:
    """Remembers verdicts by pod and takes the time when the slice follows."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._decided: dict[str, tuple[bool, float]] = {}

    def decided(self, uid: str, listed: bool) -> None:  # the state, not an option
        """A verdict was reached that should change the list."""
        known = self._decided.get(uid)
        if known is None or known[0] != listed:
            self._decided[uid] = (listed, self._clock())

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._decided.pop(uid, None)

    def arrived(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """A slice changed: observe each verdict that it shows."""
        if new is None or not self._decided:
            return
        before = {e.pod_uid: e.ready for e in old.endpoints} if old else {}
        for endpoint in new.endpoints:
            decided = self._decided.get(endpoint.pod_uid)
            if decided is None or endpoint.ready != decided[0]:
                continue
            if before.get(endpoint.pod_uid) == endpoint.ready:
                continue
            del self._decided[endpoint.pod_uid]
            seconds = self._clock() - decided[1]
            if seconds < STALE_SECONDS:
                direction = "in" if endpoint.ready else "out"
                self._metrics.verdict_to_slice.labels(direction).observe(seconds)
