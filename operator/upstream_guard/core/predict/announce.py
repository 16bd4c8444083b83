"""What is said of a change that has begun: its windows, the worst first, and how to prevent them."""

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from upstream_guard.core.predict.live import Begun
from upstream_guard.core.predict.window import PatchKind, Remedy, Window

LIKELY: Final = 0.5
"""A window is announced where at least one request fails more probably than not."""

_OLD_PODS: Final = (
    "nothing any more for the pods that this rollout replaces; the new template prevents it from "
    "the next change on"
)


def likely(begun: Begun, windows: Iterable[Window]) -> tuple[Window, ...]:
    """The windows worth announcing, worst first: by requests lost, then by duration."""
    found = (_of_old_pods(begun, w) for w in windows if w.probability >= LIKELY)
    return tuple(sorted(found, key=_cost))


def announce(begun: Begun, windows: Sequence[Window]) -> str:
    """One sentence for the event about a change.

    Args:
        begun: The change.
        windows: At least one, worst first.
    """
    worst, others = windows[0], len(windows) - 1
    parts = [f"{begun.subject}: {worst.message}"]
    if 0 < worst.share < 1:
        parts.append(f"{worst.share:.0%} of the requests sent meanwhile")
    if others:
        parts.append(f"and {others} more in status.predictions")
    return "; ".join((*parts, f"to prevent it: {prevention(worst)}"))


def prevention(window: Window) -> str:
    """The command that applies the remedy, or why there is none."""
    return (
        window.no_remedy or "nothing is known" if window.remedy is None else command(window.remedy)
    )


def command(remedy: Remedy) -> str:
    """A remedy as a command line for a shell."""
    patch = shlex.quote(json.dumps(_plain(remedy.patch), separators=(",", ":")))
    if remedy.patch_kind is PatchKind.CREATE:
        return f"echo {patch} | kubectl apply -f -"
    ref = remedy.ref
    scope = f"-n {ref.namespace} " if ref.namespace else ""
    target = f"{remedy.kind.lower()} {ref.name}"
    return f"kubectl {scope}patch {target} --type {remedy.patch_kind} -p {patch}"


def _of_old_pods(begun: Begun, window: Window) -> Window:
    """A rollout that itself brings the remedy comes too late for the pods that it replaces."""
    if begun.change.replaces is None or window.remedy is not None:
        return window
    return replace(window, no_remedy=_OLD_PODS) if window.risk in _OF_OLD_PODS else window


_OF_OLD_PODS: Final = frozenset(
    {
        "no-pre-stop",
        "pre-stop-too-short",
        "pre-stop-exceeds-grace",
        "grace-shorter-than-drain",
        "sigterm-drops-requests",
    }
)
"""Risks that lie in how the old pods stop, not in how the new ones start."""


def _cost(window: Window) -> tuple[float, float, str, str]:
    endless = math.isinf(window.duration.value)
    return (
        -math.inf if endless else -window.lost.value,
        -window.duration.value,
        window.risk,
        window.gateway,
    )


def _plain(value: Any) -> Any:
    """Mappings and tuples as what JSON knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
