"""Every metric, in one place. Names carry units and follow the Prometheus conventions."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

GUARD = ("namespace", "guard")
GATEWAY = ("kind", "gateway")
"""What names a gateway: IngressClass, Gateway, GatewayProfile or ClusterIP, and its name."""

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds; for what should be quick and must not be slow."""

ARRIVAL = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
"""Seconds; fine around 0.05, where the kubelet and the EndpointSlice controller usually answer."""


LEAD = (-5.0, -1.0, -0.25, 0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds before the first failed request; negative where that was told too late."""

ERROR = (0.1, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds between a predicted and an observed duration."""

RATIO = (0.0, 0.1, 0.25, 0.5, 0.8, 1.25, 2.0, 4.0, 10.0)
"""What was predicted over what was observed; right is 1, and within a factor of two is good."""


DETACH = (0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds; looks are a second apart, so finer ones say little."""


class Metrics:
    """The operator's metrics on a registry of their own, so that each test has a fresh one."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        reg = self.registry
        self.endpoints = Gauge(
            "upstream_guard_endpoints",
            "Endpoints of a guard by state: serving, failing, unknown (by probe), listed (in the "
            "upstream list), ejected (taken out by the operator), draining, ungated (observed only).",
            (*GUARD, "state"),
            registry=reg,
        )
        self.probe_results = Counter(
            "upstream_guard_probe_results",
            "Probes by result: ok, or the cause of the failure.",
            (*GUARD, "result"),
            registry=reg,
        )
        self.probe_duration = Histogram(
            "upstream_guard_probe_duration_seconds",
            "How long probes took, by result: ok, or the cause of the failure.",
            ("result",),
            buckets=FAST,
            registry=reg,
        )
        self.probes_delayed = Gauge(
            "upstream_guard_probes_delayed",
            "Probes discarded because the operator itself was late, since it started.",
            registry=reg,
        )
        self.gate_changes = Counter(
            "upstream_guard_gate_changes",
            "Readiness gates set, by reason: EndpointAdmitted, EndpointEjected, EndpointRestored, …",
            (*GUARD, "reason"),
            registry=reg,
        )
        self.ejections = Counter(
            "upstream_guard_ejections",
            "Endpoints taken out of the upstream list, by cause.",
            (*GUARD, "cause"),
            registry=reg,
        )
        self.verdict_to_slice = Histogram(
            "upstream_guard_verdict_to_endpointslice_seconds",
            "From the operator's verdict to the EndpointSlice that says so, by direction: in, out.",
            ("direction",),
            buckets=ARRIVAL,
            registry=reg,
        )
        self.gateway_scrapes = Counter(
            "upstream_guard_gateway_scrapes",
            "Looks at a gateway's own metrics or upstream list, by result: ok, unreachable, timeout, status "
            "(an HTTP error), too-large, unreadable, token (its file cannot be read), mixed (several "
            "replicas at one address).",
            ("gateway", "result"),
            registry=reg,
        )
        self.gateway_requests = Counter(
            "upstream_guard_gateway_requests",
            "Requests for a guarded Service as its gateway counted them, by the status that the client got; "
            "by class (5xx) where the gateway tells no more.",
            (*GUARD, "gateway", "code"),
            registry=reg,
        )
        self.gateway_stale_endpoints = Gauge(
            "upstream_guard_gateway_stale_endpoints",
            "Endpoints that have left the EndpointSlices and that a replica of the gateway may still pick.",
            (*GUARD, "gateway"),
            registry=reg,
        )
        self.gateway_observed_detach = Histogram(
            "upstream_guard_gateway_observed_detach_seconds",
            "From an EndpointSlice without an endpoint to the first view of a gateway's replica without it; "
            "up to one look (1 s) too long.",
            ("gateway",),
            buckets=DETACH,
            registry=reg,
        )
        self.drain_pre_stop = Gauge(
            "upstream_guard_drain_pre_stop_seconds",
            "The preStop sleep that new pods of this guard get (or should get, with Recommend).",
            GUARD,
            registry=reg,
        )
        self.guards = Gauge(
            "upstream_guard_guards",
            "Guards by condition and its status.",
            ("condition", "status"),
            registry=reg,
        )
        self.conditions = Gauge(
            "upstream_guard_condition",
            "Conditions of a guard with their status and reason, as its status has them; 1 for what is so.",
            (*GUARD, "condition", "status", "reason"),
            registry=reg,
        )
        self.windows_predicted = Counter(
            "upstream_guard_windows_predicted",
            "Windows predicted of changes that had begun, by change and cause; one for each gateway and "
            "risk. Standing risks are not counted.",
            (*GUARD, "change", "cause"),
            registry=reg,
        )
        self.predictions_open = Gauge(
            "upstream_guard_predictions_open",
            "Predicted windows of changes that are not over, or over so recently that they may be open yet.",
            GUARD,
            registry=reg,
        )
        self.predicted_lost = Gauge(
            "upstream_guard_predicted_lost_requests",
            "Requests expected to fail in the predicted windows that upstream_guard_predictions_open counts.",
            GUARD,
            registry=reg,
        )
        self.windows = Counter(
            "upstream_guard_windows",
            "Windows that are over, by cause, and by whether a prediction covered them (true, false).",
            (*GUARD, "cause", "predicted"),
            registry=reg,
        )
        self.window_seconds = Counter(
            "upstream_guard_window_seconds",
            "Seconds from the first failed request to the last, of all windows that are over, by cause.",
            (*GUARD, "cause"),
            registry=reg,
        )
        self.window_lost = Counter(
            "upstream_guard_window_lost_requests",
            "Requests lost in windows that are over, by how they are known: exact (the gateway counted "
            "them), estimated.",
            (*GUARD, "counted"),
            registry=reg,
        )
        self.windows_open = Gauge(
            "upstream_guard_windows_open",
            "Windows that are open.",
            GUARD,
            registry=reg,
        )
        self.failing_seconds = Counter(
            "upstream_guard_failing_seconds",
            "Seconds in which requests failed, as they pass: from the first failed request to the last of "
            "each window, open ones included, and overlaps counted once. Error budgets are spent by it.",
            GUARD,
            registry=reg,
        )
        self.change_window_seconds = Counter(
            "upstream_guard_change_window_seconds",
            "Seconds of windows that opened during a change, by the kind of change: 502-seconds per rollout.",
            (*GUARD, "change"),
            registry=reg,
        )
        self.change_lost = Counter(
            "upstream_guard_change_lost_requests",
            "Requests lost in windows that opened during a change, by the kind of change.",
            (*GUARD, "change"),
            registry=reg,
        )
        self.prediction_duration = Histogram(
            "upstream_guard_prediction_duration_seconds",
            "How long predictions took: change (all gateways of one that began), review (of one guard's "
            "standing risks).",
            ("kind",),
            buckets=FAST,
            registry=reg,
        )
        self.predictions_scored = Counter(
            "upstream_guard_predictions_scored",
            "Changes that are over, one for each gateway, by what became of their prediction: hit, "
            "false-alarm, miss, rest, or unwatched (no window seen where nobody looks). Change none: a "
            "window without a change. Precision is hit / (hit + false-alarm), recall hit / (hit + miss).",
            (*GUARD, "change", "outcome"),
            registry=reg,
        )
        self.prediction_lead = Histogram(
            "upstream_guard_prediction_lead_seconds",
            "From a prediction to the first failed request of its window, by change.",
            ("change",),
            buckets=LEAD,
            registry=reg,
        )
        self.prediction_duration_error = Histogram(
            "upstream_guard_prediction_duration_error_seconds",
            "Between the predicted and the observed duration of windows that opened in a change; one that "
            "was not announced counts as 0 s.",
            ("change",),
            buckets=ERROR,
            registry=reg,
        )
        self.prediction_lost_ratio = Histogram(
            "upstream_guard_prediction_lost_ratio",
            "Requests predicted to be lost over those that were, of windows that opened in a change.",
            ("change",),
            buckets=RATIO,
            registry=reg,
        )
        self.risks = Gauge(
            "upstream_guard_standing_risks",
            "Risks of a guarded Service that wait for the next change, by severity: error, warning.",
            (*GUARD, "severity"),
            registry=reg,
        )
        self.route_probes = Counter(
            "upstream_guard_route_probes",
            "Requests of the operator's own through gateways, by result: ok, the status that says the "
            "upstream failed, the cause for which no answer came, or discarded (nothing was learned).",
            (*GUARD, "gateway", "result"),
            registry=reg,
        )
        self.route_probe_duration = Histogram(
            "upstream_guard_route_probe_duration_seconds",
            "How long requests of the operator's own through gateways took, by result.",
            ("result",),
            buckets=FAST,
            registry=reg,
        )
        self.route_probes_skipped = Counter(
            "upstream_guard_route_probes_skipped",
            "Requests through gateways that were left out, because earlier ones still hang.",
            registry=reg,
        )
        self.dns_lookups = Counter(
            "upstream_guard_dns_lookups",
            "Questions to DNS for external upstreams by result: answer, nxdomain, nodata, servfail, "
            "timeout, error.",
            ("result",),
            registry=reg,
        )
        self.dns_last_known_good = Gauge(
            "upstream_guard_dns_last_known_good",
            "External upstreams of a guard whose addresses are the last known good ones, because DNS fails.",
            GUARD,
            registry=reg,
        )
        self.certificate_expiry = Gauge(
            "upstream_guard_upstream_certificate_expiry_timestamp_seconds",
            "When the certificate of an external upstream ends (the earliest of its addresses), Unix time.",
            (*GUARD, "upstream"),
            registry=reg,
        )
        self.gateway_detach = Gauge(
            "upstream_guard_gateway_detach_seconds",
            "From the API write that takes an endpoint away, right after another endpoint change, to the "
            "last request that the gateway sends to it, as the canary measured; by connections (new, "
            "kept-alive) and quantile (0.5, 0.9, 0.99, 1).",
            (*GATEWAY, "connections", "quantile"),
            registry=reg,
        )
        self.gateway_attach = Gauge(
            "upstream_guard_gateway_attach_seconds",
            "From the API write that adds an endpoint to the first request that the gateway sends to it, "
            "as the canary measured; by quantile (0.5, 0.9, 0.99, 1).",
            (*GATEWAY, "quantile"),
            registry=reg,
        )
        self.canary_samples = Gauge(
            "upstream_guard_canary_samples",
            "Detaches that the measured quantiles rest on, at most 300.",
            GATEWAY,
            registry=reg,
        )
        self.canary_requests = Counter(
            "upstream_guard_canary_requests",
            "Requests of the canary through a gateway by result: ok, foreign (somebody else answered), failed.",
            (*GATEWAY, "result"),
            registry=reg,
        )
        self.canary_toggles = Counter(
            "upstream_guard_canary_toggles",
            "Toggles of the canary by result: done, unreachable (nothing was changed), refused (by the API "
            "server).",
            (*GATEWAY, "result"),
            registry=reg,
        )
        self.api_writes = Counter(
            "upstream_guard_api_writes",
            "Writes to the API server by verb, resource and HTTP status class.",
            ("verb", "resource", "code"),
            registry=reg,
        )
        self.webhook_requests = Counter(
            "upstream_guard_webhook_requests",
            "Admission requests by path and outcome.",
            ("path", "outcome"),
            registry=reg,
        )
        self.loop_lag = Histogram(
            "upstream_guard_loop_lag_seconds",
            "How late the event loop ran a timer: a late operator judges no endpoint.",
            buckets=FAST,
            registry=reg,
        )
        self.leading = Gauge(
            "upstream_guard_leading",
            "1 where this replica holds the Lease and controls, 0 where it stands by.",
            registry=reg,
        )
        self.lease_age = Gauge(
            "upstream_guard_lease_age_seconds",
            "How long ago this replica last saw the Lease renewed, by whichever replica holds it.",
            registry=reg,
        )
        self.watch_age = Gauge(
            "upstream_guard_watch_age_seconds",
            "How long ago the API server last said something of a watched resource; it does at least once "
            "a minute or so.",
            ("resource",),
            registry=reg,
        )


def resource_of(path: str) -> str:
    """The resource (and subresource) that an API path writes, e.g. `pods/status`."""
    parts = path.split("?", maxsplit=1)[0].strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if len(parts) >= 2 and parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    return "/".join([parts[0], *parts[2:]]) if parts else ""
