"""Each risk has a page that says what it is, how it looks, how to see it, how to fix it."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from upstream_guard import cli
from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.core.predict.rules.policy import NAMESPACE_LABEL
from upstream_guard.core.predict.state import Refused
from upstream_guard.gateways import PROFILES
from upstream_guard.gateways.answers import answers_table, fill
from upstream_guard.resources.manifests import parse

SECTIONS = ["What it is", "How it looks", "How to see it", "How to fix it", "When to suppress it"]
FOLDER = Path(__file__).parents[2] / "operator/upstream_guard/pages"
NOT_AT_THE_GATEWAY = {"gateway-restart", "policy-blocks-operator"}
"""Here no gateway answers: the one is down, the other is not affected."""


def text(risk: str) -> str:
    return (FOLDER / f"{risk}.md").read_text()


def section(risk: str, title: str) -> str:
    return text(risk).split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def blocks(risk: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(risk), re.MULTILINE | re.DOTALL)


def documents(risk: str) -> Iterator[dict[str, Any]]:
    for block in blocks(risk, "yaml"):
        yield from yaml.safe_load_all(block)


def commands(risk: str) -> Iterator[list[str]]:
    """Each command of the page, those of a pipe by themselves."""
    for block in blocks(risk, "sh"):
        for line in block.splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|<")
            lexer.whitespace_split = True
            command: list[str] = []
            for word in [*lexer, "|"]:
                if word != "|":
                    command.append(word)
                elif command:
                    yield command[1:] if command[0] == "time" else command
                    command = []


def test_every_risk_has_a_page_and_every_page_a_risk() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == set(RISKS)


@pytest.mark.parametrize("risk", RISKS)
def test_a_page_has_its_title_and_its_sections(risk: str) -> None:
    assert text(risk).splitlines()[0] == f"# {RISKS[risk].title}"
    assert re.findall(r"^## (.*)$", text(risk), re.MULTILINE) == SECTIONS
    for title in SECTIONS:
        assert len(section(risk, title).split()) >= 10, title
    assert 25 <= len(text(risk).splitlines()) <= 75
    assert blocks(risk, "yaml")
    assert "```sh\n" in section(risk, "How to see it")
    assert "```yaml\n" in section(risk, "How to fix it")


@pytest.mark.parametrize("risk", RISKS)
def test_a_page_shows_what_gateways_answer_to_its_cause(risk: str) -> None:
    markers = re.findall(r"^<!-- gateways: (\S+) -->$", section(risk, "How it looks"), re.MULTILINE)
    assert markers == ([] if risk in NOT_AT_THE_GATEWAY else [RISKS[risk].cause.value])
    shown = fill(text(risk))
    assert "<!--" not in shown
    if markers:
        assert answers_table(RISKS[risk].cause) in shown


@pytest.mark.parametrize("risk", RISKS)
def test_the_source_of_the_fact_is_named(risk: str) -> None:
    source = RISKS[risk].source
    first = re.split(r"[:;]", source.removeprefix("Kubernetes, "))[0].split(",")[0]
    what = " ".join(section(risk, "What it is").replace("*", "").split())
    assert first.removesuffix(" specification").lower() in what.lower()


@pytest.mark.parametrize("risk", RISKS)
def test_a_page_suppresses_its_own_risk_and_gives_a_reason(risk: str) -> None:
    advice = " ".join(section(risk, "When to suppress it").split())
    found = re.findall(r'`upstreamguard\.io/ignore: "([a-z-]+): ([^";]+)"`', advice)
    assert [name for name, _ in found] == [risk]


@pytest.mark.parametrize("risk", RISKS)
def test_yaml_is_an_object_or_a_part_of_a_workload(risk: str) -> None:
    for document in documents(risk):
        if "kind" in document:
            assert "apiVersion" in document
            assert document["kind"] == "KubeletConfiguration" or document["metadata"]["name"]
        else:
            assert document["spec"]["template"].keys() <= {"metadata", "spec"}


@pytest.mark.parametrize("risk", RISKS)
def test_guards_and_profiles_in_yaml_are_valid(risk: str) -> None:
    for document in documents(risk):
        if document.get("kind") in {"UpstreamGuard", "GatewayProfile"}:
            assert parse(document) is not None
            assert not isinstance(parse(document), Refused)


@pytest.mark.parametrize("risk", RISKS)
def test_hooks_fit_into_their_grace_period(risk: str) -> None:
    for document in documents(risk):
        template = (document.get("spec") or {}).get("template") or {}
        pod = template.get("spec") or {}
        for container in pod.get("containers", ()):
            hook = container.get("lifecycle", {}).get("preStop", {}).get("sleep")
            if hook:
                assert pod["terminationGracePeriodSeconds"] > hook["seconds"]


@pytest.mark.parametrize("risk", RISKS)
def test_selectors_in_yaml_match_and_ports_exist(risk: str) -> None:
    """A page that shows a workload and its Service shows two that go together."""
    parts = list(documents(risk))
    services = [d for d in parts if d.get("kind") == "Service" and "selector" in d["spec"]]
    templates = [d["spec"]["template"] for d in parts if "template" in d.get("spec", {})]
    for service in services:
        for template in templates:
            labels = template.get("metadata", {}).get("labels")
            assert labels is None or service["spec"]["selector"].items() <= labels.items()
            containers = template.get("spec", {}).get("containers", ())
            names = {p["name"] for c in containers for p in c.get("ports", ())}
            for port in service["spec"]["ports"]:
                assert not names or port["targetPort"] in names


def test_commands_are_read() -> None:
    assert ["kubectl", "get", "nodes"] in list(commands("one-node"))
    assert ["base64", "-d"] in list(commands("certificate-expiry"))


@cache
def kubectl_flags(*words: str) -> str:
    program = shutil.which("kubectl")
    assert program
    done = [
        subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)
        for words in ((*words, "--help"), ("options",))
    ]
    assert "Usage:" in done[0].stdout, words
    return done[0].stdout + done[1].stdout


NESTED = {"rollout", "create"}


def flags_of(words: list[str]) -> Iterator[str]:
    """The flags of a command line, without what follows `--`."""
    for word in words[: words.index("--") if "--" in words else None]:
        if word.startswith("-") and word != "-":
            yield word.partition("=")[0]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on this machine")
@pytest.mark.parametrize("risk", RISKS)
def test_flags_of_kubectl_exist(risk: str) -> None:
    for command in commands(risk):
        if command[0] != "kubectl":
            continue
        words = command[3:] if command[1] in {"-n", "--namespace"} else command[1:]
        sub = words[: 2 if words[0] in NESTED else 1]
        known = kubectl_flags(*sub)
        for flag in flags_of(words):
            for name in [f"-{c}" for c in flag[1:]] if re.match(r"-[a-z]", flag) else [flag]:
                assert re.search(rf"^ +(-\w, )?{name}[=,]", known, re.MULTILINE), (command, name)


@pytest.mark.parametrize("risk", RISKS)
def test_own_commands_and_flags_exist(risk: str) -> None:
    for command in commands(risk):
        if command[0] != "upstream-guard":
            continue
        name = command[1]
        assert name in cli.COMMANDS
        built = cli.main.get_command(click.Context(cli.main), name)
        if built is not None:
            shown = CliRunner().invoke(built, ["--help"]).output
            assert all(re.search(rf"{flag}\b", shown) for flag in flags_of(command)), command


@pytest.mark.parametrize("cause", Cause)
def test_every_gateway_is_in_the_table_of_every_cause(cause: Cause) -> None:
    rows = answers_table(cause).splitlines()[2:]
    named = [name for row in rows for name in row.split("|")[1].strip().split(", ")]
    assert sorted(named) == sorted(n for n, p in PROFILES.items() if p.behaviour.answers)
    assert all(row.count("|") == 5 for row in rows)


def test_a_status_is_shown_as_it_is_known() -> None:
    table = answers_table(Cause.REFUSED)
    assert "| contour, envoy, envoy-gateway | 503 | `UF` | yes |" in table
    assert "| nginx | 502 | `connect() failed` | yes |" in table
    assert "| none | the client's connection is closed" in answers_table(Cause.KEEPALIVE_RACE)


def test_a_marker_names_a_cause() -> None:
    assert fill("a\n<!-- gateways: tls -->\nb") == f"a\n{answers_table(Cause.TLS)}\nb"
    with pytest.raises(ValueError, match="no-such"):
        fill("<!-- gateways: no-such -->")


def test_policies_name_namespaces_as_kubernetes_does() -> None:
    for risk in ("policy-blocks-gateway", "policy-blocks-operator"):
        assert NAMESPACE_LABEL in section(risk, "How to fix it")
