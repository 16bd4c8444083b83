"""docs/reference/ says what the code says."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from upstream_guard.core.reasons import REASONS, Reason

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_is_up_to_date(generator: ModuleType) -> None:
    assert generator.stale() == [], "run `make docs` and commit docs/reference"


def test_every_reason_is_documented(generator: ModuleType) -> None:
    assert set(REASONS) == set(Reason)
    page = generator.render()["events.md"]
    for reason, info in REASONS.items():
        assert f"`{reason}`" in page
        assert info.note.endswith(".")
        assert info.action == "" or info.action.endswith(".")


def test_every_field_is_documented(generator: ModuleType) -> None:
    rows = [line for line in generator.render()["crd.md"].splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for row in rows:
        meaning = row.rstrip(" |").rsplit("|", 1)[-1].strip()
        assert meaning, row
