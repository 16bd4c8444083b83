"""Values as YAML that Kubernetes reads back as they were."""

from typing import Any, Final

import yaml

from upstream_guard.cli.check.documents import plain

Json = Any


_BREAKS: Final = frozenset("\x85\u2028\u2029")
"""Line ends to YAML, but not to PyYAML's choice of quotes."""


class _Dumper(yaml.SafeDumper):
    """Quotes what Kubernetes would take for a number or a truth (`1e3`, `0o17`), and repeats no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        """Always: anchors would surprise readers of a patch."""
        del data
        return True


class _IndentingDumper(_Dumper):
    """Writes the entries of a list further to the right than its field, as most people do."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """As it is, but never without."""
        del indentless
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if isinstance(plain(text), str) else "'"
    if _BREAKS & set(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _kind in (_Dumper, _IndentingDumper):
    _kind.add_representer(str, _text)


def block(value: Json, *, indented: bool = False) -> str:
    """Over several lines, with a line end at the end.

    Args:
        value: What to write.
        indented: Whether the entries of lists stand further to the right than their field.
    """
    return _dump(value, _IndentingDumper if indented else _Dumper, flow=False)


def flow(value: Json) -> str:
    """On one line, without a line end."""
    return _dump(value, _Dumper, flow=True).removesuffix("\n").removesuffix("\n...")


def _dump(value: Json, dumper: type[yaml.SafeDumper], *, flow: bool) -> str:
    text: str = yaml.dump(
        value,
        Dumper=dumper,
        sort_keys=False,
        allow_unicode=True,
        width=1_000_000,
        default_flow_style=flow,
    )
    return text
