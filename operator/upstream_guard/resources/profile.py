"""GatewayProfile: from the API's dict to `core.tuning.GatewayProfile`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from upstream_guard.core.model import ObjectRef
from upstream_guard.core.names import PROFILE_KIND
from upstream_guard.core.tuning import GatewayProfile
from upstream_guard.resources.schema import (
    Problem,
    ProfileError,
    Strict,
    check_distinct,
    check_envelope,
    duration,
    text,
    validate,
)

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?"

_Class = Annotated[str, text(_SUBDOMAIN, 253, "the name of an IngressClass")]
_Gateway = Annotated[str, text(f"{_LABEL}/{_SUBDOMAIN}", 317, "a Gateway as namespace/name")]
_Service = Annotated[str, text(f"{_LABEL}/{_LABEL}", 127, "a Service as namespace/name")]
_Url = Annotated[str, text(r"https?://[!-~]+", 512, "a URL such as http://10.0.0.7:80")]


class _Match(Strict):
    ingress_classes: Annotated[
        list[_Class], Field(max_length=32), AfterValidator(check_distinct)
    ] = []  # noqa: RUF012
    gateways: Annotated[list[_Gateway], Field(max_length=32), AfterValidator(check_distinct)] = []  # noqa: RUF012
    services: Annotated[list[_Service], Field(max_length=256), AfterValidator(check_distinct)] = []  # noqa: RUF012


class _Endpoint(Strict):
    url: _Url


class _Prometheus(Strict):
    url: _Url
    token_file: Annotated[str, text(_LABEL, 63, "the name of a file, without a folder")] | None = (
        None
    )


class _Timeouts(Strict):
    connect: Annotated[float, duration("0s", "1h")] | None = None
    read: Annotated[float, duration("0s", "24h")] | None = None


class _KeepAlive(Strict):
    idle: Annotated[float, duration("0s", "24h")] | None = None


class _Canary(Strict):
    mode: Literal["Auto", "Off"] = "Auto"
    host: Annotated[str, text(_SUBDOMAIN, 253, "a host name")] | None = None
    requests_per_minute: Annotated[int, Field(ge=60, le=6000)] | None = None


class _Spec(Strict):
    match: _Match
    controller: Annotated[str, text(_LABEL, 63, "a name such as `contour`")] | None = None
    path: Literal["Endpoints", "ClusterIP"] | None = None
    detach_latency: Annotated[float, duration("0s", "10m")] | None = None
    attach_latency: Annotated[float, duration("0s", "10m")] | None = None
    error_statuses: (
        Annotated[
            list[Annotated[int, Field(ge=400, le=599)]],
            Field(min_length=1, max_length=16),
            AfterValidator(check_distinct),
        ]
        | None
    ) = None
    address: _Url | None = None
    metrics: _Endpoint | None = None
    admin: _Endpoint | None = None
    prometheus: _Prometheus | None = None
    timeouts: _Timeouts = _Timeouts()
    keep_alive: _KeepAlive = _KeepAlive()
    retries: Annotated[int, Field(ge=0, le=20)] | None = None
    canary: _Canary = _Canary()


def parse_profile(body: object) -> GatewayProfile:
    """A GatewayProfile as the API serves it, or as a file holds it.

    Raises:
        ProfileError: It cannot be used; the problems name each field.
    """
    checked = check_envelope(body, PROFILE_KIND, ProfileError)
    spec = validate(_Spec, checked.get("spec", {}), ProfileError)
    match = spec.match
    if not (match.ingress_classes or match.gateways or match.services):
        message = (
            "name at least one of ingressClasses, gateways or services, or the profile applies to "
            "nothing"
        )
        raise ProfileError([Problem("spec.match", message)])
    if spec.metrics and spec.prometheus:
        message = (
            "metrics says where the gateway is read, prometheus where somebody else's copy is; set one "
            "of them"
        )
        raise ProfileError([Problem("spec", message)])
    metadata = checked.get("metadata") or {}
    return GatewayProfile(
        name=str(metadata.get("name") or "")[:253],
        ingress_classes=frozenset(match.ingress_classes),
        gateways=frozenset(match.gateways),
        services=frozenset(_ref(service) for service in match.services),
        controller=spec.controller,
        via_cluster_ip=None if spec.path is None else spec.path == "ClusterIP",
        detach_seconds=spec.detach_latency,
        attach_seconds=spec.attach_latency,
        bad_statuses=None if spec.error_statuses is None else tuple(spec.error_statuses),
        address=spec.address or "",
        metrics_url=spec.metrics.url if spec.metrics else "",
        admin_url=spec.admin.url if spec.admin else "",
        prometheus_url=spec.prometheus.url if spec.prometheus else "",
        prometheus_token=(spec.prometheus.token_file or "") if spec.prometheus else "",
        connect_timeout=spec.timeouts.connect,
        read_timeout=spec.timeouts.read,
        keepalive_idle=spec.keep_alive.idle,
        retries=spec.retries,
        canary=spec.canary.mode == "Auto",
        canary_host=spec.canary.host or "",
        canary_requests=spec.canary.requests_per_minute,
    )


def _ref(name: str) -> ObjectRef:
    namespace, _, service = name.partition("/")
    return ObjectRef(namespace, service)
