"""UpstreamGuard: from the API's dict to `core.model.Guard`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from upstream_guard.core.model import (
    DEFAULT_CERTIFICATE_WARNING,
    DEFAULT_ROUTE_INTERVAL,
    AdmitVia,
    DetectionPolicy,
    DrainMode,
    DrainPolicy,
    Guard,
    ListMode,
    ObjectRef,
    ProbeOverrides,
    ProbeProtocol,
    RouteProbeMode,
    RouteProbePolicy,
    Upstream,
    UpstreamListPolicy,
    UpstreamTls,
)
from upstream_guard.core.names import GUARD_KIND
from upstream_guard.resources.kube_objects import parse_time
from upstream_guard.resources.schema import (
    GuardError,
    Problem,
    Strict,
    check_distinct,
    check_envelope,
    complaint,
    duration,
    duration_or_auto,
    text,
    validate,
)
from upstream_guard.resources.wording import quote

DEFAULT_INTERVAL: Final = 0.5
DEFAULT_TIMEOUT: Final = 0.5
"""Seconds; shorter where the interval is."""

_NAME: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_HOST: Final = r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_DNS_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME: Final = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*\.?"
_DNS_HOST: Final = rf"{_DNS_NAME}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*"
_SRV_NAME: Final = rf"_[A-Za-z0-9-]{{1,62}}\._[A-Za-z]{{3,15}}(\.{_DNS_LABEL})+\.?"
_OWN_HEADERS: Final = frozenset({"host", "connection", "content-length", "transfer-encoding"})
_HTTP: Final = (ProbeProtocol.HTTP, ProbeProtocol.HTTPS)

_PortName = Annotated[str, text(_NAME, 63, "the name of a Service port, or its number as text")]


def _check_port(value: object) -> int | str:
    named = isinstance(value, str) and len(value) <= 15
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    if named and _is_port_name(str(value)):
        return str(value)
    raise complaint(
        "must be a port number from 1 to 65535, or the name of a container port such as `http`, "
        f"not {quote(value)}"
    )


def _is_port_name(name: str) -> bool:
    plain = name.isascii() and all(c.islower() or c.isdigit() or c == "-" for c in name)
    return bool(name) and plain and name[0] != "-" and name[-1] != "-"


class _Target(Strict):
    name: Annotated[str, text(r"[a-z]([-a-z0-9]*[a-z0-9])?", 63, "the name of a Service")]
    group: Literal[""] = ""
    kind: Literal["Service"] = "Service"
    section_name: _PortName | None = None


class _Header(Strict):
    name: Annotated[str, text(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", 128, "the name of a header")]
    value: Annotated[str, text(r"[\x20-\x7e]*", 1024, "printable ASCII text")]


class _Probe(Strict):
    protocol: Annotated[ProbeProtocol, Field(strict=False)] | None = None
    port: Annotated[int | str, BeforeValidator(_check_port)] | None = None
    path: Annotated[str, text(r"/[!-~]*", 1024, "a path such as /healthz")] | None = None
    host: Annotated[str, text(_HOST, 253, "a host name without a port")] | None = None
    headers: Annotated[list[_Header], Field(max_length=16)] = []  # noqa: RUF012 (pydantic copies it)
    service: Annotated[str, text(r"[\s\S]*", 253, "the name of a gRPC service")] | None = None
    interval: Annotated[float, duration("100ms", "5m")] = DEFAULT_INTERVAL
    timeout: Annotated[float, duration("50ms", "1m")] | None = None
    failure_threshold: Annotated[int, Field(ge=1, le=20)] = 2
    success_threshold: Annotated[int, Field(ge=1, le=20)] = 2


class _UpstreamList(Strict):
    mode: Annotated[ListMode, Field(strict=False)] = ListMode.ENFORCE
    min_healthy_percent: Annotated[int, Field(ge=1, le=100)] = 50
    admit_timeout: Annotated[float, duration("1s", "10m")] = 30.0
    admit_via: Annotated[AdmitVia, Field(strict=False)] = AdmitVia.ENDPOINT


class _Drain(Strict):
    mode: Annotated[DrainMode, Field(strict=False)] = DrainMode.ENFORCE
    pre_stop: Annotated[float | None, duration_or_auto("0s", "10m")] = None
    grace_period: Annotated[float | None, duration_or_auto("1s", "1h")] = None
    max_pre_stop: Annotated[float, duration("1s", "10m")] = 60.0
    surge_before_evict: bool = False


class _RouteProbe(Strict):
    mode: Annotated[RouteProbeMode, Field(strict=False)] = RouteProbeMode.AUTO
    interval: Annotated[float, duration("1s", "5m")] = DEFAULT_ROUTE_INTERVAL
    change_interval: Annotated[float, duration("100ms", "1m")] = 0.1
    path: Annotated[str, text(r"/[!-~]*", 1024, "a path such as /healthz")] | None = None
    host: Annotated[str, text(_HOST, 253, "a host name without a port")] | None = None


class _Detection(Strict):
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    error_statuses: Annotated[
        list[Annotated[int, Field(ge=400, le=599)]],
        Field(min_length=1, max_length=16),
        AfterValidator(check_distinct),
    ] = [502, 503, 504]  # noqa: RUF012 (pydantic copies it)
    route_probe: _RouteProbe = _RouteProbe()
    requests_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class _Tls(Strict):
    server_name: Annotated[str, text(_DNS_NAME, 253, "a DNS name")] | None = None
    warn_before: Annotated[float, duration("1h", "8760h")] = DEFAULT_CERTIFICATE_WARNING


class _Upstream(Strict):
    host: (
        Annotated[str, text(_DNS_HOST, 253, "a DNS name or an IP address, without a port")] | None
    ) = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    srv: (
        Annotated[str, text(_SRV_NAME, 253, "an SRV name such as _https._tcp.example.com")] | None
    ) = None
    tls: _Tls | None = None


class _Spec(Strict):
    target_ref: _Target
    upstreams: Annotated[list[_Upstream], Field(min_length=1, max_length=16)] | None = None
    probe: _Probe = _Probe()
    upstream_list: _UpstreamList = _UpstreamList()
    drain: _Drain = _Drain()
    detection: _Detection = _Detection()


def parse_guard(body: object) -> Guard:
    """An UpstreamGuard as the API serves it, or as a file holds it.

    Raises:
        GuardError: It cannot be accepted; the problems name each field.
    """
    checked = check_envelope(body, GUARD_KIND, GuardError)
    spec = validate(_Spec, checked.get("spec", {}), GuardError)
    problems = tuple(_broken_rules(spec))
    if problems:
        raise GuardError(problems)
    metadata: Mapping[str, Any] = checked.get("metadata") or {}
    return Guard(
        ref=ObjectRef(_text(metadata.get("namespace")) or "default", _text(metadata.get("name"))),
        uid=_text(metadata.get("uid")),
        generation=_whole(metadata.get("generation")),
        created=parse_time(_text(metadata.get("creationTimestamp"))),
        service=spec.target_ref.name,
        section=spec.target_ref.section_name,
        probe=_overrides(spec.probe),
        upstream_list=UpstreamListPolicy(
            spec.upstream_list.mode,
            spec.upstream_list.min_healthy_percent,
            spec.upstream_list.admit_timeout,
            spec.upstream_list.admit_via,
        ),
        drain=DrainPolicy(
            spec.drain.mode,
            spec.drain.pre_stop,
            spec.drain.grace_period,
            spec.drain.max_pre_stop,
            spec.drain.surge_before_evict,
        ),
        detection=_detection(spec.detection),
        upstreams=tuple(_upstream(upstream) for upstream in spec.upstreams or ()),
    )


def _detection(detection: _Detection) -> DetectionPolicy:
    probe = detection.route_probe
    return DetectionPolicy(
        detection.min_requests,
        tuple(detection.error_statuses),
        RouteProbePolicy(
            probe.mode,
            probe.interval,
            probe.change_interval,
            probe.path or "",
            probe.host or "",
        ),
        detection.requests_per_second,
    )


def _upstream(upstream: _Upstream) -> Upstream:
    tls = upstream.tls
    return Upstream(
        host=_plain(upstream.host),
        port=upstream.port or 0,
        srv=_plain(upstream.srv),
        tls=UpstreamTls(_plain(tls.server_name), tls.warn_before) if tls else None,
    )


def _plain(name: str | None) -> str:
    """DNS knows no upper case, and a final dot says only that the name is whole, as all of ours are."""
    return (name or "").lower().removesuffix(".")


def _overrides(probe: _Probe) -> ProbeOverrides:
    timeout = min(DEFAULT_TIMEOUT, probe.interval) if probe.timeout is None else probe.timeout
    return ProbeOverrides(
        protocol=probe.protocol,
        port=probe.port,
        path=probe.path,
        host=probe.host,
        headers=tuple((header.name, header.value) for header in probe.headers),
        service=probe.service,
        interval=probe.interval,
        timeout=timeout,
        failure_threshold=probe.failure_threshold,
        success_threshold=probe.success_threshold,
    )


def _broken_rules(spec: _Spec) -> Iterator[Problem]:
    """The rules between fields: those of the CRD's CEL, in the same words."""
    yield from _broken_probe_rules(spec.probe)
    route = spec.detection.route_probe
    if route.change_interval > route.interval:
        yield Problem(
            "spec.detection.routeProbe.changeInterval",
            "must not be longer than spec.detection.routeProbe.interval, for during a change more is "
            "asked, not less; lower changeInterval or raise interval",
        )
    yield from _broken_upstream_rules(spec)
    drain = spec.drain
    if drain.pre_stop is None:
        return
    if drain.pre_stop > drain.max_pre_stop:
        yield Problem(
            "spec.drain.maxPreStop",
            "must not be shorter than spec.drain.preStop; raise maxPreStop or lower preStop",
        )
    if drain.grace_period is not None and drain.grace_period <= drain.pre_stop:
        yield Problem(
            "spec.drain.gracePeriod",
            "must be longer than spec.drain.preStop, because preStop runs inside it and the app needs "
            "the rest to finish; raise gracePeriod, or set it to Auto",
        )


def _broken_upstream_rules(spec: _Spec) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, upstream in enumerate(spec.upstreams or ()):
        path = f"spec.upstreams[{index}]"
        yield from (Problem(path, message) for message in _upstream_problems(upstream))
        key = _upstream(upstream).key
        if key in seen:
            yield Problem("spec.upstreams", "must not name an upstream twice")
        seen.add(key)
    if spec.upstreams and isinstance(spec.probe.port, str):
        yield Problem(
            "spec.probe.port",
            "must be a number with spec.upstreams, because only containers have named ports",
        )


def _upstream_problems(upstream: _Upstream) -> Iterator[str]:
    if upstream.srv is not None and (upstream.host is not None or upstream.port is not None):
        yield "an SRV record says host and port itself; keep srv, or host and port"
    elif upstream.srv is None and (upstream.host is None or upstream.port is None):
        yield "needs host and port, or srv"


def _broken_probe_rules(probe: _Probe) -> Iterator[Problem]:
    if probe.timeout is not None and probe.timeout > probe.interval:
        yield Problem(
            "spec.probe.timeout",
            "must not be longer than spec.probe.interval, or a silent endpoint cannot be ejected in "
            "the time promised; raise interval or lower timeout",
        )
    for field, wrong, message in _protocol_rules(probe):
        if wrong:
            yield Problem(f"spec.probe.{field}", message)
    for index, name in enumerate(header.name for header in probe.headers):
        if name.lower() in _OWN_HEADERS:
            yield Problem(
                f"spec.probe.headers[{index}].name",
                "this header is set by the probe itself; for Host use spec.probe.host",
            )
    yield from _repeated_headers(header.name for header in probe.headers)


def _protocol_rules(probe: _Probe) -> tuple[tuple[str, bool, str], ...]:
    protocol = probe.protocol
    http = protocol is None or protocol in _HTTP
    return (
        (
            "path",
            probe.path is not None and not http,
            "has a meaning only for HTTP and HTTPS; remove path, or set protocol to HTTP or HTTPS",
        ),
        (
            "headers",
            bool(probe.headers) and not http,
            "has a meaning only for HTTP and HTTPS; remove headers, or set protocol to HTTP or HTTPS",
        ),
        (
            "host",
            probe.host is not None and protocol is ProbeProtocol.TCP,
            "has no meaning for TCP; remove host, or set protocol to HTTP, HTTPS or GRPC",
        ),
        (
            "service",
            probe.service is not None and protocol not in {None, ProbeProtocol.GRPC},
            "is the name in a gRPC health request; remove service, or set protocol to GRPC",
        ),
        (
            "service",
            probe.service is not None and (probe.path is not None or bool(probe.headers)),
            "belongs to gRPC, but path and headers belong to HTTP; keep one of them",
        ),
    )


def _repeated_headers(names: Iterable[str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Problem(f"spec.probe.headers[{index}].name", "must not be named twice")
        seen.add(name)


def _text(value: object) -> str:
    return value[:253] if isinstance(value, str) else ""


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
