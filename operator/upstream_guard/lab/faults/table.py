"""The faults: a new one is a row, and a way to bring it about where none fits."""

from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.lab.faults import inject
from upstream_guard.lab.faults.model import SLOW_HOLD_SECONDS, Fault, Wire

THROUGH_CLUSTER_IP: Final = frozenset({"nginx", "haproxy", "caddy", "httpd"})
TO_PODS: Final = frozenset({"contour", "envoy-gateway"})
TO_TLS: Final = frozenset({"nginx", "haproxy", "caddy", "contour"})
"""The lab can lead them to a service that speaks TLS."""
GOES_BY_NAME: Final = frozenset({"nginx", "haproxy", "caddy"})
"""The lab can have them ask DNS for a service's name."""
KEEPS_UPSTREAMS: Final = frozenset({"haproxy", "httpd"}) | TO_PODS
"""They reuse upstream connections and do not replay what breaks on one."""
OF_ITS_OWN_ADDRESS: Final = THROUGH_CLUSTER_IP | {"envoy-gateway"}
"""Packets to pods come from another address than the operator's, so one can be blocked alone."""


def _only(*causes: Cause) -> frozenset[Cause]:
    return frozenset(causes)


FAULTS: Final[tuple[Fault, ...]] = (
    Fault("refused", "every pod refuses", _only(Cause.REFUSED), inject.sample("refuse")),
    Fault(
        "refused-one",
        "one of three pods refuses",
        _only(Cause.REFUSED),
        inject.sample("refuse", pods=1),
    ),
    Fault("crash", "every app process is killed", _only(Cause.REFUSED), inject.crash),
    Fault("reset", "reset before headers", _only(Cause.RESET), inject.sample("reset")),
    Fault("lying", "reset, health check good", _only(Cause.RESET), inject.sample("lying-ready")),
    Fault("reset-in-body", "reset in the body", _only(Cause.RESET), inject.sample("reset-in-body")),
    Fault(
        "early-close",
        "closed before headers",
        _only(Cause.EARLY_CLOSE),
        inject.sample("early-close"),
    ),
    Fault("malformed", "NUL in a header", _only(Cause.MALFORMED), inject.sample("malformed")),
    Fault(
        "malformed-status",
        "the app answers as an SSH server",
        _only(Cause.PROTOCOL_MISMATCH),
        inject.sample("malformed-status"),
    ),
    Fault(
        "oversized-header",
        "header of 11 MiB",
        _only(Cause.OVERSIZED_HEADER),
        inject.sample("oversized-header"),
        # Caddy reads 10 MiB of it each time.
        rate=8.0,
    ),
    Fault(
        "protocol-mismatch",
        "the app speaks h2c only",
        _only(Cause.PROTOCOL_MISMATCH),
        inject.sample("h2-only"),
    ),
    Fault(
        "tls-refused",
        "every pod refuses TLS handshakes",
        _only(Cause.TLS),
        inject.sample("tls-refuse"),
        gateways=TO_TLS,
        wire=Wire.TLS,
    ),
    Fault(
        "tls-forgotten",
        "the app speaks plain HTTP at a TLS port",
        _only(Cause.PROTOCOL_MISMATCH),
        inject.sample("tls-plain"),
        gateways=TO_TLS,
        wire=Wire.TLS,
    ),
    Fault(
        "read-timeout",
        "every pod hangs",
        _only(Cause.READ_TIMEOUT),
        inject.sample("hang"),
        hold=SLOW_HOLD_SECONDS,
    ),
    Fault(
        "app-error",
        "the app's own 500: no window",
        frozenset(),
        inject.sample("error"),
    ),
    Fault(
        "unavailable",
        "the app's own 503",
        _only(Cause.APP_ERROR),
        inject.sample("unavailable"),
    ),
    Fault(
        "overload",
        "more requests than the gateway's limit",
        _only(Cause.OVERLOAD),
        inject.crowded,
        gateways=frozenset({"contour"}),
    ),
    Fault(
        "keepalive-race",
        "idle connections closed early",
        _only(Cause.KEEPALIVE_RACE),
        inject.sample("close-idle-early"),
        gateways=KEEPS_UPSTREAMS,
        keep_alive=True,
    ),
    Fault(
        "connect-timeout",
        "packets to pods vanish",
        _only(Cause.CONNECT_TIMEOUT),
        inject.firewall("drop"),
        hold=SLOW_HOLD_SECONDS,
    ),
    Fault(
        "unreachable",
        "pods unreachable, says ICMP",
        _only(Cause.UNREACHABLE),
        inject.unreachable(),
    ),
    Fault(
        "blocked",
        "the gateway's packets vanish, ours do not",
        _only(Cause.BLOCKED),
        inject.firewall("drop", gateway_only=True),
        gateways=OF_ITS_OWN_ADDRESS,
        hold=SLOW_HOLD_SECONDS,
    ),
    Fault(
        "no-endpoints",
        "no pod finds a node",
        _only(Cause.NO_ENDPOINTS),
        inject.no_room,
        hold=SLOW_HOLD_SECONDS,
    ),
    Fault(
        "dns-no-name",
        "DNS does not know the service's name",
        _only(Cause.DNS),
        inject.nameless,
        gateways=GOES_BY_NAME,
        wire=Wire.NAMED,
    ),
    Fault(
        "dns-down",
        "the DNS server is stopped",
        _only(Cause.DNS),
        inject.stopped_dns,
        gateways=GOES_BY_NAME,
        wire=Wire.NAMED,
        hold=SLOW_HOLD_SECONDS,
    ),
    Fault(
        "dns-failing",
        "DNS answers SERVFAIL",
        _only(Cause.DNS),
        inject.failing_dns,
        gateways=GOES_BY_NAME,
        wire=Wire.NAMED,
    ),
    Fault(
        "stale-upstream",
        "pods replaced, the gateway's list frozen",
        _only(Cause.STALE_UPSTREAM),
        inject.frozen_list,
        hold=SLOW_HOLD_SECONDS,
    ),
    Fault(
        "gateway-down",
        "the gateway is killed",
        _only(Cause.GATEWAY_DOWN),
        inject.killed_gateway,
    ),
    Fault(
        "gateway-down-in-change",
        "the same while a rollout is under way",
        _only(Cause.GATEWAY_DOWN),
        inject.in_a_rollout(inject.killed_gateway),
        changing=True,
    ),
)

BY_NAME: Final = {fault.name: fault for fault in FAULTS}
