"""`upstream-guard explain`."""

import pytest
from click.testing import CliRunner, Result

from upstream_guard.cli.explain import command
from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.risks import RISKS


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
    leading = [risk for risk, info in RISKS.items() if info.cause is cause]
    assert all(risk in result.stdout for risk in leading)
    assert result.stdout.strip()


def test_an_unknown_one_is_told_with_near_ones() -> None:
    result = explain("no-prestop")
    assert result.exit_code == 2
    assert "no-pre-stop" in result.stderr
    assert explain("qqqq").exit_code == 2
