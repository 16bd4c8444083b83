"""Remembers when EndpointSlices changed, for predictions through kube-proxy."""

from collections import deque
from typing import Final

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict import churn

MOST: Final = 4096
"""Changes that are remembered; in a cluster with more of them kube-proxy never rests anyway."""


class Churn:
    """The latest changes of all EndpointSlices that are watched."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, ObjectRef]] = deque(maxlen=MOST)

    def saw(self, service: ObjectRef, at: float) -> None:
        """Take note of a change of a slice of this Service, in order of time (Unix seconds)."""
        self._seen.append((at, service))

    def of_others(self, service: ObjectRef, now: float) -> float:
        """`PlatformFacts.other_changes` for this Service at a moment (Unix seconds)."""
        return churn.other_changes((at for at, other in self._seen if other != service), now)
