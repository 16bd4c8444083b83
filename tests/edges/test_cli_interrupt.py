"""Ctrl-C ends every command with 130, whatever it is doing."""

from typing import NoReturn

import click
import pytest
from click.testing import CliRunner

from upstream_guard import cli
from upstream_guard.cli import explain_window
from upstream_guard.cli.check import command as check_command


def interrupt(*_args: object, **_kwargs: object) -> NoReturn:
    raise KeyboardInterrupt


def run(*args: str) -> int:
    result = CliRunner().invoke(cli.main, args)
    assert "Traceback" not in result.output
    return result.exit_code


@pytest.mark.parametrize("args", [("explain", "window"), ("explain", "window", "w-1", "-A")])
def test_while_a_window_is_read(monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]) -> None:
    monkeypatch.setattr(explain_window, "connected", interrupt)
    assert run(*args) == 130


def test_while_manifests_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_command, "read_all", interrupt)
    assert run("check", "-") == 130


def test_while_a_command_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", interrupt)
    assert run("status") == 130


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt, 130), (EOFError, 1)])
def test_at_a_prompt(
    monkeypatch: pytest.MonkeyPatch, raised: type[BaseException], code: int
) -> None:
    def ask(_text: str = "") -> NoReturn:
        raise raised

    @click.command()
    def asking() -> None:
        monkeypatch.setattr("click.termui.visible_prompt_func", ask)  # the runner has its own
        click.confirm("Remove?")

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: asking)
    assert run("uninstall") == code
