"""What the demo brings up, and what it must leave alone."""

from pathlib import Path

import pytest

from upstream_guard.lab.demo.bench import Wish, open_bench
from upstream_guard.lab.model import CLUSTER_FILE, Cluster, LabError
from upstream_guard.lab.report import QuietReporter


def a_lab(folder: Path, provider: str = "local", context: str = "lab") -> Cluster:
    cluster = Cluster(
        name="upstream-guard-lab", provider=provider, kubeconfig=folder / "kubeconfig",
        context=context, state_dir=folder, kubectl=Path("kubectl"), host_address="",
        nodes=(), service_cidr="",
    )  # fmt: skip
    (folder / CLUSTER_FILE).write_text(cluster.to_json())
    return cluster


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        (("local", "lab"), ("existing", "prod")),
        (("existing", "staging"), ("existing", "prod")),
        (("existing", "staging"), ("kind", None)),
    ],
)
def test_a_lab_that_is_up_is_never_traded_for_another(
    tmp_path: Path, present: tuple[str, str], wanted: tuple[str, str | None]
) -> None:
    a_lab(tmp_path, *present)
    before = sorted(path.name for path in tmp_path.iterdir())
    wish = Wish(
        gateways=(), guarded=False, provider=wanted[0], context=wanted[1], keep=False,
        output=tmp_path / "out",
    )  # fmt: skip
    with (
        pytest.raises(
            LabError, match=r"is up, and another was asked for.*`upstream-guard lab down`"
        ),
        open_bench(wish, QuietReporter(), tmp_path),
    ):
        pytest.fail("the bench opened")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
