"""Applies remedies to manifests as a user would: by kubectl, which knows how each field is merged."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from upstream_guard.core.predict.score import LIKELY
from upstream_guard.core.predict.window import PatchKind, Remedy, Window
from upstream_guard.lab.demo.stage import kubectl
from upstream_guard.lab.model import Cluster

Json = dict[str, Any]
Ask = Callable[[Sequence[Json]], tuple[Window, ...]]
"""Predicts the case's change for these manifests."""

ROUNDS: Final = 6
"""A remedy may lay another window bare; so often it is asked again."""


@dataclass(frozen=True, slots=True)
class Mended:
    """Manifests with remedies applied.

    Attributes:
        written: The manifests.
        risks: Whose remedies were applied, in order.
        without: Announced windows that have no remedy: risk → why.
    """

    written: tuple[Json, ...]
    risks: tuple[str, ...]
    without: dict[str, str]


async def mend(cluster: Cluster, written: Sequence[Json], ask: Ask) -> Mended:
    """Apply the remedies of all windows told, unlikely ones too, until none is told that has a new one.

    Raises:
        LabError: kubectl refuses a patch.
    """
    risks: list[str] = []
    without: dict[str, str] = {}
    now = tuple(written)
    for _ in range(ROUNDS):
        told = ask(now)
        without |= {
            w.risk: w.no_remedy for w in told if w.remedy is None and w.probability >= LIKELY
        }
        new = {w.risk: w.remedy for w in told if w.remedy and w.risk not in risks}
        if not new:
            break
        for risk, remedy in new.items():
            now = await apply(cluster, now, remedy)
            risks.append(risk)
    return Mended(now, tuple(risks), without)


async def apply(cluster: Cluster, written: Iterable[Json], remedy: Remedy) -> tuple[Json, ...]:
    """The manifests with one remedy.

    Raises:
        LabError: kubectl refuses the patch.
    """
    known = tuple(written)
    if remedy.patch_kind is PatchKind.CREATE:
        return (*known, json.loads(json.dumps(remedy.patch)))
    return tuple([await _patched(cluster, item, remedy) for item in known])


async def _patched(cluster: Cluster, item: Json, remedy: Remedy) -> Json:
    meta = item["metadata"]
    named = (item["kind"], meta.get("namespace", ""), meta["name"])
    if named != (remedy.kind, remedy.ref.namespace, remedy.ref.name):
        return item
    text = await kubectl(
        cluster, "patch", "--local", "--filename=-", f"--type={remedy.patch_kind}",
        f"--patch={json.dumps(remedy.patch)}", "--output=json", stdin=json.dumps(item),
    )  # fmt: skip
    patched: Json = json.loads(text)
    return patched
