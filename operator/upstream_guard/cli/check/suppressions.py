"""Findings that the object's owner has decided to live with, and says why."""

from collections.abc import Iterable, Mapping

from upstream_guard.cli.check.objects import IGNORE, Located, ObjectKey, Trouble
from upstream_guard.core.predict.risks import RISKS

Reasons = Mapping[tuple[ObjectKey, str], Mapping[str, str]]
"""By object and source: the reason by ID."""


def suppressions_of(objects: Iterable[Located], troubles: list[Trouble]) -> Reasons:
    """The reasons of every object that carries the annotation.

    Args:
        objects: All objects.
        troubles: Entries that are not honoured are told here.
    """
    found: dict[tuple[ObjectKey, str], Mapping[str, str]] = {}
    for located in objects:
        text = _annotation(located)
        if text is None:
            continue
        where = located.location(f'metadata.annotations["{IGNORE}"]')
        reasons, complaints = parse(text)
        troubles.extend(Trouble(where, complaint, fatal=False) for complaint in complaints)
        found[located.key, located.source.name] = reasons
    return found


def _annotation(located: Located) -> str | None:
    metadata = located.value.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    text = annotations.get(IGNORE) if isinstance(annotations, dict) else None
    return text if isinstance(text, str) else None


def parse(text: str) -> tuple[dict[str, str], list[str]]:
    """`ID: reason; ID: reason` as reasons by ID, and a sentence on each entry that is not honoured."""
    reasons: dict[str, str] = {}
    complaints: list[str] = []
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        risk, _, reason = (part.strip() for part in entry.partition(":"))
        if risk not in RISKS:
            import difflib  # noqa: PLC0415 - only a mistake needs it

            near = difflib.get_close_matches(risk, RISKS, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `upstream-guard explain` lists them"
            complaints.append(f"{IGNORE}: there is no finding {risk!r}{hint}")
        elif not reason:
            complaints.append(
                f"{IGNORE}: {risk} is not suppressed, for it has no reason; "
                f'write "{risk}: why it is acceptable here"'
            )
        else:
            reasons[risk] = reason
    return reasons, complaints
