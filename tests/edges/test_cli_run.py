"""`upstream-guard run`: what it says before it begins."""

import pytest

from upstream_guard.cli.run import is_out_of_reach
from upstream_guard.controller.options import Options

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        (Options(), {}, True),
        (Options(), POD, False),
        (Options(webhook_host="192.0.2.7"), {}, False),
        (Options(webhook_port=None), {}, False),
    ],
)
def test_an_unreachable_webhook_is_told(
    options: Options, environ: dict[str, str], expected: bool
) -> None:
    assert is_out_of_reach(options, environ) is expected
