"""What a parser gives for one object, where no value of the core says it."""

from dataclasses import dataclass
from typing import TypeAlias

from upstream_guard.core.model import Guard, ObjectRef
from upstream_guard.core.predict.state import (
    Autoscaler,
    Budget,
    Grant,
    NetworkPolicy,
    NodeState,
    PodState,
    Quota,
    Refused,
    RouteState,
    ServiceState,
    Workload,
)
from upstream_guard.core.tuning import GatewayProfile


@dataclass(frozen=True, slots=True)
class KnownPod:
    """A Pod object.

    Attributes:
        state: How it runs.
        labels: Its labels.
        bare: The pod as a workload of its own, where nothing controls it.
    """

    state: PodState
    labels: dict[str, str]
    bare: Workload | None = None

    @property
    def ref(self) -> ObjectRef:
        """The pod's name."""
        return self.state.ref


@dataclass(frozen=True, slots=True)
class GatewayRef:
    """A Gateway: only its class matters."""

    ref: ObjectRef
    class_name: str


@dataclass(frozen=True, slots=True)
class ControllerClass:
    """An IngressClass or GatewayClass.

    Attributes:
        kind: Which of the two.
        controller: `spec.controller` or `spec.controllerName`.
        default: Marked as the cluster's default class.
    """

    kind: str
    ref: ObjectRef
    controller: str
    default: bool = False


@dataclass(frozen=True, slots=True)
class BackendTls:
    """A BackendTLSPolicy: Gateways speak TLS to these Services."""

    ref: ObjectRef
    services: tuple[ObjectRef, ...]


Parsed: TypeAlias = (
    Workload
    | ServiceState
    | RouteState
    | Budget
    | Autoscaler
    | NetworkPolicy
    | Quota
    | Grant
    | Guard
    | KnownPod
    | NodeState
    | GatewayRef
    | ControllerClass
    | BackendTls
    | GatewayProfile
    | Refused
)
"""What one object can become."""
