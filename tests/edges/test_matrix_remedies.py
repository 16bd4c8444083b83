"""Remedies on manifests: which are applied, when it ends, what is said of those that are none."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.predict.window import PatchKind, Remedy, Scope, Window
from upstream_guard.core.tuning import Evidence
from upstream_guard.lab.demo.matrix import remedies
from upstream_guard.lab.model import Cluster

Json = dict[str, Any]

ONE = Estimate.exactly(1.0, Evidence.BUILTIN)
REF = ObjectRef("shop", "web")
WRITTEN: tuple[Json, ...] = (
    {"kind": "Deployment", "metadata": {"namespace": "shop", "name": "web"}, "fixed": []},
    {"kind": "Service", "metadata": {"namespace": "shop", "name": "web"}, "fixed": []},
)
CLUSTER = cast("Cluster", None)


def window(risk: str, remedy: Remedy | None, probability: float = 1.0) -> Window:
    return Window(
        change=ChangeKind.ROLLOUT, cause=Cause.REFUSED, risk=risk, start=ONE, duration=ONE, share=1,
        lost=ONE, probability=probability, status=502, status_note="", scope=Scope.SERVICE,
        evidence=Evidence.BUILTIN, basis="", gateway="nginx", message="", remedy=remedy,
        no_remedy="" if remedy else f"{risk} has none",
    )  # fmt: skip


def fixes(word: str) -> Remedy:
    return Remedy("Deployment", REF, PatchKind.STRATEGIC, {"fixed": word}, "it helps")


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Stands in for `kubectl patch --local`: appends the word to the list."""
    calls: list[tuple[str, ...]] = []

    async def kubectl(cluster: Cluster, *args: str, stdin: str = "") -> str:
        calls.append(args)
        item = json.loads(stdin)
        patch = next(a for a in args if a.startswith("--patch="))
        item["fixed"].append(json.loads(patch.removeprefix("--patch="))["fixed"])
        return json.dumps(item)

    monkeypatch.setattr(remedies, "kubectl", kubectl)
    return calls


async def test_every_announced_window_gets_its_remedy_also_one_that_comes_to_light_later() -> None:
    def ask(written: Sequence[Json]) -> tuple[Window, ...]:
        fixed = written[0]["fixed"]
        open_ = [window("a", fixes("a"))] if "a" not in fixed else [window("c", fixes("c"))]
        if "b" not in fixed:
            open_.append(window("b", fixes("b")))
        return tuple(w for w in open_ if w.risk not in fixed)

    mended = await remedies.mend(CLUSTER, WRITTEN, ask)
    assert mended.risks == ("a", "b", "c")
    assert mended.written[0]["fixed"] == ["a", "b", "c"]
    assert mended.written[1] == WRITTEN[1], "only the object that the remedy names"
    assert WRITTEN[0]["fixed"] == [], "the manifests given are left alone"


async def test_no_remedy_twice_and_the_reason_where_there_is_none(
    patched: list[tuple[str, ...]],
) -> None:
    stubborn = (
        window("a", fixes("a")), window("b", None),
        window("c", fixes("c"), probability=0.4), window("d", None, probability=0.4),
    )  # fmt: skip
    mended = await remedies.mend(CLUSTER, WRITTEN, lambda _written: stubborn)
    assert mended.risks == ("a", "c"), "an unlikely window too"
    assert mended.without == {"b": "b has none"}, "of what was announced"
    assert len(patched) == 2
    assert patched[0][:4] == ("patch", "--local", "--filename=-", "--type=strategic")


async def test_a_whole_new_object_is_added() -> None:
    budget = {"kind": "PodDisruptionBudget", "metadata": {"namespace": "shop", "name": "web"}}
    remedy = replace(fixes("x"), patch_kind=PatchKind.CREATE, patch=budget)
    assert await remedies.apply(CLUSTER, WRITTEN, remedy) == (*WRITTEN, budget)
