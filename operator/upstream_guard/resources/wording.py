"""JSON values in the words of a message."""

from collections.abc import Mapping
from typing import Final

_MAX_QUOTE: Final = 60

_KINDS: Final[tuple[tuple[type[object], str], ...]] = (
    (type(None), "nothing"),
    (bool, "a boolean"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (Mapping, "an object"),
    (list, "a list"),
)


def quote(value: object) -> str:
    """A value for a message: quoted where it is text, and never long."""
    if not isinstance(value, str | int | float | bool):
        return kind_of(value)
    if isinstance(value, bool):
        return str(value).lower()
    shown = repr(value) if isinstance(value, str) else _number(value)
    return shown if len(shown) <= _MAX_QUOTE else f"{shown[:_MAX_QUOTE]}… ({len(shown)} characters)"


def _number(value: float) -> str:
    try:
        return str(value)[:_MAX_QUOTE]
    except ValueError:  # Python writes no integer of more than some thousand digits.
        return "a very large number"


def kind_of(value: object) -> str:
    """The JSON type of a value, in words."""
    return next((name for type_, name in _KINDS if isinstance(value, type_)), "something else")
