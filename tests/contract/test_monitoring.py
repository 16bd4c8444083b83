"""What `kubectl apply -k deploy/monitoring` would apply."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from upstream_guard.lab.tools import ensure_tools

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/monitoring"


@pytest.fixture(scope="module")
def kustomize():
    """Renders a folder; kubectl needs no cluster for it."""
    kubectl = ensure_tools(["kubectl"])["kubectl"]

    def render(folder):
        command = [str(kubectl), "kustomize", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return {item["kind"]: item for item in yaml.safe_load_all(done.stdout)}

    return render


def test_it_renders(kustomize):
    found = kustomize(FOLDER)
    assert set(found) == {"PrometheusRule", "ServiceMonitor", "ConfigMap"}
    for item in found.values():
        assert item["metadata"]["namespace"] == "upstream-guard-system"
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "upstream-guard"
    ((file, dashboard),) = found["ConfigMap"]["data"].items()
    assert file.endswith(".json")
    assert json.loads(dashboard) == json.loads((FOLDER / "grafana-dashboard.json").read_text())
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    assert found["PrometheusRule"]["spec"]["groups"] == groups


def test_the_overlay_of_the_page_sets_label_and_objective(kustomize, tmp_path):
    (overlay,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/alerts.md").read_text(), re.DOTALL)
    here = os.path.relpath(FOLDER, tmp_path.resolve())
    assert "upstream-guard/deploy/monitoring" in overlay
    (tmp_path / "kustomization.yaml").write_text(
        overlay.replace("upstream-guard/deploy/monitoring", here)
    )
    found = kustomize(tmp_path)
    for item in found.values():
        assert item["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    objective = found["PrometheusRule"]["spec"]["groups"][0]["rules"][0]
    assert objective == {"record": "upstream_guard:objective:ratio", "expr": "vector(0.9995)"}
