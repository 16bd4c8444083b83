"""How the pods of each guard ended, for each template the last few."""

from collections import deque
from typing import Final

from upstream_guard.core.model import ObjectRef, Pod
from upstream_guard.core.shutdown import AppShutdown, Stop, stop_of, summarise

KEPT: Final = 32
"""Stops remembered for each template."""
TEMPLATES: Final = 4
"""Templates remembered for each guard, the last that had a stop."""


class StopBook:
    """Gathers stops, and what an earlier process knew of them."""

    def __init__(self) -> None:
        self._stops: dict[ObjectRef, dict[str, deque[Stop]]] = {}
        self._counted: dict[ObjectRef, deque[str]] = {}
        """UIDs of pods that were counted, so that each is counted once."""
        self._inherited: dict[ObjectRef, AppShutdown] = {}

    def inherit(self, guard: ObjectRef, found: AppShutdown | None) -> None:
        """Take over what the guard's status says, until a pod of it is seen to end."""
        if found is not None:
            self._inherited.setdefault(guard, found)

    def note(self, guard: ObjectRef, pod: Pod) -> None:
        """A pod of the guard changed; counted once all of its containers have ended."""
        if not pod.terminating or not pod.stops:
            return
        counted = self._counted.setdefault(guard, deque(maxlen=KEPT * TEMPLATES))
        if pod.uid in counted:
            return
        stop = stop_of(pod)
        if stop is None:
            return
        counted.append(pod.uid)
        templates = self._stops.setdefault(guard, {})
        stops = templates.pop(pod.template, None) or deque(maxlen=KEPT)
        stops.append(stop)
        templates[pod.template] = stops
        while len(templates) > TEMPLATES:
            del templates[next(iter(templates))]

    def found(self, guard: ObjectRef) -> AppShutdown | None:
        """What the pods of the template that stopped last do on SIGTERM; None where none was seen."""
        templates = self._stops.get(guard)
        if not templates:
            return self._inherited.get(guard)
        return summarise(templates[next(reversed(templates))])

    def forget(self, guard: ObjectRef) -> None:
        """The guard is gone, or guards another Service now."""
        for memory in (self._stops, self._counted, self._inherited):
            memory.pop(guard, None)
