"""How a gateway's own view is read: what it counts of its upstreams, and which endpoints it holds.

An adapter turns texts into values and does no I/O. What it is handed was written by another program:
whatever it does not understand it passes over.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from upstream_guard.core.counting import (
    START_ERROR,
    UPTIME_ERROR,
    Count,
    Reading,
    Subject,
)
from upstream_guard.core.evidence import Failure, UpstreamView
from upstream_guard.core.holding import address_of
from upstream_guard.core.model import ObjectRef, Pod, ServicePort

if TYPE_CHECKING:  # it brings an HTTP server with it, which `check` has no use for
    from prometheus_client.samples import Sample

LARGEST: Final = 2**53
"""Counts above are refused: no gateway gets there, and a float cannot count them one by one."""


@dataclass(frozen=True, slots=True)
class Known:
    """A guarded Service, with all that gateways make their own names for it from.

    Attributes:
        service: The Service.
        cluster_ip: Empty where it has none.
        ports: Its ports.
        endpoints: `10.0.0.7:8080`, those that have left lately included.
        rules: Rules of HTTPRoutes that lead to it: the route, the rule's place in it, and the
            rule's backends.
    """

    service: ObjectRef
    cluster_ip: str = ""
    ports: tuple[ServicePort, ...] = ()
    endpoints: frozenset[str] = frozenset()
    rules: tuple[tuple[ObjectRef, int, tuple[ObjectRef | None, ...]], ...] = ()

    @property
    def cluster_addresses(self) -> frozenset[str]:
        """`address:port` of the ClusterIP, and the same by the Service's DNS name."""
        if not self.cluster_ip:
            return frozenset()
        short = f"{self.service.name}.{self.service.namespace}"
        hosts = (self.cluster_ip, short, f"{short}.svc", f"{short}.svc.cluster.local")
        return frozenset(address_of(host, p.number) for host in hosts for p in self.ports)


class Directory:
    """Which guarded Service a gateway means. What two of them could be called names neither."""

    def __init__(
        self,
        known: Iterable[Known],
        names: Callable[[Known], Iterable[str]] = lambda _: (),
        learned: Mapping[str, ObjectRef] | None = None,
    ) -> None:
        """Make the tables.

        Args:
            known: The guarded Services behind the gateway.
            names: How the gateway calls a Service.
            learned: More names, from what the gateway said of its upstreams.
        """
        entries = tuple(known)
        self.services = frozenset(entry.service for entry in entries)
        self._clusters = _table((e.service, e.cluster_addresses) for e in entries)
        self._endpoints = _table((e.service, e.endpoints) for e in entries)
        self._names = {
            **{name: s for name, s in (learned or {}).items() if s in self.services},
            **_table((entry.service, names(entry)) for entry in entries),
        }

    def by_name(self, name: str) -> ObjectRef | None:
        """The Service of that name."""
        return self._names.get(name)

    def by_address(self, address: str) -> ObjectRef | None:
        """The Service that this `address:port` leads to, by its ClusterIP or as one of its endpoints."""
        return self._clusters.get(address) or self._endpoints.get(address)

    def is_cluster_ip(self, address: str) -> bool:
        """Whether kube-proxy picks the endpoint behind this `address:port`."""
        return address in self._clusters

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that leads to a Service."""
        return tuple(sorted(self._names))


def _table(pairs: Iterable[tuple[ObjectRef, Iterable[str]]]) -> dict[str, ObjectRef]:
    found: dict[str, ObjectRef] = {}
    shared: set[str] = set()
    for service, keys in pairs:
        for key in keys:
            if found.setdefault(key, service) != service:
                shared.add(key)
    return {key: service for key, service in found.items() if key not in shared}


@dataclass(slots=True)
class _Sums:
    statuses: dict[int, int] = field(default_factory=dict)
    failures: dict[Failure, int] = field(default_factory=dict)
    healthy: int | None = None
    classes_only: bool = False


class Tally:
    """Adds up what the samples of one look say."""

    def __init__(self, at: float) -> None:
        """Begin.

        Args:
            at: When the look was made.
        """
        self._at = at
        self._sums: dict[Subject, _Sums] = {}
        self._started: float | None = None
        self._start_error = START_ERROR

    def answered(self, service: ObjectRef, status: str, number: float, endpoint: str = "") -> None:
        """Answers of one status (`502`), or of one class of them (`5xx`)."""
        code, class_ = _status(status)
        count = whole(number)
        if code and count is not None:
            sums = self._of(service, endpoint)
            sums.statuses[code] = sums.statuses.get(code, 0) + count
            sums.classes_only = sums.classes_only or class_

    def failed(
        self, service: ObjectRef, failure: Failure, number: float, endpoint: str = ""
    ) -> None:
        """Attempts that failed."""
        count = whole(number)
        if count is not None:
            failures = self._of(service, endpoint).failures
            failures[failure] = failures.get(failure, 0) + count

    def usable(self, service: ObjectRef, number: float) -> None:
        """Endpoints that are held usable."""
        count = whole(number)
        if count is not None:
            sums = self._of(service, "")
            sums.healthy = (sums.healthy or 0) + count

    def excluded(self, service: ObjectRef, failure: Failure, number: float) -> None:
        """Attempts that `failed` was told of, and that are counted as another kind."""
        count = whole(number)
        if count is not None:
            failures = self._of(service, "").failures
            failures[failure] = failures.get(failure, 0) - count

    def uptime(self, seconds: float) -> None:
        """How long the process has run."""
        if whole(seconds) is not None:
            self._started, self._start_error = self._at - seconds, UPTIME_ERROR

    def since(self, start: float) -> None:
        """When the process started."""
        if whole(start) is not None:
            self._started, self._start_error = start, START_ERROR

    def reading(self, asked: frozenset[ObjectRef]) -> Reading:
        """All of it, as one look."""
        counts = {
            subject: Count(
                sums.statuses,
                {kind: max(0, n) for kind, n in sums.failures.items()},
                sums.healthy,
                sums.classes_only,
            )
            for subject, sums in self._sums.items()
        }
        return Reading(self._at, asked, counts, self._started, self._start_error)

    def _of(self, service: ObjectRef, endpoint: str) -> _Sums:
        return self._sums.setdefault(Subject(service, endpoint), _Sums())


def whole(number: float) -> int | None:
    """A count as an integer; None where it cannot be one (NaN, infinite, negative, absurd)."""
    return int(number) if 0 <= number < LARGEST else None


def _status(text: str) -> tuple[int, bool]:
    """(status, whether it is a class); (0, False) where it is neither."""
    class_ = len(text) == 3 and text[1:].lower() == "xx"
    digits = f"{text[0]}00" if class_ else text
    if len(digits) == 3 and digits.isascii() and digits.isdigit() and 100 <= int(digits) <= 599:
        return int(digits), class_
    return 0, False


@dataclass(frozen=True, slots=True)
class Listing:
    """What a gateway says of its upstreams.

    Attributes:
        usable: By Service: endpoints that it may pick. Services that it reaches through their
            ClusterIP are left out: which endpoint is picked there is kube-proxy's affair.
        unusable: By Service: endpoints that it knows and does not pick.
        names: How it calls Services in its metrics, where that cannot be known beforehand.
    """

    usable: Mapping[ObjectRef, frozenset[str]] = field(default_factory=dict)
    unusable: Mapping[ObjectRef, frozenset[str]] = field(default_factory=dict)
    names: Mapping[str, ObjectRef] = field(default_factory=dict)

    def views(self, gateway: str, replica: str, at: float) -> tuple[UpstreamView, ...]:
        """One view for each Service."""
        return tuple(
            UpstreamView(
                at=at,
                gateway=gateway,
                replica=replica,
                service=service,
                usable=self.usable.get(service, frozenset()),
                unusable=self.unusable.get(service, frozenset()),
            )
            for service in sorted({*self.usable, *self.unusable})
        )


class ListingBuilder:
    """Collects endpoints and names."""

    def __init__(self) -> None:
        self._usable: dict[ObjectRef, set[str]] = {}
        self._unusable: dict[ObjectRef, set[str]] = {}
        self._names: dict[str, set[ObjectRef | None]] = {}

    def holds(self, service: ObjectRef) -> None:
        """The Service is known to the gateway, maybe without an endpoint."""
        self._usable.setdefault(service, set())

    def endpoint(self, service: ObjectRef, address: str, *, usable: bool) -> None:
        """One endpoint; usable if it is so anywhere."""
        self.holds(service)
        (self._usable if usable else self._unusable).setdefault(service, set()).add(address)

    def name(self, name: str, service: ObjectRef | None) -> None:
        """What the gateway calls a Service; None for one that is not guarded."""
        self._names.setdefault(name, set()).add(service)

    def listing(self) -> Listing:
        """All of it. A name of several Services names none."""
        usable = {service: frozenset(found) for service, found in self._usable.items()}
        return Listing(
            usable=usable,
            unusable={
                service: frozenset(found) - usable[service]
                for service, found in self._unusable.items()
            },
            names={
                name: service
                for name, found in self._names.items()
                if len(found) == 1 and (service := next(iter(found))) is not None
            },
        )


CountSamples = Callable[[Iterable["Sample"], Directory, Tally], None]
"""Adds what the samples say of the directory's Services to the tally."""

ListSamples = Callable[[Iterable["Sample"], Directory], Listing]
"""Makes an upstream list of samples, where the metrics show single endpoints."""

ReadLists = Callable[[Mapping[str, bytes], Directory], Listing]
"""Reads the documents of an admin API, by path."""


@dataclass(frozen=True, slots=True)
class PodSigns:
    """How the pods of a gateway's replicas are recognised.

    Attributes:
        labels: Sets of labels; a pod that has all of one set is a replica.
        port: Where metrics are served unless an annotation says otherwise; only taken where the pod
            declares it.
        path: Of the metrics, likewise.
        gateway_label: Label with the name of the Gateway that the pod belongs to.
        gateway_namespace_label: Label with that Gateway's namespace; empty where it is the pod's own.
        admin_port: Port of the admin API, where it is reachable from outside by default; 0: it is not.
    """

    labels: tuple[Mapping[str, str], ...]
    port: int
    path: str = "/metrics"
    gateway_label: str = ""
    gateway_namespace_label: str = ""
    admin_port: int = 0

    def owns(self, pod: Pod, gateway: str) -> bool:
        """Whether the pod is a replica of that gateway, `namespace/name` where it is a Gateway."""
        if self.gateway_label and "/" in gateway:
            namespace = pod.labels.get(self.gateway_namespace_label, pod.ref.namespace)
            return f"{namespace}/{pod.labels.get(self.gateway_label, '')}" == gateway
        return any(
            all(pod.labels.get(key) == value for key, value in wanted.items())
            for wanted in self.labels
        )


@dataclass(frozen=True, slots=True)
class Adapter:
    """How one product's own view is read.

    Attributes:
        label: The label by which its series name the upstream.
        series: Names of the series that are read and have that label.
        count: Adds up the samples.
        process: Names of the series that tell when the process started.
        names: How the product calls a Service in its metrics.
        lookup: Values that `label` may have for a Service, where those are not its names.
        narrows: Whether the values of `label` are known beforehand, so that others can be passed over.
        query: Added to the metrics' URL, to be sent less.
        list_paths: Of the admin API, for the upstream list.
        read_lists: Reads what they answer.
        list_samples: Reads the upstream list from metrics, where they may show it.
        pods: How its replicas are recognised; None where it does not run in pods, as a rule.
    """

    label: str
    series: frozenset[str]
    count: CountSamples
    process: frozenset[str] = frozenset({"process_start_time_seconds"})
    names: Callable[[Known], Iterable[str]] = lambda _: ()
    lookup: Callable[[Known], Iterable[str]] | None = None
    narrows: bool = True
    query: str = ""
    list_paths: tuple[str, ...] = ()
    read_lists: ReadLists | None = None
    list_samples: ListSamples | None = None
    pods: PodSigns | None = None

    def values(self, known: Iterable[Known], directory: Directory) -> frozenset[str] | None:
        """Values of `label` that matter; None where they cannot be known."""
        if not self.narrows:
            return None
        if self.lookup is None:
            return frozenset(directory.names)
        return frozenset(value for entry in known for value in self.lookup(entry))
