"""What the parsers of our own resources share: strict models, durations, and errors with paths.

A resource may reach us past the API server's schema: from a file (`upstream-guard check`), or stored
under an older or newer CRD. So everything is checked again here, and every complaint names its field
and what to do.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from upstream_guard.core.names import API_VERSION
from upstream_guard.resources.durations import seconds_of
from upstream_guard.resources.wording import kind_of, quote

MAX_PROBLEMS: Final = 20
"""Problems reported of one resource; a hostile one could have thousands."""
MAX_TEXT: Final = 900
"""Characters of all problems in one text: a condition holds 2,048, an event's note 1,024."""
_MAX_PART: Final = 64

RULE: Final = "rule"
"""The pydantic error type of our own messages."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field, and what to do."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ResourceError(ValueError):
    """A resource that cannot be used.

    Attributes:
        problems: At least one, at most `MAX_PROBLEMS`, in the order of the schema. As text they are
            joined, as far as `MAX_TEXT` goes.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        found = tuple(problems)
        if len(found) > MAX_PROBLEMS:
            more = Problem("", f"and {len(found) - MAX_PROBLEMS + 1} more")
            found = (*found[: MAX_PROBLEMS - 1], more)
        self.problems = found
        super().__init__(_joined(found))


def _joined(problems: tuple[Problem, ...]) -> str:
    """All problems in one line that an event can carry."""
    texts = [str(problem) for problem in problems]
    kept = len(texts)
    while kept > 1 and sum(len(text) + 2 for text in texts[:kept]) > MAX_TEXT:
        kept -= 1
    more = [] if kept == len(texts) else [f"and {len(texts) - kept} more"]
    return "; ".join([*texts[:kept], *more])


class GuardError(ResourceError):
    """An UpstreamGuard that cannot be accepted."""


class ProfileError(ResourceError):
    """A GatewayProfile that cannot be used."""


class Strict(BaseModel):
    """A part of a spec: camelCase, exact types, no unknown fields; null counts as left out."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        regex_engine="rust-regex",
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {key: item for key, item in value.items() if item is not None}
        return value


Model = TypeVar("Model", bound=Strict)
Item = TypeVar("Item", int, str)


def validate(model: type[Model], spec: object, error: type[ResourceError]) -> Model:
    """The spec as a model.

    Raises:
        ResourceError: Of the given class, with the problems found.
    """
    try:
        return model.model_validate(spec)
    except ValidationError as invalid:
        # Neither input nor context: only what `_problem` quotes may reach a message.
        details = invalid.errors(include_url=False)
        raise error(_problem(detail) for detail in details) from None


def check_envelope(body: object, kind: str, error: type[ResourceError]) -> Mapping[str, Any]:
    """The resource as a mapping, if it is of our kind and version.

    Raises:
        ResourceError: Of the given class.
    """
    if not isinstance(body, Mapping):
        raise error([Problem("", f"must be an object of kind {kind}, not {kind_of(body)}")])
    wanted = {"apiVersion": API_VERSION, "kind": kind}
    problems = [
        Problem(name, f"must be {value}, not {quote(body[name])}")
        for name, value in wanted.items()
        if body.get(name, value) != value
    ]
    if not isinstance(body.get("metadata", {}), Mapping):
        problems.append(Problem("metadata", "must be an object"))
    if problems:
        raise error(problems)
    return body


def parse_duration(text: object) -> float:
    """Seconds of a duration such as `500ms`, `2s` or `1m30s`.

    Raises:
        PydanticCustomError: It is not one.
    """
    seconds = seconds_of(text)
    if seconds is None:
        raise complaint(f"must be a duration such as 500ms, 2s or 1m, not {quote(text)}")
    return seconds


def duration(least: str, most: str) -> BeforeValidator:
    """The check of a field that holds a duration from `least` to `most`, as seconds."""
    return BeforeValidator(_bounded(least, most))


def duration_or_auto(least: str, most: str) -> BeforeValidator:
    """As `duration`, where `Auto` is allowed and becomes None."""
    bounded = _bounded(least, most)

    def check(text: object) -> float | None:
        if text == "Auto":
            return None
        try:
            return bounded(text)
        except PydanticCustomError as error:
            raise complaint(
                f"must be Auto, or {error.message().removeprefix('must be ')}"
            ) from None

    return BeforeValidator(check)


def text(pattern: str, most: int, what: str) -> BeforeValidator:
    """The check of a field that holds text of at most `most` characters.

    Args:
        pattern: What the whole text must match.
        most: Its greatest length.
        what: What it must be, for the message.
    """
    compiled = re.compile(pattern, re.ASCII)

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise complaint(f"must be {what}, not {kind_of(value)}")
        if len(value) > most:
            raise complaint(f"must be at most {most} characters long, not {len(value)}")
        if not compiled.fullmatch(value):
            raise complaint(f"must be {what}, not {quote(value)}")
        return value

    return BeforeValidator(check)


def check_distinct(values: list[Item]) -> list[Item]:
    """A list in which nothing is named twice.

    Raises:
        PydanticCustomError: Something is.
    """
    if len(set(values)) != len(values):
        raise complaint("must not name anything twice")
    return values


def complaint(message: str) -> PydanticCustomError:
    """An error whose message is ours, word for word."""
    return PydanticCustomError(RULE, "{message}", {"message": message})


def _bounded(least: str, most: str) -> Callable[[object], float]:
    low, high = parse_duration(least), parse_duration(most)

    def check(value: object) -> float:
        seconds = parse_duration(value)
        if not low <= seconds <= high:
            raise complaint(f"must be from {least} to {most}, not {quote(value)}")
        return seconds

    return check


def _problem(detail: ErrorDetails) -> Problem:
    return Problem(_path(detail["loc"]), _message(detail))


def _path(loc: tuple[int | str, ...]) -> str:
    path = "spec"
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part[:_MAX_PART]}"
    return path


_MESSAGES: Final = {
    "missing": "is required",
    "extra_forbidden": (
        f"is not a field of {API_VERSION}; remove it, or install CRDs and operator of the same version"
    ),
    "enum": "must be one of {expected}, not {value}",
    "literal_error": "must be {expected}, not {value}",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "int_type": "must be a whole number, not {value}",
    "list_type": "must be a list, not {kind}",
    "model_type": "must be an object, not {kind}",
    "dict_type": "must be an object, not {kind}",
}
"""Our words for pydantic's error types; what is not listed is told in pydantic's own words."""


def _message(detail: ErrorDetails) -> str:
    value = detail["input"]
    template = _MESSAGES.get(detail["type"])
    if template is None:
        return detail["msg"][:300]
    return template.format(value=quote(value), kind=kind_of(value), **detail.get("ctx") or {})
