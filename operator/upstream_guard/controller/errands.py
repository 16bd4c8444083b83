"""Short work beside everything else: one piece at a time for each key, and few at once."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Errands(dict[K, asyncio.Task[None]]):
    """What is under way, by key. Mistakes in one are logged and stay there."""

    def __init__(self, limit: int) -> None:
        """Make it.

        Args:
            limit: How many may be under way at once.
        """
        super().__init__()
        self._limit = limit

    def start(self, key: K, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin, unless this key's last errand is still under way, or too many are.

        Args:
            key: What it is for.
            name: What it is, for the log.
            work: Does it.
        """
        if key in self or len(self) >= self._limit:
            return
        task = asyncio.create_task(work(), name=name)
        self[key] = task
        task.add_done_callback(partial(self._ended, key))

    def close(self) -> None:
        """Drop what is under way."""
        for task in self.values():
            task.cancel()

    def _ended(self, key: K, task: asyncio.Task[None]) -> None:
        del self[key]
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s failed here", task.get_name(), exc_info=task.exception())
