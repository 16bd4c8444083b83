"""Findings that were there when the check was adopted: a file of fingerprints.

A fingerprint rests on the ID, the object and the field, never on line numbers or figures.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from upstream_guard.cli.check.report import Entry

VERSION: Final = 1


class BaselineError(Exception):
    """The file cannot be used; the message says why and what to do."""


def read(path: Path) -> Mapping[str, str]:
    """Identity by fingerprint.

    Raises:
        BaselineError: It cannot be read, or is no baseline.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise BaselineError(
            f"{path}: {error.strerror or error}; --write-baseline {path} makes it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"{path}: not JSON: {error}") from error
    findings = document.get("findings") if isinstance(document, dict) else None
    if not isinstance(findings, dict) or document.get("version") != VERSION:
        raise BaselineError(f"{path}: not a baseline of version {VERSION}; write a new one")
    return findings


def write(path: Path, entries: Iterable[Entry]) -> int:
    """Write the fingerprints of all findings that are not suppressed.

    Returns:
        How many.

    Raises:
        BaselineError: It cannot be written.
    """
    findings = {e.fingerprint: e.identity for e in entries if not e.suppressed}
    ordered = dict(sorted(findings.items(), key=lambda item: item[1]))
    text = json.dumps({"version": VERSION, "findings": ordered}, indent=2)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise BaselineError(f"{path}: {error.strerror or error}") from error
    return len(findings)
