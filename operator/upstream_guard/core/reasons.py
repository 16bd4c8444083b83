"""Every reason that users meet, in conditions and in events: one table, documented from here.

A reason is a promise: alerts and scripts match on it, so none is renamed. `docs/reference/events.md`
is generated from `REASONS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class ConditionType(StrEnum):
    """The conditions of an UpstreamGuard."""

    ACCEPTED = "Accepted"
    """The guard is valid, its Service exists, and no other guard owns it."""
    PROGRAMMED = "Programmed"
    """What the operator decides reaches the upstream list."""
    HEALTHY = "Healthy"
    """Every endpoint that should be listed was seen to serve."""
    AT_RISK = "AtRisk"
    """The next change (rollout, scale-in, drain) will open a window as things are."""


class EventType(StrEnum):
    """Kubernetes' two types of event."""

    NORMAL = "Normal"
    WARNING = "Warning"


class Reason(StrEnum):
    """One word for why something is so, or what happened."""

    ACCEPTED = "Accepted"
    INVALID = "Invalid"
    SERVICE_NOT_FOUND = "ServiceNotFound"
    PORT_NOT_FOUND = "PortNotFound"
    CONFLICTED = "Conflicted"
    NO_SELECTOR = "NoSelector"
    HAS_SELECTOR = "HasSelector"
    EXTERNAL_NAME = "ExternalName"

    PROGRAMMED = "Programmed"
    OBSERVING = "Observing"
    NOT_ACCEPTED = "NotAccepted"
    PUBLISH_NOT_READY_ADDRESSES = "PublishNotReadyAddresses"
    UNGATED_PODS = "UngatedPods"
    BLIND = "Blind"
    PENDING = "Pending"
    NOT_ALLOWED = "NotAllowed"

    ALL_SERVING = "AllServing"
    ENDPOINTS_FAILING = "EndpointsFailing"
    NO_ENDPOINTS = "NoEndpoints"
    FLOOR_REACHED = "FloorReached"
    PROBE_NEVER_SUCCEEDED = "ProbeNeverSucceeded"
    PROBE_UNRESOLVED = "ProbeUnresolved"
    WINDOW_OPEN = "WindowOpen"

    NO_RISK = "NoRisk"
    DRAIN_NOT_ENFORCED = "DrainNotEnforced"
    DRAIN_TOO_SHORT = "DrainTooShort"
    PODS_WITHOUT_DRAIN = "PodsWithoutDrain"
    SINGLE_ENDPOINT = "SingleEndpoint"
    WINDOWS_PREDICTED = "WindowsPredicted"
    LAST_KNOWN_GOOD = "LastKnownGood"
    CERTIFICATE_EXPIRES = "CertificateExpires"

    GUARD_ACCEPTED = "GuardAccepted"
    GUARD_NOT_ACCEPTED = "GuardNotAccepted"
    GUARD_RELEASED = "GuardReleased"
    ENDPOINT_WAITING = "EndpointWaiting"
    ENDPOINT_ADMITTED = "EndpointAdmitted"
    ADMITTED_UNSEEN = "AdmittedUnseen"
    ENDPOINT_KEPT_OUT = "EndpointKeptOut"
    ENDPOINT_EJECTED = "EndpointEjected"
    ENDPOINT_RESTORED = "EndpointRestored"
    EJECTION_FLOOR_REACHED = "EjectionFloorReached"
    OPERATOR_BLIND = "OperatorBlind"
    NODE_LOST = "NodeLost"
    NODE_LEAVING = "NodeLeaving"
    ENDPOINT_STEPPED_ASIDE = "EndpointSteppedAside"
    PODS_WITHOUT_GATE = "PodsWithoutGate"
    DRAIN_RECOMMENDED = "DrainRecommended"
    PRE_STOP_TOO_SHORT = "PreStopTooShort"
    SLEEP_NOT_SUPPORTED = "SleepNotSupported"
    APP_IGNORES_SIGTERM = "AppIgnoresSigterm"
    APP_ENDS_AT_ONCE = "AppEndsAtOnce"
    APP_DRAINS = "AppDrains"
    REPLICA_ADDED = "ReplicaAdded"
    REPLICA_PUT_BACK = "ReplicaPutBack"
    SURGE_SKIPPED = "SurgeSkipped"
    STANDBY_RELEASED = "StandbyReleased"
    WINDOW_PREDICTED = "WindowPredicted"
    RISKS_FOUND = "RisksFound"
    UPSTREAM_UNRESOLVED = "UpstreamUnresolved"
    UPSTREAM_RESOLVED = "UpstreamResolved"
    UPSTREAM_REFUSED = "UpstreamRefused"
    CERTIFICATE_EXPIRING = "CertificateExpiring"
    WINDOW_OPENED = "WindowOpened"
    WINDOW_CLOSED = "WindowClosed"
    FAILURES_HIDDEN = "FailuresHidden"


@dataclass(frozen=True, slots=True)
class ReasonInfo:
    """What a reason means.

    Attributes:
        condition: The condition that carries it; None for the reason of an event.
        type: The event's type. For a condition: Warning where the reason needs somebody's attention.
        note: What it means, in one sentence.
        action: What to do about it; empty where nothing is to be done.
    """

    condition: ConditionType | None
    type: EventType
    note: str
    action: str = ""


def _accepted(note: str, action: str) -> ReasonInfo:
    return ReasonInfo(ConditionType.ACCEPTED, EventType.WARNING, note, action)


def _condition(condition: ConditionType, note: str, action: str = "") -> ReasonInfo:
    return ReasonInfo(condition, EventType.WARNING if action else EventType.NORMAL, note, action)


def _normal(note: str, action: str = "") -> ReasonInfo:
    return ReasonInfo(None, EventType.NORMAL, note, action)


def _warning(note: str, action: str) -> ReasonInfo:
    return ReasonInfo(None, EventType.WARNING, note, action)


_ADOPT: Final = (
    "Run `kubectl rollout restart` on the workload when it suits you: new pods get the gate."
)

LEFT_AHEAD: Final = frozenset({Reason.NODE_LEAVING, Reason.ENDPOINT_STEPPED_ASIDE})
"""Why an endpoint that serves is out of the list: it has not failed."""

REASONS: Final[Mapping[Reason, ReasonInfo]] = MappingProxyType(
    {
        Reason.ACCEPTED: ReasonInfo(
            ConditionType.ACCEPTED, EventType.NORMAL, "The guard is valid and in force."
        ),
        Reason.INVALID: _accepted(
            "The spec cannot work, or was written for another version of the schema; the message "
            "names each field.",
            "Correct the fields that the message names.",
        ),
        Reason.SERVICE_NOT_FOUND: _accepted(
            "No Service of that name exists in the namespace of the guard.",
            "Create the Service, or correct `spec.targetRef.name`; the guard takes effect by itself.",
        ),
        Reason.PORT_NOT_FOUND: _accepted(
            "The Service has no port of the name or number in `spec.targetRef.sectionName`.",
            "Name a port that the message lists, or leave sectionName out.",
        ),
        Reason.CONFLICTED: _accepted(
            "Another guard speaks for the same Service; the older one is in force, then the one "
            "whose name comes first.",
            "Delete one of the two guards.",
        ),
        Reason.NO_SELECTOR: _accepted(
            "The Service has no selector, so it has no pods whose readiness could be decided, and the "
            "guard names no external upstreams.",
            "Guard a Service that selects pods, or name external upstreams in `spec.upstreams`.",
        ),
        Reason.HAS_SELECTOR: _accepted(
            "The guard names external upstreams for a Service that selects pods: a list has one source.",
            "Remove `spec.upstreams`, or name a Service without selector.",
        ),
        Reason.EXTERNAL_NAME: _accepted(
            "The Service is of type ExternalName: a DNS alias without endpoints.",
            "Guard a Service that selects pods.",
        ),
        Reason.PROGRAMMED: _condition(
            ConditionType.PROGRAMMED, "What the operator decides reaches the upstream list."
        ),
        Reason.OBSERVING: _condition(
            ConditionType.PROGRAMMED,
            "The mode is Observe: nothing is changed, events say what would be done.",
        ),
        Reason.NOT_ACCEPTED: _condition(
            ConditionType.PROGRAMMED,
            "The guard is not accepted, so nothing is changed.",
            "See the Accepted condition.",
        ),
        Reason.PUBLISH_NOT_READY_ADDRESSES: _condition(
            ConditionType.PROGRAMMED,
            "The Service sets `publishNotReadyAddresses`, so readiness does not decide who is listed.",
            "Remove publishNotReadyAddresses, or let a second Service carry it for those who need it.",
        ),
        Reason.UNGATED_PODS: _condition(
            ConditionType.PROGRAMMED,
            "Some pods were made before the guard and have no readiness gate; they are only observed.",
            _ADOPT,
        ),
        Reason.BLIND: _condition(
            ConditionType.PROGRAMMED,
            "No endpoint at all is seen serving while the kubelet says otherwise, so the operator "
            "distrusts its own probes and ejects nothing.",
            "Check whether a NetworkPolicy keeps the operator out, and whether protocol, port and "
            "path of the probe are right.",
        ),
        Reason.NOT_ALLOWED: _condition(
            ConditionType.PROGRAMMED,
            "A name or an address of `spec.upstreams` is not possible here, and is neither asked for, "
            "probed nor published: the allow-list does not cover it, or it is one of the cluster's own.",
            "Correct `spec.upstreams`, or ask an administrator to extend the operator's flags "
            "`--allow-upstream-names` and `--allow-upstream-ranges`.",
        ),
        Reason.PENDING: _condition(
            ConditionType.HEALTHY, "The operator has not yet probed every endpoint."
        ),
        Reason.ALL_SERVING: _condition(ConditionType.HEALTHY, "Every endpoint is seen to serve."),
        Reason.ENDPOINTS_FAILING: _condition(
            ConditionType.HEALTHY,
            "Some endpoints do not serve; status.endpointList says which, and why.",
            "Look at the logs of the pods that status.endpointList names.",
        ),
        Reason.NO_ENDPOINTS: _condition(
            ConditionType.HEALTHY,
            "The Service has no endpoints: gateways answer every request with an error.",
            "Scale the workload up, or correct the selector of the Service.",
        ),
        Reason.FLOOR_REACHED: _condition(
            ConditionType.HEALTHY,
            "More endpoints fail than minHealthyPercent allows to eject, so failing ones stay listed.",
            "Repair the failing pods; the list must not be emptied.",
        ),
        Reason.PROBE_NEVER_SUCCEEDED: _condition(
            ConditionType.HEALTHY,
            "The probe has never succeeded on any pod of the Service, which says more about the "
            "probe than about the pods; nothing is ejected.",
            "Correct `spec.probe`, or let the operator through the NetworkPolicy.",
        ),
        Reason.PROBE_UNRESOLVED: _condition(
            ConditionType.HEALTHY,
            "How to probe the pods cannot be settled, for example because no container has the "
            "named target port.",
            "Set `spec.probe.port`, or name the port in the container.",
        ),
        Reason.WINDOW_OPEN: _condition(
            ConditionType.HEALTHY,
            "Requests fail though every endpoint is seen to serve: what is wrong lies between them and "
            "the users. The message names the window and its cause.",
            "Look at the window in status.windows; `upstream-guard explain CAUSE` says more.",
        ),
        Reason.NO_RISK: _condition(
            ConditionType.AT_RISK, "No risk is known that waits for the next change."
        ),
        Reason.DRAIN_NOT_ENFORCED: _condition(
            ConditionType.AT_RISK,
            "Pods stop before the gateways have forgotten them, and `spec.drain.mode` is not Enforce.",
            "Apply status.drain.patch to the workload, or set `spec.drain.mode: Enforce`.",
        ),
        Reason.DRAIN_TOO_SHORT: _condition(
            ConditionType.AT_RISK,
            "The preStop hook of the pods, or the limit in maxPreStop, is shorter than a gateway "
            "needs to forget an endpoint.",
            "Lengthen the hook, or raise `spec.drain.maxPreStop`.",
        ),
        Reason.PODS_WITHOUT_DRAIN: _condition(
            ConditionType.AT_RISK,
            "Some pods were made before the guard and have no preStop hook.",
            _ADOPT,
        ),
        Reason.SINGLE_ENDPOINT: _condition(
            ConditionType.AT_RISK,
            "The Service has a single endpoint: when it goes, nothing can take its place.",
            "Run at least two replicas.",
        ),
        Reason.WINDOWS_PREDICTED: _condition(
            ConditionType.AT_RISK,
            "By prediction, a change that will come (a rollout, a scale-in, a drain) fails requests, or "
            "something is wrong as it stands; status.risks says what and how to mend it.",
            "Apply the remedies in status.risks; `upstream-guard explain RISK` says more.",
        ),
        Reason.LAST_KNOWN_GOOD: _condition(
            ConditionType.AT_RISK,
            "DNS does not answer for an external upstream: its last known good addresses stay listed, and "
            "a change of address would not be followed.",
            "Repair DNS, or the name; status.upstreams says which.",
        ),
        Reason.CERTIFICATE_EXPIRES: _condition(
            ConditionType.AT_RISK,
            "The certificate of an external upstream ends soon: gateways that verify it will fail every "
            "request from then on.",
            "Renew the certificate; status.upstreams says which, and when it ends.",
        ),
        Reason.GUARD_ACCEPTED: _normal("The guard is valid and in force."),
        Reason.GUARD_NOT_ACCEPTED: _warning(
            "The guard cannot be put in force; the message says why.",
            "Do what the message says; nothing in the cluster was changed.",
        ),
        Reason.GUARD_RELEASED: _normal(
            "The guard no longer decides over these pods: their gates are open and readiness is the "
            "kubelet's alone."
        ),
        Reason.ENDPOINT_WAITING: _normal(
            "A new pod is not yet listed, because it was not yet seen to serve."
        ),
        Reason.ENDPOINT_ADMITTED: _normal("A new pod was seen to serve and is listed."),
        Reason.ADMITTED_UNSEEN: _warning(
            "A new pod was listed after admitTimeout though it was not seen to serve, because the "
            "operator may be the one that is blind.",
            "Check whether the operator can reach the pod and whether the probe is right.",
        ),
        Reason.ENDPOINT_KEPT_OUT: _warning(
            "A new pod refuses, resets or answers nonsense while others serve, and is kept out of "
            "the list.",
            "Look at the logs of the pod; if this is a rollout, consider rolling back.",
        ),
        Reason.ENDPOINT_EJECTED: _warning(
            "An endpoint stopped serving and was taken out of the list.",
            "Look at the logs of the pod; it is listed again as soon as it serves.",
        ),
        Reason.ENDPOINT_RESTORED: _normal("An ejected endpoint serves again and is listed."),
        Reason.EJECTION_FLOOR_REACHED: _warning(
            "A failing endpoint stays listed, because fewer than minHealthyPercent would remain.",
            "Repair the failing pods; the list must not be emptied.",
        ),
        Reason.OPERATOR_BLIND: _warning(
            "Every probe fails while the kubelet says that the pods are ready: nothing is ejected.",
            "Check NetworkPolicies between operator and pods, and the probe's protocol and path.",
        ),
        Reason.NODE_LOST: _warning(
            "A node is lost: nothing on it answers any more, or its kubelet does not follow the gate; the "
            "operator took its endpoints out and wrote `Ready=False` in the kubelet's place.",
            "Check the node; its endpoints are listed again as soon as they answer.",
        ),
        Reason.NODE_LEAVING: _normal(
            "A node goes away soon by a taint that it has, and enough endpoints serve elsewhere: this one "
            "was taken out ahead."
        ),
        Reason.ENDPOINT_STEPPED_ASIDE: _normal(
            "An old pod's preStop hook is shorter than the gateways need by now, so it was taken out before "
            "its successor was listed, for which the rollout deletes it."
        ),
        Reason.PODS_WITHOUT_GATE: _warning(
            "Pods made before the guard have no readiness gate and are only observed.", _ADOPT
        ),
        Reason.DRAIN_RECOMMENDED: _normal(
            "The pods should keep serving for longer when they stop; status.drain.patch has the patch.",
            "Apply the patch, or set `spec.drain.mode: Enforce`.",
        ),
        Reason.PRE_STOP_TOO_SHORT: _warning(
            "A pod has a preStop hook of its own, which is kept, and which is shorter than the "
            "gateways need.",
            "Lengthen the hook to the number in the message.",
        ),
        Reason.SLEEP_NOT_SUPPORTED: _warning(
            "This cluster is older than Kubernetes 1.30 and has no `sleep` hook; none was added.",
            "Upgrade the cluster, or give the containers a preStop hook of their own.",
        ),
        Reason.APP_IGNORES_SIGTERM: _warning(
            "The pods do not end on SIGTERM and are killed at the end of their grace period: requests in "
            "flight fail then, and every rollout waits for it.",
            "Handle SIGTERM in the app; status.drain.app says what was seen.",
        ),
        Reason.APP_ENDS_AT_ONCE: _normal(
            "The pods end within a second of SIGTERM; what they were still answering then is lost unless "
            "the preStop hook outlasts it.",
            "Let the app finish its requests on SIGTERM where they may take longer than the hook.",
        ),
        Reason.APP_DRAINS: _normal(
            "The pods take some time to end after SIGTERM; `gracePeriod: Auto` leaves them that time."
        ),
        Reason.REPLICA_ADDED: _normal(
            "`drain.surgeBeforeEvict`: a Deployment gets one replica more, because a node is drained that has "
            "its last serving pod, or one that its PodDisruptionBudget does not let go."
        ),
        Reason.REPLICA_PUT_BACK: _normal(
            "The drain is over, and the Deployment has the replicas again that it had before."
        ),
        Reason.SURGE_SKIPPED: _warning(
            "`drain.surgeBeforeEvict`: no replica is added for a drain, or the one that was is left to "
            "somebody else; the message says why.",
            "Do what the message says, or move the pod by hand before the drain.",
        ),
        Reason.STANDBY_RELEASED: _warning(
            "No controller renewed the Lease for 30 s, so the standby opened the gates of pods whose "
            "containers are ready.",
            "Check the operator's pods; guarding resumes when a controller is back.",
        ),
        Reason.WINDOW_PREDICTED: _warning(
            "A change has begun that will fail requests, by prediction; the message says how many, when "
            "and why. Told before the window opens where that is possible; status.predictions has all.",
            "Run the command in the message; where the change can wait, undo it first.",
        ),
        Reason.UPSTREAM_UNRESOLVED: _warning(
            "DNS does not answer for an external upstream, or says that there is nothing; its last known "
            "good addresses stay listed.",
            "Repair DNS, or the name; the addresses are followed again by themselves.",
        ),
        Reason.UPSTREAM_RESOLVED: _normal("DNS answers again for an external upstream."),
        Reason.UPSTREAM_REFUSED: _warning(
            "A name or an address of an external upstream is not possible here; the message says why.",
            "Correct `spec.upstreams`, or ask an administrator to extend the operator's allow-list.",
        ),
        Reason.CERTIFICATE_EXPIRING: _warning(
            "The certificate of an external upstream ends within `tls.warnBefore`.",
            "Renew it.",
        ),
        Reason.WINDOW_OPENED: _warning(
            "Requests through a gateway fail, or must fail by what direct probes see; the message says why, "
            "where and since when. One event for each window; status.windows has all that is known.",
            "`upstream-guard explain CAUSE` says what leads to the cause and what helps.",
        ),
        Reason.WINDOW_CLOSED: _normal(
            "Requests are answered again. The message says how long they were not, how many were lost and "
            "how that is known, why, and whether it had been predicted."
        ),
        Reason.FAILURES_HIDDEN: _normal(
            "A gateway tried again, or sent requests elsewhere, so that no user saw a failure that there "
            "was. Told once in five minutes for a gateway.",
        ),
        Reason.RISKS_FOUND: _warning(
            "Something waits for the next change to fail requests. Told once, and again only when "
            "another risk joins; status.risks has all.",
            "Apply the remedies in status.risks before the next change.",
        ),
    }
)
"""What each reason means."""
