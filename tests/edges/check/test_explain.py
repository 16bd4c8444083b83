"""`upstream-guard explain`."""

import importlib
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from upstream_guard import cli
from upstream_guard.cli.explain import command
from upstream_guard.cli.next_steps import UNFORESEEN
from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.risks import RISKS

RULES = Path(__file__).parents[3] / "operator/upstream_guard/core/predict/rules"


def explain(*args: str) -> Result:
    return CliRunner().invoke(command, args)


@pytest.mark.parametrize("risk", RISKS)
def test_every_finding_has_its_page(risk: str) -> None:
    result = explain(risk)
    assert result.exit_code == 0
    assert result.stdout.startswith("# ")
    assert "<!-- gateways" not in result.stdout


def test_what_gateways_answer_is_filled_in() -> None:
    assert "| 503 |" in explain("no-pre-stop").stdout


def test_all_are_listed() -> None:
    lines = explain().stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(RISKS)


@pytest.mark.parametrize("cause", [c for c in Cause if c not in RISKS])
def test_a_cause_lists_what_leads_to_it(cause: Cause) -> None:
    result = explain(cause)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"# {cause}\n")
    assert "| gateway | status |" in result.stdout
    leading = [risk for risk, info in RISKS.items() if info.cause is cause]
    assert all(f"`{risk}`" in result.stdout for risk in leading)


@pytest.mark.parametrize("name", [*RISKS, *(c for c in Cause if c not in RISKS)])
def test_a_page_ends_with_commands_that_exist(name: str) -> None:
    steps = explain(name).stdout.split("\n## What to do next\n```sh\n")[1].removesuffix("```\n")
    lines = steps.splitlines()
    assert len(lines) >= 3
    for line in lines:
        command, _, what = line.partition("  # ")
        assert what
        assert command.strip() != f"upstream-guard explain {name}"
        words = shlex.split(command)
        if words[0] == "upstream-guard":
            module = importlib.import_module(cli.COMMANDS[words[1]])
            known = {o for p in module.command.params for o in p.opts}
            assert {w for w in words if w.startswith("-")} <= known
            if words[1] == "explain":
                assert words[2] in {*RISKS, *Cause, "window"}


def test_only_what_check_finds_is_to_be_checked() -> None:
    rules = "".join(path.read_text() for path in RULES.glob("*.py"))
    assert {risk for risk in RISKS if f'"{risk}"' not in rules} == UNFORESEEN
    assert "check manifests/" not in explain("crash").stdout


def test_an_unknown_one_is_told_with_near_ones() -> None:
    result = explain("no-prestop")
    assert result.exit_code == 2
    assert "no-pre-stop" in result.stderr
    assert explain("qqqq").exit_code == 2
