"""Images made of files."""

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from upstream_guard.lab.local import check_archive
from upstream_guard.lab.model import LabError
from upstream_guard.lab.oci import ImageConfig, Layer, image_names, write_image_archive

TAG = "upstreamguard.io/sample:1"
CONFIG = ImageConfig(entrypoint=("/bin/app",), user="1000", env={"B": "2", "A": "1"})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "name").write_text("upstream")
    (root / "etc" / "link").symlink_to("name")
    return root


def read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def blob(files: dict[str, bytes], digest: str) -> bytes:
    content = files[f"blobs/sha256/{digest.removeprefix('sha256:')}"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    return content


def manifest_and_config(files: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    index = json.loads(files["index.json"])
    manifest = json.loads(blob(files, index["manifests"][0]["digest"]))
    return manifest, json.loads(blob(files, manifest["config"]["digest"]))


def test_an_archive_is_oci_layout_and_docker_archive(tree: Path, tmp_path: Path) -> None:
    layer = Layer(tree=tree, files={"/bin/app": b"#!"})
    identity = write_image_archive(tmp_path / "i.tar", TAG, [layer], CONFIG)
    files = read(tmp_path / "i.tar")
    manifest, config = manifest_and_config(files)

    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert manifest["config"]["digest"] == identity
    assert config["config"]["Entrypoint"] == ["/bin/app"]
    assert config["config"]["Env"] == ["A=1", "B=2"]
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    docker = json.loads(files["manifest.json"])[0]
    assert docker["RepoTags"] == [TAG]
    assert docker["Layers"][0] in files
    assert image_names(tmp_path / "i.tar") == (TAG,)


def test_a_layer_holds_tree_and_files(tree: Path, tmp_path: Path) -> None:
    layer = Layer(tree=tree, files={"/bin/app": b"#!", "/etc/extra": b"x"})
    write_image_archive(tmp_path / "i.tar", TAG, [layer], CONFIG)
    files = read(tmp_path / "i.tar")
    manifest, _ = manifest_and_config(files)
    path = tmp_path / "layer.tar"
    path.write_bytes(blob(files, manifest["layers"][0]["digest"]))
    with tarfile.open(path) as tar:
        members = {m.name: m for m in tar}
    assert set(members) == {"etc", "etc/name", "etc/link", "bin", "bin/app", "etc/extra"}
    assert members["etc/link"].issym()
    assert members["bin/app"].mode == 0o755
    assert {m.mtime for m in members.values()} == {0}


def test_the_same_files_give_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    layers = [Layer(tree=tree), Layer(files={"/bin/app": b"#!"})]
    for name, time in (("a.tar", 1), ("b.tar", 1_000_000_000)):
        os.utime(tree / "etc" / "name", (time, time))
        write_image_archive(tmp_path / name, TAG, layers, CONFIG)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_two_equal_layers_are_stored_once(tmp_path: Path) -> None:
    layer = Layer(files={"/a": b"a"})
    write_image_archive(tmp_path / "i.tar", TAG, [layer, layer], CONFIG)
    with tarfile.open(tmp_path / "i.tar") as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))


def test_a_missing_input_leaves_no_archive(tmp_path: Path) -> None:
    layer = Layer(files={"/bin/app": tmp_path / "nowhere"})
    with pytest.raises(FileNotFoundError):
        write_image_archive(tmp_path / "out" / "i.tar", TAG, [layer], CONFIG)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"no tar at all"])
def test_what_is_no_archive_is_said_plainly(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.tar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabError, match=r"broken\.tar"):
        check_archive(path)
