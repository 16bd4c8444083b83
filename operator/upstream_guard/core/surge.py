"""`drain.surgeBeforeEvict`: one replica more before a node's drain takes the last pod that serves.

The operator cannot hold an eviction: only a PodDisruptionBudget can. With one that blocks, the drain waits,
the further replica starts elsewhere, and then the budget lets the old pod go. Without one, the drain may be
faster than the new pod, and that is said.

What was changed is remembered in the guard's status before anything is changed, so that it is put back
whatever happens to the operator meanwhile. A number that somebody else wrote since is left alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from upstream_guard.core.model import Pod
from upstream_guard.core.predict.play import disruptions_allowed
from upstream_guard.core.predict.state import Autoscaler, Budget

GITOPS_MANAGERS: Final = (
    "argocd",
    "kustomize-controller",
    "helm-controller",
    "fleet",
    "configsync",
    "rancher",
)
"""How field managers of tools begin or are called that put back what they wrote; matched as a part."""


@dataclass(frozen=True, slots=True)
class SurgeRecord:
    """A replica that was added, or is about to be.

    Attributes:
        workload: `deployment/shop`.
        node: Whose drain it is for.
        base: Replicas before; `base + 1` during.
        since: Unix seconds, whole.
        added: It is there.
    """

    workload: str
    node: str
    base: int
    since: float
    added: bool = False


class SurgeStep(StrEnum):
    """What is to be done next."""

    NONE = "none"
    REMEMBER = "remember"
    """Write the record; nothing is changed before it is there."""
    ADD = "add"
    """Scale from `base` to `base + 1`."""
    WAIT = "wait"
    """The further replica serves, or is to serve, while the drain goes on."""
    PUT_BACK = "put-back"
    """Scale from `base + 1` to `base`."""
    FORGET = "forget"
    """Drop the record: all is as before, or somebody else has taken over."""
    SKIP = "skip"
    """It would be wanted, and cannot help; the message says why."""


@dataclass(frozen=True, slots=True)
class SurgePlan:
    """A step, and the words for it."""

    step: SurgeStep
    record: SurgeRecord | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class SurgeView:
    """One Deployment behind a guarded Service, as far as a surge is concerned.

    Attributes:
        workload: `deployment/shop`; empty where the pods are no single Deployment's.
        replicas: Its `spec.replicas`; None where it is not known.
        pods: Its pods.
        draining: Nodes that are cordoned, or that go away soon.
        budgets: That select its pods.
        autoscalers: Of the namespace.
    """

    workload: str
    replicas: int | None
    pods: tuple[Pod, ...]
    draining: frozenset[str]
    budgets: tuple[Budget, ...] = ()
    autoscalers: tuple[Autoscaler, ...] = ()


def plan_surge(
    view: SurgeView, record: SurgeRecord | None, now: float, *, wanted: bool
) -> SurgePlan:
    """The next step.

    Args:
        view: How it looks now.
        record: What the guard's status remembers; None where it remembers nothing.
        now: Unix seconds.
        wanted: `spec.drain.surgeBeforeEvict`, of a guard in force.
    """
    if record is not None:
        return _go_on(view, record, going_on=wanted and bool(_endangered(view)))
    node = _node_in_need(view) if wanted else ""
    if not node or view.replicas is None:
        return SurgePlan(SurgeStep.NONE)
    reason = _why_not(view, view.replicas)
    if reason:
        return SurgePlan(SurgeStep.SKIP, None, reason)
    made = SurgeRecord(view.workload, node, view.replicas, float(int(now)))
    return SurgePlan(SurgeStep.REMEMBER, made, _announcement(view, made))


def gitops_manager(managers: Iterable[tuple[str, bool]]) -> str:
    """The GitOps tool that owns `spec.replicas` and would put it back; empty where none does.

    Args:
        managers: Each field manager of the Deployment, and whether it owns `spec.replicas`.
    """
    return next(
        (
            name
            for name, owns in managers
            if owns and any(tool in name.lower() for tool in GITOPS_MANAGERS)
        ),
        "",
    )


def _endangered(view: SurgeView) -> list[str]:
    """The nodes that are drained of its serving pods, once for each pod."""
    return sorted(p.node for p in _serving(view) if p.node in view.draining)


def _serving(view: SurgeView) -> list[Pod]:
    return [p for p in view.pods if p.ready and not p.terminating]


def _node_in_need(view: SurgeView) -> str:
    """A node that is being drained, and whose pods of this workload may not go just so."""
    endangered = _endangered(view)
    if not endangered or not view.replicas:
        return ""
    alone = len(endangered) == len(_serving(view))
    blocked = disruptions_allowed(view.budgets, view.replicas) == 0
    return endangered[0] if alone or blocked else ""


def _why_not(view: SurgeView, replicas: int) -> str:
    if any(scaler.target == view.workload for scaler in view.autoscalers):
        return (
            f"an HorizontalPodAutoscaler sets the replicas of {view.workload}, so none is added before the "
            "drain: raise its minReplicas to 2"
        )
    if disruptions_allowed(view.budgets, replicas + 1) == 0:
        names = ", ".join(sorted(b.ref.name for b in view.budgets))
        return (
            f"the PodDisruptionBudget {names} allows no eviction with one replica more either, so none is "
            "added before the drain: give it `minAvailable: 1` or `maxUnavailable: 1`"
        )
    return ""


def _announcement(view: SurgeView, record: SurgeRecord) -> str:
    words = (
        f"{record.workload} gets a replica more ({record.base + 1} for {record.base}) while node "
        f"{record.node} is drained, and {record.base} again after it"
    )
    if disruptions_allowed(view.budgets, record.base) > 0:
        words += (
            "; no PodDisruptionBudget holds the eviction until the new pod serves, so it may come first: "
            "add one with `minAvailable: 1`"
        )
    return words


def _go_on(view: SurgeView, record: SurgeRecord, *, going_on: bool) -> SurgePlan:
    same = view.workload == record.workload and view.replicas in {record.base, record.base + 1}
    if not same:
        return SurgePlan(
            SurgeStep.FORGET,
            record,
            f"{record.workload} was scaled or replaced by somebody else meanwhile; its replicas stay as they are",
        )
    added = view.replicas == record.base + 1
    if record.added and not added and going_on:
        words = "somebody set it back meanwhile, so that is left alone"
        return SurgePlan(SurgeStep.FORGET, record, f"{record.workload} had a replica more: {words}")
    if going_on:
        return SurgePlan(SurgeStep.WAIT if added else SurgeStep.ADD, record)
    if added:
        return SurgePlan(
            SurgeStep.PUT_BACK,
            record,
            f"no pod of {record.workload} is left on a node that is drained: {record.base} replicas again",
        )
    return SurgePlan(SurgeStep.FORGET, record)


def one_deployment(workloads: Sequence[str]) -> str:
    """The single Deployment among these `kind/name`; empty where there are others or none."""
    distinct = set(workloads)
    name = next(iter(distinct), "")
    return name if len(distinct) == 1 and name.startswith("deployment/") else ""
