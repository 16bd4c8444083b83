"""Output formats: one file each, and a table of them. Imported only when used."""

import importlib
from collections.abc import Callable, Mapping
from typing import Final

from upstream_guard.cli.check.report import Look, Report

Render = Callable[[Report, Look], str]
"""The whole output, with a line end after its last line; empty where there is nothing to say."""

FORMATS: Final[Mapping[str, str]] = {
    "table": "upstream_guard.cli.check.formats.table",
    "json": "upstream_guard.cli.check.formats.as_json",
    "sarif": "upstream_guard.cli.check.formats.sarif",
    "github": "upstream_guard.cli.check.formats.github",
    "junit": "upstream_guard.cli.check.formats.junit",
}
"""Module by format."""


def renderer(name: str) -> Render:
    """The function that renders a format of `FORMATS`."""
    render: Render = importlib.import_module(FORMATS[name]).render
    return render
