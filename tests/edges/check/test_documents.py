"""Text to values with positions: what Kubernetes would understand, and nothing that hurts."""

import json
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from upstream_guard.cli.check import documents
from upstream_guard.cli.check.documents import (
    Flaw,
    decode,
    line_and_column,
    locate,
    read_documents,
    steps_of,
)
from upstream_guard.cli.check.writing import block, flow


def read(text: str) -> tuple[list[object], list[Flaw]]:
    flaws: list[Flaw] = []
    return [d.value for d in read_documents(text, flaws)], flaws


def one(text: str) -> object:
    values, flaws = read(text)
    assert not flaws
    assert len(values) == 1
    return values[0]


def where(text: str, path: str) -> tuple[int, int]:
    document = next(read_documents(text, []))
    return line_and_column(locate(document.place, path))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8080", 8080),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("-1_000", -1000),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("~", None),
        ("", None),
        ("yes", True),
        ("Off", False),
        ("22:22", "22:22"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("089", 89.0),
        ('"8080"', "8080"),
        ("'yes'", "yes"),
        ("!!str 8080", "8080"),
        ("!!int 8080", 8080),
        ("99999999999999999999", 1e20),
        ("+", "+"),
        ("0x", "0x"),
    ],
)
def test_scalars_mean_what_they_mean_to_kubernetes(text: str, value: object) -> None:
    found = one(f"a: {text}\n")
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_names_of_fields_are_text_as_written() -> None:
    assert one("1: a\non: b\n~: c\n") == {"1": "a", "on": "b", "~": "c"}


PLACES = """\
# comment
apiVersion: apps/v1
spec:
  template:
    spec:
      containers:
        - name: web
          readinessProbe:
            httpGet: {path: /, port: 80}
        - name: side
metadata:
  annotations:
    a.b/c: x
"""


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        ("spec.template.spec.containers[0].readinessProbe", 8, 11),
        ("spec.template.spec.containers[0].readinessProbe.httpGet.port", 9, 32),
        ("spec.template.spec.containers[1].readinessProbe", 10, 11),
        ("spec.template.spec.containers[7].name", 6, 7),
        ("spec.replicas", 3, 1),
        ('metadata.annotations["a.b/c"]', 13, 5),
        ("nothing", 2, 1),
    ],
)
def test_a_path_leads_to_its_line_or_to_the_deepest_field_above(
    path: str, line: int, column: int
) -> None:
    assert where(PLACES, path) == (line, column)


def test_lines_count_from_the_beginning_of_the_file() -> None:
    text = "---\na: 1\n---\n\nb:\n  c: 1\n"
    documents_ = list(read_documents(text, []))
    assert line_and_column(locate(documents_[1].place, "b.c")) == (6, 3)


def test_steps() -> None:
    assert steps_of('a.b[0]["c.d/e"].f') == ["a", "b", "0", "c.d/e", "f"]


def test_anchors_and_merge_keys() -> None:
    text = (
        "base: &b {x: 1, y: 2}\nz:\n  <<: *b\n  y: 3\nl:\n  <<: [*b, {w: 4}]\nquoted: {'<<': 1}\n"
    )
    value = one(text)
    assert value["z"] == {"x": 1, "y": 3}
    assert value["l"] == {"x": 1, "y": 2, "w": 4}
    assert value["quoted"] == {"<<": 1}
    assert where(text, "z.x")[0] == 1
    assert where(text, "z.y")[0] == 4


def test_json_with_tabs_surrogates_and_long_names() -> None:
    value = {"a": [1, {"b": None}], "smile": "\U0001f600", "k" * 2000: True}
    assert one(json.dumps(value, indent="\t")) == value


def test_duplicate_fields_are_told_and_the_last_counts() -> None:
    values, flaws = read("a: 1\nb: 2\na: 3\n")
    assert values == [{"a": 3, "b": 2}]
    assert [(f.line, f.column, f.fatal) for f in flaws] == [(3, 1, False)]
    assert "'a'" in flaws[0].text


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: [1,\nc: 2\n", 4, 1, "flow sequence, line 2, column 4"),
        ("a: 1\nb: c: d\n", 2, 5, "mapping values"),
        ("a:\n\tb: 1\n", 2, 1, "tabs"),
        ("a: *x\n", 1, 4, "no &x above"),
        ("a: &x [*x]\n", 1, 8, "stands in what it repeats"),
        ("? [a]\n: 1\n", 1, 3, "must be text"),
        ("a: 1\n<<: 3\n", 2, 1, "takes a mapping"),
        ("a: 1\nb: \x07\n", 2, 4, "control character 0x07"),
        ("a: {{ .Values.x }}b\n", 1, 0, "helm template"),
        ("a: " + "[" * 500, 1, 103, "100 deep"),
    ],
)
def test_mistakes_are_named_with_line_and_column(
    text: str, line: int, column: int, words: str
) -> None:
    values, flaws = read(text)
    assert values == []
    assert len(flaws) == 1
    assert flaws[0].fatal
    assert flaws[0].line == line
    assert column in {0, flaws[0].column}
    assert words in flaws[0].text


def test_documents_after_a_broken_one_are_read() -> None:
    values, flaws = read("a: 1\n---\nb: [\n---\nc: 3\n---\nd: {\n---\ne: 5\n")
    assert values == [{"a": 1}, {"c": 3}, {"e": 5}]
    assert len(flaws) == 2
    document = next(read_documents("a: [\n---\nc:\n  d: 1\n", []))
    assert line_and_column(locate(document.place, "c.d")) == (4, 3)


def test_a_text_of_nothing_but_mistakes_ends() -> None:
    values, flaws = read("---\na: [\n" * 1000)
    assert values == []
    assert 1 < len(flaws) <= documents.MAX_BROKEN + 1


def test_tags_are_noted_and_their_values_kept_as_they_stand() -> None:
    document = next(read_documents("a: !!python/object/apply:os.system ['x']\nb: !Ref c\n", []))
    assert document.value == {"a": ["x"], "b": "c"}
    assert [(tag, line) for tag, line, _ in document.refused] == [
        ("!!python/object/apply:os.system", 1),
        ("!Ref", 2),
    ]


@pytest.mark.parametrize(
    ("raw", "words"),
    [(b"a: \xff\n", "line 1 is not UTF-8"), (b"a\nb: \xc3(\n", "line 2"), (b"a\0b", "NUL")],
)
def test_what_is_no_text_is_named(raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode(raw)


def test_other_encodings_that_say_so_are_read() -> None:
    assert decode("\ufeffa: é".encode()) == "a: é"
    assert decode("a: é".encode("utf-16")) == "a: é"


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(9),
        "x: &a {"
        + ", ".join(f"k{n}: 1" for n in range(5000))
        + "}\n"
        + "".join(f"y{n}: {{<<: *a}}\n" for n in range(1000)),
        "[" * 1_000_000,
        "- " * 1_000_000,
        "{a: " * 200_000,
        "? " * 100_000,
        "[" + "1," * 4_000_000,
        "a: " + "'" * 3_000_000,
        "&a " * 100_000,
        "!" * 100_000,
        "a: |\n" + " x\n" * 2_000_000,
        "- - a\n" * 300_000,
        "---\n" * 1_000_000,
        "\n" * 5_000_000,
        "a:\n" + "\t" * 1_000_000,
        "%" * 1_000_000,
        "x" * (documents.MAX_DOCUMENT + 1),
    ],
    ids=lambda text: f"{text[:12]!r}x{len(text)}",
)
def test_hostile_texts_cost_bounded_time(text: str) -> None:
    begin = time.process_time()
    read(text)
    assert time.process_time() - begin < 30


def test_ten_megabytes_are_read() -> None:
    items = "".join(
        f"- apiVersion: v1\n  kind: ConfigMap\n  metadata: {{name: c{n}}}\n  data: {{k: {'v' * 200}}}\n"
        for n in range(37_000)
    )
    text = f"apiVersion: v1\nkind: List\nitems:\n{items}"
    assert 10_000_000 < len(text) < documents.MAX_DOCUMENT
    assert len(one(text)["items"]) == 37_000


scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(value=values)
def test_what_a_writer_writes_is_read_back(value: object) -> None:
    assert one(block(value)) == value
    assert one(flow(value)) == value


@given(value=values)
def test_json_is_read_as_json(value: object) -> None:
    for ascii_ in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_)
        assume(not set(text) & set("\x85\u2028\u2029"))  # line ends to YAML, text to JSON
        if isinstance(value, dict | list):
            assert one(text) == json.loads(text)


yamlish = st.text(alphabet="ab:-[]{}&*!|>'\"#%@`?,.~ \n\t\\0<1", max_size=200)


@given(text=yamlish | st.text(max_size=200))
def test_any_text_gives_values_or_flaws_with_places(text: str) -> None:
    flaws: list[Flaw] = []
    for document in read_documents(text, flaws):
        json.dumps(document.value)
        assert line_and_column(document.place)[0] >= 1
    for flaw in flaws:
        assert flaw.line >= 1
        assert flaw.column >= 1
        assert flaw.text


@given(raw=st.binary(max_size=300))
def test_any_bytes_are_text_or_refused(raw: bytes) -> None:
    try:
        text = decode(raw)
    except ValueError:
        return
    list(read_documents(text, []))
