"""preStop hooks: how long they keep a pod serving, and how they are made to keep it longer."""

import re
from collections.abc import Mapping
from typing import Any, Final

from upstream_guard.core.predict.state import HookKind, PreStop

_STOP_COMMAND: Final = re.compile(
    r"nginx\b.*\s-s\s*(quit|stop)|\bkill\b|\bpkill\b|\bkillall\b|apachectl.*\bstop\b|httpd.*\bstop\b"
)
_SLEEP: Final = re.compile(r"\bsleep\s+(\d+(?:\.\d+)?)s?\b")


def serves_for(hook: PreStop) -> float | None:
    """Seconds for which the pod serves on while its hook runs.

    Returns:
        0 for a command that stops the server; None where the command cannot be read.
    """
    if hook.seconds is None and stops_the_server(hook):
        return 0.0
    return hook.seconds


def stops_the_server(hook: PreStop) -> bool:
    """Whether the command ends the server and waits for nothing before."""
    text = " ".join(hook.command)
    return bool(_STOP_COMMAND.search(text)) and "sleep" not in text and "wait" not in text


def lengthened(hook: PreStop | None, wanted: int) -> Mapping[str, Any] | None:
    """A hook of `wanted` seconds that does what the old one did, as the API has it.

    Returns:
        None where it cannot be told from the old one how to make it longer.
    """
    if hook is None or hook.kind is HookKind.SLEEP:
        return {"sleep": {"seconds": wanted}}
    if hook.kind is not HookKind.EXEC:
        return None
    if len(hook.command) == 2 and hook.command[0].endswith("sleep"):
        return {"exec": {"command": [hook.command[0], str(wanted)]}}
    if len(_SLEEP.findall(" ".join(hook.command))) != 1:
        return None
    changed = [_SLEEP.sub(f"sleep {wanted}", part) for part in hook.command]
    return {"exec": {"command": changed}} if changed != list(hook.command) else None
