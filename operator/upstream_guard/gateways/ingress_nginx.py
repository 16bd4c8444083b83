"""ingress-nginx (retired in March 2026): at most 0.3 syncs a second, then a poll of 1 s in Lua."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.gateway import Behaviour
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways.adapter import Adapter, Directory, Known, PodSigns, Tally
from upstream_guard.gateways.families import NGINX, noted
from upstream_guard.gateways.profile import Profile

if TYPE_CHECKING:  # it brings an HTTP server with it, which `check` has no use for
    from prometheus_client.samples import Sample

BEHAVIOUR = Behaviour(
    answers={**NGINX, Cause.NO_ENDPOINTS: noted(503)},
    keepalive_idle=60.0,
    # proxy-connect-timeout and proxy-read-timeout of its ConfigMap (documentation).
    connect_timeout=5.0,
    read_timeout=60.0,
    # proxy-next-upstream-tries is 3.
    refused_retries=2,
)

_ANSWERS = "nginx_ingress_controller_requests"


def _names(known: Known) -> Iterator[str]:
    yield str(known.service)


def _count(samples: Iterable["Sample"], directory: Directory, tally: Tally) -> None:
    """Its code (`socket.go`): what clients got, once for each request.

    With `--report-status-classes` the status is a class. It counts no failed attempts.
    """
    for sample in samples:
        if sample.name != _ANSWERS:
            tally.since(sample.value)
            continue
        labels = sample.labels
        service = directory.by_name(
            str(ObjectRef(labels.get("namespace", ""), labels.get("service", "")))
        )
        if service is not None:
            tally.answered(service, labels.get("status", ""), sample.value)


ADAPTER = Adapter(
    label="service",
    series=frozenset({_ANSWERS}),
    count=_count,
    names=_names,
    lookup=lambda known: (known.service.name,),
    pods=PodSigns(
        labels=(
            {
                "app.kubernetes.io/name": "ingress-nginx",
                "app.kubernetes.io/component": "controller",
            },
        ),
        port=10254,
    ),
)

PROFILE = Profile(
    controller="ingress-nginx",
    detach_seconds=4.3,
    attach_seconds=4.3,
    evidence=Evidence.BUILTIN,
    source="ingress-nginx's code: 0.3 syncs a second (3.3 s) and a poll of 1 s in Lua; not measured",
    bad_statuses=(502, 503, 504),
    # Its Helm chart lets users choose the value; most keep `nginx` in it.
    ingress_controllers=("k8s.io/*nginx*",),
    ingress_classes=("nginx",),
    behaviour=BEHAVIOUR,
    adapter=ADAPTER,
)
