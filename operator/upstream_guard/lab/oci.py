"""Container images from files, without an engine or a registry.

The archive is an OCI layout and a Docker archive at once (as `docker save` writes since 25.0), so
that `ctr images import`, `kind load image-archive` and `docker load` all take it. It depends on
nothing but its inputs: the same files give the same bytes.
"""

import hashlib
import io
import json
import os
import platform
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: a whole tree, single files, or both (the files lie over the tree)."""

    tree: Path | None = None
    """Folder whose content becomes the root; owners and modes are kept, device nodes left out."""
    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    """Absolute path in the image → a file on disk or its content; owned by root, mode 0755."""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How a container of the image runs."""

    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()
    user: str = ""
    """`uid`, `uid:gid` or a name in the image; empty is root."""
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"


@dataclass(frozen=True, slots=True)
class _Blob:
    file: IO[bytes]
    digest: str
    size: int

    def descriptor(self, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": f"sha256:{self.digest}", "size": self.size}


def write_image_archive(path: Path, tag: str, layers: Sequence[Layer], config: ImageConfig) -> str:
    """Write an image archive; it appears under `path` whole or not at all.

    Args:
        path: The archive to write.
        tag: Full image name, e.g. `upstreamguard.io/pause:1`.
        layers: From the lowest to the uppermost.
        config: How a container of it runs.

    Returns:
        The image's ID (`sha256:…` of its configuration).

    Raises:
        OSError: if an input cannot be read or the archive not written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    blobs = [_layer_blob(layer) for layer in layers]
    image_config = _json_blob(_image_config(config, blobs))
    manifest = _json_blob(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": image_config.descriptor(_CONFIG),
            "layers": [blob.descriptor(_LAYER) for blob in blobs],
        }
    )
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEX,
        "manifests": [
            manifest.descriptor(_MANIFEST)
            | {
                "annotations": {
                    "io.containerd.image.name": tag,
                    "org.opencontainers.image.ref.name": tag.rpartition(":")[2],
                }
            }
        ],
    }
    docker_manifest = [
        {
            "Config": f"blobs/sha256/{image_config.digest}",
            "RepoTags": [tag],
            "Layers": [f"blobs/sha256/{blob.digest}" for blob in blobs],
        }
    ]
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
            _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
            _add(archive, "index.json", _json(index))
            _add(archive, "manifest.json", _json(docker_manifest))
            for blob in {blob.digest: blob for blob in (*blobs, image_config, manifest)}.values():
                _add_file(archive, f"blobs/sha256/{blob.digest}", blob.file, blob.size)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
        for blob in (*blobs, image_config, manifest):
            blob.file.close()
    return f"sha256:{image_config.digest}"


def image_names(archive: Path) -> tuple[str, ...]:
    """The image names in an archive.

    Raises:
        ValueError: if the file is not an image archive.
        OSError: if it cannot be read.
    """
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile("manifest.json")
            entries = json.load(member) if member else []
        return tuple(name for entry in entries for name in entry.get("RepoTags") or ())
    except (tarfile.TarError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{archive} is not an image archive: {error}") from error


def _image_config(config: ImageConfig, blobs: Sequence[_Blob]) -> dict[str, Any]:
    return {
        "created": _EPOCH,
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "Entrypoint": list(config.entrypoint),
            "Cmd": list(config.command),
            "Env": [f"{key}={value}" for key, value in sorted(config.env.items())],
            "User": config.user,
            "WorkingDir": config.working_dir,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{blob.digest}" for blob in blobs]},
        "history": [{"created": _EPOCH, "created_by": "upstream-guard lab"} for _ in blobs],
    }


def _layer_blob(layer: Layer) -> _Blob:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by write_image_archive
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        if layer.tree is not None:
            _add_tree(tar, layer.tree)
        _add_folders(tar, layer)
        for name, source in sorted(layer.files.items()):
            content = source if isinstance(source, bytes) else source.read_bytes()
            _add(tar, name.lstrip("/"), content, mode=0o755)
    return _finish(file)


def _add_tree(tar: tarfile.TarFile, root: Path) -> None:
    for path in sorted(root.rglob("*")):
        info = tar.gettarinfo(path, arcname=str(path.relative_to(root)))
        if info is None or not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
            continue
        info.mtime, info.uname, info.gname = 0, "", ""
        if info.isfile():
            with path.open("rb") as source:
                tar.addfile(info, source)
        else:
            tar.addfile(info)


def _add_folders(tar: tarfile.TarFile, layer: Layer) -> None:
    """Parents of single files, where the tree has none."""
    wanted = {str(parent) for name in layer.files for parent in Path(name.lstrip("/")).parents}
    for name in sorted(wanted - {"."}):
        if layer.tree is not None and (layer.tree / name).exists():
            continue
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    _add_file(tar, name, io.BytesIO(content), len(content), mode)


def _add_file(
    tar: tarfile.TarFile, name: str, file: IO[bytes], size: int, mode: int = 0o644
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    tar.addfile(info, file)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _json_blob(value: object) -> _Blob:
    return _finish(io.BytesIO(_json(value)))


def _finish(file: IO[bytes]) -> _Blob:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return _Blob(file, digest, size)
