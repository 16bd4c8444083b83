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


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if isinstance(plain(text), str) else "'"
    if _BREAKS & set(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def block(value: Json) -> str:
    """Over several lines, with a line end at the end."""
    return _dump(value, flow=False)


def flow(value: Json) -> str:
    """On one line, without a line end."""
    return _dump(value, flow=True).removesuffix("\n").removesuffix("\n...")


def _dump(value: Json, *, flow: bool) -> str:
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=1_000_000,
        default_flow_style=flow,
    )
    return text
