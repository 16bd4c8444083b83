"""An ASGI app for uvicorn, which runs it with its defaults: keep-alive for 5 s."""

import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

POD = os.environ.get("POD_NAME") or socket.gethostname()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Say who answered."""
    if scope["type"] != "http":
        return
    del receive
    body = json.dumps({"pod": POD, "status": 200}).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
