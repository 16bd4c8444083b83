"""How each built-in gateway shows a cause to clients, as tables for people."""

import re
from collections.abc import Iterable
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.gateway import Answer
from upstream_guard.core.tuning import Evidence
from upstream_guard.gateways import PROFILES

_MARKER: Final = re.compile(r"^<!-- gateways: ([a-z-]+) -->$", re.MULTILINE)


def answers_table(cause: Cause) -> str:
    """A Markdown table of what clients and logs see of `cause`, gateways of one answer in one row."""
    gateways: dict[Answer, list[str]] = {}
    silent: list[str] = []
    for name, profile in sorted(PROFILES.items()):
        if not profile.behaviour.answers:
            continue
        answer = profile.behaviour.answers.get(cause)
        if answer is None:
            silent.append(name)
        else:
            gateways.setdefault(answer, []).append(name)
    rows = [(", ".join(names), *answer_cells(answer)) for answer, names in gateways.items()]
    if silent:
        rows.append((", ".join(silent), "?", "not known", ""))
    return "\n".join(_table(("gateway", "status", "in its words", "certain"), rows))


def answer_cells(answer: Answer) -> tuple[str, str, str]:
    """(status, words, whether it was measured or read in the code)."""
    words = answer.note
    if answer.retried:
        words = "; ".join(filter(None, (words, "it tries again first")))
    return (
        str(answer.status) if answer.status else "none",
        words,
        "yes" if answer.evidence is Evidence.BUILTIN else "no",
    )


def fill(text: str) -> str:
    """Put the table of a cause in the place of each line `<!-- gateways: CAUSE -->`.

    Raises:
        ValueError: A line names a cause that does not exist.
    """
    return _MARKER.sub(lambda found: answers_table(Cause(found[1])), text)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]
