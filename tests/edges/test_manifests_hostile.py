"""Whatever stands in a manifest, reading it neither fails nor takes long."""

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.predict.state import Workload
from upstream_guard.resources.manifests import PARSERS, mistakes_of, parse, read_world

DATA = Path(__file__).parents[1] / "data/manifests"
SAMPLES = [
    obj
    for name in ("app.yaml", "kinds.yaml")
    for obj in yaml.safe_load_all((DATA / name).read_text())
]
Steps = tuple[str | int, ...]


def paths_of(value: Any, above: Steps = ()) -> Iterator[Steps]:
    """Where something stands in a value."""
    entries: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    for key, part in entries:
        yield (*above, key)
        yield from paths_of(part, (*above, key))


PLACES = [(index, path) for index, obj in enumerate(SAMPLES) for path in paths_of(obj)]
KEYS = sorted({str(step) for _, path in PLACES for step in path if isinstance(step, str)})
OWN = {"UpstreamGuard", "GatewayProfile"}
KINDS = [kind for _, kind in PARSERS]
VERSIONS = sorted({obj["apiVersion"] for obj in SAMPLES})

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**31, 2**63])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*KEYS, *KINDS, "Always", "Recreate", "25%", "1e9", "10s", "TCP", "sleep 5"])
    | st.dates()
    | st.binary(max_size=3)
)
keys = st.sampled_from(KEYS) | st.text(max_size=5) | st.integers() | st.none() | st.booleans()
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=30,
)


def put(obj: Any, path: Steps, value: Any) -> None:
    """Set what stands at a path, if the path is still there."""
    for step in path[:-1]:
        try:
            obj = obj[step]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(obj, dict) or (
        isinstance(obj, list) and isinstance(path[-1], int) and path[-1] < len(obj)
    ):
        obj[path[-1]] = value


@given(st.lists(st.tuples(st.sampled_from(PLACES), junk), min_size=1, max_size=12), st.booleans())
def test_good_objects_with_bad_parts(
    changes: list[tuple[tuple[int, Steps], Any]], complete: bool
) -> None:
    objects = copy.deepcopy(SAMPLES)
    for (index, path), value in changes:
        put(objects[index], path, value)
    world = read_world(objects, complete=complete)
    touched = {index for (index, _), _ in changes}
    whole = {i for i in range(len(SAMPLES)) if i not in touched}
    kept = [parse(SAMPLES[i]) for i in sorted(whole)]
    known = {(w.kind, w.ref) for w in world.workloads}
    assert all((v.kind, v.ref) in known for v in kept if isinstance(v, Workload))


@given(
    st.lists(
        st.fixed_dictionaries(
            {"apiVersion": st.sampled_from(VERSIONS), "kind": st.sampled_from([*KINDS, "List"])},
            optional={
                "metadata": junk | st.fixed_dictionaries({"name": st.just("a")}),
                "spec": junk,
                "status": junk,
                "items": junk,
            },
        )
        | junk,
        max_size=5,
    ),
    st.booleans(),
)
def test_arbitrary_objects(objects: list[Any], complete: bool) -> None:
    world = read_world(objects, complete=complete)
    assert len(world.states) == len(world.services)
    for obj in objects:
        if isinstance(obj, dict):
            assert all(what.startswith("must be ") for _, what in mistakes_of(obj))


@pytest.mark.parametrize("index", range(len(SAMPLES)), ids=lambda i: str(SAMPLES[i]["kind"]))
def test_a_wrong_type_counts_as_absent(index: int) -> None:
    """NaN is the one value that no field takes."""
    for path in paths_of(SAMPLES[index]):
        # One unknown field makes a resource of ours invalid, as the API server has it.
        if isinstance(path[-1], int) or SAMPLES[index]["kind"] in OWN:
            continue
        wrong, absent = copy.deepcopy(SAMPLES[index]), copy.deepcopy(SAMPLES[index])
        put(wrong, path, float("nan"))
        holder: Any = absent
        for step in path[:-1]:
            holder = holder[step]
        del holder[path[-1]]
        assert parse(wrong) == parse(absent), path
        if path[0] in {"spec", "status"} and parse(wrong) != parse(SAMPLES[index]):
            assert [where for where, _ in mistakes_of(wrong)] == [written(path)]


def written(path: Steps) -> str:
    """`spec.ports[0].port`; the names of labels, resources and the like in brackets."""
    named = {"labels", "annotations", "selector", "matchLabels", "nodeSelector", "hard", "used"}
    text = ""
    for above, step in zip(("", *path), path, strict=False):
        free = above in named and step not in {"matchLabels", "matchExpressions"}
        text += f"[{step}]" if isinstance(step, int) else f'["{step}"]' if free else f".{step}"
    return text.removeprefix(".")


def test_what_is_right_has_no_mistakes() -> None:
    assert [list(mistakes_of(obj)) for obj in SAMPLES] == [[] for _ in SAMPLES]


def test_time_grows_with_the_number_of_objects_only() -> None:
    """A thousand apps in one namespace, each with everything: no look-up goes through all of them."""

    def took(count: int) -> float:
        objects = [renamed(obj, number) for number in range(count) for obj in SAMPLES[:6]]
        start = time.process_time()
        assert len(read_world(objects).states) == count
        return time.process_time() - start

    took(50)
    few, many = took(200), took(2000)
    assert many < 40 * few


def renamed(obj: dict[str, Any], number: int) -> dict[str, Any]:
    """The object with a name of its own wherever the app's stands."""
    again: dict[str, Any] = json.loads(json.dumps(obj).replace("shop", f"shop-{number}"))
    return again
