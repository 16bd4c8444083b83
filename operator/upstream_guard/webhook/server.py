"""The HTTPS server that the API server asks about new pods and about guards.

It fails open. A decision that raises is answered `allowed` without a patch and counted; anything
worse is an HTTP error or silence, which `failurePolicy: Ignore` and `timeoutSeconds: 1` turn into
the same. `dryRun` needs no care: no request has an effect other than its answer.
"""

import asyncio
import base64
import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from upstream_guard.core.injection import Injection
from upstream_guard.webhook.registration import MUTATE_PODS, VALIDATE_GUARDS

MAX_BODY: Final = 8 * 2**20
"""Bytes. etcd takes objects of 1.5 MiB; a review holds two of them and JSON's escapes."""
READ_SECONDS: Final = 0.7
"""What remains of the API server's one second is for the decision and the way back."""
MAX_WARNING: Final = 256
"""Longer warnings may be cut by the API server, bytes."""
DECISION_ERRORS: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a defect in a pure decision raises for an object that nobody thought of."""

LOG = logging.getLogger(__name__)

Decide = Callable[[str, Mapping[str, Any]], Injection]
"""(namespace, pod) → what to add. Pure and quick: it runs on the event loop."""
Validate = Callable[[Mapping[str, Any]], Sequence[str]]
"""An UpstreamGuard object → what is wrong with it, each with its path; empty where it is good."""
Observe = Callable[[str, str, float], None]
"""(webhook, outcome, seconds) after each answer; outcome is one of `OUTCOMES`."""
OUTCOMES: Final = ("patched", "unchanged", "allowed", "denied", "error", "bad-request")


class BadReviewError(ValueError):
    """The request body is not an AdmissionReview of version v1."""


@dataclass(frozen=True, slots=True)
class _Answer:
    outcome: str
    response: dict[str, Any]


class WebhookServer:
    """Serves `/mutate-pods` and `/validate-guards` over TLS."""

    def __init__(
        self,
        decide: Decide,
        validate: Validate,
        context: ssl.SSLContext,
        observe: Observe = lambda *_: None,
    ) -> None:
        """Wire the decisions to their paths.

        Args:
            decide: Says what to add to a pod.
            validate: Says what is wrong with a guard.
            context: TLS with a certificate loaded (`keeper.load`), which may be loaded anew later.
            observe: For metrics.
        """
        self._decide = decide
        self._validate = validate
        self._context = context
        self._observe = observe
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen.

        Args:
            host: Address to bind; empty means all, IPv6 too.
            port: 0 picks a free one.

        Returns:
            The port.

        Raises:
            OSError: The port is taken.
        """
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post(MUTATE_PODS, self._mutate)
        app.router.add_post(VALIDATE_GUARDS, self._review_guard)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=READ_SECONDS)
        await runner.setup()
        self._runner = runner
        site = web.TCPSite(runner, host or None, port, ssl_context=self._context)
        await site.start()
        bound: int = runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Stop listening; requests under way get `READ_SECONDS` to end. Idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _mutate(self, request: web.Request) -> web.Response:
        return await self._serve("mutate-pods", request, self._mutation)

    async def _review_guard(self, request: web.Request) -> web.Response:
        return await self._serve("validate-guards", request, self._validation)

    async def _serve(
        self,
        webhook: str,
        http_request: web.Request,
        answer: Callable[[Mapping[str, Any]], _Answer],
    ) -> web.Response:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(READ_SECONDS):
                body = await http_request.read()
            request = parse_review(body)
        except (BadReviewError, TimeoutError) as error:
            self._observe(webhook, "bad-request", time.perf_counter() - started)
            return web.Response(status=400, text=str(error) or "the body did not arrive in time")
        try:
            result = answer(request)
        except DECISION_ERRORS:
            LOG.exception("%s %s: allowed without a decision", webhook, _describe(request))
            result = _Answer("error", {"allowed": True})
        self._observe(webhook, result.outcome, time.perf_counter() - started)
        return web.json_response(review(request["uid"], result.response))

    def _mutation(self, request: Mapping[str, Any]) -> _Answer:
        pod = request.get("object")
        namespace = request.get("namespace")
        if not isinstance(pod, Mapping) or not isinstance(namespace, str):
            return _Answer("unchanged", {"allowed": True})
        injection = self._decide(namespace, pod)
        response: dict[str, Any] = {"allowed": True}
        if injection.notes:
            response["warnings"] = [_warning(note) for note in injection.notes]
        if not injection.patch:
            return _Answer("unchanged", response)
        patch = json.dumps(injection.patch, separators=(",", ":")).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
        return _Answer("patched", response)

    def _validation(self, request: Mapping[str, Any]) -> _Answer:
        guard = request.get("object")
        if not isinstance(guard, Mapping) or _is_leaving(guard):
            return _Answer("allowed", {"allowed": True})
        problems = self._validate(guard)
        if not problems:
            return _Answer("allowed", {"allowed": True})
        status = {"code": 422, "reason": "Invalid", "message": "; ".join(problems)}
        return _Answer("denied", {"allowed": False, "status": status})


def parse_review(body: bytes) -> Mapping[str, Any]:
    """Read an AdmissionReview and return its `request`.

    Raises:
        BadReviewError: It is not JSON, not an AdmissionReview v1, or has no uid.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadReviewError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != "AdmissionReview":
        raise BadReviewError("not an AdmissionReview")
    if document.get("apiVersion") != "admission.k8s.io/v1":
        raise BadReviewError(f"apiVersion {document.get('apiVersion')!r}, not admission.k8s.io/v1")
    request = document.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise BadReviewError("request.uid is missing")
    return request


def review(uid: str, response: Mapping[str, Any]) -> dict[str, Any]:
    """An AdmissionReview that answers the request `uid`."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": uid, **response},
    }


def _is_leaving(guard: Mapping[str, Any]) -> bool:
    """A guard under deletion must not be held up by what is wrong with it."""
    metadata = guard.get("metadata")
    return isinstance(metadata, Mapping) and bool(metadata.get("deletionTimestamp"))


def _warning(note: str) -> str:
    text = f"upstream-guard: {note}"
    return text.encode()[:MAX_WARNING].decode(errors="ignore")


def _describe(request: Mapping[str, Any]) -> str:
    return f"{request.get('operation')} {request.get('namespace')}/{request.get('name') or '(new)'}"
