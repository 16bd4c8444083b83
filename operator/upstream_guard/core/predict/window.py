"""What a prediction says: windows, what they rest on, and how to prevent them. All frozen."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.tuning import Evidence


class Scope(StrEnum):
    """How much of a service fails."""

    ENDPOINT = "endpoint"
    """Requests that the gateway sends to some of the endpoints."""
    SERVICE = "service"
    """Every request."""


class PatchKind(StrEnum):
    """How a remedy's patch is applied, as `kubectl patch --type` names it."""

    STRATEGIC = "strategic"
    JSON = "json"
    MERGE = "merge"
    CREATE = "create"
    """The patch is a whole new object."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A patch that prevents a window.

    Attributes:
        kind: Of the object to patch, as the API spells it, e.g. `Deployment`.
        ref: The object to patch.
        patch_kind: How to apply it.
        patch: The patch: an object, or for `JSON` a list of RFC 6902 operations.
        reason: Why it helps, in one sentence.
    """

    kind: str
    ref: ObjectRef
    patch_kind: PatchKind
    patch: Mapping[str, Any] | tuple[Mapping[str, Any], ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Window:
    """One predicted window.

    Attributes:
        change: What opens it.
        cause: What the failed requests meet.
        risk: ID of the rule that explains it, a key of `risks.RISKS`, e.g. `no-readiness-probe`.
        start: Seconds from the beginning of the change; negative where requests are lost that are under
            way then.
        duration: Seconds from the first to the last failed request; infinite until somebody acts.
        share: Of the requests that are sent while it is open, 0 to 1.
        lost: Requests that fail, at the rate given.
        probability: That at least one request fails, 0 to 1.
        status: What this gateway answers, e.g. `502`; 0 where the client's connection just ends.
        status_note: The gateway's own words for it, e.g. `connect() failed`.
        scope: How much of the service fails.
        evidence: The weakest that a decisive number rests on.
        basis: The numbers it rests on, in words.
        gateway: The gateway's name, and its product.
        message: One sentence with the numbers.
        remedy: What prevents it; None where nothing does.
        no_remedy: Why there is none; empty where there is one.
    """

    change: ChangeKind
    cause: Cause
    risk: str
    start: Estimate
    duration: Estimate
    share: float
    lost: Estimate
    probability: float
    status: int
    status_note: str
    scope: Scope
    evidence: Evidence
    basis: str
    gateway: str
    message: str
    remedy: Remedy | None = None
    no_remedy: str = ""


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Requests fail for as long as nobody acts, or in every change."""
    WARNING = "warning"
    """Requests fail in the changes that it names."""
    INFO = "info"
    """Worth knowing; requests may fail under conditions that cannot be seen from here."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a structural rule found, whether or not a window could be computed for it.

    Attributes:
        risk: ID of the rule.
        severity: How bad.
        kind: Of the object it is about, as the API spells it.
        ref: That object.
        path: The field in that object, e.g. `spec.template.spec.containers[0].readinessProbe`.
        message: One sentence: what is wrong with this object.
        cause: What failed requests would meet.
        changes: In which changes; empty where it is wrong all the time.
        remedy: What mends it; None where nothing can.
        no_remedy: Why there is none; empty where there is one.
    """

    risk: str
    severity: Severity
    kind: str
    ref: ObjectRef
    path: str
    message: str
    cause: Cause
    changes: frozenset[ChangeKind] = frozenset()
    remedy: Remedy | None = None
    no_remedy: str = ""
