"""The YAML that pages recommend is what a real API server accepts, field by field."""

import copy
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from upstream_guard.core.predict.risks import RISKS

OTHERS = ("gateway.networking.k8s.io/", "cert-manager.io/", "kubelet.config.k8s.io/")
"""Custom resources, and a file of the kubelet's."""
ROOT = Path(__file__).parents[2]
NAMESPACE = "pages"


def documents(risk: str) -> Iterator[dict[str, Any]]:
    text = resources.files("upstream_guard").joinpath("pages", f"{risk}.md").read_text("utf-8")
    for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from yaml.safe_load_all(block)


def whole(document: dict[str, Any]) -> dict[str, Any]:
    """The object as it would be after a user has put the part into a Deployment."""
    result = copy.deepcopy(document)
    if result.get("kind", "Deployment") == "Deployment":
        result = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}} | result
        template = result["spec"].setdefault("template", {})
        labels = template.setdefault("metadata", {}).setdefault("labels", {"app": "shop"})
        result["spec"]["selector"] = {"matchLabels": labels}
        containers = template.setdefault("spec", {}).setdefault("containers", [{"name": "shop"}])
        for container in containers:
            container.setdefault("image", "example.org/shop:1.0")
    if "namespace" in result["metadata"]:
        result["metadata"]["namespace"] = NAMESPACE
    return result


@pytest.fixture(scope="module")
def server(apiserver):
    """With our own resources, which some pages show."""
    apiserver.install(ROOT / "crds")
    return apiserver


def accept(apiserver, objects: list[dict[str, Any]]):
    """Try it in a namespace where nothing of another test is."""
    apiserver.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    text = yaml.safe_dump_all(objects)
    return apiserver.kubectl(
        "create", "-n", NAMESPACE, "--dry-run=server", "--validate=strict", "-f", "-", stdin=text
    )


def test_a_wrong_field_would_be_refused(server) -> None:
    part = {"spec": {"template": {"spec": {"gracePeriod": 5}}}}
    result = accept(server, [whole(part)])
    assert not result.ok
    assert "gracePeriod" in result.err


def test_recommended_yaml_is_accepted(server) -> None:
    refused = {}
    seen = 0
    for risk in RISKS:
        objects = [
            whole(d) for d in documents(risk) if not d.get("apiVersion", "").startswith(OTHERS)
        ]
        seen += len(objects)
        if objects and not (result := accept(server, objects)).ok:
            refused[risk] = result.err
    assert not refused
    assert seen > len(RISKS) * 0.8
