"""Hears what the running operator tells of one guard."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from upstream_guard.kube.client import KubeClient
from upstream_guard.lab.demo.mirror import Mirror, Objects
from upstream_guard.lab.demo.telling import Told, tellings_in

Json = dict[str, Any]


class Hearing:
    """Takes down the `WindowPredicted` events about a guard that come while the context is open.

    Args:
        client: of the cluster.
        namespace: the guard's.
        guard: its name.
    """

    def __init__(self, client: KubeClient, namespace: str, guard: str) -> None:
        self._guard = guard
        self._known: dict[str, object] = {}
        self._told: list[Told] = []
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        self._mirror = Mirror(client, path, on_change=self._hear)
        self._old = True

    @property
    def told(self) -> tuple[Told, ...]:
        """So far, in the order in which they were seen."""
        return tuple(self._told)

    async def until_told(self, seconds: float) -> None:
        """Wait until something was told.

        Args:
            seconds: how long at most.

        Raises:
            LabError: nothing was.
        """
        what = f"the operator to tell of a window of {self._guard}"
        await self._mirror.until(lambda _: bool(self._told), what, seconds)

    async def __aenter__(self) -> Self:
        await self._mirror.__aenter__()
        self._old = False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._mirror.__aexit__(kind, error, trace)

    def _hear(self, at: float, objects: Objects) -> None:
        for uid, event in objects.items():
            told = tellings_in(event, self._guard, at)
            if told is None or self._known.get(uid) == _form(event):
                continue
            self._known[uid] = _form(event)
            if not self._old:
                self._told.append(told)


def _form(event: Mapping[str, Any]) -> object:
    """What changes when the same Event tells again."""
    return (event.get("series") or {}).get("count", 1)
