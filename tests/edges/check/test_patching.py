"""Patches as the API server would apply them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from upstream_guard.cli.check.patching import PatchError, applied
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.window import PatchKind, Remedy

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "shop"},
    "spec": {
        "strategy": {"type": "Recreate", "rollingUpdate": None},
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "web",
                        "image": "web:1",
                        "command": ["run", "--fast"],
                        "ports": [{"containerPort": 80, "name": "http"}],
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                    },
                    {"name": "side", "image": "side:1"},
                ],
                "volumes": [{"name": "v", "emptyDir": {}}],
            }
        },
    },
}


def remedy(patch: object, kind: PatchKind = PatchKind.STRATEGIC) -> Remedy:
    return Remedy("Deployment", ObjectRef("", "shop"), kind, patch, "because")


def containers(value: dict[str, object]) -> list[dict[str, object]]:
    return value["spec"]["template"]["spec"]["containers"]


def pod(patch: object) -> object:
    return {"spec": {"template": {"spec": patch}}}


STRATEGIC = [
    pod({"containers": [{"name": "side", "readinessProbe": {"tcpSocket": {"port": 80}}}]}),
    pod({"containers": [{"name": "new", "image": "new:1"}]}),
    pod({"containers": [{"name": "side", "$patch": "delete"}]}),
    pod(
        {
            "containers": [
                {"name": "web", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]}
            ]
        }
    ),
    pod({"containers": [{"name": "web", "command": ["sleep", "1"]}]}),
    pod(
        {
            "containers": [
                {
                    "name": "web",
                    "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}],
                }
            ]
        }
    ),
    pod({"terminationGracePeriodSeconds": 60, "volumes": [{"name": "w", "emptyDir": {}}]}),
    {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}},
    {"spec": {"strategy": None}},
    {"spec": {"strategy": {"$patch": "replace", "type": "RollingUpdate"}}},
    {"metadata": {"annotations": {"a": "b"}}},
]


def test_containers_are_told_apart_by_name() -> None:
    patched = containers(applied(DEPLOYMENT, remedy(STRATEGIC[0])))
    assert [c["name"] for c in patched] == ["web", "side"]
    assert patched[1]["image"] == "side:1"
    assert patched[1]["readinessProbe"] == {"tcpSocket": {"port": 80}}
    assert "readinessProbe" not in patched[0]


def test_the_original_is_left_alone() -> None:
    before = yaml.safe_dump(DEPLOYMENT)
    for patch in STRATEGIC:
        applied(DEPLOYMENT, remedy(patch))
    assert yaml.safe_dump(DEPLOYMENT) == before


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _by_name(value: object) -> object:
    """kubectl puts new entries of a list in another order, which means nothing."""
    if isinstance(value, dict):
        return {key: _by_name(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        parts = [_by_name(part) for part in value]
        return sorted(parts, key=canonical) if parts and isinstance(parts[0], dict) else parts
    return value


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is the judge")
@pytest.mark.parametrize("patch", STRATEGIC, ids=str)
def test_kubectl_gives_the_same(patch: object, tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(yaml.safe_dump(DEPLOYMENT))
    command = ["kubectl", "patch", "--local", "-f", str(file), "--type", "strategic", "-o", "yaml"]
    done = subprocess.run([*command, "-p", yaml.safe_dump(patch)], capture_output=True, check=True)
    expected = yaml.safe_load(done.stdout)
    assert _by_name(applied(DEPLOYMENT, remedy(patch))) == _by_name(expected)


def test_merge_patches() -> None:
    patched = applied(
        DEPLOYMENT, remedy({"spec": {"strategy": None, "replicas": 2}}, PatchKind.MERGE)
    )
    assert "strategy" not in patched["spec"]
    assert patched["spec"]["replicas"] == 2


def test_json_patches() -> None:
    base = "/spec/template/spec/containers"
    operations = (
        {"op": "test", "path": f"{base}/0/name", "value": "web"},
        {
            "op": "add",
            "path": f"{base}/1/lifecycle",
            "value": {"preStop": {"sleep": {"seconds": 2}}},
        },
        {"op": "replace", "path": f"{base}/0/image", "value": "web:2"},
        {"op": "remove", "path": f"{base}/0/env/0"},
        {"op": "add", "path": f"{base}/0/command/-", "value": "--slow"},
        {"op": "add", "path": "/metadata/annotations", "value": {}},
        {"op": "add", "path": "/metadata/annotations/a~1b", "value": "c"},
    )
    patched = applied(DEPLOYMENT, remedy(operations, PatchKind.JSON))
    web, side = containers(patched)
    assert side["lifecycle"] == {"preStop": {"sleep": {"seconds": 2}}}
    assert (web["image"], web["env"], web["command"]) == (
        "web:2",
        [{"name": "B", "value": "2"}],
        ["run", "--fast", "--slow"],
    )
    assert patched["metadata"]["annotations"] == {"a/b": "c"}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/spec/nothing/here", "value": 1},
        {"op": "remove", "path": "/spec/nothing"},
        {"op": "test", "path": "/metadata/name", "value": "other"},
        {"op": "move", "path": "/metadata/name", "from": "/kind"},
        {"op": "add", "path": "", "value": {}},
    ],
)
def test_a_patch_that_does_not_fit_says_so(operation: dict[str, object]) -> None:
    with pytest.raises(PatchError):
        applied(DEPLOYMENT, remedy((operation,), PatchKind.JSON))
