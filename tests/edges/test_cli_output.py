"""Output that cannot be written: one line on stderr and a failure, whichever the command."""

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec: {ports: [{port: 80}]}\n"

COMMANDS = [
    "check shop.yaml",
    "check -o json shop.yaml",
    "explain",
    "explain no-pre-stop",
    "--help",
]


def run(folder: Path, command: str, redirection: str) -> subprocess.CompletedProcess[str]:
    (folder / "shop.yaml").write_text(SERVICE)
    return subprocess.run(
        ["sh", "-c", f'"$0" -m upstream_guard.cli {command} {redirection}', sys.executable],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusals(stderr: str) -> list[str]:
    """Without what `check` notes of its input."""
    return [line for line in stderr.splitlines() if not line.startswith("note: ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_output_is_told(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, ">&-")
    assert done.returncode == 2
    assert refusals(done.stderr) == ["Error: the output cannot be written: Bad file descriptor"]


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_told(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, f">{FULL}")
    assert done.returncode == 2
    assert refusals(done.stderr) == ["Error: the output cannot be written: No space left on device"]


def test_what_writes_nothing_does_not_mind(tmp_path: Path) -> None:
    done = run(tmp_path, "status --kubeconfig none", ">&-")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: there is no kubeconfig at none: ")
