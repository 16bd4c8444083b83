"""Edits of a user's YAML: only what must change changes."""

import copy
import difflib

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from upstream_guard.cli.check.documents import read_documents
from upstream_guard.cli.check.surgery import SurgeryError, append_document, edit_documents
from upstream_guard.cli.check.writing import _Dumper

TEXT = """\
# The shop.
---
apiVersion: apps/v1   # first
kind: Deployment
metadata: {name: shop,   labels: {a: "b"}}
spec:
    replicas: 2  # two

    strategy:
        type: Recreate
    template:
        spec:
            # Its containers.
            containers:
            -   name: web
                image: 'web:1'
                args: ["a",
                       "b"]

                # The end of web.
            -   name: side
                command:
                - sh
                - -c
                - |
                  echo one

                  echo two


            terminationGracePeriodSeconds:   30
            nodeSelector:
---

kind: Service
"""


def value_of(text: str, number: int = 0) -> dict[str, object]:
    return copy.deepcopy(list(read_documents(text, []))[number].value)


def pod(value: dict[str, object]) -> dict[str, object]:
    return value["spec"]["template"]["spec"]


def changes(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[:3] not in {"---", "+++"} and line[:2] != "@@"]


def test_a_field_is_added_behind_the_others() -> None:
    wanted = value_of(TEXT)
    pod(wanted)["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/", "port": 80}}
    pod(wanted)["containers"][1]["lifecycle"] = {"preStop": {"sleep": {"seconds": 2}}}
    after = edit_documents(TEXT, {0: wanted})
    assert changes(TEXT, after) == [
        "+                readinessProbe:",
        "+                  httpGet:",
        "+                    path: /",
        "+                    port: 80",
        "+                lifecycle:",
        "+                  preStop:",
        "+                    sleep:",
        "+                      seconds: 2",
    ]
    assert after.index("readinessProbe") < after.index("# The end of web")
    assert after.index("echo two") < after.index("lifecycle") < after.index("terminationGrace")


def test_scalars_are_replaced_where_they_stand() -> None:
    wanted = value_of(TEXT)
    wanted["spec"]["replicas"] = 3
    pod(wanted)["terminationGracePeriodSeconds"] = 60
    pod(wanted)["nodeSelector"] = {"a": "b"}
    wanted["metadata"]["labels"]["c"] = "d"
    assert changes(TEXT, edit_documents(TEXT, {0: wanted})) == [
        '-metadata: {name: shop,   labels: {a: "b"}}',
        "+metadata: {name: shop, labels: {a: b, c: d}}",
        "-    replicas: 2  # two",
        "+    replicas: 3  # two",
        "-            terminationGracePeriodSeconds:   30",
        "-            nodeSelector:",
        "+            terminationGracePeriodSeconds:   60",
        "+            nodeSelector: {a: b}",
    ]


def test_fields_are_removed_and_list_entries_added() -> None:
    wanted = value_of(TEXT)
    del pod(wanted)["nodeSelector"]
    del pod(wanted)["containers"][1]["command"]
    pod(wanted)["containers"].append({"name": "new", "image": "new:1"})
    after = edit_documents(TEXT, {0: wanted})
    assert value_of(after) == wanted
    assert "            - name: new\n              image: new:1\n" in after
    assert "# The end of web." in after


def test_several_documents_at_once() -> None:
    first, second = value_of(TEXT), value_of(TEXT, 1)
    first["spec"]["replicas"] = 4
    second["metadata"] = {"name": "shop"}
    after = edit_documents(TEXT, {0: first, 1: second})
    assert [d.value for d in read_documents(after, [])] == [first, second]


def test_lists_are_indented_as_those_that_are_there() -> None:
    for text in ("a:\n  - 1\n", "a:\n- 1\n"):
        after = edit_documents(text, {0: {"a": [1], "b": [2]}})
        assert after == text + text.replace("a", "b").replace("1", "2")


def test_line_ends_are_kept() -> None:
    text = "a: 1\r\nb:\r\n  c: 2"
    after = edit_documents(text, {0: {"a": 1, "b": {"c": 2, "d": [3]}}})
    assert after == "a: 1\r\nb:\r\n  c: 2\r\n  d:\r\n  - 3\r\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: &x {k: 1}\nb: *x\n", {"a": {"k": 1}, "b": {"k": 2}}),
        ("a: &x\n  k: 1\nb: *x\n", {"a": {"k": 2}, "b": {"k": 1}}),
        ("a: &x {k: 1}\nb:\n  <<: *x\n", {"a": {"k": 1}, "b": {"k": 2}}),
        ("a: {b: 1,\n  c: 2}\n", {"a": {"b": 1, "c": 3}}),
        ("a: |\n  text\n", {"a": "other"}),
        ("a:\n- 1\n- 2\n", {"a": [1]}),
        ("a:\n  b: 1\n", {"a": {}}),
        ("a: 1\n---\nb: [\n", {"a": 2}),
        ("{" * 5000, {}),
    ],
)
def test_what_cannot_be_done_cleanly_is_refused(text: str, wanted: object) -> None:
    with pytest.raises(SurgeryError):
        edit_documents(text, {0: wanted})


def test_a_document_is_appended() -> None:
    assert append_document("a: 1", {"b": 2}) == "a: 1\n---\nb: 2\n"


numbers = st.integers(-(2**63), 2**63 - 1)  # what the API has; larger ones are read as fractions
scalars = st.none() | st.booleans() | numbers | st.text(max_size=12)
objects = st.recursive(
    st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), scalars, min_size=1, max_size=4),
    lambda inner: st.dictionaries(
        st.text("abcxyz", min_size=1, max_size=4),
        scalars | inner | st.lists(inner | scalars, max_size=3),
        max_size=4,
    ),
    max_leaves=10,
)


@given(
    before=objects,
    after=objects,
    indent=st.sampled_from([2, 4]),
    flow=st.sampled_from([None, False]),
)
def test_an_edit_says_what_is_wanted_or_is_refused(
    before: object, after: object, indent: int, flow: bool | None
) -> None:
    text = yaml.dump(before, Dumper=_Dumper, indent=indent, default_flow_style=flow)
    try:
        edited = edit_documents(text, {0: after})
    except SurgeryError:
        return
    assert value_of(edited) == after


def _added(value: object, path: list[int]) -> object:
    """The value with a new field in one of its mappings."""
    if isinstance(value, dict):
        inner = [k for k, v in value.items() if isinstance(v, dict) and v]
        if path and inner:
            key = inner[path[0] % len(inner)]
            return {**value, key: _added(value[key], path[1:])}
        return {**value, "added": {"deep": [1, {"k": "v"}]}}
    return value


@given(before=objects, path=st.lists(st.integers(0, 3), max_size=3), indent=st.sampled_from([2, 4]))
def test_a_new_field_in_block_style_never_touches_a_line(
    before: dict[str, object], path: list[int], indent: int
) -> None:
    assume(before)
    text = yaml.dump(before, Dumper=_Dumper, indent=indent, default_flow_style=False)
    wanted = _added(before, path)
    edited = edit_documents(text, {0: wanted})
    assert value_of(edited) == wanted
    assert not [line for line in changes(text, edited) if line.startswith("-")]
