"""Durations as Go and Kubernetes' newer APIs write them: `500ms`, `2s`, `1m30s`."""

import re
from typing import Final

_DURATION: Final = re.compile(r"(?:[0-9]{1,6}(?:\.[0-9]{1,3})?(?:ms|s|m|h)){1,4}", re.ASCII)
_DURATION_PART: Final = re.compile(r"([0-9.]+)(ms|s|m|h)", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: object) -> float | None:
    """Seconds of a duration; None where it is none."""
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
