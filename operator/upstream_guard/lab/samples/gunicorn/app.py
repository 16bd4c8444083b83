"""A WSGI app for gunicorn, which runs it with its defaults: sync workers, no keep-alive."""

import json
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

POD = os.environ.get("POD_NAME") or socket.gethostname()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Say who answered."""
    del environ
    body = json.dumps({"pod": POD, "status": 200}).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
