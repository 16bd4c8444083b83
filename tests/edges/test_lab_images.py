"""Images of the lab: valid archives, the same from the same inputs, kept for the next time."""

import hashlib
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from upstream_guard.lab import images
from upstream_guard.lab.model import LabError
from upstream_guard.lab.oci import ImageConfig, Layer, image_names, write_image_archive
from upstream_guard.lab.report import QuietReporter


class Archive:
    """An image archive, read back as an engine would."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as tar:
            self.files = {
                member.name: tar.extractfile(member).read()  # type: ignore[union-attr]
                for member in tar.getmembers()
                if member.isfile()
            }

    def json(self, name: str) -> Any:
        return json.loads(self.files[name])

    def blob(self, descriptor: Any) -> bytes:
        algorithm, _, value = descriptor["digest"].partition(":")
        content = self.files[f"blobs/{algorithm}/{value}"]
        assert hashlib.sha256(content).hexdigest() == value
        assert len(content) == descriptor["size"]
        return content


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.build_upstream_image(QuietReporter())


def test_the_upstream_image_is_an_oci_layout(upstream: Path) -> None:
    archive = Archive(upstream)
    assert archive.json("oci-layout") == {"imageLayoutVersion": "1.0.0"}
    (entry,) = archive.json("index.json")["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == images.UPSTREAM_IMAGE
    manifest = json.loads(archive.blob(entry))
    config = json.loads(archive.blob(manifest["config"]))
    assert config["config"]["Entrypoint"] == ["/upstream"]
    assert config["config"]["User"] == images.NOBODY
    layers = [archive.blob(layer) for layer in manifest["layers"]]
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    assert config["rootfs"]["diff_ids"] == digests
    assert image_names(upstream) == (images.UPSTREAM_IMAGE,)


def test_the_upstream_is_static_and_alone_in_its_image(upstream: Path, tmp_path: Path) -> None:
    archive = Archive(upstream)
    manifest = json.loads(archive.blob(archive.json("index.json")["manifests"][0]))
    (layer,) = manifest["layers"]
    path = tmp_path / "layer.tar"
    path.write_bytes(archive.blob(layer))
    with tarfile.open(path) as tar:
        files = [member for member in tar.getmembers() if member.isfile()]
        assert {(f.name, stat.S_IMODE(f.mode), f.uid) for f in files} == {
            ("upstream", 0o755, 0),
            ("bin/sleep", 0o755, 0),
        }
        content, sleep = (_content(tar, name) for name in ("upstream", "bin/sleep"))
    assert content == sleep
    assert content.startswith(b"\x7fELF")
    assert b"/lib64/ld-linux" not in content, "it needs a dynamic linker"


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    program = tar.extractfile(name)
    assert program is not None
    return program.read()


def test_a_second_build_is_the_first(upstream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("built twice")

    monkeypatch.setattr(images, "go_build", refuse)
    monkeypatch.setattr(images, "write_image_archive", refuse)
    assert images.build_upstream_image(QuietReporter()) == upstream


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (tree / "link").symlink_to("etc/hosts")
    layers = [Layer(tree=tree, files={"/app/main.py": b"print()\n"})]
    config = ImageConfig(entrypoint=("/bin/sh",), env={"B": "2", "A": "1"})
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    identity = write_image_archive(first, "x.test/app:1", layers, config)
    os.utime(tree / "etc" / "hosts", (1, 1))
    assert write_image_archive(second, "x.test/app:1", layers, config) == identity
    assert first.read_bytes() == second.read_bytes()


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"not a tar")
    with pytest.raises(ValueError, match="not an image archive"):
        image_names(path)


def test_the_digest_tells_contents_and_places_apart(tmp_path: Path) -> None:
    a, b = tmp_path / "a" / "x", tmp_path / "b" / "x"
    for path, text in ((a, "1"), (b, "2")):
        path.parent.mkdir()
        path.write_text(text)
    before = images.digest([a, b])
    assert images.digest([b, a]) == before, "the order does not matter"
    a.write_text("2")
    b.write_text("1")
    assert images.digest([a, b]) != before


def test_the_operators_image_needs_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no Dockerfile"):
        images.build_operator_image(QuietReporter(), tmp_path, repository=tmp_path)


def test_debian_trees_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with (
        pytest.raises(LabError, match="needs root"),
        images.debian_tree(["python3"], QuietReporter()),
    ):
        pass


def test_the_machines_trust_goes_into_the_build_as_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = tmp_path / "ca.crt"
    certificates.write_text("x")
    monkeypatch.setattr(images, "_CERTIFICATES", certificates)
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.test/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    options = images._pip_options(tmp_path)
    assert "--build-arg=PIP_INDEX_URL=https://packages.test/simple" in options
    assert f"--volume={certificates}:{certificates}:ro" in options
    assert f"--build-arg=PIP_FIND_LINKS={tmp_path}" in options
    assert (tmp_path / "pip.conf").read_text() == f"[global]\ncert = {certificates}\n"
