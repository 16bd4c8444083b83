"""What the demo brings up, and what it must leave alone."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from upstream_guard.lab.demo.bench import Bench, Wish, open_bench
from upstream_guard.lab.gateways import GATEWAYS
from upstream_guard.lab.gateways.model import Exposure, RunningGateway, ServiceTarget
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


def test_the_operator_is_told_where_gateways_are_and_that_is_taken_back(tmp_path: Path) -> None:
    """Of a plain gateway, its Services say what leads through it: a second one adds to the first."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$3 $(cat)" >> {tmp_path}/asked\n')
    kubectl.chmod(0o755)
    cluster = replace(a_lab(tmp_path), kubectl=kubectl)
    running = RunningGateway("fake", "127.0.0.1", 8180, metrics_url="http://127.0.0.1:9/metrics")
    bench = Bench(cluster, guarded=True, profiled={"fake": running})
    with patch.dict(GATEWAYS, {"fake": FakeGateway()}):
        bench.expose("fake", "shop", "cart")
        bench.expose("fake", "shop", "till")
        bench.clear()
        bench.clear()
    verbs, bodies = zip(
        *(line.split(" ", 1) for line in (tmp_path / "asked").read_text().splitlines()), strict=True
    )
    assert verbs == ("apply", "apply", "delete")
    told, deleted = json.loads(bodies[1]), json.loads(bodies[2])
    assert told["spec"]["match"] == {"services": ["shop/cart", "shop/till"]}
    assert told["spec"]["address"] == "http://127.0.0.1:8180"
    assert told["spec"]["metrics"] == {"url": "http://127.0.0.1:9/metrics"}
    assert [item["metadata"] for item in deleted["items"]] == [told["metadata"]]


class FakeGateway:
    """Leads anywhere."""

    def expose(self, cluster: Cluster, target: ServiceTarget) -> Exposure:
        return Exposure("127.0.0.1", 8180, target.host)

    def unexpose(self, cluster: Cluster, target: ServiceTarget) -> None:
        return
