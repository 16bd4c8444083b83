"""App servers that are recognised by image or command, and when they end idle connections."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from upstream_guard.core.predict.state import Container


@dataclass(frozen=True, slots=True)
class Runtime:
    """One server as a container seems to run it.

    Attributes:
        name: For people.
        idle: Seconds after which it ends an idle connection.
        is_certain: The command names it, and its figure was read in its code.
        variable: The environment variable by which `idle` can be set; empty where there is none.
        value: What to write into it, with `{}` for the seconds.
        pattern: What an earlier value has to lose.
        appends: The variable holds other options as well.
    """

    name: str
    idle: float
    is_certain: bool = False
    variable: str = ""
    value: str = "{}"
    pattern: str = ""
    appends: bool = False


_NODE: Final = Runtime("Node.js (before 26)", 5.0)
_TOMCAT: Final = Runtime("Tomcat", 20.0)
_PUMA: Final = Runtime("Puma (before 7)", 20.0)
_JETTY: Final = Runtime("Jetty", 30.0)
_IMAGES: Final[Mapping[str, Runtime]] = {
    "node": _NODE,
    "tomcat": _TOMCAT,
    "jetty": _JETTY,
    "puma": _PUMA,
}
"""By the image's own name. Tomcat's is of its stock server.xml, Jetty's is from memory."""

_GUNICORN_FLAG: Final = r"--keep-alive[=\s]+\S+"
_UVICORN_FLAG: Final = r"--timeout-keep-alive[=\s]+\S+"


def runtime_of(container: Container) -> Runtime | None:
    """The server that a container's command or image tells of; None where neither does."""
    command = tuple(_COMMENT.sub("", word) for word in (*container.command, *container.args))
    words = " ".join(command)
    if re.search(r"\bgunicorn\b", words):
        return _gunicorn(words, container.env)
    if re.search(r"\buvicorn\b", words):
        return _uvicorn(words, container.env)
    if _runs_node(command):
        return _NODE
    if re.search(r"(?:^|[\s/])puma\b", words):
        return _PUMA
    if words:
        return None  # another program of the image
    name = container.image.split("@")[0].rpartition("/")[2].split(":")[0]
    return _IMAGES.get(name)


_COMMENT: Final = re.compile(r"(?m)(?:^|(?<=\s))#.*$")
_NODE_IN_SCRIPT: Final = re.compile(r"(?:^|[;&|(\n]|\bexec\s)\s*(?:\S*/)?node\s+\S")


def _runs_node(command: tuple[str, ...]) -> bool:
    """Whether `node` stands where a command does; elsewhere it mostly means a machine."""
    for before, word, after in zip(("", *command), command, (*command[1:], ""), strict=False):
        is_value = before.startswith("-") and before != "--"
        if word.rpartition("/")[2] == "node" and after and not is_value:
            return True
        if _NODE_IN_SCRIPT.search(word):
            return True
    return False


def _gunicorn(words: str, env: Mapping[str, str]) -> Runtime | None:
    """With sync workers, its default, gunicorn keeps no connection: there is nothing to race for."""
    options = f"{words} {env.get('GUNICORN_CMD_ARGS', '')}"
    if "uvicorn" in options and "worker" in options:
        return Runtime(
            "gunicorn with uvicorn workers",
            _flag(options, r"--keep-alive[=\s]+(\d+)") or 5.0,
            variable="GUNICORN_CMD_ARGS",
            value="--keep-alive {}",
            pattern=_GUNICORN_FLAG,
            appends=True,
        )
    threads = _flag(options, r"--threads[=\s]+(\d+)") or 1
    keeps = threads > 1 or re.search(r"(?:-k|--worker-class)[=\s]+(?!sync\b)\w", options)
    if not keeps:
        return None
    return Runtime(
        "gunicorn",
        _flag(options, r"--keep-alive[=\s]+(\d+)") or 2.0,
        is_certain=True,
        variable="" if "--keep-alive" in words else "GUNICORN_CMD_ARGS",
        value="--keep-alive {}",
        pattern=_GUNICORN_FLAG,
        appends=True,
    )


def _uvicorn(words: str, env: Mapping[str, str]) -> Runtime:
    given = _flag(words, r"--timeout-keep-alive[=\s]+(\d+)")
    named = _flag(env.get("UVICORN_TIMEOUT_KEEP_ALIVE", ""), r"^(\d+)$")
    return Runtime(
        "uvicorn",
        given or named or 5.0,
        is_certain=True,
        variable="" if given else "UVICORN_TIMEOUT_KEEP_ALIVE",
        pattern=_UVICORN_FLAG,
    )


def _flag(text: str, pattern: str) -> float | None:
    found = re.search(pattern, text)
    return float(found[1]) if found else None
